"""Self-play and learning, one game step at a time: everything of a training but its run on disk.

Each step searches from every game, lets the network learn once from the last ``buffer_len`` steps,
and plays a move. All random numbers are functions of (seed, game, step), so that a state that has
been saved and restored goes on exactly as one that never stopped (on a CPU, with the same versions,
and for large networks the same number of torch threads).

Explained in the chapter book/training.ipynb.
"""
from dataclasses import asdict, dataclass, fields
from numbers import Integral

import numpy as np
import torch

from . import learning, mcts, networks, rng
from .hex import BOARDSIZES, Hex
from .mcts.agent import sample

MAX_DEPTH = 1000   # layers; the paper has 8
_MIXING = -1   # the move under which the games' first, random moves draw their numbers


class BadConfig(ValueError):
    """A training that cannot be run as asked; the message says what to change.

    What to do: change the setting that the message names. A run that is resumed keeps its own.
    """


@dataclass(frozen=True)
class Config:
    """What determines a training, all but how long it lasts.

    Attributes:
        boardsize, width, depth: the board and the :class:`boardlaw.networks.Network`.
        n_envs: games played side by side (the paper: 32768).
        buffer_len: steps of every game that are kept to learn from.
        batch_size: positions of a learner step, by default `n_envs`.
        lr: learning rate of Adam.
        n_nodes: nodes of each search.
        c_puct: as in :func:`boardlaw.mcts.search`; by default the rule's.
        rule: 'corrected' or '2021'.
        noise_eps: share of Dirichlet noise in the root's prior.
        dirichlet_alpha: its concentration, by default 10/S^2.
        seed: of all random numbers.
    """
    boardsize: int
    width: int
    depth: int
    n_envs: int = 512
    buffer_len: int = 64
    batch_size: int | None = None
    lr: float = 1e-3
    n_nodes: int = 64
    c_puct: float | None = None
    rule: str = 'corrected'
    noise_eps: float = 1/4
    dirichlet_alpha: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.rule not in mcts.C_PUCT:
            raise BadConfig(f'rule {self.rule!r}: choose one of {sorted(mcts.C_PUCT)}')
        for name, value in [('batch_size', self.n_envs), ('c_puct', mcts.C_PUCT[self.rule]),
                            ('dirichlet_alpha', 10/(self.boardsize or 1)**2)]:
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.boardsize not in BOARDSIZES:
            raise BadConfig(f'boardsize {self.boardsize!r}: choose a whole number from '
                            f'{BOARDSIZES[0]} to {BOARDSIZES[-1]}')
        for name, least in [('boardsize', 1), ('width', 1), ('depth', 0), ('n_envs', 1),
                            ('buffer_len', 1), ('batch_size', 1), ('n_nodes', 1), ('seed', 0)]:
            value = getattr(self, name)
            if not isinstance(value, Integral) or not least <= value < 2**63:
                raise BadConfig(f'{name} {value!r}: choose a whole number of at least {least}')
            object.__setattr__(self, name, int(value))
        if self.depth > MAX_DEPTH:
            raise BadConfig(f'depth {self.depth}: choose at most {MAX_DEPTH} layers')
        for name in ('lr', 'c_puct', 'dirichlet_alpha'):
            value = getattr(self, name)
            if not 0 < value < float('inf'):
                raise BadConfig(f'{name} {value!r}: choose a positive number')
        if not 0 <= self.noise_eps <= 1:
            raise BadConfig(f'noise_eps {self.noise_eps!r}: choose a share from 0 to 1')

    @property
    def flops_per_sample(self):
        """Multiply-adds of one search's forward passes, the paper's unit of compute."""
        return networks.flops_per_sample(self.boardsize, self.width, self.depth, self.n_nodes)

    def params(self):
        """As a run's parameters, where `n_nodes` has the name that it had in 2021."""
        params = asdict(self)
        return params | {'nodes': params.pop('n_nodes')}

    @classmethod
    def from_params(cls, params):
        """The Config of a run; entries that are not part of it are passed over."""
        params = {**params, 'n_nodes': params.get('nodes')}
        return cls(**{f.name: params[f.name] for f in fields(cls) if f.name in params})


