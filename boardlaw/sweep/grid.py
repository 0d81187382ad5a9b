"""Which runs a sweep trains, in which order, and for how long."""
import math
import time
from dataclasses import dataclass
from itertools import product

import numpy as np

from .. import networks
from ..mcts import C_PUCT
from ..selfplay import BadConfig, Config, Trainer

#: The widest networks of the paper's grid, by board size (table II).
WIDEST = {3: 2, 4: 16, 5: 16, 6: 128, 7: 512, 8: 512, 9: 1024}

#: Width and depth of the paper's cheapest network that plays perfectly, by board size.
CHEAPEST = {3: (2, 4), 4: (8, 2), 5: (16, 4), 6: (128, 1), 7: (128, 4), 8: (256, 4), 9: (512, 4)}

#: How each board is trained: `n_envs` (the batch is as large), learning rate, samples of a run. The
#: batch is of the order of the gradient's noise scale, where the paper's is 32768 on every board.
SETTINGS = {3: (512, 3e-3, 3e6), 4: (512, 3e-3, 4e6), 5: (512, 3e-3, 5e6), 6: (1024, 3e-3, 5e6)}

# Boards 3 to 5 were chosen by noise scales measured there: a few hundred half way up, mostly 500 to
# 5000 near perfect play. On 7x7, extrapolated from them, it came out at 4000 near perfect play, so
# 8x8 kept its batch; there it was no larger, 2500 to 5500 over the upper half of the climb, so 9x9
# kept it too, and has 4000 to 8000 where its longest run ends. From 10 on they are extrapolated, to
# be revised by the noise scales that runs measure. The wider the network, the smaller the learning
# rate; 7x7 has as many learning steps as 6x6, and from 8 on samples are at least a twentieth of the
# published ones, where 5x5 took a thirty-eighth. They are the same on a CPU and on a GPU, so that a
# run is one experiment wherever it is made: what fills a GPU is that several runs share it, not
# more games in each, whose batch would leave the noise scale behind.
SETTINGS |= {7: (2048, 2e-3, 1e7), 8: (2048, 1e-3, 5e7), 9: (2048, 1e-3, 1e8),
             10: (4096, 1e-3, 1.5e8), 11: (4096, 1e-3, 2e8)}

#: Networks for boards larger than the paper's, first the one that stands for the cheapest perfect
#: one, which is not known: the largest that a state of :mod:`.packs` has room for.
BEYOND = dict.fromkeys((10, 11), [(512, 4), (128, 2), (32, 8), (128, 1), (64, 1), (16, 8)])

CHEAPEST |= {boardsize: each[0] for boardsize, each in BEYOND.items()}

DECADES = 3.2        # of compute that a run's snapshots span, at least 12 of them
PER_DECADE = 5       # snapshots

#: Networks with more parameters than this have snapshots over fewer decades: they take room, and
#: after so few samples they know nothing.
LARGE, LARGE_DECADES = 200_000, 2.4


@dataclass(frozen=True)
class Job:
    """A training run of a sweep: what it is, and the compute at which it ends.

    Attributes:
        config: its :class:`boardlaw.selfplay.Config`.
        flops: train FLOPs of its last snapshot.
        description: of the run; 'bee/<boardsize>' for those that the paper's figures use.
        decades: of compute that its snapshots span; 0 for the last alone.
    """
    config: Config
    flops: float
    description: str
    decades: float = DECADES

    @property
    def name(self):
        """A name that no other job of its description has."""
        c = self.config
        extra = [f'{k}{getattr(c, k):g}' for k in ('c_puct', 'n_nodes', 'lr')
                 if getattr(c, k) != getattr(Config(c.boardsize, 1, 1, rule=c.rule), k)]
        return '-'.join([self.description.replace('/', '-'), f'{c.width}x{c.depth}',
                         *(['rule2021'] if c.rule == '2021' else []), *extra, f'seed{c.seed}'])

    @property
    def snapshots(self):
        """Train FLOPs at which the agent is saved: a grid that all runs share, the last the end."""
        last = _last_step(self.flops)
        least = 2*self.config.n_envs*self.config.flops_per_sample
        ks = np.arange(last - round(self.decades*PER_DECADE), last + 1)
        return [float(x) for x in 10**(ks/PER_DECADE) if x >= least]


