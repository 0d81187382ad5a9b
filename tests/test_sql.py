import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from crowd import crowd
from fileserver import FileServer
from postgres import Absent
from postgres import server as postgres_server

from boardlaw import download, elos, pavlov, sql
from boardlaw.sql import BadDatabase, database, tables

FIXTURE = Path(__file__).parent / 'fixtures/original-format/output/experiments/eval/database.sql'
NAME = 'output/experiments/eval/database.sql'
TABLES_2021 = {
    'runs': 'run description boardsize width depth nodes',
    'snaps': 'id run idx samples flops',
    'agents': 'id snap nodes c',
    'trials': 'id black_agent white_agent black_wins white_wins moves times',
    'mohex_trials': 'id black_agent white_agent black_wins white_wins moves times',
    'noise_scales': 'id agent_id kind mean_sq sq_mean variance n_params batch_size batches',
    'agents_details': 'id test_nodes test_c snap_id samples train_flops idx run description '
                      'boardsize width depth train_nodes'}


pytestmark = pytest.mark.usefixtures('clean')


@pytest.fixture
def original(tmp_path):
    """A copy of a 2021 file, in use."""
    path = tmp_path / 'a copy?of 2021#.sql'
    shutil.copy(FIXTURE, path)
    with sql.use(path):
        yield path


@pytest.fixture
def fresh(tmp_path):
    """An empty database of ours, in use."""
    with sql.use(sql.create(tmp_path / 'a folder/ours.sqlite')) as used:
        yield used


def plain(query, path=FIXTURE):
    """What sqlite3 alone says."""
    with contextlib.closing(sqlite3.connect(f'{path.as_uri()}?immutable=1', uri=True)) as c:
        return c.execute(query).fetchall()


def fill(n_snaps=2, run='a run'):
    """A run with agents, by the public functions; returns their ids."""
    sql.add_run(run, 'bee/3', 3, 2, 1, 64)
    return [sql.add_agent(sql.add_snap(run, k, 10.*k + 10, 100.*k + 100)) for k in range(n_snaps)]


def trial(black, white, wins=(3, 1), **extra):
    return {'black_agent': black, 'white_agent': white, 'black_wins': wins[0],
            'white_wins': wins[1], 'moves': 20, 'times': .5} | extra


# Queries, on a file of 2021

def test_agents(original):
    agents = sql.agent_query()
    assert agents.index.name == 'id' and agents.index.tolist() == list(range(1, 27))
    assert list(agents) == [*TABLES_2021['agents_details'].split()[1:], 'test_flops']
    assert [tuple(row) for row in agents.drop(columns='test_flops').reset_index().values] \
        == plain('select * from agents_details order by id')
    row = agents.loc[1]
    assert (row.test_nodes, row.test_c, row.samples, row.train_flops) == (64, 1/16, 256, 1212416)
    assert row.test_flops == 64*1212416/256


@pytest.mark.parametrize('board', [3, 4, 9])
def test_trials(original, board):
    trials = sql.trial_query(board, 'bee/%')
    assert list(trials) == TABLES_2021['trials'].split()[1:]
    expected = plain(f'''
        select trials.* from trials
        join agents on agents.id = black_agent join snaps on snaps.id = snap
        join runs on runs.run = snaps.run where boardsize = {board} order by trials.id''')
    assert [tuple(row) for row in trials.reset_index().values] == expected
    assert (len(trials) > 0) == (board in (3, 4))
    assert sql.trial_query(3, 'bee/4').empty and sql.trial_query(np.int64(3), 'bee/3').size


def test_trials_by_nodes(original):
    sql.execute('update agents set nodes = 8 where id = 2')
    both = sql.trial_query(3)
    kept = both[(both.black_agent != 2) & (both.white_agent != 2)]
    assert 0 < len(kept) < len(both)
    pd.testing.assert_frame_equal(sql.trial_query(3, test_nodes=64), kept)
    assert sql.trial_query(3, test_nodes=8).empty


