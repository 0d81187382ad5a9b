"""The search over Hex on a CPU: trees, rules and network in one compiled pass.

The games are cut into chunks whose trees stay in the cache, and each chunk is searched to its end
by one thread. A small network is evaluated inside the compiled pass, a few leaves at a time, its
weights in the nearer caches. A large one is matrix products over the chunk's leaves, which torch
does best, all but the first layer: on a board most inputs are 0, so a sum over the stones is the
shorter way. Between two evaluations the pass expands, backs up and descends each game.
"""
import math
import os
from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from .. import threads
from ..bits import njit_uncounted
from ..hex import kernels as rules
from ..hex.worlds import neighbours
from ..lanes import LANES, add, add_scaled, keep, load, relu, splat, store, whole
from . import kernels
from .tree import allocate

#: Networks at most this wide may be evaluated inside the compiled pass (:func:`is_inline`).
INLINE_WIDTH = 128

#: Games searched together: what fits the cache, and enough rows for an efficient product.
INLINE_CHUNK, BATCHED_CHUNK = 64, 256

#: Games that the compiled pass searches side by side: where one's sum waits for its last addition,
#: the others' go on (:func:`_product` has room for as many).
GROUP = 4


class Weights(NamedTuple):
    """A network's parameters as the compiled pass reads them: inputs by rows, alpha multiplied in.

    ``first`` `[2*S*S, width]`, ``body`` `[depth, width, width]`, ``heads`` `[width, S*S + 1]`
    (the policy's columns, then the value's), and their biases.
    """
    first: np.ndarray
    first_bias: np.ndarray
    body: np.ndarray
    body_bias: np.ndarray
    heads: np.ndarray
    heads_bias: np.ndarray


def weights(network):
    """Reads the :class:`Weights` of a :class:`boardlaw.networks.Network`."""
    with torch.no_grad():
        first, *layers = network.body
        scaled = [(x.weight.T*x.α, x.bias*x.α) for x in layers]
        width = first.weight.shape[0]
        body = [w for w, _ in scaled] or [torch.zeros(0, width)]
        bias = [b for _, b in scaled]
        policy, value = network.policy.core, network.value.core
        tensors = (first.weight.T, first.bias,
                   torch.stack(body) if scaled else torch.zeros(0, width, width),
                   torch.stack(bias) if scaled else torch.zeros(0, width),
                   torch.cat([policy.weight, value.weight]).T, torch.cat([policy.bias, value.bias]))
        return Weights(*[np.ascontiguousarray(t.cpu().float().numpy()) for t in tensors])


def padded(net):
    """The same :class:`Weights` with columns of zeros up to whole vectors of :mod:`boardlaw.lanes`.

    The rows stay, so that ``len(heads)`` is still the width.
    """
    return Weights(*[np.pad(w, [(0, 0)]*(w.ndim - 1) + [(0, whole(w.shape[-1]) - w.shape[-1])])
                     for w in net])


@njit_uncounted(forceinline=True)
def _show(bits, seat, net, rows, x, i):
    """The first layer of one position, row ``i`` of ``x``: a row of weights for each stone."""
    n, width = 0, x.shape[1]
    for word in range(bits.shape[2]):
        for colour in range(2):
            stones = bits[seat, colour, word]
            while stones != 0:
                cell = word*64 + np.int64(rules.trailing_zeros(stones))
                rows[n] = (2*cell + colour)*width
                n += 1
                stones &= stones - rules.ONE
    fours = width - width % (4*LANES)
    for j in range(0, fours, 4*LANES):   # four neighbours at once, for memory comes in such pieces
        a, b = load(net.first_bias, j), load(net.first_bias, j + LANES)
        c, d = load(net.first_bias, j + 2*LANES), load(net.first_bias, j + 3*LANES)
        for k in range(n):
            p = rows[k] + j
            a = add(a, load(net.first, p))
            b = add(b, load(net.first, p + LANES))
            c = add(c, load(net.first, p + 2*LANES))
            d = add(d, load(net.first, p + 3*LANES))
        p = i*width + j
        store(x, p, a)
        store(x, p + LANES, b)
        store(x, p + 2*LANES, c)
        store(x, p + 3*LANES, d)
    for j in range(fours, width, LANES):
        total = load(net.first_bias, j)
        for k in range(n):
            total = add(total, load(net.first, rows[k] + j))
        store(x, i*width + j, total)


