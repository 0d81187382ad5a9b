"""The oracle is PAPER: its formulas by hand or by brute force, its published numbers, the numbers
of an independent refit of the published curves, and made-up agents whose answer is known."""
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares
from scipy.special import betaincinv

from boardlaw import paper, style
from boardlaw.paper import data, figures, fits, tables

BOARDS = list(range(3, 10))


@pytest.fixture(scope='module')
def published():
    return paper.published()


@pytest.fixture(scope='module')
def frontiers(published):
    return paper.frontier(published)


@pytest.fixture(scope='module')
def fit(frontiers):
    return paper.fit_frontier(frontiers)


@pytest.fixture(scope='module')
def headline(published):
    return paper.headline(published)


def agents(**columns):
    return pd.DataFrame({'boardsize': 3, 'run': 'a', 'width': 2, 'depth': 1, 'test_nodes': 64,
                         **columns})


# The data

def test_published_curves_are_whole(published):
    assert len(published) == 2966
    assert published.groupby('boardsize').run.nunique().to_dict() == {
        3: 6, 4: 15, 5: 20, 6: 32, 7: 38, 8: 40, 9: 44}
    assert published.run.nunique() == 195
    assert not published.isna().any().any()
    for _, run in published.groupby('run'):
        assert run.boardsize.nunique() == run.width.nunique() == run.depth.nunique() == 1
        assert (np.diff(run.sort_values('idx').train_flops) > 0).all()
    assert published.elo.max() == 0 and published.elo.min() > -2500


def layers(boardsize, width, depth):
    """Weights and biases, layer by layer."""
    cells = boardsize*boardsize
    total = 2*cells*width + width
    for _ in range(depth):
        total += width*width + width
    return total + width*cells + cells + width*1 + 1


def test_parameters_explain_the_published_compute(published):
    expected = [layers(*row) for row in published[['boardsize', 'width', 'depth']].to_numpy()]
    assert (published.params == expected).all()
    assert (published.train_flops == published.samples*64*published.params).all()
    assert paper.params(width=2, depth=4, boardsize=3) == layers(3, 2, 4)


def test_rated_converts_nats_and_puts_the_best_at_zero():
    ags = agents(boardsize=[3, 3, 4, 4], train_flops=1.).set_index(pd.Index([7, 8, 9, 10]))
    nats = pd.Series({7: 1., 8: 1 + np.log(10), 9: -2., 99: 5.})
    out = paper.rated(ags, nats)
    assert out.elo.to_dict() == pytest.approx({7: -400, 8: 0, 9: 0})
    with pytest.raises(ValueError, match='indexed by agent'):
        paper.rated(ags, pd.Series({1: 0.}))


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match='lack the column elo'):
        paper.frontier(agents(train_flops=[1.]))
    with pytest.raises(ValueError, match='1 agents have no usable elo'):
        paper.frontier(agents(train_flops=[1., 2.], elo=[0, np.nan]))
    with pytest.raises(ValueError, match='no usable train_flops'):
        paper.frontier(agents(train_flops=[0.], elo=[0.]))
    with pytest.raises(ValueError, match='there are no agents'):
        paper.frontier(agents(train_flops=[1.], elo=[0.], test_nodes=1))


# Frontiers

def test_a_frontier_by_hand():
    ags = agents(run=list('aabb'), train_flops=[1e2, 1e4, 1e3, 1e5], elo=[-400., -200, -350, -50])
    front = paper.frontier(ags, n_points=7)     # 10^2, 10^2.5 .. 10^5
    np.testing.assert_allclose(np.log10(front.train_flops), np.arange(2, 5.1, .5))
    # a alone to 10^2.5, ahead of b to 10^4, overtaken at 10^4.5.
    np.testing.assert_allclose(front.elo, [-400, -350, -300, -250, -200, -125, -50])


def test_a_frontier_keeps_a_run_that_ended_and_may_dip():
    ags = agents(run=list('aabbb'), train_flops=[1e2, 1e3, 1e2, 1e3, 1e4],
                 elo=[-300., -100, -500, -400, -300])
    front = paper.frontier(ags, n_points=3)
    np.testing.assert_allclose(front.elo, [-300, -100, -100])   # a's last value stays
    dip = paper.frontier(agents(train_flops=[1e2, 1e3, 1e4], elo=[-50., -80, -20]), n_points=3)
    np.testing.assert_allclose(dip.elo, [-50, -80, -20])