def test_mohex_and_noise(original):
    trials = sql.mohex_trial_query(3)
    four = sql.mohex_trial_query(4)
    assert sorted([*trials.index, *four.index]) == list(range(1, 11))
    assert len(trials) == 6 and len(four) == 4
    assert trials.iloc[0][['black_agent', 'black_wins', 'white_wins']].tolist() == [1, 54, 10]
    assert np.isnan(trials.iloc[0].white_agent) and np.isnan(trials.iloc[1].black_agent)
    assert sql.mohex_trial_query(3, 'ant/%').empty
    noise = sql.noise_scale_query()
    assert noise.loc[1].to_dict() == dict(zip(
        TABLES_2021['noise_scales'].split()[1:],
        [1, 'joint', .001, .002, .001, 74., 256., 64.]))
    assert noise.join(sql.agent_query(), on='agent_id').boardsize.tolist() == [3]
    assert sql.noise_scale_query(4).empty


def test_the_elo_example(original):
    ags = sql.agent_query().query('test_nodes == 64')
    trials = (sql.trial_query(3, 'bee/%').query('black_wins + white_wins >= 32')
              .groupby(['black_agent', 'white_agent']).first().reset_index())
    ws, gs = elos.symmetrize(trials)
    ags = ags.join(elos.solve(ws, gs), how='inner')
    assert len(ags) == len(ws) > 20 and ags.elo.max() == 0 and ags.elo.min() < -1
    assert gs.to_numpy().sum()/2 == (trials.black_wins + trials.white_wins).sum()


def test_parameters_are_bound(original):
    evil = "3'; drop table trials; --"
    assert sql.trial_query(3, evil).empty
    assert sql.query('select * from runs where run = :run', run=evil).empty
    assert sql.execute('update runs set description = :to where run = :run', to='x', run=evil) == 0
    sql.add_run(evil, evil, 3, 2, 1, 64)
    assert sql.query('select description from runs where run = :r', r=evil).squeeze() == evil
    assert len(sql.trial_query(3)) > 0
    with pytest.raises(ValueError):
        sql.trial_query('3 or 1 = 1')


def test_query_and_execute(original):
    found = sql.query('select count(*) as n from runs where boardsize = :b', b=np.int64(3))
    assert found.n.item() == 3, "numpy's numbers are numbers"
    assert sql.query(sa.select(tables.runs).where(tables.runs.c.boardsize == 4)).width.item() == 8
    assert sql.execute('delete from noise_scales where id = :i', i=1) == 1
    assert sql.noise_scale_query().empty
    with pytest.raises(sa.exc.OperationalError, match='syntax'):
        sql.query('selekt 1')


# Which database

def copies(tmp_path, n):
    for k in range(n):
        path = tmp_path / f'{k}.sql'
        shutil.copy(FIXTURE, path)
        with sql.use(path):
            sql.execute('update runs set width = :w', w=100 + k)
        yield path


def width():
    return int(sql.agent_query().width.unique().item())


def test_use_in_all_its_forms(tmp_path, monkeypatch):
    replica, published, path, env = copies(tmp_path, 4)
    monkeypatch.setattr(database, 'REPLICA', replica)
    there = pavlov.root() / 'experiments/eval/database.sql'
    there.parent.mkdir(parents=True)
    shutil.copy(published, there)
    assert sql.target() == 'replica' and width() == 100
    with sql.use('2021'):
        assert sql.target() == '2021' and width() == 101
        with sql.use(path):
            assert width() == 102
        assert width() == 101
    assert width() == 100
    sql.use(f'sqlite:///{path}')
    assert width() == 102
    monkeypatch.setenv('BOARDLAW_DB', str(env))
    assert width() == 102, 'what use says goes before the environment'
    sql.use(None)
    assert width() == 103
    with pytest.raises(KeyError):
        with sql.use('replica'):
            raise KeyError
    assert width() == 103, 'also after an exception'
    monkeypatch.setenv('BOARDLAW_DB', '')
    assert width() == 100


