"""How the figures look: one colour a board size, direct labels, vector pictures with alt text.

A figure is an opaque white card. Dark ink on white is what print wants, it leaves the lines their
whole range of lightness (which is what tells them apart in every kind of colour vision), and it
reads the same on a light page and on a dark one.

    fig, ax = style.subplots()
    ax.plot(hours, elo, color=style.boardsize_color(9))
    style.show(fig, alt='Elo rises for five hours, then stays flat.', source='replica')

Explained in the chapter book/scaling.ipynb.
"""
import re
from hashlib import sha1
from html import escape
from io import StringIO
from numbers import Integral

import matplotlib
import numpy as np
from matplotlib import figure, patheffects, ticker
from matplotlib.colors import to_hex, to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from scipy.optimize import isotonic_regression

# Sizes 3 to 9, those of the paper, run from dark to light and from blue to orange; 10 to 13 go on
# to dark green. Any two differ by at least 10 CIELAB units in normal vision and under full
# protanopia, deuteranopia and tritanopia (Machado et al. 2009); each has a contrast of 3 on white.
_BOARDSIZES = dict(zip(range(3, 14), [
    '#01297a', '#4c08a4', '#7d0a9b', '#aa0d85', '#d21164', '#ee3631', '#ea7113',
    '#a67537', '#78650e', '#475405', '#04420f']))

INK, MUTED, GRID, PAPER = '#24292f', '#656d76', '#e4e7eb', '#ffffff'
WIDTH = 4.8     # inches; at 340 pixels, a phone, the text is still 10 pixels high

SOURCES = {
    'published': 'Data: published curves (Jones 2021).',
    'replica': 'Data: our own runs.',
    'database': 'Data: the evaluation database of 2021.',
}

RC = {
    'font.family': 'DejaVu Sans', 'font.size': 10, 'mathtext.fontset': 'dejavusans',
    'text.color': INK, 'axes.labelcolor': INK, 'axes.edgecolor': MUTED,
    'xtick.color': MUTED, 'ytick.color': MUTED, 'xtick.labelcolor': INK, 'ytick.labelcolor': INK,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.linewidth': .8,
    'axes.grid': True, 'axes.axisbelow': True, 'grid.color': GRID, 'grid.linewidth': .8,
    'axes.titlesize': 10, 'axes.titlelocation': 'left', 'axes.titlepad': 9,
    'axes.labelsize': 10, 'xtick.labelsize': 9.5, 'ytick.labelsize': 9.5,
    'xtick.minor.visible': False, 'ytick.minor.visible': False,
    'lines.linewidth': 1.8, 'lines.solid_capstyle': 'round', 'legend.frameon': False,
    'figure.facecolor': PAPER, 'axes.facecolor': PAPER, 'savefig.facecolor': PAPER,
    'figure.figsize': (WIDTH, 3.4), 'figure.constrained_layout.use': True, 'figure.dpi': 144,
    'svg.fonttype': 'path', 'svg.hashsalt': 'boardlaw',
}


def use():
    """Makes the style matplotlib's default, for figures that a notebook draws by itself."""
    matplotlib.rcParams.update(RC)


def boardsize_color(boardsize) -> str:
    """The colour of a board size from 3 to 13, as '#rrggbb': the same in every figure."""
    if not isinstance(boardsize, Integral) or boardsize not in _BOARDSIZES:
        raise ValueError(f'board sizes from 3 to 13 have a colour, got {boardsize!r}')
    return _BOARDSIZES[boardsize]


def boardsize_name(boardsize) -> str:
    """'9×9' for 9."""
    return f'{boardsize}×{boardsize}'


def listed(words) -> str:
    """Words as a sentence lists them; nothing is said of none.

    >>> print(listed(map(boardsize_name, (7, 8, 9))))
    7×7, 8×8 and 9×9
    """
    *others, last = [*map(str, words)] or ['']
    return f'{", ".join(others)} and {last}' if others else last


def contrast(color, ground=PAPER) -> float:
    """The contrast ratio of `color` on a `ground` by WCAG 2, from 1 to 21.

    >>> print(contrast('black', 'white'))
    21.0
    """
    light, dark = sorted(map(_luminance, (color, ground)), reverse=True)
    return (light + .05)/(dark + .05)


