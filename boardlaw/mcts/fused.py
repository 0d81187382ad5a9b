"""The search over Hex on a CPU: trees, rules and network in one compiled pass.

The games are cut into chunks whose trees stay in the cache, and each chunk is searched to its end
by one thread. A small network is evaluated inside the compiled pass, one leaf at a time, its
weights in the first-level cache. A large one is a matrix product over the chunk's leaves, which
torch does best; the pass then expands, backs up and descends each game between two products.
"""
import math
import os
from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from .. import threads
from ..hex import kernels as rules
from ..hex.worlds import neighbours
from . import kernels
from .tree import allocate

#: Networks at most this wide are evaluated inside the compiled pass.
INLINE_WIDTH = 32

#: Games searched together: what fits the cache, and enough rows for an efficient product.
INLINE_CHUNK, BATCHED_CHUNK = 16, 256


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


@njit(fastmath=kernels.FAST, forceinline=True)
def _accumulate(x, w, y):
    """``y += x @ w`` where many x are 0, four rows of w at a time."""
    n, m = w.shape
    for i in range(0, n - 3, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(m):
            y[j] += a*w[i, j] + b*w[i + 1, j] + c*w[i + 2, j] + d*w[i + 3, j]
    for i in range(n - n % 4, n):
        for j in range(m):
            y[j] += x[i]*w[i, j]


@njit(fastmath=kernels.FAST, forceinline=True)
def _evaluate(bits, seat, n_cells, net, x, y, out):
    """The network at one position: ``out`` `[S*S + 1]`, logits and then the mover's value."""
    width = len(x)
    for j in range(width):
        x[j] = net.first_bias[j]
    for i in range(bits.shape[2]):
        for colour in range(2):
            stones = bits[seat, colour, i]
            while stones != 0:
                cell = i*64 + np.int64(rules.trailing_zeros(stones))
                for j in range(width):
                    x[j] += net.first[2*cell + colour, j]
                stones &= stones - rules.ONE
    for layer in range(net.body.shape[0]):
        for j in range(width):
            y[j] = max(x[j], np.float32(0))
            x[j] += net.body_bias[layer, j]
        _accumulate(y, net.body[layer], x)
    for j in range(n_cells + 1):
        out[j] = net.heads_bias[j]
    _accumulate(x, net.heads, out)


@njit(forceinline=True)
def _copy(source, target):
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            for k in range(source.shape[2]):
                target[i, j, k] = source[i, j, k]


@njit(forceinline=True)
def _expand(nodes, prior, root, leaf, states, out, key, eps, alpha, noise):
    """Gives the leaf its priors and value; False if the network's output is bad."""
    n_cells, seat = prior.shape[1], np.int64(nodes[leaf].seat)
    for i in range(states.shape[3]):
        stones = states[leaf, seat, rules.OWN, i] | states[leaf, seat, rules.OTHER, i]
        for j in range(min(64, n_cells - i*64)):
            prior[leaf, i*64 + j] = np.float32((~stones >> np.uint64(j)) & rules.ONE)
    v = np.float32((1 - 2*seat)*math.tanh(out[n_cells]))
    return kernels.expand(nodes, prior, root, leaf, out, v, key, eps, alpha, noise)


@njit(forceinline=True)
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
def _search_inline(tree, states, bits, seats, keys, n_nodes, c_puct, rule, unvisited, eps, alpha,
                   net, boardsize, neighbours):
    """Searches a chunk of games, one after the other; returns the first bad game or -1."""
    n_cells = boardsize**2
    ids, terms = kernels.scratch(n_nodes)
    stack, noise = np.empty(n_cells, np.int64), np.empty(n_cells, np.float64)
    width = len(net.first_bias)
    x, y = np.empty(width, np.float32), np.empty(width, np.float32)
    out = np.empty(n_cells + 1, np.float32)
    for g in range(len(seats)):
        nodes, prior, root, game = tree.nodes[g], tree.prior[g], tree.root[g], states[g]
        kernels.start(nodes, seats[g])
        _copy(bits[g], game[0])
        leaf, size = np.int64(0), 1
        for simulation in range(1, n_nodes + 1):
            if not nodes[leaf].terminal:
                _evaluate(game[leaf], nodes[leaf].seat, n_cells, net, x, y, out)
                if not _expand(nodes, prior, root, leaf, game, out, keys[g], eps, alpha, noise):
                    return g
            kernels.back_up(nodes, leaf)
            if simulation < n_nodes:
                leaf = _grow(nodes, prior, size, game, keys[g], simulation, c_puct, rule,
                             unvisited, boardsize, neighbours, ids, terms, stack)
                size += leaf == size
        tree.size[g] = size
    return -1


@njit(nogil=True, cache=True)
def _begin(tree, states, bits, seats, obs):
    for g in range(len(seats)):
        kernels.start(tree.nodes[g], seats[g])
        tree.size[g], tree.leaf[g] = 1, 0
        _copy(bits[g], states[g, 0])
        rules.write_obs(bits[g], seats[g], obs[g])


@njit(nogil=True, cache=True)
def _advance(tree, states, keys, simulation, n_nodes, c_puct, rule, unvisited, eps, alpha,
             boardsize, neighbours, out, obs):
    """Between two products: expand and back up, then descend and show the new leaf."""
    n_cells = boardsize**2
    ids, terms = kernels.scratch(n_nodes)
    stack, noise = np.empty(n_cells, np.int64), np.empty(n_cells, np.float64)
    for g in range(len(keys)):
        nodes, prior, game = tree.nodes[g], tree.prior[g], states[g]
        leaf, size = tree.leaf[g], tree.size[g]
        if not nodes[leaf].terminal:
            if not _expand(nodes, prior, tree.root[g], leaf, game, out[g], keys[g], eps, alpha,
                           noise):
                return g
        kernels.back_up(nodes, leaf)
        if simulation < n_nodes:
            leaf = _grow(nodes, prior, size, game, keys[g], simulation, c_puct, rule, unvisited,
                         boardsize, neighbours, ids, terms, stack)
            tree.leaf[g] = leaf
            tree.size[g] += leaf == size
            if not nodes[leaf].terminal:
                rules.write_obs(game[leaf], np.int64(nodes[leaf].seat), obs[g])
    return -1


def bfloat16_pays(width):
    """Whether the residual layers should be multiplied in bfloat16.

    CPUs with instructions for it are about twice as fast (several times with AMX) once the layers
    are wide. The products then carry 8 bits; the residual stream, the first layer and the heads
    stay in float32, and so does everything in the tree.
    """
    if (asked := os.environ.get('BOARDLAW_BFLOAT16')):
        return asked == '1'
    probes = ('_is_amx_tile_supported', '_is_avx512_bf16_supported')
    return width >= 128 and any(getattr(torch.cpu, p, bool)() for p in probes)


class Batched:
    """A network as matrix products over a chunk's leaves, in buffers made once."""

    def __init__(self, net, n_games):
        self.first, self.first_bias, self.body, self.body_bias, self.heads, self.heads_bias = (
            torch.from_numpy(w) for w in net)
        width = len(self.first_bias)
        dtype = torch.bfloat16 if bfloat16_pays(width) else torch.float32
        self.body, self.body_bias = self.body.to(dtype), self.body_bias.to(dtype)
        self.obs = torch.zeros(n_games, len(self.first))
        self.x = torch.empty(n_games, width)
        self.y, self.z = torch.empty(2, n_games, width, dtype=dtype)
        self.out = torch.empty(n_games, len(self.heads_bias))

    def __call__(self, n):
        """Evaluates the first ``n`` rows of ``obs`` into ``out``."""
        x, y, z = self.x[:n], self.y[:n], self.z[:n]
        torch.addmm(self.first_bias, self.obs[:n], self.first, out=x)
        for weight, bias in zip(self.body, self.body_bias, strict=True):
            y.copy_(x).clamp_min_(0)
            x.add_(torch.addmm(bias, y, weight, out=z))
        torch.addmm(self.heads_bias, x, self.heads, out=self.out[:n])


def search(world, network, n_nodes, settings, keys, collect):
    """Searches every game of a Hex world on the CPU.

    Args:
        collect: called as ``collect(games, tree)`` once the chunk ``games``, a slice, is finished.

    Returns:
        A game for which the network's output was nan or infinite, the first of those that the
        threads met; or -1.
    """
    net, size = weights(network), world.boardsize
    bits, seats = world._bits, world._seats
    inline = len(net.first_bias) <= INLINE_WIDTH
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
    obs, out = batched.obs.numpy().view(np.uint64), batched.out.numpy()
    _begin(tree, states, bits, seats, obs)
    for simulation in range(1, n_nodes + 1):
        batched(n)
        bad = _advance(tree, states, keys, simulation, n_nodes, *settings, boardsize,
                       neighbours(boardsize), out, obs)
        if bad >= 0:
            return bad
    return -1
