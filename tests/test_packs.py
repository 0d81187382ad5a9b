"""A sweep over several machines, one after the other, with the state alone carried between them."""
import json
import math
import os
import shutil
import signal
import sqlite3
import threading
import time
import zipfile
from contextlib import closing, contextmanager

import pytest
import torch
from test_sweep import same, snapshots

from boardlaw import networks, pavlov, sql, sweep
from boardlaw.arena import common
from boardlaw.pavlov import runs, storage
from boardlaw.pavlov.disk import CorruptFile, NotFound
from boardlaw.selfplay import Config, Trainer
from boardlaw.sweep import packs, rating, shipping, training
from boardlaw.sweep.grid import Job

SLOW = {3: (16, 1e-3, 12_000)}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('BOARDLAW_OUTPUT', str(tmp_path/'home'))
    with pavlov.use_root(tmp_path/'home'), sql.use(None):
        yield tmp_path/'home'


def quiet(line):
    pass


@contextmanager
def interrupted(when):
    """The block, ended as by Ctrl-C once `when` holds."""
    over, before = threading.Event(), signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch():
        while not over.wait(.1):
            if when():
                return os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            yield
    finally:
        over.set(), thread.join(), signal.signal(signal.SIGINT, before)


def trials(root):
    if not (root/'replica.sqlite').exists():
        return []
    with closing(sqlite3.connect(f'file:{root}/replica.sqlite?mode=ro', uri=True)) as database:
        return database.execute('select black_agent, white_agent, black_wins, white_wins, times '
                                'from trials order by id').fetchall()


def test_visits_go_on_where_the_last_one_stopped(tmp_path):
    """Four machines that share nothing but the state, against a training left alone."""
    [job] = sweep.plan([3], settings=SLOW, n_runs=1)
    roots = [tmp_path/f'machine{i}' for i in range(3)]
    states, lines = [tmp_path/f'state{i}' for i in range(3)], []

    def visit(i):
        packs.visit([job], None, states[i - 1] if i else tmp_path/'none', states[i], workers=1,
                    report=lines.append)

    with pavlov.use_root(roots[0]):    # interrupted in its training
        with interrupted(lambda: (run := sweep.find(job)) and len(storage.snapshots(run)) > 4):
            visit(0)
        run = sweep.find(job)
        assert not sweep.done(job) and storage.load_latest(run)['n_samples'] > 0
    shutil.rmtree(roots[0])
    with pavlov.use_root(roots[1]):    # ends it, is interrupted in the rating
        with interrupted(lambda: sweep.done(job) and len(trials(roots[1])) > 2):
            visit(1)
        assert runs.names() == [run] and sweep.done(job), 'it did not begin anew'
        found = snapshots(run)
    first = trials(roots[1])
    shutil.rmtree(roots[1])
    with pavlov.use_root(roots[2]), interrupted(lambda: len(trials(roots[2])) > len(first)):
        visit(2)    # goes on with the rating
    second = trials(roots[2])
    assert second[:len(first)] == first and len(second) > len(first)
    assert [f'{i} visits before this one' in lines for i in range(4)] == [True]*3 + [False]
    assert '1 runs, 1 of them finished before' in lines
    with pavlov.use_root(tmp_path/'straight'):
        training._train((job, str(tmp_path/'straight'), 'cpu'))
        assert same(found, snapshots(sweep.find(job)))
    for _ in range(2):    # home at last; unpacked twice is unpacked once
        visits = packs.load(states[2])
        assert len(visits) == 3 and visits[0]['samples']['3'] < visits[2]['samples']['3']
        assert same(found, snapshots(run)) and trials(pavlov.root()) == second


def test_a_visit_lets_the_two_rules_meet(monkeypatch):
    jobs = sweep.lambda_study([3], 1, {3: (16, 1e-3, 2000)})[:2]
    database = sql.create(pavlov.root()/'replica.sqlite')
    sweep.train_all(jobs, sweep.Local(1), database, report=quiet)
    for stage in ('rate', 'direct'):    # whose games would count
        monkeypatch.setattr(rating, stage, lambda *_, **__: None)
    packs._rate(((3, jobs[0].description), jobs, str(pavlov.root()), database, 'cpu', math.inf))
    with sql.use(database):
        found, met = sql.agent_query(), sql.trial_query(3)
        assert set(sql.study_query()) == {'rules'}
    ends = [found.index[found.run == sweep.find(job)][-1] for job in jobs]
    assert sorted(map(tuple, met[['black_agent', 'white_agent']].values)) == sorted(
        [tuple(ends), tuple(ends[::-1])])


