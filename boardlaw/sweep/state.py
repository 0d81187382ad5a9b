"""What a sweep has done so far: all its state is in the folder of runs."""
import contextlib
import math
import time

import torch

from .. import pavlov
from ..arena import ratings
from ..pavlov import disk, runs, storage


def descriptions():
    """What is known of every run in the folder of runs: {name: info}."""
    return {name: runs.info(name) for name in runs.names()}


def find(job, known=None):
    """The name of a job's run in the folder of runs, or None.

    It has the job's settings and its snapshots, and maybe more of them. Where there is none, it is
    a shorter one that can go on to the job's end: its savepoint is there, and as far as it goes
    it has the same snapshots.

    Args:
        known: :func:`descriptions`, for many jobs in a row.
    """
    wanted, longer, shorter = job.config.params(), [], []
    for name, info in (descriptions() if known is None else known).items():
        params = info['params']
        if info['description'] != job.description or any(params.get(k) != v
                                                         for k, v in wanted.items()):
            continue
        own = params.get('snapshots') or []
        if own == job.snapshots:
            return name
        so_far = [x for x in job.snapshots if own and x <= own[-1]]
        if so_far and set(so_far) <= set(own):
            if so_far == job.snapshots:
                longer.append(name)
            elif storage.LATEST in info['_files']:
                shorter.append(name)
    return next(iter(longer + shorter), None)


def done(job, known=None):
    """Whether a job's run has the job's last snapshot; `known` as for :func:`find`."""
    run = find(job, known)
    if run is None:
        return False
    own, last = runs.info(run)['params']['snapshots'], job.snapshots[-1]
    return last in own and storage.snapshots(run).present.get(own.index(last), False)


def n_samples(run):
    """Samples that a run has seen at its savepoint, or else at its last snapshot."""
    found = storage.snapshots(run)
    names = [storage.LATEST, *(storage.SNAPSHOT.format(n=n) for n in found.index[::-1])]
    for path in [runs.path(run)/name for name in names]:
        if path.exists():   # mapped, since a savepoint is large and one number of it is wanted
            return int(torch.load(path, mmap=True, weights_only=True)['n_samples'])
    return 0


def present(agents):
    """Ids of those agents who can play: their snapshots are in the folder of runs.

    Where runs came from elsewhere, such as those that ship, the database may know more agents, with
    their games. The exact player needs no snapshot.

    Args:
        agents: rows of :func:`boardlaw.sql.agent_query`.
    """
    here = {}
    for run in set(agents.run) & set(runs.names()):
        snapshots = storage.snapshots(run)
        here[run] = set(snapshots.index[snapshots.present])
    return [i for i, run, n, description in agents[['run', 'idx', 'description']].itertuples()
            if description == ratings.PERFECT or n in here.get(run, ())]


@contextlib.contextmanager
def alone(name, deadline=-math.inf):
    """A context in which no other sweep on this folder does the work of this name.

    Args:
        deadline: a time as of `time.time` until which to wait for another one.

    Raises:
        BlockingIOError: another one is at it.
    """
    folder = pavlov.root()/'sweep'
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(
                    disk.locked(folder/f'{name.replace("/", "-")}.lock', blocking=False))
                break
            except BlockingIOError:
                if time.time() > deadline:
                    raise
                time.sleep(.5)
        yield
