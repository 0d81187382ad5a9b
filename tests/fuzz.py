"""Damaged files of every kind that the package reads: each ends in a result or in one clear error.

    python tests/fuzz.py snapshot 137    # one case again, with its traceback

A case cuts, flips, blanks, repeats, mixes or replaces a file, by numbers that the kind's name, the
seed and the case's number fix. It is read in a process of its own, whose memory is limited and
whose end is watched: a crash and a hang are found, too.

What can be noticed depends on the format. Saved states carry checksums (their zip files do, those
of 2021 as well) and downloads the server's: there any other result than the right one is a
failure. Descriptions, time series and databases carry none, in 2021's format, so a changed number
can pass for one that was written; what is checked is that nothing but plain values comes out.
"""
import contextlib
import copy
import io
import json
import multiprocessing
import random
import resource
import shutil
import sqlite3
import struct
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
import warnings
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from crashes import FIXTURES, PRELOAD, RUN, Training, differences
from fileserver import FileServer

from boardlaw import backup, download, pavlov, sql, training
from boardlaw.allowance import Allowance
from boardlaw.arena import common
from boardlaw.pavlov import files, runs, stats, storage

MEMORY = 2 << 30   # bytes beyond what the process has when it begins
PATIENCE = 30      # seconds for one case
context = multiprocessing.get_context('forkserver')


# Damage

def damage(data, rng, others=(), versions=()):
    """Bytes with one thing wrong with them, and its name."""
    kinds = ['cut', 'flip', 'flip', 'flip', 'blank', 'repeat', 'insert', 'empty', 'noise', 'append']
    kind = rng.choice(kinds + ['other']*bool(others) + ['future']*bool(versions))
    n = len(data)
    at = rng.randrange(n + 1)
    length = rng.choice([1, 4, 16, 512, 4096])
    some = rng.randbytes(length)
    if kind == 'flip':
        out = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            # Headers are at the ends: half of the flips go there.
            where = rng.choice([rng.randrange(n), rng.randrange(min(n, 200)),
                                n - 1 - rng.randrange(min(n, 200))])
            out[where] ^= 1 << rng.randrange(8)
        return kind, bytes(out)
    return kind, {
        'cut': data[:rng.choice([at, n - 1, min(at, 100)])],
        'blank': data[:at] + bytes(len(data[at:at + length])) + data[at + length:],
        'repeat': data[:at] + data[max(0, at - length):at] + data[at:],
        'insert': data[:at] + some + data[at:],
        'empty': b'',
        'noise': rng.randbytes(rng.choice([1, 100, n])),
        'append': data + some,
        'other': rng.choice(others) if others else b'',
        'future': rng.choice(versions)(data) if versions else b''}[kind]


def strange(rng):
    """A value that does not belong where it is put."""
    return copy.deepcopy(rng.choice([
        None, True, -1, 0, 2**63, 10**10, 1e300, float('nan'), '', 'x', '../x', '\0', 'x'*10_000,
        [], [1], {}, {'x': 1}, [[[]]], {'../../x': {}}, '2021-02-30', '9999-12-31T23:59:59+00:00']))


def change(value, rng, strange=strange):
    """A nest of dicts and lists with one entry replaced, renamed or gone; changed in place."""
    places = []

    def walk(x):
        for k in x if isinstance(x, dict) else range(len(x)):
            places.append((x, k))
            if isinstance(x[k], (dict, list)):
                walk(x[k])
    walk(value)
    x, k = rng.choice(places)
    how = rng.choice(['replace', 'replace', 'delete', 'rename'])
    if how == 'rename' and isinstance(x, dict):
        x[rng.choice(['', 'x', '../x', f'{k}x', '_files', 'params'])] = x.pop(k)
    elif how == 'delete':
        del x[k]
    else:
        x[k] = strange(rng)
    return value


# Kinds of files

