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


def literal(data: bytes) -> tuple[int, dict]:
    """Length of an .npy header of any version in bytes, and what it declares. Raises ValueError."""
    if data[:6] != MAGIC[:6] or data[6:8] not in (b'\x01\x00', b'\x02\x00', b'\x03\x00'):
        raise ValueError('it does not start with an .npy header')
    start = 10 if data[6] == 1 else 12
    end = start + int.from_bytes(data[8:start], 'little')
    if not start < end <= min(len(data), start + MAX_HEADER):
        raise ValueError('its header is cut short or oversized')
    try:
        value = ast.literal_eval(data[start:end].decode('utf-8').strip())
        return end, {k: value[k] for k in ('descr', 'shape')}
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError,
            MemoryError) as e:
        raise ValueError(f'its header cannot be parsed ({type(e).__name__})') from None


def parse_header(file: Path, start: bytes) -> tuple[int, np.dtype]:
    """Length of the header in bytes and the rows' dtype, from a file's first bytes.

    Raises CorruptFile unless the header is whole and declares a plain record of numbers."""
    try:
        end, declared = literal(start)
        descr = declared['descr']
        if not isinstance(descr, list) or not all(
                isinstance(d, tuple) and len(d) == 2 and all(isinstance(x, str) for x in d)
                for d in descr):
            raise ValueError('its rows are not records of numbers')
        names = [n for n, _ in descr]
        if names[:1] != ['_time'] or descr[0][1] != '<M8[us]':
            raise ValueError('its first field is not _time in microseconds')
        if len(set(names)) < len(names) or not all(
                FIELD.fullmatch(n) and NUMBER.fullmatch(k) for n, k in descr[1:]):
            raise ValueError(f'its fields are not plain numbers: {descr}'[:300])
    except ValueError as e:
        raise CorruptFile(f'"{file}" is not a time series: {e}') from None
    return end, np.dtype(descr)


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
