"""Where output lives, and how it is written: locks between processes, files that appear whole."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

STALE = 3600.0  # seconds after which a temporary file is taken to be left by a killed process


class CorruptFile(ValueError):
    """A file is truncated, damaged, or holds what is refused; the message names the file.

    What to do: download or copy the file again. A run whose savepoint is damaged still has its
    snapshots.
    """


class NotFound(LookupError):
    """The run, channel or snapshot asked for is not on disk; the message says what is.

    What to do: see `pavlov.runs.pandas()` for what is here, set BOARDLAW_OUTPUT to where it lies,
    or download it by `boardlaw.backup`.
    """


_root: Path | None = None


def root() -> Path:
    """The folder of all output: what `use_root` set, else the environment variable
    BOARDLAW_OUTPUT, else ./output. Runs live in its subfolder pavlov."""
    return _root or Path(os.environ.get('BOARDLAW_OUTPUT') or 'output').expanduser()


class use_root:
    """Set the output folder of this process.

    `use_root(path)` holds until the next call, `use_root(None)` goes back to the environment's;
    `with use_root(path): ...` restores the earlier setting at the end of the block."""

    def __init__(self, path: str | os.PathLike | None):
        global _root
        self._previous = _root
        _root = None if path is None else Path(path)

    def __enter__(self) -> Path:
        return root()

    def __exit__(self, *exc) -> None:
        global _root
        _root = self._previous


def _acquire(file: BinaryIO, blocking: bool) -> bool:
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            return False
    while True:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        except OSError:
            if not blocking:
                return False
            time.sleep(.02)


def _release(file: BinaryIO) -> None:
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_UN)
    else:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


_held: set[BinaryIO] = set()


def _let_go() -> None:
    # A forked child shares the open file and with it the lock: it must not keep it when the
    # parent dies, nor release it while the parent lives.
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(path: Path, blocking: bool = True):
    """Hold the lock file `path` against every other process and thread. Not re-entrant.

    The system drops the lock of a process that dies. With `blocking=False`, raises
    BlockingIOError when somebody else holds it."""
    with open(path, 'ab') as file:
        if not _acquire(file, blocking):
            raise BlockingIOError(f'"{path}" is locked by another process')
        _held.add(file)
        try:
            yield
        finally:
            if file in _held:
                _held.remove(file)
                _release(file)


def _replace(source: Path, target: Path) -> None:
    # Windows refuses to replace a file while somebody reads it: wait for the reader.
    for attempt in range(100):
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != 'nt' or attempt == 99:
                raise
            time.sleep(.02)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there whole or, after a crash at any instant, as it was.

    `write(file)` fills a temporary file in the same folder, which is synced and renamed.
    Raises OSError naming `path` if the disk is full or read-only; the old file then stands."""
    for old in path.parent.glob(f'.{path.name}.*.tmp'):
        try:
            if time.time() - old.stat().st_mtime > STALE:
                old.unlink()
        except FileNotFoundError:  # another process was quicker
            pass
    temp = path.with_name(f'.{path.name}.{os.getpid()}-{threading.get_ident()}.tmp')
    try:
        with open(temp, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _replace(temp, path)
    except OSError as e:
        temp.unlink(missing_ok=True)
        raise named(e, path) from e
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    if os.name != 'nt':  # the rename itself must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def named(error: OSError, path: Path) -> OSError:
    """The same error with the path in its message: the system leaves it out of failed writes."""
    return type(error)(error.errno, f'{error.strerror or error} while writing', str(path))
