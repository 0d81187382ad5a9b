"""What a sweep has done so far: all its state is in the folder of runs."""
import contextlib
import math
import time

from .. import pavlov
from ..pavlov import disk, runs, storage


def descriptions():
    """What is known of every run in the folder of runs: {name: info}."""
    return {name: runs.info(name) for name in runs.names()}


def find(job, known=None):
    """The name of a job's run in the folder of runs, or None.

    Args:
        known: :func:`descriptions`, for many jobs in a row.
    """
    wanted = job.config.params()
    for name, info in (descriptions() if known is None else known).items():
        params = info['params']
        if info['description'] == job.description and params.get('snapshots') == job.snapshots \
                and all(params.get(k) == v for k, v in wanted.items()):
            return name
    return None


def done(job, known=None):
    """Whether a job's run has its last snapshot; `known` as for :func:`find`."""
    run = find(job, known)
    return run is not None and storage.snapshots(run).present.get(len(job.snapshots) - 1, False)


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