def _last_step(flops):
    """Number, on the grid of snapshots, of the last one that this compute reaches."""
    return math.floor(math.log10(flops)*PER_DECADE + 1e-9)


def grid(boardsize):
    """Widths and depths of the paper's networks for a board: 1, 2, 4 .. to the widest, each with
    1 to 8 layers (to 4 on the two smallest boards).

    >>> len(grid(3)), max(grid(9))
    (6, (1024, 8))
    """
    if boardsize not in WIDEST:
        raise BadConfig(f'boardsize {boardsize}: the paper\'s grid has {min(WIDEST)} to '
                        f'{max(WIDEST)}')
    widths = [2**k for k in range(WIDEST[boardsize].bit_length())]
    depths = [1, 2, 4] if boardsize <= 4 else [1, 2, 4, 8]
    return [(w, d) for w in widths for d in depths]


def ordered(boardsize):
    """The board's networks, those that say most about its frontier first.

    The cheapest perfect one leads; then always the one whose number of parameters (in the
    logarithm) is farthest from all chosen so far: the frontier is covered before it is filled.
    """
    if boardsize in BEYOND:
        return list(BEYOND[boardsize])
    size = {n: math.log(networks.count_params(boardsize, *n)) for n in grid(boardsize)}
    chosen = [CHEAPEST[boardsize]]
    while len(chosen) < len(size):
        rest = [n for n in size if n not in chosen]
        chosen.append(max(rest, key=lambda n: min(abs(size[n] - size[c]) for c in chosen)))
    return chosen


def plan(boards, seeds=1, settings=None, n_runs=None, largest=None, samples=None, shapes=None):
    """All jobs of a sweep, in order: every board's first network, every board's second, ...

    Every run of a board sees the same number of samples, but a larger network than the cheapest
    perfect one stops at twice that one's compute: by then both have left the frontier.

    Args:
        boards: board sizes.
        seeds: runs of each network, with seeds 0, 1 ..; or their seeds, as a range or list. The
            second seeds come after all the first.
        settings: {boardsize: (n_envs, lr, samples)}, by default :data:`SETTINGS`.
        n_runs: of each board, the first so many; by default all.
        largest: parameters of a network; those with more are left out.
        samples: of a run, in place of those of the settings: small networks leave the frontier long
            before the cheapest perfect one does.
        shapes: width and depth of each network to train, in this order, in place of the grid's.
            Bounds such as `n_runs` hold for them too.

    Returns:
        A list of :class:`Job`.
    """
    settings = settings or SETTINGS
    if missing := set(boards) - set(settings):
        raise BadConfig(f'no batch size is known for board sizes {sorted(missing)}: give settings')
    queues = []
    for boardsize in boards:
        n_envs, lr, usual = settings[boardsize]
        n_samples = samples or usual
        cheapest = networks.flops_per_sample(boardsize, *CHEAPEST[boardsize])*n_samples
        queues.append([
            Job(config, min(n_samples*config.flops_per_sample, 2*cheapest), f'bee/{boardsize}',
                DECADES if n_params <= LARGE else LARGE_DECADES)
            for seed in _each(seeds) for w, d in shapes or ordered(boardsize)
            for n_params in [networks.count_params(boardsize, w, d)]
            if largest is None or n_params <= largest
            for config in [Config(boardsize, w, d, n_envs=n_envs, lr=lr, seed=seed)]][:n_runs])
    return [queue[i] for i in range(max(map(len, queues), default=0))
            for queue in queues if i < len(queue)]


def _each(seeds):
    return range(seeds) if isinstance(seeds, int) else seeds


