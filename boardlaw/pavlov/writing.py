"""Writing statistics: rows packed into memory by a `Writer`, brought to disk every second; and what
a resumed training needs, the rows' counts at a savepoint and the way back to them.

A call of `Writer.write` costs some microseconds. The user's side of this is `stats`."""

from __future__ import annotations

import io
import multiprocessing
import operator
import os
import re
import struct
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import disk, files, npr, runs
from .kinds import KINDS

CHANNEL = re.compile(r'[\w-]+(\.[\w-]+)*')
NOT_A_NUMBER = (struct.error, TypeError, ValueError, RuntimeError, OverflowError)
FLUSH = 1_000_000  # microseconds between automatic flushes


def check_channel(channel: str) -> str:
    if not isinstance(channel, str) or not CHANNEL.fullmatch(channel):
        raise ValueError(f'{channel!r} is not a channel: use words of letters, digits, "-" and "_" '
                         "joined by dots, such as 'loss.value'")
    return channel


@dataclass
class _Stream:
    """One open .npr file: rows wait in `buffer`; `size` bytes of the file are known to be good."""
    path: Path
    kind: str
    codes: str  # struct's: q for '<i8', d for '<f8'
    size: int
    buffer: bytearray = field(default_factory=bytearray)

    def __post_init__(self):
        self.pack = struct.Struct('<q' + self.codes).pack

    def flush(self):
        if not self.buffer:
            return
        try:
            with open(self.path, 'r+b') as f:
                # At a fixed place: should this fail half way, the next try writes over it.
                f.seek(self.size)
                f.write(self.buffer)
        except OSError as e:
            raise disk.named(e, self.path) from e
        self.size += len(self.buffer)
        self.buffer.clear()


def _codes(channel: str, values, kept: str | None = None) -> str:
    """struct's letters for a row of these values, 'q' for whole numbers; what is 'd' in `kept`
    stays so. Raises TypeError for what is not a number."""
    codes = ''
    try:
        if kept and len(values) != len(kept):
            raise TypeError(f'{len(kept)} numbers are needed')
        for i, value in enumerate(values):
            try:
                whole = -2**63 <= operator.index(value) < 2**63
            except TypeError:
                whole = False
            codes += 'q' if whole and (kept is None or kept[i] == 'q') else 'd'
        struct.pack('<' + codes, *values)
        return codes
    except NOT_A_NUMBER as e:
        got = f'{values!r}'[:300]
        raise TypeError(f'channel {channel!r} takes numbers, not {got}: {e}') from e