class Buffer:
    """The last steps of every game, in a ring: `[length, n_envs, ...]` tensors.

    Observations are kept as bytes and policies in half precision, whose smallest positive number,
    6e-8, is far below any probability that matters.

    Attributes:
        n: steps appended since the beginning.
        rows: the tensors by name; step i is row ``i % length``.
    """

    def __init__(self, length, n_envs, boardsize, device):
        def rows(*shape, dtype):
            return torch.zeros((length, n_envs, *shape), dtype=dtype, device=device)

        self.length, self.n_envs, self.n = length, n_envs, 0
        self.rows = {'obs': rows(boardsize, boardsize, 2, dtype=torch.bool),
                     'seats': rows(dtype=torch.uint8),
                     'policy': rows(boardsize**2, dtype=torch.float16),
                     'prior': rows(boardsize**2, dtype=torch.float16),
                     'v': rows(2, dtype=torch.float32),
                     'rewards': rows(2, dtype=torch.float32),
                     'terminal': rows(dtype=torch.bool)}

    @property
    def full(self):
        return self.n >= self.length

    def append(self, **row):
        """Adds a step, `[n_envs, ...]` by name, in place of the oldest one."""
        for name, x in row.items():
            self.rows[name][self.n % self.length] = x
        self.n += 1

    def last(self, name, k):
        """The last `k` steps of a row, the newest last: `[k, n_envs, ...]`."""
        at = (torch.arange(self.n - k, self.n) % self.length).to(self.rows[name].device)
        return self.rows[name][at]

    def batch(self, ages, envs, bootstrap):
        """The positions of the games `envs`, `ages` steps after the oldest one: a Batch.

        Args:
            ages, envs: `[batch_size]` int64.
            bootstrap: `[n_envs, 2]` float32, an estimate of what follows the newest step.
        """
        goals = learning.reward_to_go(self.last('rewards', self.length),
                                      self.last('terminal', self.length), bootstrap)
        at = (ages + self.n) % self.length * self.n_envs + envs
        obs, seats, policy, prior = (self.rows[name].flatten(0, 1)[at]
                                     for name in ('obs', 'seats', 'policy', 'prior'))
        return learning.Batch(
            obs=obs.float(), valid=~obs.any(-1).flatten(1), seats=seats.long(),
            policy=policy.float(), prior=prior.float(),
            reward_to_go=goals.flatten(0, 1)[ages*self.n_envs + envs])

    def state_dict(self):
        return {'n': self.n, 'rows': {k: x[:self.n].clone() for k, x in self.rows.items()}}

    def load_state_dict(self, state):
        _like(0, state['n'], 'buffer.n')
        self.n = state['n']
        for name, x in self.rows.items():
            found, kept = state['rows'][name], x[:self.n]
            if found.shape != kept.shape or found.dtype != kept.dtype:
                raise ValueError(f'the buffer holds {name} of another shape or type')
            kept.copy_(found)


