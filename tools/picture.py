"""Draws the README's picture, the published frontiers and their fit: `picture.py OUT.svg`."""
import sys
from pathlib import Path

from boardlaw import style
from boardlaw.paper import data, figures

picture = style.svg(figures.frontiers(data.published()))
# As wide as it is given in a notebook; as a file it needs a width of its own.
Path(sys.argv[1]).write_text(picture.replace('width="100%"', 'width="720"', 1) + '\n', 'utf-8')