def long_runs(boards, seeds=1, settings=None, samples=None):
    """The cheapest perfect network of each board once more, three times as long and at a third of
    the learning rate: to see how strong it becomes, where :func:`plan` asks how soon.

    Args:
        boards, seeds, settings: as for :func:`plan`.
        samples: of a run, if not three times as many. A longer run has the same snapshots, and more
            after them.

    Returns:
        A list of :class:`Job`, described as those of :func:`plan`.
    """
    settings = settings or SETTINGS
    jobs = []
    for seed, boardsize in product(_each(seeds), boards):
        n_envs, lr, usual = settings[boardsize]
        config = Config(boardsize, *CHEAPEST[boardsize], n_envs=n_envs, lr=lr/3, seed=seed)
        least = 3*usual*config.flops_per_sample
        flops = samples*config.flops_per_sample if samples else least
        more = max(0, _last_step(flops) - _last_step(least))
        jobs.append(Job(config, flops, f'bee/{boardsize}', DECADES + more/PER_DECADE))
    return jobs


def lambda_study(boards, seeds=3, settings=None, samples=None, shape=None):
    """Trainings by the published rule for lambda and by the corrected one, at equal compute.

    On each board the cheapest perfect network, trained with a fifth of the samples of
    :data:`SETTINGS`, so that differences show: with the rule's own c_puct and all seeds, whose
    learning curves are kept; with a quarter and four times that c_puct, the first two seeds; and
    with 16 and 256 nodes, all seeds.

    Args:
        boards, seeds, settings: as for :func:`plan`.
        samples: of a run with 64 nodes, in place of a fifth of those of the settings.
        shape: width and depth of the network, in place of the cheapest perfect one's.

    Returns:
        A list of :class:`Job`, the boards in turn, described as 'lambda/<boardsize>'.
    """
    settings = settings or SETTINGS
    seeds = _each(seeds)
    each = [({}, seed) for seed in seeds]
    each += [({'c_puct': c}, seed) for c in (1/4, 4) for seed in seeds[:2]]
    each += [({'n_nodes': n}, seed) for seed in seeds for n in (16, 256)]
    jobs = []
    for (change, seed), boardsize, (rule, c_puct) in product(each, boards, C_PUCT.items()):
        n_envs, lr, usual = settings[boardsize]
        network = shape or CHEAPEST[boardsize]
        config = Config(boardsize, *network, n_envs=n_envs, lr=lr, rule=rule, seed=seed,
                        n_nodes=change.get('n_nodes', 64), c_puct=change.get('c_puct', 1)*c_puct)
        flops = (samples or usual/5)*networks.flops_per_sample(boardsize, *network)
        jobs.append(Job(config, flops, f'lambda/{boardsize}', 0 if change else DECADES))
    return jobs


def seconds(jobs, device='cpu'):
    """The seconds that each job should take on one worker: a list.

    Each board's first job is tried for a moment. A smaller network takes as long, since most of the
    time is the tree's; a larger one takes longer by as much as it computes more.
    """
    each, found = {}, []
    for job in jobs:
        per_sample = job.config.flops_per_sample
        if job.config.boardsize not in each:
            each[job.config.boardsize] = _seconds_per_sample(job.config, device), per_sample
        measured, of = each[job.config.boardsize]
        found.append(job.flops/per_sample*measured*max(1, per_sample/of))
    return found


def _seconds_per_sample(config, device, steps=8):
    trainer = Trainer(config, device)
    for _ in range(config.buffer_len + 1):   # from here on it learns, with all kernels compiled
        trainer.advance()
    began = time.perf_counter()
    for _ in range(steps):
        trainer.advance()
    if trainer.device.type == 'cuda':
        import torch
        torch.cuda.synchronize()
    return (time.perf_counter() - began)/(steps*config.n_envs)


def fitting(jobs, budget, device='cpu'):
    """The jobs, in their order, that together take at most `budget` seconds of one worker. At least
    one is returned; if it takes longer, a later sweep goes on with it."""
    ends = np.cumsum(seconds(jobs, device))
    return jobs[:max(1, int((ends <= budget).sum()))]