class Writer:
    """Writes the statistics of one process to a run. Use `to_run`.

    Every writer has files of its own, numbered from the first free number of each channel, so any
    number of processes can write one run. Their entries carry `name` as `_process_name`. A channel
    whose first values are whole numbers is stored as such, until one is not: then a new file of
    floats is begun."""

    def __init__(self, run: str | int, name: str | None = None, append: bool = False):
        self.run, self._lock = runs.resolve(run), threading.RLock()
        self._start(name, append)

    def _start(self, name: str | None, append: bool):
        self.name = name or multiprocessing.current_process().name
        self._pid, self._streams, self._flushed = os.getpid(), {}, time.time_ns() // 1000
        self._kinds, self._mine = {}, {}  # of each channel: its kind, the last file to append to
        found = ((parse(file), file, entry) for file, entry in files.entries(self.run).items())
        for (channel, _), file, entry in sorted(f for f in found if f[0]):
            self._kinds.setdefault(channel, entry.get('kind'))
            if append and entry['size'] and entry.get('_process_name') == self.name:
                self._mine[channel] = file

    def write(self, kind: str, channel: str, *values) -> None:
        """Append a row now. `values` are numbers (0-dimensional tensors and arrays included), in
        the order of the kind's fields."""
        now = time.time_ns() // 1000
        with self._lock:
            if os.getpid() != self._pid:  # forked: the parent keeps its rows and its files
                self._start(None, append=False)
            stream = self._streams.get(channel)
            if stream is None or stream.kind != kind:
                stream = self._open(kind, check_channel(channel), values)
            try:
                stream.buffer += stream.pack(now, *values)
            except NOT_A_NUMBER:
                stream = self._widen(stream, channel, values)
                stream.buffer += stream.pack(now, *values)
            if now - self._flushed > FLUSH:
                self.flush()

    def _widen(self, stream: _Stream, channel: str, values) -> _Stream:
        codes = _codes(channel, values, stream.codes)
        stream.flush()
        self._streams[channel] = self._create(stream.kind, channel, codes)
        return self._streams[channel]

    def _open(self, kind: str, channel: str, values) -> _Stream:
        known, codes = self._kinds.get(channel) or kind, _codes(channel, values)
        if known != kind:
            raise ValueError(f'channel {channel!r} of run "{self.run}" is a {known}; it cannot '
                             f'also be a {kind}')
        stream = self._reopen(kind, self._mine[channel]) if channel in self._mine else None
        self._streams[channel] = stream or self._create(kind, channel, codes)
        self._kinds[channel] = kind
        return self._streams[channel]

    def _reopen(self, kind: str, file: str) -> _Stream | None:
        path = files.path(self.run, file)
        length, dtype, rows = npr.measure(path)
        numbers = [dtype[n].str for n in dtype.names[1:]]
        if not set(numbers) <= {'<i8', '<f8'}:
            return None
        codes = ''.join('q' if n == '<i8' else 'd' for n in numbers)
        return _Stream(path, kind, codes, length + rows * dtype.itemsize)

    def _create(self, kind: str, channel: str, codes: str) -> _Stream:
        names = KINDS[kind].fields
        if kind == 'quantiles':
            names = [f'qs.{i}' for i in range(len(codes))]
        if len(names) != len(codes):
            raise TypeError(f'a {kind} takes {len(names)} numbers, {names}, not {len(codes)}')
        header = npr.header(npr.dtype({n: '<i8' if c == 'q' else '<f8'
                                       for n, c in zip(names, codes)}))
        path = files.new_file(self.run, f'stats.{channel}.{{n}}.npr', self.name, kind=kind)
        try:
            path.write_bytes(header)
        except OSError as e:
            path.unlink(missing_ok=True)
            raise disk.named(e, path) from e
        return _Stream(path, kind, codes, len(header))

    def line(self, channel: str, xs, ys) -> None:
        """Store a curve in place of the channel's former one, at once and whole."""
        xs, ys = numbers(xs), numbers(ys)
        if xs.ndim != 1 or xs.shape != ys.shape:
            raise ValueError(f'a line needs xs and ys of one length, not {xs.shape}, {ys.shape}')
        content = io.BytesIO()
        np.savez(content, _time=np.datetime64(time.time_ns() // 1000, 'us'), xs=xs, ys=ys)
        name = f'stats.{check_channel(channel)}.npz'
        path = files.new_file(self.run, name, self.name, kind='line')
        disk.write_atomic(path, lambda f: f.write(content.getvalue()))

    def flush(self) -> None:
        """Bring all rows to disk. After an OSError no row is lost: flush again."""
        with self._lock:
            if os.getpid() == self._pid:
                self._flushed = time.time_ns() // 1000
                for stream in self._streams.values():
                    stream.flush()

    def offsets(self) -> dict[str, int]:
        """Flush, and count the rows in each of this writer's files: what a savepoint keeps so that
        `truncate` can bring the files back to it."""
        self.flush()
        return offsets(self.run, self.name)


def numbers(values) -> np.ndarray:
    values = values.detach().cpu() if hasattr(values, 'detach') else values
    array = np.asarray(values)
    if array.dtype.kind not in 'iufb':
        raise TypeError(f'numbers were expected, not {array.dtype}')
    return array


def parse(file: str) -> tuple[str, int] | None:
    """('loss.value', 0) of 'stats.loss.value.0.npr'; None if it is not a time series."""
    match = re.fullmatch(r'stats\.(.+)\.(\d{1,9})\.npr', file)
    return (match[1], int(match[2])) if match else None


def offsets(run: str | int, name: str | None = None) -> dict[str, int]:
    """Rows on disk by file; of the writer `name` alone if that is given."""
    return {f: npr.measure(files.path(run, f))[2] for f, e in files.entries(run).items()
            if parse(f) and e['size'] is not None and name in (None, e.get('_process_name'))}


def truncate(run: str | int, offsets: dict[str, int], name: str | None = None) -> None:
    """Bring the time series of a run back to `offsets`: later rows are cut off, and files that
    `offsets` does not have are removed. With `name`, only files of that writer are touched; those
    of other processes, such as an evaluator's, stay whole. Lines (.npz) are left as they are.

    No process may be writing these files. One that holds fewer rows than `offsets` says (the
    machine lost power before they reached the disk) is left as it is, with a warning."""
    mine = {f: e for f, e in files.entries(run).items()
            if parse(f) and name in (None, e.get('_process_name'))}
    for file, rows in offsets.items():
        length, dtype, present = 0, None, 0
        if file in mine and mine[file]['size'] is not None:
            length, dtype, present = npr.measure(files.path(run, file))
        if rows > present:
            warnings.warn(f'"{file}" of run "{runs.resolve(run)}" has {present} rows, fewer than '
                          f'the {rows} of the savepoint', stacklevel=2)
        elif dtype is not None:
            os.truncate(files.path(run, file), length + rows * dtype.itemsize)
    if late := [f for f in mine if f not in offsets]:
        files.remove(run, late)


current: ContextVar[Writer | None] = ContextVar('writer', default=None)


@contextmanager
def to_run(run: str | int, name: str | None = None, append: bool = False):
    """Send the statistics of the block to `run`; yields the `Writer`.

    With `append=True` the files that a writer of the same `name` left are continued; it needs a
    `name`, and only one process at a time may hold it (else RuntimeError). A training that keeps
    `writer.offsets()` in its savepoint is resumed by

        stats.truncate(run, offsets, 'training')
        with stats.to_run(run, 'training', append=True) as writer: ...

    and then leaves the rows of one that never stopped."""
    if append and not name:
        raise ValueError('append=True needs the name under which the files were written')
    with ExitStack() as stack:
        if name:
            stack.enter_context(runs.claim(run, name))
        writer = Writer(run, name, append)
        token = current.set(writer)
        try:
            yield writer
        finally:
            current.reset(token)
            writer.flush()