def test_a_frontier_counts_a_runs_last_snapshot_only_on_request():
    """The first run ends at -125, between the points 10^3, where it has -200, and 10^4."""
    ags = agents(run=list('aabb'), train_flops=[1e2, 10**3.5, 1e2, 1e5],
                 elo=[-350., -125, -500, -400])
    assert paper.frontier(ags, 4).elo.tolist() == pytest.approx([-350, -200, -200, -200])
    kept = paper.frontier(ags, 4, keep_last=True)
    assert kept.elo.tolist() == pytest.approx([-350, -200, -125, -125])


def slow_frontier(board):
    """The definition, point by point."""
    x = np.linspace(np.log10(board.train_flops.min()), np.log10(board.train_flops.max()), 101)
    best = []
    for at in x:
        values = []
        for _, run in board.groupby('run'):
            snaps = sorted(zip(np.log10(run.train_flops), run.elo))
            inside = [p for p in x if snaps[0][0] <= p <= snaps[-1][0] and p <= at]
            if inside:
                last = inside[-1]
                (x0, y0), (x1, y1) = next((a, b) for a, b in zip(snaps, snaps[1:])
                                          if a[0] <= last <= b[0])
                values.append(y0 + (y1 - y0)*(last - x0)/(x1 - x0))
        best.append(max(values))
    return best


@pytest.mark.parametrize('boardsize', [3, 5])
def test_published_frontiers_follow_the_definition(published, frontiers, boardsize):
    front = frontiers[frontiers.boardsize == boardsize]
    np.testing.assert_allclose(front.elo, slow_frontier(published[published.boardsize ==
                                                                  boardsize]), atol=1e-6)


def test_a_frontier_depends_on_neither_order_nor_dominated_runs(published, frontiers):
    worse = published.assign(run=published.run + 'w', elo=published.elo - 10)
    other = published.assign(test_nodes=1, elo=0.)
    mixed = pd.concat([published, worse, other]).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(paper.frontier(mixed), frontiers)


def test_crossings():
    front = pd.DataFrame({'boardsize': [3]*3 + [4]*2 + [5]*2,
                          'train_flops': [1e1, 1e2, 1e3, 1e1, 1e2, 1e4, 1e5],
                          'elo': [-100., -60, -40, -90, -80, -50, -70]})
    out = paper.crossings(front)
    assert out[3] == pytest.approx(10**2.5) and np.isnan(out[4]) and out[5] == 1e4


# The change point

def test_the_refit_of_the_published_curves(fit):
    assert [fit.incline_flops, fit.incline_boardsize, fit.incline_const, fit.plateau_boardsize,
            fit.plateau_const] == pytest.approx([505.61, -430.06, -4399.03, -268.44, 574.98],
                                                rel=1e-4)


def test_the_fit_is_as_table_3_prints_it(fit):
    for name, printed in vars(tables.TABLE_3).items():
        assert float(f'{getattr(fit, name):.1e}') == printed     # two digits


def test_compute_for_perfect_play(fit, frontiers):
    np.testing.assert_allclose(fit.compute(BOARDS), [
        1.42e11, 1.01e12, 7.15e12, 5.07e13, 3.59e14, 2.55e15, 1.81e16], rtol=.005)
    np.testing.assert_allclose(fit.predict(BOARDS, fit.compute(BOARDS)), -50)


def test_headline_numbers(headline):
    expected = {'double_compute_winrate': (.706, .0005), 'perfect_growth': (7.09, .005),
                'perfect_growth_raw': (8.4, .05), 'takeoff_growth': (2.09, .005),
                'gap_growth': (268.44, .005), 'gap_growth_raw': (312, .5),
                'size_exponent': (.92, .005), 'size_intercept': (-9.2, .05)}
    for name, (value, rounding) in expected.items():
        assert abs(headline[name] - value) <= rounding, name


