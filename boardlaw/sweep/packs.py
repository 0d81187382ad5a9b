"""A sweep on machines that are at hand for minutes at a time, such as a GPU that is shared.

    python -m boardlaw visit --boards 6,7,8 --runs 6 --device cuda --minutes 8 --state FOLDER

All that the next machine needs is in FOLDER, the state, a few files of at most 15 MiB: the runs and
the database, packed. A visit (:func:`visit`) unpacks it, goes on with the sweep for the time given,
and writes the next state. Nothing is lost between visits except, in large trainings, the buffer of
recent games, which is played again in full before learning goes on.
"""
import json
import math
import re
import shutil
import tempfile
import time
import zipfile
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import torch

from .. import networks, pavlov, sql
from ..arena import ratings
from ..pavlov import CorruptFile, NotFound, disk, runs, storage
from . import pools, rating, shipping, state
from .training import machine, release, train_all

#: Bytes of a file of a state, and what a state should have at most in all.
PART, MOST = 15*2**20, 52*2**20

#: Parameters of the largest network that a state has room for.
LARGEST = 1_500_000

#: Multiply-adds of one step of a training's games, from which on it has a GPU to itself: a card's
#: matrix units take about a millisecond for them, not much less than everything else in a step.
#: What takes less leaves gaps, into which other runs fit.
FILLS = 1.5e11

#: Runs side by side on one GPU. Each is waiting for Python or for small kernels most of the time;
#: `make gpu-check` measures what side by side gains on a card.
SIDE_BY_SIDE = 4

#: Games of a match: on a GPU many take as long as few.
GAMES = {'cpu': rating.MATCH, 'cuda': 256}

#: Share of a visit's time that goes to rating, and that is kept for saving (of it at most so many
#: seconds).
RATING_SHARE, SAVING_SHARE, SAVING = .3, .1, 30.

_FILE = re.compile(r'state-(\d{4})\.(\d+)of(\d+)')
_ABOUT, _DATABASE = 'state.json', 'replica.sqlite'


def visit(jobs, minutes, source, to=None, device='cpu', workers=None, report=print):
    """Goes on with a sweep for some minutes, from one state to the next.

    It trains for most of the time, the jobs in their order, saves the state in case it is cut
    short, then rates all agents there are, each board in a process of its own. If time is left, it
    trains on. An interrupt saves the state, too. Runs that would not fit into a state are left out.

    Args:
        jobs: a list of :class:`Job`.
        minutes: for all of it; None until everything is done.
        source: folder of the state to go on from; without one there, the sweep begins.
        to: folder for the next state, by default `source`.
        device: where to train and to rate, 'cpu' or 'cuda'.
        workers: processes; by default one a core, or :data:`SIDE_BY_SIDE` on a GPU.
        report: called with every line of progress.

    Returns:
        What was done: a dict, which the state keeps too.

    Raises:
        boardlaw.pavlov.CorruptFile: the state in `source` is not whole.
    """
    began, to = time.time(), source if to is None else to
    limit = math.inf if minutes is None else 60*minutes
    end = began + limit - min(SAVING, SAVING_SHARE*limit)
    visits = load(source) if _newest(source) else []
    report(f'{len(visits)} visits before this one')
    database = sql.create(pavlov.root()/_DATABASE)
    fitting = [job for job in jobs if _n_params(job) <= LARGEST]
    if len(fitting) < len(jobs):
        report(f'{len(jobs) - len(fitting)} runs of networks with more than {LARGEST:,} parameters '
               'are left out: a state has no room for them')
    workers = workers or (SIDE_BY_SIDE if device != 'cpu' else None)
    about = {'date': datetime.now(timezone.utc).isoformat(timespec='seconds'), 'device': device,
             'machine': machine(), 'version': release(), 'minutes': minutes,
             'before': _samples(fitting), 'seconds': {}}

    def timed(name, work, *args):
        start = time.time()
        try:
            work(*args)
        finally:
            about['seconds'][name] = round(about['seconds'].get(name, 0) + time.time() - start, 1)
            about['samples'] = _samples(fitting)

    def keep():
        timed('saving', lambda: save(fitting, database, to, source, [*visits, about], report))

    train = fitting, device, workers, database
    first = math.inf if minutes is None else end - RATING_SHARE*(end - began)
    try:
        timed('training', _train, *train, first, report)
        keep()
        timed('rating', _rate_all, fitting, device, workers, database, end, report)
        if time.time() < end and not all(map(state.done, fitting)):
            timed('training', _train, *train, end, report)
    finally:    # after an interrupt too
        keep()
    report(json.dumps(about['seconds']))
    return about


