"""The rules of Hex on a GPU: :mod:`boardlaw.hex.kernels` in Triton, on the same bitboards.

A lane is a game. Joined sets grow by shifting whole bitboards to their neighbours, so that the
lanes of a warp do the same work whatever their boards look like. Three words hold a 13x13 board;
of those that a board does not need, nothing is computed.
"""
from functools import cache

import torch
import triton
import triton.language as tl

from ..gpu_rng import draw
from .kernels import n_words

#: The board sizes that these kernels cover.
BOARDSIZES = range(1, 14)

OWN, OTHER, TOP, BOTTOM = (tl.constexpr(i) for i in range(4))   # as in boardlaw.hex.kernels
_GAMES, _CELLS = 32, 512   # lanes of a program: games, or cells of an observation


@cache
def geometry(boardsize):
    """What the kernels are compiled for, by parameter: size, words, and the columns as bitboards.

    ``L0``.. are all cells but those of the first column, ``R0``.. all but those of the last.
    """
    columns = {}
    for name, column in [('L', 0), ('R', boardsize - 1)]:
        cells = sum(1 << a for a in range(boardsize**2) if a % boardsize != column)
        columns |= {f'{name}{i}': cells >> 64*i & 2**64 - 1 for i in range(3)}
    return {'S': boardsize, 'W': n_words(boardsize), **columns}


@triton.jit
def load_words(pointer, mask, W: tl.constexpr):
    """A bitboard a lane: three words, 0 where there are fewer."""
    x0 = tl.load(pointer, mask=mask, other=0).to(tl.uint64, bitcast=True)
    x1, x2 = tl.zeros_like(x0), tl.zeros_like(x0)
    if W > 1:
        x1 = tl.load(pointer + 1, mask=mask, other=0).to(tl.uint64, bitcast=True)
    if W > 2:
        x2 = tl.load(pointer + 2, mask=mask, other=0).to(tl.uint64, bitcast=True)
    return x0, x1, x2


@triton.jit
def _store_words(pointer, x0, x1, x2, mask, W: tl.constexpr):
    tl.store(pointer, x0.to(tl.int64, bitcast=True), mask=mask)
    if W > 1:
        tl.store(pointer + 1, x1.to(tl.int64, bitcast=True), mask=mask)
    if W > 2:
        tl.store(pointer + 2, x2.to(tl.int64, bitcast=True), mask=mask)


@triton.jit
def _later(x0, x1, x2, K: tl.constexpr, W: tl.constexpr):
    """Every stone K cells on."""
    y0, y1, y2 = x0 << K, x1, x2
    if W > 1:
        y1 = (x1 << K) | (x0 >> (64 - K))
    if W > 2:
        y2 = (x2 << K) | (x1 >> (64 - K))
    return y0, y1, y2


@triton.jit
def _sooner(x0, x1, x2, K: tl.constexpr, W: tl.constexpr):
    """Every stone K cells back."""
    y0, y1, y2 = x0 >> K, x1, x2
    if W > 1:
        y0 = y0 | (x1 << (64 - K))
        y1 = x1 >> K
    if W > 2:
        y1 = y1 | (x2 << (64 - K))
        y2 = x2 >> K
    return y0, y1, y2


@triton.jit
def _neighbours(x0, x1, x2, S: tl.constexpr, W: tl.constexpr, L0: tl.constexpr, L1: tl.constexpr,
                L2: tl.constexpr, R0: tl.constexpr, R1: tl.constexpr, R2: tl.constexpr):
    """The cells beside a set; some may lie beyond the last row."""
    r0, r1, r2 = _later(x0 & R0, x1 & R1, x2 & R2, 1, W)       # one column to the right,
    l0, l1, l2 = _sooner(x0 & L0, x1 & L1, x2 & L2, 1, W)      # to the left,
    u0, u1, u2 = _sooner(x0 | r0, x1 | r1, x2 | r2, S, W)      # the row above: there and right,
    d0, d1, d2 = _later(x0 | l0, x1 | l1, x2 | l2, S, W)       # the row below: there and left
    return r0 | l0 | u0 | d0, r1 | l1 | u1 | d1, r2 | l2 | u2 | d2


