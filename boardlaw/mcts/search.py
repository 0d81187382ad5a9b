"""Regularised policy search, batched over games: the public face.

Each simulation walks down the tree by sampling from pi_bar, expands one leaf, evaluates it with
the network and backs its value up. After ``n_nodes`` evaluations the root's pi_bar is the policy.

    pi_bar(a) = lambda pi(a) / (alpha - q(a))            Grill et al. 2020, section 3

- rule 'corrected' (default): lambda = c_puct sqrt(N) / (N + A), as in Grill et al.;
- rule '2021': lambda = c_puct N' / (N' + A), as the published agents were trained.

N is the visits of a node's children and A = S*S the number of actions, taken or not. N' counts
every visit twice, and one for each action without a child. q is mapped from [-1, 1] to [0, 1] by
(1 + q)/2; under rule '2021' it is first stretched so that the tree's largest |q| is 1. An action
without a child is taken to be worth what ``unvisited`` says.

Explained in the chapter book/search.ipynb.
"""
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

from .. import gpu, rng
from ..hex import Hex
from ..networks import Network
from . import fused, generic
from .kernels import RULES, UNVISITED
from .tree import NODE, Tree, allocate

#: c_puct by rule. The published agents used 1/16; the corrected rule's is the middle of a plateau
#: from 1/8 to 1/2 that benchmarks/c_puct.py measured.
C_PUCT = {'corrected': 1/4, '2021': 1/16}

_MOST_ACTIONS = np.iinfo(NODE['action']).max


class BadSearch(ValueError):
    """A search that cannot be run as asked, or whose network gave something unusable.

    What to do: mend the setting that the message names; after nan or infinite outputs go back to an
    earlier snapshot, and train with a smaller learning rate.
    """


class Settings(NamedTuple):
    """What the kernels are told, in their order."""
    c_puct: np.float32
    rule: int
    unvisited: int
    eps: float
    alpha: float

    @property
    def rules(self):
        return self[:3]


@dataclass(frozen=True)
class Search:
    """What a search found, on the world's device.

    Attributes:
        policy: `[n_envs, n_actions]` float32, the root's pi_bar; sums to 1, 0 where invalid.
        prior: `[n_envs, n_actions]` float32, the network's policy at the root, before noise.
        visits: `[n_envs, n_actions]` int32, visit counts of the root's actions.
        value: `[n_envs, n_seats]` float32, the search's value: the mean over simulations.
        root_value: `[n_envs, n_seats]` float32, the network's value of the root.
        n_leaves: `[n_envs]` int32, nodes of the tree without children.
        tree: the :class:`~boardlaw.mcts.tree.Tree` of every game, if it was asked for.
    """
    policy: torch.Tensor
    prior: torch.Tensor
    visits: torch.Tensor
    value: torch.Tensor
    root_value: torch.Tensor
    n_leaves: torch.Tensor
    tree: Tree | None = None


def search(world, network, n_nodes=64, c_puct=None, rule='corrected', noise_eps=0.,
           dirichlet_alpha=None, keys=None, seed=0, unvisited='parent', keep_tree=False):
    """Searches from every game of a world.

    A game's result depends on its position, the network and its key, and on nothing else in the
    batch.

    Args:
        world: a :class:`boardlaw.hex.Hex`, or anything that steps like one (zero-sum, two seats,
            or a single one).
        network: called as ``network(world)``, gives ``.logits`` `[n_envs, n_actions]` and ``.v``
            `[n_envs, n_seats]`. A :class:`boardlaw.networks.Network` on the CPU runs compiled.
        n_nodes: nodes of the tree and network evaluations, the root's included; 1 gives the prior.
        c_puct: weight of the prior against the values; by default :data:`C_PUCT` of the rule.
        rule: 'corrected' or '2021', how the weight depends on the visits.
        noise_eps: share of Dirichlet noise in the root's prior; the paper trains with 1/4.
        dirichlet_alpha: concentration of the noise, by default the paper's 10/A.
        keys: `[n_envs]` uint64 from :func:`boardlaw.rng.keys`, one a game and move; by default made
            from ``seed`` and the game's index.
        unvisited: what an action without a child is taken to be worth: 'parent', the mean value of
            its node, or 'worst', a loss. Rule '2021' knows 'worst' only.
        keep_tree: whether to return the trees, for drawing.

    Raises:
        BadSearch: a setting is out of range, a game is over already, or the network gave nan or
            infinity for a game (named).

    >>> found = search(Hex.initial(2, boardsize=3), Network(3, width=4, depth=1), n_nodes=8)
    >>> found.policy.shape, found.visits.sum(-1).tolist()
    (torch.Size([2, 9]), [7, 7])
    """
    n_actions = world.valid.shape[1]
    c_puct = C_PUCT.get(rule) if c_puct is None else c_puct
    settings = _settings(n_nodes, c_puct, rule, noise_eps, dirichlet_alpha, unvisited, n_actions)
    keys = rng.keys(seed, world.n_envs, 0) if keys is None else np.asarray(keys, np.uint64)
    if keys.shape != (world.n_envs,):
        raise BadSearch(f'keys must have shape [{world.n_envs}], one for each game; got '
                        f'{list(keys.shape)}')
    if isinstance(world, Hex) and (over := world.first_over()) >= 0:
        raise BadSearch(f'environment {over}: the game is over, there is nothing to search')
    native = type(world) is Hex and type(network) is Network and _together(world, network)
    if native and network.boardsize != world.boardsize:
        raise BadSearch(f'the network plays {network.boardsize}x{network.boardsize}, the world '
                        f'is {world.boardsize}x{world.boardsize}')
    on_gpu = native and gpu.usable(world.device, world.boardsize)
    out = (_GPUResults if on_gpu else _Results)(world.n_envs, n_actions, settings, keep_tree)
    if on_gpu:
        from .gpu import search as gpu_search  # needs triton
        bad = gpu_search(world, network, n_nodes, settings, keys, out.collect)
    elif native and world.device.type == 'cpu':
        bad = fused.search(world, network, n_nodes, settings, keys, out.collect)
    else:
        with torch.no_grad():
            tree, bad = generic.search(world, network, n_nodes, settings, keys)
        out.collect(slice(0, world.n_envs), tree)
    if bad >= 0:
        raise BadSearch(f'environment {bad}: no valid action, or the network\'s output is nan or '
                        'infinite there; look at its weights and at the learning rate')
    return out.search(world)


