"""Statistics: what a channel's rows become, and that no row is lost or doubled on the way.

The oracle of resampling is arithmetic by hand, and loops in plain Python over bytes unpacked with
struct."""

import itertools
import multiprocessing
import os
import random
import re
import resource
import signal
import struct
import time
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

from boardlaw import pavlov
from boardlaw.pavlov import files, kinds, npr, runs, stats, storage, writing

nan, inf = float('nan'), float('inf')
fork = multiprocessing.get_context('fork')


pytestmark = pytest.mark.usefixtures('output')


def put(run, kind, channel, rows, types=None):
    """Write rows (seconds since creation, fields ...) as one process would."""
    names = kinds.KINDS[kind].fields
    if kind == 'quantiles':
        names = [f'qs.{i}' for i in range(len(rows[0]) - 1)]
    dtype = npr.dtype(dict(zip(names, types or ['<f8'] * len(names))))
    start = np.datetime64(runs.created(run).tz_localize(None), 'us')
    array = np.array([(start + np.timedelta64(round(1e6 * t), 'us'), *r) for t, *r in rows], dtype)
    path = files.new_file(run, f'stats.{channel}.{{n}}.npr', kind=kind)
    path.write_bytes(npr.header(dtype) + array.tobytes())
    return path


def check(actual, expected, columns=None):
    assert list(actual.index.total_seconds()) == [60 * i for i in range(len(expected))]
    if columns:
        assert list(actual.columns) == columns
    np.testing.assert_allclose(actual.to_numpy(), expected, rtol=1e-12)


def test_resampling_of_each_kind_by_hand():
    run = runs.new_run()
    ts = [10, 50, 70, 200]  # bins of a minute: two rows, one, none, one
    x = [(t, v) for t, v in zip(ts, [3., 5., 2., 7.])]
    count = [(t, v) for t, v in zip(ts, [4, 2, 3, 5])]
    pair = [(10, 6., 4.), (50, 9., 1.), (70, 2., 8.), (200, 1., 4.)]
    by_hand = {
        'last': (x, [5, 2, 2, 7]),
        'silent': (x, [5, 2, 2, 7]),
        'max': (x, [5, 2, nan, 7]),
        'max_percent': (x, [5, 2, nan, 7]),
        'std': (x, [2**.5, nan, nan, nan]),
        'mean': (pair, [15/5, 2/8, nan, 1/4]),
        'mean_percent': (pair, [15/5, 2/8, nan, 1/4]),
        'cumsum': (count, [6, 9, 9, 14]),
        'rate': (count, [6/60, 3/60, 0, 5/60]),
        'period': (count, [60/6, 60/3, inf, 60/5]),
        'duty': (x, [8/60, 2/60, 0, 7/60]),
        'maxrate': (pair, [5/15, 8/2, nan, 4/1]),
        # 10 s at 3, 40 s at 5; 20 s at 2; 130 s at 7
        'timeaverage': (x, [(10*3 + 40*5)/50, 2, nan, 7]),
    }
    for kind, (rows, expected) in by_hand.items():
        put(run, kind, f'a.{kind}', rows)
        values = stats.pandas(run, f'a.{kind}', rule='60s')
        assert values.name == f'a.{kind}'
        check(values, expected)
    # precisions 1 and 1/4: mu = (1*1 + 4/4)/(5/4), sigma = (mean precision)^-1/2
    put(run, 'mean_std', 'elo', [(10, 1., 1.), (50, 4., 2.), (70, -3., .5)])
    μ, σ = 2/1.25, .625**-.5
    check(stats.pandas(run, 'elo'), [[μ, σ, μ - 2*σ, μ + 2*σ], [-3, .5, -4, -2]],
          ['μ', 'σ', 'μ-', 'μ+'])
    check(stats.pandas(run, 'elo', field='σ'), [σ, .5])
    put(run, 'quantiles', 'qs', [(10, 0., 1., 2.), (50, 2., 4., 9.), (130, 1., 1., 1.)])
    check(stats.pandas(run, 'qs'), [[1, 2.5, 5.5], [nan] * 3, [1, 1, 1]], ['0', '50', '100'])
    assert set(kinds.KINDS) == {*by_hand, 'mean_std', 'quantiles'}
    assert stats.channels(run) == {c: c.removeprefix('a.') for c in
                                   sorted(f'a.{k}' for k in by_hand)} | {
                                       'elo': 'mean_std', 'qs': 'quantiles'}