@triton.jit
def _join(own, joined, s0, s1, s2, on_edge, mask, S: tl.constexpr, W: tl.constexpr,
          L0: tl.constexpr, L1: tl.constexpr, L2: tl.constexpr, R0: tl.constexpr,
          R1: tl.constexpr, R2: tl.constexpr):
    """Adds a stone, and what hangs on it, to the set at ``joined`` where it touches it."""
    o0, o1, o2 = load_words(own, mask, W)
    j0, j1, j2 = load_words(joined, mask, W)
    n0, n1, n2 = _neighbours(s0, s1, s2, S, W, L0, L1, L2, R0, R1, R2)
    touches = mask & (on_edge | (((n0 & j0) | (n1 & j1) | (n2 & j2)) != 0))
    zero = tl.zeros_like(s0)
    s0, s1, s2 = tl.where(touches, s0, zero), tl.where(touches, s1, zero), tl.where(
        touches, s2, zero)
    j0, j1, j2 = j0 | s0, j1 | s1, j2 | s2
    growing = tl.max(touches.to(tl.int32), 0)
    while growing > 0:
        s0, s1, s2 = _neighbours(s0, s1, s2, S, W, L0, L1, L2, R0, R1, R2)
        s0, s1, s2 = s0 & o0, s1 & o1, s2 & o2
        s0, s1, s2 = s0 ^ (s0 & j0), s1 ^ (s1 & j1), s2 ^ (s2 & j2)   # those not yet joined
        j0, j1, j2 = j0 | s0, j1 | s1, j2 | s2
        growing = tl.max(((s0 | s1 | s2) != 0).to(tl.int32), 0)
    _store_words(joined, j0, j1, j2, touches, W)
    return touches


@triton.jit
def place(game, seat, a, mask, S: tl.constexpr, W: tl.constexpr, L0: tl.constexpr,
          L1: tl.constexpr, L2: tl.constexpr, R0: tl.constexpr, R1: tl.constexpr,
          R2: tl.constexpr):
    """Puts a stone of ``seat`` on cell ``a`` of its own frame in each lane; whether that wins.

    Args:
        game: pointers to `[2, 4, W]` int64, changed in place.
    """
    t = (a % S)*S + a//S
    mine, theirs = game + seat*4*W, game + (1 - seat)*4*W
    one = tl.full(a.shape, 1, tl.uint64)
    bit = one << (a & 63).to(tl.uint64)
    zero = tl.zeros_like(bit)
    s0, s1, s2 = tl.where(a < 64, bit, zero), zero, zero
    if W > 1:
        s1 = tl.where((a >> 6) == 1, bit, zero)
    if W > 2:
        s2 = tl.where((a >> 6) == 2, bit, zero)
    o0, o1, o2 = load_words(mine + OWN*W, mask, W)
    _store_words(mine + OWN*W, o0 | s0, o1 | s1, o2 | s2, mask, W)
    mirrored = theirs + OTHER*W + (t >> 6)
    words = tl.load(mirrored, mask=mask, other=0).to(tl.uint64, bitcast=True)
    words = words | (one << (t & 63).to(tl.uint64))
    tl.store(mirrored, words.to(tl.int64, bitcast=True), mask=mask)
    top = _join(mine + OWN*W, mine + TOP*W, s0, s1, s2, a < S, mask, S, W,
                L0, L1, L2, R0, R1, R2)
    bottom = _join(mine + OWN*W, mine + BOTTOM*W, s0, s1, s2, a >= S*(S - 1), mask, S, W,
                   L0, L1, L2, R0, R1, R2)
    return top & bottom


@triton.jit
def _step(bits, seats, actions, rewards, terminal, n, RESET: tl.constexpr, BLOCK: tl.constexpr,
          S: tl.constexpr, W: tl.constexpr, L0: tl.constexpr, L1: tl.constexpr,
          L2: tl.constexpr, R0: tl.constexpr, R1: tl.constexpr, R2: tl.constexpr):
    e = tl.program_id(0)*BLOCK + tl.arange(0, BLOCK)
    mask = e < n
    game = bits + e.to(tl.int64)*8*W
    seat = tl.load(seats + e, mask=mask, other=0)
    a = tl.load(actions + e, mask=mask, other=0)
    was_over = e < 0
    for i in tl.static_range(W):
        for side in tl.static_range(2):
            top = tl.load(game + (side*4 + TOP)*W + i, mask=mask, other=0)
            bottom = tl.load(game + (side*4 + BOTTOM)*W + i, mask=mask, other=0)
            was_over = was_over | ((top & bottom) != 0)
    joined = place(game, seat, a, mask, S, W, L0, L1, L2, R0, R1, R2)
    won = joined & ~was_over
    pay = won.to(tl.float32)
    tl.store(rewards + 2*e + seat, pay, mask=mask)
    tl.store(rewards + 2*e + 1 - seat, 0 - pay, mask=mask)
    tl.store(terminal + e, won.to(tl.int8), mask=mask)
    following = 1 - seat
    if RESET:
        following = tl.where(joined, 0, following)
        for i in tl.static_range(8*W):
            tl.store(game + i, tl.zeros_like(seat), mask=mask & joined)
    tl.store(seats + e, following, mask=mask)