def _train(jobs, device, workers, database, deadline, report):
    """Those that fill a GPU first, one by one; then the others side by side."""
    large = [job for job in jobs if device != 'cpu'
             and job.config.n_envs*job.config.flops_per_sample >= FILLS]
    for part, n in ((large, 1), ([job for job in jobs if job not in large], workers)):
        if part and time.time() < deadline:
            train_all(part, pools.Local(n), database, deadline, device, report)


def _rate_all(jobs, device, workers, database, deadline, report):
    groups = {}
    for job in jobs:
        groups.setdefault((job.config.boardsize, job.description), []).append(job)
    items = [(group, groups[group], str(pavlov.root()), database, device, deadline)
             for group in sorted(groups)]
    for ((boardsize, _), *_), result in pools.Local(workers).map(_rate, items, deadline):
        if isinstance(result, Exception):
            report(f'{boardsize}x{boardsize}: {type(result).__name__}: {result}')


def _rate(item):
    """Rates a board's agents in this process: starting one for each round would take longer than
    its games on a GPU. At the deadline it is ended; every match that was played is in the
    database."""
    (boardsize, description), jobs, root, database, device, deadline = item
    with pavlov.use_root(root), sql.use(database), ExitStack() as stack:
        stack.enter_context(state.alone(f'rate-{description}-{boardsize}'))
        if len(ratings.agents(boardsize, description)) < 2:   # the exact player alone, say
            return
        games = GAMES[torch.device(device).type]
        how = {'deadline': deadline, 'device': device}
        rating.rate_fully(boardsize, description, _Here(), games=games, **how)
        rating.between_rules(jobs, _Here(), **how)


class _Here:
    """A pool of this process alone."""
    workers = 1

    def map(self, function, items, deadline=math.inf):
        for item in items:
            if time.time() > deadline:
                return
            yield item, pools._call(function, item)


def _n_params(job):
    return networks.count_params(job.config.boardsize, job.config.width, job.config.depth)


def _samples(jobs):
    """Samples that the runs of each board have seen so far, all together."""
    known, found = state.descriptions(), {}
    for job in jobs:
        if (run := state.find(job, known)) is not None:
            boardsize = str(job.config.boardsize)
            found[boardsize] = found.get(boardsize, 0) + state.n_samples(run)
    return found


# States

def save(jobs, database, folder, after=None, visits=(), report=print):
    """Writes the state of a sweep; one that is there already goes when this one is whole.

    Args:
        jobs: whose runs it holds, as far as they are begun.
        database: path of the evaluation database.
        folder: where to; made if it is not there.
        after: folder of the state that this one goes on from: it gets a lower number.
        visits: what :func:`visit` returned, so far.
        report: called with a line on its size.

    Returns:
        The paths of its files.
    """
    known, folder = state.descriptions(), Path(folder)
    found = {job: run for job in jobs if (run := state.find(job, known)) is not None}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=pavlov.root()) as scratch:
        with sql.use(database):
            sql.execute('vacuum into :path', path=f'{scratch}/{_DATABASE}')
        with zipfile.ZipFile(f'{scratch}/zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            about = {'runs': {run: state.n_samples(run) for run in found.values()},
                     'visits': list(visits)}
            file.writestr(_ABOUT, json.dumps(about))
            file.write(f'{scratch}/{_DATABASE}', _DATABASE)
            for job, run in found.items():
                for name, content in _contents(job, run):
                    file.writestr(f'{run}/{name}', content)
        whole = Path(scratch, 'zip').read_bytes()
    before = _files(folder)
    serial = 1 + max((int(m[1]) for m in [*before.values(), *_files(after or folder).values()]),
                     default=0)
    parts = [whole[i:i + PART] for i in range(0, len(whole), PART)]
    paths = [folder/f'state-{serial:04}.{i}of{len(parts)}' for i in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts):
        disk.write_atomic(path, lambda f, part=part: f.write(part))
    for path in before:
        path.unlink()
    report(f'state of {len(found)} runs in "{folder}": {len(whole)/2**20:.1f} MiB in {len(paths)} '
           'files')
    if len(whole) > MOST:
        report(f'This is more than the {MOST/2**20:.0f} MiB that are easily carried: sweep fewer '
               'boards at a time')
    return paths


