"""The search over Hex on a GPU: trees, positions and network stay there from the first move on.

A simulation is a handful of kernels: the network, one that expands, backs up and descends
(:mod:`boardlaw.mcts.gpu_kernels`), and two that make the new leaf's position and show it. All the
simulations of a move are captured in one CUDA graph, since launching them one by one would take
longer than running them. Buffers and graphs are made once for each shape of a search and kept.
"""
import math
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
import triton

from ..hex import gpu_kernels as rules
from ..hex.kernels import n_words
from . import gpu_kernels as kernels
from . import tree as tree_module
from .gpu_network import Forward
from .kernels import PARENT, RULE_2021

#: Shapes of searches whose buffers are kept: two agents that meet have up to five each, as their
#: games end.
KEPT = 16

#: Trees may fill this share of the device's memory; more games are searched in turns, and shapes
#: not needed for long are dropped.
MEMORY_SHARE = 1/4

#: Games in multiples of this are a shape of their own; other numbers are filled up to a power of
#: two, so that a match whose games end one by one needs few shapes.
WHOLE, LEAST = 256, 64

_GAMES = 32   # lanes of a program whose lanes are games


class Found(NamedTuple):
    """Results of a search, on its device; the names are those of
    :class:`boardlaw.mcts.search.Search`, but q and v are seat 0's, `[n_envs]`."""
    policy: torch.Tensor
    prior: torch.Tensor
    visits: torch.Tensor
    q: torch.Tensor
    v: torch.Tensor
    n_leaves: torch.Tensor


class Trees:
    """Room for the trees of `[n]` games; :mod:`boardlaw.mcts.gpu_kernels` says what they hold."""

    def __init__(self, n, n_nodes, boardsize, device):
        def make(dtype, *shape):
            return torch.zeros((n, *shape), dtype=dtype, device=device)

        n_cells, words = boardsize**2, n_words(boardsize)
        self.n, self.n_nodes, self.boardsize = n, n_nodes, boardsize
        self.states = make(torch.int64, n_nodes, 2, 4, words)
        self.prior = make(torch.float32, n_nodes, n_cells)
        self.children = make(torch.int16, n_nodes, n_cells)
        self.parent, self.action = (make(torch.int16, n_nodes) for _ in range(2))
        self.seat, self.terminal = (make(torch.int8, n_nodes) for _ in range(2))
        self.q, self.value, self.delta = (make(torch.float32, n_nodes) for _ in range(3))
        self.visits, self.path = (make(torch.int32, n_nodes) for _ in range(2))
        self.size, self.leaf, self.depth, self.grown, self.n_leaves, self.bad = (
            make(torch.int32) for _ in range(6))
        self.keys = make(torch.int64)
        self.root, self.noise, self.policy = (make(torch.float32, n_cells) for _ in range(3))
        self.counts = make(torch.int32, n_cells)

    @property
    def n_bytes(self):
        """Device memory of all of them."""
        return sum(x.numel()*x.element_size() for x in vars(self).values()
                   if isinstance(x, torch.Tensor))

    def start(self):
        """Empties the trees; the roots' positions, seats and the keys must be there."""
        for x in (self.parent, self.action):
            x[:, 0] = -1
        for x in (self.terminal, self.q, self.delta, self.visits, self.path):
            x[:, 0] = 0
        for x in (self.leaf, self.depth, self.grown, self.bad):
            x.zero_()
        for x in (self.size, self.n_leaves):
            x.fill_(1)


