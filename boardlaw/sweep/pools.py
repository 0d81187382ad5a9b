"""Where a sweep's work is done: processes of this machine, or tasks of a Ray cluster.

A pool has one method, ``map(function, items, deadline)``, which yields ``(item, result)`` as they
come until a time of `time.time`; what is not done by then is told to save itself and end. A
worker that is lost, killed or out of memory, has its item taken up again by another; since all
work saves as it goes, that costs a savepoint's worth at most. An exception of the function's own
is not tried again: it is yielded in place of the result.
"""
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import wait

from .. import pavlov, sql, threads

#: How often an item is taken up again after its worker was lost.
RETRIES = 3

_READ_BY_A_SHELL = ' \t&|;<>()$`\\"\'*?[]{}#~!'


class Lost(RuntimeError):
    """A worker died on the same item again and again.

    What to do: see whether memory ran out: take fewer workers. The sweep goes on where it stopped.
    """


class Local:
    """Processes of this machine, one for each item, at most ``workers`` at once.

    Args:
        workers: by default one a core. Each keeps to one thread: small networks gain nothing from
            more, and two runs side by side get twice as far.
    """

    def __init__(self, workers=None):
        self.workers = workers or threads.n_threads()
        # Not forked from here: threads of torch and of the kernels do not survive that. Forked from
        # a process that has only imported the package they start in no time.
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context(
            'forkserver' if 'forkserver' in methods else 'spawn')
        if 'forkserver' in methods:
            self._context.set_forkserver_preload([__package__])

    def map(self, function, items, deadline=math.inf):
        """Yields (item, result or exception) of ``function(item)``, in the order of arrival.

        Leaving the generator early, by an exception or `close`, ends the work: each worker is sent
        SIGTERM, upon which a training saves itself.

        Args:
            function: that can be imported by name.
            items: what it is called with.
            deadline: a time as of `time.time`; what is not done by then is left out.
        """
        waiting, running = [(item, 0) for item in items], {}
        waiting.reverse()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    item, tries = waiting.pop()
                    process, pipe = self._start(function, item)
                    running[pipe] = process, item, tries
                if time.time() > deadline:
                    return
                for pipe in wait(list(running), max(0, min(deadline - time.time(), 60))):
                    process, item, tries = running.pop(pipe)
                    try:
                        result = pipe.recv()
                    except EOFError:
                        process.join()
                        result = Lost(f'worker ended with exit code {process.exitcode}')
                        if tries < RETRIES:
                            waiting.append((item, tries + 1))
                            continue
                    process.join()
                    yield item, result
        finally:
            for process, _, _ in running.values():
                process.terminate()
            for process, _, _ in running.values():
                process.join()

    def _start(self, function, item):
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(theirs, function, item))
        process.start()
        theirs.close()   # so that ours ends when the worker does
        return process, ours


def _work(pipe, function, item):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))   # and clean up
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ['BOARDLAW_THREADS'] = '1'
    import torch
    torch.set_num_threads(1)
    pipe.send(_call(function, item))


def _end_with_parent():
    """A worker whose sweep was killed ends as if that had told it to: the next one needs its locks
    and its core."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _call(function, item):
    try:
        return function(item)
    except Exception as e:
        return e


class Ray:
    """Tasks on a Ray cluster whose machines share the folder of runs and the database.

    Args:
        address: as for `ray.init`: 'auto', 'ray://host:10001'; 'local' starts one here.
        gpus: share of a GPU that a task takes; each takes one CPU.

    Raises:
        RuntimeError: ray is not installed, or could not start workers of this Python.
    """

    def __init__(self, address='auto', gpus=0.):
        try:
            import ray
        except ImportError as e:
            raise RuntimeError('a sweep on a cluster needs the package ray: pip install '
                               '"boardlaw[ray]"') from e
        self._ray = ray
        if address == 'local' and set(sys.executable) & set(_READ_BY_A_SHELL):
            raise RuntimeError('Ray starts its workers through a shell and does not quote the name '
                               f'of this Python, "{sys.executable}": they would never come up. '
                               'Install into a folder without spaces and the like, or sweep '
                               'without Ray')
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False)
        self._options = {'num_cpus': 1, 'num_gpus': gpus, 'max_retries': RETRIES}

    @property
    def workers(self):
        """Tasks that the cluster runs at once."""
        has = self._ray.cluster_resources()
        slots = [has.get('CPU', 1)]
        if self._options['num_gpus']:
            slots.append(has.get('GPU', 0)/self._options['num_gpus'])
        return max(1, int(min(slots)))

    def map(self, function, items, deadline=math.inf):
        """As :meth:`Local.map`; Ray itself starts the tasks of a lost worker again."""
        remote = self._ray.remote(_task).options(**self._options)
        running = {remote.remote(function, item): item for item in items}
        try:
            while running:
                if time.time() > deadline:
                    return
                done, _ = self._ray.wait(list(running), num_returns=1,
                                         timeout=max(0, min(deadline - time.time(), 60)))
                for task in done:
                    item = running.pop(task)
                    try:
                        result = self._ray.get(task)
                    except self._ray.exceptions.RayError as e:
                        result = Lost(str(e))
                    yield item, result
        finally:
            for task in running:   # an interrupt: a training saves itself
                self._ray.cancel(task)
            if running:
                self._ray.wait(list(running), num_returns=len(running), timeout=60)


def _task(function, item):
    import torch
    torch.set_num_threads(1)
    return _call(function, item)


def deal(pool, function, items, deadline=math.inf):
    """Deals items out, a share to each worker, and yields what the function says of each share.

    Args:
        pool: :class:`Local` or :class:`Ray`.
        function: of a list of items, that can be imported by name; what it reads and writes is in
            the caller's folder of runs and database.
        items: a list.
        deadline: as for :meth:`Local.map`.

    Raises:
        Exception: what the function raises; the work of the others is then ended.
    """
    # In turn, so that each worker has a like share of the long ones.
    shares = [(function, str(pavlov.root()), sql.target(), items[k::pool.workers])
              for k in range(min(pool.workers, len(items)))]
    for _, result in pool.map(_there, shares, deadline):
        if isinstance(result, Exception):
            raise result
        yield result


def _there(share):
    function, root, database, items = share
    with pavlov.use_root(root), sql.use(database):
        return function(items)
