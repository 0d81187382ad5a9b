"""The oracle is made-up agents whose answer is known: two sets of straight climbs, one of which
costs a known number of times more, and a database made by hand."""
import numpy as np
import pandas as pd
import pytest

from boardlaw import paper, sql
from boardlaw.paper import comparison, data


def climbs(dearer=1., boards=(3, 4), n_runs=6, seed=0, **columns):
    """Runs whose Elo rises 400 a decade from -400·boardsize to 0, each up to 30 Elo behind."""
    rng = np.random.default_rng(seed)
    frames = []
    for b in boards:
        for run in range(n_runs):
            x = np.linspace(b + 2, b + 2 + b + 1, 15)    # on the plateau, and past 0
            behind = 30*rng.uniform() if run else 0
            elo = np.clip(400*(x - b - 2.5) - 400*b - behind, -400*b, -behind)
            frames.append(pd.DataFrame({
                'boardsize': b, 'run': f'{b}-{run}', 'idx': range(15), 'width': 2, 'depth': run + 1,
                'samples': 10**x/1e3, 'train_flops': dearer*10**x, 'test_nodes': 64, 'elo': elo,
                'lower': elo - 10, 'upper': elo + 10, 'exact': True, 'runtime': 10**(x - 2)}))
    return pd.concat(frames, ignore_index=True).assign(**columns)


def test_compute_ratio_of_a_known_shift():
    table = comparison.compute_ratio(climbs(), climbs(dearer=8.), elos=(-50, -200),
                                     n_resamples=30)
    assert table.index.tolist() == [(3, -200), (3, -50), (4, -200), (4, -50)]
    assert table.ratio.tolist() == pytest.approx([8]*4)
    assert (table.theirs/table.ours).tolist() == pytest.approx([8]*4)
    # Where the straight climb is at -50: 400·(x - b - 2.5) - 400·b = -50.
    assert np.log10(table.ours[3, -50]) == pytest.approx(3 + 2.5 + 3 - 1/8, abs=.02)
    assert (table.low <= 8*1.001).all() and (table.high >= 8/1.001).all()
    # The runs lie at most 30 Elo, that is 10^(30/400) = 1.19 times, apart; twice, for two sides.
    assert (table.high/table.low < 1.19**4).all()


def test_compute_ratio_of_every_board_of_the_paper():
    """The published curves against themselves made cheaper, by another factor on each board."""
    theirs = data.best_at_zero(paper.published())
    cheaper = {b: 10**(b/4) for b in range(3, 10)}
    ours = theirs.assign(train_flops=theirs.train_flops/theirs.boardsize.map(cheaper))
    table = comparison.compute_ratio(ours, theirs, elos=(-50, -100, -200), n_resamples=20)
    assert table.index.levels[0].tolist() == list(range(3, 10))
    expected = table.index.get_level_values('boardsize').map(cheaper)
    assert table.ratio.tolist() == pytest.approx(expected.tolist())
    assert (table.low <= table.ratio).all() and (table.high >= table.ratio).all()


def test_compute_ratio_where_a_frontier_does_not_get_there():
    weak = climbs(elo=-500.)
    table = comparison.compute_ratio(climbs(), weak, n_resamples=10)
    assert table.theirs.isna().all() and np.isinf(table.ratio).all()
    assert comparison.compute_ratio(weak, climbs(), n_resamples=10).ratio.eq(0).all()
    assert comparison.compute_ratio(weak, weak, n_resamples=10).ratio.isna().all()


def test_compute_ratio_reaches_infinity_with_the_only_run_that_gets_there():
    ours = climbs(n_runs=2, boards=[3])
    ours.loc[ours.run == '3-1', 'elo'] = -600.
    row = comparison.compute_ratio(ours, climbs(dearer=4., boards=[3, 9], n_runs=2),
                                   n_resamples=40).loc[3, -50]
    # One resample in four lacks the run, and then ours take infinitely long.
    assert row.ratio == pytest.approx(4) and row.high == np.inf and row.low > 3


def test_compute_ratio_needs_a_board_in_common():
    with pytest.raises(ValueError, match='no board size in common'):
        comparison.compute_ratio(climbs(boards=[3]), climbs(boards=[4]))