def _files(folder):
    """{path: match of its name} of the files of states in a folder."""
    return {p: m for p in sorted(Path(folder).glob('state-*')) if (m := _FILE.fullmatch(p.name))}


def _contents(job, run):
    """(file name, bytes) of what the state keeps of a run: no locks, of a finished run no
    savepoint; the description comes last and lists the others."""
    info, kept = runs.info(run), {}
    finished = state.done(job) and info['params']['snapshots'][-1] == job.snapshots[-1]
    for path in sorted(runs.path(run).iterdir()):
        if path.name.startswith(('_', '.')) or (finished and path.name == storage.LATEST):
            continue
        if path.name == storage.LATEST:
            content = shipping.savepoint(storage.load(path))
        elif path.name.startswith('storage.snapshot'):
            content = shipping.snapshot(path, _n_params(job))
        else:
            content = path.read_bytes()
        kept |= {path.name: info['_files'][path.name]} if path.name in info['_files'] else {}
        yield path.name, content
    yield runs.INFO, json.dumps(info | {'_files': kept}).encode()


def load(folder):
    """Unpacks a state into the folder of runs and its database.

    A run on disk that has got at least as far stays as it is; games are added to those of the
    database.

    Args:
        folder: of the state's files.

    Returns:
        What the visits so far did, a list of what :func:`visit` returned.

    Raises:
        boardlaw.pavlov.NotFound: there is none.
        boardlaw.pavlov.CorruptFile: it is not whole.
    """
    parts = _newest(folder)
    if not parts:
        raise NotFound(f'"{folder}" holds no state: give the folder of the files state-....1of..')
    root = pavlov.root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        with open(f'{scratch}/zip', 'wb') as whole:
            for part in parts:
                with open(part, 'rb') as f:
                    shutil.copyfileobj(f, whole)
        try:
            with zipfile.ZipFile(f'{scratch}/zip') as file:
                if damaged := file.testzip():
                    raise zipfile.BadZipFile(f'the checksum of "{damaged}" is wrong')
                about = json.loads(file.read(_ABOUT))
                for run, n in about['runs'].items():
                    if not (runs.folder()/run/runs.INFO).exists() or state.n_samples(run) < n:
                        _extract(file, run)
                file.extract(_DATABASE, scratch)
        except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, LookupError, ValueError) as e:
            raise CorruptFile(f'the state in "{folder}" is damaged: {e}. Copy all its files '
                              'again') from e
        if (root/_DATABASE).exists():
            with sql.use(sql.create(root/_DATABASE)):
                sql.merge(f'{scratch}/{_DATABASE}')
        else:
            shutil.move(f'{scratch}/{_DATABASE}', root/_DATABASE)
    return about['visits']


def _extract(file, run):
    """Puts one run of a zip file into the folder of runs, in place of an earlier state of it."""
    if not runs.safe(run):
        raise ValueError(f'{run!r} is not the name of a run')
    home, partial = runs.folder()/run, pavlov.root()/f'.{run}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    file.extractall(partial, [n for n in file.namelist() if n.startswith(f'{run}/')])
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists():
        home.replace(partial/'before')
    (partial/run).replace(home)
    shutil.rmtree(partial)


def _newest(folder):
    """The files of the newest whole state in a folder, in order; [] if there is none.

    Raises:
        boardlaw.pavlov.CorruptFile: there are files of a state, but none of which all are there.
    """
    found = {}
    for path, m in _files(folder).items():
        found.setdefault((int(m[1]), int(m[3])), {})[int(m[2])] = path
    whole = {key: parts for key, parts in found.items() if set(parts) == set(range(1, key[1] + 1))}
    if found and not whole:
        (serial, n), parts = max(found.items())
        raise CorruptFile(f'"{folder}" holds {len(parts)} of the {n} files of state {serial:04}: '
                          'copy the missing ones too')
    return [path for _, path in sorted(whole[max(whole)].items())] if whole else []