@pytest.mark.skipif(not database.REPLICA.exists(), reason='the replica has not been made yet')
def test_the_replica_is_one_and_cannot_be_changed():
    sql.check(database.REPLICA)
    before = database.REPLICA.read_bytes()
    assert len(sql.agent_query())
    with pytest.raises(BadDatabase, match='only read'):
        sql.execute('delete from trials')
    assert database.REPLICA.read_bytes() == before


@pytest.mark.parametrize('name', ['replica', '2021'])
def test_what_is_shipped_or_downloaded_is_only_read(tmp_path, monkeypatch, name):
    there = pavlov.root() / 'experiments/eval/database.sql'
    there.parent.mkdir(parents=True)
    shutil.copy(FIXTURE, there)
    monkeypatch.setattr(database, 'REPLICA', there)
    there.chmod(0o400)
    with sql.use(name):
        assert len(sql.agent_query()) == 26
        for write in (fill, lambda: sql.execute('delete from trials'),
                      lambda: sql.save_trials([trial(1, 2)])):
            with pytest.raises(BadDatabase, match=f"'{name}' is only read: choose one of your own"):
                write()
        with pytest.raises(BadDatabase, match='readonly'):
            sql.query('delete from trials returning id')
        with pytest.raises(BadDatabase, match='not made here'):
            sql.create(name)
    assert there.read_bytes() == FIXTURE.read_bytes()
    assert os.listdir(there.parent) == [there.name], 'no journal is left beside it'


def test_rows_in_the_log_of_a_replica_are_seen(fresh, monkeypatch):
    fill()
    assert Path(f'{sql.target()}-wal').exists()
    monkeypatch.setattr(database, 'REPLICA', Path(sql.target()))
    with sql.use('replica'):
        assert len(sql.agent_query()) == 2


def test_what_is_no_database_is_an_error(tmp_path, monkeypatch):
    def error(target):
        with sql.use(target), pytest.raises(BadDatabase) as e:
            sql.agent_query()
        return str(e.value)

    assert 'no database at' in error(tmp_path / 'absent.sql')
    assert not (tmp_path / 'absent.sql').exists(), 'a typing error makes no file'
    assert 'no database at' in error(tmp_path)
    page = tmp_path / 'page.sql'
    page.write_text('<html>Please log in</html>'*100)
    assert 'not a database' in error(page)
    half = tmp_path / 'half.sql'
    half.write_bytes(FIXTURE.read_bytes()[:20000])
    assert 'put a copy in its place' in error(half)
    empty = tmp_path / 'empty.sql'
    empty.touch()
    assert 'boardlaw.sql.create adds' in error(empty)
    assert 'cannot be used' in error('no such database://x')
    assert 'driver' in error('postgresql+psycopg2://localhost/x') or 'psycopg2' in sys.modules
    monkeypatch.setattr(database, 'REPLICA', tmp_path / 'gone')
    assert 'is not there' in error('replica')


@pytest.mark.parametrize('url', [
    'postgresql+psycopg://me:secret@127.0.0.1:1/x?password=secret&connect_timeout=1',
    'postgresql+psycopg2://me:secret@127.0.0.1:1/x', 'nonsense://me:secret@host/x',
    'postgresql+psycopg://me:secret@host:a/x', '://me:secret@host'])
def test_a_password_is_never_shown(url, capfd, caplog):
    for call in (lambda: sql.query('select 1'), lambda: sql.create(url), sql.agent_query):
        with sql.use(url), pytest.raises(BadDatabase) as found:
            call()
        shown = ''.join(traceback.format_exception(found.value))
        # Source lines are quoted, the values in them are not; this file's hold the word.
        shown = '\n'.join(line for line in shown.splitlines() if not line.startswith('    '))
        assert 'secret' not in shown + caplog.text + ''.join(capfd.readouterr())


def test_half_a_file_put_in_the_place_of_2021_is_not_taken_for_whole():
    there = pavlov.root() / 'experiments/eval/database.sql'
    there.parent.mkdir(parents=True)
    there.write_bytes(FIXTURE.read_bytes()[:-8192])
    with sql.use('2021'), pytest.raises(BadDatabase, match='not a whole'):
        sql.agent_query()