def random_starts(frontiers, n):
    """The least cost of `n` descents from anywhere, without our starts or derivatives."""
    b, x, y = frontiers.boardsize.values, np.log10(frontiers.train_flops), frontiers.elo.values
    rng, costs = np.random.default_rng(0), []

    def error(p):
        return np.minimum(0, np.maximum(p[0]*b + p[1], p[2]*x + p[3]*b + p[4])) - y

    for _ in range(n):
        m, c, d = rng.uniform(-600, 0), rng.uniform(200, 1000), rng.uniform(-800, 0)
        start = [m, y[0] - m*b[0], c, d, rng.uniform(-300, -50) - c*rng.choice(x) - d*b[0]]
        costs.append(least_squares(error, start, x_scale=[100, 500, 500, 400, 4000]).cost)
    return min(costs)


@pytest.mark.parametrize('seen', [4, 7, 9])
def test_the_fit_is_not_stuck_in_a_local_minimum(frontiers, seen):
    part = frontiers[frontiers.boardsize <= seen]
    cost = (paper.fit_frontier(part).residuals(part)**2).sum()/2
    assert cost <= random_starts(part, 15)*(1 + 1e-6)


@pytest.mark.parametrize('seed', range(6))
def test_a_known_change_point_is_recovered(seed):
    rng = np.random.default_rng(seed)
    truth = paper.ChangePoint(-rng.uniform(150, 350), rng.uniform(200, 500), rng.uniform(300, 700),
                              -rng.uniform(400, 600), -rng.uniform(2500, 3500))
    fronts = []
    for b in range(3, 8):
        x = np.linspace(np.log10(truth.takeoff(b)) - 1, np.log10(truth.compute(b, 0)) + 1, 101)
        fronts.append(pd.DataFrame({'boardsize': b, 'train_flops': 10**x,
                                    'elo': truth.predict(b, 10**x)}))
    fronts = pd.concat(fronts)
    found = paper.fit_frontier(fronts)
    assert list(vars(found).values()) == pytest.approx(list(vars(truth).values()), rel=1e-6)
    assert found.takeoff_growth == pytest.approx(truth.takeoff(5)/truth.takeoff(4))
    assert found.perfect_growth == pytest.approx(truth.compute(5)/truth.compute(4))
    assert paper.residual_variance(fronts).resid_var.max() < 1e-12


def test_a_fit_needs_boards_and_an_incline(frontiers):
    with pytest.raises(ValueError, match='needs two'):
        paper.fit_frontier(frontiers[frontiers.boardsize == 5])
    with pytest.raises(ValueError, match='no incline'):
        paper.fit_frontier(frontiers.assign(elo=-100.*frontiers.boardsize))


def test_residual_variance(frontiers):
    table = paper.residual_variance(frontiers)
    on_9 = table[table.boardsize == 9].set_index('seen').resid_var
    assert on_9.to_dict() == pytest.approx(
        {4: .0380, 5: .0081, 6: .0124, 7: .0208, 8: .0038, 9: .0015}, abs=.00005)
    assert len(table) == 6*7
    assert (table.extrapolated == (table.boardsize > table.seen)).all()


# Other laws

def test_optimal_model_size_by_hand():
    ags = agents(width=[1, 2, 4], depth=[1, 1, 2], train_flops=[1e0, 1e5, 1e10],
                 elo=[-30., -10, -20])
    best = paper.optimal_model_size(ags)
    np.testing.assert_allclose(np.log10(best.limit), range(1, 11))
    assert best['size'].tolist() == [1]*4 + [4]*6       # the last snapshot is no better
    law = paper.fit_power_law([1, 10, 100], [5, 50, 500])
    assert law.exponent == pytest.approx(1) and law.intercept == pytest.approx(np.log10(5))
    assert law.predict(1e3) == pytest.approx(5e3)
    with pytest.raises(ValueError, match='2 points with one x'):
        paper.fit_power_law([10, 10], [1, 2])


def test_cheapest_nearly_perfect_networks(published):
    best = paper.cheapest(published)
    assert [f'{w}x{d}' for w, d in zip(best.width, best.depth)] == [
        '2x4', '8x2', '16x4', '128x1', '128x4', '256x4', '512x4']
    assert list(best.index) == BOARDS


def test_winrates():
    assert paper.winrate([0, 400, -400]) == pytest.approx([1/2, 10/11, 1/11])


