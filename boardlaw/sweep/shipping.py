"""The replica that the package ships: our own runs, reduced to what others need.

`data/replica.sqlite` is the evaluation database. `data/replica-9.tar.xz`, and so for each board,
holds the folder of each run with its description and snapshots, but no statistics and savepoints,
which are large. What is new on one board changes one archive only. Snapshots of networks with more
than :data:`EXACT` parameters have matrices in half precision, which takes half the room; but each
run's first is exact, so that a training made anew can be compared with it. After :func:`unpack` the
agents can play and be rated again. To be trained further takes a savepoint: the longest run of each
of the largest boards, :data:`OPEN`, comes with its own.
"""
import io
import json
import tarfile
import tempfile
from pathlib import Path

import torch

from .. import networks, sql
from ..pavlov import runs, storage
from ..sql.database import REPLICA

#: Parameters of the largest network that is kept exactly. A half has 11 binary digits; the search
#: plays large networks with 11 on a GPU and with 8 on a CPU's tiles (:mod:`boardlaw.tiles`).
EXACT = 10_000

#: The commands of `python -m boardlaw` that made it.
COMMANDS = ['sweep --boards 3,4,5 --seeds 2 --runs 8 --test-boards 5',
            'sweep --boards 6 --runs 8 --test-boards 6',
            'sweep --boards 7 --runs 9 --largest 100000 --test-boards 7',
            'sweep --boards 4 --study long',
            'sweep --boards 7 --study long --samples 8e7 --test-boards 7',
            'sweep --boards 8 --runs 1 --test-boards 8',
            'sweep --boards 8 --networks 128x4 --samples 2e7 --test-boards 8',
            'sweep --boards 8 --runs 6 --largest 100000 --samples 1e7 --test-boards 8',
            'sweep --boards 9 --networks 256x4 --samples 1.22e8 --test-boards 9',
            'sweep --boards 9 --networks 128x4 --samples 1.7e7',
            'sweep --boards 9 --networks 128x4 --first-seed 1 --samples 1.65e8',
            'sweep --boards 9 --networks 64x2,32x2,8x1,1x1 --samples 1e7',
            'sweep --boards 10 --networks 128x4 --samples 6e7',
            'sweep --boards 11 --networks 128x4 --samples 2.3e7',
            'sweep --boards 11 --networks 256x4 --samples 5e7',
            'sweep --boards 10,11 --networks 32x2 --samples 1e7',
            'sweep --boards 3,4,5 --study lambda --seeds 8',
            'sweep --boards 6,7 --study lambda --seeds 3',
            'sweep --boards 9 --study lambda --networks 128x4 --samples 1e7']

#: Descriptions of runs whose snapshots take too much room. Of those with a learning curve the last
#: one ships, of the others only the ratings.
ENDS = ['lambda/6', 'lambda/7', 'lambda/9', 'bee/9', 'bee/11']

#: The runs of these that ship whole: on each board one 128x4 from random play to far up the climb,
#: for others trained there to play with, and a small network.
WHOLE = ['2026-11-29 22-50-14 azure-crane', '2026-11-29 20-21-17 mellow-gull',
         '2026-11-29 21-07-06 calm-quartz']

#: Descriptions of the runs of which the longest can go on.
OPEN = ['bee/9', 'bee/10', 'bee/11']

#: Bytes of the largest buffer that a savepoint takes along: a training with a larger one plays it
#: anew before it learns on.
BUFFER = 2**22

_PROCESS = ['_process_id', '_process_name', '_thread_id', '_thread_name']   # nobody's business


def archive(boardsize, folder=REPLICA.parent):
    """The path of the archive with a board's runs, in a folder as for :func:`pack`."""
    return Path(folder)/f'{REPLICA.stem}-{boardsize}.tar.xz'


def pack(database, folder=REPLICA.parent):
    """Writes replica.sqlite and the boards' archives from a database and the runs that it names.

    Args:
        database: path or URL.
        folder: where to.

    Returns:
        The path of the database written.
    """
    target = Path(folder)/REPLICA.name
    partial = target.with_name(f'{target.name}.partial')   # the database may be the target itself
    partial.unlink(missing_ok=True)
    with sql.use(database):
        sql.execute('vacuum into :path', path=str(partial))
    partial.replace(target)
    for boardsize in _snapshots(database):      # an open connection may hold the old target
        with tarfile.open(archive(boardsize, folder), 'w:xz') as file:
            for name, content in contents(database, boardsize):
                member = tarfile.TarInfo(name)   # of 1970, so that the same runs make the same file
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return target


