"""Ratings against brute force, closed forms, an independent optimiser and players of known
strength."""
import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse
import scipy.sparse.linalg
import scipy.special
from scipy.special import expit

from boardlaw import elos


def play(rng, strengths, pairs, black=16, white=16, first_move=0.):
    """Trials: each pair (i, j) plays `black` games with i as Black and `white` with i as White."""
    pairs = np.array(pairs)
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    n = np.repeat([black, white], len(pairs))
    wins = rng.binomial(n, expit(strengths[i] - strengths[j] + first_move))
    trials = pd.DataFrame({'black_agent': i, 'white_agent': j, 'black_wins': wins,
                           'white_wins': n - wins})
    return trials[n > 0]


def everyone(n):
    return list(itertools.combinations(range(n), 2))


def few(rng, n, n_opponents):
    """A random connected graph: a path through all, and random pairs."""
    order = rng.permutation(n)
    path = np.stack([order[:-1], order[1:]], 1)
    more = rng.integers(0, n, (n * (n_opponents - 2) // 2, 2))
    both = np.sort(np.concatenate([path, more[more[:, 0] != more[:, 1]]]), 1)
    return np.unique(both, axis=0)


def log_posterior(x, ws, gs):
    """The definition, pair by pair: the games and one pseudo-win each way; and the mean's pull."""
    total = -x.mean()**2 / 2
    for i, j in itertools.permutations(range(len(x)), 2):
        if gs[i, j] > 0:
            total += (ws[i, j] + 1) * -np.logaddexp(0, x[j] - x[i])
    return total


def reference_solution(ws, gs):
    """Maximises the definition with a general optimiser, from zero."""
    ws, gs = np.asarray(ws), np.asarray(gs)
    i, j = np.nonzero(gs)

    def loss(x):
        d = x[i] - x[j]
        gradient = np.zeros_like(x)
        np.add.at(gradient, i, (ws[i, j] + 1) * expit(-d))
        np.add.at(gradient, j, -(ws[i, j] + 1) * expit(-d))
        return (x.mean()**2 / 2 + (ws[i, j] + 1) @ np.logaddexp(0, -d),
                x.mean() / len(x) - gradient)

    found = scipy.optimize.minimize(loss, np.zeros(len(ws)), jac=True, method='L-BFGS-B',
                                    options={'maxiter': 20000, 'maxfun': 50000, 'ftol': 1e-15,
                                             'gtol': 1e-7, 'maxcor': 50})
    assert np.abs(loss(found.x)[1]).max() < 1e-3
    return found.x - found.x.max()


def test_symmetrize_by_hand():
    trials = pd.DataFrame(
        [('a', 'b', 6, 2),   # a as Black: 3/4 ..
         ('b', 'a', 1, 1),   # .. as White: 1/2, so 5/8 of 10 games
         ('a', 'c', 3, 1),   # one colour order only
         ('a', 'c', 0, 4),   # .. in two rows: 3/8 of 8
         ('b', 'c', 0, 0)],  # no game is no game
        columns=['black_agent', 'white_agent', 'black_wins', 'white_wins'])
    ws, gs = elos.symmetrize(trials)
    nan = np.nan
    expected = [[nan, 6.25, 3], [3.75, nan, nan], [5, nan, nan]]
    np.testing.assert_allclose(ws, expected)
    np.testing.assert_array_equal(gs, [[0, 10, 8], [10, 0, 0], [8, 0, 0]])
    assert list(ws.index) == list(ws.columns) == list(gs.index) == ['a', 'b', 'c']


def test_symmetrize_by_brute_force():
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({'black_agent': rng.integers(0, 12, 150) * 10,
                           'white_agent': rng.integers(0, 12, 150) * 10,
                           'black_wins': rng.integers(0, 9, 150) / 2,  # 2021 rows may hold floats
                           'white_wins': rng.integers(0, 9, 150)})
    ws, gs = elos.symmetrize(trials)
    for i, j in itertools.permutations(sorted({*trials.black_agent, *trials.white_agent}), 2):
        black = trials[(trials.black_agent == i) & (trials.white_agent == j)]
        white = trials[(trials.black_agent == j) & (trials.white_agent == i)]
        rates, games = [], 0
        for own, other in [(black.black_wins.sum(), black.white_wins.sum()),
                           (white.white_wins.sum(), white.black_wins.sum())]:
            if own + other:
                rates.append(own / (own + other))
                games += own + other
        assert gs.loc[i, j] == games
        np.testing.assert_allclose(ws.loc[i, j], np.mean(rates) * games if rates else np.nan)


def test_symmetrize_keeps_every_agent():
    trials = pd.DataFrame({'black_agent': [1, 1], 'white_agent': [2, 3], 'black_wins': [3, 1],
                           'white_wins': [1, 3]})
    ws, gs = elos.symmetrize(trials)
    assert list(ws.index) == [1, 2, 3]  # 1 never had White
    assert elos.solve(ws, gs).idxmax() == 3
    ws, gs = elos.symmetrize(trials, agents=[3, 1, 7])  # another order, one unknown, one left out
    assert list(ws.columns) == [3, 1, 7]
    np.testing.assert_array_equal(gs, [[0, 4, 0], [4, 0, 0], [0, 0, 0]])
    assert ws.loc[7].isna().all() and ws.loc[3, 1] == 3
    ws, gs = elos.symmetrize(trials[:0])
    assert ws.shape == gs.shape == (0, 0) and elos.solve(ws, gs).empty


def test_agent_against_itself_says_nothing():
    trials = pd.DataFrame({'black_agent': [1, 1], 'white_agent': [1, 2], 'black_wins': [9, 3],
                           'white_wins': [1, 1]})
    ws, gs = elos.symmetrize(trials)
    assert ws.loc[1, 1] == 5 and gs.loc[1, 1] == 10
    pd.testing.assert_series_equal(elos.solve(ws, gs), elos.solve(*elos.symmetrize(trials[1:])))


def test_unequal_colours_do_not_bias():
    # Black wins three games in four, whoever it is: equal strength, however many games each way.
    trials = pd.DataFrame({'black_agent': [1, 2], 'white_agent': [2, 1], 'black_wins': [300, 30],
                           'white_wins': [100, 10]})
    assert elos.solve(*elos.symmetrize(trials)).abs().max() < 1e-9


@pytest.mark.parametrize('kind', ['dense', 'sparse', 'lopsided', 'separated', 'one game'])
def test_solve_against_an_independent_solver(kind):
    rng = np.random.default_rng(1)
    n = 40
    strengths = rng.normal(0, 1.5, n)
    if kind == 'dense':
        trials = play(rng, strengths, everyone(n))
    elif kind == 'sparse':
        trials = play(rng, strengths, few(rng, n, 4))
    elif kind == 'lopsided':  # a ladder of certain results, and one who never wins
        trials = play(rng, 30. * np.arange(n), few(rng, n, 5))
    elif kind == 'separated':  # two groups of equals, one of which always beats the other
        trials = play(rng, 40. * (np.arange(n) % 2), everyone(n), 100, 100)
    else:
        trials = play(rng, strengths, few(rng, n, 6), 1, 0)
    ws, gs = elos.symmetrize(trials)
    ours = elos.solve(ws, gs)
    assert ours.max() == 0 and ours.name == 'elo'
    np.testing.assert_allclose(ours * elos.to_elo, reference_solution(ws, gs) * elos.to_elo,
                               atol=.05)


def test_solution_is_a_maximum_of_the_definition():
    rng = np.random.default_rng(2)
    ws, gs = elos.symmetrize(play(rng, rng.normal(0, 1, 5), everyone(5)))
    x = elos.solve(ws, gs).to_numpy()
    x = x - x.mean()
    best = log_posterior(x, ws.to_numpy(), gs.to_numpy())
    for _ in range(50):
        assert log_posterior(x + rng.normal(0, .01, 5), ws.to_numpy(), gs.to_numpy()) < best


def sparse_reference(frame, n):
    """Newton with sparse LU, one agent held at 0: the definition for thousands of agents."""
    i, j, w, g = (frame[c].to_numpy() for c in ['agent', 'opponent', 'wins', 'games'])
    x = np.zeros(n)
    for _ in range(60):
        p = expit(x[i] - x[j])
        c, r = (g + 2) * p * (1 - p), w + 1 - (g + 2) * p
        incidence = scipy.sparse.coo_array(
            (np.repeat([1., -1.], len(i)), (np.tile(np.arange(len(i)), 2), np.concatenate([i, j]))),
            shape=(len(i), n)).tocsc()[:, 1:]
        hessian = (incidence.T @ scipy.sparse.diags_array(c) @ incidence).tocsc()
        step = scipy.sparse.linalg.spsolve(hessian, incidence.T @ r)
        x[1:] += np.clip(step, -2, 2)
    assert np.abs(step).max() < 1e-10
    return x - x.max()


@pytest.mark.parametrize('kind', ['near', 'path'])
def test_thousands_of_agents_who_met_their_neighbours(kind):
    rng = np.random.default_rng(3)
    n, reach = 3000, 5 if kind == 'near' else 1
    strengths = np.linspace(0, 60, n)
    pairs = [(i, i + k) for i in range(n) for k in range(1, reach + 1) if i + k < n]
    labels = rng.permutation(n)  # the order must not matter
    frame = elos.pairs(play(rng, strengths[np.argsort(labels)], labels[np.array(pairs)], 8, 8))
    np.testing.assert_allclose(elos.solve(frame) * elos.to_elo,
                               sparse_reference(frame, n) * elos.to_elo, atol=.05)


def test_path_in_closed_form():
    rng = np.random.default_rng(4)
    n = 5000
    wins = rng.integers(0, 21, n - 1)
    frame = pd.DataFrame({'agent': range(n - 1), 'opponent': range(1, n), 'wins': wins,
                          'games': 20})
    expected = np.concatenate([[0], -np.cumsum(np.log((wins + 1) / (21 - wins)))])
    np.testing.assert_allclose(elos.solve(frame), expected - expected.max(), atol=1e-6)


def test_ten_thousand_agents_with_twenty_opponents():
    rng = np.random.default_rng(5)
    n = 10_000
    frame = elos.pairs(play(rng, rng.normal(0, 1.5, n), few(rng, n, 20)))
    x = elos.solve(frame).to_numpy()
    # At the maximum, each agent's wins are those expected. The least Hessian eigenvalue of such a
    # graph is far above 1 game, so 1e-4 games are less than 1e-4 nats.
    i, j = frame['agent'].to_numpy(), frame['opponent'].to_numpy()
    excess = frame['wins'] + 1 - (frame['games'] + 2) * expit(x[i] - x[j])
    gradient = np.bincount(i, excess, n) - np.bincount(j, excess, n)
    assert np.abs(gradient).max() < 1e-4


def test_pairs_and_matrices_agree():
    rng = np.random.default_rng(6)
    trials = play(rng, rng.normal(0, 1, 12), few(rng, 12, 5), 20, 10)
    frame = elos.pairs(trials)
    ws, gs = elos.symmetrize(trials)
    np.testing.assert_allclose(elos.solve(frame), elos.solve(ws, gs))
    np.testing.assert_allclose(frame.wins, [ws.loc[a, b] for a, b in
                                            zip(frame.agent, frame.opponent)])
    # The frame may be in any order, and name a pair's agents in either.
    swapped = frame.assign(
        agent=frame.opponent, opponent=frame.agent, wins=frame.games - frame.wins,
        black_wins=frame.white_games - frame.white_wins, black_games=frame.white_games,
        white_wins=frame.black_games - frame.black_wins, white_games=frame.black_games)
    mixed = pd.concat([frame[::2], swapped[1::2]])
    pd.testing.assert_frame_equal(elos.intervals(mixed), elos.intervals(frame), atol=1e-9)


def test_islands():
    rng = np.random.default_rng(7)
    strengths = rng.normal(0, 1, 9)
    trials = play(rng, strengths, [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (4, 6)])
    ws, gs = elos.symmetrize(trials, agents=range(9))
    with pytest.raises(elos.Disconnected, match=r'4 islands.*\[0, 1, 2, 3\]; \[4, 5, 6\]; \[7\]'
                       ) as error:
        elos.solve(ws, gs)
    assert error.value.islands == [[0, 1, 2, 3], [4, 5, 6], [7], [8]]
    each = elos.solve(ws, gs, islands='each')
    for part in ([0, 1, 2, 3], [4, 5, 6]):
        alone = elos.symmetrize(trials, agents=part)
        np.testing.assert_allclose(each[part], elos.solve(*alone))
        np.testing.assert_allclose(each[part] * elos.to_elo,
                                   reference_solution(*alone) * elos.to_elo, atol=.05)
    assert each[[7, 8]].isna().all()  # no game, no rating
    assert elos.find_islands(ws, gs).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 3]

    mean, cov = elos.posterior(ws, gs, islands='each')
    assert cov.loc[0, 1] >= 0 and np.isnan(cov.loc[0, 4]) and np.isnan(cov.loc[7, 7])
    iv = elos.intervals(ws, gs, islands='each')
    pd.testing.assert_frame_equal(
        iv.loc[[4, 5, 6]], elos.intervals(*elos.symmetrize(trials, agents=[4, 5, 6])), atol=1e-6)
    with pytest.raises(elos.Disconnected):
        elos.intervals(ws, gs)


def test_posterior_of_two_agents_in_closed_form():
    for wins, games in [(13, 20), (0, 20), (64, 64)]:
        frame = pd.DataFrame({'agent': [1], 'opponent': [2], 'wins': [wins], 'games': [games]})
        mean, cov = elos.posterior(frame, reference=2)
        np.testing.assert_allclose(mean[1], np.log((wins + .5) / (games - wins + .5)), rtol=1e-6)
        np.testing.assert_allclose(cov.loc[1, 1], 1 / (wins + .5) + 1 / (games - wins + .5),
                                   rtol=1e-3)
        assert mean[2] == cov.loc[2, 2] == cov.loc[1, 2] == 0


@pytest.mark.parametrize('seed', range(5))
def test_posterior_is_the_mode_under_jeffreys_prior(seed):
    rng = np.random.default_rng(seed)
    ws, gs = elos.symmetrize(play(rng, rng.normal(0, 2, 5), few(rng, 5, 4), 4, 4))
    w, g = np.nan_to_num(ws.to_numpy()), gs.to_numpy()

    def information(x):
        """Of the games alone, agent 0 held at 0."""
        p = expit(x[:, None] - x)
        matrix = -g * p * (1 - p)
        np.fill_diagonal(matrix, -matrix.sum(1))
        return matrix[1:, 1:]

    def loss(free):
        x = np.concatenate([[0.], free])
        return -((w * -np.logaddexp(0, x - x[:, None])).sum()
                 + np.linalg.slogdet(information(x))[1] / 2)

    exact = scipy.optimize.minimize(loss, np.zeros(4), method='Nelder-Mead',
                                    options={'maxiter': 10_000, 'xatol': 1e-6, 'fatol': 1e-9})
    mean, cov = elos.posterior(ws, gs, reference=0)
    std = np.sqrt(np.diag(cov))[1:]
    assert (np.abs(mean[1:] - exact.x) < .15 * std).all()
    # The pseudo-games make the posterior a little narrower than the games alone.
    alone = np.sqrt(np.diag(np.linalg.inv(information(mean.to_numpy()))))
    assert (std < 1.02 * alone).all() and (std > .6 * alone).all()


def test_reference_changes_the_gauge_only():
    rng = np.random.default_rng(9)
    ws, gs = elos.symmetrize(play(rng, rng.normal(0, 1, 10), everyone(10)))
    m, c = elos.posterior(ws, gs, reference=3)
    n, d = elos.posterior(ws, gs)
    best = n.idxmax()
    np.testing.assert_allclose(n, m - m[best], atol=1e-9)
    np.testing.assert_allclose(d, c - c.loc[best] - c[[best]].to_numpy() + c.loc[best, best],
                               atol=1e-9)
    assert (np.linalg.eigvalsh(c) > -1e-12).all()
    iv = elos.intervals(ws, gs, reference=3)
    assert (iv.loc[3] == 0).all()
    narrow = elos.intervals(ws, gs, reference=3, level=.5)
    assert (narrow.drop(3).lower > iv.drop(3).lower).all()
    np.testing.assert_allclose(iv['upper'] - iv['lower'], 2 * 1.959964 * iv['std'], rtol=1e-6)
    with pytest.raises(ValueError, match='77'):
        elos.posterior(ws, gs, reference=77)


def ladder(n, span):
    return lambda rng: np.linspace(0, span, n)


def plateau(rng):
    """As at the end of training: half of the agents nearly the same at the top."""
    return np.minimum(rng.uniform(-6, 6, 30), rng.normal(0, .05, 30))


@pytest.mark.parametrize('strengths, opponents, games, form, reference', [
    (lambda rng: rng.normal(0, 1.5, 20), None, (16, 16), 'matrices', 'best'),
    (lambda rng: rng.uniform(0, 1, 20), None, (4, 4), 'pairs', 'best'),
    (ladder(30, 10), None, (4, 4), 'matrices', 'named'),
    (lambda rng: rng.uniform(0, 4, 40), 3, (16, 16), 'pairs', 'best'),
    (lambda rng: rng.uniform(0, 4, 40), 4, (16, 16), 'matrices', 'named'),
    (lambda rng: rng.normal(0, 1, 20), None, (48, 16), 'pairs', 'named'),
    (plateau, None, (16, 16), 'pairs', 'best'),
])
def test_intervals_cover(strengths, opponents, games, form, reference):
    """95 % intervals of the differences from the reference hold the truth in 92 to 98 %."""
    rng = np.random.default_rng(10)
    rates = []
    for _ in range(200 if opponents is None else 100):
        truth = strengths(rng)
        n = len(truth)
        trials = play(rng, truth, everyone(n) if opponents is None else few(rng, n, opponents),
                      *games)
        known = None if reference == 'best' else int(truth.argmax())
        data = (elos.pairs(trials),) if form == 'pairs' else elos.symmetrize(trials)
        iv = elos.intervals(*data, reference=known)
        ref = iv['std'].argmin()
        assert known in (None, ref)
        difference = np.delete(truth - truth[ref], ref)
        iv = iv.drop(ref)
        rates.append(((iv.lower < difference) & (difference < iv.upper)).mean())
    coverage, error = np.mean(rates), np.std(rates) / np.sqrt(len(rates))
    print(f'coverage {coverage:.3f} +- {1.96 * error:.3f}')
    assert error < .0125
    assert .92 <= coverage <= .98


@pytest.mark.parametrize('games, shrunk_by', [(1024, 40), (128, 270)])
def test_pseudo_wins_shrink_the_scale(games, shrunk_by):
    """Why the posterior does not have the paper's prior. Every result is as expected: no luck."""
    truth = pd.Series(np.linspace(-12.5, 0, 100))
    gs = pd.DataFrame(games * (1. - np.eye(100)))
    ws = gs * elos.winrate(truth.to_numpy()[:, None] - truth.to_numpy())
    assert abs((elos.solve(ws, gs)[0] - truth[0]) * elos.to_elo - shrunk_by) < 5  # Elo
    assert np.abs(elos.posterior(ws, gs).mean - truth).max() * elos.to_elo < 1


def test_certain_results_have_finite_intervals():
    rng = np.random.default_rng(16)
    trials = play(rng, np.linspace(0, 200, 60), everyone(60), 10, 10)  # 3.4 nats a step
    for data in [(elos.pairs(trials),), elos.symmetrize(trials)]:
        iv = elos.intervals(*data)
        assert np.isfinite(iv).all(axis=None) and iv['elo'].idxmax() == 59
        assert iv['elo'].is_monotonic_increasing and (iv['std'].diff().dropna() < 0).all()
    alone = pd.DataFrame({'black_agent': [1], 'white_agent': [1], 'black_wins': [2],
                          'white_wins': [2]})
    assert elos.intervals(*elos.symmetrize(alone)).isna().all(axis=None)
    assert elos.intervals(*elos.symmetrize(alone[:0])).empty


def test_spread_follows_the_colours():
    rng = np.random.default_rng(12)
    truth = rng.normal(0, .7, 15)
    std = {}
    for first_move in (0., 3.):
        trials = play(rng, truth, everyone(15), 32, 32, first_move)
        std[first_move] = (elos.intervals(elos.pairs(trials))['std'].mean(),
                           elos.intervals(*elos.symmetrize(trials))['std'].mean())
    # Without an advantage a game is a coin toss; with a large one the first move decides most.
    np.testing.assert_allclose(*std[0.], rtol=.05)
    assert std[3.][0] < .75 * std[3.][1]
    # The same number of games is worth less when one colour has few of them.
    even = elos.intervals(elos.pairs(play(rng, truth, everyone(15), 32, 32)))['std'].mean()
    odd = elos.intervals(elos.pairs(play(rng, truth, everyone(15), 60, 4)))['std'].mean()
    assert 1.6 < odd / even < 2.6  # sqrt((1/60 + 1/4)/(2/32)) = 2.07


def play_unevenly(rng, strengths, pairs, rho, half, first_move=0.):
    """As :func:`play`, `half` games in each colour. In each the pair's own rate has the model's as
    its mean and a variance of rho p (1 - p); with an advantage of the first move both share their
    luck, so that it does not cancel."""
    i, j = np.array(pairs).T
    p = expit(strengths[i] - strengths[j] + first_move * np.array([[1], [-1]]))
    rate = scipy.special.betaincinv(p * (1/rho - 1), (1 - p) * (1/rho - 1), rng.random(len(i)))
    wins, lost = rng.binomial(half, [rate[0], 1 - rate[1]])
    return pd.DataFrame({'black_agent': np.append(i, j), 'white_agent': np.append(j, i),
                         'black_wins': np.append(wins, lost),
                         'white_wins': np.append(half - wins, half - lost)})


@pytest.mark.parametrize('opponents, half, rho', [(4, 64, .05), (10, 16, .05), (8, 64, .2)])
def test_intervals_cover_where_pairs_depart_from_the_model(opponents, half, rho):
    rng, n, rates, found = np.random.default_rng(17), 50, [], []
    for _ in range(80):
        truth = rng.uniform(0, 3, n)
        pairs = elos.pairs(play_unevenly(rng, truth, few(rng, n, opponents), rho, half))
        found.append(elos.overdispersion(pairs))
        rates.append([])
        for assumed in (0., None):
            iv = elos.intervals(pairs, reference=0, rho=assumed).drop(0)
            inside = (truth[1:] - truth[0]).clip(iv.lower, iv.upper) == truth[1:] - truth[0]
            rates[-1].append(inside.mean())
    (plain, wide), error = np.mean(rates, 0), np.std(rates, 0)[1] / 80**.5
    print(f'coverage {wide:.3f} +- {1.96 * error:.3f} instead of {plain:.3f}, '
          f'rho {np.mean(found):.3f} of {rho}')
    assert plain < .85 and .91 <= wide <= .98 and error < .015
    assert abs(np.mean(found) / rho - 1) < .1


def test_no_overdispersion_where_the_model_holds():
    rng = np.random.default_rng(18)
    found = [elos.overdispersion(elos.pairs(play(rng, rng.uniform(0, 4, 30), everyone(30))))
             for _ in range(40)]
    assert np.mean(found) < .002 and min(found) == 0
    chain = play(rng, np.arange(5.), [(0, 1), (1, 2), (2, 3), (3, 4)])
    assert elos.overdispersion(elos.pairs(chain)) == 0, 'every pair is needed to link two agents'
    assert elos.overdispersion(*elos.symmetrize(chain[:0])) == 0


def test_overdispersion_by_its_definition():
    """Squared residuals over their variance add up to the degrees of freedom, at the ratings that
    belong to this rho: those of games discounted by it."""
    rng, n = np.random.default_rng(19), 12
    pairs = elos.pairs(play_unevenly(rng, rng.normal(0, 1, n), everyone(n), .1, 100))
    pairs = pairs.drop(columns=elos.games.COUNT_COLUMNS)
    rho = elos.overdispersion(pairs)
    x = elos.posterior(pairs, rho=rho).mean
    p = elos.winrate(x[pairs.agent].to_numpy() - x[pairs.opponent].to_numpy())
    share = 1/(1 + (pairs.games - 1)*rho)
    rest = (pairs.wins/pairs.games - p)**2/(p*(1 - p)/pairs.games)*share
    assert rho > .05 and abs(rest.sum()/(len(pairs) - (n - 1)) - 1) < .01
    fewer = pairs.assign(wins=pairs.wins*share, games=pairs.games*share)
    mean, cov = elos.posterior(fewer, reference=0)
    same, alike = elos.posterior(pairs, reference=0, rho=rho)
    assert np.abs(mean - same).max() < 1e-6 and np.abs(cov - alike).max(axis=None) < 1e-6
    assert (elos.intervals(pairs, rho=None) == elos.intervals(pairs, rho=rho)).all(axis=None)


def test_overdispersion_is_told_from_the_first_move():
    """Where it decides most games, results vary less than coins do: rho is found all the same."""
    rng, found = np.random.default_rng(22), []
    for _ in range(20):
        trials = play_unevenly(rng, rng.normal(0, .5, 20), everyone(20), .05, 64, first_move=2.)
        found.append((elos.overdispersion(elos.pairs(trials)),
                      elos.overdispersion(*elos.symmetrize(trials))))
    by_colour, by_coins = np.mean(found, 0)
    print(by_colour, by_coins)
    assert abs(by_colour/.05 - 1) < .3 and by_coins < .02


def test_suggestions_prefer_new_opponents_where_pairs_depart():
    """Two agents who met 1,000 times tell little more by 64 games; with rho, others tell more."""
    rng, truth = np.random.default_rng(20), np.zeros(6)
    trials = pd.concat([play(rng, truth, everyone(5), 8, 8), play(rng, truth, [(0, 5)], 500, 500)])
    ws, gs = elos.symmetrize(trials)
    plain, wary = (elos.suggest(ws, gs, n=4, reference=0, rho=rho) for rho in (0., .1))
    assert 5 not in plain[['agent', 'opponent']].to_numpy(), 'it is known from 1,000 games'
    theirs = wary[(wary[['agent', 'opponent']] == 5).any(axis=1)]
    assert len(theirs) and not (theirs[['agent', 'opponent']] == 0).any(axis=None)


def test_suggestions_with_rho_reach_what_they_promise():
    rng, n, rho = np.random.default_rng(21), 30, .08
    truth = rng.uniform(0, 4, n)
    trials = play_unevenly(rng, truth, few(rng, n, 4), rho, 32)
    todo = elos.suggest(elos.pairs(trials), n=2000, games=64, reference=0, until=.3, rho=rho)
    more = todo.assign(half=(todo.games / 2).astype(int))
    played = [play_unevenly(rng, truth, rows[['agent', 'opponent']], rho, half)
              for half, rows in more.groupby('half')]
    std = elos.intervals(elos.pairs(pd.concat([trials, *played])), reference=0, rho=rho)['std']
    assert .24 < std.max() < .33
    assert elos.intervals(elos.pairs(trials), reference=0, rho=rho)['std'].max() > .4


def test_suggestions_leave_out_those_who_cannot_play():
    """The unknown among those who can are linked by them; the unknown among the others count for
    nothing, and the reference may be one of them."""
    rng, truth = np.random.default_rng(22), np.zeros(8)
    trials = play(rng, truth, everyone(6), 16, 16)
    ws, gs = elos.symmetrize(trials, range(8))
    able = [1, 2, 3, 6]
    todo = elos.suggest(ws, gs, n=5, reference=0, among=able)
    assert len(todo) and todo[['agent', 'opponent']].isin(able).all(axis=None)
    assert (todo[['agent', 'opponent']].iloc[0] == 6).any(), 'the unknown one first'
    known = elos.suggest(ws, gs, n=5, reference=0, until=1., among=[1, 2, 3])
    assert len(known) == 1, 'agents 6 and 7, who cannot play, ask for no games'
    with pytest.raises(ValueError, match='two agents who can play, there are 1'):
        elos.suggest(ws, gs, n=5, among=[1])


def widest(trials, n, reference):
    iv = elos.intervals(*elos.symmetrize(trials, range(n)), reference=reference)
    return (iv['upper'] - iv['lower']).max()


def test_suggestions_need_a_fifth_of_a_round_robin():
    rng = np.random.default_rng(13)
    n, best = 100, 99
    # The strengths of the published 9x9 curves, by their quantiles.
    truth = np.interp((np.arange(n) + .5) / n, [0, .1, .25, .5, .75, .9, 1],
                      [-12.6, -11.9, -11.3, -10.5, -6.8, -2.8, -.1])
    target = widest(play(rng, truth, everyone(n), 16, 16), n, best)
    n_round_robin = 32 * len(everyone(n))

    trials, n_games = play(rng, truth, [(0, 1)], 0, 0), 0
    width = np.inf
    while width > target:
        todo = elos.suggest(*elos.symmetrize(trials, range(n)), n=50, games=16, reference=best)
        for games, rows in todo.groupby('games'):
            half = int(games) // 2
            trials = pd.concat([trials, play(rng, truth, rows[['agent', 'opponent']], half, half)])
        n_games += todo['games'].sum()
        assert n_games <= n_round_robin / 5
        if elos.find_islands(*elos.symmetrize(trials, range(n))).max() == 0:
            width = widest(trials, n, best)
    print(f'{n_games:.0f} games, a round robin {n_round_robin}')


def test_suggestions_link_everyone_first():
    none = pd.DataFrame(np.full((8, 8), np.nan)), pd.DataFrame(np.zeros((8, 8)))
    todo = elos.suggest(*none, n=7)
    joined = pd.DataFrame({'agent': todo.agent, 'opponent': todo.opponent, 'wins': 1, 'games': 2})
    assert elos.find_islands(joined).tolist() == [0] * 8
    with pytest.raises(ValueError, match='two agents'):
        elos.suggest(*elos.symmetrize(pd.DataFrame(
            columns=['black_agent', 'white_agent', 'black_wins', 'white_wins'])))


def test_suggestions_from_pairs_welcome_who_never_played():
    rng = np.random.default_rng(22)
    trials = play(rng, np.zeros(4), everyone(4), 50, 50)
    todo = elos.suggest(elos.pairs(trials), n=2, games=10, reference=0, agents=range(6))
    new = {4, 5} & set(todo[['agent', 'opponent']].to_numpy().ravel())
    assert new == {4, 5}
    old = elos.suggest(elos.pairs(trials), n=2, games=10, reference=0)
    assert set(old[['agent', 'opponent']].to_numpy().ravel()) <= {0, 1, 2, 3}
    with pytest.raises(ValueError, match='not among those named: 3'):
        elos.suggest(elos.pairs(trials), agents=range(3))
    with pytest.raises(ValueError, match='occur twice: 2'):
        elos.suggest(elos.pairs(trials), agents=[0, 1, 2, 2, 3])
    with pytest.raises(ValueError, match='name their agents'):
        elos.suggest(*elos.symmetrize(trials), agents=range(6))


def test_suggestions_know_that_the_first_move_leaves_less_to_luck():
    """Near equals whom the first move parts: each game tells more than a coin, so fewer do."""
    games = [(i, j, w) for i, j in everyone(5) for w in (95, 90)]
    trials = pd.DataFrame([(i, j, w, 100 - w) for i, j, w in games]
                          + [(j, i, w, 100 - w) for i, j, w in games],
                          columns=['black_agent', 'white_agent', 'black_wins', 'white_wins'])
    options = dict(n=500, games=10, reference=0, until=.05)
    by_colour = elos.suggest(elos.pairs(trials), **options)['games'].sum()
    by_coins = elos.suggest(*elos.symmetrize(trials), **options)['games'].sum()
    print(by_colour, by_coins)
    assert by_colour < by_coins / 2


def test_suggestion_goes_to_the_least_known():
    rng = np.random.default_rng(14)
    trials = play(rng, np.zeros(6), everyone(5), 500, 500)
    trials = pd.concat([trials, play(rng, np.zeros(6), [(0, 5)], 4, 4)])
    todo = elos.suggest(*elos.symmetrize(trials), n=1, games=10, reference=0)
    assert 5 in todo[['agent', 'opponent']].to_numpy() and todo['games'].tolist() == [10]


def test_suggestions_stop_where_enough_is_known():
    rng = np.random.default_rng(15)
    trials = play(rng, np.zeros(6), everyone(5), 500, 500)
    trials = pd.concat([trials, play(rng, np.zeros(6), [(0, 5)], 4, 4)])

    def ask(until):
        return elos.suggest(*elos.symmetrize(trials), n=500, games=10, reference=0, until=until)

    asked = {until: ask(until)['games'].sum() for until in (0, .1, .2, .3, np.inf)}
    assert asked[0] == 5000 > asked[.1] > asked[.2] > asked[.3] > asked[np.inf] == 10
    for row in ask(.2).itertuples():
        half = int(row.games) // 2
        trials = pd.concat([trials, play(rng, np.zeros(6), [row[1:3]], half, half)])
    std = elos.intervals(*elos.symmetrize(trials), reference=0)['std']
    assert .1 < std.max() < .2, 'as many games as it takes, and not many more'


def test_scales_and_toy_model():
    assert elos.winrate(0) == .5
    np.testing.assert_allclose(elos.winrate(400 / elos.to_elo), 10 / 11)
    d = np.linspace(-1000, 1000, 5)
    np.testing.assert_allclose(elos.winrate(d / elos.to_elo), 1 / (1 + 10**(-d / 400)))
    assert elos.toy_model(2) == 2 / 3
    rng = np.random.default_rng(15)
    for n, m in [(2, 1), (6, 3), (1, 5)]:
        wins = (rng.random((20_000, n)).max(1) > rng.random((20_000, m)).max(1)).mean()
        np.testing.assert_allclose(elos.toy_model(n / m), wins, atol=.014)  # 4 standard errors
        np.testing.assert_allclose(elos.toy_model(n / m), elos.winrate(np.log(n / m)))


def test_bad_input_is_named():
    trials = pd.DataFrame({'black_agent': [1, 2], 'white_agent': [2, 3], 'black_wins': [3, 1],
                           'white_wins': [1, 3]})
    with pytest.raises(ValueError, match='white_wins not found'):
        elos.symmetrize(trials.drop(columns='white_wins'))
    with pytest.raises(ValueError, match='at least 0'):
        elos.pairs(trials.assign(black_wins=[3, -1]))
    with pytest.raises(ValueError, match='at least 0'):
        elos.symmetrize(trials.assign(black_wins=[3, np.nan]))
    with pytest.raises(ValueError, match='twice: 1'):
        elos.symmetrize(trials, agents=[1, 1, 2])

    ws, gs = elos.symmetrize(trials)
    with pytest.raises(ValueError, match='agents 1 and 2 have wins'):
        elos.solve(ws * 2, gs)
    with pytest.raises(ValueError, match='agents 1 and 2 have wins'):
        elos.solve(ws.replace(3, np.nan), gs)  # games without wins, as in 2021
    with pytest.raises(ValueError, match='unequal'):
        elos.solve(ws, gs + np.triu(np.ones((3, 3)), 1))
    with pytest.raises(ValueError, match='same agents'):
        elos.solve(ws, gs.iloc[::-1])
    with pytest.raises(ValueError, match='square'):
        elos.solve(ws.iloc[:2], gs)
    with pytest.raises(ValueError, match="islands is 'error' or 'each'"):
        elos.solve(ws, gs, islands='all')
    with pytest.raises(ValueError, match='no column agent'):
        elos.solve(ws)
    frame = elos.pairs(trials)
    with pytest.raises(ValueError, match='agents 1 and 2 occur twice'):
        elos.solve(pd.concat([frame, frame[:1]]))
    with pytest.raises(ValueError, match='more wins than games'):
        elos.solve(frame.assign(wins=9))
