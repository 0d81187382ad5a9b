"""Predictions for larger boards: on agents whose law is known, and on the published curves."""
import json

import numpy as np
import pandas as pd
import pytest

from boardlaw import main, paper
from boardlaw.paper import data, fits, prediction

LAW = fits.ChangePoint(-270., 570., 510., -430., -4400.)


def agents(rng, boards, scatter, n_runs=4, n=13):
    """Runs on the law, each board moved by its own normal distance in log10 compute, each run
    behind its board by an exponential one."""
    frames = []
    for b in boards:
        own = rng.normal(0, scatter)
        x = np.linspace(np.log10(LAW.takeoff(b)) - 1, np.log10(LAW.compute(b)) + 1, n)
        for run in range(n_runs):
            elo = LAW.predict(b, 10**(x - own - .15*rng.exponential())) + rng.normal(0, 8, n)
            frames.append(pd.DataFrame({'boardsize': b, 'run': f'{b}-{run}', 'train_flops': 10**x,
                                        'elo': elo}))
    return pd.concat(frames, ignore_index=True)


def test_intervals_hold_as_often_as_they_say():
    """Of 25 predictions at four levels on two boards; see the module for longer counts."""
    verdicts = []
    for seed in range(25):
        found = agents(np.random.default_rng(seed), range(3, 9), .2)
        made = prediction.predict(found[found.boardsize <= 6], [7, 8], n_resamples=12, seed=seed)
        verdicts.append(prediction.outcome(made, found[found.boardsize > 6]).verdict)
    held = pd.concat(verdicts).value_counts(normalize=True)
    assert 'open' not in held and .78 < held.held < .995


def test_a_law_without_scatter_is_found():
    found = agents(np.random.default_rng(0), range(3, 10), 0.)
    made = prediction.predict(found, [10, 11], n_resamples=10)
    perfect = made.table[made.table.elo == -50].set_index('boardsize')
    # The best of four runs lies at about a quarter of the mean distance behind.
    assert np.log10(perfect.train_flops/LAW.compute(np.array([10, 11]))).abs().max() < .2
    assert made.scatter < .1 and made.boards == list(range(3, 10)) and made.n_runs == 28
    assert (made.table.low < made.table.train_flops).all()
    assert (made.table.high > made.table.train_flops).all()
    assert (perfect.high/perfect.low).loc[11] > (perfect.high/perfect.low).loc[10]
    assert made.table.groupby('boardsize').train_flops.is_monotonic_increasing.all()


def test_leverage_is_that_of_regression():
    x = np.array([3., 4, 5, 6, 9])
    design = np.stack([np.ones(5), x], 1)
    for at in (4., 10.):
        row = np.array([1, at])
        assert prediction.leverage(x, at) == pytest.approx(
            row @ np.linalg.inv(design.T @ design) @ row)


def test_distances_from_a_law():
    x = np.linspace(5, 13, 400)
    front = pd.concat([pd.DataFrame({'boardsize': b, 'train_flops': 10**x,
                                     'elo': LAW.predict(b, 10**(x - off))})
                       for b, off in [(3, .3), (4, -.2)]])
    assert prediction.distances(front, LAW).to_dict() == pytest.approx({3: .3, 4: .2}, abs=.01)


def test_published_curves_foretell_8x8_and_9x9():
    """From boards to 7x7: every level of both lies within its interval."""
    curves = paper.published()
    made = prediction.predict(curves[curves.boardsize <= 7], [8, 9, 10], n_resamples=30)
    table = prediction.outcome(made, curves).set_index('boardsize')
    assert table.verdict[[8, 9]].eq('held').all() and table.verdict[[10]].eq('open').all()
    crossings = data.crossings(data.frontier(data.best_at_zero(curves)))
    perfect = table[table.elo == -50]
    assert perfect.found[[8, 9]].tolist() == pytest.approx(crossings[[8, 9]].tolist())
    assert made.source == 'published' and (table.high/table.low).max() < 200