def mixed(world, seed, n_groups=64):
    """Plays random moves until the games are out of step with each other.

    Left alone, games that start together end together for a long time: random games on one board
    are of about one length, S^2 times 0.8 or so. So each of `n_groups` groups of games plays a
    different number of uniformly random moves, spread evenly over 8 S^2, ten games or so. (In 2021
    all games played 2500.)
    """
    keys = rng.keys(seed, world.n_envs, _MIXING)
    n_groups = min(n_groups, world.n_envs)
    groups = [slice(i, None, n_groups) for i in range(n_groups)]
    return Hex.cat([world[group].random_steps(8*world.n_actions*i//n_groups, keys[group])[0]
                    for i, group in enumerate(groups)])


def optimiser(network, lr):
    """Adam, fused into one call where this torch can."""
    params = list(network.parameters())
    try:
        return torch.optim.Adam(params, lr=lr, fused=True)
    except RuntimeError:   # on a CPU before torch 2.4
        return torch.optim.Adam(params, lr=lr)


class Trainer:
    """Games, network, optimiser and buffer, and the step that moves them all on.

    Attributes:
        step: game steps played so far.
        n_learnt: learner steps so far; the first follows once the buffer is full.
    """

    def __init__(self, config, device='cpu'):
        self.config, self.device = config, torch.device(device)
        try:
            self._make()
        except (RuntimeError, MemoryError) as e:
            if 'alloc' not in str(e) and 'memory' not in str(e) and 'overflow' not in str(e):
                raise
            raise BadConfig(f'{config.n_envs} games with a buffer of {config.buffer_len} steps and '
                            f'a network {config.width} wide and {config.depth} deep, do not fit '
                            f'into memory: choose smaller ones ({str(e)[:200]})') from e

    def _make(self):
        c = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed)
            network = networks.Network(c.boardsize, c.width, c.depth)
        self.network = network.to(self.device)
        self.optimiser = optimiser(self.network, c.lr)
        self.buffer = Buffer(c.buffer_len, c.n_envs, c.boardsize, self.device)
        self.world = mixed(Hex.initial(c.n_envs, c.boardsize), c.seed).to(self.device)
        self.step = self.n_learnt = 0

    @property
    def n_samples(self):
        """Positions searched since learning began: the first `buffer_len` steps, which only fill
        the buffer, are left out, as they were in 2021."""
        return self.n_learnt*self.config.n_envs

    @property
    def n_flops(self):
        return self.n_samples*self.config.flops_per_sample

    def advance(self, measure=False):
        """One step of all games and, if the buffer is full, of the learner.

        Args:
            measure: whether to take the measurements of the step.

        Returns:
            {channel: (total, count) or (maximum,)} of 0-d tensors, see :mod:`boardlaw.learning`;
            empty unless asked for.
        """
        c, measured = self.config, {}
        keys = rng.keys(c.seed, c.n_envs, self.step)
        search = mcts.search(self.world, self.network, c.n_nodes, c.c_puct, c.rule, c.noise_eps,
                             c.dirichlet_alpha, keys)
        if self.buffer.full:
            measured = self._learn(search.value, measure)
            self.n_learnt += 1
        world, transition = self.world.step(sample(search.policy, keys))
        self.buffer.append(obs=self.world.obs, seats=self.world.seats, policy=search.policy,
                           prior=search.prior, v=search.root_value, rewards=transition.rewards,
                           terminal=transition.terminal)
        self.world, self.step = world, self.step + 1
        if measure:
            leaves = search.n_leaves.float().mean()
            measured['mcts-n-leaves'] = (leaves, torch.ones_like(leaves))
        return measured

    def _learn(self, bootstrap, measure):
        batch = self.sample(bootstrap)
        if not measure:
            learning.optimise(self.network, self.optimiser, batch)
            return {}
        half = self.config.batch_size//2
        noise = learning.noise_scales(self.network, [batch[:half], batch[half:2*half]])['joint']
        before = learning.flat(self.network.parameters())
        output, loss = learning.optimise(self.network, self.optimiser, batch)
        return (learning.diagnostics(output, batch, loss)
                | learning.step_diagnostics(self.network, before)
                | {'noise-scale': (noise['trace'], noise['signal'])})

    def games(self, k):
        """Measurements on the games of the last `k` steps, as :meth:`advance` gives them."""
        return learning.game_diagnostics(*(self.buffer.last(name, k)
                                           for name in ('rewards', 'terminal', 'v')))

    def noise_scales(self):
        """The gradient's noise scales over the whole buffer, cut into `buffer_len` batches of one
        position a game; see :func:`boardlaw.learning.noise_scales`."""
        c = self.config
        with torch.no_grad():
            bootstrap = self.network(self.world).v
        envs = torch.arange(c.n_envs, device=self.device)
        return learning.noise_scales(self.network, (
            self.buffer.batch((envs + i) % c.buffer_len, envs, bootstrap)
            for i in range(c.buffer_len)))

    def sample(self, bootstrap):
        """The positions to learn from at this step, one of each game if `batch_size` is `n_envs`.

        The age of each is drawn anew at every step, uniform over the buffer; so a position is
        learnt from once on average. (In 2021 a game's age was drawn once and for all, and each
        position was used exactly once.) The search's value bootstraps the games under way.
        """
        c = self.config
        draws = rng.keys(~c.seed, c.batch_size, self.step)
        ages = torch.from_numpy((draws % c.buffer_len).astype('int64')).to(self.device)
        envs = (torch.arange(c.batch_size, device=self.device) + self.n_learnt*c.batch_size)
        return self.buffer.batch(ages, envs % c.n_envs, bootstrap)

    def state_dict(self):
        """Everything that the next step depends on, in tensors and plain values."""
        return {'step': self.step, 'n_learnt': self.n_learnt,
                'network': self.network.state_dict(), 'optimiser': self.optimiser.state_dict(),
                'world': {'bits': self.world.bits, 'seats': self.world.seats},
                'buffer': self.buffer.state_dict()}

    def load_state_dict(self, state):
        """Restores a state of a Trainer of the same Config.

        Raises:
            ValueError, KeyError, TypeError, RuntimeError: the state does not fit; this Trainer may
                then be changed in part.
        """
        for name in ('step', 'n_learnt'):
            _like(0, state[name], name)
        self.step, self.n_learnt = state['step'], state['n_learnt']
        self.network.load_state_dict(state['network'])
        self._load_optimiser(state['optimiser']['state'])
        world = {'bits': self.world.bits, 'seats': self.world.seats}
        _like(world, state['world'], 'world')
        _check_world(**state['world'], boardsize=self.config.boardsize)
        self.world = Hex(**state['world'], boardsize=self.config.boardsize).to(self.device)
        self.buffer.load_state_dict(state['buffer'])

    def _load_optimiser(self, state):
        """What Adam has gathered. Its settings are the Config's; torch would take any, and moments
        of any shape."""
        each = {i: {'step': torch.zeros(()), 'exp_avg': p.detach(), 'exp_avg_sq': p.detach()}
                for i, p in enumerate(self.network.parameters())}
        _like(each if self.n_learnt else {}, state, 'optimiser')
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {'state': state})