def test_beyond_goes_on_with_a_known_trend():
    """-50 Elo on board b costs 10^(2b + 2.375), and a hundredth of a second each FLOP."""
    ours = climbs(boards=(3, 4, 5), n_runs=3)
    table = comparison.beyond(ours, [6, 7], n_resamples=10)
    assert np.log10(table['flops', 'estimate']).tolist() == pytest.approx([14.375, 16.375], abs=.1)
    assert np.log10(table['seconds', 'estimate']).tolist() == pytest.approx([12.4, 14.4], abs=.4)
    for what in ('flops', 'seconds'):
        assert (table[what, 'low'] <= table[what, 'estimate']).all()
        assert (table[what, 'high'] >= table[what, 'estimate']*.999).all()


def test_the_best_agent_at_zero():
    ours = data.best_at_zero(climbs().assign(elo=lambda x: x.elo - 7*x.boardsize))
    assert ours.groupby('boardsize').elo.max().tolist() == [0, 0]
    assert (ours.upper - ours.elo).iloc[0] == pytest.approx(10 + 7*3)


@pytest.fixture(scope='module')
def claims():
    published = paper.published()
    theirs = data.best_at_zero(published[published.boardsize <= 5])
    ours = theirs[theirs.boardsize <= 4].assign(lower=theirs.elo - 30, upper=theirs.elo + 30,
                                                exact=True)
    ours['elo'] -= np.where(ours.boardsize == 3, 100, 0)
    ours['upper'] -= np.where(ours.boardsize == 3, 100, 0)
    return comparison.claims(ours, theirs, n_resamples=10)


def test_claims_of_the_published_curves_themselves(claims):
    """Ours are the published curves of our boards, so both columns must be the same."""
    numbers = claims[claims['read from'].isin(['text', 'curve'])]
    assert len(numbers) == 11
    assert (numbers['replica verdict'] == numbers['same boards verdict']).all()
    for end in ('', ' low', ' high'):
        np.testing.assert_allclose(numbers[f'replica{end}'], numbers[f'same boards{end}'],
                                   rtol=1e-4)
    flagged = claims[claims.reason.str.contains('table III')]
    assert flagged.number.tolist() == [3, 4]
    assert claims.loc[claims.number == 5, 'replica verdict'].tolist() == ['not tested']
    verdicts = set(claims[[c for c in claims if c.endswith('verdict')]].to_numpy().ravel())
    assert verdicts <= {'agrees', 'differs', 'not tested'}
    assert claims.reason[claims['replica verdict'] != 'agrees'].str.len().gt(5).all()


def test_claims_that_are_no_numbers_of_the_law(claims):
    assert set(claims.number.dropna()) == set(range(1, 9)), 'every claim of the paper'
    seven = claims[claims.number == 7]
    assert len(seven) == 5 and seven['replica verdict'].eq('not tested').all()
    # The best agent of 3x3 was made 100 Elo worse than exact play, that of 4x4 none.
    eight = claims[claims.number == 8]
    assert eight.replica.tolist() == [-100, 0]
    assert eight['replica verdict'].tolist() == ['differs', 'agrees']
    assert not eight.reason.str.contains('better than perfectly').any()


def test_a_rating_above_perfect_play_is_flagged():
    ours = climbs()
    ours.loc[ours.boardsize == 4, ['elo', 'lower', 'upper']] += 15    # its interval is +-10
    reasons = [row['reason'] for row in comparison._perfection(ours)]
    assert ['better than perfectly' in reason for reason in reasons] == [False, True]


def test_where_nobody_knows_perfect_play_nothing_is_said_of_it():
    ours = climbs()
    ours['exact'] = ours.boardsize == 3
    three, four = comparison._perfection(ours)
    assert three['replica verdict'] == 'agrees' and four['replica verdict'] == 'not tested'
    assert 'replica' not in four and 'no exact player' in four['reason']