def plane_agents(train=-1.2, elo=.004, const=29., n_train=9):
    """9x9 agents that lie on log10(test) = train·log10(train_flops) + elo·Elo + const."""
    rows = []
    for x, e in product(np.linspace(12, 16, n_train), range(-1500, -249, 250)):
        test = 10**(train*x + elo*e + const)
        samples = 10**x/1e8                 # so that one sample costs 1e8
        rows.append((10**x, e, samples, test/1e8))
    out = pd.DataFrame(rows, columns=['train_flops', 'elo', 'samples', 'test_nodes'])
    return agents(**out).assign(boardsize=9, idx=0)


def test_train_test_recovers_a_known_plane():
    ags = plane_agents()
    lines = paper.train_test(ags)
    assert lines.groupby('elo').size().to_dict() == {e: 9 for e in range(-1500, -249, 250)}
    found = paper.fit_train_test(lines)
    assert [found.train, found.elo, found.const] == pytest.approx([-1.2, .004, 29])
    assert found.saving == pytest.approx(10**1.2)
    literal = paper.fit_train_test(paper.train_test(ags, literal=True))
    assert literal.const == pytest.approx(29 - np.log10(64))


def test_train_test_lines_are_the_best_bargains():
    rng = np.random.default_rng(0)
    ags = agents(boardsize=9, train_flops=10**rng.uniform(10, 14, 300), samples=1e6,
                 test_nodes=2**rng.integers(0, 10, 300), elo=rng.uniform(-2000, 0, 300))
    ags['test_flops'] = data.test_flops(ags)
    for elo, line in paper.train_test(ags).groupby('elo'):
        able = ags[ags.elo >= elo]
        brute = {(a.train_flops, a.test_flops) for a in able.itertuples()
                 if not ((able.train_flops <= a.train_flops) & (able.test_flops <= a.test_flops)
                         & ((able.train_flops < a.train_flops)
                            | (able.test_flops < a.test_flops))).any()}
        assert set(zip(line.train_flops, line.test_flops)) == brute
    with pytest.raises(ValueError, match='no agent reaches'):
        paper.train_test(ags, elos=[100])


def test_test_compute_in_the_papers_unit():
    ags = agents(width=4, depth=1, samples=[1000.], train_flops=1000.*64*layers(3, 4, 1),
                 test_nodes=8)
    assert data.test_flops(ags)[0] == pytest.approx(64*8*layers(3, 4, 1))
    assert data.test_flops(ags, literal=True)[0] == pytest.approx(8*layers(3, 4, 1))


def test_levels_of_9x9_keep_their_share_of_the_climb(published):
    # First snapshots at -500 +- 80 with 64 nodes; the others must not count.
    starts = agents(run=list('abc'), idx=[0, 3, 1], elo=[-500., -580., -420.])
    later = starts.assign(idx=starts.idx + 1, elo=-10.)
    others = pd.concat([starts.assign(test_nodes=1, elo=-2000.), starts.assign(boardsize=2)])
    ags = pd.concat([starts, later, others], ignore_index=True)
    nine = published[published.boardsize == 9].sort_values('idx').groupby('run').elo.first()
    expected = [-500*level/nine.median() for level in (-1000, -500)]
    found = data.like_9x9([-1000, -500], ags)
    assert found == [int(10*np.floor(x/10 + .5)) for x in expected]
    assert -270 < found[0] < -220       # 9x9 starts near -2000
    assert data.like_9x9((-1500, -250), published) == [-1500, -250]
    with pytest.raises(ValueError, match='lack the column idx'):
        data.like_9x9([-1000], ags.drop(columns='idx'))


def test_largest_board_with_trees_of_several_runs():
    trees = dict(test_nodes=[1, 64, 1, 64, 1, 64, 64], run=list('aabbccd'))
    ags = agents(**trees, boardsize=[4, 4, 4, 4, 5, 5, 6])
    assert data.tree_boards(ags) == [4], 'a single run on 5x5, no trees on 6x6'
    assert data.tree_boards(ags[ags.run != 'b']) == [4, 5], 'single runs if need be'
    assert data.tree_boards(ags[ags.test_nodes == 64]) == [4, 5, 6]
    assert set(data.largest_board(ags).run) == {'a', 'b'}
    with pytest.raises(ValueError, match='lack the column run'):
        data.largest_board(ags.drop(columns='run'))