def test_outcomes():
    found = agents(np.random.default_rng(0), range(3, 8), .1)
    made = prediction.predict(found[found.boardsize <= 5], [6, 7], n_resamples=5)
    there = found[found.boardsize == 6]
    assert (prediction.outcome(made, there).query('boardsize == 7').verdict == 'open').all()
    # Moved far to the right, and all the way seen.
    late = there.assign(train_flops=there.train_flops*1e9)
    table = prediction.outcome(made, late).query('boardsize == 6')
    assert table.verdict.eq('did not hold').all() and table.found.notna().all()
    # Its best agent is at 0: one that is never near that has not been reached.
    weak = there[there.train_flops < LAW.takeoff(6)]
    best = weak.iloc[[0]].assign(elo=0., train_flops=weak.train_flops.max()*1e12)
    only_end = prediction.outcome(made, pd.concat([weak, best])).query('boardsize == 6')
    assert only_end.found.notna().all() and only_end.verdict.iloc[-1] == 'did not hold'


def test_a_training_that_goes_on_is_read_from_below():
    found = agents(np.random.default_rng(0), range(3, 7), 0)
    made = prediction.predict(found[found.boardsize <= 5], [6], n_resamples=5)
    begun = found[(found.boardsize == 6) & (found.elo < -400)]
    table = prediction.outcome(made, begun, below=True)
    reached = table.elo < -400
    assert reached.sum() == 2 and table.found[~reached].isna().all()
    assert table.verdict.tolist() == ['held', 'held', 'open', 'open']
    whole = prediction.outcome(made, found).found
    np.testing.assert_allclose(np.log10(table.found/whole)[reached], 0, atol=.05)
    # Read from its end it would seem to play perfectly.
    assert prediction.outcome(made, begun).found.iloc[-1] < whole.iloc[-1]/5


def test_bad_input():
    found = agents(np.random.default_rng(0), range(3, 6), .1)
    with pytest.raises(ValueError, match=r'board sizes \[5\] are not larger'):
        prediction.predict(found, [5, 6])
    with pytest.raises(ValueError, match='three are needed'):
        prediction.predict(found[found.boardsize < 5], [6])


def test_a_prediction_is_kept_and_not_replaced(tmp_path):
    found = agents(np.random.default_rng(0), range(3, 8), .1)
    made = prediction.predict(found[found.boardsize <= 5], [6, 7], n_resamples=5)
    path = prediction.save(made, tmp_path/'predictions')
    assert path.name == f'{made.date[:10]}-boards-6-7.json'
    again = prediction.load(path)
    pd.testing.assert_frame_equal(again.table, made.table)
    assert {**vars(again), 'table': 0} == {**vars(made), 'table': 0}
    with pytest.raises(FileExistsError):
        prediction.save(made, tmp_path/'predictions')
    path.write_text(json.dumps({'date': 'today'}))
    with pytest.raises(ValueError, match='holds no prediction'):
        prediction.load(path)


def test_command_line(tmp_path, capsys, monkeypatch):
    curves = paper.published()
    monkeypatch.setattr(paper, 'published', lambda: curves[curves.boardsize <= 6].assign())
    monkeypatch.setattr(fits.bootstrap, '__defaults__', (fits.headline, 5, 0))
    monkeypatch.setattr(prediction.predict, '__defaults__', (.9, 5, 0))
    main.main(['predict', '--published', '--boards', '6', '--seen', '3,4,5', '--to',
               str(tmp_path)])
    *rows, path = capsys.readouterr().out.strip().splitlines()
    assert len(rows) == 5 and path.startswith(str(tmp_path))
    main.main(['predict', '--published', '--check', path])
    assert capsys.readouterr().out.count('held') + 1 >= 4
    main.main(['predict', '--published', '--check', path, '--below'])
    read = prediction.outcome(prediction.load(path), paper.published(), below=True)
    assert f'{read.found.iloc[1]:.2e}' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='a prediction to --check'):
        main.main(['predict', '--boards', '6', '--below'])
    with pytest.raises(SystemExit):
        main.main(['predict', '--boards', '6', '--check', path])