def _like(wanted, found, where):
    """Raises ValueError unless two nests of dicts have the same keys, and in their places tensors
    of one shape and dtype, or whole numbers from 0."""
    if type(found) is not type(wanted):
        raise ValueError(f'{where} is a {type(found).__name__}, not a {type(wanted).__name__}')
    if isinstance(wanted, dict):
        if found.keys() != wanted.keys():
            raise ValueError(f'{where} holds {list(found)}, not {list(wanted)}'[:300])
        for k in wanted:
            _like(wanted[k], found[k], f'{where}.{k}')
    elif isinstance(wanted, torch.Tensor):
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ValueError(f'{where} is {found.dtype} of {list(found.shape)}, not '
                             f'{wanted.dtype} of {list(wanted.shape)}')
    elif found < 0:
        raise ValueError(f'{where} is {found}')


def _check_world(bits, seats, boardsize):
    """Raises ValueError unless these are games under way: the kernels trust their bits."""
    cells = np.unpackbits(bits.cpu().contiguous().numpy().view(np.uint8), axis=-1,
                          bitorder='little').astype(bool)
    beyond, cells = cells[..., boardsize**2:], cells[..., :boardsize**2]
    grid = cells.reshape(*cells.shape[:3], boardsize, boardsize)
    own, other, top, bottom = cells.transpose(2, 0, 1, 3)
    stones = own.sum(-1)
    if (beyond.any() or (own & other).any() or ((top | bottom) & ~own).any()
            or (top & bottom).any() or (own | other).all(-1).any()
            or not np.array_equal(grid[:, 0, 0], grid[:, 1, 1].swapaxes(1, 2))
            or not np.array_equal(grid[:, 0, 1], grid[:, 1, 0].swapaxes(1, 2))
            or not np.array_equal(stones[:, 0] - stones[:, 1], seats.cpu().numpy())
            or not np.isin(seats.cpu().numpy(), (0, 1)).all()):
        raise ValueError('world holds boards that no game comes to')
