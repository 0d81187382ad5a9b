"""The fast version of what `make soak` does at length; see `crashes`."""
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import crashes
import pytest
import torch
from fileserver import FileServer

from boardlaw import download, pavlov, sql
from boardlaw.pavlov import runs, stats, storage

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a system that forks')


@pytest.fixture
def folder():
    """A folder that other users can reach, which pytest's are not."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize('name, kills', [('training', 3), ('arena', 3), ('download', 3),
                                         ('sweep', 1)])
def test_what_was_killed_ends_as_if_it_had_not_been(name, kills, tmp_path):
    found = crashes.torture(name, kills, tmp_path)
    assert found['differences'] == [] and found['kills'] == kills


@pytest.mark.parametrize('name', ['arena', 'download'])
def test_a_disk_that_is_full_or_read_only(name, folder):
    found = crashes.starve(name, 4, folder)
    assert found['differences'] == [] and found['full'] and found['read-only'], found


def test_differences_are_found():
    a = {'x': [torch.zeros(2), 1.], 'y': (1, 'a')}
    assert crashes.differences(a, {'x': [torch.zeros(2), 1.], 'y': (1, 'a')}) == []
    for b in ({'x': [torch.tensor([0., -0.]), 1.], 'y': (1, 'a')}, {'x': a['x']},
              {'x': [torch.zeros(2).half(), 1.], 'y': (1, 'a')}, {'x': a['x'], 'y': (1, 'b')},
              {'x': [*a['x'], 1], 'y': (1, 'a')}, {'x': a['x'], 'y': [1, 'a']}):
        assert len(crashes.differences(a, b)) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    path = tmp_path / 'small'
    path.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', path]
    if os.name != 'posix' or os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('only root can make a file system to fill')
    yield path
    subprocess.run(['umount', '-l', path], check=True)


@pytest.mark.usefixtures('clean')
def test_a_file_system_without_space(small_disk):
    with pavlov.use_root(small_disk):
        run = runs.new_run()
        kept = {'x': torch.arange(10_000)}
        storage.save_latest(run, kept)
        with stats.to_run(run):
            stats.last('x', 1.)
        database = sql.create(small_disk / 'ours.sqlite')
        with sql.use(database):
            sql.add_run('a run', '', 3, 1, 1, 64)
        filler = small_disk / 'filler'
        with open(filler, 'wb', buffering=0) as f, pytest.raises(OSError):
            while True:
                f.write(bytes(1024))
        with pytest.raises(OSError, match=r'No space left.*storage\.latest\.pkl'):
            storage.save_latest(run, {'x': torch.arange(20_000)})
        with pytest.raises(OSError, match='No space left'), stats.to_run(run):
            for i in range(10_000):
                stats.last('y', i)
        with pytest.raises(OSError, match='No space left'):
            runs.new_run(params={'long': 'x'*10_000})
        with sql.use(database), pytest.raises(sql.BadDatabase, match='disk is full.*free space'):
            for i in range(10_000):
                sql.add_snap('a run', i, i, i)
        with FileServer({'big': bytes(400_000)}) as server, \
                pytest.raises(download.DownloadError, match='No space left.*free space'):
            download.fetch(f'{server.url}/big', small_disk / 'big', progress=False)
        filler.unlink()
        assert crashes.differences(storage.load_latest(run), kept) == []
        assert stats.array(run, 'x')['x'].tolist() == [1.] and len(runs.names()) == 1
        with sql.use(database):
            [n] = sql.query('select count(*) as n from snaps').n
            assert sql.add_snap('a run', n, 0, 0) == n + 1, 'what was saved before is there'
        sql.check(database)
