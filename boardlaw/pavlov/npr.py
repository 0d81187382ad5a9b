"""The .npr file: an .npy header (version 3.0) that declares no rows, then rows to the file's end.

Rows can thus be appended by writing bytes. Each is a record of `_time` (microseconds, UTC) and some
numbers. A last row that is only half there belongs to a write under way, or to a process that was
killed: it is dropped. Nothing here unpickles."""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path

import numpy as np

from .disk import CorruptFile

MAGIC = b'\x93NUMPY\x03\x00'
MAX_HEADER = 16384  # bytes; ours are 128 to 192
NUMBER = re.compile(r'<f[248]|<[iu][248]|\|[iu]1|\|b1')
FIELD = re.compile(r'[^\W\d]\w*(\.\d+)?')


def dtype(fields: dict[str, str]) -> np.dtype:
    """The record of a row: `_time`, then `fields` (name -> number type, such as '<f8')."""
    return np.dtype([('_time', '<M8[us]'), *fields.items()])


def header(dtype: np.dtype) -> bytes:
    """The bytes that open a file of such rows, a multiple of 64."""
    text = repr({'descr': dtype.descr, 'fortran_order': False, 'shape': (0,)})
    text = text[:-1] + ', }'  # as numpy prints it
    # numpy leaves room for a shape of 21 digits; so do we, to write the same bytes
    text += ' ' * 20
    text += ' ' * (-(len(MAGIC) + 4 + len(text.encode()) + 1) % 64) + '\n'
    return MAGIC + struct.pack('<I', len(text.encode())) + text.encode()


def parse_header(file: Path, start: bytes) -> tuple[int, np.dtype]:
    """Length of the header in bytes and the rows' dtype, from a file's first bytes.

    Raises CorruptFile unless the header is whole and declares a plain record of numbers."""
    def corrupt(why):
        return CorruptFile(f'"{file}" is not a time series: {why}')

    if start[:8] != MAGIC:
        raise corrupt('it does not start with an .npy header of version 3.0')
    size = struct.unpack('<I', start[8:12])[0] if len(start) >= 12 else MAX_HEADER
    if size > MAX_HEADER or 12 + size > len(start):
        raise corrupt('its header is cut short or oversized')
    try:
        declared = ast.literal_eval(start[12:12 + size].decode('utf-8').strip())
        descr = [(str(name), str(kind)) for name, kind in declared['descr']]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as e:
        raise corrupt(f'its header cannot be parsed ({type(e).__name__})') from None
    if not descr or descr[0] != ('_time', '<M8[us]'):
        raise corrupt('its first field is not _time in microseconds')
    names = [n for n, _ in descr]
    if len(set(names)) < len(names) or not all(
            FIELD.fullmatch(n) and NUMBER.fullmatch(k) for n, k in descr[1:]):
        raise corrupt(f'its fields are not plain numbers: {descr}'[:300])
    return 12 + size, np.dtype(descr)


def read(file: Path) -> np.ndarray | None:
    """All whole rows of a file, `[n_rows]` records; None if the file is still empty."""
    data = file.read_bytes()
    if not data:
        return None
    start, kind = parse_header(file, data)
    return np.frombuffer(data, kind, count=(len(data) - start) // kind.itemsize, offset=start)


def measure(file: Path) -> tuple[int, np.dtype | None, int]:
    """Length of the header in bytes, the rows' dtype and the number of whole rows, without
    reading the rows; (0, None, 0) for an empty file."""
    with open(file, 'rb') as f:
        start = f.read(12 + MAX_HEADER)
        size = f.seek(0, 2)
    if not start:
        return 0, None, 0
    length, kind = parse_header(file, start)
    return length, kind, (size - length) // kind.itemsize