class Kind:
    """A file, how it is damaged, how it is read, and which errors may come of that."""
    strict = False       # whether only the right result may come out
    errors = (pavlov.CorruptFile, pavlov.NotFound)
    versions = ()

    @property
    def home(self):
        return pavlov.root() / 'pavlov' / RUN

    def prepare(self):
        """Makes the folder; returns the path of the file to damage."""
        shutil.copytree(FIXTURES / 'pavlov' / RUN, self.home)
        return self.home / self.name

    def damaged(self, data, rng, others):
        return damage(data, rng, others, self.versions)

    def names(self):
        """One of these is in the message of every error."""
        return [self.name]


class Snapshot(Kind):
    name, strict = 'storage.snapshot.3.pkl', True
    versions = [lambda d: d[:4] + b'\x63\x00' + d[6:]]

    def damaged(self, data, rng, others):
        # Another snapshot in its place is a whole snapshot, and nothing says that it is another's.
        return damage(data, rng, [d for d in others if len(d) != len(data)], self.versions)

    def read(self):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', common.Rule2021)
            network = common.agent(RUN, 3).network
        return storage.load_snapshot(RUN, 3), dict(network.state_dict())


class Savepoint(Kind):
    """A savepoint of ours, whose content is changed: what checksums cannot tell."""
    name = storage.LATEST
    errors = (pavlov.CorruptFile, training.BadConfig)

    def prepare(self):
        run = training.train(**Training.settings | {'samples': 64}, progress=False)
        self.run = run
        return pavlov.runs.path(run) / self.name

    def damaged(self, data, rng, others):
        if rng.random() < .3:
            return damage(data, rng, others, [self.future])
        state = change(torch.load(io.BytesIO(data), weights_only=True), rng, self.strange)
        out = io.BytesIO()
        torch.save(state, out)
        return 'content', out.getvalue()

    @staticmethod
    def future(data):
        state = torch.load(io.BytesIO(data), weights_only=True)
        state['training']['version'] += 1
        out = io.BytesIO()
        torch.save(state, out)
        return out.getvalue()

    @staticmethod
    def strange(rng):
        dtype = rng.choice([torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8])
        shape = rng.choice([(), (0,), (1,), (2,), (32,), (32, 9), (12, 32, 9), (2, 18), (3, 3, 2)])
        tensor = (torch.rand(shape)*rng.choice([1, 1e30])).to(dtype)
        return rng.choice([strange(rng), tensor, -tensor if dtype is torch.float32 else tensor])

    def read(self):
        run = training._Run(self.run, training._config(self.run, {}, None), torch.device('cpu'))
        run.trainer.advance()
        return {}


class Description(Kind):
    name, errors = '_info.json', (pavlov.CorruptFile, pavlov.NotFound, ValueError)

    def damaged(self, data, rng, others):
        if rng.random() < .5:
            return damage(data, rng, others)
        text = json.dumps(change(json.loads(data), rng), allow_nan=True)
        return 'content', text.encode()

    def names(self):
        return [self.name, RUN]

    def read(self):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            runs.pandas()
            files.pandas(RUN)
            storage.snapshots(RUN)
            found = stats.channels(RUN)
            for channel in ('loss.value', 'sample-rate.actor', 'elo-mohex'):
                with contextlib.suppress(pavlov.NotFound):
                    stats.pandas(RUN, channel, None)
            common.worlds(RUN)
            agent = common.agent(RUN, 3)
        return runs.info(RUN), list(found), dict(agent.network.state_dict())


class Settings(Description):
    """The description of a run of ours, with the settings of its training."""

    def prepare(self):
        self.run = training.train(**Training.settings | {'samples': 64}, progress=False)
        return pavlov.runs.path(self.run) / self.name

    def names(self):
        return [self.name, self.run]

    def damaged(self, data, rng, others):
        info = json.loads(data)
        if rng.random() < .7:
            change(info['params'], rng)
        else:
            change(info, rng)
        return 'content', json.dumps(info).encode()

    def read(self):
        training._Run(self.run, training._config(self.run, {}, None), torch.device('cpu')).done()
        return runs.info(self.run)