def test_missing_tables_are_named_and_can_be_added(original):
    for name in ('mohex_trials', 'noise_scales'):
        sql.execute(f'drop table {name}')
    sql.check(original)
    with pytest.raises(BadDatabase, match='mohex_trials'):
        sql.mohex_trial_query(3)
    with pytest.raises(BadDatabase, match='trial_details.*boardlaw.sql.create adds'):
        sql.save_trials([trial(1, 2, seed=3)])
    n = len(sql.trial_query(3))
    sql.create(original)
    assert sql.mohex_trial_query(3).empty
    sql.save_trials([trial(1, 2, seed=3)])
    assert len(sql.trial_query(3)) == n + 1
    sql.execute('drop table trial_details')
    sql.execute('drop table trials')
    with pytest.raises(BadDatabase, match='no trials'):
        sql.check(original)


def test_fields_that_an_earlier_version_lacked_can_be_added(fresh):
    a, b = fill()
    sql.execute('alter table trial_details drop column study')
    sql.save_trials([trial(a, b)])
    assert sql.study_query().empty
    with pytest.raises(BadDatabase, match='study.*boardlaw.sql.create adds'):
        sql.save_trials([trial(b, a, seed=3, study='top')])
    for _ in range(2):
        sql.create(sql.target())
    new = sql.save_trials([trial(b, a, seed=3, study='top')])
    assert sql.study_query().to_dict() == {new[0]: 'top'} and len(sql.trial_query(3)) == 2


def test_a_file_of_2021_has_no_studies(original):
    assert sql.study_query().empty
    sql.create(original)
    assert sql.study_query().empty


def test_a_view_is_not_needed_nor_trusted(original, tmp_path):
    expected = sql.agent_query()
    sql.execute('drop view agents_details')
    sql.execute('create view agents_details as select 1 as id, 2 as test_nodes')
    pd.testing.assert_frame_equal(sql.agent_query(), expected)
    sql.execute('drop view agents_details')
    pd.testing.assert_frame_equal(sql.agent_query(), expected)


HOSTILE = {
    'the view trials': """
        alter table trials rename to real_trials;
        create view trials as select *, load_extension('{folder}/evil') from real_trials""",
    'the trigger t': """
        create trigger t after insert on runs begin select writefile('{target}', 'x'); end""",
    'the trigger u': "create trigger u after insert on snaps begin delete from trials; end",
    'the view agents': """
        alter table agents rename to real_agents;
        create view agents as with recursive n(i) as (select 1 union all select i + 1 from n)
            select i as id, i as snap, i as nodes, i as c from n""",
    'the computed column noise_scales.big': """
        alter table noise_scales add column big as (zeroblob(1000000000))""",
    'the virtual table runs_too': "create virtual table runs_too using fts5(x)",
}


@pytest.mark.parametrize('what', HOSTILE)
def test_a_file_that_brings_code_is_refused(original, tmp_path, what):
    target = tmp_path / 'target.txt'
    before = plain('select count(*) from snaps', original)
    with contextlib.closing(sqlite3.connect(original)) as c:
        c.executescript(HOSTILE[what].format(folder=tmp_path, target=target))
    for call in (lambda: sql.trial_query(3), sql.agent_query, lambda: sql.create(original),
                 lambda: sql.query('select * from runs'),
                 lambda: sql.add_run('x', '', 3, 1, 1, 64),
                 lambda: sql.add_snap('2026-11-23 09-48-06 arch-calm', 99, 1, 1)):
        with pytest.raises(BadDatabase, match=f'a copy.of 2021.*refused.*{what}'):
            call()
    assert not target.exists() and plain('select count(*) from snaps', original) == before


