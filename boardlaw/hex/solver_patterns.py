"""What the solver sees in a position at a glance: local patterns and virtual connections.

A board is two 64-bit words, ``black`` and ``white``; bit ``r*S + c`` is cell (r, c) as Black sees
the board: Black joins the top row to the bottom one, White the left column to the right one. A set
of cells is always one word, and all cells of it are worked on at once.

A *carrier* is a set of empty cells inside which a player has a winning strategy, whatever the other
colour owns outside it. A move that leaves the opponent's carrier untouched loses: only moves inside
all known carriers, the *must-play region*, are worth a look (Hayward, Bjornsson, Johanson, Kan, Po
and van Rijswijck, Solving 7x7 Hex, 2005).
"""
from typing import NamedTuple

import numpy as np
from numba import njit

from ..bits import trailing_zeros

#: The largest board: one bit of a word is kept for the side to move, so 8x8 does not fit.
MAX_SIZE = 7

_0, _1 = np.uint64(0), np.uint64(1)


class Geometry(NamedTuple):
    """A board size as 64-bit words: its size, its number of cells, and some sets of cells."""
    size: np.uint64
    n_cells: np.uint64
    full: np.uint64
    top: np.uint64
    bottom: np.uint64
    left: np.uint64
    right: np.uint64


def geometry(boardsize):
    """The :class:`Geometry` of a board size."""
    s, line = boardsize, range(boardsize)
    sets = (range(s*s), line, [s*(s - 1) + c for c in line], [s*r for r in line],
            [s*r + s - 1 for r in line])
    words = s, s*s, *(sum(1 << a for a in cells) for cells in sets)
    return Geometry(*(np.uint64(word) for word in words))


@njit(nogil=True, cache=True)
def lowest(x):
    """The first cell of a set, as a set."""
    return x & (~x + _1)


@njit(nogil=True, cache=True)
def index(move):
    """The cell of a set of one cell."""
    return np.int64(trailing_zeros(move))


@njit(nogil=True, cache=True)
def shifts(x, g):
    """For each direction (N NE E S SW W), the cells whose neighbour there is in ``x``."""
    s = g.size
    return (
        (x << s) & g.full,
        ((x & ~g.left) << (s - _1)) & g.full,
        (x & ~g.left) >> _1,
        x >> s,
        (x & ~g.right) >> (s - _1),
        ((x & ~g.right) << _1) & g.full)


@njit(nogil=True, cache=True)
def union(sets):
    """The union of six sets."""
    a, b, c, d, e, f = sets
    return a | b | c | d | e | f


@njit(nogil=True, cache=True)
def neighbours(x, g):
    """The cells next to a cell of ``x``."""
    return union(shifts(x, g))


@njit(nogil=True, cache=True)
def flood(stones, seed, g):
    """The stones connected to a cell of ``seed``."""
    x = seed & stones
    while True:
        y = (x | neighbours(x, g)) & stones
        if y == x:
            return x
        x = y


@njit(nogil=True, cache=True)
def finished(black, white, g):
    """+1 if Black has joined its edges, -1 if White has, else 0."""
    if flood(black, g.top, g) & g.bottom:
        return 1
    if flood(white, g.left, g) & g.right:
        return -1
    return 0


@njit(nogil=True, cache=True)
def around(black, white, for_black, g):
    """For each direction, the cells whose neighbour there is a stone of the colour, or may become.

    Cells beyond an edge count as stones of the edge's colour. Those beyond the corners where two
    edges meet count as Black's: with either colour the same arcs come out.
    """
    if for_black:
        n, ne, e, s, sw, w = shifts(g.full & ~white, g)
        return n | g.top, ne | g.top, e, s | g.bottom, sw | g.bottom, w
    n, ne, e, s, sw, w = shifts(g.full & ~black, g)
    return n, ne | g.right & ~g.top, e | g.right, s, sw | g.left & ~g.bottom, w | g.left


