"""Runs in a Backblaze B2 bucket: the one published in 2021, or your own.

The 2021 bucket, `boardlaw`, can be read by anyone over HTTPS at `BASE_URL`; no key is needed, and
none is part of this package. A plain address cannot list a bucket, so what a run consists of is
read from its `_info.json`. Set the environment variable BOARDLAW_B2_URL, or pass `base_url`, to
read from a mirror.

For a bucket of your own the keys are taken from B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY, else
from the account file that `b2 account authorize` leaves; b2sdk then lists and synchronises.

Locally a run lives in `pavlov.root()/pavlov/<run>/`, in the bucket in `output/pavlov/<run>/`. The
environment variables that `_info.json` held in 2021 are dropped on the way, in both directions.
Every failure is a `BackupError`; what has arrived is kept and the same call goes on from there.

Explained in the chapter book/data2021.ipynb.
"""
import contextlib
import io
import json
import os
import re
import tempfile
import threading
import urllib.parse
import warnings
import zipfile
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from .. import download, pavlov
from ..allowance import Allowance
from ..pavlov.disk import locked, write_atomic
from . import keys
from .errors import BackupError, BadName, CapReached, MissingFile, WrongKey
from .keys import BUCKET, KEY_HELP, PREFIX

BASE_URL = f'https://f002.backblazeb2.com/file/{BUCKET}'
DAILY_CAP = 100 * 10**9  # bytes a UTC day that the 2021 bucket gives to all its readers together


@contextlib.contextmanager
def _clear_errors():
    """Turns what the transfer libraries raise into the family of `BackupError`."""
    try:
        yield
    except BackupError:
        raise
    except download.NotFound as e:
        raise MissingFile(f'{e} (the name of a run is needed in full)') from e
    except download.Refused as e:
        if 'cap_exceeded' in e.code:
            raise CapReached('the bucket has given out all it may today, to all its readers '
                             f'together: call again after 00:00 UTC to go on ({e})') from e
        raise WrongKey(f'{e}: this address is not public; {KEY_HELP}') from e
    except download.CapReached as e:
        raise CapReached(f'{e}, or pass cap=None for a bucket that has no such cap') from e
    except download.DownloadError as e:
        raise BackupError(str(e)) from e
    except OSError as e:
        raise BackupError(f'{e}: free space, or choose another folder by BOARDLAW_OUTPUT, and call '
                          'again') from e
    except Exception as e:
        if not type(e).__module__.startswith('b2sdk.'):
            raise
        raise keys.explained(e) from e


class _Stopped(Exception):
    """Ends a worker's download because another's has failed; what it received is kept."""


@_clear_errors()
def download_agent(run: str, snapshot: int | None, *, base_url: str | None = None,
                   progress: bool = True, cap: int | None = DAILY_CAP) -> Path:
    """Downloads one snapshot of a run, and the run's `_info.json`, from the public address.

    Files that are already there are kept; with both there, no network is needed.

    Args:
        run: full name, such as '2021-02-20 23-35-25 simple-market'
        snapshot: its number; None for the latest state, `storage.latest.pkl`
        base_url: address of the bucket, by default BOARDLAW_B2_URL or `BASE_URL`
        cap: bytes that may be downloaded a UTC day, None for any number

    Returns:
        path of the snapshot

    Raises:
        BackupError: with a subclass and a sentence for each cause
    """
    folder = _folder(run)
    url = _address(run, base_url)
    name = 'storage.latest.pkl' if snapshot is None else f'storage.snapshot.{int(snapshot)}.pkl'
    path = folder / name
    if download.present(path) and (folder / '_info.json').exists():
        return path
    with Allowance(pavlov.root(), cap) as allowance:
        if not (folder / '_info.json').exists():
            _fetch_info(url, folder, allowance)
        try:
            return download.fetch(_join(url, name), path, on_bytes=allowance, progress=progress,
                                  validate=zipfile.is_zipfile)
        except download.NotFound as e:
            files = json.loads((folder / '_info.json').read_text(encoding='utf-8'))['_files']
            held = sorted(int(m[1]) for f in files
                          if (m := re.fullmatch(r'storage\.snapshot\.(\d+)\.pkl', f)))
            raise MissingFile(f'{run!r} has no {name} in the bucket; its snapshots are numbered '
                              f'{held}') from e


