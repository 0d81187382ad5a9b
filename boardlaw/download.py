"""One file over HTTP(S), whole or not at all.

`fetch` writes to `<path>.part`, resumes it by a Range request after any interruption, checks the
size, the checksum where the server states one and the caller's own test, and only then renames it
to `path`. So a file at `path` is always complete, and a half file is never taken for a whole one.

Explained in the chapter book/data2021.ipynb.
"""
import contextlib
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows: no advisory locks, one process at a time is the user's care
    fcntl = None

CHUNK = 1 << 18  # bytes a read
FIELDS = {'url', 'size', 'validator', 'file_id', 'sha1'}  # of what is kept beside a partial file
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(RuntimeError):
    """A download failed. The message says what was wrong and what to do; nothing is lost.

    What to do: call again: it goes on from what has arrived.
    """


class NotFound(DownloadError):
    """The server has no such file.

    What to do: check the address for a misspelling.
    """


class Refused(DownloadError):
    """The server refused the request. `code` is its own word for the reason, '' if it gave none.

    What to do: see whether the address is public, or wait if the reason is a cap.
    """

    def __init__(self, message: str, code: str = ''):
        super().__init__(message)
        self.code = code


class Unreachable(DownloadError):
    """No answer: no network, no such host, a timeout or a connection that kept breaking.

    What to do: check the network and call again: it goes on from what has arrived.
    """


class CapReached(DownloadError):
    """As many bytes as a day may bring have been downloaded.

    What to do: call again after midnight UTC.
    """


class _Again(Exception):
    """This attempt ended early, the next may succeed. `wait` is the server's wish in seconds."""

    def __init__(self, reason, wait=0.):
        super().__init__(str(reason)[:500])
        self.wait = wait


class _Part:
    """The unfinished file and, beside it in `.part.json`, what the server said the whole one is.

    Without that record a partial file cannot be matched with the server's and is started afresh.
    """

    def __init__(self, path, file):
        self.path, self.file = path, file
        self.record = path.with_name(path.name + '.json')
        try:
            self.expected = json.loads(self.record.read_text())
            kinds = {k: type(v) for k, v in self.expected.items()}
            whole = kinds == dict.fromkeys(kinds, str) | {'size': int} and kinds.keys() == FIELDS
        except (OSError, ValueError, AttributeError, RecursionError):
            whole = False
        if not whole or self.size > self.expected['size']:
            self.restart({})

    @property
    def size(self):
        return os.fstat(self.file.fileno()).st_size

    @property
    def complete(self):
        return self.size > 0 and self.size == self.expected.get('size')

    def restart(self, expected):
        self.file.truncate(0)
        self.expected = expected
        self.record.unlink(missing_ok=True)
        if expected:
            self.record.write_text(json.dumps(expected))

    def discard(self):
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


def fetch(url: str, path: str | os.PathLike, *, expected_size: int | None = None,
          validate: Callable[[Path], object] | None = None, progress: bool = True,
          resume: bool = True, on_bytes: Callable[[int], None] | None = None,
          retries: int = 4, timeout: float = 30.) -> Path:
    """Downloads `url` to `path` and returns the path.

    A file that is already at `path` (with `expected_size` bytes, if given) is returned as it is,
    without a request. Two processes that want one path share one download: the second waits.

    Args:
        expected_size: size in bytes that the whole file must have
        validate: called with the temporary path once all bytes are there; if it raises or returns
            False the bytes are thrown away
        progress: show a progress bar
        resume: go on from a partial file of an earlier call
        on_bytes: called with the number of bytes of every piece received; may raise to stop
        retries: further attempts after one without progress, with pauses doubling from 0.5 s
        timeout: seconds without a byte after which an attempt has failed

    Raises:
        NotFound: the server answers 404 or 410
        Refused: it answers 401 or 403
        Unreachable: there is no answer, or the connection kept breaking
        DownloadError: any other failure; the parent of the three above
    """
    if urllib.parse.urlsplit(url).scheme not in ('http', 'https'):
        raise DownloadError(f'{_shown(url)} is not an http or https address')
    path = Path(path)
    try:
        if present(path, expected_size):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path.with_name(path.name + '.part')) as part:
            if present(path, expected_size):  # another process finished while this one waited
                part.discard()
                return path
            if not resume:
                part.restart({})
            with tqdm(desc=path.name, unit='B', unit_scale=True, disable=not progress) as bar:
                _receive_all(url, part, expected_size, on_bytes, bar, retries, timeout)
            _check(url, part, expected_size, validate)
            os.fsync(part.file.fileno())
            os.replace(part.path, path)
            part.record.unlink(missing_ok=True)
    except OSError as e:
        raise DownloadError(f'cannot write {path}: {e.strerror or e}; free space or choose another '
                            'folder and call again, what was received is kept') from e
    return path


def present(path: Path, expected_size: int | None = None) -> bool:
    """Whether the whole file is at `path`, `expected_size` bytes long if that is given."""
    if not path.is_file() or expected_size not in (None, path.stat().st_size):
        return False
    part = path.with_name(path.name + '.part')
    if not part.exists():   # a process was killed between its last two steps
        with contextlib.suppress(OSError):
            part.with_name(part.name + '.json').unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _opened(part_path):
    """The partial file, open for appending and locked until the end of the block."""
    while True:
        with open(part_path, 'ab') as file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                # Whoever held the lock may have renamed or removed the file it was opened on.
                try:
                    if not os.path.samestat(os.stat(part_path), os.fstat(file.fileno())):
                        continue
                except FileNotFoundError:
                    continue
            part = _Part(part_path, file)
            try:
                yield part
            finally:
                if part.size == 0:
                    part.discard()
            return