class Series(Kind):
    name = 'stats.loss.value.0.npr'
    versions = [lambda d: d[:6] + b'\x04' + d[7:]]

    def read(self):
        stats.pandas(RUN, 'loss.value', '10min')
        return stats.array(RUN, 'loss.value').tolist()


class Line(Kind):
    name = 'stats.x.npz'
    versions = [lambda d: d[:4] + b'\x63\x00' + d[6:]]

    def prepare(self):
        with pavlov.stats.to_run(super().prepare().parent.name):
            stats.line('x', np.arange(50.), np.arange(50.)**2)
        return self.home / self.name

    def read(self):
        return stats.pandas(RUN, 'x').tolist()


class Database(Kind):
    name, errors = 'database.sql', (sql.BadDatabase,)
    versions = [lambda d: d[:18] + b'\x03\x03' + d[20:],
                lambda d: d[:44] + struct.pack('>I', 5) + d[48:]]

    def prepare(self):
        path = pavlov.root() / self.name
        shutil.copy(FIXTURES / 'experiments/eval/database.sql', path)
        return path

    def damaged(self, data, rng, others):
        if rng.random() < .7:
            return damage(data, rng, others, self.versions)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'x'
            path.write_bytes(data)
            with contextlib.closing(sqlite3.connect(path)) as c:
                table = rng.choice(['runs', 'snaps', 'agents', 'trials', 'noise_scales'])
                [column] = rng.sample([r[1] for r in c.execute(f'pragma table_info({table})')], 1)
                value = strange(rng)
                value = value if value is None or isinstance(value, (bool, float, str)) else b'\xff'
                with contextlib.suppress(sqlite3.Error):
                    c.execute(f'update {table} set {column} = ? where rowid % 7 = 3', [value])
                c.commit()
            return 'content', path.read_bytes()

    def read(self):
        sql.database._opened.cache_clear()
        with sql.use(pavlov.root() / self.name):
            try:
                found = [sql.agent_query(), sql.trial_query(3), sql.mohex_trial_query(None),
                         sql.noise_scale_query()]
            finally:
                sql.engine().dispose()
        for frame in found:
            for column in set(frame) - {'run', 'description', 'kind'}:
                frame[column].astype(float)
        return [frame.astype(str).values.tolist() for frame in found]


class Part(Kind):
    """The unfinished file of a download, and its record."""
    name, strict, errors = 'file.part', True, (download.DownloadError,)
    body = random.Random(1).randbytes(40_000)

    def prepare(self):
        import hashlib
        self.server = FileServer({'file': self.body}).__enter__()
        self.server.headers = {'X-Bz-Content-Sha1': hashlib.sha1(self.body).hexdigest()}
        self.server.cuts = [25_000, 0]
        self.path = pavlov.root() / 'file'
        with contextlib.suppress(download.Unreachable):
            self.fetch(retries=0)
        self.record = pavlov.root() / 'file.part.json'
        self.whole = (pavlov.root() / 'file.part').read_bytes(), self.record.read_bytes()
        return pavlov.root() / self.name

    def names(self):
        return ['/file']

    def damaged(self, data, rng, others):
        part, record = self.whole
        self.path.unlink(missing_ok=True)
        which = rng.random()
        if which > .3:
            how, part = damage(part, rng, others)
        if .5 < which < .8:
            how, record = damage(record, rng, others)
        if which < .3:
            how, record = 'content', json.dumps(change(json.loads(record), rng)).encode()
        self.record.write_bytes(record)
        return how, part

    def fetch(self, **options):
        return download.fetch(f'{self.server.url}/file', self.path, progress=False, **options)

    def read(self):
        try:
            return self.fetch().read_bytes()
        except download.DownloadError:
            assert not self.path.exists(), 'a bad file was put in place'
            assert self.fetch().read_bytes() == self.body, 'the second call does not mend it'
            raise