def test_bins_start_at_creation_and_empty_ones_are_there():
    run = runs.new_run()
    put(run, 'mean', 'm', [(130, 4., 2.)])
    put(run, 'rate', 'r', [(130, 6)])
    put(run, 'last', 'l', [(130, 6.)])
    check(stats.pandas(run, 'm'), [nan, nan, 2])
    check(stats.pandas(run, 'r'), [0, 0, 6/60])
    check(stats.pandas(run, 'l'), [nan, nan, 6])
    assert list(stats.pandas(run, 'r', '1h')) == [6/130]  # younger than a bin: by its age
    # at a boundary a row is in the bin that starts there
    put(run, 'cumsum', 'c', [(0, 1), (60, 1), (119.999999, 1), (120, 1)])
    check(stats.pandas(run, 'c'), [1, 3, 4])
    # a clock that is behind
    put(run, 'cumsum', 'early', [(-5, 1), (5, 1)])
    check(stats.pandas(run, 'early'), [2])
    put(run, 'rate', 'instant', [(0, 3)])
    check(stats.pandas(run, 'instant'), [3/60])


def test_rule_none_gives_the_rows():
    run = runs.new_run()
    put(run, 'mean', 'm', [(130, 4., 2), (131.5, 5., 3)], ['<f8', '<i8'])
    df = stats.pandas(run, 'm', rule=None)
    assert list(df.columns) == ['total', 'count'] and list(df['count']) == [2, 3]
    assert list(df.index) == [pd.Timedelta('130s'), pd.Timedelta('131.5s')]
    assert list(stats.pandas(run, 'm', None, 'total')) == [4, 5]


@pytest.mark.parametrize('rule', ['', 'x', '0s', '-5s', 'ME', None, 3.5j])
def test_rules_that_are_none(rule):
    with pytest.raises(ValueError, match='bin length'):
        kinds.width(rule)
    assert kinds.width('5min') == kinds.width('300s')


def test_rules_too_fine_are_refused():
    run = runs.new_run()
    put(run, 'rate', 'r', [(1e8, 1)])
    with pytest.raises(ValueError, match='longer rule'):
        stats.pandas(run, 'r', '1ms')


def unpack(path):
    """Rows of a file by struct alone."""
    data = path.read_bytes()
    size = struct.unpack('<I', data[8:12])[0]
    fields = re.findall(r"\('(\S+)', '<(\w+)", data[12:12 + size].decode())
    codes = ''.join({'M8': 'q', 'i8': 'q', 'f8': 'd'}[c] for _, c in fields)
    return [dict(zip([n for n, _ in fields], r))
            for r in struct.iter_unpack('<' + codes, data[12 + size:])]