def text_color(color, least=4.5) -> str:
    """`color` darkened until text in it has at least that contrast on white."""
    rgb = np.array(to_rgb(color))
    while contrast(rgb) < least:
        rgb = .97*rgb
    return to_hex(rgb)


def _luminance(color):
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= .04045, rgb/12.92, ((rgb + .055)/1.055)**2.4)
    return linear @ [.2126, .7152, .0722]


class Figure(figure.Figure):
    """A matplotlib figure that a notebook shows as vector graphics with its alt text.

    Attributes:
        alt: what the figure shows, in words; see :func:`describe`.
        source: a key of `SOURCES`, or a sentence, that says where the data are from; or None.
    """
    alt: str | None = None
    source: str | None = None

    savefig = matplotlib.rc_context(RC)(figure.Figure.savefig)  # ticks are made when it is drawn

    def _ipython_display_(self):
        # Not `_repr_mimebundle_`: pyplot's inline backend would add a picture of pixels to it.
        from IPython.display import display
        display(show(self))


def subplots(height=3.4, width=WIDTH, **kwargs):
    """A new :class:`Figure` of `width` x `height` inches in this style, and its axes.

    Further arguments (`kwargs`) go to matplotlib's `Figure.subplots`. The figure is not pyplot's:
    nothing global changes, and it goes when its last reference goes.
    """
    with matplotlib.rc_context(RC):
        fig = Figure(figsize=(width, height))
        return fig, fig.subplots(**kwargs)


def describe(fig, alt, source=None):
    """Attaches to a figure what it shows (`alt`), for those who cannot see it, and its source.

    Args:
        alt, source: as for :func:`show`.
    """
    if not (isinstance(alt, str) and alt.strip()):
        raise ValueError('alt must say in words what the figure shows')
    fig.alt, fig.source = ' '.join(alt.split()), source
    return fig


class Picture:
    """A figure as HTML: a white card with the SVG, its alt text and its source."""

    def __init__(self, html, alt):
        self.html, self.alt = html, alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {'text/html': self.html, 'text/plain': self.alt}

    def __repr__(self):
        return f'Picture({self.alt!r})'


def show(fig, alt=None, source=None) -> Picture:
    """A figure, of this module or of pyplot, as something that a notebook displays.

    Args:
        fig: any matplotlib figure.
        alt: what it shows, in words; not needed where :func:`describe` has said so.
        source: where the data are from: a key of `SOURCES` or a sentence.

    Raises:
        ValueError: the figure has no alt text.
    """
    alt = alt or getattr(fig, 'alt', None)
    source = source or getattr(fig, 'source', None)
    describe(fig, alt, source)
    note = SOURCES.get(source, source)
    note = '' if note is None else ('<div style="padding:.3em .2em 0;font-size:.82em;text-align:'
                                    f'left;color:{MUTED}">{escape(note)}</div>')
    html = (f'<div class="boardlaw-figure" style="max-width:580px;box-sizing:border-box;'
            f'padding:.4em;border-radius:4px;background:{PAPER};color:{INK}">{svg(fig)}{note}</div>')
    _close(fig)
    return Picture(html, fig.alt)


def _close(fig):
    """Keeps pyplot from showing a figure of its own a second time."""
    if getattr(fig, 'number', None) is not None:
        from matplotlib import pyplot
        pyplot.close(fig)