@pytest.mark.parametrize('change, message', [
    ("update snaps set flops = 'x' where id = 3", r"train_flops is 'x' in \d rows"),
    ("update snaps set samples = x'ff' where id = 3", r"samples is b'\\xff' in \d rows"),
    ("update runs set description = x'ff'", "description is b'"),
    ("update runs set description = 7", None),     # a text column makes a text of it
    ("update snaps set flops = null", None),
    ("update snaps set flops = '1e9'", None),
])
def test_a_value_of_another_type_is_refused(original, change, message):
    with contextlib.closing(sqlite3.connect(original)) as c:
        c.execute(change)
        c.commit()
    if message is None:
        assert len(sql.agent_query()) == 26
    else:
        with pytest.raises(BadDatabase, match=f'is damaged: {message}'):
            sql.agent_query()


# The database of 2021, from a server

@pytest.fixture
def server(monkeypatch):
    with FileServer({NAME: FIXTURE.read_bytes()}) as server:
        monkeypatch.setenv('BOARDLAW_B2_URL', f'{server.url}/')
        monkeypatch.setattr(time, 'sleep', lambda seconds: None)
        with sql.use('2021'):
            yield server


def arrived():
    folder = sql.path_2021().parent
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_download_at_the_first_query(server, capfd):
    assert not server.requests, 'choosing it downloads nothing'
    assert len(sql.agent_query()) == 26
    assert 'database.sql' in capfd.readouterr().err, 'with a progress bar'
    assert len(sql.trial_query(3)) and len(server.requests) == 1, 'and only then'
    assert sql.path_2021().read_bytes() == FIXTURE.read_bytes()
    assert arrived() == ['database.sql']


def test_download_goes_on_after_an_interruption(server):
    server.cuts = [10_000] + [0]*10
    with pytest.raises(download.Unreachable, match='10,000 bytes are kept'):
        sql.agent_query()
    assert arrived() == ['database.sql.part', 'database.sql.part.json']
    server.cuts = []
    assert len(sql.agent_query()) == 26
    assert server.requests[-1][1] == 'bytes=10000-'
    assert arrived() == ['database.sql']


def damaged():
    """The file with the middle of a page overwritten: the size is right."""
    content = bytearray(FIXTURE.read_bytes())
    content[8192:8192 + 2000] = b'\xff'*2000
    return bytes(content)


@pytest.mark.parametrize('content', [
    FIXTURE.read_bytes()[:-4096], FIXTURE.read_bytes()[:5000], damaged(), b'<html></html>'*1000,
    b''], ids=['cut', 'cut short', 'damaged', 'a page', 'empty'])
def test_what_is_not_whole_never_arrives(server, content):
    server.files[NAME] = content
    with pytest.raises(download.DownloadError, match='thrown away.*database of 2021'):
        sql.agent_query()
    assert arrived() == []
    server.files[NAME] = FIXTURE.read_bytes()
    assert len(sql.agent_query()) == 26


def test_the_address_of_2021(monkeypatch):
    asked = []
    monkeypatch.delenv('BOARDLAW_B2_URL', raising=False)
    monkeypatch.setattr(download, 'fetch', lambda url, path, **kwargs: asked.append(url))
    sql.path_2021(fetch=True)
    assert asked == [f'https://f002.backblazeb2.com/file/boardlaw/{NAME}']


def test_another_sqlite_file_never_arrives(server, tmp_path):
    other = tmp_path / 'other.sqlite'
    with contextlib.closing(sqlite3.connect(other)) as c:
        c.execute('create table runs (run text)')
    server.files[NAME] = other.read_bytes()
    with pytest.raises(download.DownloadError, match='it has no agents, snaps, trials'):
        sql.agent_query()
    assert arrived() == []


def test_without_the_file_or_a_network_it_says_what_to_do(server, monkeypatch):
    todo = r"try again with a network, put a copy of http.* at \".*database.sql\", or stay with " \
        r"boardlaw.sql.use\('replica'\)"
    server.files.clear()
    with pytest.raises(download.NotFound, match=f'does not exist.*{todo}'):
        sql.agent_query()
    monkeypatch.setenv('BOARDLAW_B2_URL', 'http://127.0.0.1:1')
    with pytest.raises(download.Unreachable, match=f'check the network.*{todo}') as e:
        sql.agent_query()
    assert '\n' not in str(e.value)
    assert arrived() == []


