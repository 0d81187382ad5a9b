"""Pictures of Hex boards: SVG for notebooks and pages, the same picture in matplotlib.

Everything is drawn in Black's frame, the board as the rules describe it: row 0 on top, Black's
edges above and below, White's left and right. Columns are lettered and rows numbered from 1, so
that a1 is the cell (row 0, column 0); this is how Hex engines name cells.

A picture brings its own ground, and its outlines stand out from white and from near-black, so it
reads on light and dark pages alike. The players differ in lightness and in hue, which eyes of every
kind can tell apart.

Explained in the chapter book/hex.ipynb.
"""
from functools import cache
from html import escape
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch

from .worlds import LABELS, PLAYERS, BadBoard, Hex

STONE = ('#14202e', '#fffaf2')   # fill of Black's and White's stones and edges
RIM = ('#0072b2', '#d55e00')     # their outlines: blue and vermilion of Okabe and Ito (2008)
CELL, GRID = '#d8d5cd', '#a09b8f'
POSITIVE, NEGATIVE = '#007a5a', '#b0337e'   # heat: cells fade into these with the value

_BAND = .46                      # width of the coloured edges; the unit is one cell to the next
_OWNER = [None] + [0 if x in 'bTB' else 1 for x in LABELS[1:]]


class Polygons(NamedTuple):
    """Closed outlines, or open lines where ``fill`` is None; ``points`` is a list of `[n, 2]`."""
    name: str
    points: list
    fill: str | None
    line: str
    width: float


class Circles(NamedTuple):
    """Discs round ``centres`` `[n, 2]`."""
    name: str
    centres: list
    radius: float
    fill: str
    line: str
    width: float


class Words(NamedTuple):
    """Strings, each centred on its point of ``centres`` `[n, 2]`; ``height`` is the font's."""
    name: str
    centres: list
    strings: list
    height: float
    fill: str


def svg(world_or_board, i=0, *, size=None, coords=True, last=None, heat=None, labels=None) -> str:
    """One board as a self-contained SVG; equal positions give equal text.

    Args:
        world_or_board: a :class:`boardlaw.hex.Hex`, or labels `[S, S]` or `[n_envs, S, S]`.
        i: which game of several.
        size: width in pixels; by default it grows with the board. On a narrow page it shrinks.
        coords: whether to write a, b, c and 1, 2, 3 on the edges.
        last: the cell of the last move, to be marked: (row, column) in Black's frame. See
            :func:`board_cell`.
        heat: `[S, S]` numbers in Black's frame that colour the cells, such as a policy: positive
            ones green, negative ones purple, in full at the largest magnitude; nan is left blank.
            See :func:`to_board_frame`.
        labels: `[S, S]` texts in Black's frame to write into the cells; None or '' for none.

    Raises:
        BadBoard: the board, ``last``, ``heat`` or ``labels`` does not fit.
    """
    board, seat = _position(world_or_board, i)
    shapes = _shapes(board, coords, last, heat, labels)
    (left, top), (right, bottom) = _extent(len(board))
    width, height = right - left, bottom - top
    size = size or min(760, 32*width)
    title, details = _describe(board, seat, last)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{size:.0f}" '
            f'height="{size*height/width:.0f}" style="max-width:100%;height:auto" viewBox="'
            f'{_num(left)} {_num(top)} {_num(width)} {_num(height)}">\n'
            f'<title>{escape(title)}</title>\n<desc>{escape(details)}</desc>\n'
            + '\n'.join(_to_svg(shape) for shape in shapes) + '\n</svg>')


def plot(world_or_board, i=0, ax=None, *, size=None, coords=True, last=None, heat=None,
         labels=None):
    """The picture of :func:`svg` on matplotlib axes, which are returned.

    Args:
        ax: axes to draw on; by default those of a new figure.
        size: width of the new figure in inches.

    The other arguments are those of :func:`svg`.
    """
    from matplotlib import pyplot as plt
    board, _ = _position(world_or_board, i)
    shapes = _shapes(board, coords, last, heat, labels)
    (left, top), (right, bottom) = _extent(len(board))
    if ax is None:
        size = size or min(8, .4*(right - left))
        fig = plt.figure(figsize=(size, size*(bottom - top)/(right - left)))
        ax = fig.add_axes([0, 0, 1, 1])
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect='equal')
    ax.set_axis_off()
    for z, shape in enumerate(shapes):
        _to_axes(shape, ax, z)
    return ax


