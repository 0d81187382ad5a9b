"""What the widgets of this package share: a view, a board to click on, frames to step through."""
import hashlib
from functools import cached_property
from html import escape

import numpy as np

from .. import notebook
from ..hex import drawing
from ..hex.worlds import PLAYERS
from ..mcts.search import BadSearch


class View:
    """Something that shows itself in a notebook: live where someone sits in front of it.

    Args:
        live: whether to be a widget there; otherwise, and in every stored page, a picture.
    """

    def __init__(self, live=True):
        self.live = live

    def html(self) -> str:
        """What a stored page shows: HTML that needs neither a kernel nor anything else."""
        raise NotImplementedError

    def widget(self):
        """The live view, an ipywidgets widget; always the same one.

        Raises:
            ImportError: ipywidgets is not installed.
        """
        notebook.import_ipywidgets()
        return self._widget

    @cached_property
    def _widget(self):
        return self._make(notebook.import_ipywidgets())

    def _make(self, ipywidgets):
        """Makes the widget."""
        raise NotImplementedError

    def _repr_mimebundle_(self, include=None, exclude=None):
        return notebook.mimebundle(repr(self), self.html(), self.widget, self.live)


class Board:
    """A board whose free cells can be clicked: buttons, transparent, over the drawing.

    They are reached by the tab key and pressed by space or enter, and each is named as its cell.

    Args:
        ipywidgets: the module.
        boardsize: S.
        choose: called with (row, column), in Black's frame, of a cell that was clicked.

    Attributes:
        widget: the ipywidgets widget.
        buttons: (row, column) -> its button.
    """

    def __init__(self, ipywidgets, boardsize, choose):
        self._picture = ipywidgets.HTML()
        (left, top), (right, bottom) = drawing._extent(boardsize)
        width, height = right - left, bottom - top
        self.buttons = {}
        for row, column in np.ndindex(boardsize, boardsize):
            x, y = drawing._centre(row, column)
            place = {'left': (x - left)/width, 'top': (y - top)/height, 'width': 1/width,
                     'height': 1.15/height}
            button = ipywidgets.Button(description=drawing.cell_name(row, column), layout={
                name: f'{100*part:.3f}%' for name, part in place.items()})
            button.add_class('boardlaw-cell')
            button.on_click(lambda _, cell=(row, column): choose(*cell))
            self.buttons[row, column] = button
        self.widget = ipywidgets.Box(
            [ipywidgets.HTML(f'<style>{_STYLE}</style>'), self._picture, *self.buttons.values()],
            layout={'width': f'{min(560, 52*width):.0f}px'})
        self.widget.add_class('boardlaw-board')

    def show(self, world, open=True, **drawn):
        """Draws a position.

        Args:
            world: a world of one game.
            open: whether its free cells may be clicked.
            drawn: what else :func:`boardlaw.hex.drawing.svg` takes.
        """
        self._picture.value = drawing.svg(world, **drawn)
        labels = world.board[0].tolist()
        for (row, column), button in self.buttons.items():
            name, label = drawing.cell_name(row, column), labels[row][column]
            button.disabled = bool(label) or not open
            owner = drawing._OWNER[label]
            button.tooltip = f'{name}, {"free" if owner is None else PLAYERS[owner]}'


def check_one(world):
    """Raises BadSearch unless the world is one game that is not over."""
    if world.n_envs != 1:
        raise BadSearch(f'the world holds {world.n_envs} games: choose one, as world[0]')
    if int(world.winner[0]) >= 0:
        raise BadSearch('the game is over, there is nothing to search')


def move_name(action, seat, boardsize):
    """The cell that an action in the frame of `seat` means, as 'b3'."""
    return drawing.cell_name(*drawing.board_cell(action, seat, boardsize))


def share(v):
    """A value from -1 to 1 as a chance to win, in percent."""
    return f'{50*(1 + float(v)):.0f} %'


def policy_board(world, policy, last=None, **drawn):
    """A position's drawing with a policy as colours and, from 1 % on, as percentages.

    Args:
        policy: `[n_actions]` in the mover's frame.
        drawn: what else :func:`boardlaw.hex.drawing.svg` takes.
    """
    heat = drawing.to_board_frame(policy, int(world.seats[0]))
    labels = np.where(heat >= .005, np.vectorize(lambda p: f'{100*p:.0f}')(heat), '')
    return drawing.svg(world, heat=heat, labels=labels, last=last, **drawn)


def policy_words(world, policy, n=4):
    """The `n` likeliest moves of a policy `[n_actions]` in words."""
    policy = np.asarray(getattr(policy, 'cpu', lambda: policy)())
    order = np.argsort(-policy, kind='stable')[:n]
    seat, size = int(world.seats[0]), world.boardsize
    return ', '.join(f'{move_name(a, seat, size)} {100*float(policy[a]):.1f} %' for a in order
                     if policy[a] >= .0005)


