"""One pool of worker threads for all of the package's compiled kernels.

The kernels release the interpreter's lock and each works on its own slice of the games, so a
plain thread pool is all that is needed. Inside a worker torch runs on one thread: the slices
already fill the cores, and nested parallel regions fight over them.
"""
import os
import platform
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

_NAME = 'boardlaw-worker'


def n_threads():
    """Threads in use: the environment variable BOARDLAW_THREADS, else the cores we may run on."""
    if (asked := os.environ.get('BOARDLAW_THREADS')):
        return max(1, int(asked))
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu():
    """The processor's model, as its maker calls it where the system says so."""
    try:
        found = re.search(r'model name\s*:\s*(.*)', Path('/proc/cpuinfo').read_text('utf-8'))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


@cache
def _pool(n, pid):
    # Keyed on the process: a forked child must not wait on its parent's threads.
    return ThreadPoolExecutor(n, _NAME, initializer=torch.set_num_threads, initargs=(1,))


def split(function, n, least=1):
    """Calls ``function(start, stop)`` over slices that together cover ``range(n)``, one a thread.

    Args:
        function: called from several threads at once; what it returns is collected in order.
        n: how many items there are.
        least: the smallest slice worth a thread of its own.
    """
    k = min(n_threads(), max(1, n // least))
    if k == 1 or threading.current_thread().name.startswith(_NAME):   # a worker waits for no other
        return [function(0, n)]
    edges = [n * i // k for i in range(k + 1)]
    return list(_pool(n_threads(), os.getpid()).map(function, edges[:-1], edges[1:]))


@contextmanager
def torch_threads(n):
    """A context in which torch computes on `n` threads; None leaves it as it is."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