def gallery(world, limit=8) -> str:
    """The first ``limit`` games of a world as a row of small boards, in HTML."""
    shown, alone = min(limit, world.n_envs), world.n_envs == 1
    figures = ''.join(
        '<figure style="margin:0;text-align:center">'
        + svg(world, i, size=None if alone else 150 + 6*world.boardsize, coords=alone)
        + '<figcaption style="font-size:85%">' + ('' if alone else f'{i}: ')
        + _result(*_position(world, i)) + '</figcaption></figure>'
        for i in range(shown))
    note = f'{world.n_envs} game{"s"*(not alone)} of {world.boardsize}x{world.boardsize} Hex'
    if shown < world.n_envs:
        note += f'; {world.n_envs - shown} not shown'
    return (f'<div><div style="display:flex;flex-wrap:wrap;gap:12px;align-items:flex-end">{figures}'
            f'</div><div style="font-size:85%">{note}</div></div>')


def describe(world_or_board, i=0, last=None) -> str:
    """The position in words: the alternative text of its picture.

    Args:
        world_or_board, i, last: as for :func:`svg`.
    """
    return ' '.join(_describe(*_position(world_or_board, i), last))


def to_board_frame(values, seat):
    """Turns values of cells from the mover's frame into Black's, as a numpy array.

    Args:
        values: `[..., S*S]` such as a policy or visit counts.
        seat: whose frame they are in, an int or `[...]`.

    Returns:
        `[..., S, S]`, rows and columns as Black sees them.
    """
    values, seat = _array(values), _array(seat)
    boardsize = round(sqrt(values.shape[-1]))
    if boardsize**2 != values.shape[-1]:
        raise BadBoard(f'{values.shape[-1]} values do not fill a square board')
    values = values.reshape(*values.shape[:-1], boardsize, boardsize)
    return np.where(seat[..., None, None] == 1, values.swapaxes(-1, -2), values)


def board_cell(action, seat, boardsize):
    """(row, column) in Black's frame of an action of ``seat`` in its own frame."""
    r, c = divmod(int(action), boardsize)
    return (c, r) if seat == 1 else (r, c)


def cell_name(row, column):
    """The engines' name of a cell in Black's frame.

    Args:
        row, column: counted from 0 at the top left.

    >>> cell_name(2, 1)
    'b3'
    """
    return f'{"abcdefghijklmnopqrstuvwxyz"[column]}{row + 1}'


def _array(x):
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def _position(world_or_board, i):
    """(labels `[S, S]`, seat to move or None where unknown)."""
    if isinstance(world_or_board, Hex):
        world = world_or_board[i]
        return world.board[0].cpu().numpy(), int(world.seats[0])
    board = _array(world_or_board)
    board = board[i] if board.ndim == 3 else board
    if board.ndim != 2 or board.shape[0] != board.shape[1] or not len(board):
        raise BadBoard(f'a board is [S, S] labels, got shape {list(board.shape)}')
    if not np.isin(board, range(len(LABELS))).all():
        raise BadBoard(f'labels are 0 to {len(LABELS) - 1}, got {np.unique(board).tolist()}')
    return board.astype(np.uint8), None


def _per_cell(name, values, boardsize, dtype):
    values = np.asarray(_array(values), dtype)
    if values.shape != (boardsize, boardsize):
        raise BadBoard(f'{name} must have shape [{boardsize}, {boardsize}] (to_board_frame makes '
                       f'it), got {list(values.shape)}')
    return values


def _stones(board, seat):
    return [(r, c) for r, c in np.argwhere(board).tolist() if _OWNER[board[r, c]] == seat]


def _winning_path(board, seat):
    """A shortest chain of ``seat`` from edge to edge, as cells; [] if there is none."""
    stones, end = set(_stones(board, seat)), len(board) - 1
    paths = [[cell] for cell in sorted(stones) if cell[seat] == 0]
    stones -= {path[0] for path in paths}
    for path in paths:    # grows while we walk it: breadth first
        r, c = path[-1]
        if path[-1][seat] == end:
            return path
        for cell in ((r-1, c), (r-1, c+1), (r, c-1), (r, c+1), (r+1, c-1), (r+1, c)):
            if cell in stones:
                stones.remove(cell)
                paths.append(path + [cell])
    return []


def _result(board, seat):
    for winner in (0, 1):
        if _winning_path(board, winner):
            return f'{PLAYERS[winner]} has won'
    return f'{PLAYERS[seat]} to move' if seat is not None else ''


def _describe(board, seat, last):
    """(what it is in a sentence, every stone in a few more)."""
    size, result, details = len(board), _result(board, seat), []
    title = f'Hex board, {size}x{size}' + (f': {result}.' if result else '.')
    for player, edges in ((0, 'top to bottom'), (1, 'left to right')):
        cells = [cell_name(*cell) for cell in _stones(board, player)]
        details.append(f'{PLAYERS[player]} ({edges}): {", ".join(cells) or "no stones"}.')
    if last is not None:
        details.append(f'Last move: {cell_name(*_checked_last(board, last))}.')
    return title, ' '.join(details)


