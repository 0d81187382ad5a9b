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
import time
import urllib.parse
import warnings
import zipfile
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from . import download, pavlov
from .pavlov.disk import locked, write_atomic

BUCKET = 'boardlaw'
BASE_URL = f'https://f002.backblazeb2.com/file/{BUCKET}'
PREFIX = 'output/pavlov'
DAILY_CAP = 100 * 10**9  # bytes a UTC day that the 2021 bucket gives to all its readers together

_UNSYNCED = (r'_info\.json$', r'_lock$', r'.*\.lock$', r'.*\.part(\.json)?$', r'.*\.tmp$')
_KEY_HELP = ('set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY, or run `b2 account authorize`; '
             'without any key the public address is read')


class BackupError(download.DownloadError):
    """A transfer failed. The message says what was wrong and what to do; nothing is lost.

    What to do: call again: it goes on from what has arrived.
    """


class BadName(BackupError, ValueError):
    """The name of a run or of a file in it could lead out of its folder.

    What to do: give the plain name, without a path. If it came from a bucket, do not trust that
    bucket.
    """


class MissingFile(BackupError):
    """The run, file or bucket is not there.

    What to do: give the run's name in full, and a snapshot that the message lists.
    """


class WrongKey(BackupError):
    """The keys are missing, wrong, expired or not allowed to do this.

    What to do: set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY to those of a key that may.
    """


class CapReached(BackupError):
    """The day's download cap is used up: here by our own count, or on the server.

    What to do: call again after midnight UTC to go on.
    """


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
        raise WrongKey(f'{e}: this address is not public; {_KEY_HELP}') from e
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
        raise _from_b2(e) from e


def _from_b2(error):
    x = _b2().exception
    if isinstance(error, (x.Unauthorized, x.AccountInfoError, x.NotAllowedByAppKeyError,
                          x.AccessDenied, x.RestrictedBucket)):
        return WrongKey(f'Backblaze does not accept the keys for this ({error}): check them, or '
                        f'{_KEY_HELP}')
    if isinstance(error, x.CapExceeded) or 'cap_exceeded' in str(error):
        return CapReached(f"the account's cap is reached ({error}): raise it at Backblaze, or call "
                          'again after 00:00 UTC')
    if isinstance(error, (x.FileNotPresent, x.NonExistentBucket)):
        return MissingFile(f'not in Backblaze: {error}; check the names of run and bucket')
    if isinstance(error, (x.B2ConnectionError, x.B2RequestTimeout, x.UnknownHost,
                          x.ConnectionReset)):
        return BackupError(f'Backblaze cannot be reached ({error}): check the network and call '
                           'again to go on')
    if isinstance(error, x.DestFileNewer):
        return BackupError(f'{error}: the bucket holds a newer state, download it first')
    return BackupError(f'{error}; call again to go on')


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
    with download.Allowance(pavlov.root(), cap) as allowance:
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
    source = None if address else _bucket(bucket, api)
    if source is None and bucket != BUCKET and not address:
        raise WrongKey(f'bucket {bucket!r} needs keys: {_KEY_HELP}')
    with download.Allowance(pavlov.root(), cap) as allowance:
        if source is None:
            url = _address(run, base_url)
            info = _fetch_info(url, folder, allowance)
            _fetch_files(url, folder, info['_files'], allowance, workers, progress)
        else:
            _take_info(source, run, folder, allowance)
            allowance.require(_missing_bytes(source, run, folder))
            _sync(source, f'b2://{bucket}/{PREFIX}/{run}', str(folder), 'SKIP', workers, progress,
                  allowance.add)
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
    target = _bucket(bucket, api)
    if target is None:
        raise WrongKey(f'uploading to {bucket!r} needs keys that can write to it: {_KEY_HELP}')
    _sync(target, str(folder), f'b2://{bucket}/{PREFIX}/{run}', 'RAISE_ERROR', workers, progress)
    target.upload_bytes(_dumped(info), f'{PREFIX}/{run}/_info.json')


@_clear_errors()
def list_runs(bucket: str = BUCKET, *, api=None) -> list[str]:
    """Names of the runs in a bucket: needs keys that may list it, or an `api` that has them."""
    source = _bucket(bucket, api)
    if source is None:
        raise WrongKey(f'listing bucket {bucket!r} needs keys that can see it: {_KEY_HELP}')
    folders = [folder for _, folder in source.ls(PREFIX) if folder]
    return sorted(folder.rstrip('/').rpartition('/')[2] for folder in folders)