@_clear_errors()
def download_run(run: str, *, bucket: str = BUCKET, base_url: str | None = None,
                 workers: int = 8, progress: bool = True, cap: int | None = DAILY_CAP,
                 api=None) -> Path:
    """Downloads a run's folder; called again, only what is missing.

    Over the public address the list of files is `_files` of the run's `_info.json`: a listed file
    that the server does not have is skipped and named in a warning, a file that is already here is
    kept. With keys that can see the bucket, b2sdk synchronises the folder: files that are newer in
    the bucket are taken, files that are newer here are kept. An explicit `base_url` or
    BOARDLAW_B2_URL always means the plain address.

    Args:
        run: full name, such as '2021-03-26 15-30-17 harsh-wait'
        workers: files transferred at a time
        cap: bytes that may be downloaded a UTC day, None for any number (a bucket of your own)
        api: an authorised `b2sdk` B2Api, by default made from the environment's keys

    Returns:
        path of the run's folder

    Raises:
        BackupError: with a subclass and a sentence for each cause
    """
    folder = _folder(run)
    address = base_url or (bucket == BUCKET and os.environ.get('BOARDLAW_B2_URL'))
    source = None if address else keys.open_bucket(bucket, api)
    if source is None and bucket != BUCKET and not address:
        raise WrongKey(f'bucket {bucket!r} needs keys: {KEY_HELP}')
    with Allowance(pavlov.root(), cap) as allowance:
        if source is None:
            url = _address(run, base_url)
            info = _fetch_info(url, folder, allowance)
            _fetch_files(url, folder, info['_files'], allowance, workers, progress)
        else:
            _take_info(source, run, folder, allowance)
            allowance.require(keys.missing_bytes(source, run, folder))
            keys.sync(source, f'b2://{bucket}/{PREFIX}/{run}', str(folder), 'SKIP', workers,
                      progress, allowance.add)
    return folder


@_clear_errors()
def sync_up(run: str, bucket: str, *, workers: int = 8, progress: bool = True, api=None) -> None:
    """Uploads a local run to a bucket of your own; called again, only what has changed.

    `_info.json` goes last and without environment variables, lock and temporary files not at all.
    Nothing in the bucket is deleted, and a file that is newer there is an error.

    Args:
        run: full name
        bucket: its name
        workers, api: as for `download_run`

    Raises:
        BackupError: with a subclass and a sentence for each cause
    """
    folder = _folder(run)
    if not (folder / '_info.json').is_file():
        raise MissingFile(f'there is no run {run!r} in {folder.parent}: nothing to upload')
    try:
        info = _cleaned((folder / '_info.json').read_bytes())
    except ValueError as e:
        raise BackupError(f'{folder / "_info.json"} cannot be read ({e})') from e
    target = keys.open_bucket(bucket, api)
    if target is None:
        raise WrongKey(f'uploading to {bucket!r} needs keys that can write to it: {KEY_HELP}')
    keys.sync(target, str(folder), f'b2://{bucket}/{PREFIX}/{run}', 'RAISE_ERROR', workers,
              progress)
    target.upload_bytes(_dumped(info), f'{PREFIX}/{run}/_info.json')


@_clear_errors()
def list_runs(bucket: str = BUCKET, *, api=None) -> list[str]:
    """Names of the runs in a bucket: needs keys that may list it, or an `api` that has them."""
    source = keys.open_bucket(bucket, api)
    if source is None:
        raise WrongKey(f'listing bucket {bucket!r} needs keys that can see it: {KEY_HELP}')
    folders = [folder for _, folder in source.ls(PREFIX) if folder]
    return sorted(folder.rstrip('/').rpartition('/')[2] for folder in folders)


