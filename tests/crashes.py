"""Work that is killed with SIGKILL and started again, beside the same work that never was.

`torture` kills at random instants of two kinds: after a random time, and just before a random
operation on a file, which finds the gaps between two operations that no clock would hit. After each
kill what lies on the disk must be whole and hold all that had been reported as saved; at the end it
must be what the straight run left, bit for bit. Only times of the clock may differ.
"""
import contextlib
import functools
import importlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from fileserver import FileServer

from boardlaw import arena, backup, download, pavlov, sql, sweep, training
from boardlaw.pavlov import files, runs, stats, storage
from boardlaw.selfplay import Config

FIXTURES = Path(__file__).parent / 'fixtures/original-format/output'
RUN = '2026-11-23 09-48-06 arch-calm'
CLOCK = ('runtime', 'cputime')            # of a state
CLOCK_COLUMNS = ('times', 'seconds', 'cpu_seconds')   # of the database
OPERATIONS = {'open', 'os.rename', 'os.remove', 'os.truncate', 'os.mkdir', 'sqlite3.connect'}
SESSIONS = 6                              # at most so many kills before a run may end
PRELOAD = ['boardlaw.sweep', 'torch._dynamo', 'crashes', 'crowd', 'fuzz']
NOBODY = 65534
FAILURES = {'OSError', 'PermissionError', 'DownloadError', 'BackupError', 'BadDatabase'}
PATIENCE = 600                            # seconds that a session may take: else it hangs

# A server that has imported everything forks each process, which saves seconds at each start.
context = multiprocessing.get_context('forkserver')


def trained(run):
    """All that a training left behind and that does not depend on the clock."""
    def state(saved):
        return {k: v for k, v in saved.items() if k not in CLOCK}
    return {'latest': state(storage.load_latest(run)),
            'snapshots': {n: state(storage.load_snapshot(run, n))
                          for n in storage.snapshots(run).index},
            'rows': {c: [row[1:] for row in stats.array(run, c).tolist()]
                     for c in stats.channels(run)}}