def test_reasons_follow_the_numbers():
    row = pd.Series({'number': 3, 'published': 4., 'remark': 'table III', 'replica': 3.,
                     'replica low': 2.5, 'replica high': 3.2, 'replica verdict': 'differs',
                     'same boards': 4., 'same boards low': 3.9, 'same boards high': 4.1,
                     'same boards verdict': 'agrees', 'curves verdict': 'agrees'})
    assert 'so it is not the boards' in comparison._reason(row)
    assert 'holds neither 4 nor 2.06' in comparison._reason(row)
    wide = pd.Series({**row, 'replica low': 1., 'replica high': 6., 'replica verdict': 'agrees'})
    assert 'holds 4 and 2.06' in comparison._reason(wide)
    assert 'tests little' in comparison._reason(wide)
    assert 'do not confirm' not in comparison._reason(wide)
    alone = pd.Series({**wide, 'curves verdict': 'differs'})
    assert "the paper's own curves differ" in comparison._reason(alone)
    beside = pd.Series({**wide, 'replica high': 3.8})
    assert 'does not hold 4 itself' in comparison._reason(beside)
    assert 'does not hold' not in comparison._reason(wide)
    small = pd.Series({**row, 'same boards low': 2., 'same boards high': 3.,
                       'same boards verdict': 'differs'})
    assert 'small boards are different' in comparison._reason(small)
    other = pd.Series({**small, 'same boards low': 1., 'same boards high': 2.})
    assert 'not only the boards' in comparison._reason(other)
    assert 'as well, and from ours' in comparison._reason(other, every=True)
    assert 'as well, and ours agree with those' in comparison._reason(small, every=True)
    for case in (other, small):
        assert 'boards are different' not in comparison._reason(case, every=True)
    alike = pd.Series({**other, 'same boards verdict': 'agrees'})
    assert 'not the boards but the training' in comparison._reason(alike)
    assert 'agree, so it is the training' in comparison._reason(alike, every=True)


def test_both_frontiers_in_one_figure():
    ours, theirs = climbs(), climbs(dearer=8., boards=[3, 4, 5])
    fig = comparison.frontiers(ours, theirs)
    [ax] = fig.axes
    fronts = data.frontier(theirs)
    faint = [line for line in ax.lines if line.get_alpha() == .3]
    assert len(faint) == 2, 'the boards that ours have'
    assert np.array_equal(faint[0].get_ydata(), fronts[fronts.boardsize == 3].elo)
    assert len([line for line in ax.lines if line.get_linewidth() == 2.6]) == 2
    low, high = ax.get_xlim()
    assert low <= ours.train_flops.min() and high >= theirs[theirs.boardsize < 5].train_flops.max()
    assert '3×3: ours at' in fig.alt and 'Jones 2021' in fig.source


@pytest.fixture
def database(tmp_path):
    """Two runs on 3x3 with an agent each and the exact player, with games between all."""
    path = sql.create(tmp_path/'ours.sqlite')
    with sql.use(path):
        sql.add_run('perfect 3x3', 'perfect', 3, 0, 0, 0)
        exact = sql.add_agent(sql.add_snap('perfect 3x3', 0, 0, 0), nodes=0, c=0)
        ids = []
        for k, (run, seed) in enumerate([('a', 0), ('b', 1)]):
            params = {'n_envs': 512, 'batch_size': 512*(k + 1), 'lr': 3e-3, 'rule': 'corrected',
                      'c_puct': 1/4, 'nodes': 64, 'seed': seed}
            sql.add_run(run, 'bee/3', 3, 2, k + 1, 64, {'params': params, 'seed': seed,
                                                        'version': '1.2', 'machine': 'one'})
            for n in range(2):
                snap = sql.add_snap(run, n, 1000*(n + 1), 1e7*(n + 1), {'seconds': 30*(n + 1),
                                                                        'cpu_seconds': 36*(n + 1)})
                ids.append(sql.add_agent(snap, 64, 1/4))
        wins = {ids[0]: 10, ids[1]: 30, ids[2]: 12, ids[3]: 40}
        rows = [{'black_agent': a, 'white_agent': b, 'black_wins': w if a == i else 50 - w,
                 'white_wins': 50 - w if a == i else w, 'moves': 400, 'times': 1.}
                for i, w in wins.items() for a, b in ((i, exact), (exact, i))]
        top = ids[3]
        rows += [{'black_agent': a, 'white_agent': b, 'black_wins': 30 if a == top else 20,
                  'white_wins': 20 if a == top else 30, 'moves': 400, 'times': 1.}
                 for i in ids[:3] for a, b in ((i, top), (top, i))]
        sql.save_trials(rows)
    return path