def tree_agents():
    """Three 9x9 runs, two snapshots each; in the last ones Elo rises with the nodes."""
    rows = [(run, w, idx, n, base - 400*(1 - idx) + 100*np.log2(n))
            for run, w, base in [('small', 2, -2050), ('mid', 8, -1100), ('big', 32, -450)]
            for idx in (0, 1) for n in (1, 2, 4)]
    out = pd.DataFrame(rows, columns=['run', 'width', 'idx', 'test_nodes', 'elo'])
    out['samples'] = 1e6*(1 + out.idx)
    return agents(**out).assign(boardsize=9, depth=1,
                                train_flops=out.samples*64*layers(9, out.width, 1))


def test_the_runs_of_figure_8():
    curves = data.test_curves(tree_agents())
    assert list(dict.fromkeys(curves.run)) == ['small', 'mid', 'big']
    assert (curves.idx == 1).all() and len(curves) == 9
    # 'mid' is the first above -1500 with one node; -2000 is met by 'small' with two.
    assert list(dict.fromkeys(data.test_curves(tree_agents(), floors=[-1500]).run)) == ['mid']
    with pytest.raises(ValueError, match='lower floors'):
        data.test_curves(tree_agents(), floors=[0])


# Intervals

def test_bootstrap_gives_the_standard_error_of_a_mean():
    rng = np.random.default_rng(0)
    ags = agents(run=range(50), train_flops=1., elo=rng.normal(-300, 40, 50))
    out = paper.bootstrap(ags, lambda a: pd.Series({'mean': a.elo.mean()}), 600)
    assert out['mean'].std() == pytest.approx(ags.elo.std(ddof=0)/np.sqrt(50), rel=.1)
    assert out['mean'].mean() == pytest.approx(ags.elo.mean(), abs=1)


def test_bootstrap_draws_whole_runs_within_each_board_and_repeats_itself(published):
    whole = published.groupby('run').elo.apply(tuple).to_dict()
    names = {elos: run for run, elos in whole.items()}
    drawn = []

    def statistic(sample):
        runs = sample.groupby('run').elo.apply(tuple)
        drawn.append(sorted(names[elos] for elos in runs))
        return pd.Series(sample.groupby('run').boardsize.first().value_counts())

    counts = paper.bootstrap(published, statistic, 3, seed=1)
    assert (counts[BOARDS] == [6, 15, 20, 32, 38, 40, 44]).all().all()
    assert all(len(set(runs)) < len(runs) for runs in drawn) and drawn[0] != drawn[1]
    paper.bootstrap(published, statistic, 3, seed=1)
    assert drawn[:3] == drawn[3:]


def test_basic_intervals_reflect_the_resamples():
    resamples = pd.DataFrame({'x': np.arange(101.)})
    out = paper.intervals(pd.Series({'x': 60.}), resamples, level=.9)
    assert out.loc['x'].tolist() == [60, 120 - 95, 120 - 5]
    # How many times: as far below 20 as 80 is above it, and the other way round.
    resamples = pd.DataFrame({'x': [5., 20., 80.]*40, 'y': [1., 2., 3.]*40})
    out = paper.intervals(pd.Series({'x': 20., 'y': 2.}), resamples, ratios=['x', 'z'])
    assert out.loc['x'].tolist() == pytest.approx([20, 5, 80])
    assert out.loc['y'].tolist() == [2, 1, 3]


# Tables

def test_table_1():
    from boardlaw.selfplay import Config
    config = Config(boardsize=5, width=4, depth=2, n_envs=32*1024, rule='2021', c_puct=1/16)
    table = tables.hyperparameters(config)
    assert (table.ours.astype(float) == table.published.astype(float)).all()
    assert tables.hyperparameters().loc['search nodes'].tolist() == [64, 64]


def test_table_2_is_as_printed(published):
    table = tables.limits(published)
    assert list(table.index) == BOARDS
    for column in ('neurons', 'layers'):
        assert (table[column].computed == table[column].published).all()
    for column in ('samples', 'compute'):       # printed to one digit
        assert [f'{x:.0E}' for x in table[column].computed] == \
            [f'{x:.0E}' for x in table[column].published]


def test_table_3(published, fit):
    table = tables.fitted_frontier(published, n_resamples=10)
    assert table.loc[('incline', 'm_flops'), 'published'] == 510
    assert table.loc[('incline', 'm_flops'), 'computed'] == fit.incline_flops
    assert (table.low < table.computed).all() and (table.computed < table.high).all()
    # Table IV's printed values are not known.
    assert tables.direct_frontier(published, n_resamples=0).published.isna().all()