def side_by_side(*figures):
    """(HTML, caption) pairs as figures in a row, which wraps where it is narrow."""
    parts = []
    for body, caption in figures:
        words = ('<figcaption style="font-size:85%;text-align:center;color:inherit">'
                 f'{escape(caption)}</figcaption>' if caption else '')
        parts.append(f'<figure style="margin:0;max-width:100%">{body}{words}</figure>')
    return ('<div style="display:flex;flex-wrap:wrap;gap:1.2em;align-items:flex-start">'
            + ''.join(parts) + '</div>')


def table(frame, digits):
    """A DataFrame as HTML, floats to so many `digits`, nan left blank."""
    frame = frame.copy()
    for name in frame.select_dtypes('float'):
        frame[name] = frame[name].round(digits) + 0.   # no -0
    html = frame.to_html(float_format=f'{{:.{digits}f}}'.format, na_rep='', border=0)
    return html.replace('<table ', '<table style="width:auto;margin:0;text-align:right;'
                        'border-spacing:.6em 0;font-variant-numeric:tabular-nums" ', 1)


def status(text):
    """A line that screen readers announce when it changes."""
    return f'<div role="status" aria-live="polite" style="line-height:1.4">{escape(text)}</div>'


def attempt(draw):
    """What `draw()` returns; if it fails, why, since a callback's exception is shown nowhere."""
    try:
        return draw()
    except Exception as error:
        return status(f'{type(error).__name__}: {error}')


def frames(pages, names, label) -> str:
    """Pictures to step through in a page, with a slider; where scripts are off, the last of them.

    Args:
        pages: pieces of HTML, one shown at a time.
        names: what each shows, in words.
        label: what the slider chooses.
    """
    name = hashlib.sha256(''.join(pages).encode()).hexdigest()[:12]
    body = ''.join(f'<div class="frame" data-name="{escape(name, True)}"'
                   f'{" hidden" * (i < len(pages) - 1)}>{page}</div>'
                   for i, (page, name) in enumerate(zip(pages, names)))
    script = _SCRIPT.replace('NAME', name)
    return (f'<div class="boardlaw-frames" data-frames="{name}"><style>{_FRAMES}</style>'
            f'<div class="controls" hidden><button type="button" class="back">Back</button>'
            f'<input type="range" min="0" max="{len(pages) - 1}" value="{len(pages) - 1}" '
            f'aria-label="{escape(label, True)}"><button type="button" class="on">Next</button>'
            f'</div>{body}<script>{script}</script></div>')


# Widget boxes are flexible boxes that clip what they hold; a board is a plain block whose buttons
# are placed by percentages of its drawing.
_STYLE = '''
.boardlaw-board { display: block; position: relative; max-width: 100%; overflow: visible }
.boardlaw-board > .widget-html { display: block; width: 100%; margin: 0; height: auto }
.boardlaw-board > .widget-html:first-child { display: none }
.boardlaw-board .widget-html-content { display: block; line-height: 0 }
.boardlaw-board svg { display: block; width: 100%; height: auto }
.boardlaw-board > .boardlaw-cell { position: absolute; transform: translate(-50%, -50%); margin: 0;
  padding: 0; min-width: 0; border: 0; box-shadow: none; line-height: 1;
  background: transparent; color: transparent; font-size: 12px; display: flex;
  align-items: center; justify-content: center;
  clip-path: polygon(50% 0, 100% 25%, 100% 75%, 50% 100%, 0 75%, 0 25%) }
.boardlaw-board > .boardlaw-cell:disabled { opacity: 0; cursor: default }
.boardlaw-board > .boardlaw-cell:enabled:is(:hover, :focus-visible) { box-shadow: none;
  background: rgba(0, 114, 178, .85); color: #fff }
'''

_FRAMES = '''
.boardlaw-frames [hidden] { display: none }
.boardlaw-frames .controls { display: flex; gap: .5em; align-items: center; max-width: 30em;
  margin-bottom: .6em }
.boardlaw-frames .controls[hidden] { display: none }
.boardlaw-frames input { flex: 1; min-width: 0; accent-color: currentColor }
.boardlaw-frames button { font: inherit; color: inherit; background: none; cursor: pointer;
  border: 1px solid currentColor; border-radius: .3em; padding: .1em .6em; min-width: 4em }
'''

_SCRIPT = '''
for (const root of document.querySelectorAll('[data-frames="NAME"]:not([data-ready])')) {
  root.dataset.ready = '';
  const shown = [...root.querySelectorAll('.frame')], place = root.querySelector('input');
  const show = k => {
    place.value = Math.max(0, Math.min(shown.length - 1, k));
    shown.forEach((frame, i) => frame.hidden = i !== Number(place.value));
    place.setAttribute('aria-valuetext', shown[place.value].dataset.name);
  };
  place.oninput = () => show(Number(place.value));
  root.querySelector('.back').onclick = () => show(Number(place.value) - 1);
  root.querySelector('.on').onclick = () => show(Number(place.value) + 1);
  root.querySelector('.controls').hidden = false;
  show(0);
}
'''
