"""The compiled passes of the Elo fits against plain formulas over matrices of all agents."""
import numpy as np
import pytest
from scipy.special import expit

from boardlaw.elos import kernels


@pytest.fixture(params=[(2, 1.), (7, .4), (30, 1.), (60, .1)], ids=str)
def played(request):
    """Games `[n, n]`, symmetric, some none; wins of the rows, fractions, nan where none."""
    n, share = request.param
    rng = np.random.default_rng(n)
    games = np.triu(rng.integers(1, 50, (n, n)) * (rng.random((n, n)) < share), 1).astype(float)
    wins = np.where(games > 0, games * rng.random((n, n)), np.nan)
    games = games + games.T
    wins = np.where(np.tri(n, k=-1, dtype=bool), games - wins.T, wins)
    return wins, games, rng


def test_pairs_above(played):
    wins, games, rng = played
    below = np.tri(len(games), dtype=bool)   # on the diagonal nothing counts
    games[np.diag_indices(len(games))] = 5
    i, j, w, g, unequal, unsound = kernels.pairs_above(wins, games)
    np.testing.assert_array_equal([i, j], np.nonzero(np.where(below, 0, games)))
    np.testing.assert_array_equal(w, wins[i, j])
    np.testing.assert_array_equal(g, games[i, j])
    assert not unequal.any() and not unsound.any()
    # nan games are none, in the upper matrix; rows of any order in memory are read the same.
    games[0, 1], wins[0, 1] = np.nan, np.nan
    for again in (kernels.pairs_above(wins, games),
                  kernels.pairs_above(np.asfortranarray(wins), np.asfortranarray(games))):
        first = (i != 0) | (j != 1)
        for found, expected in zip(again, (i, j, w, g, unequal, unsound)):
            np.testing.assert_array_equal(found, expected[first])


def test_pairs_above_marks_contradictions():
    games = np.array([[0., 4, 4, -4], [4, 0, 4, 4], [5, 4, 0, 4], [-4, 4, 4, 0]])
    wins = np.array([[0., 3, 1, 1], [1, 0, np.nan, 5], [3, 2, 0, 4], [1, -1, .5, 0]])
    i, j, _, _, unequal, unsound = kernels.pairs_above(wins, games)
    assert list(zip(i[unequal], j[unequal])) == [(0, 2), (0, 3)]
    assert list(zip(i[unsound], j[unsound])) == [(0, 3), (1, 2), (1, 3), (2, 3)]


def test_slopes(played):
    wins, games, rng = played
    x = rng.normal(0, 3, len(games))
    i, j = np.nonzero(np.triu(games))
    order = rng.permutation(len(i))   # pairs need not be sorted
    i, j = i[order], j[order]
    p = expit(x[:, None] - x)
    difference = kernels.difference(x, i, j)
    np.testing.assert_array_equal(difference, x[i] - x[j])
    gradient, weights = kernels.slopes(len(x), i, j, np.exp(-difference), wins[i, j], games[i, j])
    np.testing.assert_allclose(gradient, np.where(games > 0, wins - games * p, 0).sum(1),
                               atol=1e-10)
    np.testing.assert_allclose(weights, (games * p * (1 - p))[i, j])
    # A rate that rounds to 0 has no weight, however large its odds.
    gradient, weights = kernels.slopes(2, np.array([0]), np.array([1]), np.array([np.inf]),
                                       np.array([1.]), np.array([3.]))
    assert list(gradient) == [1, -1] and list(weights) == [0]


def test_laplacian_and_leverages(played):
    _, games, rng = played
    n = len(games)
    i, j = np.nonzero(np.triu(games))
    weights = rng.random(len(i))
    incidence = np.zeros((len(i), n))
    incidence[np.arange(len(i)), i], incidence[np.arange(len(i)), j] = 1, -1
    found = kernels.laplacian(n, i, j, weights, .3)
    np.testing.assert_allclose(np.triu(found),
                               np.triu(incidence.T @ np.diag(weights) @ incidence + .3))
    cov = rng.random((n, n))
    cov = cov @ cov.T
    np.testing.assert_allclose(kernels.leverages(cov, i, j, weights),
                               weights * np.diag(incidence @ cov @ incidence.T), atol=1e-12)
