"""The rules of Hex on bitboards, compiled.

A game is eight bitboards of ``n_words`` 64-bit words, `[2, 4, n_words]`: for each seat, in that
seat's own frame (in which it joins top to bottom; White's frame is the transposed board), the four
sets named below. Keeping both frames makes the mover's observation a plain copy of bits, and
keeping the joined sets makes a win the moment when one stone belongs to both.
"""
import numpy as np
from numba import njit

from ..bits import njit_uncounted, nth_bit, popcount, trailing_zeros
from ..rng import draw

OWN, OTHER, TOP, BOTTOM = 0, 1, 2, 3   # own stones, the opponent's, own joined to row 0, to row S-1
ONE, WORD = np.uint64(1), np.uint64(63)
# A cell of an observation, its two float32 as one word, by whose stone is there.
_MINE, _THEIRS = np.eye(2, dtype=np.float32).view(np.uint64)[:, 0]


def n_words(boardsize):
    """64-bit words for one bit a cell."""
    return (boardsize**2 + 63)//64


def neighbours(boardsize):
    """The six neighbours of every cell as bitboards, `[S*S, n_words]` uint64."""
    table = np.zeros((boardsize**2, n_words(boardsize)), np.uint64)
    for r in range(boardsize):
        for c in range(boardsize):
            for dr, dc in ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0)):
                if 0 <= r + dr < boardsize and 0 <= c + dc < boardsize:
                    bit = (r + dr)*boardsize + c + dc
                    table[r*boardsize + c, bit//64] |= ONE << np.uint64(bit % 64)
    return table


@njit(inline='always')
def _word(a):
    return a >> 6


@njit(inline='always')
def _bit(a):
    return ONE << (np.uint64(a) & WORD)


@njit(inline='always')
def has(words, a):
    """Whether bit ``a`` of a bitboard is set."""
    return (words[_word(a)] & _bit(a)) != 0


@njit_uncounted(forceinline=True)
def _join(bits, seat, joined, a, on_edge, neighbours, stack):
    """Adds stone ``a``, and what hangs on it, to the set ``joined`` if it touches it."""
    touched = np.uint64(on_edge)
    for i in range(bits.shape[2]):
        touched |= neighbours[a, i] & bits[seat, joined, i]
    if touched == 0:
        return False
    bits[seat, joined, _word(a)] |= _bit(a)
    stack[0] = a
    height = 1
    while height > 0:
        height -= 1
        a = stack[height]
        for i in range(bits.shape[2]):
            new = neighbours[a, i] & bits[seat, OWN, i] & ~bits[seat, joined, i]
            bits[seat, joined, i] |= new
            while new != 0:
                stack[height] = i*64 + np.int64(trailing_zeros(new))
                height += 1
                new &= new - ONE
    return True


@njit(error_model='numpy', inline='always')
def transposed(a, boardsize):
    """The number of cell ``a`` in the other seat's frame."""
    a, boardsize = np.uint32(a), np.uint32(boardsize)   # signed division is several times as slow
    return np.int64(a % boardsize*boardsize + a//boardsize)


@njit_uncounted(nogil=True, error_model='numpy', forceinline=True)
def place(bits, seat, a, boardsize, neighbours, stack):
    """Puts a stone of ``seat`` on cell ``a`` of its own frame; returns whether that wins.

    Args:
        bits: `[2, 4, n_words]` uint64, one game, changed in place.
        stack: `[S*S]` int64, scratch.
    """
    t = transposed(a, boardsize)
    bits[seat, OWN, _word(a)] |= _bit(a)
    bits[1 - seat, OTHER, _word(t)] |= _bit(t)
    top = _join(bits, seat, TOP, a, a < boardsize, neighbours, stack)
    bottom = _join(bits, seat, BOTTOM, a, a >= boardsize*(boardsize - 1), neighbours, stack)
    return top and bottom


@njit(nogil=True, cache=True)
def place_all(bits, seat, cells, boardsize, neighbours):
    """Puts stones of ``seat`` on ``cells`` `[n]` of its own frame, in place."""
    stack = np.empty(boardsize**2, np.int64)
    for a in cells:
        place(bits, seat, a, boardsize, neighbours, stack)


@njit(inline='always')
def write_obs(bits, seat, obs):
    """Unpacks the mover's view: its stones, the opponent's.

    Args:
        obs: `[S*S]` uint64, the memory of `[S*S, 2]` float32: one store a cell instead of two.
    """
    for i in range(bits.shape[2]):
        own, other = bits[seat, OWN, i], bits[seat, OTHER, i]
        for j in range(min(64, len(obs) - i*64)):
            mine, theirs = (own >> np.uint64(j)) & ONE, (other >> np.uint64(j)) & ONE
            obs[i*64 + j] = -mine & _MINE | -theirs & _THEIRS


@njit(inline='always')
def n_empty(bits, n_cells):
    """How many cells are free."""
    stones = np.uint64(0)
    for i in range(bits.shape[2]):
        stones += popcount(bits[0, OWN, i] | bits[0, OTHER, i])
    return n_cells - np.int64(stones)


@njit(inline='always')
def nth_empty(bits, seat, n, n_cells):
    """The ``n``-th free cell of the mover's frame, counting from 0."""
    n = np.uint64(n)
    for i in range(bits.shape[2]):
        free = ~(bits[seat, OWN, i] | bits[seat, OTHER, i])
        here = popcount(free)
        if n < here:
            return i*64 + np.int64(nth_bit(free, n))
        n -= here
    return np.int64(n_cells)


@njit(nogil=True, cache=True)
def observations(bits, seats, start, stop, obs):
    """Writes ``obs`` `[n_envs, S*S]`, as :func:`write_obs` has it, of games start to stop."""
    for e in range(start, stop):
        write_obs(bits[e], seats[e], obs[e])


@njit(nogil=True, cache=True)
def validity(bits, seats, start, stop, valid):
    """`[n_envs, S*S]` bool: free cells in the mover's frame."""
    n_cells = valid.shape[1]
    for e in range(start, stop):
        for i in range(bits.shape[3]):
            free = ~(bits[e, seats[e], OWN, i] | bits[e, seats[e], OTHER, i])
            for j in range(min(64, n_cells - i*64)):
                valid[e, i*64 + j] = ((free >> np.uint64(j)) & ONE) != 0


@njit(nogil=True, cache=True)
def labels(bits, start, stop, board):
    """`[n_envs, S, S]` uint8 labels '.bwTBLR', rows and columns as Black sees them."""
    boardsize = board.shape[1]
    for e in range(start, stop):
        for a in range(boardsize**2):
            r, c = a//boardsize, a % boardsize
            t = c*boardsize + r
            label = 0
            if has(bits[e, 0, OWN], a):
                label = 3 if has(bits[e, 0, TOP], a) else 4 if has(bits[e, 0, BOTTOM], a) else 1
            elif has(bits[e, 1, OWN], t):
                label = 5 if has(bits[e, 1, TOP], t) else 6 if has(bits[e, 1, BOTTOM], t) else 2
            board[e, r, c] = label


@njit(nogil=True, cache=True)
def first_bad(bits, seats, actions, n_cells):
    """The first game whose action is out of range or on a stone; -1 if there is none."""
    for e in range(len(actions)):
        a = actions[e]
        if a < 0 or a >= n_cells:
            return e
        if has(bits[e, seats[e], OWN], a) or has(bits[e, seats[e], OTHER], a):
            return e
    return -1


@njit(inline='always')
def _advance(bits, seat, a, reset, boardsize, neighbours, stack):
    """One move of one game in place; returns (next seat, whether the mover won)."""
    if place(bits, seat, a, boardsize, neighbours, stack):
        if reset:
            bits[:] = 0
            return 0, True
        return 1 - seat, True
    return 1 - seat, False


@njit(inline='always')
def is_over(bits):
    """Whether a seat has joined its edges."""
    both = np.uint64(0)
    for i in range(bits.shape[2]):
        both |= bits[0, TOP, i] & bits[0, BOTTOM, i] | bits[1, TOP, i] & bits[1, BOTTOM, i]
    return both != 0


@njit(nogil=True, cache=True)
def first_over(bits):
    """The first game that is over; -1 if there is none."""
    for e in range(bits.shape[0]):
        if is_over(bits[e]):
            return e
    return -1


@njit(nogil=True, cache=True)
def step(bits, seats, actions, start, stop, reset, boardsize, neighbours, rewards, terminal):
    """Plays ``actions`` in games start to stop, in place. The actions must be free cells.

    Only the move that wins is rewarded, not what is placed on a won board later.
    """
    stack = np.empty(boardsize**2, np.int64)
    for e in range(start, stop):
        seat, over = seats[e], is_over(bits[e])
        seats[e], won = _advance(bits[e], seat, actions[e], reset, boardsize, neighbours, stack)
        won = won and not over
        terminal[e] = won
        rewards[e, seat] = 1 if won else 0
        rewards[e, 1 - seat] = -1 if won else 0


@njit(nogil=True, cache=True)
def random_actions(bits, seats, keys, start, stop, n_cells, actions):
    """A uniformly random free cell for each game."""
    for e in range(start, stop):
        free = n_empty(bits[e], n_cells)
        n = (draw(keys[e], 0) >> np.uint64(32))*np.uint64(free) >> np.uint64(32)
        actions[e] = nth_empty(bits[e], seats[e], n, n_cells)


@njit(nogil=True, cache=True)
def random_steps(bits, seats, keys, n_steps, start, stop, boardsize, neighbours, obs, wins):
    """Plays ``n_steps`` random moves with resets, in place, writing each observation on the way.

    ``obs`` `[slots, S*S]` is a ring that games share: it holds the views of the last games
    written. ``wins`` `[n_envs, 2]` counts finished games by winner.
    """
    stack = np.empty(boardsize**2, np.int64)
    for e in range(start, stop):
        game, seat, view = bits[e], seats[e], obs[e % obs.shape[0]]
        for t in range(n_steps):
            free = n_empty(game, boardsize**2)
            n = (draw(keys[e], t) >> np.uint64(32))*np.uint64(free) >> np.uint64(32)
            a = nth_empty(game, seat, n, boardsize**2)
            mover = seat
            seat, won = _advance(game, seat, a, True, boardsize, neighbours, stack)
            wins[e, mover] += won
            write_obs(game, seat, view)
        seats[e] = seat