@triton.jit
def observe(states, seats, nodes, obs, n, n_nodes, stride, A: tl.constexpr, W: tl.constexpr,
            BLOCK: tl.constexpr):
    """The mover's view of node ``nodes[g]`` of every game, in the type of ``obs``.

    Args:
        states: `[n, n_nodes, 2, 4, W]` int64; seats: `[n, n_nodes]`.
        obs: `[n, A, 2]`, the rows ``stride`` apart.
    """
    i = tl.program_id(0)*BLOCK + tl.arange(0, BLOCK)
    mask = i < n*2*A
    g, cell, colour = i//(2*A), i % (2*A)//2, i % 2
    at = g.to(tl.int64)*n_nodes + tl.load(nodes + g, mask=mask, other=0)
    seat = tl.load(seats + at, mask=mask, other=0).to(tl.int64)
    word = tl.load(states + (at*2 + seat)*4*W + colour*W + (cell >> 6), mask=mask, other=0)
    stone = (word >> (cell & 63).to(tl.int64)) & 1
    tl.store(obs + g.to(tl.int64)*stride + i % (2*A), stone.to(obs.dtype.element_ty), mask=mask)


@triton.jit
def free_cells(game, seat, lane, A: tl.constexpr, W: tl.constexpr):
    """Which cells of the mover's frame are free, in one game: a bool a lane."""
    inside = lane < A
    words = game + seat*4*W + (lane >> 6)
    stones = (tl.load(words + OWN*W, mask=inside, other=0)
              | tl.load(words + OTHER*W, mask=inside, other=0))
    return inside & (((stones >> (lane & 63).to(tl.int64)) & 1) == 0)


@triton.jit
def _random_actions(bits, seats, keys, actions, A: tl.constexpr, AP: tl.constexpr,
                    W: tl.constexpr):
    g = tl.program_id(0)
    lane = tl.arange(0, AP)
    free = free_cells(bits + g.to(tl.int64)*8*W, tl.load(seats + g), lane, A, W).to(tl.int32)
    key = tl.load(keys + g).to(tl.uint64, bitcast=True)
    n = (((draw(key, key - key) >> 32)*tl.sum(free, 0).to(tl.uint64)) >> 32).to(tl.int32)
    before = tl.cumsum(free, 0) - free
    tl.store(actions + g, tl.min(tl.where((free > 0) & (before == n), lane, A), 0))


def on_device(x):
    """Launches inside this context go to the device that holds ``x``."""
    return torch.cuda.device_of(x)


def step(bits, seats, actions, reset, boardsize):
    """Plays `[n_envs]` int64 ``actions``, which must be free cells.

    Returns:
        bits, seats, rewards `[n_envs, 2]` float32 and terminal `[n_envs]` bool, all new.
    """
    n, bits, seats = len(seats), bits.clone(), seats.clone()
    rewards = torch.empty((n, 2), device=bits.device)
    terminal = torch.empty(n, dtype=torch.int8, device=bits.device)
    if n:
        with on_device(bits):
            _step[(triton.cdiv(n, _GAMES),)](
                bits, seats, actions.contiguous(), rewards, terminal, n, RESET=reset, BLOCK=_GAMES,
                num_warps=1, **geometry(boardsize))
    return bits, seats, rewards, terminal.bool()


def observations(bits, seats, boardsize):
    """`[n_envs, S, S, 2]` float32 in the mover's frame."""
    n = len(seats)
    obs = torch.empty((n, boardsize, boardsize, 2), device=bits.device)
    if n:
        observe_leaves(bits.contiguous(), seats.contiguous(), torch.zeros_like(seats), obs,
                       boardsize)
    return obs


def observe_leaves(states, seats, nodes, obs, boardsize):
    """Runs :func:`observe`."""
    n, n_cells = len(nodes), boardsize**2
    with on_device(obs):
        observe[(triton.cdiv(n*2*n_cells, _CELLS),)](
            states, seats, nodes, obs, n, seats.numel()//n, obs.stride(0), A=n_cells,
            W=n_words(boardsize), BLOCK=_CELLS, num_warps=4)


def random_actions(bits, seats, keys, boardsize):
    """`[n_envs]` int64: a uniformly random free cell of each game; S*S where there is none.

    Args:
        keys: `[n_envs]` int64, the bits of the uint64 keys.
    """
    n, n_cells = len(seats), boardsize**2
    actions = torch.empty(n, dtype=torch.int64, device=bits.device)
    if n:
        with on_device(bits):
            _random_actions[(n,)](
                bits.contiguous(), seats.contiguous(), keys, actions, A=n_cells,
                AP=triton.next_power_of_2(n_cells), W=n_words(boardsize), num_warps=1)
    return actions