def plain(kind, rows, created, seconds):
    """Resampling in plain loops."""
    of = [(r['_time'] - created) // (seconds * 10**6) for r in rows]
    n_bins = max(of) + 1
    bins = [[] for _ in range(n_bins)]
    for i, r in zip(of, rows):
        bins[i].append(r)
    total = [[sum(r.get(k, 0) for r in b) for b in bins] for k in ('total', 'count')]
    if kind == 'mean':
        return [t / c if b else nan for b, t, c in zip(bins, *total)]
    if kind == 'cumsum':
        return list(itertools.accumulate(total[0]))
    if kind == 'rate':
        return [c / seconds for c in total[1]]
    if kind == 'max':
        return [max((r['x'] for r in b), default=nan) for b in bins]
    if kind == 'silent':
        newest = [b[-1]['x'] if b else None for b in bins]
        return list(itertools.accumulate(newest, lambda old, new: old if new is None else new))
    if kind == 'mean_std':
        ws = [[r['σ']**-2 for r in b] for b in bins]
        μ = [sum(w * r['μ'] for w, r in zip(ws, b)) / sum(ws) if b else nan
             for ws, b in zip(ws, bins)]
        σ = [(sum(w) / len(w))**-.5 if w else nan for w in ws]
        return [[m, s, m - 2*s, m + 2*s] for m, s in zip(μ, σ)]


@pytest.mark.parametrize('seconds', [10, 60])
def test_every_channel_of_a_2021_run(old, output, seconds):
    created = runs.created(old).value // 1000
    seen = set()
    for channel, kind in stats.channels(old).items():
        paths = sorted((output / 'pavlov' / old).glob(f'stats.{channel}.[0-9].npr'))
        rows = sorted([r for p in paths for r in unpack(p)], key=lambda r: r['_time'])
        assert len(stats.array(old, channel)) == len(stats.pandas(old, channel, None)) == len(rows)
        values = stats.pandas(old, channel, f'{seconds}s')
        np.testing.assert_allclose(values.to_numpy(), plain(kind, rows, created, seconds),
                                   rtol=1e-9, err_msg=channel)
        seen.add(kind)
    assert seen == {'mean', 'silent', 'cumsum', 'rate', 'max', 'mean_std'}
    assert stats.pandas(old, 'count.samples').iloc[-1] == 300 * 256 + 5 * 10  # two processes
    # made by hand: rows with a total of 0 and 1
    assert stats.pandas(old, 'step-rate.chunks-check').iloc[-1] == pytest.approx(
        np.mean([r['total'] for r in unpack(output / 'pavlov' / old /
                 'stats.step-rate.chunks-check.0.npr')]) / 2, rel=1e-12)


def test_we_write_the_bytes_of_2021(old, output):
    for file in (output / 'pavlov' / old).glob('stats.*.npr'):
        length, dtype, rows = npr.measure(file)
        assert npr.header(dtype) + npr.read(file).tobytes() == file.read_bytes()
        assert length % 64 == 0 and len(npr.read(file)) == rows


def test_channels_match_by_whole_name(old):
    assert stats.pandas(old, 'noise-scale', None).shape == (300, 2)
    for name in ('noise', 'count', 'count.samples.1', 'step-rate.chunk', 'noise-scale.0'):
        with pytest.raises(pavlov.NotFound, match='no channel'):
            stats.pandas(old, name)
    run = runs.new_run()
    for channel, x in (('a', 1.), ('a', 2.), ('a.1', 9.)):
        put(run, 'last', channel, [(x, x)])
    assert list(stats.array(run, 'a')['x']) == [1, 2] and list(stats.array(run, 'a.1')['x']) == [9]


def test_missing_channels_say_what_is_near_or_not_downloaded(old, output):
    with pytest.raises(pavlov.NotFound, match='loss.value'):
        stats.pandas(old, 'loss.valu')
    (output / 'pavlov' / old / 'stats.loss.value.0.npr').unlink()
    with pytest.raises(pavlov.NotFound, match='not here: download'):
        stats.pandas(old, 'loss.value')
    assert 'loss.value' not in stats.channels(old) and 'loss.policy' in stats.channels(old)


@pytest.mark.parametrize('kind', [k for k in kinds.KINDS if k != 'timeaverage'])
def test_rows_of_many_writers_count_as_if_one_had_written_them(kind):
    rng = np.random.default_rng(len(kind))
    n_fields = 5 if kind == 'quantiles' else len(kinds.KINDS[kind].fields)
    rows = [(t, *rng.uniform(.1, 3, n_fields)) for t in np.sort(rng.uniform(0, 400, 60)).round(6)]
    run = runs.new_run()
    put(run, kind, 'one', rows)
    writer = rng.integers(3, size=60)
    for i in range(3):
        put(run, kind, 'many', [r for r, w in zip(rows, writer) if w == i])
    one, many = (np.asarray(stats.pandas(run, c)) for c in ('one', 'many'))
    np.testing.assert_allclose(many, one, rtol=1e-12)
    np.testing.assert_array_equal(stats.array(run, 'many'), stats.array(run, 'one'))


def test_timeaverage_knows_its_writers():
    run = runs.new_run()
    put(run, 'timeaverage', 'busy', [(10, 1.), (30, 0.)])
    put(run, 'timeaverage', 'busy', [(20, .5)])
    check(stats.pandas(run, 'busy'), [(10*1 + 20*0 + 20*.5) / 50])


def test_files_of_different_number_types_merge():
    run = runs.new_run()
    put(run, 'cumsum', 'c', [(1, 2), (3, 4)], ['<i8'])
    put(run, 'cumsum', 'c', [(2, .5)])
    assert list(stats.array(run, 'c')['total']) == [2, .5, 4]
    check(stats.pandas(run, 'c'), [6.5])


def test_half_a_row_at_the_end_is_dropped():
    run = runs.new_run()
    path = put(run, 'mean', 'm', [(1, 1., 1.), (2, 5., 1.), (3, 9., 1.)])
    whole = path.read_bytes()
    for cut in range(1, 24):
        path.write_bytes(whole[:-cut])
        assert list(stats.array(run, 'm')['total']) == [1, 5]
        assert stats.offsets(run) == {'stats.m.0.npr': 2}
    path.write_bytes(b'')  # the process died before the header
    assert len(stats.array(run, 'm')) == 0 and np.isnan(stats.pandas(run, 'm')).all()
    assert len(stats.pandas(run, 'm', None)) == 0


def test_files_that_are_not_listed_are_read(output):
    run = runs.new_run()
    for kind, *fields in (('mean', 1, 2), ('rate', 3), ('mean_std', 0, 1), ('last', 1)):
        put(run, kind, kind, [(1, *fields)])
    put(run, 'max', 'known', [(1, 2.)])
    second = put(run, 'max', 'known', [(2, 1.)])
    with runs.update(run) as info:
        listed = info['_files'].pop('stats.known.0.npr')
        info['_files'] = {second.name: info['_files'][second.name]}
    assert listed['kind'] == 'max'
    assert stats.channels(run) == {'known': 'max', 'last': 'last', 'mean': 'mean',
                                   'mean_std': 'mean_std', 'rate': 'rate'}
    check(stats.pandas(run, 'known'), [2])


def test_a_kind_of_another_time_gives_its_rows():
    run = runs.new_run()
    put(run, 'last', 'x', [(1, 2.)])
    with runs.update(run) as info:
        info['_files']['stats.x.0.npr']['kind'] = 'histogram'
    assert list(stats.pandas(run, 'x', None)['x']) == [2]
    with pytest.raises(ValueError, match='histogram'):
        stats.pandas(run, 'x')


# Writing

def test_functions_write_their_kinds(output):
    run = runs.new_run()
    before = np.datetime64(time.time_ns() // 1000, 'us')
    with stats.to_run(run):
        stats.mean('g.mean', 6, 4), stats.mean_percent('mean_percent', 1)
        stats.last('last', 1.5), stats.max('max', 2.), stats.max_percent('max_percent', .5)
        stats.std('std', 1.), stats.cumsum('cumsum', 3), stats.rate('rate'), stats.period('period')
        stats.duty('duty', .25), stats.maxrate('maxrate', .5, 2)
        stats.timeaverage('timeaverage', 1), stats.mean_std('mean_std', 1., .5)
        stats.quantiles('quantiles', [0, 1, 2])
        stats.silent('silent', torch.tensor(3.)), stats.line('line', [2, 1], torch.tensor([20, 10]))
    after = np.datetime64(time.time_ns() // 1000, 'us')
    assert stats.channels(run) == {'g.mean' if k == 'mean' else k: k for k in
                                   [*kinds.KINDS, 'line']}
    values = {c: stats.array(run, c) for c in stats.channels(run) if c != 'line'}
    assert all(before <= a['_time'][0] <= after for a in values.values())
    assert values['g.mean'].dtype == npr.dtype({'total': '<i8', 'count': '<i8'})
    assert values['maxrate'].dtype == npr.dtype({'duration': '<f8', 'count': '<i8'})
    assert values['quantiles'].dtype.names == ('_time', 'qs.0', 'qs.1', 'qs.2')
    assert values['silent']['x'] == [3]
    line = stats.pandas(run, 'line')
    assert list(line.index) == [1, 2] and list(line) == [10, 20]
    assert stats.array(run, 'line')['xs'].tolist() == [2, 1]
    entry = runs.info(run)['_files']['stats.g.mean.0.npr']
    assert entry['kind'] == 'mean' and entry['_pattern'] == 'stats.g.mean.{n}.npr'
    assert runs.info(run)['_files']['stats.line.npz']['kind'] == 'line'


def test_outside_of_a_run_nothing_happens(output):
    stats.mean('x', 1), stats.line('x', [1], [1]), stats.quantiles('x', [1])
    run = runs.new_run()
    with stats.to_run(run):
        pass
    stats.mean('x', 1)
    assert stats.channels(run) == {}


def test_inner_blocks_and_errors_restore_the_outer_run():
    a, b = runs.new_run(), runs.new_run()
    with stats.to_run(a):
        with pytest.raises(KeyError), stats.to_run(b):
            stats.last('x', 1)
            raise KeyError
        stats.last('x', 2)
    assert [stats.array(r, 'x')['x'].tolist() for r in (a, b)] == [[2], [1]]


def test_numbers_of_all_sorts_and_widening():
    run = runs.new_run()
    values = [1, np.int32(2), torch.tensor(3), True, 4.5, np.float32(.5), torch.tensor(.25), 2**70,
              nan, -inf, 7]
    with stats.to_run(run):
        for v in values:
            stats.last('x', v)
    assert stats.offsets(run) == {'stats.x.0.npr': 4, 'stats.x.1.npr': 7}
    assert stats.array(run, 'x')['x'].tolist() == pytest.approx(
        [1, 2, 3, 1, 4.5, .5, .25, 2.**70, nan, -inf, 7], nan_ok=True)
    assert npr.read(files.path(run, 'stats.x.0.npr'))['x'].dtype == '<i8'


@pytest.mark.parametrize('value', ['1', None, torch.ones(2), [1], 1j])
def test_what_is_not_a_number_is_refused_and_loses_nothing(value):
    run = runs.new_run()
    with stats.to_run(run):
        stats.last('x', 1)
        with pytest.raises(TypeError, match="'x' takes numbers"):
            stats.last('x', value)
        with pytest.raises(TypeError):
            stats.last('y', value)
        stats.last('x', 2)
    assert stats.array(run, 'x')['x'].tolist() == [1, 2]
    assert stats.channels(run) == {'x': 'last'}  # nothing was begun for y


@pytest.mark.parametrize('channel', ['', '.', 'a.', '.a', 'a..b', 'a/b', '../x', 'a b', 3, None])
def test_bad_channel_names(channel):
    with stats.to_run(runs.new_run()):
        for write in (stats.last, lambda c, x: stats.line(c, [x], [x])):
            with pytest.raises(ValueError, match='is not a channel'):
                write(channel, 1)


def test_a_channel_has_one_kind():
    run = runs.new_run()
    with stats.to_run(run):
        stats.last('x', 1)
        with pytest.raises(ValueError, match='is a last; it cannot also be a mean'):
            stats.mean('x', 1)
    with stats.to_run(run), pytest.raises(ValueError, match='cannot also be a max'):
        stats.max('x', 1)
    with stats.to_run(run):
        stats.quantiles('q', [1, 2])
        with pytest.raises(TypeError, match='2 numbers are needed'):
            stats.quantiles('q', [1, 2, 3])


def test_lines_must_match():
    with stats.to_run(runs.new_run()):
        for xs, ys in (([1], [1, 2]), ([[1]], [[1]])):
            with pytest.raises(ValueError, match='one length'):
                stats.line('x', xs, ys)
        with pytest.raises(TypeError):
            stats.line('x', ['a'], [1])


def test_rows_reach_the_disk_in_time(monkeypatch):
    run, now = runs.new_run(), time.time_ns()
    monkeypatch.setattr(writing.time, 'time_ns', lambda: now)
    with stats.to_run(run) as writer:
        stats.last('x', 1)
        assert len(stats.array(run, 'x')) == 0
        now += 1_100_000_000
        stats.last('x', 2)  # a second has passed
        assert len(stats.array(run, 'x')) == 2
        stats.last('x', 3)
        writer.flush()
        assert len(stats.array(run, 'x')) == 3
        stats.last('x', 4)
        assert writer.offsets() == {'stats.x.0.npr': 4}
    assert stats.array(run, 'x')['_time'][-1] == np.datetime64(now // 1000, 'us')


def test_a_full_disk_costs_no_row():
    run = runs.new_run()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with stats.to_run(run) as writer:
        for i in range(100):
            stats.last('x', i)
        writer.flush()
        for i in range(100, 1000):
            stats.last('x', i)
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 500 * 16 + 5, hard))
        try:
            for _ in range(2):
                with pytest.raises(OSError, match=r'stats\.x\.0\.npr'):
                    writer.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert stats.array(run, 'x')['x'].tolist()[:100] == list(range(100))
        stats.last('x', 1000)
    assert stats.array(run, 'x')['x'].tolist() == list(range(1001))


def test_a_disk_too_full_to_begin_a_channel_leaves_no_ruin(monkeypatch):
    run = runs.new_run()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with stats.to_run(run) as writer:
        stats.last('x', 1)
        path = files.new_file(run, 'stats.y.{n}.npr', kind='last')
        with monkeypatch.context() as patch:
            patch.setattr(files, 'new_file', lambda *args, **kwargs: path)  # listed already
            resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))  # half a header
            try:
                with pytest.raises(OSError, match='stats.y.0.npr'):
                    stats.last('y', 2)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not path.exists()
        stats.last('y', 3)
        assert writer.offsets() == {'stats.x.0.npr': 1, 'stats.y.1.npr': 1}
    assert stats.array(run, 'y')['x'].tolist() == [3]