# Writing

def test_create_and_fill(fresh):
    assert sql.agent_query().empty and sql.trial_query(3).empty
    a, b = fill()
    assert sql.agent_query().drop(columns=['run', 'snap_id']).loc[b].to_dict() == {
        'test_nodes': 64, 'test_c': 1/16, 'samples': 20, 'train_flops': 200, 'idx': 1,
        'description': 'bee/3', 'boardsize': 3, 'width': 2, 'depth': 1, 'train_nodes': 64,
        'test_flops': 640}
    ids = sql.save_trials([trial(a, b), trial(b, a, (0, 4), seed=2**62, rule='2021/2021',
                                              noise_eps=0., sampled=1)])
    assert sql.trial_query(3).index.tolist() == ids
    assert sql.trial_query(3).loc[ids[1]].tolist() == [b, a, 0, 4, 20, .5]
    [details] = sql.query('select * from trial_details').to_dict('records')
    assert details == {'trial': ids[1], 'seed': 2**62, 'rule': '2021/2021', 'noise_eps': 0.,
                       'sampled': 1, 'study': None}
    sql.create(sql.target())
    assert len(sql.trial_query(3)) == 2, 'creating it again changes nothing'
    with contextlib.closing(sqlite3.connect(sql.target())) as c:    # as 2021's code would read it
        assert len(c.execute('select * from agents_details').fetchall()) == 2


def test_adding_twice_is_adding_once(fresh):
    assert fill(3) == fill(3)
    assert sql.add_run('a run', 'another', 9, 9, 9, 9) == 'a run'
    assert sql.agent_query().description.unique().tolist() == ['bee/3'], 'the first one stands'
    snap = sql.add_snap('a run', 0, 1, 1)
    ids = {sql.add_agent(snap, nodes, c) for nodes in (64, 8) for c in (1/16, .3) for _ in range(2)}
    assert len(ids) == 4
    sql.add_run('a run', 'bee/3', 3, 2, 1, 64, {'params': {'b': 1, 'a': 2}, 'seed': np.int64(5)})
    sql.add_run('a run', 'bee/3', 3, 2, 1, 64, {'machine': 'a laptop'})
    details = sql.query('select * from run_details').iloc[0]
    assert (details.params, details.seed, details.machine) == (
        '{"a": 2, "b": 1}', 5, 'a laptop')
    assert sql.query('select count(*) as n from run_details').n.item() == 1


def test_adding_twice_to_a_file_of_2021(original):
    before = len(sql.agent_query())
    assert sql.add_agent(1) == 1 and len(sql.agent_query()) == before
    assert sql.add_agent(1, 8) == before + 1 == sql.add_agent(1, 8)
    sql.save_mohex_trials([{'black_agent': 3, 'white_agent': None, 'black_wins': 2,
                            'white_wins': 0, 'moves': 9, 'times': 1.}])
    assert sql.mohex_trial_query(3).iloc[-1].black_wins == 2


@pytest.mark.parametrize('wrap', [list, pd.DataFrame])
def test_rows_of_any_kind_of_number(fresh, wrap):
    a, b = fill()
    rows = [trial(np.int64(a), np.int32(b), (np.int64(3), np.float32(1))),
            trial(b, a, seed=np.int64(7))]
    sql.save_trials(wrap(rows))
    assert sql.trial_query(3)[['black_wins', 'white_wins']].values.tolist() == [[3, 1], [3, 1]]
    assert sql.query('select seed from trial_details').seed.tolist() == [7]
    sql.save_mohex_trials(wrap([trial(a, None), trial(np.nan, b)]))
    assert sql.mohex_trial_query(3)[['black_agent', 'white_agent']].isna().values.tolist() \
        == [[False, True], [True, False]]
    row = dict(agent_id=a, kind='value', mean_sq=1., sq_mean=2., variance=3., n_params=4.,
               batch_size=5., batches=np.float32(6))
    sql.save_noise_scales(wrap([row]))
    assert sql.noise_scale_query(3).iloc[0].to_dict() == row


