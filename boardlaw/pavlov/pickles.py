"""What a saved state declares, found out before torch reads it and without making any of it.

torch.load(weights_only=True) runs no code, but believes sizes: a file of a kilobyte can ask for
arrays of any length, by a tensor that shows one number a billion times or by `bytearray(10**11)`.
So the pickle is first read with stand-ins for all that it names, which only compare sizes."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict

import torch

MAX_PARTS = 1_000_000   # dicts, lists and values that a state may consist of, each use counted
MAX_DEPTH = 100


class _Storage:
    """Stands for the name of a torch storage class."""

    def __init__(self, dtype: torch.dtype):
        self.itemsize = torch.empty(0, dtype=dtype).element_size()


STORAGES = {f'{name}Storage': _Storage(dtype) for name, dtype in {
    'Float': torch.float32, 'Double': torch.float64, 'Half': torch.float16,
    'BFloat16': torch.bfloat16, 'Long': torch.int64, 'Int': torch.int32, 'Short': torch.int16,
    'Char': torch.int8, 'Byte': torch.uint8, 'Bool': torch.bool}.items()}


def _tensor(available: int, offset, size, stride, *rest) -> None:
    """A tensor of `size` shows each number of its storage at most once, so none is invented."""
    shown = 1
    for n in size:
        shown *= n
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if len(size) != len(stride) or min(*size, *stride, offset, 0) < 0 or shown and (
            last >= available or shown > available):
        raise ValueError(f'a tensor of {tuple(size)} does not fit into its {available} numbers')


def _parameter(data, *rest) -> None:
    pass


NAMES = {('collections', 'OrderedDict'): OrderedDict,
         ('torch._utils', '_rebuild_tensor_v2'): _tensor,
         ('torch._utils', '_rebuild_parameter'): _parameter,
         **{('torch', name): storage for name, storage in STORAGES.items()}}


class _Stand(pickle.Unpickler):
    def __init__(self, data: bytes, sizes: dict[str, int]):
        super().__init__(io.BytesIO(data))
        self.sizes = sizes

    def find_class(self, module, name):
        try:
            return NAMES[module, name]
        except KeyError:
            raise ValueError(f'it holds a {module}.{name}, which no state needs') from None

    def persistent_load(self, declared):
        _, storage, key, _, count = declared
        if self.sizes[key] != count * storage.itemsize:
            raise ValueError(f'its part {key} has {self.sizes[key]} bytes, not {count} numbers')
        return count


def check(data: bytes, sizes: dict[str, int]) -> None:
    """Raises an exception of some kind unless `data` is the pickle of a state of plain values and
    tensors whose numbers are all there.

    `sizes` are the bytes of each storage by its key."""
    for opcode, value, _ in pickletools.genops(data):
        if 'PUT' in opcode.name and value is not None and value > len(data):
            raise ValueError('its pickle numbers a part beyond its own length')   # allocates them
    parts, queue = 0, [(_Stand(data, sizes).load(), 0)]
    while queue:
        value, depth = queue.pop()
        if isinstance(value, dict):
            value = [x for item in value.items() for x in item]
        if isinstance(value, (list, tuple, set, frozenset)):
            # A list that holds itself twice would never end; one holding others, each of them
            # twice, and so on, would take very long.
            parts += len(value)
            if parts > MAX_PARTS or depth > MAX_DEPTH:
                raise ValueError('it is nested beyond measure')
            queue.extend((x, depth + 1) for x in value)