class Answer(Kind):
    """What a server says: status line, headers and body, damaged together."""
    name, errors = 'answer', (download.DownloadError,)

    def prepare(self):
        outer, path = self, pavlov.root() / self.name

        class Handler(BaseHTTPRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError):
                    request = self.rfile.readline(2000)
                    while self.rfile.readline(2000).strip():
                        pass
                    # The description is whole, so that the damage meets the file.
                    name = urllib.parse.unquote(request.split()[1].decode()).rpartition('/')[2]
                    self.wfile.write(path.read_bytes() if name != '_info.json' or outer.both else
                                     outer.whole('_info.json'))
        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass
        server = Server(('127.0.0.1', 0), Handler)
        threading.Thread(target=server.serve_forever, args=(.01,), daemon=True).start()
        self.url = f'http://127.0.0.1:{server.server_port}'
        path.write_bytes(self.whole('storage.snapshot.3.pkl'))
        self.both = False
        return path

    def whole(self, name):
        body = (FIXTURES / 'pavlov' / RUN / name).read_bytes()
        return (f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nETag: "x"\r\n'
                'Connection: close\r\n\r\n').encode() + body

    def damaged(self, data, rng, others):
        shutil.rmtree(self.home, ignore_errors=True)
        self.both = rng.random() < .5
        if self.both:
            data = self.whole('_info.json')
        if rng.random() < .5:
            return damage(data, rng, others)
        head, _, body = data.partition(b'\r\n\r\n')
        lines = head.split(b'\r\n')
        i = rng.randrange(len(lines))
        lines[i] = rng.choice([
            b'Content-Length: ' + rng.choice([b'-1', b'x', b'', b'1e3', b'9'*30, b'10', b'+5']),
            b'Content-Range: bytes ' + rng.choice([b'0-9/10', b'x', b'5-4/3', b'0-1/' + b'9'*5000]),
            b'HTTP/1.1 ' + rng.choice([b'206 x', b'999 x', b'100 x', b'302 x', b'503 x', b'204 x']),
            b'Location: ' + rng.choice([b'file:///etc/passwd', b'/', b'ftp://x/', b'http://[::1']),
            b'Transfer-Encoding: chunked', b'Retry-After: ' + b'9'*9, b'X-Bz-Content-Sha1: ' +
            b'0'*40, b'ETag: ' + b'x'*70_000, b'\xff\xfe: \xff', b'no colon'])
        return 'header', b'\r\n'.join(lines) + b'\r\n\r\n' + body

    def names(self):
        return ['127.0.0.1']

    def read(self):
        time.sleep = lambda seconds: None   # the pauses between attempts
        try:
            path = backup.download_agent(RUN, 3, base_url=self.url, progress=False)
        except download.DownloadError:
            assert not (self.home / 'storage.snapshot.3.pkl').exists()
            assert all(not f.read_bytes() or runs._parse(f)['_env'] == {}
                       for f in self.home.glob('_info.json'))
            raise
        return {'size': path.stat().st_size}


class Count(Kind):
    """The count of the bytes downloaded today."""
    errors = (download.DownloadError,)

    @property
    def name(self):
        return self.allowance.file.name

    def prepare(self):
        self.allowance = Allowance(pavlov.root(), 10**9)
        path = self.allowance.file
        path.write_text('100\n16777216\n5\n')
        return path

    def read(self):
        used = self.allowance.used()
        with contextlib.suppress(download.CapReached), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with self.allowance:
                self.allowance.add(0)
        assert isinstance(used, int) and used >= 0
        return used


KINDS = {'snapshot': Snapshot, 'savepoint': Savepoint, 'description': Description,
         'settings': Settings, 'time series': Series, 'line': Line, 'database': Database,
         'partial download': Part, "server's answer": Answer, 'count of downloads': Count}