def test_a_board_whose_best_agent_cannot_be_perfect_is_left_out(database, tmp_path):
    """Of two boards without an exact player one counts: there Black wins what the best plays with
    itself."""
    def add(boardsize, black_wins, games=400):
        name = str(boardsize)
        sql.add_run(name, f'bee/{name}', boardsize, 2, 1, 64, {
            'params': {'rule': 'corrected', 'c_puct': 1/4, 'nodes': 64, 'seed': 0}})
        ids = [sql.add_agent(sql.add_snap(name, n, 1000*(n + 1), 1e7*(n + 1), {
            'seconds': 1, 'cpu_seconds': 1}), 64, 1/4) for n in range(2)]
        rows = [(ids[1], ids[0], 40, 10), (ids[0], ids[1], 15, 35)]
        rows += [(ids[1], ids[1], black_wins, games - black_wins)] if games else []
        sql.save_trials([{'black_agent': a, 'white_agent': b, 'black_wins': x, 'white_wins': y,
                          'moves': 400, 'times': 1., 'study': 'mirror' if a == b else None}
                         for a, b, x, y in rows])

    with sql.use(database):
        add(7, 360), add(8, 300), add(9, 0, games=0)
    # Black's 9 in 10 are -36 Elo; 3 in 4 are -95, and -77 at the end of the interval.
    with pytest.warns(UserWarning, match='left out: the best agents on 8x8 are more than 50 Elo'):
        ours = data.replica(target=database)
    assert set(ours.boardsize) == {3, 7, 9}, 'nothing is known against the last'
    every = data.replica(target=database, unfinished=True)
    assert every.groupby('boardsize').finished.all().to_dict() == {
        3: True, 7: True, 8: False, 9: True}
    assert every[every.finished].equals(ours)
    other = sql.create(tmp_path/'8.sqlite')
    with sql.use(other):
        add(8, 300)
    with pytest.raises(ValueError, match='train on, or pass unfinished=True'):
        data.replica(target=other)


def test_where_the_runs_come_from(database):
    ours = data.replica(target=database)
    each = comparison.runs(ours, database)
    assert each.index.tolist() == ['a', 'b'] and each.seed.tolist() == [0, 1]
    assert each.snapshots.tolist() == [2, 2] and each.samples.tolist() == [2000, 2000]
    assert each.hours.tolist() == pytest.approx([72/3600]*2)
    assert each.batch_size.tolist() == [512, 1024] and each.machine.eq('one').all()
    assert (each.lower < each.elo).all() and (each.elo < each.upper).all()
    board = comparison.boards(ours, database).loc[3]
    assert board[['runs', 'networks', 'snapshots', 'samples']].tolist() == [2, 2, 4, 4000]
    assert board.games == 4*100 + 3*100 and board['rating hours'] == pytest.approx(14/3600)
    assert board.hours == pytest.approx(144/3600)
    assert board.elo == each.elo.max() and board.seed == '0, 1' and board.batch_size == '512, 1024'


def test_what_a_gpu_trained_is_timed_by_the_clock(database):
    assert data.replica(target=database).runtime.tolist() == [36, 72, 36, 72]
    with sql.use(database):
        sql.add_run('b', 'bee/3', 3, 2, 2, 64, {'machine': 'x86_64, Linux, torch 3, GPU NVIDIA X'})
    data._replica.cache_clear()
    ours = data.replica(target=database)
    assert ours.groupby('run').runtime.apply(list).to_dict() == {'a': [36, 72], 'b': [30, 60]}


def test_direct_ratings_are_those_of_the_games_with_the_top_agent(database):
    direct = data.direct(target=database)
    assert len(direct) == 4 and direct.attrs['source'] == 'replica'
    assert direct.elo.max() == 0 and (direct.elo == 0).sum() == 1
    # 40 wins of 100, with half a pseudo-win each way.
    assert direct.elo.min() == pytest.approx(400*np.log10(40.5/60.5))