def downloaded_today() -> int:
    """Bytes that this machine has downloaded by this module on the current UTC day."""
    return download.Allowance(pavlov.root(), None).used()


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


# A bucket with keys

def _b2():
    """b2sdk's newest interface that is installed."""
    try:
        try:
            import b2sdk.v3 as b2
        except ImportError:
            import b2sdk.v2 as b2
    except ImportError as e:
        raise BackupError('a bucket with keys needs b2sdk: pip install b2sdk') from e
    return b2


def _authorised():
    """A B2Api for the user's own keys, None if there are none."""
    key_id, key = (os.environ.get(k) for k in ('B2_APPLICATION_KEY_ID', 'B2_APPLICATION_KEY'))
    if bool(key_id) != bool(key):
        raise WrongKey('only one of B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY is set: set both '
                       'or none')
    if key:
        b2 = _b2()
        api = b2.B2Api(b2.InMemoryAccountInfo())
        api.authorize_account(application_key_id=key_id, application_key=key, realm='production')
        return api
    # Looked up here because b2sdk creates the file, and its folder, where there is none.
    config = os.environ.get('XDG_CONFIG_HOME') or '~/.config'
    for file in (os.environ.get('B2_ACCOUNT_INFO'), '~/.b2_account_info',
                 f'{config}/b2/account_info'):
        if file and Path(file).expanduser().is_file():
            b2 = _b2()
            return b2.B2Api(b2.SqliteAccountInfo(str(Path(file).expanduser())))
    return None


def _bucket(name, api):
    """The bucket as the keys see it. None without keys, or where they see no 2021 bucket: keys
    belong to an account, so those for one's own bucket cannot list another's."""
    api = api or _authorised()
    if api is None:
        return None
    exception = _b2().exception
    try:
        return api.get_bucket_by_name(name)
    except (exception.NonExistentBucket, exception.RestrictedBucket):
        if name == BUCKET:
            return None
        raise


def _missing_bytes(bucket, run, folder):
    """Size of what a synchronisation will fetch, going by the sizes of the files."""
    remote = {version.file_name.rpartition('/')[2]: version.size
              for version, _ in bucket.ls(f'{PREFIX}/{run}', recursive=True)}
    local = {path.name: path.stat().st_size for path in folder.iterdir()}
    return sum(size for name, size in remote.items()
               if name != '_info.json' and local.get(name) != size)


def _sync(bucket, source, target, newer_target, workers, progress, on_bytes=lambda n: None):
    """b2sdk's synchronisation of a local folder and one in the bucket, in either direction."""
    b2 = _b2()

    class Reporter(b2.SyncReport):
        def __init__(self, bar):
            super().__init__(io.StringIO(), True)
            self.bar, self.failures = bar, []

        def end_compare(self, total_transfer_files, total_transfer_bytes):
            super().end_compare(total_transfer_files, total_transfer_bytes)
            self.bar.total = total_transfer_bytes
            self.bar.refresh()

        def update_transfer(self, file_delta, byte_delta):
            super().update_transfer(file_delta, byte_delta)
            self.bar.update(byte_delta)
            on_bytes(byte_delta)

        def error(self, message):
            super().error(message)
            self.failures.append(message)

        def close(self):
            super().close()
            self.bar.close()

    synchronizer = b2.Synchronizer(
        workers,
        policies_manager=b2.ScanPoliciesManager(exclude_file_regexes=_UNSYNCED),
        compare_version_mode=b2.CompareVersionMode.MODTIME,
        newer_file_mode=b2.NewerFileSyncMode[newer_target])
    folders = [b2.parse_folder(folder, bucket.api) for folder in (source, target)]
    title = Path(source).name
    bar = tqdm(desc=title, unit='B', unit_scale=True, disable=not progress)
    with Reporter(bar) as reporter:
        try:
            synchronizer.sync_folders(source_folder=folders[0], dest_folder=folders[1],
                                      now_millis=int(time.time() * 1000), reporter=reporter)
        except b2.exception.IncompleteSync as e:
            raise BackupError(f'{len(reporter.failures)} files of {title!r} failed, the first: '
                              f'{reporter.failures[0]}; call again to go on') from e