def test_a_forked_process_writes_files_of_its_own():
    run = runs.new_run()
    with stats.to_run(run, 'training') as writer:
        stats.last('x', 1)  # waits in memory: the child must not write it too

        def child():
            stats.last('x', 2)
            writer.flush()
        worker = fork.Process(target=child, name='child')
        worker.start(), worker.join()
        assert worker.exitcode == 0
        stats.last('x', 3)
        writer.flush()
        assert stats.offsets(run, 'training') == {'stats.x.0.npr': 2}
        assert stats.offsets(run, 'child') == {'stats.x.1.npr': 1}


def _write_rows(run, seed):
    with stats.to_run(run) as writer:
        for i in range(300):
            for c in 'abc':
                stats.cumsum(f'count.{c}', 1 + seed)
            if i % 7 == seed:
                writer.flush()


def test_processes_write_one_run_at_once():
    run = runs.new_run()
    workers = [fork.Process(target=_write_rows, args=(run, i)) for i in range(4)]
    [w.start() for w in workers]
    while any(w.is_alive() for w in workers):
        for channel in stats.channels(run):
            stats.pandas(run, channel, '1s')  # never an error in between
    assert [w.exitcode for w in workers] == [0] * 4
    assert len(stats.offsets(run)) == 12 and set(stats.offsets(run).values()) == {300}
    for c in 'abc':
        assert stats.pandas(run, f'count.{c}').iloc[-1] == 300 * (1 + 2 + 3 + 4)


