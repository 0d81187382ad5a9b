"""Saved states of a run: its latest savepoint and its numbered snapshots.

Both are torch zip files of a dict, 2021's of {'agent', 'n_flops', 'n_samples', 'runtime'}. A state
is made of dicts, lists, tensors and plain values only, so that it can be read without executing
anything. It is checked when written, and when read: a file that is cut short, has a wrong checksum,
expands or declares more than it holds, or holds other objects raises CorruptFile."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from . import disk, files, pickles, runs
from .disk import CorruptFile, NotFound

LATEST = 'storage.latest.pkl'
SNAPSHOT = 'storage.snapshot.{n}.pkl'


def _plain(value, where: str):
    """A copy of a state that torch will read back with weights_only: tensors on the CPU and
    without the rest of a storage that they are views of."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value if whole else value.clone()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, (str, int)):
                raise TypeError(f'{where} has the key {key!r}: keys must be strings or integers')
        return {k: _plain(v, f'{where}[{k!r}]') for k, v in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_plain(v, f'{where}[{i}]') for i, v in enumerate(value))
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f'{where} is a {type(value).__name__}: a state holds dicts, lists, tensors, '
                    'numbers, strings and None only')


def _save(path: Path, state: dict) -> None:
    if not isinstance(state, dict):
        raise TypeError(f'a state is a dict, not a {type(state).__name__}')
    content = io.BytesIO()
    torch.save(_plain(state, 'state'), content)
    disk.write_atomic(path, lambda f: f.write(content.getbuffer()))


def load(path: str | os.PathLike, device: str = 'cpu') -> dict:
    """The state in a file, its tensors on `device`.

    Raises FileNotFoundError if there is no file, CorruptFile if it is not a whole torch zip file
    of tensors and plain values."""
    path = Path(path)
    with open(path, 'rb') as file:
        try:
            _check(file, path.stat().st_size)
            file.seek(0)
            state = torch.load(file, map_location=device, weights_only=True)
        except Exception as e:  # hostile bytes can make the parsers raise nearly anything
            raise CorruptFile(f'"{path}" is not a saved state: {e}'[:500]) from e
    if not isinstance(state, dict):
        raise CorruptFile(f'"{path}" is not a saved state: it holds a {type(state).__name__}')
    return state


def _check(file, size: int) -> None:
    if file.read(4) != b'PK\x03\x04':
        raise ValueError('it does not begin as a torch zip file')
    with zipfile.ZipFile(file) as z:
        entries = z.infolist()
        # torch stores without compressing; anything else could expand without bound
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or (
                sum(e.file_size for e in entries) > size):
            raise ValueError('its parts are larger than the file')
        # torch would take an entry marked as a folder (0x10) for a file and leave its tensor unset
        if any(e.external_attr & 0x10 for e in entries):
            raise ValueError('a part of it is marked as a folder')
        if bad := z.testzip():
            raise ValueError(f'the checksum of its part {bad} is wrong')
        # torch finds a part by its name alone, in any case
        if len({e.filename.lower() for e in entries}) < len(entries):
            raise ValueError('two of its parts have one name')
        folder = entries[0].filename.partition('/')[0]
        data = f'{folder}/data/'
        pickles.check(z.read(f'{folder}/data.pkl'),
                      {e.filename.removeprefix(data): e.file_size for e in entries
                       if e.filename.startswith(data)})


def save_latest(run: str | int, state: dict) -> Path:
    """Replace the run's latest savepoint: after a crash at any instant the old or the new one is
    there. Raises TypeError, naming the place, if `state` holds objects of other kinds."""
    run = runs.resolve(run)
    path = files.path(run, LATEST)
    _save(path, state)
    files.new_file(run, LATEST)
    return path


def load_latest(run: str | int = -1, device: str = 'cpu') -> dict:
    """The run's latest savepoint. Raises NotFound if there is none yet."""
    run = runs.resolve(run)
    return _load(run, LATEST, 'savepoint', device)


def _load(run, name, what, device) -> dict:
    try:
        return load(files.path(run, name), device)
    except FileNotFoundError:
        listed = name in runs.info(run)['_files']
        raise NotFound(f'Run "{run}" has no {what}: "{name}" is ' + (
            'listed but not here; download it.' if listed else 'not there.')) from None


def save_snapshot(run: str | int, n: int, state: dict) -> Path:
    """Write snapshot number `n`, in place of an earlier one of that number."""
    run, name = runs.resolve(run), SNAPSHOT.format(n=int(n))
    if n < 0:
        raise ValueError(f'snapshots are numbered from 0, not {n}')
    path = files.path(run, name)
    _save(path, state)
    files.new_file(run, SNAPSHOT, n=n)
    return path


def snapshots(run: str | int = -1) -> pd.DataFrame:
    """The run's snapshots by number: `name`, `_created`, `size` in bytes, and whether the file is
    `present` (a run downloaded in part lists more than it has)."""
    found = files.sequence(run, SNAPSHOT)
    df = pd.DataFrame(list(found.values()), index=pd.Index(found, name='n', dtype=int))
    df = df.reindex(columns=['name', '_created', 'size', 'listed'])
    df['_created'] = pd.to_datetime(df['_created'], utc=True, format='ISO8601', errors='coerce')
    df['size'] = df['size'].astype('Int64')
    df['present'] = df['size'].notna()
    return df


def load_snapshot(run: str | int = -1, n: int = -1, device: str = 'cpu') -> dict:
    """Snapshot number `n`; a negative `n` counts from the last that is present.

    Raises NotFound if it is not there, CorruptFile if it cannot be read safely."""
    run = runs.resolve(run)
    if n < 0:
        here = [i for i, e in files.sequence(run, SNAPSHOT).items() if e['size'] is not None]
        if -n > len(here):
            raise NotFound(f'Run "{run}" has {len(here)} snapshots here, so none at {n}.')
        n = here[n]
    return _load(run, SNAPSHOT.format(n=n), f'snapshot {n}', device)
