"""Many runs and their ratings, within a time, on this machine or on a cluster.

    sweep.sweep(sweep.plan([3, 4, 5]), minutes=120)
    python -m boardlaw sweep --boards 3,4,5 --minutes 120

A sweep is a plan (:mod:`.grid`), done by workers (:mod:`.pools`), then rated (:mod:`.rating`). All
its state is in the folder of runs and in the database: started again after an interruption, it goes
on where it stopped; two sweeps on one folder share the work.

Explained in the chapter book/arena.ipynb.
"""
import platform
import time
import warnings
from contextlib import ExitStack
from importlib.metadata import version

import torch
from tqdm import tqdm

from .. import arena, pavlov, sql
from ..arena import ratings
from ..pavlov import disk, runs, storage
from ..training import train
from . import noise, pools
from .grid import CHEAPEST, Job, fitting, lambda_study, plan
from .pools import Local, Lost, Ray
from .rating import DIRECT_GAMES, direct, rate

__all__ = ['Job', 'Local', 'Lost', 'Ray', 'direct', 'find', 'fitting', 'lambda_study',
           'measure_noise', 'plan', 'pools', 'rate', 'rate_alone', 'register', 'sweep', 'train_all']

#: Share of a sweep's time that is kept for rating.
RATING_SHARE = .3

#: The largest board that has the exact solver's player among its agents, as 0.
SOLVED = 5

#: Nodes of the search trees in the study of test-time compute, which takes every third snapshot.
TEST_NODES, TEST_EVERY = [2**k for k in range(10)], 3


def sweep(jobs, minutes=None, pool=None, database=None, test_boards=(), device='cpu',
          direct_games=DIRECT_GAMES, report=print):
    """Trains agents as far as the time goes, and rates them.

    Args:
        jobs: what to train, see :func:`plan` and :func:`lambda_study`.
        minutes: time for all; without it all of them are trained.
        pool: :class:`Local` (the default) or :class:`Ray`.
        database: path or URL of the evaluation database; by default replica.sqlite in the folder of
            runs. It is made if it is not there.
        test_boards: boards whose agents are also rated with search trees of 1, 2, 4 .. 512 nodes.
        device: where to train.
        direct_games: of the top agent against each of the others, see :func:`direct`.
        report: called with every line of progress.

    Returns:
        {(boardsize, description): ratings}, see :func:`boardlaw.arena.ratings.ratings`.
    """
    pool = pool or Local()
    began = time.time()
    limit = float('inf') if minutes is None else 60*minutes
    database = sql.create(database or pavlov.root()/'replica.sqlite')
    if minutes is not None:
        wanted, jobs = len(jobs), fitting(jobs, limit*(1 - RATING_SHARE)*pool.workers, device)
        report(f'{len(jobs)} of {wanted} runs fit into {minutes:g} minutes')
    train_all(jobs, pool, database, began + limit*(1 - RATING_SHARE), device, report)
    groups = sorted({(job.config.boardsize, job.description) for job in jobs})
    with sql.use(database):
        for job in jobs:
            if job.config.boardsize in test_boards:
                register(job, TEST_NODES, TEST_EVERY)
        rated = {group: rate_alone(*group, pool, began + limit, direct_games, report)
                 for group in groups}
        measure_noise(jobs, pool, began + limit, report)
    return rated


def measure_noise(jobs, pool, deadline=float('inf'), report=print):
    """Measures the gradient's noise for the agents of each board's cheapest perfect network."""
    ids = noise.missing([job for job in jobs if job.decades and job.description.startswith('bee/')
                         and (job.config.width, job.config.depth)
                         == CHEAPEST[job.config.boardsize]], find)
    shares = [(str(pavlov.root()), sql.target(), ids[k::pool.workers])
              for k in range(min(pool.workers, len(ids)))]
    for _, result in pool.map(noise.measure, shares, deadline):
        report(f'noise scales: {result} agents measured')