@pytest.fixture
def begun():
    """A job stopped half way, its run and the database."""
    [job] = sweep.plan([3], settings={3: (16, 1e-3, 2000)}, n_runs=1)
    half = Job(job.config, job.flops, job.description, job.decades)
    settings = {k: v for k, v in vars(job.config).items()}
    run = training.train(**settings, snapshots=half.snapshots, description=half.description,
                         flops=half.snapshots[-1]/2, progress=False)
    with runs.update(run) as info:   # as if it had been stopped on its way to the end
        info['params']['limits'] = {'flops': half.snapshots[-1]}
    database = sql.create(pavlov.root()/'replica.sqlite')
    with sql.use(database):
        sweep.register(half)
    return half, run, database


def finish(job):
    training._train((job, str(pavlov.root()), 'cpu'))
    return storage.load_latest(sweep.find(job))


def test_a_state_holds_all_that_a_run_goes_on_from(begun, tmp_path):
    job, run, database = begun
    packs.save([job], database, tmp_path/'state', report=quiet)
    with pavlov.use_root(tmp_path/'other'):
        packs.load(tmp_path/'state')
        assert sweep.find(job) == run and not sweep.done(job)
        there = finish(job)
    here = finish(job)
    for saved in (here, there):
        del saved['runtime'], saved['cputime']
    assert same(here, there)
    with pavlov.use_root(tmp_path/'other'):
        rows = [pavlov.stats.array(run, 'loss.policy')['total'] for _ in 'x']
    assert (rows[0] == pavlov.stats.array(run, 'loss.policy')['total']).all()


def test_a_run_on_its_way_past_a_job_goes_on_too(begun, tmp_path):
    job, run, database = begun
    before = storage.load_latest(run)
    reached = max(x for x in job.snapshots if x <= before['n_flops'])
    short = Job(job.config, reached, job.description, 0)
    packs.save([short], database, tmp_path/'state', report=quiet)
    with pavlov.use_root(tmp_path/'other'):
        packs.load(tmp_path/'state')
        assert sweep.done(short) and not sweep.done(job) and sweep.find(job) == run
        assert same(storage.load_latest(run), before)


def test_a_large_buffer_is_played_anew(begun, tmp_path, monkeypatch):
    """Network, optimiser, games and counts go on; learning waits until the buffer is full again."""
    job, run, database = begun
    monkeypatch.setattr(shipping, 'BUFFER', 0)
    before = storage.load_latest(run)
    packs.save([job], database, tmp_path/'state', report=quiet)
    with pavlov.use_root(tmp_path/'other'):
        packs.load(tmp_path/'state')
        after = storage.load_latest(run)
        assert after['training']['buffer']['n'] == 0
        for saved in (before, after):
            saved['training'].pop('buffer')
        assert same(before, after)
        end = finish(job)
    config = job.config
    straight = finish(job)
    assert end['n_samples'] == straight['n_samples'] and end['n_flops'] == straight['n_flops']
    steps = end['training']['step'] - straight['training']['step']
    assert steps == config.buffer_len, 'so many steps were played and not learnt from'
    assert torch.isfinite(torch.cat([x.flatten() for k, x in end['agent'].items()
                                     if k.startswith('network.')])).all()


def test_finished_runs_and_large_networks_take_little_room(begun, tmp_path, monkeypatch):
    job, run, database = begun
    finish(job)
    monkeypatch.setattr(shipping, 'EXACT', 0)
    packs.save([job], database, tmp_path/'state', report=quiet)
    [path] = packs._newest(tmp_path/'state')
    with zipfile.ZipFile(path) as file:
        names = {n.rpartition('/')[2] for n in file.namelist()}
    assert storage.LATEST not in names and not {n for n in names if n.endswith('lock')}
    with pavlov.use_root(tmp_path/'other'):
        packs.load(tmp_path/'state')
        assert sweep.done(job)
        assert {f for f, e in pavlov.files.entries(run).items() if e['size'] is None} == set()
        rounded = common.agent(run, 3).network.state_dict()
        with sql.use(pavlov.root()/'replica.sqlite'):
            assert len(sql.agent_query()) == len(sql.query('select * from snaps'))
    for name, x in common.agent(run, 3).network.state_dict().items():
        wanted = x.half().float() if x.ndim == 2 else x
        assert torch.equal(rounded[name], wanted), name


