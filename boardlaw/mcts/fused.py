"""The search over Hex on a CPU: trees, rules and network in one compiled pass.

The games are cut into chunks whose trees stay in the cache, and each chunk is searched to its end
by one thread. A small network is evaluated inside the compiled pass, a few leaves at a time, its
weights in the nearer caches (:mod:`.evaluation`). A large one is products of matrices over the
chunk's leaves (:mod:`.batched`). Between two evaluations the pass expands, backs up and descends
each game.
"""
import math

import numpy as np
import torch
from numba import njit

from .. import threads
from ..bits import njit_uncounted
from ..hex import kernels as rules
from ..hex.worlds import neighbours
from ..lanes import LANES, keep, load, splat, store
from . import kernels
from .batched import Tiled, evaluate_on_tiles, evaluator, is_tiled
from .evaluation import GROUP, evaluate, padded, show_leaf, weights
from .tree import allocate

#: Networks at most this wide may be evaluated inside the compiled pass (:func:`is_inline`).
INLINE_WIDTH = 128

#: Games searched together: what fits the cache, and enough rows for an efficient product.
INLINE_CHUNK, BATCHED_CHUNK = 64, 256


def is_inline(width):
    """Whether networks of this width are evaluated inside the compiled pass."""
    return width <= INLINE_WIDTH and not is_tiled(width)


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


@njit(nogil=True, cache=True)
def _begin(tree, states, bits, seats):
    """Makes the roots of a chunk's trees."""
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
                show_leaf(tree, states, first + i, net, stack, x, i)
            evaluate(net, x, y, out)
            for i in range(n):
                if not _advance(tree, states, first + i, keys, simulation, n_nodes, c_puct, rule,
                                unvisited, eps, alpha, boardsize, neighbours, out, i, ids, terms,
                                stack, noise):
                    return first + i
    return -1


@njit(nogil=True, cache=True)
def _advance_all(tree, states, keys, simulation, n_nodes, c_puct, rule, unvisited, eps, alpha,
                 boardsize, neighbours, out):
    """Takes every game of a chunk to its next leaf; returns the first bad game or -1."""
    n_cells = boardsize**2
    ids, terms = kernels.scratch(n_nodes)
    stack, noise = np.empty(n_cells, np.int64), np.empty(n_cells, np.float64)
    for g in range(len(keys)):
        if not _advance(tree, states, g, keys, simulation, n_nodes, c_puct, rule, unvisited, eps,
                        alpha, boardsize, neighbours, out, g, ids, terms, stack, noise):
            return g
    return -1


@njit(nogil=True, cache=True)
def _search_tiled(tree, states, bits, seats, keys, n_nodes, c_puct, rule, unvisited, eps, alpha,
                  boardsize, neighbours, net, shapes, obs, y, z, x, out):
    """As :func:`_search_batched`, in one call: threads need not take turns in the interpreter."""
    _begin(tree, states, bits, seats)
    for simulation in range(1, n_nodes + 1):
        evaluate_on_tiles(tree, states, len(seats), net, shapes, obs, y, z, x, out)
        bad = _advance_all(tree, states, keys, simulation, n_nodes, c_puct, rule, unvisited, eps,
                           alpha, boardsize, neighbours, out)
        if bad >= 0:
            return bad
    return -1


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
        products = None if inline else evaluator(net, n)
        for first in range(start, stop, chunk):
            games = slice(first, min(first + chunk, stop))
            if inline:
                bad = _search_inline(tree, states, bits[games], seats[games], keys[games], n_nodes,
                                     *settings, net, size, neighbours(size))
            else:
                bad = _search_batched(tree, states, bits[games], seats[games], keys[games],
                                      n_nodes, settings, products, size)
            if bad >= 0:
                return first + bad
            collect(games, tree)
        return -1

    bad = threads.split(run, world.n_envs, 8 if inline else 32)
    return min((game for game in bad if game >= 0), default=-1)


def _search_batched(tree, states, bits, seats, keys, n_nodes, settings, products, boardsize):
    """Searches a chunk of games side by side; returns the first bad game or -1."""
    table = neighbours(boardsize)
    if isinstance(products, Tiled):
        return _search_tiled(tree, states, bits, seats, keys, n_nodes, *settings, boardsize, table,
                             *products.arguments)
    _begin(tree, states, bits, seats)
    for simulation in range(1, n_nodes + 1):
        products(tree, states, len(seats))
        bad = _advance_all(tree, states, keys, simulation, n_nodes, *settings, boardsize, table,
                           products.out)
        if bad >= 0:
            return bad
    return -1