def svg(fig) -> str:
    """A figure as the text of an SVG file: equal figures give equal text.

    It scales to the width it is given. Its ids begin with a digest of its content, so that several
    can share a page.
    """
    out = StringIO()
    with matplotlib.rc_context({k: v for k, v in RC.items() if k.startswith('svg.')}):
        fig.savefig(out, format='svg', facecolor=fig.get_facecolor(),
                    metadata=dict.fromkeys(['Creator', 'Date', 'Format', 'Type']))
    # Without the prologue, the style sheet (it would hold for the whole page) and the comments.
    body = re.sub(r'^.*?<svg[^>]*>|<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>|<!--.*?-->',
                  '', out.getvalue(), flags=re.S).strip()
    body = re.sub(r'(?<= d=")[^"]+|(?<= [xy]=")[^"]+', _shorten, body)
    body = re.sub(r'\s*\n\s*', '\n', body)
    prefix = 'f' + sha1(body.encode()).hexdigest()[:8] + '-'
    body = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf'\g<1>{prefix}', body)
    alt = getattr(fig, 'alt', None)
    label = f'role="img" aria-label="{escape(alt)}"' if alt else 'aria-hidden="true"'
    width, height = fig.get_size_inches()*72
    return ('<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width:g} {height:g}" width="100%" {label} '
            f'style="stroke-linejoin:round;stroke-linecap:butt">\n{body}')


def _shorten(match):
    """Coordinates to a hundredth of a point."""
    return re.sub(r'-?\d+\.\d{3,}', lambda x: f'{float(x[0]):.2f}'.rstrip('0').rstrip('.'),
                  ' '.join(match[0].split()))


def spread(values, gap):
    """The values nearest to `values` (least squares) of which no two are closer than `gap`.

    Their order is kept. To place labels: `[n]` heights in, `[n]` heights out.
    """
    values = np.asarray(values, float)
    order = np.argsort(values, kind='stable')
    steps = gap*np.arange(len(values))
    moved = np.empty_like(values)
    moved[order] = isotonic_regression(values[order] - steps).x + steps if len(values) else []
    return moved


def label(ax, x, y, text, color=INK, dx=5, dy=0, **kwargs):
    """Writes `text` beside the point (x, y), `dx` and `dy` printer's points away from it.

    A halo of the ground's colour keeps it legible where lines pass below it.

    Args:
        ax: axes to write on.
        color: of what is named; the text's is that, dark enough to read.
        kwargs: what else matplotlib's `Axes.annotate` takes.
    """
    ha = 'left' if dx > 0 else 'right' if dx < 0 else 'center'
    va = 'center' if dy == 0 else 'bottom' if dy > 0 else 'top'
    halo = [patheffects.withStroke(linewidth=2.5, foreground=PAPER)]
    return ax.annotate(text, (x, y), (dx, dy), textcoords='offset points', annotation_clip=False,
                       color=text_color(color), path_effects=halo,
                       **{'ha': ha, 'va': va, 'weight': 'bold', **kwargs})


def label_lines(ax, points, side='right', size=10, dx=5):
    """Names lines at their ends, the names moved up or down where they would overlap.

    Args:
        ax: axes whose limits and scales are final.
        points: a list of (x, y, text, color), one a line.
        side: 'right' or 'left' of the points.
        size: of the text, in printer's points.
        dx: the distance from the end, in printer's points.
    """
    ax.figure.draw_without_rendering()
    heights = _on_paper(ax, [p[0] for p in points], [p[1] for p in points])[:, 1]
    for (x, y, text, color), old, new in zip(points, heights, spread(heights, 1.25*size)):
        label(ax, x, y, text, color, dx=dx if side == 'right' else -dx, dy=new - old,
              va='center', size=size)


def label_clear(ax, points, size=10, gap=5):
    """Names points where the axes' lines and markers, and each other, leave most room: beside,
    above or below, the nearer of two places that are as free.

    Args:
        ax: axes whose limits, scales and lines are final.
        points: a list of (x, y, text, color).
        size: of the text, in printer's points.
        gap: the least between a point and its name, in printer's points; tried up to three times.
    """
    ax.figure.draw_without_rendering()
    taken = np.concatenate([_ink(ax, line) for line in ax.lines])
    sides = [np.array([h, v]) for v in (0, 1, -1) for h in (1, -1, 0) if h or v]
    for x, y, text, color in points:
        (at,) = _on_paper(ax, [x], [y])
        box = TextPath((0, 0), text, size, prop=FontProperties(weight='bold')).get_extents()
        half = np.array([box.width, size])/2
        shifts = [side*(half + k*gap) for k in (1, 2, 3) for side in sides]
        crowds = [(np.abs(taken - at - shift) < half + 1).all(1).sum() for shift in shifts]
        shift = shifts[int(np.argmin(crowds))]
        label(ax, x, y, text, color, *shift, ha='center', va='center', size=size)
        corner = at + shift - half
        taken = np.concatenate([taken, _dense(np.array([corner, corner + 2*half]), 1.)])