def opens(run):
    """Reads everything of a run; a warning is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        runs.pandas(), files.pandas(run)
        for channel in stats.channels(run):
            stats.pandas(run, channel)
        for n, row in storage.snapshots(run).iterrows():
            if row.present:
                storage.load_snapshot(run, n)


def rows_of(path):
    """{table: rows} of a database, without what the clock says; it must be whole."""
    found = {}
    with contextlib.closing(sqlite3.connect(path)) as c:
        assert c.execute('pragma integrity_check').fetchall() == [('ok',)]
        for [table] in c.execute("select name from sqlite_master where type = 'table'").fetchall():
            columns = [row[1] for row in c.execute(f'pragma table_info({table})')
                       if row[1] not in CLOCK_COLUMNS]
            found[table] = c.execute(f'select {", ".join(columns)} from {table}').fetchall()
    return found


def differences(a, b, where=''):
    """Where two nests of dicts, lists and tensors differ in any bit: a list of places."""
    if type(a) is not type(b):
        return [f'{where}: {type(a).__name__} and {type(b).__name__}']
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f'{where}: {sorted(map(str, a.keys() ^ b.keys()))} are in one only']
        return [d for k in a for d in differences(a[k], b[k], f'{where}.{k}')]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f'{where}: {len(a)} and {len(b)} entries']
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f'{where}[{i}]')]
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and (
            a.numpy().tobytes() == b.numpy().tobytes())
    else:
        same = a == b or a != a and b != b
    return [] if same else [f'{where}: {a!r} and {b!r}'[:200]]


class Work:
    """Something that can be killed: what it is, how it is begun or resumed, what it leaves.

    `do(mark)` runs in a process of its own, in the folder `pavlov.root()`; it calls `mark(n)` with
    a number that grows, whenever n of something is safely stored. `check(marked)` asserts that
    what is on the disk after a kill is whole and holds at least that much. `state()` is what must
    be the same in the end.
    """
    url = None   # of a server, for those that need one

    def prepare(self):
        pass


class Training(Work):
    settings = dict(boardsize=3, width=2, depth=1, n_envs=32, buffer_len=12, n_nodes=8,
                    samples=2000, snapshots=[3e4, 1e5, 1.5e5])

    def do(self, mark):
        save = storage.save_latest

        def saves(run, state):
            path = save(run, state)
            mark(state['n_samples'])
            return path
        training.storage.save_latest = saves
        settings = dict(resume=-1) if runs.names() else self.settings
        training.train(**settings, save_seconds=0, progress=False)

    def check(self, marked):
        assert len(runs.names()) <= 1
        for run in runs.names():
            opens(run)
            try:
                kept = storage.load_latest(run)['n_samples']
            except pavlov.NotFound:
                kept = 0
            assert kept >= marked, f'a savepoint of {marked} samples was lost, {kept} are there'

    def state(self):
        [run] = runs.names()
        return trained(run)


class Arena(Work):
    n_games = 32

    def prepare(self):
        shutil.copytree(FIXTURES / 'pavlov' / RUN, pavlov.root() / 'pavlov' / RUN)

    @property
    def path(self):
        return pavlov.root() / 'ours.sqlite'

    def do(self, mark):
        save = sql.save_trials

        def saves(rows):
            ids = save(rows)
            mark(max(ids))
            return ids
        sql.save_trials = saves
        with sql.use(sql.create(self.path)), warnings.catch_warnings():
            warnings.simplefilter('ignore', arena.common.Rule2021)
            ids = arena.register(RUN, n_nodes=4).index[:4]
            arena.evaluate(list(ids), n_games=self.n_games, progress=False)

    def check(self, marked):
        opens(RUN)
        if not self.path.exists():
            return
        found = rows_of(self.path)
        trials = found.get('trials', [])
        assert len(trials) >= marked, f'of {marked} rows {len(trials)} are there'
        assert len(trials) == len(found.get('trial_details', []))
        with contextlib.closing(sqlite3.connect(self.path)) as c:
            if trials:
                assert c.execute('select distinct black_wins + white_wins from trials').fetchall() \
                    == [(self.n_games,)], 'a match is there in part'

    def state(self):
        return rows_of(self.path)


class Download(Work):
    body = random.Random(0).randbytes(400_000)

    @functools.cached_property
    def server(self):
        folder = FIXTURES / 'pavlov' / RUN
        return FileServer({'big': self.body, **{
            f'output/pavlov/{RUN}/{f.name}': f.read_bytes() for f in folder.iterdir()}})

    @property
    def big(self):
        return pavlov.root() / 'big'

    def do(self, mark):
        download.CHUNK = 4096
        part = pavlov.root() / 'big.part'

        def on_bytes(n):
            mark(part.stat().st_size)
            time.sleep(.001)
        download.fetch(f'{self.url}/big', self.big, progress=False, on_bytes=on_bytes)
        mark(0)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')   # files that the fixture lists and does not have
            backup.download_run(RUN, base_url=self.url, progress=False, workers=2)

    def check(self, marked):
        if self.big.exists():
            assert self.big.read_bytes() == self.body, 'half a file is taken for a whole one'
        elif marked:
            kept = (pavlov.root() / 'big.part').stat().st_size
            assert kept >= marked, f'of {marked} bytes {kept} are there'
        if runs.names():
            opens(RUN)
            for file in runs.path(RUN).iterdir():
                if not file.name.startswith(('_', '.')) and '.part' not in file.name:
                    assert file.read_bytes() == (FIXTURES / 'pavlov' / RUN / file.name).read_bytes()

    def state(self):
        return {str(f.relative_to(pavlov.root())): f.read_bytes()
                for f in sorted(pavlov.root().rglob('*'))
                if f.is_file() and f.name != '_lock' and not f.name.startswith('.downloaded-')
                and not re.fullmatch(r'\..*\.tmp', f.name)}   # the next write an hour later sweeps


class Inline:
    """A pool that works where it is called, so that a kill takes the work along."""
    workers = 1

    def map(self, function, items, deadline=None):
        for item in items:
            yield item, function(item)


class Sweep(Work):
    jobs = [sweep.Job(Config(3, 2, depth, n_envs=32, buffer_len=12, n_nodes=8), 1e6, 'soak')
            for depth in (1, 2)]

    @property
    def path(self):
        return pavlov.root() / 'ours.sqlite'

    def do(self, mark):
        sweep.training.train = functools.partial(training.train, save_seconds=0)
        sweep.training.tqdm = functools.partial(sweep.training.tqdm, disable=True)
        sweep.train_all(self.jobs, Inline(), sql.create(self.path), report=lambda line: None)
        mark(len(self.jobs))

    def check(self, marked):
        for run in runs.names():
            opens(run)
        if self.path.exists():
            rows_of(self.path)

    def state(self):
        names = {sweep.find(job): job.name for job in self.jobs}
        assert len(names) == len(self.jobs) == len(runs.names()), 'a job was trained twice'
        found = {job: trained(run) for run, job in names.items()}
        rows = {t: [tuple(names.get(x, x) for x in row) for row in rows]
                for t, rows in rows_of(self.path).items()}
        return found | {'database': rows}


WORKS = {'training': Training, 'arena': Arena, 'download': Download, 'sweep': Sweep}


def _session(work, folder, shared, kill_at):
    """Runs in the process that is killed. `shared`: began, marked, operations."""
    torch.set_num_threads(1)
    pavlov.use_root(folder)
    inside = str(folder)

    def watch(event, args):
        # Called before the operation is done.
        if event in OPERATIONS and args and inside in str(args[0]):
            shared[2] += 1
            if shared[2] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

    def mark(n):
        shared[1] = n
    shared[0] = time.time()
    work.do(mark)


def session(work, folder, kill_at=None, after=None):
    """One session of a work, killed at an operation or after some seconds, or neither.

    Returns:
        Whether it was killed, what it had marked, its operations and its seconds.
    """
    shared = context.Array('d', 3, lock=False)
    process = context.Process(target=_session, args=(work, folder, shared, kill_at))
    process.start()
    if after is not None:
        while not shared[0] and process.is_alive():
            time.sleep(.001)
        process.join(max(0, shared[0] + after - time.time()))
        process.kill()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        raise AssertionError(f'{type(work).__name__}: no end after {PATIENCE} s')
    assert process.exitcode in (0, -signal.SIGKILL), f'exit code {process.exitcode}'
    killed = process.exitcode != 0
    assert not killed or kill_at is not None or after is not None, 'killed by another'
    return killed, shared[1], int(shared[2]), time.time() - shared[0]


def _failing(work, folder, limit, pipe):
    torch.set_num_threads(1)
    pavlov.use_root(folder)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    elif os.getuid() == 0:   # whom no permission stops
        # What is imported late: another user may not read the files of this Python.
        'x'.encode('idna'), importlib.import_module('sqlalchemy.dialects.sqlite')
        os.setgroups([]), os.setgid(NOBODY), os.setuid(NOBODY)
    try:
        work.do(lambda n: None)
        pipe.send((None, ''))
    except Exception as e:
        pipe.send((type(e).__name__, str(e)))


def failing(work, folder, limit=None):
    """A session in which no file may be longer than `limit` bytes, as on a full disk, or, without
    a limit, nothing may be written. Returns the error's type and message, (None, '') if none."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_failing, args=(work, folder, limit, theirs))
    process.start()
    theirs.close()
    assert ours.poll(PATIENCE), f'{type(work).__name__}: no end after {PATIENCE} s'
    found = ours.recv()
    process.join()
    return found