@njit_uncounted(forceinline=True)
def _show_leaf(tree, states, g, net, rows, x, i):
    leaf = tree.leaf[g]
    _show(states[g, leaf], np.int64(tree.nodes[g, leaf].seat), net, rows, x, i)


@njit_uncounted(forceinline=True)
def _product(a, n, w, first, x, j):
    """``x += a @ w`` for four rows and the columns from ``j``.

    Args:
        a: `[4, >= n]`.
        w: `[.., n, columns]`, of which the matrix in question begins at element ``first``.
        x: `[4, columns]`.
    """
    columns = x.shape[1]
    p, q, r, s = j, columns + j, 2*columns + j, 3*columns + j
    t, u, v, z = load(x, p), load(x, q), load(x, r), load(x, s)
    for k in range(n):
        row = load(w, first + k*columns + j)
        t = add_scaled(t, a[0, k], row)
        u = add_scaled(u, a[1, k], row)
        v = add_scaled(v, a[2, k], row)
        z = add_scaled(z, a[3, k], row)
    store(x, p, t)
    store(x, q, u)
    store(x, r, v)
    store(x, s, z)


@njit_uncounted(forceinline=True)
def _evaluate(net, x, y, out):
    """The layers after the first for :data:`GROUP` positions.

    Args:
        x: `[GROUP, columns]`, what :func:`_show` made; changed.
        y: `[GROUP, columns]`, scratch.
        out: `[GROUP, S*S + 1 and more]` becomes the logits and then the mover's value.
    """
    n, columns = len(net.heads), x.shape[1]
    for layer in range(net.body.shape[0]):
        for j in range(0, columns, LANES):
            bias = load(net.body_bias, layer*columns + j)
            for i in range(j, GROUP*columns, columns):
                value = load(x, i)
                store(y, i, relu(value))
                store(x, i, add(value, bias))
        for j in range(0, columns, LANES):
            _product(y, n, net.body, layer*n*columns, x, j)
    for j in range(0, out.shape[1], LANES):
        bias = load(net.heads_bias, j)
        for i in range(GROUP):
            store(out, i*out.shape[1] + j, bias)
        _product(x, n, net.heads, 0, out, j)


@njit_uncounted(forceinline=True)
def _copy(source, target):
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            for k in range(source.shape[2]):
                target[i, j, k] = source[i, j, k]


@njit_uncounted(forceinline=True)
def _expand(nodes, prior, root, leaf, states, out, key, eps, alpha, noise):
    """Gives the leaf its priors and value; False if the network's output, overwritten, is bad."""
    n_cells, seat = prior.shape[1], np.int64(nodes[leaf].seat)
    v = np.float32((1 - 2*seat)*math.tanh(out[n_cells]))
    nowhere = splat(kernels.LOWEST)
    for i in range(states.shape[3]):
        free = ~(states[leaf, seat, rules.OWN, i] | states[leaf, seat, rules.OTHER, i])
        if n_cells - i*64 < 64:
            free &= (rules.ONE << np.uint64(n_cells - i*64)) - rules.ONE
        for j in range(i*64, min((i + 1)*64, len(out)), LANES):
            store(out, j, keep(free, load(out, j), nowhere))
            free >>= np.uint64(LANES)
    for j in range(states.shape[3]*64, len(out), LANES):
        store(out, j, nowhere)
    return kernels.expand(nodes, prior, root, leaf, out, v, key, eps, alpha, noise)


@njit_uncounted(forceinline=True)
def _grow(nodes, prior, size, states, key, simulation, c_puct, rule, unvisited, boardsize,
          neighbours, ids, terms, stack):
    """One descent and, unless it ends at a finished game, one new node; returns the leaf."""
    node, action = kernels.descend(
        nodes, prior, size, key, simulation, c_puct, rule, unvisited, ids, terms)
    if action < 0:
        return node
    seat = np.int64(nodes[node].seat)
    _copy(states[node], states[size])
    won = rules.place(states[size], seat, action, boardsize, neighbours, stack)
    reward = np.float32((1 - 2*seat)*won)
    kernels.attach(nodes, prior, size, node, action, 1 - seat, won, reward)
    return np.int64(size)