def test_perfect_play(published):
    table = tables.perfect_play(published)
    assert (table.fit.loc[9], table.frontier.loc[9]) == pytest.approx((1.81e16, 3.31e16), rel=.01)
    assert table.width.tolist() == [2, 8, 16, 128, 128, 256, 512]


def test_claims(published):
    table = tables.claims(published, n_resamples=10)
    assert dict(zip(table.number.fillna(0), table.verdict)).items() >= {
        1: 'agrees', 3: 'differs', 4: 'differs', 5: 'not tested', 6: 'agrees', 0: 'agrees'}.items()
    assert table[table.number == 2].verdict.tolist()[0] == 'agrees'    # by the fit
    flagged = table[table.remark.str.contains('table III')]
    assert flagged.number.tolist() == [3, 4]
    assert '2.06' in flagged.remark.iloc[0] and '270' in flagged.remark.iloc[1]
    bounds = table.dropna(subset='low')
    assert (bounds.low <= bounds.high).all()


def test_claims_test_the_trade_off_where_nodes_differ(published):
    trees = plane_agents().assign(run='p', width=64)
    both = pd.concat([published[published.boardsize < 9], trees], ignore_index=True)
    row = tables.claims(both, n_resamples=0).set_index('number').loc[5]
    assert row.computed == pytest.approx(10**1.2) and row.verdict == 'agrees'
    steep = plane_agents(train=-2, const=41.8).assign(run='p', width=64)
    both = pd.concat([published[published.boardsize < 9], steep], ignore_index=True)
    row = tables.claims(both, n_resamples=0).set_index('number').loc[5]
    assert row.computed == pytest.approx(100) and row.verdict == 'differs'
    assert 'by the paper\'s six levels of Elo it differs, by nine it is 100.0' in row.remark


def test_the_trade_off_is_undecided_where_it_hangs_on_the_levels(published, monkeypatch):
    """Two planes: to -1200 one on which training saves 10^1.2 times, above it one of 100 times."""
    steep = plane_agents(train=-2, const=41.8)
    trees = pd.concat([plane_agents().query('elo <= -1200'), steep.query('elo > -1200')])
    both = pd.concat([published[published.boardsize < 9], trees.assign(run='p', width=64)],
                     ignore_index=True)
    monkeypatch.setattr(data, 'LEVELS', (-1000, -750, -500))
    monkeypatch.setattr(data, 'MORE_LEVELS', (-1500, -1250))
    row = tables.claims(both, n_resamples=0).set_index('number').loc[5]
    assert row.verdict == 'undecided' and row.computed == pytest.approx(100)
    assert 'it differs, by nine it is 15.8 and agrees' in row.remark


# Figures

def lines_of(fig, least=20):
    """The drawn lines of at least that many points, as (color, x, y)."""
    return [(line.get_color(), *line.get_data()) for ax in fig.axes for line in ax.lines
            if len(line.get_xdata()) >= least]


def names_in(fig):
    return [t.get_text() for ax in fig.axes for t in ax.texts]


def test_figure_2():
    fig = figures.elo_winrate()
    ((_, d, rate),) = lines_of(fig)
    assert (d.min(), d.max()) == (-1000, 1000)
    np.testing.assert_allclose(rate, [100/(1 + 10**(-x/400)) for x in d])
    assert '+400 Elo: 91%' in fig.alt


def test_figure_2_marks_twice_the_compute(published):
    fig = figures.elo_winrate(published)
    assert any('+152 Elo: 70.6%' in name for name in names_in(fig))
    assert fig.source == 'published'


def test_figures_5_and_6_draw_the_frontiers(published, frontiers, fit):
    curves, fitted = figures.flops_curves(published), figures.frontiers(published)
    for fig in (curves, fitted):
        assert [name for name in names_in(fig) if '×' in name][:7] == [f'{b}×{b}' for b in BOARDS]
        for boardsize, front in frontiers.groupby('boardsize'):
            color = style.boardsize_color(boardsize)
            assert any(c == color and np.array_equal(y, front.elo)
                       for c, _, y in lines_of(fig, 101)), boardsize
        assert '9×9 starts at -1947 Elo' in fig.alt and fig.source == 'published'
    assert len(curves.axes[0].lines) == 195 + 7
    assert '195 training runs' in curves.alt
    front = frontiers[frontiers.boardsize == 6]
    expected = fit.predict(6, front.train_flops)
    assert any(np.allclose(y, expected) for *_, y in lines_of(fitted, 101))
    assert '506 Elo per factor of ten' in fitted.alt


