"""Runs: folders `<root>/pavlov/<run>/`, each described by its `_info.json`.

`_info.json` holds the description, the parameters, the time of creation and an entry for every
file. It is changed under the run's lock and replaced whole, so it can be read without the lock.
The environment variables that the 2021 code stored under `_env` are neither written nor shown.

Wherever a function takes a run, a string or an integer will do: see `resolve`."""

from __future__ import annotations

import json
import operator
import platform
import random
import re
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd

from . import disk
from .disk import CorruptFile, NotFound

INFO, LOCK = '_info.json', '_lock'
NAME = re.compile(r'\d{4}-\d\d-\d\d \d\d-\d\d-\d\d \S.*')
FIRST = """able amber ample azure bold brave brief bright brisk calm candid clear clever cosy crisp
dapper deep eager early even fair fast fine firm fleet fond fresh gentle glad golden grand green
hardy humble ideal jolly keen kind late lean light lively loyal lucid mellow merry mild modest neat
noble olive patient plain polite prime proud quick quiet rapid ready rosy royal rustic sage scarlet
serene sharp shy silent silver simple sleek small smooth snowy sober solid spare steady still stout
subtle sunny sure swift tall tame tender tidy tiny true upbeat vast velvet violet vivid warm wary
whole wide wild wise witty young""".split()
SECOND = """acorn alder anchor apple arrow aspen badger barley basin bay beacon beech birch bison
bloom bramble breeze bridge brook canyon castle cedar cliff clover comet copper coral cove crane
creek crow dawn delta dune eagle elm ember falcon fern field finch fjord flint forest fox garden
glade grove gull harbour hare hawk hazel heron hill holly island ivy jasper juniper lagoon lake
lantern larch lark lily linden maple marsh meadow meteor mint moon moss nettle north oak ocean
orchard otter owl pearl pebble pine plum pond poplar prairie quartz raven reed ridge river robin
rose rowan sail sparrow spring spruce star stone stream summit swan thistle thrush tide tulip
valley walnut wave willow wren""".split()


def folder() -> Path:
    """The folder that holds the runs."""
    return disk.root() / 'pavlov'


def safe(name: str) -> bool:
    """Whether `name` is a plain file name, so that it cannot lead out of its folder."""
    return bool(name) and not re.search(r'[/\\:\0]', name) and name.strip('. ') != ''


def _exists(name: str) -> bool:
    return safe(name) and (folder() / name / INFO).is_file()


def _now() -> datetime:
    return datetime.now(timezone.utc)


def names() -> list[str]:
    """Names of all runs, the oldest first."""
    if not folder().is_dir():
        return []
    found = [p.name for p in folder().iterdir() if _exists(p.name)]
    seconds = Counter(n[:19] for n in found)

    def key(name):
        # A name says the second; runs of one second, and renamed ones, are told apart by _created.
        if NAME.fullmatch(name) and seconds[name[:19]] == 1:
            return name[:19], name
        try:
            stamp = created(name)
        except CorruptFile:
            return name[:19], name
        return f'{stamp:%Y-%m-%d %H-%M-%S.%f}', name

    return sorted(found, key=key)


def resolve(run: str | int) -> str:
    """The full name of a run.

    `run` is the name itself; the start or end of it, or a part between spaces, if that fits one
    run alone; or an index into the runs by age: -1 is the newest, 0 the oldest. Raises NotFound
    if no run fits and ValueError if several do."""
    if isinstance(run, str):
        if _exists(run):
            return run
        if safe(run) and (folder() / run).is_dir():
            raise NotFound(f'Run "{run}" has no {INFO}: if it was downloaded, download it again.')
        hits = [n for n in names() if run.strip() and
                (n.startswith(run) or n.endswith(run) or f' {run} ' in n)]
        if len(hits) == 1:
            return hits[0]
        if not hits:
            raise NotFound(f'No run fits "{run}" among the {len(names())} in "{folder()}".')
        shown = ', '.join(f'"{h}"' for h in hits[-5:])
        raise ValueError(f'{len(hits)} runs fit "{run}", the newest: {shown}. Give more of the '
                         'name.')
    if isinstance(run, bool):
        raise TypeError(f'a run is a name or an index, not {run}')
    index, known = operator.index(run), names()
    if not -len(known) <= index < len(known):
        raise NotFound(f'There is no run {index}: "{folder()}" holds {len(known)} runs.')
    return known[index]


def path(run: str | int) -> Path:
    """The folder of a run."""
    return folder() / resolve(run)


def info(run: str | int = -1) -> dict:
    """The contents of a run's `_info.json`, with `_env` emptied.

    Raises CorruptFile if it is not JSON of the expected form or names a file outside the run."""
    name = resolve(run)
    return _parse(folder() / name / INFO)