def test_all_rows_arrive_or_none(fresh):
    a, b = fill()
    with pytest.raises(sa.exc.IntegrityError):
        sql.save_trials([trial(a, b), trial(a, 99)])
    with pytest.raises(ValueError, match=r"trials has no field \['sead'\]; it has .*'seed'"):
        sql.save_trials([trial(a, b), trial(a, b, sead=3)])
    with pytest.raises(ValueError, match='mohex_trials has no field'):
        sql.save_mohex_trials([trial(a, None, seed=3)])
    with pytest.raises(ValueError, match=r"run_details has no field \['sed'\]"):
        sql.add_run('a run', '', 3, 1, 1, 64, {'sed': 1})
    for orphan in (lambda: sql.add_snap('no such run', 0, 1, 1), lambda: sql.add_agent(99)):
        with pytest.raises(sa.exc.IntegrityError, match='FOREIGN KEY'):
            orphan()
    assert sql.trial_query(3).empty and len(sql.agent_query()) == 2
    assert sql.save_trials([]) == []


def test_schema_documents_every_column(original):
    schema = sql.schema()
    assert schema.meaning.str.len().min() > 5 and schema.index.is_unique
    assert not schema.type.isin(['null', '']).any()
    assert all(t.comment for t in tables.metadata.tables.values())
    found = {}
    for table, field in schema.index:
        found.setdefault(table, []).append(field)
    for table, fields in TABLES_2021.items():
        assert found[table] == fields.split()
    for name in sql.query("select name from sqlite_master where type in ('table', 'view')").name:
        assert sql.query(f'pragma table_info({name})').name.tolist() == found[name]


def test_schema_is_what_create_makes(fresh):
    names = sql.query("select name from sqlite_master where type in ('table', 'view')").name
    made = {(name, row['name']): row['type'].lower() for name in names
            for row in sql.query(f'pragma table_info({name})').to_dict('records')}
    assert made == sql.schema().type.to_dict()


# Several processes at once

def _work(path, k, n, queue):
    sql.create(path)
    sql.use(path)
    a, b = fill(2)
    for i in range(n):
        sql.save_trials([trial(a, b, (k, i)), trial(b, a, (k, i))])
    queue.put((a, b))


def _look(path, stop, queue):
    sql.use(path)
    seen = [0]
    while not stop.is_set() or len(seen) < 2:
        seen.append(len(sql.query('select id from trials')))
        time.sleep(.01)
    queue.put(seen)


def _adopt(path, queue):
    sql.use(path)
    queue.put([sql.add_agent(1, 64, c) for c in np.arange(20)/7])


def run_all(targets):
    """Runs these functions in processes of their own, each with a queue; returns what they put."""
    context = multiprocessing.get_context('fork')
    queue = context.SimpleQueue()
    processes = [context.Process(target=f, args=(*args, queue)) for f, *args in targets]
    for p in processes:
        p.start()
    return processes, queue


fork_only = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


@fork_only
def test_four_writers_and_two_readers_lose_nothing(tmp_path):
    path, n = tmp_path / 'shared.sqlite', 25
    sql.create(path)
    stop = multiprocessing.get_context('fork').Event()
    with sql.use(path):
        len(sql.agent_query())      # an open connection, which the children must not share
        readers, seen = run_all([(_look, path, stop)]*2)
        writers, ids = run_all([(_work, path, k, n) for k in range(4)])
        made = [ids.get() for _ in writers]
        stop.set()
        counts = [seen.get() for _ in readers]
        for p in writers + readers:
            p.join(30)
            assert p.exitcode == 0
        assert len(set(made)) == 1 and len(sql.agent_query()) == 2, 'one run, added once'
        trials = sql.trial_query(3)
        assert len(trials) == 4*n*2 and trials.index.is_unique
        assert sorted(zip(trials.black_wins, trials.white_wins)) \
            == sorted([(k, i) for k in range(4) for i in range(n)]*2)
    for count in counts:
        assert count == sorted(count) and all(c % 2 == 0 for c in count), 'half a save was seen'