class Searcher:
    """Searches `[n]` games at once, again and again.

    Args:
        settings: a :class:`boardlaw.mcts.search.Settings`.
    """

    def __init__(self, n, n_nodes, boardsize, width, depth, settings, device):
        self.trees = Trees(n, n_nodes, boardsize, device)
        self.forward = Forward(n, boardsize, width, depth, device)
        self.settings, self.graph, self.n_runs = settings, None, 0
        n_cells = boardsize**2
        self._lanes = {'A': n_cells, 'AP': triton.next_power_of_2(n_cells), 'num_warps': 1}
        self._rules = {'RULE_2021': settings.rule == RULE_2021,
                       'PARENT': settings.unvisited == PARENT}

    def __call__(self, bits, seats, keys, network):
        """Searches from `[n, 2, 4, n_words]` bits with `[n]` seats and keys (int64).

        Returns:
            A :class:`Found`, copies; and `[n]` int32, not 0 where the network's output is bad.
        """
        t = self.trees
        if t.n == 0:
            return Found(t.policy, t.root, t.counts, t.q[:, 0], t.value[:, 0], t.n_leaves), t.bad
        with rules.on_device(bits):
            self.forward.load(network)
            t.states[:, 0].copy_(bits)
            t.seat[:, 0].copy_(seats)
            t.keys.copy_(keys)
            if self.graph is None and bits.is_cuda and self.n_runs > 0:
                self.capture()
            self.run() if self.graph is None else self.graph.replay()
            self.n_runs += 1
        return Found(*(x.clone() for x in (t.policy, t.root, t.counts, t.q[:, 0], t.value[:, 0],
                                           t.n_leaves))), t.bad.clone()

    def capture(self):
        """Captures :meth:`run`, which must have run before (kernels are compiled by then)."""
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.run()

    def run(self):
        """All simulations of one move, one launch after the other."""
        t = self.trees
        t.start()
        if self.settings.eps > 0:
            boost = self.settings.alpha < 1
            d = self.settings.alpha + boost - 1/3
            kernels.dirichlet[(t.n,)](
                t.states, t.seat, t.keys, t.noise, t.n_nodes, self.settings.alpha, d,
                1/math.sqrt(9*d), BOOST=boost, W=n_words(t.boardsize), **self._lanes)
        self.observe()
        for simulation in range(1, t.n_nodes + 1):
            self.forward()
            self.advance(simulation)
            if simulation < t.n_nodes:
                self.place()
                self.observe()
        kernels.summarise[(t.n,)](
            t.prior, t.children, t.q, t.visits, t.seat, t.delta, t.size, t.policy, t.counts,
            t.n_nodes, float(self.settings.c_puct), **self._rules, **self._lanes)

    def advance(self, simulation):
        t, s = self.trees, self.settings
        kernels.advance[(t.n,)](
            self.forward.out, t.states, t.prior, t.children, t.root, t.noise, t.parent, t.action,
            t.seat, t.terminal, t.q, t.value, t.delta, t.visits, t.path, t.size, t.leaf, t.depth,
            t.grown, t.n_leaves, t.bad, t.keys, simulation, t.n_nodes, float(s.c_puct),
            float(s.eps), self.forward.out.stride(0), GROW=simulation < t.n_nodes,
            NOISE=s.eps > 0, W=n_words(t.boardsize), **self._rules, **self._lanes)

    def place(self):
        t = self.trees
        kernels.place[(triton.cdiv(t.n, _GAMES),)](
            t.states, t.parent, t.action, t.seat, t.terminal, t.value, t.leaf, t.grown, t.n,
            t.n_nodes, BLOCK=_GAMES, num_warps=1, **rules.geometry(t.boardsize))

    def observe(self):
        t = self.trees
        rules.observe_leaves(t.states, t.seat, t.leaf, self.forward.obs, t.boardsize)


_kept = OrderedDict()


def searcher(n, n_nodes, network, settings, device):
    """The :class:`Searcher` of a shape, made anew or kept from before."""
    key = (n, n_nodes, network.boardsize, network.width, network.depth, settings, device)
    if key not in _kept:
        room = _room(device) - n*bytes_per_game(n_nodes, network.boardsize)
        while _kept and (len(_kept) >= KEPT
                         or sum(kept.trees.n_bytes for kept in _kept.values()) > room):
            _kept.popitem(last=False)
        _kept[key] = Searcher(n, n_nodes, network.boardsize, network.width, network.depth,
                              settings, device)
    _kept.move_to_end(key)
    return _kept[key]