def rate_alone(boardsize, description, pool, deadline=float('inf'), direct_games=DIRECT_GAMES,
               report=print):
    """:func:`rate` and :func:`direct`, unless another sweep is rating these agents here: that would
    play the same games. Then the ratings as they are."""
    with ExitStack() as stack:
        try:
            stack.enter_context(_lock(f'rate-{description}-{boardsize}'))
        except BlockingIOError:
            report(f'{boardsize}x{boardsize}: rated by another sweep')
            return ratings.ratings(ratings.agents(boardsize, description))
        rate(boardsize, description, pool, deadline=deadline, report=report)
        direct(boardsize, description, pool, direct_games, deadline)
        return ratings.ratings(ratings.agents(boardsize, description))


def _lock(name):
    folder = pavlov.root()/'sweep'
    folder.mkdir(parents=True, exist_ok=True)
    return disk.locked(folder/f'{name.replace("/", "-")}.lock', blocking=False)


def train_all(jobs, pool, database, deadline=float('inf'), device='cpu', report=print):
    """Trains what is not trained yet, and enters each run in the database when it is done."""
    todo = [job for job in jobs if not done(job)]
    report(f'{len(jobs)} runs, {len(jobs) - len(todo)} of them finished before')
    total = sum(job.flops/job.config.flops_per_sample for job in todo)
    bar = tqdm(total=total, unit='samples', unit_scale=True, desc='training')
    with bar:
        items = [(job, str(pavlov.root()), device) for job in todo]
        for (job, *_), result in pool.map(_train, items, deadline):
            if isinstance(result, Exception):
                report(f'{job.name}: {type(result).__name__}: {result}')
                continue
            bar.update(job.flops/job.config.flops_per_sample)
            report(f'{job.name}: {result}')
    with sql.use(database):
        for job in jobs:
            register(job)


def find(job):
    """The name of a job's run in the folder of runs, or None."""
    wanted = job.config.params()
    for name in runs.names():
        info = runs.info(name)
        params = info['params']
        if info['description'] == job.description and params.get('snapshots') == job.snapshots \
                and all(params.get(k) == v for k, v in wanted.items()):
            return name
    return None


def done(job):
    """Whether a job's run has its last snapshot."""
    run = find(job)
    return run is not None and storage.snapshots(run).present.get(len(job.snapshots) - 1, False)


def register(job, nodes=(None,), every=1):
    """Enters the snapshots that a job has so far in the database in use, and the exact player.

    Args:
        nodes: of the searches to play with; None is that of training.
        every: 1 for all snapshots, k for every k-th, counted back from the last.
    """
    run = find(job)
    if run is None:
        return
    if job.config.boardsize <= SOLVED:
        arena.register_perfect(job.config.boardsize)
    for n in nodes:
        arena.register(run, n, every=every, version=version('boardlaw'), machine=machine())


def machine():
    """The kind of machine, without its name."""
    parts = [platform.machine(), platform.system(), f'torch {torch.__version__}']
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ', '.join(parts)


def _train(item):
    """Trains a job to its end, or goes on with it; what is done or under way elsewhere is left."""
    job, root, device = item
    with pavlov.use_root(root), ExitStack() as stack:
        try:
            stack.enter_context(_lock(job.name))
        except BlockingIOError:
            return 'is trained by another sweep'
        if done(job):
            return 'finished by another sweep'
        run = find(job)
        settings = job.config.params()
        settings['n_nodes'] = settings.pop('nodes')
        if run is not None:
            settings = {'resume': run}
        else:
            settings |= {'snapshots': job.snapshots, 'description': job.description,
                         'flops': job.snapshots[-1]}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            run = train(**settings, device=device, progress=False)
        saved = storage.load_latest(run)
        return (f'{saved["n_samples"]:.2g} samples in {saved["runtime"]/60:.1f} min, '
                f'run "{run}"')