# Savepoints

def test_offsets_truncate_and_append_bring_back_a_savepoint():
    run = runs.new_run()
    with stats.to_run(run, 'arena'):
        stats.last('elo', 1)
    with stats.to_run(run, 'training') as writer:
        stats.last('x', 1), stats.last('x', 2), stats.last('wide', 1)
        saved = writer.offsets()
        stats.last('x', 3), stats.last('late', 1), stats.last('wide', .5), stats.last('elo', 2)
    with stats.to_run(run, 'arena'):
        stats.last('elo', 3)
    assert saved == {'stats.x.0.npr': 2, 'stats.wide.0.npr': 1}
    stats.truncate(run, saved, 'training')
    assert stats.offsets(run, 'training') == saved
    assert sorted(stats.channels(run)) == ['elo', 'wide', 'x']
    assert stats.array(run, 'elo')['x'].tolist() == [1, 3]  # the other process's rows are whole
    files.path(run, 'stats.x.0.npr').open('ab').write(b'half')
    with stats.to_run(run, 'training', append=True):
        stats.last('x', 4), stats.last('late', 5), stats.last('wide', .25)
    assert stats.array(run, 'x')['x'].tolist() == [1, 2, 4]
    assert stats.array(run, 'wide')['x'].tolist() == [1, .25]
    assert stats.offsets(run, 'training') == {
        'stats.x.0.npr': 3, 'stats.late.0.npr': 1, 'stats.wide.0.npr': 1, 'stats.wide.1.npr': 1}
    stats.truncate(run, {})
    assert stats.channels(run) == {}


