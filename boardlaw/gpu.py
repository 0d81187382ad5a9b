"""Where the Triton kernels serve; everywhere else the same calls take other roads."""
import warnings
from functools import cache
from importlib.util import find_spec

#: The largest board that the kernels hold, see :mod:`boardlaw.hex.gpu_kernels`.
LARGEST = 13


def usable(device, boardsize):
    """Whether games of this size on this torch.device are played and searched by Triton kernels."""
    return device.type == 'cuda' and boardsize <= LARGEST and _has_triton()


@cache
def _has_triton():
    if find_spec('triton') is None:
        warnings.warn('the package triton is missing: games and searches on the GPU take a slow '
                      'road through the CPU; `pip install triton` brings the fast one',
                      stacklevel=4)
        return False
    return True
