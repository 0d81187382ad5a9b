"""The replica that the package ships: our own runs, reduced to what others need, in two files.

`data/replica.sqlite` is the evaluation database. `data/replica.zip` holds the folder of each run
with its description and snapshots, but no statistics and no savepoint, which are large. Snapshots
of networks with more than :data:`EXACT` parameters have matrices in half precision, which takes
half the room; but each run's first is exact, so that a training made anew can be compared with it.
After :func:`unpack` the agents can play, be rated again, or be trained further.
"""
import io
import json
import shutil
import zipfile
from pathlib import Path

import torch

from .. import networks, pavlov, sql
from ..pavlov import runs, storage
from ..sql.database import REPLICA

RUNS = REPLICA.with_suffix('.zip')

#: Parameters of the largest network that is kept exactly. A half has 11 binary digits; the search
#: plays large networks with 11 on a GPU and with 8 on a CPU's tiles (:mod:`boardlaw.tiles`).
EXACT = 10_000

#: The commands of `python -m boardlaw` that made it.
COMMANDS = ['sweep --boards 3,4,5 --seeds 2 --runs 8 --test-boards 5',
            'sweep --boards 6 --runs 8 --test-boards 6',
            'sweep --boards 7 --runs 9 --largest 100000 --test-boards 7',
            'sweep --boards 4,7 --study long --test-boards 7',
            'sweep --boards 3,4,5 --study lambda --seeds 8']

_PROCESS = ['_process_id', '_process_name', '_thread_id', '_thread_name']   # nobody's business


def pack(database, folder=REPLICA.parent):
    """Writes replica.sqlite and replica.zip from a database and the runs that it names.

    Args:
        database: path or URL.
        folder: where to.

    Returns:
        The paths of both.
    """
    target, archive = Path(folder)/REPLICA.name, Path(folder)/RUNS.name
    partial = target.with_name(f'{target.name}.partial')   # the database may be the target itself
    partial.unlink(missing_ok=True)
    with sql.use(database):
        sql.execute('vacuum into :path', path=str(partial))
        known = sql.agent_query()
    partial.replace(target)
    names = sorted(set(known[known.width > 0].run))
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
        for run in names:
            info, numbers = runs.info(run), sorted(set(known[known.run == run].idx))
            entries = [storage.SNAPSHOT.format(n=n) for n in numbers]
            kept = {entry: info['_files'][entry] | dict.fromkeys(_PROCESS, '') for entry in entries}
            info |= {'_host': '', '_files': kept}
            _write(file, f'{run}/{runs.INFO}', json.dumps(info).encode())
            n_params = networks.count_params(*(info['params'][k]
                                               for k in ('boardsize', 'width', 'depth')))
            for i, entry in enumerate(entries):
                content = snapshot(runs.path(run)/entry, n_params if i else 0)
                _write(file, f'{run}/{entry}', content)
    return target, archive


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


def dumped(saved):
    """The state `saved` as the bytes of a file."""
    content = io.BytesIO()
    torch.save(saved, content)
    return content.getvalue()


def _write(file, name, content):
    # A fixed time, so that the same runs make the same file.
    file.writestr(zipfile.ZipInfo(name, (2021, 4, 7, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def unpack():
    """Puts the runs that the package ships into the folder of runs, except those that are there.

    Returns:
        Their names.
    """
    with zipfile.ZipFile(RUNS) as file:
        names = sorted({Path(name).parts[0] for name in file.namelist()})
        for run in names:
            if not (runs.folder()/run).exists():
                extract(file, run)
    return names


def extract(file, run):
    """Puts one run of a zip file into the folder of runs, in place of an earlier state of it.

    Args:
        file: a `zipfile.ZipFile` with a folder for each run.
        run: the run's name.
    """
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