def downloaded_today() -> int:
    """Bytes that this machine has downloaded by this module on the current UTC day."""
    return Allowance(pavlov.root(), None).used()


# Names and addresses

def _checked(name, what):
    if not (isinstance(name, str) and pavlov.runs.safe(name) and '..' not in name
            and name.isprintable()):
        raise BadName(f'{name!r} is not the name of a {what}: give the plain name, without a path')
    return name


def _folder(run):
    return pavlov.runs.folder() / _checked(run, 'run')


def _address(run, base_url):
    base = base_url or os.environ.get('BOARDLAW_B2_URL') or BASE_URL
    return _join(base.rstrip('/'), f'{PREFIX}/{run}')


def _join(url, name):
    return f'{url}/{urllib.parse.quote(name)}'


# The run's _info.json

def _cleaned(content):
    """The parsed `_info.json` without environment variables, or a ValueError."""
    try:
        info = json.loads(content)
    except RecursionError as e:
        raise ValueError('it is nested too deeply') from e
    match info:
        case {'_files': dict()}:
            return info | {'_env': {}}
    raise ValueError('it does not list the files of a run')


def _dumped(info):
    return json.dumps(info, ensure_ascii=False).encode()


def _fetch_info(url, folder, allowance):
    with tempfile.TemporaryDirectory() as scratch:
        path = download.fetch(_join(url, '_info.json'), Path(scratch) / '_info.json',
                              progress=False, on_bytes=allowance,
                              validate=lambda path: _cleaned(path.read_bytes()))
        return _write_info(path.read_bytes(), folder)


def _take_info(bucket, run, folder, allowance):
    content = io.BytesIO()
    bucket.download_file_by_name(f'{PREFIX}/{run}/_info.json').save(content)
    allowance.add(content.tell())
    try:
        return _write_info(content.getvalue(), folder)
    except ValueError as e:
        raise BackupError(f'the _info.json of {run!r} in the bucket cannot be read ({e})') from e


def _write_info(content, folder):
    """Writes the cleaned `_info.json`; files that only the one already there lists stay listed."""
    info = _cleaned(content)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / '_info.json'
    with locked(folder / '_lock'):
        with contextlib.suppress(FileNotFoundError, ValueError):
            info['_files'] = _cleaned(path.read_bytes())['_files'] | info['_files']
        write_atomic(path, lambda file: file.write(_dumped(info)))
    return info


# The public address

def _fetch_files(url, folder, names, allowance, workers, progress):
    """Fetches every listed file that is not here. A failure, unless a missing file, stops all."""
    for name in names:
        _checked(name, 'file in a run')
    wanted = [n for n in names if n not in ('_info.json', '_lock')
              and not download.present(folder / n)]
    missing, stop = [], threading.Event()
    bar = tqdm(desc=folder.name, total=len(wanted), unit='file', disable=not progress)

    def on_bytes(n):
        if stop.is_set():
            raise _Stopped
        allowance(n)

    def fetch(name):
        torch_file = re.fullmatch(r'storage\.(latest|snapshot\.\d+)\.pkl', name)
        try:
            download.fetch(_join(url, name), folder / name, progress=False, on_bytes=on_bytes,
                           validate=zipfile.is_zipfile if torch_file else None)
        except download.NotFound:
            missing.append(name)
        bar.update()

    with bar, ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(fetch, name) for name in wanted]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        failures = [job.exception() for job in jobs if not job.cancelled()]
        for failure in failures:
            if failure and not isinstance(failure, _Stopped):
                raise failure
    if missing:
        warnings.warn(f'{len(missing)} of the {len(names)} files that {folder.name!r} lists are '
                      f'not in the bucket and were skipped: {", ".join(sorted(missing))}',
                      stacklevel=4)
