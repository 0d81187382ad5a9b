"""The files of a run: what its `_info.json` lists, and what is really there.

The two can differ. A run downloaded in part lists files that are absent; a process killed between
writing and listing leaves files that are present and not listed. Both kinds are reported."""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
from pathlib import Path

import pandas as pd

from . import runs

ENTRY = ['_pattern', '_created', '_process_id', '_process_name', '_thread_id', '_thread_name',
         'kind']


def path(run: str | int, name: str) -> Path:
    """Where the file `name` of a run is or would be."""
    if not runs.safe(name):
        raise ValueError(f'{name!r} is not the name of a file in a run')
    return runs.path(run) / name


def _pattern(name: str) -> str:
    return re.sub(r'\.\d+(\.\w+)$', r'.{n}\1', name)


def entries(run: str | int = -1) -> dict[str, dict]:
    """File name -> its entry in `_info.json`, with 'size' in bytes (None where absent) and
    'listed'. Files that are present but not listed come last, with '_pattern' made from the
    name."""
    run = runs.resolve(run)
    with os.scandir(runs.path(run)) as found:
        sizes = {f.name: f.stat().st_size for f in found
                 if f.is_file() and not f.name.startswith(('_', '.'))}
    listed = runs.info(run)['_files']
    both = {n: {**e, 'size': sizes.get(n), 'listed': True} for n, e in listed.items()}
    for name in sorted(sizes.keys() - listed.keys()):
        both[name] = {'_pattern': _pattern(name), 'size': sizes[name], 'listed': False}
    return both


def sequence(run: str | int, pattern: str) -> dict[int, dict]:
    """Number -> entry (as in `entries`, with 'name') of the files of a pattern such as
    'storage.snapshot.{n}.pkl', listed or present, by number."""
    front, back = map(re.escape, pattern.split('{n}'))
    found = {}
    for name, entry in entries(run).items():
        if match := re.fullmatch(front + r'(\d{1,9})' + back, name):
            found[int(match[1])] = {'name': name, **entry}
    return dict(sorted(found.items()))


def new_file(run: str | int, pattern: str, process: str | None = None, n: int | None = None,
             **extra) -> Path:
    """List a file of a run and return its path; the caller writes it.

    `{n}` in `pattern` becomes the first number above all in use, so that processes never share a
    file. With the number given, or without `{n}`, an entry that exists already is left as it is.
    `process` stands for the process's own name in the entry; `extra` is stored with it."""
    if not re.fullmatch(r'\w[\w.-]*', pattern.replace('{n}', '0')) or pattern.count('{n}') > 1:
        raise ValueError(f'{pattern!r} cannot name a file: use letters, digits, ".", "-", "_" and '
                         'at most one {n}')
    run = runs.resolve(run)
    worker, thread = multiprocessing.current_process(), threading.current_thread()
    name = pattern if n is None else pattern.replace('{n}', str(int(n)))
    if name in runs.info(run)['_files']:
        return runs.folder() / run / name
    with runs.update(run) as info:
        if '{n}' in name:
            name = name.replace('{n}', str(max(sequence(run, pattern), default=-1) + 1))
        if name not in info['_files']:
            info['_files'][name] = {
                '_pattern': pattern, '_created': str(runs._now()),
                '_process_id': str(worker.pid), '_process_name': process or worker.name,
                '_thread_id': str(thread.ident), '_thread_name': thread.name, **extra}
    return runs.folder() / run / name


def remove(run: str | int, names) -> None:
    """Delete files of a run and their entries."""
    with runs.update(run) as info:
        for name in names:
            info['_files'].pop(name, None)
            path(run, name).unlink(missing_ok=True)


def pandas(run: str | int = -1) -> pd.DataFrame:
    """All files of a run, listed or present, by name: the fields of their entries, `size` in
    bytes, and whether each is `listed` and `present`."""
    found = entries(run)
    df = pd.DataFrame(list(found.values()), index=pd.Index(found, name='name', dtype=object))
    df = df.reindex(columns=[*ENTRY, *(c for c in df.columns if c not in ENTRY)])
    df = df.reindex(columns=list(dict.fromkeys([*df.columns, 'size', 'listed'])))
    df['_created'] = pd.to_datetime(df['_created'], utc=True, format='ISO8601', errors='coerce')
    df['size'] = df['size'].astype('Int64')
    df['listed'] = df['listed'].astype(bool)
    df['present'] = df['size'].notna()
    df.insert(0, '_origin', [n.split('.')[0] for n in df.index])
    return df.sort_index()