def contents(database, boardsize):
    """What is to be shipped of a board's runs that a database names.

    Args:
        database: path or URL.
        boardsize: of the runs.

    Yields:
        Name, with the run's folder, and bytes of each file.
    """
    with sql.use(database):
        begun = sql.agent_query().query('description in @OPEN').sort_values('train_flops')
    longest = set(begun.groupby('description').run.last())
    for run, numbers in _snapshots(database)[boardsize].items():
        info = runs.info(run)
        entries = [storage.SNAPSHOT.format(n=n) for n in numbers]
        saved = [storage.LATEST] if run in longest else []
        kept = {entry: info['_files'][entry] | dict.fromkeys(_PROCESS, '')
                for entry in entries + saved}
        info |= {'_host': '', '_files': kept}
        yield f'{run}/{runs.INFO}', json.dumps(info).encode()
        n_params = networks.count_params(boardsize, *(info['params'][k]
                                                      for k in ('width', 'depth')))
        for n, entry in zip(numbers, entries):
            yield f'{run}/{entry}', snapshot(runs.path(run)/entry, n_params if n else 0)
        for entry in saved:
            state = storage.load(runs.path(run)/entry)
            state['training']['stats'] = {}     # they stay behind
            yield f'{run}/{entry}', savepoint(state)


def _snapshots(database):
    """{boardsize: {run: numbers of the snapshots that have agents and ship}}, each in order."""
    with sql.use(database):
        known = sql.agent_query().query('width > 0')
    of_run = known.groupby('run').idx
    ends = (of_run.transform('nunique') > 1) & (known.idx == of_run.transform('max'))
    known = known[ends | ~known.description.isin(ENDS) | known.run.isin(WHOLE)]
    return {int(boardsize): {run: sorted(set(numbers)) for run, numbers in board.groupby('run').idx}
            for boardsize, board in known.groupby('boardsize')}


def snapshot(path, n_params):
    """The content of a snapshot's file, with the matrices of a large network in half precision.

    Args:
        path: the file.
        n_params: of its network.

    Returns:
        Bytes. They change nothing further where a file has halves already.
    """
    if n_params <= EXACT:
        return Path(path).read_bytes()
    saved = storage.load(path)
    agent = {name: x.half() if getattr(x, 'ndim', 0) == 2 else x
             for name, x in saved['agent'].items()}
    return dumped(saved | {'agent': agent})


def savepoint(saved):
    """A savepoint as the bytes of a file, its buffer emptied if it is large.

    Args:
        saved: the state, as `pavlov.storage.load` returns it; changed.
    """
    rows = saved['training']['buffer']['rows']
    if sum(x.numel()*x.element_size() for x in rows.values()) > BUFFER:
        saved['training']['buffer'] = {
            'n': 0, 'rows': {name: x.new_empty((0, *x.shape[1:])) for name, x in rows.items()}}
    return dumped(saved)


def dumped(saved):
    """The state `saved` as the bytes of a file."""
    content = io.BytesIO()
    torch.save(saved, content)
    return content.getvalue()


def unpack(boards=None):
    """Puts the runs that the package ships into the folder of runs, except those that are there.

    Args:
        boards: board sizes whose runs are wanted, or all.

    Returns:
        Their names.

    Raises:
        ValueError: no run is shipped of a board.
    """
    shipped, home = _snapshots(REPLICA), runs.folder()
    boards = list(shipped) if boards is None else list(boards)
    if unknown := set(boards) - set(shipped):
        raise ValueError(f'no runs are shipped of boards {sorted(unknown)}: choose from '
                         f'{sorted(shipped)}')
    wanted = {b: shipped[b] for b in boards}
    for boardsize, names in wanted.items():
        missing = {run for run in names if not (home/run).exists()}
        if missing:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix='.replica-', dir=home.parent) as partial:
                with tarfile.open(archive(boardsize)) as file:
                    file.extractall(partial, (m for m in file if Path(m.name).parts[0] in missing),
                                    filter='data')
                for run in missing:
                    (Path(partial)/run).replace(home/run)
    return [run for names in wanted.values() for run in names]