def test_figure_7(published):
    fig = figures.resid_var(published)
    drawn = [y for _, x, y in lines_of(fig, 6) if len(x) == 6]
    assert any(np.allclose(y, [.0380, .0081, .0124, .0208, .0038, .0015], atol=5e-5)
               for y in drawn)
    assert '0.81% with boards up to 5×5' in fig.alt


def test_figure_11(published):
    fig = figures.optimal_model_size(published)
    equation = 'log₁₀(size) = 0.92 · log₁₀(compute) − 9.2'
    assert equation in names_in(fig) and equation in fig.alt
    assert sum(len(x) == 10 and len(set(x)) == 10 for _, x, _ in lines_of(fig, 10)) == 7


def test_figure_3_takes_the_quickest_perfect_snapshot():
    ags = agents(boardsize=[3, 3, 3, 4, 4], elo=[-10., -20, -60, -5, 0],
                 runtime=[50., 30, 1, 7200, 9000])
    fig = figures.runtimes(ags)
    assert '3×3 30 s, 4×4 2.0 h' in fig.alt
    assert {'30 s', '2.0 h'} <= set(names_in(fig))
    with pytest.raises(ValueError, match='above -50'):
        figures.runtimes(ags.assign(elo=-100.))
    with pytest.raises(ValueError, match='runtime'):
        figures.runtimes(ags.drop(columns='runtime'))


def test_figure_4_shows_the_best_agents_posterior():
    matches = pd.DataFrame({'boardsize': [3, 3, 4], 'wins': [40, 70, 64], 'games': 128})
    fig = figures.calibrations(matches)
    boxes = [(p.get_y(), p.get_y() + p.get_height()) for p in fig.axes[0].patches]
    for (low, high), (wins, games) in zip(boxes, [(70, 128), (64, 128)]):
        assert (low, high) == pytest.approx([100*betaincinv(wins + 1, games - wins + 1, q)
                                             for q in (.05, .95)])
    assert '4×4 50% (43 to 57)' in fig.alt and '90%' in fig.alt
    narrow = figures.calibrations(matches, level=.8)
    assert narrow.axes[0].patches[0].get_height() < boxes[0][1] - boxes[0][0]
    with pytest.raises(ValueError, match='0 <= wins <= games'):
        figures.calibrations(matches.assign(games=50))


def test_figure_8():
    fig = figures.test_compute(tree_agents())
    assert {'1×2', '1×8', '1×32', '1', '4'} <= set(names_in(fig))
    assert '1×32 from -450 Elo with 1 to -250 with 4 nodes' in fig.alt
    first = fig.axes[0].lines[0].get_data()
    np.testing.assert_allclose(first[0], [n*64*layers(9, 2, 1) for n in (1, 2, 4)])
    assert list(first[1]) == [-2050, -1950, -1850]


def test_figure_9():
    fig = figures.train_test(plane_agents())
    equation = 'log₁₀(test) = −1.2 · log₁₀(train) + 0.004 · Elo + 29'
    assert equation in names_in(fig) and 'divides the test compute by 15.8' in fig.alt
    assert {'−1500', '−250'} <= set(names_in(fig))


def test_figure_10(published):
    fig = figures.direct_frontiers(published)
    assert 'direct play' in fig.axes[0].get_title(loc='left')


def test_figure_1_draws_a_finished_game():
    from boardlaw.hex import Hex
    world = Hex.parse('T.w\nTw.\nTwb')
    fig = figures.hex_game(world)
    assert 'Black has won' in fig.alt
    assert fig.axes[0].patches or fig.axes[0].collections


@pytest.mark.parametrize('name', ['frontiers', 'optimal_model_size'])
def test_figures_are_the_same_each_time(published, name):
    draw = getattr(figures, name)
    once, again = style.show(draw(published)), style.show(draw(published))
    assert once.html == again.html
    assert 'Jones 2021' in once.html and len(once.html) < 100e3


def test_growth():
    assert fits.growth(pd.Series({3: 10., 4: 70, 5: 490, 6: np.nan})) == pytest.approx(7)
