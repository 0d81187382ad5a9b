"""The random numbers of :mod:`boardlaw.rng` inside Triton kernels: the same key and counter give
the same number there and here."""
import triton
import triton.language as tl


@triton.jit
def mix(x):
    """Scrambles a uint64."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def draw(key, counter):
    """The ``counter``-th random uint64 of stream ``key``; both uint64."""
    return mix(key + (counter + 1) * 0x9E3779B97F4A7C15)


@triton.jit
def uniform(key, counter):
    """A float32 strictly between 0 and 1."""
    return ((draw(key, counter) >> 41).to(tl.int32).to(tl.float32) + 0.5) * (2.0**-23)
