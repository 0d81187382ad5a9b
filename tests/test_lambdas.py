"""The study of both rules: formulas against the search's own, tables against hand-made ones."""
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_ind

from boardlaw.mcts import C_PUCT, reference
from boardlaw.paper import lambdas


def test_rules_agree_where_the_paper_says():
    for n in (1, 9, 64, 512):
        for a in (9, 81):
            same = lambdas.weight(n, a, 'corrected', lambdas.effective_c_puct(n))
            assert same == pytest.approx(lambdas.weight(n, a, '2021'))
    # PAPER: 1/16 acts like 1/2 after 64 visits.
    assert lambdas.effective_c_puct(64) == pytest.approx(.5)


@pytest.mark.parametrize('n', [[1, 0, 0, 0, 0, 0, 0, 0, 0], [3, 1, 1, 2, 1, 1, 1, 1, 9]])
def test_effective_c_puct_by_the_published_count_is_the_searchs(n):
    """The plain search by rule '2021' has the policy of the corrected one with that constant."""
    rng = np.random.default_rng(0)
    prior, q = rng.dirichlet(np.ones(9)), rng.uniform(-1, 1, 9)
    c = lambdas.effective_c_puct(sum(n), 1/16, n_actions=9)
    np.testing.assert_allclose(reference.policy(prior, q, n, 1/16, '2021'),
                               reference.policy(prior, q, n, c), rtol=1e-6)


def agents():
    rows = []
    for rule, base in [('corrected', -20.), ('2021', -60.)]:
        for seed in range(3):
            for idx in range(4):
                rows.append((3, f'{rule}{seed}', idx, 10.**(6 + idx), rule, C_PUCT[rule], seed, 64,
                             64, base - 100*(3 - idx) + seed))
        rows.append((3, f'{rule} c', 0, 1e9, rule, 4*C_PUCT[rule], 0, 64, 64, base - 5))
        rows.append((3, f'{rule} n', 0, 1e9, rule, C_PUCT[rule], 0, 16, 16, base - 9))
        rows.append((3, f'{rule} n', 0, 1e9, rule, C_PUCT[rule], 0, 16, 64, base - 1))
    return pd.DataFrame(rows, columns=['boardsize', 'run', 'idx', 'train_flops', 'rule', 'c_puct',
                                       'seed', 'train_nodes', 'test_nodes', 'elo'])


def test_variants_are_the_ends_as_trained():
    ends = lambdas.variants(agents())
    assert len(ends) == 2*(3 + 1 + 1) and (ends.test_nodes == ends.train_nodes).all()
    assert sorted(ends.factor.unique()) == [1, 4]
    assert ends[ends.factor == 4].elo.tolist() == [-25, -65]
    assert ends[ends.train_nodes == 16].elo.tolist() == [-29, -69]


def test_curves_are_over_seeds():
    table = lambdas.curves(agents())
    assert len(table) == 8 and (table.n_seeds == 3).all()
    end = table[(table.rule == '2021') & (table.train_flops == 1e9)].iloc[0]
    assert (end['mean'], end.low, end.high) == (-59, -60, -58)


def test_contrast_is_welchs():
    ends = lambdas.variants(agents()).query('factor == 1 and train_nodes == 64')
    row = lambdas.contrast(ends).loc[3]
    assert (row.corrected, row.published, row.difference, row.n_seeds) == (-19, -59, 40, 3)
    # Equal variances 1 and sizes 3: Welch's degrees of freedom are 4.
    reach = t.ppf(.975, 4)*np.sqrt(2/3)
    assert (row.low, row.high) == pytest.approx((40 - reach, 40 + reach))
    assert 'on 3×3 the corrected rule is stronger (+40 Elo' in lambdas.verdict(
        lambdas.contrast(ends))
    one = lambdas.contrast(ends[ends.seed == 0])
    assert one.low.isna().all() and 'cannot be told apart' in lambdas.verdict(one)