def _checked_last(board, last):
    try:
        r, c = (int(x) for x in last)
        if min(r, c) >= 0 and board[r, c]:
            return r, c
    except (TypeError, ValueError, IndexError):
        pass
    raise BadBoard(f'last is the (row, column) of a stone in Black\'s frame, got {last!r}')


# Geometry: x to the right, y down, one unit from the centre of a cell to the next. Each row starts
# half a cell to the right of the one above, which makes the six neighbours of the rules touch.

_HEIGHT, _SIDE = sqrt(3)/2, 1/sqrt(3)
_CORNERS = np.array([(0, -_SIDE), (.5, -_SIDE/2), (.5, _SIDE/2),   # clockwise from the top
                     (0, _SIDE), (-.5, _SIDE/2), (-.5, -_SIDE/2)])


def _centre(r, c):
    return np.array([c + r/2, r*_HEIGHT])


def _edges(boardsize):
    """The outlines of the four edges: top and bottom (Black's), left and right (White's).

    The board's outline is walked clockwise and pushed outwards. The players meet at the tips of the
    two acute corners, and halfway along the side that the cell at an obtuse corner has for both.
    """
    end, along = boardsize - 1, range(boardsize)
    top = [_centre(0, c) + _CORNERS[k] for c in along for k in (5, 0)]
    right = [_centre(r, end) + _CORNERS[k] for r in along for k in (1, 2)]
    bottom = [_centre(end, c) + _CORNERS[k] for c in reversed(along) for k in (2, 3)][1:]
    left = [_centre(r, 0) + _CORNERS[k] for r in reversed(along) for k in (4, 5)][:-1]
    top, bottom = top + [(top[-1] + right[0])/2], bottom + [(bottom[-1] + left[0])/2]
    inner = np.array(top + right + bottom + left)
    ahead = np.roll(inner, -1, 0) - inner
    normal = np.stack([ahead[:, 1], -ahead[:, 0]], 1)/np.linalg.norm(ahead, axis=1, keepdims=True)
    before = np.roll(normal, 1, 0)
    mitre = (normal + before)/(1 + (normal*before).sum(1, keepdims=True))
    outer = inner + _BAND*mitre
    quarters = [np.arange(2*boardsize*q, 2*boardsize*(q + 1) + 1) % len(inner) for q in range(4)]
    top, right, bottom, left = (np.concatenate([inner[k], outer[k[::-1]]]) for k in quarters)
    return (top, bottom), (left, right)


def _extent(boardsize):
    """((left, top), (right, bottom)) of a drawing."""
    points = np.concatenate(sum(_edges(boardsize), ()))
    return points.min(0) - .06, points.max(0) + .06


def _shapes(board, coords, last, heat, labels):
    """What to draw, from the bottom up."""
    size = len(board)
    cells = [(r, c) for r in range(size) for c in range(size)]
    shapes = [Polygons(f'edge {PLAYERS[seat].lower()}', list(edges), STONE[seat], RIM[seat], .07)
              for seat, edges in enumerate(_edges(size))]
    fills = _fills(size, heat)
    for fill in sorted(set(fills.values())):
        hexagons = [_centre(*cell) + _CORNERS for cell in cells if fills[cell] == fill]
        shapes.append(Polygons('cells', hexagons, fill, GRID, .04))
    if coords:
        shapes += _coordinates(size)
    for seat in (0, 1):
        if (path := [_centre(*cell) for cell in _winning_path(board, seat)]):
            shapes.append(Polygons('path', [path], None, RIM[seat], .26))
        if (stones := [_centre(*cell) for cell in _stones(board, seat)]):
            shapes.append(Circles(f'stone {PLAYERS[seat].lower()}', stones, .37, STONE[seat],
                                  RIM[seat], .09))
    if last is not None:
        r, c = _checked_last(board, last)
        mark = STONE[1 - _OWNER[board[r, c]]]
        shapes.append(Circles('last', [_centre(r, c)], .12, mark, mark, 0))
    return shapes + _labels(board, labels, fills)


def _fills(boardsize, heat):
    """The colour of every cell."""
    fills = {(r, c): CELL for r in range(boardsize) for c in range(boardsize)}
    if heat is None:
        return fills
    heat = np.nan_to_num(_per_cell('heat', heat, boardsize, float), posinf=0, neginf=0)
    largest = np.abs(heat).max() or 1
    for cell in fills:
        strength = round(abs(heat[cell])/largest*32)/32
        fills[cell] = _mix(CELL, POSITIVE if heat[cell] > 0 else NEGATIVE, strength)
    return fills