def bytes_per_game(n_nodes, boardsize):
    """Device memory that one game's tree takes."""
    return Trees(1, n_nodes, boardsize, 'meta').n_bytes


def _room(device):
    """Bytes that trees may fill."""
    if device.type != 'cuda':
        return math.inf
    return torch.cuda.get_device_properties(device).total_memory*MEMORY_SHARE


def games_at_once(n_envs, n_nodes, boardsize, device):
    """How many games are searched together where there are ``n_envs``: as memory allows, and a
    number that comes again (see :data:`WHOLE`), beyond ``n_envs`` if need be."""
    if device.type != 'cuda' or n_envs == 0:
        return n_envs
    most = max(1, int(_room(device)//bytes_per_game(n_nodes, boardsize)))
    turns = -(-n_envs//most)
    at_once = -(-n_envs//turns)
    filled = at_once if at_once % WHOLE == 0 else max(LEAST, triton.next_power_of_2(at_once))
    return min(filled, most)


def search(world, network, n_nodes, settings, keys, collect):
    """Searches every game of a Hex world on its device.

    Args:
        settings: a :class:`boardlaw.mcts.search.Settings`.
        keys: `[n_envs]` uint64.
        collect: called as ``collect(found, trees)`` for the games of each turn: a :class:`Found`,
            and a function that gives their :class:`boardlaw.mcts.tree.Tree`.

    Returns:
        A game for which the network's output was nan or infinite, or which has no valid action;
        or -1.
    """
    n, device = world.n_envs, world.device
    keys = torch.from_numpy(keys.view('int64')).to(device)
    at_once = games_at_once(n, n_nodes, world.boardsize, device)
    wrong = []
    for start in range(0, max(n, 1), max(at_once, 1)):
        run = searcher(at_once, n_nodes, network, settings, device)
        left = min(at_once, n - start)
        games = torch.arange(start, start + at_once, device=device) % max(n, 1)   # fills the turn
        found, bad = run(world.bits[games], world.seats[games], keys[games], network)
        collect(Found(*(x[:left] for x in found)), lambda: to_tree(run.trees, left))   # noqa: B023
        wrong.append(bad[:left])
    bad = torch.cat(wrong).nonzero()
    return int(bad[0]) if len(bad) else -1


def to_tree(trees, n):
    """The first ``n`` games' :class:`boardlaw.mcts.tree.Tree`, as the search on a CPU builds it."""
    t = {name: x[:n].cpu().numpy() for name, x in vars(trees).items()
         if isinstance(x, torch.Tensor) and name != 'states'}
    tree = tree_module.allocate(n, trees.n_nodes, trees.boardsize**2)
    nodes, over = tree.nodes, t['terminal'].astype(bool)
    for name in ('parent', 'action', 'seat', 'terminal', 'q', 'delta'):
        nodes[name] = t[name]
    nodes['n'], nodes['child'], nodes['sibling'], nodes['p'] = t['visits'], -1, -1, 1
    nodes['v'], nodes['reward'] = np.where(over, 0, t['value']), np.where(over, t['value'], 0)
    tree.prior[:] = np.where(over[:, :, None], 0, t['prior'])
    tree.root[:], tree.size[:], tree.leaf[:] = t['root'], t['size'], t['leaf']
    for i in range(1, trees.n_nodes):
        g = np.flatnonzero(t['size'] > i)
        up, action = t['parent'][g, i], t['action'][g, i]
        nodes['p'][g, i], tree.prior[g, up, action] = tree.prior[g, up, action], 0
        nodes['sibling'][g, i], nodes['child'][g, up] = nodes['child'][g, up], i
        nodes['n_children'][g, up] += 1
    nodes['rest'] = tree.prior.sum(-1)
    nodes[np.arange(trees.n_nodes) >= t['size'][:, None]] = 0
    return tree