def test_lag_is_the_ratio_of_computes():
    """100 Elo a decade, and 40 between the rules: the published one takes 10**.4 times as much."""
    way = lambdas.reached(agents(), (.5, .75))
    assert set(way.run) == {f'{rule}{seed}' for rule in C_PUCT for seed in range(3)}
    assert way.elo.unique().tolist() == [-359 + .5*300, -359 + .75*300]
    found = lambdas.lag(way)
    assert found.index.tolist() == [(3, .5), (3, .75)]
    reach = t.ppf(.975, 4)*np.sqrt(2/3)*.01     # a seed is worth 1 Elo, .01 decades
    for row in found.itertuples():
        assert np.log10([row.ratio, row.low, row.high]) == pytest.approx([.4, .4 - reach,
                                                                          .4 + reach])
    # Over boards it is the geometric mean, whose error is smaller.
    other = agents().assign(boardsize=4)
    other.loc[other.rule == '2021', 'elo'] += 20
    both = lambdas.lag(lambdas.reached(pd.concat([agents(), other]), [.5]), ['share']).loc[.5]
    reach = t.ppf(.975, 8)*np.sqrt(2/3/2)*.01
    assert np.log10([both.ratio, both.low, both.high]) == pytest.approx([.3, .3 - reach,
                                                                         .3 + reach])
    # A run that never gets there has no compute to compare.
    assert lambdas.lag(lambdas.reached(agents(), [1.])).isna().all(axis=None)


def test_a_weighted_sum_of_means_is_covered_as_often_as_it_says():
    rng = np.random.default_rng(0)
    key, sd = np.repeat(list('abc'), [3, 8, 4]), {'a': 1., 'b': 3., 'c': .5}
    weights, hit = pd.Series({'c': -1., 'a': .5, 'b': .5}), 0
    for _ in range(2000):
        x = pd.Series([rng.normal(dict(a=1, b=2, c=5)[k], sd[k]) for k in key])
        value, low, high = lambdas.combined(x.groupby(key), weights)
        assert low < value < high
        hit += low < -3.5 < high
    assert .935 < hit/2000 < .975
    value, low, high = lambdas.combined(x[2:].groupby(key[2:]), weights)    # one of the first left
    assert np.isfinite(value) and np.isnan([low, high]).all()


def test_games_between_the_rules_alone():
    """With games that follow the Elo of each seed, the interval is Welch's of these Elo."""
    rng = np.random.default_rng(0)
    ends = pd.DataFrame({'boardsize': 3, 'rule': ['corrected']*5 + ['2021']*4}, range(10, 19))
    elo = pd.Series(rng.normal(0, 60, 9), ends.index)
    pairs = [(a, b) for a in range(10, 15) for b in range(15, 19)]
    rows = [(*side, n*p, n*(1 - p)) for i, (a, b) in enumerate(pairs) for n in [10**7*(1 + i % 2)]
            for side in ((a, b), (b, a)) for p in [1/(1 + 10**((elo[side[1]] - elo[side[0]])/400))]]
    rows += [(10, 11, 5, 0), (15, 99, 0, 7)]    # of one rule, and with another agent
    trials = pd.DataFrame(rows, columns=['black_agent', 'white_agent', 'black_wins', 'white_wins'])
    found = lambdas.between(ends, trials).loc[3]
    welch = ttest_ind(elo[:5], elo[5:], equal_var=False).confidence_interval(.95)
    assert found.difference == pytest.approx(elo[:5].mean() - elo[5:].mean(), abs=.01)
    assert [found.low, found.high] == pytest.approx(list(welch), abs=.01)
    assert found.games == 2*10**7*30 and found.rate == pytest.approx(
        sum(row[2] if row[0] < 15 else row[3] for row in rows[:-2])/found.games)
    one = lambdas.between(ends.loc[[10, 15]], trials).loc[3]
    assert np.isnan(one.low) and one.difference == pytest.approx(elo[10] - elo[15], abs=.01)