@njit_uncounted(forceinline=True)
def _begin(tree, states, bits, seats):
    for g in range(len(seats)):
        kernels.start(tree.nodes[g], seats[g])
        tree.size[g], tree.leaf[g] = 1, 0
        _copy(bits[g], states[g, 0])


@njit_uncounted(forceinline=True)
def _advance(tree, states, g, keys, simulation, n_nodes, c_puct, rule, unvisited, eps, alpha,
             boardsize, neighbours, out, i, ids, terms, stack, noise):
    """Between two evaluations: expands and backs up game ``g``, then descends to its next leaf.

    Returns:
        False if the network's output, row ``i`` of ``out``, is bad.
    """
    nodes, prior, game, key = tree.nodes[g], tree.prior[g], states[g], keys[g]
    leaf, size = tree.leaf[g], tree.size[g]
    if not nodes[leaf].terminal:
        if not _expand(nodes, prior, tree.root[g], leaf, game, out[i], key, eps, alpha,
                       noise):
            return False
    kernels.back_up(nodes, leaf)
    if simulation < n_nodes:
        leaf = _grow(nodes, prior, size, game, key, simulation, c_puct, rule, unvisited, boardsize,
                     neighbours, ids, terms, stack)
        tree.leaf[g] = leaf
        tree.size[g] += leaf == size
    return True


@njit(nogil=True, cache=True)
def _search_inline(tree, states, bits, seats, keys, n_nodes, c_puct, rule, unvisited, eps, alpha,
                   net, boardsize, neighbours):
    """Searches a chunk of games, one group after the other; returns the first bad game or -1."""
    n_cells, columns = boardsize**2, len(net.first_bias)
    ids, terms = kernels.scratch(n_nodes)
    stack, noise = np.empty(n_cells, np.int64), np.empty(n_cells, np.float64)
    x, y = np.zeros((GROUP, columns), np.float32), np.empty((GROUP, columns), np.float32)
    out = np.empty((GROUP, len(net.heads_bias)), np.float32)
    _begin(tree, states, bits, seats)
    for first in range(0, len(seats), GROUP):
        n = min(GROUP, len(seats) - first)
        for simulation in range(1, n_nodes + 1):
            for i in range(n):
                _show_leaf(tree, states, first + i, net, stack, x, i)
            _evaluate(net, x, y, out)
            for i in range(n):
                if not _advance(tree, states, first + i, keys, simulation, n_nodes, c_puct, rule,
                                unvisited, eps, alpha, boardsize, neighbours, out, i, ids, terms,
                                stack, noise):
                    return first + i
    return -1


@njit(nogil=True, cache=True)
def _show_roots(tree, states, bits, seats, net, x):
    """Begins the trees of a chunk and shows their roots to the network."""
    rows = np.empty(len(net.first), np.int64)
    _begin(tree, states, bits, seats)
    for g in range(len(seats)):
        _show(bits[g], seats[g], net, rows, x, g)


@njit(nogil=True, cache=True)
def _show_leaves(tree, states, keys, simulation, n_nodes, c_puct, rule, unvisited, eps, alpha,
                 boardsize, neighbours, out, net, x):
    """Takes every game of a chunk to its next leaf and shows it to the network."""
    n_cells = boardsize**2
    ids, terms = kernels.scratch(n_nodes)
    stack, noise = np.empty(n_cells, np.int64), np.empty(n_cells, np.float64)
    for g in range(len(keys)):
        if not _advance(tree, states, g, keys, simulation, n_nodes, c_puct, rule, unvisited, eps,
                        alpha, boardsize, neighbours, out, g, ids, terms, stack, noise):
            return g
        _show_leaf(tree, states, g, net, stack, x, g)
    return -1


@njit(nogil=True, cache=True)
def _between(x, y, z, bias, layer):
    """What comes before a layer's product: adds the last layer's, ``z``, to the stream ``x``, then
    writes its relu to ``y``, of which the product will be, and adds the layer's bias."""
    columns = x.shape[1]
    for i in range(len(x)):
        for j in range(0, columns, LANES):
            value = load(x, i*columns + j)
            if layer > 0:
                value = add(value, load(z, i*columns + j))
            store(y, i*columns + j, relu(value))
            store(x, i*columns + j, add(value, load(bias, layer*columns + j)))


