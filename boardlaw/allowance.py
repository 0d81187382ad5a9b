"""How many bytes a day downloads may bring, over all processes.

Explained in the chapter book/data2021.ipynb.
"""
import os
import re
import threading
import warnings
from datetime import datetime, timezone
from pathlib import Path

from .download import CapReached


class Allowance:
    """Counts downloaded bytes by UTC day and stops them at a cap; an `on_bytes` for `fetch`.

    The count is shared by all processes that name the same folder. It is a file of one number a
    line, one file a day; lines are appended, and short appends of several processes do not mix.
    Used as a context, which raises on entry if nothing is left and writes the count on exit.
    `add` counts without raising, for threads that do not expect it.

    Args:
        folder: where the count is kept
        cap: bytes a day, None to count only

    Raises:
        boardlaw.download.CapReached: at the cap; a warning is given at four fifths of it
    """

    FLUSH = 16 << 20  # bytes between two lines

    def __init__(self, folder: str | os.PathLike, cap: int | None):
        self.folder, self.cap = Path(folder), cap
        self.pending, self.warned = 0, False
        self.lock = threading.Lock()

    @property
    def file(self) -> Path:
        """The current day's count."""
        return self.folder / f'.downloaded-{_now().date().isoformat()}.txt'

    def used(self) -> int:
        """Bytes written to the current day's count."""
        try:
            lines = self.file.read_bytes().splitlines()
        except FileNotFoundError:
            return 0
        return sum(int(line) for line in lines if re.fullmatch(rb'\d{1,15}', line))

    def require(self, n_bytes: int = 0):
        """Raises unless the current day still allows `n_bytes`, and any at all."""
        if self.cap is None:
            return
        used = self.used()
        amounts = f'{used / 1e9:.2f} GB of the {self.cap / 1e9:g} GB that a day may bring'
        if used + n_bytes > self.cap or used == self.cap:
            needed = f' and {n_bytes / 1e9:.2f} GB more are needed' if n_bytes else ''
            raise CapReached(f'{amounts} were downloaded here{needed}: call again after 00:00 UTC '
                             'to go on')
        if used >= .8 * self.cap and not self.warned:
            self.warned = True
            warnings.warn(f'{amounts} were downloaded here', stacklevel=3)

    def __enter__(self):
        self.require()
        return self

    def __exit__(self, *exception):
        with self.lock:
            self._write()

    def add(self, n_bytes: int) -> bool:
        """Counts `n_bytes`; says whether the count was written."""
        with self.lock:
            self.pending += n_bytes
            if self.pending < self.FLUSH:
                return False
            self._write()
            return True

    def __call__(self, n_bytes: int):
        if self.add(n_bytes):
            self.require()

    def _write(self):
        if not self.pending:
            return
        if not self.file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob('.downloaded-*.txt'):
                old.unlink(missing_ok=True)
        with open(self.file, 'a') as f:
            f.write(f'{self.pending}\n')
        self.pending = 0


def _now():
    return datetime.now(timezone.utc)