def _mix(a, b, t):
    """The colour a fraction ``t`` of the way from ``a`` to ``b``."""
    return '#' + ''.join(f'{round(p + (q - p)*t):02x}' for p, q in zip(_rgb(a), _rgb(b)))


def _is_dark(colour):
    return bool(np.dot(_rgb(colour), (.299, .587, .114)) < 128)


def _rgb(colour):
    return [int(colour[k:k + 2], 16) for k in (1, 3, 5)]


def _coordinates(boardsize):
    """Letters on the top edge, numbers on the left one, each in line with its column or row."""
    out = .5 + _BAND/2
    columns = [_centre(0, k) - out*np.array([.5, _HEIGHT]) for k in range(boardsize)]
    rows = [_centre(k, 0) - [out, 0] for k in range(boardsize)]
    letters, numbers = zip(*[(cell_name(k, k)[0], cell_name(k, k)[1:]) for k in range(boardsize)])
    return [Words('columns', columns, letters, .34, STONE[1]),
            Words('rows', rows, numbers, .34, STONE[0])]


def _labels(board, labels, fills):
    if labels is None:
        return []
    labels = _per_cell('labels', labels, len(board), object)
    looks = {}   # words of one length and ink go together
    for cell, fill in fills.items():
        if (text := '' if labels[cell] is None else str(labels[cell])):
            ground = STONE[_OWNER[board[cell]]] if board[cell] else fill
            looks.setdefault((len(text), STONE[_is_dark(ground)]), []).append((cell, text))
    return [Words('label', [_centre(*cell) for cell, _ in words], [text for _, text in words],
                  min(.42, 1.2/length), ink) for (length, ink), words in sorted(looks.items())]


def _num(x):
    text = f'{x:.3f}'.rstrip('0').rstrip('.')
    return '0' if text == '-0' else text


def _to_svg(shape):
    if isinstance(shape, Words):
        words = ''.join(f'<text x="{_num(x)}" y="{_num(y)}" dy=".35em">{escape(s)}</text>'
                        for (x, y), s in zip(shape.centres, shape.strings))
        return (f'<g class="{shape.name}" fill="{shape.fill}" font-size="{_num(shape.height)}" '
                f'font-family="system-ui,sans-serif" text-anchor="middle">{words}</g>')
    style = (f'class="{shape.name}" fill="{shape.fill or "none"}" stroke="{shape.line}" '
             f'stroke-width="{_num(shape.width)}" stroke-linejoin="round" stroke-linecap="round"')
    if isinstance(shape, Circles):
        circles = ''.join(f'<circle cx="{_num(x)}" cy="{_num(y)}" r="{_num(shape.radius)}"/>'
                          for x, y in shape.centres)
        return f'<g {style}>{circles}</g>'
    close = 'z' if shape.fill else ''
    path = ''.join('M' + 'L'.join(f'{_num(x)} {_num(y)}' for x, y in points) + close
                   for points in shape.points)
    return f'<path {style} d="{path}"/>'


def _to_axes(shape, ax, z):
    from matplotlib import collections, patches, path, textpath, transforms
    if isinstance(shape, Words):
        for centre, string in zip(shape.centres, shape.strings):
            outline = textpath.TextPath((0, 0), string, size=shape.height)
            box = outline.get_extents()
            # The axis runs down, glyphs up; capitals of this font are .73 high.
            place = transforms.Affine2D().translate(-(box.x0 + box.x1)/2, -.73*shape.height/2)
            place = place.scale(1, -1).translate(*centre)
            ax.add_patch(patches.PathPatch(place.transform_path(outline), fc=shape.fill, lw=0,
                                           zorder=z))
        return
    if isinstance(shape, Circles):
        paths = [path.Path.circle(centre, shape.radius) for centre in shape.centres]
    else:
        ring = bool(shape.fill)
        paths = [path.Path([*points, *points[:ring]], closed=ring) for points in shape.points]
    ax.add_collection(_in_cells(collections.PathCollection)(
        paths, facecolor=shape.fill or 'none', edgecolor=shape.line, linewidth=shape.width,
        joinstyle='round', capstyle='round', zorder=z, label='_' + shape.name))


@cache
def _in_cells(base):
    """A matplotlib collection whose line width is in cells of the board, not in points."""
    class InCells(base):
        def draw(self, renderer):
            cell = np.ptp(self.axes.transData.transform([(0, 0), (1, 0)])[:, 0])
            widths = self.get_linewidth()
            self.set_linewidth(widths*cell*72/self.figure.dpi)
            super().draw(renderer)
            self.set_linewidth(widths)
            self.stale = False
    return InCells
