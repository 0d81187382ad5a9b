"""The replica that the package ships: our own runs, reduced to what others need, in two files.

`data/replica.sqlite` is the evaluation database. `data/replica.zip` holds the folder of each run
with its description and snapshots, but no statistics and no savepoint, which are large. After
:func:`unpack` the agents can play, be rated again, or be trained further.
"""
import json
import shutil
import zipfile
from pathlib import Path

from .. import pavlov, sql
from ..pavlov import runs, storage
from ..sql.database import REPLICA

RUNS = REPLICA.with_suffix('.zip')

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
            for entry in entries:
                _write(file, f'{run}/{entry}', (runs.path(run)/entry).read_bytes())
    return target, archive


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
