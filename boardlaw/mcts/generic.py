"""The search over any world that steps, one kernel call a simulation for all games.

It asks of a world what :class:`boardlaw.hex.Hex` gives: ``n_envs``, ``seats``, ``valid``,
``step(actions, reset=False)``, indexing and ``cat``; rewards must be zero-sum (or for one player,
of whom all are seat 0). Hex itself takes the faster road of :mod:`boardlaw.mcts.fused`.
"""
import numpy as np
import torch
from numba import njit

from ..lanes import whole
from . import kernels
from .tree import allocate


@njit(nogil=True, cache=True)
def _begin(tree, seats):
    for g in range(len(seats)):
        kernels.start(tree.nodes[g], seats[g])
        tree.size[g], tree.leaf[g] = 1, 0


@njit(nogil=True, cache=True)
def _expand(tree, games, valid, logits, values, keys, eps, alpha):
    """Gives new leaves their priors and values and backs them up; returns the first bad game."""
    noise = np.empty(logits.shape[1], np.float64)
    row = np.empty(whole(logits.shape[1]), np.float32)
    for i, g in enumerate(games):
        row[:] = kernels.LOWEST
        for a in range(valid.shape[1]):
            if valid[i, a]:
                row[a] = logits[i, a]
        leaf = tree.leaf[g]
        if not kernels.expand(tree.nodes[g], tree.prior[g], tree.root[g], leaf, row, values[i],
                              keys[g], eps, alpha, noise):
            return g
        kernels.back_up(tree.nodes[g], leaf)
    return -1


@njit(nogil=True, cache=True)
def _descend(tree, keys, simulation, c_puct, rule, unvisited, nodes, actions):
    """The way out of each tree; where it ends at a finished game, that is backed up at once."""
    ids, terms = kernels.scratch(tree.nodes.shape[1])
    for g in range(len(nodes)):
        nodes[g], actions[g] = kernels.descend(
            tree.nodes[g], tree.prior[g], tree.size[g], keys[g], simulation, c_puct, rule,
            unvisited, ids, terms)
        if actions[g] < 0:
            kernels.back_up(tree.nodes[g], nodes[g])


@njit(nogil=True, cache=True)
def _attach(tree, games, nodes, actions, seats, terminal, rewards):
    for i, g in enumerate(games):
        leaf = tree.leaf[g] = tree.size[g]
        tree.size[g] += 1
        kernels.attach(tree.nodes[g], tree.prior[g], leaf, nodes[g], actions[g], seats[i],
                       terminal[i], rewards[i])
        if terminal[i]:
            kernels.back_up(tree.nodes[g], leaf)


@njit(nogil=True, cache=True)
def results(tree, c_puct, rule, unvisited, policy, visits, n_leaves):
    """The policies, visits and leaf counts of a chunk's roots."""
    ids, terms = kernels.scratch(tree.nodes.shape[1])
    for g in range(len(policy)):
        n_leaves[g] = kernels.summarise(
            tree.nodes[g], tree.prior[g], tree.size[g], c_puct, rule, unvisited, ids, terms,
            policy[g], visits[g])


def search(world, network, n_nodes, settings, keys):
    """Grows the trees of one batch of games; returns (tree, first bad game or -1)."""
    n_envs, n_actions = world.valid.shape
    tree = allocate(n_envs, n_nodes, n_actions)
    _begin(tree, _numpy(world.seats))
    nodes, actions = np.empty(n_envs, np.int64), np.empty(n_envs, np.int64)
    pool, size = [world], n_envs                    # every position met,
    place = np.zeros((n_envs, n_nodes), np.int64)   # and where nodes find theirs
    games = place[:, 0] = np.arange(n_envs)
    leaves = world
    for simulation in range(1, n_nodes + 1):
        if len(games):
            outputs = network(leaves)
            bad = _expand(tree, games, _numpy(leaves.valid), _numpy(outputs.logits.float()),
                          _numpy(outputs.v[:, 0].float()), keys, settings.eps, settings.alpha)
            if bad >= 0 or simulation == n_nodes:
                return tree, bad
        if simulation == n_nodes:
            return tree, -1
        _descend(tree, keys, simulation, *settings.rules, nodes, actions)
        games = np.flatnonzero(actions >= 0)
        if len(games):
            pool = [type(world).cat(pool)]
            parents = pool[0][torch.from_numpy(place[games, nodes[games]])]
            moves = torch.from_numpy(actions[games]).to(world.device)
            leaves, step = parents.step(moves, reset=False)
            terminal = _numpy(step.terminal)
            _attach(tree, games, nodes, actions, _numpy(leaves.seats), terminal,
                    _numpy(step.rewards[:, 0]))
            place[games, tree.leaf[games]] = size + np.arange(len(games))
            size += len(games)
            pool.append(leaves)
            games, leaves = games[~terminal], leaves[torch.from_numpy(~terminal)]


def _numpy(x):
    return x.detach().cpu().numpy()