@njit(nogil=True, cache=True)
def local(black, white, black_moves, g):
    """The dead cells, and for each direction the empty cells that the opponent kills by a reply
    there, itself an empty cell.

    A cell matters only if its six neighbours can be filled so that each colour has two separate
    arcs of them: if not, the cell is *dead* and its colour never matters. A move to a cell that a
    reply kills can be passed over: if it wins, then so does another move (Bjornsson, Hayward,
    Johanson and van Rijswijck, Dead cell analysis in Hex and the Shannon game, 2006).
    """
    p0, p1, p2, p3, p4, p5 = around(black, white, black_moves, g)
    q0, q1, q2, q3, q4, q5 = around(black, white, not black_moves, g)
    # tik: the mover may hold directions i and k, and the opponent a cell of both arcs between them
    t02 = p0 & p2 & q1 & (q3 | q4 | q5)
    t13 = p1 & p3 & q2 & (q4 | q5 | q0)
    t24 = p2 & p4 & q3 & (q5 | q0 | q1)
    t35 = p3 & p5 & q4 & (q0 | q1 | q2)
    t04 = p4 & p0 & q5 & (q1 | q2 | q3)
    t15 = p5 & p1 & q0 & (q2 | q3 | q4)
    t03 = p0 & p3 & (q1 | q2) & (q4 | q5)
    t14 = p1 & p4 & (q2 | q3) & (q5 | q0)
    t25 = p2 & p5 & (q3 | q4) & (q0 | q1)
    dead = g.full & ~(t02 | t13 | t24 | t35 | t04 | t15 | t03 | t14 | t25)
    empty = g.full & ~(black | white)
    e0, e1, e2, e3, e4, e5 = shifts(empty, g)
    kills = (
        empty & e0 & ~(t13 | t24 | t35 | t15 | t14 | t25),
        empty & e1 & ~(t02 | t24 | t35 | t04 | t03 | t25),
        empty & e2 & ~(t13 | t35 | t04 | t15 | t03 | t14),
        empty & e3 & ~(t02 | t24 | t04 | t15 | t14 | t25),
        empty & e4 & ~(t02 | t13 | t35 | t15 | t03 | t25),
        empty & e5 & ~(t02 | t13 | t24 | t04 | t03 | t14))
    return dead, kills


@njit(nogil=True, cache=True)
def settle(black, white, g):
    """Black's stones and the dead empty cells, filled so that equal positions meet in the table."""
    dead, _ = local(black, white, True, g)
    return black | dead & ~white


@njit(nogil=True, cache=True)
def replies(x, kills, g):
    """A killing reply to each move of ``x``, given the sets of :func:`local`."""
    one, s = _1, g.size
    n, ne, e, so, sw, w = kills
    out = (x & n) >> s
    x &= ~n
    out |= (x & ne) >> (s - one)
    x &= ~ne
    out |= (x & e) << one
    x &= ~e
    out |= (x & so) << s
    x &= ~so
    out |= (x & sw) << (s - one)
    x &= ~sw
    return out | (x & w) >> one


@njit(nogil=True, cache=True)
def two(x):
    """Two cells of a set, or nothing if it has fewer."""
    first = lowest(x)
    return first | lowest(x ^ first) if x ^ first else _0


@njit(nogil=True, cache=True)
def joined(own, empty, start, end, g):
    """Whether ``own`` joins its edges even if the opponent moves first, and a carrier of that.

    A group grows from the start edge. It takes in another group, or reaches the end edge, where the
    two have two empty cells in common that are not in use: one is the answer to the other. Sound,
    not complete.
    """
    group = flood(own, start, g)
    if group & end:
        return True, _0
    liberties = (start | neighbours(group, g)) & empty
    rest = own & ~group
    todo, used = rest, _0
    while True:
        pair = two(liberties & end)
        if pair:
            return True, used | pair
        if todo == _0:
            return False, used
        other = flood(rest, lowest(todo), g)
        todo &= ~other
        its_liberties = neighbours(other, g) & empty & ~used
        pair = two(liberties & its_liberties)
        if pair:
            used |= pair
            if other & end:
                return True, used
            liberties = (liberties | its_liberties) & ~pair
            rest &= ~other
            todo = rest


@njit(nogil=True, cache=True)
def evaluate(black, white, black_moves, g):
    """What virtual connections tell of a position.

    Returns:
        (+1, carrier, 0) if the mover wins, (-1, carrier, 0) if it loses, else (0, region, used):
        the must-play region, and the union of the opponent's threats that bound it.
    """
    empty = g.full & ~(black | white)
    if black_moves:
        mine, start, end = black, g.top, g.bottom
        theirs, their_start, their_end = white, g.left, g.right
    else:
        mine, start, end = white, g.left, g.right
        theirs, their_start, their_end = black, g.top, g.bottom
    won, carrier = joined(theirs, empty, their_start, their_end, g)
    if won:
        return -1, carrier, _0
    won, carrier = joined(mine, empty, start, end, g)
    if won:
        return 1, carrier, _0
    todo = empty
    while todo:
        move = lowest(todo)
        todo ^= move
        won, carrier = joined(mine | move, empty ^ move, start, end, g)
        if won:
            return 1, carrier | move, _0
    region, used, todo = empty, _0, empty
    while todo:   # a threat: the opponent would win with one move more
        move = lowest(todo)
        todo ^= move
        won, carrier = joined(theirs | move, empty ^ move, their_start, their_end, g)
        carrier |= move
        if won and region & ~carrier:
            region &= carrier
            used |= carrier
            if region == _0:
                return -1, used, _0
    return 0, region, used
