"""Trains the jobs of a sweep, and enters what comes of them in the database."""
import math
import platform
import subprocess
import threading
import warnings
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tqdm import tqdm

from .. import arena, pavlov, sql, threads
from ..pavlov import runs, storage
from ..training import train
from . import state

#: The largest board that has the exact solver's player among its agents, as 0.
SOLVED = 6

#: Seconds between two looks at how far the runs have got.
FOLLOW = 10.

#: The folder that holds the package; in a checkout, the repository.
CHECKOUT = Path(__file__).parents[2]


def train_all(jobs, pool, database, deadline=math.inf, device='cpu', report=print):
    """Trains what is not trained yet, and enters each run in the database when it is done."""
    known = state.descriptions()
    todo = [job for job in jobs if not state.done(job, known)]
    report(f'{len(jobs)} runs, {len(jobs) - len(todo)} of them finished before')
    with _followed(todo) as show:
        items = [(job, str(pavlov.root()), device) for job in todo]
        for (job, *_), result in pool.map(_train, items, deadline):
            if isinstance(result, Exception):
                result = f'{type(result).__name__}: {result}'
            show()
            report(f'{job.name}: {result}')
    known = state.descriptions()
    with sql.use(database):
        for job in jobs:
            register(job, known=known)


@contextmanager
def _followed(jobs):
    """A progress bar that follows the runs' savepoints, since others than this process train them.

    Yields:
        A function of no arguments that brings it up to date.
    """
    totals = [job.snapshots[-1]/job.config.flops_per_sample for job in jobs]
    ended, lock = threading.Event(), threading.Lock()

    def seen():
        known, n = state.descriptions(), 0
        for job, total in zip(jobs, totals):
            if run := state.find(job, known):
                with suppress(Exception):   # a damaged savepoint is for whoever trains to report
                    n += min(total, state.n_samples(run))
        return n

    def show():
        with lock:
            bar.n = seen()
            bar.refresh()

    def follow():
        while not ended.wait(FOLLOW):
            show()

    with tqdm(total=sum(totals), initial=seen(), unit='samples', unit_scale=True,
              desc='training') as bar:
        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield show
        finally:
            ended.set()
            thread.join()


def register(job, nodes=(None,), every=1, known=None):
    """Enters the snapshots that a job has so far in the database in use, and the exact player.

    Args:
        nodes: of the searches to play with; None is that of training.
        every: 1 for all snapshots, k for every k-th, counted back from the last.
        known: as for :func:`find`.
    """
    run = state.find(job, known)
    if run is None:
        return
    if job.config.boardsize <= SOLVED:
        arena.register_perfect(job.config.boardsize)
    entered = sql.query('select version from run_details where run = :run', run=run).version
    # Who enters it first has trained it; a later sweep may only add searches to play with.
    made = {} if entered.notna().any() else {'version': release(), 'machine': machine()}
    for n in nodes:
        arena.register(run, n, every=every, **made)


def release():
    """This package's version, 'unknown' where nobody installed it; in a checkout with the commit
    behind it: '0.1.0+1a2b3c4-dirty', where dirty says that files differ from it."""
    try:
        found = version('boardlaw')
    except PackageNotFoundError:
        found = 'unknown'
    if (CHECKOUT/'.git').exists():
        describe = ['git', '-C', CHECKOUT, 'describe', '--always', '--dirty', '--exclude=*']
        try:
            told = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=60)
            return f'{found}+{told.stdout.strip()}'
        except (OSError, subprocess.SubprocessError):   # without git, or somebody else's folder
            pass
    return found


def machine():
    """The kind of machine, without its name; sums are rounded by the processor's model."""
    parts = [threads.cpu(), platform.machine(), platform.system(), f'torch {torch.__version__}']
    if torch.cuda.is_available():
        parts.append(f'GPU {torch.cuda.get_device_name()}')
    return ', '.join(parts)


def _train(item):
    """Trains a job to its end, or goes on with it; what is done or under way elsewhere is left."""
    job, root, device = item
    with pavlov.use_root(root), ExitStack() as stack:
        try:
            stack.enter_context(state.alone(job.name))
        except BlockingIOError:
            return 'is trained by another sweep'
        if state.done(job):
            return 'finished by another sweep'
        run = state.find(job)
        settings = job.config.params()
        settings['n_nodes'] = settings.pop('nodes')
        end = job.snapshots[-1]
        if run is not None:
            own = runs.info(run)['params']['snapshots']
            later = [x for x in job.snapshots if x > own[-1]]
            settings = {'resume': run, 'snapshots': own + later, 'flops': end}
        else:
            settings |= {'snapshots': job.snapshots, 'description': job.description, 'flops': end}
        with warnings.catch_warnings():     # they would run into the lines of the others' progress
            warnings.simplefilter('ignore')
            run = train(**settings, device=device, progress=False)
        saved = storage.load_latest(run)
        return (f'{saved["n_samples"]:.2g} samples in {saved["runtime"]/60:.1f} min, '
                f'run "{run}"')