def _parse(file: Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding='utf-8'))
        if not isinstance(value, dict):
            raise ValueError('an object was expected')
        value.setdefault('_files', {})
        value.setdefault('params', {})
        value.setdefault('_created', file.parent.name[:10] + ' ' +
                         file.parent.name[11:19].replace('-', ':'))
        if not isinstance(value['_created'], str) or pd.isna(_stamp(value['_created'])):
            raise ValueError('"_created" must be a time')
        if not isinstance(value['_files'], dict) or not isinstance(value['params'], dict):
            raise ValueError('"_files" and "params" must be objects')
        for entry, fields in value['_files'].items():
            if not safe(entry) or not isinstance(fields, dict) \
                    or not isinstance(fields.get('kind'), (str, type(None))):
                raise ValueError(f'"_files" has an entry {entry[:80]!r} that is refused')
    except (ValueError, OverflowError, RecursionError) as e:
        raise CorruptFile(f'"{file}" is not a run description: {e}'[:1000]) from e
    value['_env'] = {}
    return value


def _stamp(text: str) -> pd.Timestamp:
    stamp = pd.Timestamp(text)
    return stamp.tz_localize('UTC') if stamp.tzinfo is None else stamp.tz_convert('UTC')


def created(run: str | int = -1) -> pd.Timestamp:
    """When a run was created (UTC)."""
    return _stamp(info(run)['_created'])


def _write(file: Path, value: dict) -> None:
    try:
        text = json.dumps(value, default=lambda o: o.item())  # numbers of numpy and torch
    except (AttributeError, TypeError, ValueError) as e:
        raise TypeError(f'a run description must be made of JSON values: {e}') from e
    disk.write_atomic(file, lambda f: f.write(text.encode()))


@contextmanager
def update(run: str | int):
    """Change a run's description: `with update(run) as info: info['description'] = ...`.

    Holds the run's lock for the block; nothing is written if the block raises."""
    home = path(run)
    with disk.locked(home / LOCK):
        value = _parse(home / INFO)
        yield value
        _write(home / INFO, {**value, '_env': {}})


@contextmanager
def claim(run: str | int, writer: str):
    """Be the only process that writes to `run` as `writer`, for as long as the block lasts.

    Raises RuntimeError if another process is."""
    if not re.fullmatch(r'[\w-]+', writer):
        raise ValueError(f'{writer!r} cannot name a writer: use letters, digits, "-" and "_"')
    name = resolve(run)
    with ExitStack() as stack:
        try:
            stack.enter_context(disk.locked(folder() / name / f'_{writer}.lock', blocking=False))
        except BlockingIOError:
            raise RuntimeError(f'Run "{name}" is being written by another process as "{writer}". '
                               'Wait for it to end, or stop it.') from None
        yield


def new_run(description: str = '', params: dict | None = None, suffix: str = '', *,
            now: datetime | None = None, seed: int | None = None) -> str:
    """Create a run and return its name, 'YYYY-MM-DD HH-MM-SS two-words [suffix]' in UTC.

    `params` is a dict of JSON values; `now` (aware, or taken as UTC) and `seed` fix the time and
    the words. The words never touch Python's global random state."""
    suffix = suffix.strip()
    if suffix and not re.fullmatch(r"[\w .,+=()-]*[\w+=()-]", suffix):
        raise ValueError(f'{suffix!r} cannot end a folder name: use letters, digits and " .,+=()-"')
    if params is not None and not isinstance(params, dict):
        raise TypeError(f'params must be a dict, not {type(params).__name__}')
    now = now or _now()
    now = now.replace(tzinfo=timezone.utc) if now.tzinfo is None else now.astimezone(timezone.utc)
    value = {'description': description, 'params': params or {}, '_created': str(now),
             '_host': platform.node(), '_env': {}, '_files': {}}
    words = random.Random(seed)
    folder().mkdir(parents=True, exist_ok=True)
    while True:
        pair = f'{words.choice(FIRST)}-{words.choice(SECOND)}'
        name = f'{now:%Y-%m-%d %H-%M-%S} {pair} {suffix}'.strip()
        home = folder() / name
        try:
            home.mkdir()
            break
        except FileExistsError:  # two runs in one second drew the same words
            continue
    try:
        (home / LOCK).touch()
        _write(home / INFO, value)  # only now is it a run to others
    except BaseException:
        (home / LOCK).unlink(missing_ok=True)
        home.rmdir()
        raise
    return name


def pandas() -> pd.DataFrame:
    """All runs, the oldest first: description, `_created`, `_host`, `params`, and each parameter
    again as a column of its own. A run whose description cannot be read is left out with a
    warning."""
    rows = {}
    for name in names():
        try:
            value = info(name)
        except CorruptFile as e:
            warnings.warn(f'left out: {e}', stacklevel=2)
            continue
        params = value.get('params')
        params = params if isinstance(params, dict) else {}
        fixed = {'description': value.get('description'), '_created': _stamp(value['_created']),
                 '_host': value.get('_host'), 'params': params}
        rows[name] = {**fixed, **{k: v for k, v in params.items() if k not in fixed}}
    columns = ['description', '_created', '_host', 'params']
    df = pd.DataFrame(list(rows.values()), index=pd.Index(rows, name='run', dtype=object),
                      columns=columns if not rows else None)
    df['_created'] = pd.to_datetime(df['_created'], utc=True)
    return df
