"""An agent: a network with a search over it."""
from dataclasses import dataclass

import torch

from .. import rng
from ..networks import Network
from .search import C_PUCT, BadSearch, search

_CHOICE = 1 << 33   # the counter of an action's draw, beyond those of the search


@dataclass(frozen=True)
class Decisions:
    """What an agent chose, and why.

    Attributes:
        actions: `[n_envs]` int64, in the mover's frame.
        logits: `[n_envs, n_actions]` float32, log of the root's pi_bar, -inf where invalid.
        prior: `[n_envs, n_actions]` float32, log of the network's policy at the root.
        v: `[n_envs, n_seats]` float32, the search's value.
        n_leaves: `[n_envs]` int32, nodes without children in each game's tree.
    """
    actions: torch.Tensor
    logits: torch.Tensor
    prior: torch.Tensor
    v: torch.Tensor
    n_leaves: torch.Tensor


class MCTSAgent:
    """Plays by the search; its settings are those of :func:`boardlaw.mcts.search.search`.

    Actions are sampled from the root's policy: the paper's evaluations do so too, and two agents
    that always took the best action would play one and the same game again and again.

    Args:
        network, n_nodes, c_puct, rule, noise_eps, dirichlet_alpha, unvisited: as for that search.
        argmax: whether to take the likeliest action instead.
    """

    def __init__(self, network, n_nodes=64, c_puct=None, rule='corrected', noise_eps=0.,
                 dirichlet_alpha=None, unvisited='parent', argmax=False):
        if rule not in C_PUCT:
            raise BadSearch(f'rule {rule!r}: choose one of {sorted(C_PUCT)}')
        self.network = network
        self.n_nodes, self.rule, self.argmax = n_nodes, rule, argmax
        self.c_puct = C_PUCT[rule] if c_puct is None else c_puct
        self.noise_eps, self.dirichlet_alpha = noise_eps, dirichlet_alpha
        self.unvisited = unvisited

    def __call__(self, world, seed=0, move=0, games=None):
        """Decides one move in every game.

        Args:
            world: `[n_envs]` games.
            seed, move: ints (``move`` may be `[n_envs]`); with the game they determine every random
                number.
            games: `[n_envs]` ints that name the games, by default 0 to n_envs - 1.
        """
        keys = rng.keys(seed, world.n_envs if games is None else games, move)
        found = search(world, self.network, self.n_nodes, self.c_puct, self.rule, self.noise_eps,
                       self.dirichlet_alpha, keys, unvisited=self.unvisited)
        actions = found.policy.argmax(1) if self.argmax else sample(found.policy, keys)
        return Decisions(actions, found.policy.log(), found.prior.log(), found.value,
                         found.n_leaves)

    def __repr__(self):
        net = self.network
        name = (f'<{net.boardsize}x{net.boardsize} board, {net.width}x{net.depth}>'
                if isinstance(net, Network) else repr(net))
        return (f'MCTSAgent({name}, n_nodes={self.n_nodes}, c_puct={self.c_puct:g}, '
                f'rule={self.rule!r}, noise_eps={self.noise_eps:g}, argmax={self.argmax})')


def sample(policy, keys):
    """Samples an action a game: `[n_envs]` int64.

    Args:
        policy: `[n_envs, n_actions]` of non-negative numbers with a positive sum.
        keys: `[n_envs]` uint64 from :func:`boardlaw.rng.keys`.
    """
    u = torch.from_numpy(rng.uniforms(keys, _CHOICE)).to(policy.device)
    cumulative = policy.double().cumsum(1)
    beyond = cumulative < (u*cumulative[:, -1])[:, None]
    # A draw at the very end must not fall on an action of probability 0.
    last = torch.where(policy > 0, torch.arange(policy.shape[1], device=policy.device), 0).amax(1)
    return torch.minimum(beyond.sum(1), last)
