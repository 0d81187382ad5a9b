"""Passes over the pairs or over a matrix of agents, compiled: each reads its arrays once."""
import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def pairs_above(wins, games):
    """The pairs that have games in two matrices `[n, n]`, in order.

    :return: `[n_pairs]` each: i, j above i, wins of i, games; whether the two entries of the games
        differ or are negative; whether the wins are none or do not add up to the games
    """
    n, k = len(games), 0
    for a in range(n):
        for b in range(a + 1, n):
            k += games[a, b] != 0 and not np.isnan(games[a, b])
    i, j, won, played = np.empty(k, np.int64), np.empty(k, np.int64), np.empty(k), np.empty(k)
    unequal, unsound = np.empty(k, np.bool_), np.empty(k, np.bool_)
    k = 0
    for a in range(n):
        for b in range(a + 1, n):
            if games[a, b] != 0 and not np.isnan(games[a, b]):
                w, lost, g = wins[a, b], wins[b, a], games[a, b]
                i[k], j[k], won[k], played[k] = a, b, w, g
                unequal[k] = g != games[b, a] or g < 0
                # nan fails every comparison, so games without wins are unsound too.
                unsound[k] = not (w >= 0 and lost >= 0 and abs(w + lost - g) <= 1e-6 * g)
                k += 1
    return i, j, won, played, unequal, unsound


@njit(nogil=True, cache=True)
def difference(x, i, j):
    """x_i - x_j, `[n_pairs]`."""
    out = np.empty(len(i))
    for k in range(len(i)):
        out[k] = x[i[k]] - x[j[k]]
    return out


@njit(nogil=True, cache=True, error_model='numpy')
def slopes(n, i, j, odds, wins, games):
    """Of the log-likelihood, from the odds `[n_pairs]` that j wins.

    :return: its gradient `[n]`, and each pair's weight in minus its Hessian, `[n_pairs]`
    """
    gradient, weights = np.zeros(n), np.empty(len(i))
    for k in range(len(i)):
        p = 1 / (1 + odds[k])
        excess = wins[k] - games[k] * p
        gradient[i[k]] += excess
        gradient[j[k]] -= excess
        weights[k] = games[k] * p * (1 - p)
    return gradient, weights


@njit(nogil=True, cache=True)
def laplacian(n, i, j, weights, shift):
    """The graph's Laplacian `[n, n]` plus `shift`; below the diagonal it is not written."""
    a, diagonal = np.empty((n, n)), np.full(n, shift)
    for row in range(n):
        a[row, row:] = shift
    for k in range(len(i)):
        a[i[k], j[k]] = shift - weights[k]
        diagonal[i[k]] += weights[k]
        diagonal[j[k]] += weights[k]
    for row in range(n):
        a[row, row] = diagonal[row]
    return a


@njit(nogil=True, cache=True)
def leverages(cov, i, j, weights):
    """Each pair's weight times the variance of its difference, `[n_pairs]`, cov `[n, n]`."""
    var, out = np.diag(cov).copy(), np.empty(len(i))
    for k in range(len(i)):
        out[k] = weights[k] * (var[i[k]] + var[j[k]] - 2 * cov[i[k], j[k]])
    return out