def bfloat16_pays(width):
    """Whether the residual layers should be multiplied in bfloat16.

    CPUs with tile instructions for it (AMX) are several times as fast from 128 neurons on, those
    with vector instructions about twice; up to 128 the latter lose that on the way through torch.
    The products then carry 8 bits; the residual stream, the first layer and the heads stay in
    float32, and so does everything in the tree. The environment variable BOARDLAW_BFLOAT16, 0 or
    1, overrules this.
    """
    if (asked := os.environ.get('BOARDLAW_BFLOAT16')):
        return asked == '1'
    tiles = getattr(torch.cpu, '_is_amx_tile_supported', bool)()
    vectors = getattr(torch.cpu, '_is_avx512_bf16_supported', bool)()
    return width >= 128 and tiles or width > 128 and vectors


def is_inline(width):
    """Whether networks of this width are evaluated inside the compiled pass."""
    return width <= INLINE_WIDTH and not bfloat16_pays(width)


class Batched:
    """A network's layers after the first as matrix products over a chunk's leaves.

    Attributes:
        x: `[n_games, columns]` float32, where :func:`_show` puts the first layer; changed.
        out: `[n_games, S*S + 1 and more]` float32, the logits and then the mover's value.
    """

    def __init__(self, net, n_games):
        n, columns = len(net.heads), len(net.first_bias)
        half = torch.bfloat16 if bfloat16_pays(n) else torch.float32
        rows = [(0, columns - n), (0, 0)]
        self.net = net
        self.body = [torch.from_numpy(np.pad(w, rows)).to(half) for w in net.body]
        self.heads = torch.from_numpy(np.pad(net.heads, rows))
        self.heads_bias = torch.from_numpy(net.heads_bias)
        self.x = torch.empty(n_games, columns)
        self.y, self.z = torch.zeros(2, n_games, columns, dtype=half)
        self.out = torch.empty(n_games, len(net.heads_bias))

    def __call__(self, n):
        """Evaluates the first ``n`` rows."""
        x, y, z = self.x[:n], self.y[:n], self.z[:n]
        arrays = [_numpy(t) for t in (x, y, z)]
        for layer, weight in enumerate(self.body):
            _between(*arrays, self.net.body_bias, layer)
            torch.mm(y, weight, out=z)
        if self.body:
            x.add_(z)
        torch.addmm(self.heads_bias, x, self.heads, out=self.out[:n])


def _numpy(x):
    """A tensor's memory; bfloat16, which NumPy lacks, as int16."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def search(world, network, n_nodes, settings, keys, collect):
    """Searches every game of a Hex world on the CPU.

    Args:
        collect: called as ``collect(games, tree)`` once the chunk ``games``, a slice, is finished.

    Returns:
        A game for which the network's output was nan or infinite, the first of those that the
        threads met; or -1.
    """
    net, size = padded(weights(network)), world.boardsize
    bits, seats = world._bits, world._seats
    inline = is_inline(len(net.heads))
    chunk = INLINE_CHUNK if inline else BATCHED_CHUNK

    @torch.no_grad()
    def run(start, stop):
        n = min(chunk, stop - start)
        tree = allocate(n, n_nodes, size**2)
        states = np.empty((n, n_nodes, *bits.shape[1:]), np.uint64)
        batched = None if inline else Batched(net, n)
        for first in range(start, stop, chunk):
            games = slice(first, min(first + chunk, stop))
            if inline:
                bad = _search_inline(tree, states, bits[games], seats[games], keys[games], n_nodes,
                                     *settings, net, size, neighbours(size))
            else:
                bad = _search_batched(tree, states, bits[games], seats[games], keys[games],
                                      n_nodes, settings, batched, size)
            if bad >= 0:
                return first + bad
            collect(games, tree)
        return -1

    bad = threads.split(run, world.n_envs, 8 if inline else 32)
    return min((game for game in bad if game >= 0), default=-1)


def _search_batched(tree, states, bits, seats, keys, n_nodes, settings, batched, boardsize):
    n = len(seats)
    x, out = batched.x.numpy(), batched.out.numpy()
    _show_roots(tree, states, bits, seats, batched.net, x)
    for simulation in range(1, n_nodes + 1):
        batched(n)
        bad = _show_leaves(tree, states, keys, simulation, n_nodes, *settings, boardsize,
                           neighbours(boardsize), out, batched.net, x)
        if bad >= 0:
            return bad
    return -1