@fork_only
def test_creating_at_once(tmp_path):
    for i in range(3):
        path = tmp_path / f'{i}.sqlite'
        processes, ids = run_all([(_work, path, k, 1) for k in range(3)])
        assert len({ids.get() for _ in processes}) == 1
        for p in processes:
            p.join(30)
            assert p.exitcode == 0


@fork_only
def test_adding_at_once_to_a_file_of_2021(original):
    # Its tables have no constraint that would keep a second equal agent out.
    processes, ids = run_all([(_adopt, original)]*4)
    found = [ids.get() for _ in processes]
    for p in processes:
        p.join(30)
        assert p.exitcode == 0
    assert found[1:] == found[:-1] and len(set(found[0])) == 20
    assert len(sql.agent_query()) == 26 + 20


def _kill_me(path, queue):
    sql.use(path)
    with database.begin() as connection:
        connection.execute(sa.insert(tables.trials).values(**trial(1, 2)))
        queue.put(True)
        os.kill(os.getpid(), signal.SIGKILL)


@fork_only
def test_a_writer_that_is_killed_leaves_nothing_behind(fresh):
    a, b = fill()
    processes, queue = run_all([(_kill_me, sql.target())])
    queue.get()
    processes[0].join(30)
    assert processes[0].exitcode == -signal.SIGKILL
    assert sql.trial_query(3).empty
    sql.save_trials([trial(a, b)])
    assert len(sql.trial_query(3)) == 1
    sql.check(sql.target())


# Postgres

@pytest.fixture
def postgres():
    """The URL of a server of this test's own."""
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(postgres_server())
        except Absent as e:
            pytest.skip(str(e))
        yield url


def test_postgres(postgres):
    with sql.use(postgres):
        with pytest.raises(BadDatabase, match='lacks a table') as e:
            sql.agent_query()
        assert 'secret' not in str(e.value), 'a password is not shown'
        sql.create(postgres)
        sql.create(postgres)
        a, b = fill()
        assert fill() == [a, b] and len(sql.agent_query()) == 2
        sql.add_run('a run', '', 3, 1, 1, 64, {'params': {'seed': 1}, 'seed': 2**60})
        sql.save_trials(pd.DataFrame([trial(a, b, seed=2**60), trial(b, a, (np.int64(1), 0))]))
        sql.save_mohex_trials([trial(a, None)])
        assert sql.trial_query(3, 'bee/%', 64).black_wins.tolist() == [3, 1]
        assert len(sql.mohex_trial_query(3)) == 1
        assert sql.query('select seed from trial_details').seed.tolist() == [2**60]
        evil = "'; drop table trials; --"
        assert sql.query('select * from runs where run = :r', r=evil).empty
        with pytest.raises(sa.exc.IntegrityError):
            sql.save_trials([trial(a, b), trial(a, 99)])
        assert len(sql.query('select * from trials')) == 2
        assert elos.solve(*elos.symmetrize(sql.trial_query(3))).max() == 0
        processes, ids = run_all([(_work, postgres, k, 5) for k in range(3)])
        assert {ids.get() for _ in processes} == {(a, b)}
        for p in processes:
            p.join(30)
            assert p.exitcode == 0
        assert len(sql.query('select * from trials')) == 2 + 3*5*2


# A crowd

@fork_only
def test_a_crowd_on_sqlite(tmp_path):
    found = crowd(str(tmp_path / 'crowd.sqlite'), 2, writers=8, readers=2)
    assert found['errors'] == [] and found['lost'] == found['doubled'] == 0, found
    assert found['rows'] >= 16 and found['reads'] >= 2


@fork_only
def test_a_crowd_on_postgres(postgres):
    found = crowd(postgres, 2, writers=8, readers=2)
    assert found['errors'] == [] and found['lost'] == found['doubled'] == 0, found
    assert found['rows'] >= 16 and found['reads'] >= 2
