"""Runs and their files: names, descriptions, listings, locks, and what survives a crash."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import time
import types
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boardlaw import pavlov
from boardlaw.pavlov import disk, files, runs

fork = multiprocessing.get_context('fork')


pytestmark = pytest.mark.usefixtures('output')


def test_root_is_set_by_call_block_and_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('BOARDLAW_OUTPUT', str(tmp_path / 'env'))
    with pavlov.use_root(None):
        assert pavlov.root() == tmp_path / 'env'
        with pavlov.use_root(tmp_path / 'block') as root:
            assert root == pavlov.root() == tmp_path / 'block'
        assert pavlov.root() == tmp_path / 'env'
        monkeypatch.delenv('BOARDLAW_OUTPUT')
        assert pavlov.root() == Path('output')
    assert pavlov.root() == tmp_path


def test_new_run_writes_the_2021_layout(output):
    now = datetime(2026, 3, 4, 5, 6, 7, 80, tzinfo=timezone(timedelta(hours=2)))
    run = runs.new_run('bee/3', {'boardsize': np.int64(3)}, 'try 2', now=now, seed=1)
    assert re.fullmatch(r'2026-03-04 03-06-07 [a-z]+-[a-z]+ try 2', run)
    home = output / 'pavlov' / run
    assert sorted(p.name for p in home.iterdir()) == ['_info.json', '_lock']
    assert (home / '_lock').read_bytes() == b''
    info = json.loads((home / '_info.json').read_text())
    assert list(info) == ['description', 'params', '_created', '_host', '_env', '_files']
    assert info['_created'] == '2026-03-04 03:06:07.000080+00:00'
    assert info['params'] == {'boardsize': 3} and info['_env'] == {} and info['_files'] == {}
    assert runs.created(run) == pd.Timestamp(now)
    # same second, same seed: another name all the same
    assert runs.new_run(now=now, seed=1, suffix='try 2') != run


def test_new_run_refuses_what_cannot_be_kept(output):
    for suffix in ['a/b', '..', 'a:b', 'a\nb', 'end.']:
        with pytest.raises(ValueError, match='cannot end a folder name'):
            runs.new_run(suffix=suffix)
    with pytest.raises(TypeError, match='JSON'):
        runs.new_run(params={'f': object()})
    with pytest.raises(TypeError, match='must be a dict'):
        runs.new_run(params=[1])
    assert runs.names() == [] and list((output / 'pavlov').iterdir()) == []


def test_words_do_not_touch_global_randomness():
    import random
    random.seed(3)
    state = random.getstate()
    runs.new_run()
    assert random.getstate() == state
    assert not set(runs.FIRST) & set(runs.SECOND)
    assert all(re.fullmatch('[a-z]+', w) for w in runs.FIRST + runs.SECOND)


def test_resolve():
    at = [datetime(2026, 1, d, tzinfo=timezone.utc) for d in (1, 2, 3)]
    a, b, c = (runs.new_run(now=t, seed=i, suffix='x' * (i == 2)) for i, t in enumerate(at))
    assert runs.names() == [a, b, c]
    assert [runs.resolve(i) for i in (0, -1, np.int64(1), -3)] == [a, c, b, a]
    assert runs.resolve(a) == a
    assert runs.resolve('2026-01-02') == b  # start
    assert runs.resolve(b.split(' ')[2]) == b  # end
    assert runs.resolve(c.split(' ')[2]) == c  # words before a suffix
    with pytest.raises(ValueError, match='3 runs fit'):
        runs.resolve('2026')
    for missing in ('nothing-such', '', '..', 3, -4):
        with pytest.raises(pavlov.NotFound):
            runs.resolve(missing)
    with pytest.raises(TypeError):
        runs.resolve(True)


def test_resolve_never_leaves_the_folder(output, old):
    (output / 'outside').mkdir()
    shutil.copy(output / 'pavlov' / old / '_info.json', output / 'outside')
    for run in ('../outside', '../pavlov/' + old, str(output / 'outside')):
        with pytest.raises(pavlov.NotFound):
            runs.resolve(run)


def test_runs_of_one_second_are_in_order_of_creation():
    second = datetime(2026, 1, 1, tzinfo=timezone.utc)
    made = [runs.new_run(now=second + timedelta(microseconds=100 * i), seed=i) for i in range(8)]
    assert made != sorted(made) and runs.names() == made


def test_runs_pandas(old):
    new = runs.new_run('mine', {'boardsize': 5, 'description': 'shadowed'})
    df = runs.pandas()
    assert list(df.index) == sorted([old, new]) and df.index.name == 'run'
    assert df.loc[old, 'description'] == 'bee/3' and df.loc[new, 'description'] == 'mine'
    assert df.loc[old, '_created'] == pd.Timestamp('2026-11-23 09:48:06.200011', tz='UTC')
    assert df.loc[old, 'params']['c_puct'] == 1/16
    assert list(df.query('boardsize == 3').index) == [old]
    assert '_env' not in df and '_files' not in df


def test_runs_pandas_without_runs():
    df = runs.pandas()
    assert len(df) == 0 and list(df) == ['description', '_created', '_host', 'params']


def test_environment_variables_are_neither_shown_nor_kept(output, old):
    file = output / 'pavlov' / old / '_info.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), '_env': {'TOKEN': 'hunter2'}}))
    assert 'hunter2' not in str(runs.info(old)) + runs.pandas().to_string()
    assert runs.info(old)['_env'] == {}
    with runs.update(old) as info:
        info['description'] = 'changed'
    assert 'hunter2' not in file.read_text() and runs.info(old)['description'] == 'changed'


@pytest.mark.parametrize('text', [
    '', '{', '[]', 'null', '{"_created": 3}', '{"_created": "NaT"}', '{"_created": "soon"}',
    '{"_files": []}', '{"_files": {"../../x": {}}}', '{"_files": {"..": {}}}',
    '{"_files": {"a/b": {}}}', '{"_files": {"a\\\\b": {}}}', '{"_files": {"a": 1}}', '[' * 100_000,
    '{"_created": "9' + '9' * 30 + '"}', '\udcff'])
def test_a_damaged_description_is_one_clear_error(output, old, text):
    good = runs.new_run()
    file = output / 'pavlov' / old / '_info.json'
    file.write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(pavlov.CorruptFile, match='_info.json'):
        runs.info(old)
    with pytest.warns(UserWarning, match='left out'):
        assert list(runs.pandas().index) == [good]  # the others are still listed
    assert set(runs.names()) == {old, good}


def test_a_folder_without_description_is_not_a_run(output):
    (output / 'pavlov/2026-01-01 00-00-00 half-way').mkdir(parents=True)
    assert runs.names() == []
    with pytest.raises(pavlov.NotFound, match='download it again'):
        runs.resolve('2026-01-01 00-00-00 half-way')


def test_files_pandas_of_a_2021_run_downloaded_in_part(output, old):
    home = output / 'pavlov' / old
    (home / 'stats.loss.value.0.npr').unlink()
    shutil.copy(home / 'stats.loss.policy.0.npr', home / 'stats.extra.2.npr')
    df = files.pandas(old)
    absent = df.index[~df.present]
    assert list(absent) == ['archive.tar.gz', 'stats.loss.value.0.npr', 'storage.named.model.pkl']
    assert df.loc['stats.loss.value.0.npr', 'kind'] == 'mean'
    assert pd.isna(df.loc['stats.loss.value.0.npr', 'size'])
    assert list(df.index[~df.listed]) == ['stats.extra.2.npr']
    assert df.loc['stats.extra.2.npr', '_pattern'] == 'stats.extra.{n}.npr'
    assert df.loc['storage.snapshot.3.pkl', 'size'] == 4041
    assert df.loc['logs.1.txt', '_process_name'] == 'mohex-arena'
    assert len(df) == len(json.loads((home / '_info.json').read_text())['_files']) + 1


def test_files_pandas_of_a_new_run():
    df = files.pandas(runs.new_run())
    assert len(df) == 0 and {'_pattern', '_created', 'kind', 'size', 'present'} <= set(df)


def test_new_file_numbers_above_all_in_use(output):
    run = runs.new_run()
    home = output / 'pavlov' / run
    first = files.new_file(run, 'logs.{n}.txt', 'me', colour='red')
    assert first == home / 'logs.0.txt' and not first.exists()
    (home / 'logs.7.txt').touch()  # there, but not listed
    (home / 'logs.x.9.txt').touch()  # of another pattern
    assert files.new_file(run, 'logs.{n}.txt').name == 'logs.8.txt'
    entry = runs.info(run)['_files']['logs.0.txt']
    assert list(entry) == ['_pattern', '_created', '_process_id', '_process_name', '_thread_id',
                           '_thread_name', 'colour']
    assert entry['_process_id'] == str(os.getpid()) and entry['_process_name'] == 'me'
    assert list(files.sequence(run, 'logs.{n}.txt')) == [0, 7, 8]
    before = runs.info(run)
    assert files.new_file(run, 'logs.{n}.txt', n=8).name == 'logs.8.txt'
    assert runs.info(run) == before  # listed already
    files.remove(run, ['logs.7.txt', 'logs.8.txt'])
    assert list(files.sequence(run, 'logs.{n}.txt')) == [0]


@pytest.mark.parametrize('name', ['', '..', 'a/b', '/etc/passwd', 'a\\b', 'c:x', 'a\0b'])
def test_file_names_cannot_lead_out_of_the_run(name):
    run = runs.new_run()
    with pytest.raises(ValueError):
        files.path(run, name)
    with pytest.raises(ValueError):
        files.new_file(run, name)


def _add_files(run, n):
    for _ in range(n):
        files.new_file(run, 'logs.{n}.txt')


def test_processes_list_files_at_once():
    run = runs.new_run()
    workers = [fork.Process(target=_add_files, args=(run, 25)) for _ in range(4)]
    [w.start() for w in workers]
    while any(w.is_alive() for w in workers):
        runs.info(run)  # always whole
    assert [w.exitcode for w in workers] == [0] * 4
    entries = runs.info(run)['_files']
    assert list(files.sequence(run, 'logs.{n}.txt')) == list(range(100))
    assert len({e['_process_id'] for e in entries.values()}) == 4


def _count(path, lock, n):
    for _ in range(n):
        with disk.locked(lock):
            value = int(path.read_text())
            time.sleep(1e-4)
            path.write_text(str(value + 1))


class FakeMsvcrt(types.SimpleNamespace):
    """Windows' lock calls, by Linux' means."""
    LK_NBLCK, LK_UNLCK = 1, 2

    @staticmethod
    def locking(fileno, mode, n_bytes):
        import fcntl
        fcntl.flock(fileno, fcntl.LOCK_UN if mode == 2 else fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize('windows', [False, True])
def test_locks_exclude(tmp_path, monkeypatch, windows):
    if windows:
        monkeypatch.setattr(disk, 'fcntl', None)
        monkeypatch.setattr(disk, 'msvcrt', FakeMsvcrt(), raising=False)
    path, lock = tmp_path / 'count', tmp_path / '_lock'
    path.write_text('0')
    workers = [fork.Process(target=_count, args=(path, lock, 40)) for _ in range(3)]
    [w.start() for w in workers]
    _count(path, lock, 40)
    [w.join() for w in workers]
    assert path.read_text() == '160' and lock.read_bytes() == b''
    with disk.locked(lock), pytest.raises(BlockingIOError):
        with disk.locked(lock, blocking=False):
            pass


def test_one_process_a_writer():
    run = runs.new_run()
    with runs.claim(run, 'training'), runs.claim(run, 'arena'):
        with pytest.raises(RuntimeError, match='another process as "training"'):
            with runs.claim(run, 'training'):
                pass
    with runs.claim(run, 'training'):
        pass
    with pytest.raises(ValueError, match='cannot name a writer'), runs.claim(run, '../x'):
        pass


def _claim_and_fork(run, pids):
    with runs.claim(run, 'training'):
        child = fork.Process(target=time.sleep, args=(60,))
        child.start()
        pids.put(child.pid)
        time.sleep(60)


def test_the_children_of_a_killed_process_do_not_keep_its_claim():
    run, pids = runs.new_run(), fork.Queue()
    parent = fork.Process(target=_claim_and_fork, args=(run, pids))
    parent.start()
    child = pids.get(timeout=30)
    try:
        with pytest.raises(RuntimeError), runs.claim(run, 'training'):
            pass
        os.kill(parent.pid, signal.SIGKILL)
        parent.join()
        with runs.claim(run, 'training'):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.bin'
    disk.write_atomic(path, lambda f: f.write(b'old'))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk would
    try:
        with pytest.raises(OSError, match='while writing.*x.bin'):
            disk.write_atomic(path, lambda f: f.write(b'n' * 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(KeyError):
        disk.write_atomic(path, lambda f: {}['x'])
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['x.bin']


def test_temporary_files_of_killed_processes_are_cleared(tmp_path):
    path = tmp_path / 'x.bin'
    for name, age in (('.x.bin.1-1.tmp', 7200), ('.x.bin.2-1.tmp', 10), ('.y.bin.1-1.tmp', 7200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    disk.write_atomic(path, lambda f: f.write(b''))
    assert sorted(os.listdir(tmp_path)) == ['.x.bin.2-1.tmp', '.y.bin.1-1.tmp', 'x.bin']


def test_replacing_waits_for_readers_on_windows(tmp_path, monkeypatch):
    calls, replace = [], os.replace

    def busy(a, b):
        calls.append(a)
        if len(calls) < 3:
            raise PermissionError('in use')
        replace(a, b)
    (tmp_path / 'a').write_text('new')
    monkeypatch.setattr(disk.os, 'replace', busy)
    with pytest.raises(PermissionError):
        disk._replace(tmp_path / 'a', tmp_path / 'b')
    monkeypatch.setattr(disk.os, 'name', 'nt')
    disk._replace(tmp_path / 'a', tmp_path / 'b')
    monkeypatch.undo()
    assert len(calls) == 3 and (tmp_path / 'b').read_text() == 'new'


def test_nothing_warns_on_a_2021_run(old):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        runs.pandas(), files.pandas(old), runs.info(-1)