def _settings(n_nodes, c_puct, rule, eps, alpha, unvisited, n_actions):
    if rule not in RULES:
        raise BadSearch(f'rule {rule!r}: choose one of {sorted(RULES)}')
    if not (isinstance(n_nodes, Integral) and 1 <= n_nodes <= 4096):
        raise BadSearch(f'n_nodes {n_nodes!r}: choose a whole number from 1 to 4096')
    if not 1e-9 <= c_puct <= 1e9:
        raise BadSearch(f'c_puct {c_puct!r}: choose a positive number, from 1e-9 to 1e9; the '
                        'smaller it is, the more the search trusts its values')
    if not 0 <= eps <= 1:
        raise BadSearch(f'noise_eps {eps!r}: choose a share from 0 to 1')
    if unvisited not in UNVISITED:
        raise BadSearch(f'unvisited {unvisited!r}: choose one of {sorted(UNVISITED)}')
    alpha = 10/n_actions if alpha is None else alpha
    if not 0 < alpha < float('inf'):
        raise BadSearch(f'dirichlet_alpha {alpha!r}: choose a positive number')
    if n_actions > _MOST_ACTIONS:
        raise BadSearch(f'{n_actions} actions: a tree numbers at most {_MOST_ACTIONS}')
    mode = UNVISITED['worst' if rule == '2021' else unvisited]
    return Settings(np.float32(c_puct), RULES[rule], mode, float(eps), float(alpha))


def _together(world, network):
    return next(network.parameters()).device == world.device


class _Results:
    """Collects the results of the chunks of a search, from any thread."""

    def __init__(self, n_envs, n_actions, settings, keep_tree):
        self.policy, self.prior = np.empty((2, n_envs, n_actions), np.float32)
        self.visits = np.empty((n_envs, n_actions), np.int32)
        self.q, self.v = np.empty((2, n_envs), np.float32)
        self.n_leaves = np.empty(n_envs, np.int32)
        self.settings, self.trees = settings, {} if keep_tree else None

    def collect(self, games, tree):
        n = games.stop - games.start
        generic.results(tree, *self.settings.rules, self.policy[games], self.visits[games],
                        self.n_leaves[games])
        root = tree.nodes[:n, 0]
        self.prior[games], self.q[games], self.v[games] = tree.root[:n], root['q'], root['v']
        if self.trees is not None:
            self.trees[games.start] = Tree(*[x[:n].copy() for x in tree])

    def search(self, world):
        def tensor(x):
            return torch.from_numpy(x).to(world.device)

        def seats(x):
            return tensor(x)[:, None]*torch.tensor([1., -1.], device=world.device)[:world.n_seats]

        tree = None
        if self.trees is not None:
            chunks = [self.trees[i] for i in sorted(self.trees)]
            tree = (Tree(*map(np.concatenate, zip(*chunks))) if chunks
                    else allocate(0, 1, self.policy.shape[1]))
        return Search(tensor(self.policy), tensor(self.prior), tensor(self.visits), seats(self.q),
                      seats(self.v), tensor(self.n_leaves), tree)


class _GPUResults:
    """Collects the results of the turns of a search on a GPU."""

    def __init__(self, n_envs, n_actions, settings, keep_tree):
        self.found, self.trees, self.keep_tree = [], [], keep_tree

    def collect(self, found, trees):
        """Adds games: a :class:`boardlaw.mcts.gpu.Found`, and a function that gives their Tree."""
        self.found.append(found)
        if self.keep_tree:
            self.trees.append(trees())

    def search(self, world):
        policy, prior, visits, q, v, n_leaves = map(torch.cat, zip(*self.found))
        tree = Tree(*map(np.concatenate, zip(*self.trees))) if self.keep_tree else None
        return Search(policy, prior, visits, torch.stack([q, -q], 1), torch.stack([v, -v], 1),
                      n_leaves, tree)