def _ink(ax, line):
    """Points `[n, 2]` of the page that a line of the axes and its markers cover."""
    at = line.get_transform().transform(line.get_xydata())*72/ax.figure.dpi
    at = at[np.isfinite(at).all(1)]
    covered = [at]
    if line.get_linestyle() != 'None':
        covered.append(_dense(at))
    if line.get_marker() not in ('None', None, '', ' '):
        angles = np.linspace(0, 2*np.pi, 8, endpoint=False)
        rim = line.get_markersize()/2*np.stack([np.cos(angles), np.sin(angles)], 1)
        covered.append((at[:, None] + rim).reshape(-1, 2))
    return np.concatenate(covered)


def legend(ax, loc, size=10, **kwargs):
    """A legend of coloured words alone: a dot or a dash beside them would read as one of the data.

    Args:
        ax: axes whose lines have labels.
        loc: where, as matplotlib names it: 'lower right'.
        size: of the text, in printer's points.
        kwargs: what else matplotlib's `Axes.legend` takes.
    """
    made = ax.legend(loc=loc, handlelength=0, handletextpad=0, frameon=False, **{
        'prop': {'weight': 'bold', 'size': size}, 'labelspacing': .3, **kwargs})
    for handle, text in zip(made.legend_handles, made.get_texts()):
        text.set_color(text_color(handle.get_color()))
        handle.set_visible(False)
    return made


def _on_paper(ax, x, y):
    """Data coordinates as printer's points `[n, 2]` of the page, as it was last laid out."""
    return ax.transData.transform(np.stack([x, y], 1).astype(float))*72/ax.figure.dpi


def _dense(path, step=2.):
    """Points along a polyline `[n, 2]`, `step` apart; parts that are not finite are left out."""
    path = path[np.isfinite(path).all(1)]
    if len(path) < 2:
        return path
    along = np.concatenate([[0], np.hypot(*np.diff(path, axis=0).T).cumsum()])
    at = np.arange(0, along[-1] + step, step)
    return np.stack([np.interp(at, along, path[:, 0]), np.interp(at, along, path[:, 1])], 1)


drawn = matplotlib.rc_context(RC)
"""Decorates a function that draws, so that what it adds to a figure is in this style."""


def title(ax, text, note=None):
    """Names the vertical axis of `ax` above it, where no one has to tilt their head.

    Args:
        text: its name.
        note: what stands below that, smaller.
    """
    ax.set_title(text, color=INK, loc='left', size=RC['axes.titlesize'],
                 pad=22 if note else RC['axes.titlepad'])
    if note:
        ax.annotate(note, (0, 1), (0, 8), xycoords='axes fraction', textcoords='offset points',
                    color=MUTED, size=9, annotation_clip=False)


def log_axis(axis, every=1, subs=(1,), percent=False):
    """Ticks of a logarithmic axis: at every `every`-th power of ten, times each of `subs`.

    With `percent` a value of .05 reads 5%; otherwise powers of ten are written as such.
    """
    axis.set_major_locator(ticker.LogLocator(base=10**every, subs=subs, numticks=99))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f'{100*x:g}%') if percent
                             else ticker.LogFormatterMathtext())


def boardsize_axis(axis, boardsizes):
    """Ticks '3×3', '4×4', .. on an `axis` at the `boardsizes`."""
    axis.set_major_locator(ticker.FixedLocator(sorted(boardsizes)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda s, _: boardsize_name(round(s))))


def shades(ranks):
    """Colours for things other than board sizes, from light to dark with their rank.

    Args:
        ranks: a mapping (or Series) from names to numbers.

    Returns:
        A dict from names to '#rrggbb'.
    """
    ranks = dict(ranks)
    low, high = min(ranks.values()), max(ranks.values())
    return {name: to_hex(matplotlib.colormaps['viridis'](.58*(high - x)/max(high - low, 1e-9)))
            for name, x in ranks.items()}