def _receive_all(url, part, expected_size, on_bytes, bar, retries, timeout):
    failures = 0
    while not part.complete:
        before = part.size
        try:
            _receive(url, part, expected_size, on_bytes, bar, timeout)
            return
        except _Again as e:
            failures = 0 if part.size - before >= CHUNK else failures + 1
            if failures > retries:
                kept = f'; {part.size:,} bytes are kept' if part.size else ''
                raise Unreachable(f'cannot get {_shown(url)} ({e}): check the network and call '
                                  f'again to go on{kept}') from e
            time.sleep(max(min(e.wait, 60.), .25 * 2**failures))


def _receive(url, part, expected_size, on_bytes, bar, timeout):
    """One request: appends what comes to `part`, raises `_Again` if it ends before the end."""
    headers = {'User-Agent': 'boardlaw', 'Accept-Encoding': 'identity'}
    if part.size:
        headers['Range'] = f'bytes={part.size}-'
        if part.expected['validator']:
            headers['If-Range'] = part.expected['validator']
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as e:
        with e:
            raise _refusal(url, e, part) from None
    except ssl.SSLError as e:
        raise DownloadError(f'no secure connection to {_shown(url)}: {e}') from e
    except (OSError, http.client.HTTPException) as e:
        reason = getattr(e, 'reason', e)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f'no secure connection to {_shown(url)}: {reason}') from e
        raise _Again(reason) from e

    with response:
        expected = _described(url, response)
        if response.status == 206:
            start = re.match(r'bytes (\d+)-', response.headers.get('Content-Range', ''))
            if not start or int(start[1]) != part.size or expected != part.expected:
                part.restart({})
                raise _Again('the file changed on the server')
        else:  # the whole file: a first request, a changed file, or a server without ranges
            part.restart(expected)
        if None not in (expected_size, expected['size']) and expected_size != expected['size']:
            part.restart({})
            raise DownloadError(f'{_shown(url)} has {expected["size"]:,} bytes where '
                                f'{expected_size:,} were expected: check the address')
        bar.total, bar.n = expected['size'], part.size
        bar.refresh()
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, http.client.HTTPException) as e:
                raise _Again(e) from e
            if not chunk:
                break
            part.file.write(chunk)
            part.file.flush()
            bar.update(len(chunk))
            if on_bytes:
                on_bytes(len(chunk))
    if expected['size'] is not None and part.size < expected['size']:
        raise _Again(f'the connection closed at {part.size:,} of {expected["size"]:,} bytes')


def _described(url, response):
    """What the answer's headers say about the whole file; equal for two parts of one file."""
    headers = response.headers
    total = re.search(r'/(\d+)$', headers.get('Content-Range', ''))
    size = total[1] if total else headers.get('Content-Length')
    if size is not None and not re.fullmatch(r'\d{1,18}', size, re.ASCII):
        raise DownloadError(f'{_shown(url)} is answered with the size {size[:40]!r}: check the '
                            'address')
    etag = headers.get('ETag', '')
    sha1 = headers.get('X-Bz-Content-Sha1', '').removeprefix('unverified:')
    if not re.fullmatch('[0-9a-f]{40}', sha1):
        sha1 = headers.get('X-Bz-Info-large_file_sha1', '')
    return {'url': hashlib.sha256(url.encode()).hexdigest(),
            'size': None if size is None else int(size),
            # A weak ETag may not be used in If-Range (RFC 9110, 13.1.5).
            'validator': etag if etag.startswith('"') else headers.get('Last-Modified', ''),
            'file_id': headers.get('X-Bz-File-Id', ''),
            'sha1': sha1}


def _refusal(url, error, part):
    """The exception for an HTTP status of 400 and above."""
    if error.code == 416:
        part.restart({})
        return _Again('the file changed on the server')
    if error.code in TRANSIENT:
        wait = error.headers.get('Retry-After', '')
        return _Again(f'HTTP {error.code}', float(wait) if wait.isdigit() else 0.)
    if error.code in (404, 410):
        return NotFound(f'{_shown(url)} does not exist: check the name')
    try:
        said = json.loads(error.read(10_000))
        code, message = str(said['code']), str(said['message'])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        code, message = '', error.reason
    text = f'{_shown(url)} was refused (HTTP {error.code}: {message})'
    return Refused(text, code) if error.code in (401, 403) else DownloadError(text)


def _check(url, part, expected_size, validate):
    """Throws the bytes away and raises unless they are the whole, right file."""
    problem, cause = None, None
    if expected_size not in (None, part.size):
        problem = f'has {part.size:,} bytes where {expected_size:,} were expected'
    elif sha1 := part.expected.get('sha1'):
        with open(part.path, 'rb') as f:
            digest = hashlib.sha1()
            while chunk := f.read(CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha1:
            problem = 'does not have the checksum that the server states'
    if problem is None and validate is not None:
        try:
            if validate(part.path) is False:
                problem = 'is not the file it should be'
        except Exception as e:  # noqa: BLE001 (whatever it raises, the file is bad)
            problem, cause = f'is not the file it should be ({e})', e
    if problem:
        part.discard()
        raise DownloadError(f'what came from {_shown(url)} {problem}: it was thrown away, '
                            'call again to start afresh') from cause


def _shown(url):
    """The address without anything that could be a credential."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.unquote(f'{parts.scheme}://{parts.netloc.rpartition("@")[2]}{parts.path}')