def test_the_newest_whole_state_counts(begun, tmp_path, monkeypatch):
    job, run, database = begun
    folder = tmp_path/'state'
    [old] = packs.save([job], database, folder, report=quiet)
    shutil.copy(old, tmp_path/old.name)
    monkeypatch.setattr(packs, 'PART', old.stat().st_size//3)
    paths = packs.save([job], database, folder, report=quiet)
    assert len(paths) > 1 and packs._newest(folder) == paths and not old.exists()
    elsewhere = packs.save([job], database, tmp_path/'to', after=folder, report=quiet)
    assert elsewhere[0].name.startswith('state-0003')
    paths[0].rename(tmp_path/'away')
    with pytest.raises(CorruptFile, match='1 of the|2 of the|3 of the'):
        packs.load(folder)
    shutil.copy(tmp_path/old.name, folder/old.name)
    assert packs._newest(folder) == [folder/old.name], 'a copy cut short does no harm'
    with pytest.raises(NotFound, match='holds no state'):
        packs.load(tmp_path/'nothing')


def test_a_damaged_state_is_refused_and_nothing_changes(begun, tmp_path):
    job, run, database = begun
    [path] = packs.save([job], database, tmp_path/'state', report=quiet)
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:2000] + b'?'*50 + whole[2050:], b'no zip'):
        path.write_bytes(damaged)
        with pavlov.use_root(tmp_path/'other'):
            with pytest.raises(CorruptFile, match='Copy all its files'):
                packs.load(tmp_path/'state')
            assert runs.names() == [] and not (tmp_path/'other/replica.sqlite').exists()
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('state.json', json.dumps({'runs': {'../evil': 1}, 'visits': []}))
        file.writestr('../evil/_info.json', '{}')
    with pavlov.use_root(tmp_path/'other'), pytest.raises(CorruptFile, match='not the name'):
        packs.load(tmp_path/'state')
    assert not (tmp_path/'evil').exists() and not (tmp_path/'other/evil').exists()


def test_a_run_that_is_further_stays(begun, tmp_path):
    job, run, database = begun
    packs.save([job], database, tmp_path/'state', report=quiet)
    further = finish(job)
    packs.load(tmp_path/'state')
    assert same(storage.load_latest(run), further)


def test_large_trainings_have_a_gpu_to_themselves(monkeypatch, tmp_path):
    jobs, calls = sweep.plan([3, 9], n_runs=3), []
    monkeypatch.setattr(packs, 'train_all', lambda jobs, pool, *rest: calls.append(
        (pool.workers, [(j.config.boardsize, j.config.width) for j in jobs])))
    packs._train(jobs, 'cuda', 4, None, time.time() + 60, quiet)
    assert calls == [(1, [(9, 512)]), (4, [(3, 2), (3, 1), (9, 1), (3, 2), (9, 64)])]
    calls.clear()
    packs._train(jobs, 'cpu', 2, None, time.time() + 60, quiet)
    assert [n for n, _ in calls] == [2]


def test_every_board_of_the_replica_fits_into_a_state():
    """Its snapshots and the savepoint of the largest network, before its last snapshot; random
    numbers compress little, which makes up for statistics."""
    for boards in ([6, 7, 8], [9], [10], [11]):
        total, last = 0, 0
        jobs = sweep.plan(boards, n_runs=6, largest=packs.LARGEST)
        assert len(jobs) == 6*len(boards)
        for n, job in [(packs._n_params(job), job) for job in jobs]:
            size = n*(2 if n > shipping.EXACT else 4)
            total, last = total + len(job.snapshots)*size, max(last, 12*n - size)
        assert total + last < packs.MOST, boards


def test_emptied_buffers_are_whole_states():
    """What the loader of savepoints is promised: a buffer of no steps is one."""
    trainer = Trainer(Config(3, 2, 1, n_envs=8, buffer_len=4))
    for _ in range(6):
        trainer.advance()
    state = trainer.state_dict()
    state['buffer'] = {'n': 0, 'rows': {k: x[:0] for k, x in state['buffer']['rows'].items()}}
    other = Trainer(Config(3, 2, 1, n_envs=8, buffer_len=4))
    other.load_state_dict(state)
    for _ in range(4):
        other.advance()
        assert other.n_learnt == 2
    other.advance()
    assert other.n_learnt == 3 and other.step == 11
    assert networks.count_params(3, 2, 1) > 0