@contextlib.contextmanager
def read_only(folder):
    modes = {p: p.stat().st_mode for p in [folder, *folder.rglob('*')]}
    try:
        for p in modes:
            p.chmod(0o555 if p.is_dir() else 0o444)
        yield
    finally:
        for p, mode in modes.items():
            p.chmod(mode)


def starve(name, limits, folder, seed=0):
    """A disk that is full at random lengths of a file, and a folder that is read-only, each time
    after a kill; then the work is ended in peace and compared.

    Returns:
        Counts: 'full', 'read-only', 'differences' and 'errors', the messages by type.
    """
    context.set_forkserver_preload(PRELOAD)
    work, rng = WORKS[name](), random.Random(f'{name} {seed}')
    wrong, errors, found = [], {}, Counter({'full': 0, 'read-only': 0})
    with contextlib.ExitStack() as stack:
        if isinstance(work, Download):
            server = stack.enter_context(work.server)
            del work.server
            work.url = server.url
        (folder / 'straight').mkdir(parents=True)
        with pavlov.use_root(folder / 'straight'):
            work.prepare()
            *_, operations, _ = session(work, folder / 'straight')
            expected = work.state()
        longest = max(f.stat().st_size for f in (folder / 'straight').rglob('*') if f.is_file())
        for i in range(limits):
            here = folder / f'{name}-{i}'
            here.mkdir()
            folder.chmod(0o755), here.chmod(0o755)
            with pavlov.use_root(here):
                work.prepare()
                try:
                    _, marked, *_ = session(work, here, kill_at=rng.randrange(1, operations + 1))
                    limit = None if i % 4 == 3 else int(longest*rng.random()**2)
                    with read_only(here) if limit is None else contextlib.nullcontext():
                        kind, message = failing(work, here, limit)
                    if kind:
                        found['full' if limit is not None else 'read-only'] += 1
                        errors.setdefault(kind, message)
                        assert kind in FAILURES and tempfile.gettempdir() in message, \
                            f'{kind}: {message}'
                    work.check(marked)
                    session(work, here)
                    wrong += [f'run {i}{d}' for d in differences(expected, work.state())]
                except AssertionError as e:
                    wrong.append(f'run {i}, limit {limit}: {e}')
    return {**found, 'errors': errors, 'differences': wrong}


