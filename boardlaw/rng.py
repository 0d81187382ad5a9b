"""Counter-based random numbers: each is a pure function of a key and a counter.

A draw depends on (seed, game, move, simulation, depth) and on nothing else, so results are the
same whatever the batch size, the chunking, the number of threads, or the point of a resume. The
mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

Explained in the chapter book/search.ipynb.
"""
import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S41 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(41)


@njit(inline='always')
def mix(x):
    """Scrambles a uint64."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@njit(inline='always')
def draw(key, counter):
    """The ``counter``-th random uint64 of stream ``key``."""
    return mix(key + (np.uint64(counter) + np.uint64(1)) * _GOLDEN)


@njit(inline='always')
def uniform(key, counter):
    """A float32 strictly between 0 and 1: the midpoints of 2^23 equal steps, all exact."""
    return (np.float32(draw(key, counter) >> _S41) + np.float32(0.5)) * np.float32(2.0**-23)


def keys(seed, games, move):
    """The key of each game's move: `[n_envs]` uint64.

    Args:
        seed: an int, the run's or the match's seed.
        games: an int n_envs (games 0 to n_envs - 1), or `[n_envs]` ints that name the games.
        move: an int or `[n_envs]` ints, the number of the move within the game or run.

    >>> bool((keys(seed=0, games=3, move=7)[1:] == keys(seed=0, games=[1, 2], move=7)).all())
    True
    """
    games = np.arange(games) if np.ndim(games) == 0 else np.asarray(games)
    with np.errstate(over='ignore'):
        key = _mix_numpy(np.asarray(seed).astype(np.int64).astype(np.uint64) + _GOLDEN)
        key = _mix_numpy(key + (games.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        return _mix_numpy(key + (np.asarray(move).astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def fold(seed, *numbers):
    """A seed of its own for each sequence of whole numbers, an int of 64 bits."""
    for x in numbers:
        seed = int(keys(seed, [x], 0).astype(np.int64)[0])
    return seed


def uniforms(keys, counter):
    """`[n_envs]` float64 in (0, 1): what :func:`uniform` gives each key for this counter."""
    with np.errstate(over='ignore'):
        bits = _mix_numpy(np.asarray(keys, np.uint64) + np.uint64(counter + 1)*_GOLDEN)
    return ((bits >> _S41).astype(np.float64) + .5)*2.**-23


def _mix_numpy(x):
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)