def others():
    """Whole files of other kinds, to be put in the place of one."""
    folder = FIXTURES / 'pavlov' / RUN
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('archive/data.pkl', bytes(10**7))
    return [*((folder / n).read_bytes() for n in (
        'storage.snapshot.1.pkl', '_info.json', 'stats.loss.policy.0.npr', 'logs.0.txt')),
        (FIXTURES / 'experiments/eval/database.sql').read_bytes(), zipped.getvalue(),
        b'<html><body>404</body></html>', b'null', b'[]', b'{}', b'\x80\x04N.']


class Failure(Exception):
    """A case that ended in neither a result nor a clear error."""


def one(kind, path, whole, expected, pool, rng):
    """Reads one damaged file: how it was damaged, and how that ended."""
    how, data = kind.damaged(whole, rng, [d for d in pool if d != whole])
    path.write_bytes(data)
    try:
        result = kind.read()
    except kind.errors as e:
        if not any(n in str(e) for n in kind.names()):
            raise Failure(f'the message does not name the file: {e!r}') from e
        if len(str(e)) > 3000:
            raise Failure(f'the message is {len(str(e))} characters long: {str(e)[:300]}') from e
        return how, 'refused'
    same = not differences(result, expected)
    if kind.strict and not same:
        raise Failure('a wrong result was taken for the right one')
    return how, 'as it was' if same else 'another result'


def _work(name, seed, first, cases, shared, pipe):
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    kind = KINDS[name]()
    with tempfile.TemporaryDirectory() as folder, pavlov.use_root(folder):
        path = kind.prepare()
        whole, pool = path.read_bytes(), others()
        expected = kind.read()
        used = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize() \
            if Path('/proc/self/statm').exists() else 1 << 40
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        for case in range(first, cases):
            shared[0], shared[1] = case, time.time()
            try:
                found = one(kind, path, whole, expected, pool, random.Random(
                    f'{name} {seed} {case}'))
            except Exception as e:
                last = traceback.extract_tb(e.__traceback__)[-1]
                found = ('failure', f'{type(e).__name__}: {e}'[:300]
                         + f' ({Path(last.filename).name}:{last.lineno})')
            pipe.send((case, found))
    pipe.send(None)


def fuzz(name, cases, seed=0, progress=lambda found: None):
    """Runs so many cases of a kind.

    Returns:
        'cases', 'as it was', 'another result', 'refused', and 'failures': {case: what happened}.
    """
    context.set_forkserver_preload(PRELOAD)
    found, failures, case = Counter(), {}, 0
    ends = ('as it was', 'another result', 'refused')

    def report():
        return {'cases': sum(found.values()) + len(failures), **{k: found[k] for k in ends},
                'failures': failures}
    while case < cases:
        shared = context.Array('d', 2, lock=False)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, seed, case, cases, shared, theirs))
        process.start()
        theirs.close()
        try:
            while True:
                if not ours.poll(PATIENCE):
                    raise TimeoutError
                if (got := ours.recv()) is None:
                    case = cases
                    break
                case, (how, end) = got
                if how == 'failure':
                    failures[case] = end
                else:
                    found[end] += 1
                case += 1
                if case % 50 == 0:
                    progress(report())
        except TimeoutError:
            failures[case] = f'no end after {PATIENCE} s'
            case += 1
        except EOFError:
            process.join()
            failures[case] = f'the process ended with exit code {process.exitcode}'
            case += 1
        process.kill()
        process.join()
    return report()


def main(name, case, seed=0):
    kind = KINDS[name]()
    with tempfile.TemporaryDirectory() as folder, pavlov.use_root(folder):
        path = kind.prepare()
        whole, expected = path.read_bytes(), kind.read()
        print(one(kind, path, whole, expected, others(), random.Random(f'{name} {seed} {case}')))


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