def torture(name, kills, folder, seed=0, progress=lambda found: None):
    """Kills a work so often, in as many runs as it takes, and compares how each ends.

    Returns:
        Counts: 'kills', of them 'by time' and 'at an operation', 'runs', and 'differences', a list
        of what was not as in the straight run.
    """
    context.set_forkserver_preload(PRELOAD)
    work, rng = WORKS[name](), random.Random(f'{name} {seed}')
    found = Counter({'kills': 0, 'by time': 0, 'at an operation': 0, 'runs': 0})
    wrong = []
    with contextlib.ExitStack() as stack:
        if isinstance(work, Download):
            server = stack.enter_context(work.server)
            del work.server   # it stays here
            work.url = server.url
        for part in ('straight', 'again'):
            (folder / part).mkdir(parents=True)
        with pavlov.use_root(folder / 'straight'):
            work.prepare()
            *_, operations, _ = session(work, folder / 'straight')
            expected = work.state()
        with pavlov.use_root(folder / 'again'):   # how long it takes once the kernels are compiled
            work.prepare()
            *_, seconds = session(work, folder / 'again')
        while found['kills'] < kills:
            here = folder / f'{name}-{found["runs"]}'
            here.mkdir()
            with pavlov.use_root(here):
                work.prepare()
                best = 0
                try:
                    for _ in range(min(SESSIONS, kills - found['kills'])):
                        at_operation = rng.random() < .5
                        how = {'kill_at': rng.randrange(1, operations + 1)} if at_operation \
                            else {'after': rng.uniform(0, seconds)}
                        killed, marked, *_ = session(work, here, **how)
                        if not killed:
                            break
                        found['kills'] += 1
                        found['at an operation' if at_operation else 'by time'] += 1
                        best = max(best, marked)
                        work.check(marked if isinstance(work, Download) else best)
                    session(work, here)
                    wrong += [f'run {found["runs"]}{d}' for d in differences(expected,
                                                                             work.state())]
                except AssertionError as e:
                    wrong.append(f'run {found["runs"]}: {e}')
            found['runs'] += 1
            if not wrong:
                shutil.rmtree(here)
            progress({**found, 'differences': wrong})
    return {**found, 'differences': wrong}