def test_truncate_keeps_what_it_cannot_cut():
    run = runs.new_run()
    with stats.to_run(run):
        stats.last('x', 1)
    with pytest.warns(UserWarning, match='fewer than the 5'):
        stats.truncate(run, {'stats.x.0.npr': 5, 'stats.gone.0.npr': 0})
    with pytest.warns(UserWarning, match='gone'):
        stats.truncate(run, {'stats.x.0.npr': 1, 'stats.gone.0.npr': 2})
    assert stats.array(run, 'x')['x'].tolist() == [1]


def test_append_needs_a_name_that_nobody_else_holds():
    run = runs.new_run()
    with pytest.raises(ValueError, match='needs the name'):
        with stats.to_run(run, append=True):
            pass
    with stats.to_run(run, 'training'), pytest.raises(RuntimeError, match='another process'):
        with stats.to_run(run, 'training', append=True):
            pass


N_STEPS = 60


def _train(run, delay=0.):
    """A training with a savepoint every ten steps, that continues from the last."""
    try:
        saved = storage.load_latest(run)
    except pavlov.NotFound:
        saved = {'step': 0, 'x': torch.zeros(3), 'offsets': {}}
    stats.truncate(run, saved['offsets'], 'training')
    with stats.to_run(run, 'training', append=True) as writer:
        x = saved['x']
        for step in range(saved['step'], N_STEPS):
            x = x * 1.5 % 7 + step
            stats.mean('loss.value', x[0], step + 1)
            stats.cumsum('count.samples', 3 if step < 33 else 2.5)  # becomes floats on the way
            if step > 25:
                stats.max('late', x[1])
            time.sleep(delay)
            if step % 3 == 0:
                writer.flush()
            if step % 10 == 9:
                storage.save_snapshot(run, step // 10, {'x': x})
                storage.save_latest(run, {'step': step + 1, 'x': x, 'offsets': writer.offsets()})


def _numbers_of(run):
    return {c: [tuple(r)[1:] for r in stats.array(run, c).tolist()]
            for c in ('loss.value', 'count.samples', 'late')}, stats.offsets(run, 'training')


def test_killed_and_resumed_runs_equal_a_straight_one():
    torch.set_num_threads(1)
    rng = random.Random(0)
    straight, killed = runs.new_run(suffix='straight'), runs.new_run(suffix='killed')
    _train(straight)
    with stats.to_run(killed, 'arena'):
        stats.last('elo', 1)
    kills = 0
    for _ in range(60):
        worker = fork.Process(target=_train, args=(killed, .01))
        worker.start()
        worker.join(rng.uniform(.03, .15) if kills < 8 else None)
        if worker.is_alive():
            os.kill(worker.pid, signal.SIGKILL)
            kills += 1
        worker.join()
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            files.pandas(killed), [stats.pandas(killed, c) for c in stats.channels(killed)]
        if worker.exitcode == 0:
            break
        assert worker.exitcode == -signal.SIGKILL
    assert kills >= 3 and worker.exitcode == 0
    assert _numbers_of(killed) == _numbers_of(straight)
    assert torch.equal(storage.load_latest(killed)['x'], storage.load_latest(straight)['x'])
    assert storage.snapshots(killed).name.tolist() == storage.snapshots(straight).name.tolist()
    assert stats.array(killed, 'elo')['x'].tolist() == [1]


# Damage

def test_truncated_time_series_are_read_or_refused(old, output):
    path = output / 'pavlov' / old / 'stats.loss.value.0.npr'
    whole, rows = path.read_bytes(), stats.array(old, 'loss.value')
    for size in [*range(0, 195), *range(195, 260, 9), len(whole) - 1]:
        path.write_bytes(whole[:size])
        if 0 < size < 192:
            with pytest.raises(pavlov.CorruptFile, match=r'stats\.loss\.value\.0\.npr'):
                stats.array(old, 'loss.value')
        else:
            n = max(size - 192, 0) // 24
            assert np.array_equal(stats.array(old, 'loss.value')['total'], rows['total'][:n])


def test_flipped_bytes_end_in_rows_or_one_error(old, output):
    path = output / 'pavlov' / old / 'stats.loss.value.0.npr'
    whole, rng = path.read_bytes(), random.Random(1)
    ends = {'read': 0, 'refused': 0}
    for i in range(1000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(250 if rng.random() < .7 else len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            stats.pandas(old, 'loss.value') if i % 10 == 0 else npr.read(path)
            ends['read'] += 1
        except pavlov.CorruptFile as e:
            assert path.name in str(e)
            ends['refused'] += 1
    assert min(ends.values()) > 20, ends


def header(text):
    data = text.encode()
    return b'\x93NUMPY\x03\x00' + struct.pack('<I', len(data)) + data


HOSTILE = {
    'another kind': b'SQLite format 3\0' + bytes(500),
    'version 1': b'\x93NUMPY\x01\x00\x76\x00' + b' ' * 300,
    'huge header': b'\x93NUMPY\x03\x00\xff\xff\xff\x7f' + b' ' * 300,
    'objects': header("{'descr': [('_time', '<M8[us]'), ('x', '|O')], 'shape': (0,)}") + bytes(64),
    'strings': header("{'descr': [('_time', '<M8[us]'), ('x', '<U900000000')]}") + bytes(64),
    'plain array': header("{'descr': '<f8', 'shape': (3,)}") + bytes(24),
    'no time': header("{'descr': [('x', '<f8')]}") + bytes(24),
    'twice': header("{'descr': [('_time', '<M8[us]'), ('x', '<f8'), ('x', '<f8')]}") + bytes(24),
    'nested': header("{'descr': [('_time', '<M8[us]'), ('x', [('y', '<f8')])]}") + bytes(24),
    'code': header("__import__('os').system('touch pwned')"),
    'deep': header('[' * 5000),
    'deeper': header('-' * 15000 + '1'),
    'not text': b'\x93NUMPY\x03\x00\x04\x00\x00\x00\xff\xfe\xfd\xfc',
    'wrong fields': header("{'descr': [('_time', '<M8[us]'), ('x', '<f8')]}") + bytes(32),
    'no dict': header('[1, 2]'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_time_series_are_refused(old, output, name, monkeypatch):
    monkeypatch.chdir(output)
    path = output / 'pavlov' / old / 'stats.loss.value.0.npr'
    path.write_bytes(HOSTILE[name])
    for read in (stats.array, stats.pandas):
        with pytest.raises(pavlov.CorruptFile, match=r'stats\.loss\.value\.0\.npr'):
            read(old, 'loss.value')
    assert not (output / 'pwned').exists()
    assert len(stats.pandas(old, 'loss.policy')) == 2  # the others can still be read


def test_a_declared_shape_is_not_believed():
    run = runs.new_run()
    path = put(run, 'last', 'x', [(1, 2.)])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(0,), }            ", b"(10000000000,), }  "))
    assert b'10000000000' in path.read_bytes() and stats.array(run, 'x')['x'].tolist() == [2]


def test_files_of_one_channel_must_agree_in_their_fields():
    run = runs.new_run()
    put(run, 'quantiles', 'q', [(1, 1., 2.)]), put(run, 'quantiles', 'q', [(1, 1., 2., 3.)])
    with pytest.raises(pavlov.CorruptFile, match=r'stats\.q\.0\.npr.*differ'):
        stats.pandas(run, 'q')
    put(run, 'last', 'x', [(1, 1.)])
    with runs.update(run) as info:
        info['_files']['stats.x.0.npr']['kind'] = 'mean'
    with pytest.raises(pavlov.CorruptFile, match='not those of a mean'):
        stats.pandas(run, 'x')


def test_impossible_times_are_refused():
    run = runs.new_run()
    for i, seconds in enumerate((-1e6, 1e9)):
        put(run, 'last', f'x{i}', [(1, 1.), (seconds, 2.)])
        with pytest.raises(pavlov.CorruptFile, match=f'x{i}.0.npr": row 1 is dated'):
            stats.pandas(run, f'x{i}')
    path = put(run, 'last', 'nat', [(1, 1.)])
    path.write_bytes(path.read_bytes()[:-16] + struct.pack('<qd', -2**63, 1))
    with pytest.raises(pavlov.CorruptFile):
        stats.array(run, 'nat')


class Evil:
    def __reduce__(self):
        return os.system, ('touch pwned',)


def _zip(path, **members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            z.writestr(name + '.npy', data)


def test_hostile_lines_are_refused(output, monkeypatch):
    monkeypatch.chdir(output)
    run = runs.new_run()
    with stats.to_run(run):
        stats.line('x', [1., 2.], [3., 4.])
    path = files.path(run, 'stats.x.npz')
    whole = path.read_bytes()
    np.savez(path, xs=np.array([Evil()], object), ys=np.ones(1))
    evil = path.read_bytes()
    ok = header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }").replace(
        b'\x03\x00', b'\x02\x00', 1) + bytes(8)
    _zip(path, xs=ok, ys=ok)
    assert stats.pandas(run, 'x').to_dict() == {0.: 0.}
    _zip(path, xs=ok.replace(b'(1,)', b'(1000000000000,)'), ys=ok)
    huge = path.read_bytes()
    _zip(path, xs=ok, ys=ok + bytes(2**27))
    bomb = path.read_bytes()
    assert len(bomb) < 2**18
    _zip(path, xs=ok, ys=b'')
    empty = path.read_bytes()
    _zip(path, xs=ok)
    absent = path.read_bytes()
    cuts = [whole[:n] for n in range(0, len(whole), 40)]
    for data in [evil, huge, bomb, empty, absent, b'PK', *cuts]:
        path.write_bytes(data)
        with pytest.raises(pavlov.CorruptFile, match=r'stats\.x\.npz'):
            stats.pandas(run, 'x')
    assert not (output / 'pwned').exists()


# Many runs

def test_compare_and_plot(output):
    import matplotlib
    matplotlib.use('Agg')
    a, b, c = (runs.new_run(seed=i) for i in range(3))
    put(a, 'mean', 'm', [(10, 1., 1.), (70, 2., 1.)]), put(b, 'mean', 'm', [(10, 3., 1.)])
    for r in (a, b):
        put(r, 'mean_std', 'elo', [(10, 1., 1.)]), put(r, 'quantiles', 'q', [(10, 1., 2., 3.)])
        put(r, 'mean_percent', 'p', [(10, 1., 2.)])
    df = stats.compare([a, b], 'm')
    assert list(df) == [a, b]
    check(df, [[1, 3], [2, nan]])
    assert list(stats.compare([a, b], 'elo', field='μ')) == [a, b]
    assert list(stats.compare([a, b], 'elo')) == [
        (r, f) for r in (a, b) for f in ('μ', 'σ', 'μ-', 'μ+')]
    assert list(stats.compare(a, 'm', '1h')[a]) == [1.5]
    with pytest.warns(UserWarning, match='left out'):
        assert list(stats.compare([a, c], 'm')) == [a]
    with pytest.raises(pavlov.NotFound):
        stats.compare([c], 'm')
    with pytest.raises(ValueError, match='give a rule'):
        stats.compare([a, b], 'm', None)
    with pytest.raises(pavlov.NotFound, match="no field 'x'"):
        stats.pandas(a, 'elo', field='x')

    ax = stats.plot([a, b], 'm')
    assert [list(line.get_ydata()) for line in ax.get_lines()] == [[1, 2], [3]]
    assert list(ax.get_lines()[0].get_xdata()) == [0, 1] and ax.get_ylabel() == 'm'
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [r.split(' ')[2] for r in (a, b)]
    assert len(stats.plot(a, 'elo').collections) == 1  # the band
    assert stats.plot(a, 'q').get_lines()[0].get_ydata() == [2]
    assert stats.plot(a, 'p').yaxis.get_major_formatter()(.5, 0) == '50 %'
    with stats.to_run(a):
        stats.line('curve', [3, 4], [5, 6])
    assert list(stats.plot(a, 'curve').get_lines()[0].get_xdata()) == [3, 4]
    matplotlib.pyplot.close('all')
