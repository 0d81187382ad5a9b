"""Sweeps: what they plan, and that every run is trained once whatever happens to its workers."""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boardlaw import arena, elos, main, networks, pavlov, rng, sql, sweep
from boardlaw.arena import best, matches, mirror, ratings
from boardlaw.mcts import C_PUCT
from boardlaw.pavlov import runs, storage
from boardlaw.selfplay import BadConfig
from boardlaw.sweep import grid as plans
from boardlaw.sweep import noise, packs, pools, rating, state, training

pytestmark = pytest.mark.skipif(not Path('/proc/self/stat').exists(),
                                reason='looks for workers in /proc')

TINY = {3: (16, 1e-3, 4000)}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv('BOARDLAW_OUTPUT', str(tmp_path))   # for the workers
    with pavlov.use_root(tmp_path), sql.use(None):
        yield tmp_path


@pytest.mark.skipif(not shutil.which('git'), reason='needs git')
def test_the_release_names_the_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(training, 'CHECKOUT', tmp_path)
    plain = training.release()
    assert '+' not in plain

    def git(*arguments):
        who = ['-c', 'user.name=me', '-c', 'user.email=me@localhost']
        return subprocess.run(['git', '-C', tmp_path, *who, *arguments], check=True, text=True,
                              capture_output=True).stdout.strip()
    git('init')
    assert training.release() == plain   # there is no commit yet
    (tmp_path/'x').write_text('1')
    git('add', 'x'), git('commit', '-m', 'x'), git('tag', 'v9')
    commit = git('rev-parse', '--short', 'HEAD')
    assert training.release() == f'{plain}+{commit}'
    (tmp_path/'x').write_text('2')
    assert training.release() == f'{plain}+{commit}-dirty'


# Plan

def test_grid_is_the_papers():
    sizes = {b: len(plans.grid(b)) for b in plans.WIDEST}
    assert sizes == {3: 6, 4: 15, 5: 20, 6: 32, 7: 40, 8: 40, 9: 44}
    assert all(plans.CHEAPEST[b] in plans.grid(b) for b in plans.WIDEST)
    with pytest.raises(BadConfig, match='boardsize 10'):
        plans.grid(10)


@pytest.mark.parametrize('boardsize', plans.WIDEST)
def test_order_covers_before_it_fills(boardsize):
    order = plans.ordered(boardsize)
    assert order[0] == plans.CHEAPEST[boardsize] and sorted(order) == sorted(plans.grid(boardsize))
    size = [math.log(networks.count_params(boardsize, *n)) for n in order]
    # The distance to the nearest one before it never grows along the order.
    gaps = [min(abs(x - y) for y in size[:k]) for k, x in enumerate(size) if k]
    assert gaps == sorted(gaps, reverse=True)


def test_plan_takes_the_boards_in_turn():
    jobs = sweep.plan([3, 4, 5], seeds=2)
    assert [j.config.boardsize for j in jobs[:6]] == [3, 4, 5, 3, 4, 5]
    assert len(jobs) == 2*(6 + 15 + 20) and len({j.name for j in jobs}) == len(jobs)
    seeds = [j.config.seed for j in jobs if j.config.boardsize == 4]
    assert seeds == [0]*15 + [1]*15
    assert [len(sweep.plan([b], 2, n_runs=8)) for b in (3, 4, 5)] == [8, 8, 8]
    with pytest.raises(BadConfig, match=r'\[12\]'):
        sweep.plan([3, 12])


def test_runs_of_a_board_share_the_snapshots_grid_and_see_as_many_samples():
    for job in sweep.plan(plans.SETTINGS):
        n_envs, _, samples = plans.SETTINGS[job.config.boardsize]
        steps = np.log10(job.snapshots)*plans.PER_DECADE
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        assert len(job.snapshots) >= 12
        assert job.snapshots[0] >= n_envs*job.config.flops_per_sample
        assert job.flops/10**.2 < job.snapshots[-1]*(1 + 1e-9) <= job.flops*(1 + 2e-9)
        cheapest = networks.flops_per_sample(job.config.boardsize,
                                             *plans.CHEAPEST[job.config.boardsize])
        assert job.flops == min(samples*job.config.flops_per_sample, 2*samples*cheapest)
    few = sweep.plan([8], samples=1e7, largest=100_000)
    assert len(few) > 10 and all(j.flops == 1e7*j.config.flops_per_sample for j in few)
    assert all(networks.count_params(8, j.config.width, j.config.depth) <= 100_000 for j in few)


def test_the_command_asks_for_these_jobs(monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, 'sweep', lambda jobs, **options: asked.append(jobs))
    monkeypatch.setattr(packs, 'visit', lambda jobs, **options: asked.append(jobs))
    main.main('sweep --boards 8 --samples 1e7 --largest 9000 --runs 3'.split())
    main.main('sweep --boards 7 --study long --samples 8e7'.split())
    main.main('sweep --boards 8 --networks 128x4,64x2'.split())
    main.main('sweep --boards 9 --study lambda --networks 64x4 --samples 1e6 --runs 6'.split())
    main.main('visit --boards 8 --samples 1e7 --runs 2 --state nowhere'.split())
    for study, more in [('grid', '--runs 3'), ('long', ''), ('lambda', '')]:
        main.main(f'sweep --boards 3,4 --study {study} --seeds 2 --first-seed 5 {more}'.split())
    assert [{job.config.seed for job in jobs} for jobs in asked[5:]] == [{5}, {5, 6}, {5, 6}]
    assert asked[5:] == [sweep.plan([3, 4], [5, 6], n_runs=3), sweep.long_runs([3, 4], [5, 6]),
                         sweep.lambda_study([3, 4], [5, 6])]
    assert asked[:5] == [sweep.plan([8], samples=1e7, largest=9000, n_runs=3),
                         sweep.long_runs([7], samples=8e7),
                         sweep.plan([8], shapes=[(128, 4), (64, 2)]),
                         sweep.lambda_study([9], samples=1e6, shape=(64, 4))[:6],
                         sweep.plan([8], samples=1e7, largest=packs.LARGEST, n_runs=2)]


@pytest.mark.parametrize('options, problem', [
    ('--study long --networks 8x1', 'cheapest perfect'), ('--study lambda --largest 900', 'grid'),
    ('--study lambda --networks 8x1,4x1', 'one network')])
def test_an_option_that_a_study_has_no_use_for_is_refused(monkeypatch, options, problem):
    monkeypatch.setattr(sweep, 'sweep', lambda *_, **__: pytest.fail('it swept'))
    with pytest.raises(SystemExit, match=problem):
        main.main(f'sweep --boards 3 {options}'.split())


def test_networks_are_given_by_width_and_depth(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main.main('sweep --boards 3 --networks 128'.split())
    assert "'128': give width x depth" in capsys.readouterr().err
    jobs = sweep.plan([7, 8], shapes=[(128, 4), (2, 1)], largest=1000, samples=1e6)
    assert [(c.boardsize, c.width, c.depth) for c in (job.config for job in jobs)] == [
        (7, 2, 1), (8, 2, 1)]


@pytest.mark.parametrize('samples', [3.1e7, 4.6e7, 7.3e7, 1e8])
def test_a_longer_run_has_the_same_snapshots_and_more(samples):
    [usual], [longer] = sweep.long_runs([7]), sweep.long_runs([7], samples=samples)
    assert longer.snapshots[:len(usual.snapshots)] == usual.snapshots
    reach = longer.snapshots[-1]/longer.config.flops_per_sample
    assert samples/10**.2 < reach*(1 + 1e-9) <= samples*(1 + 2e-9)


def test_fitting_keeps_the_first_that_fit(monkeypatch):
    jobs = sweep.plan([3, 4], settings={3: (16, 1e-3, 4000), 4: (16, 1e-3, 4000)})
    monkeypatch.setattr(plans, '_seconds_per_sample', lambda config, device: 1e-3)
    each = plans.seconds(jobs)
    for job, seconds in zip(jobs, each):
        samples = job.flops/job.config.flops_per_sample
        cheapest = networks.flops_per_sample(job.config.boardsize,
                                             *plans.CHEAPEST[job.config.boardsize])
        assert seconds == pytest.approx(
            1e-3*samples*max(1, job.config.flops_per_sample/cheapest))
    assert sweep.fitting(jobs, sum(each[:3]) + 1e-6) == jobs[:3]
    assert sweep.fitting(jobs, each[0]/2) == jobs[:1], 'it can go on another time'


def test_the_time_is_measured():
    assert 0 < plans._seconds_per_sample(sweep.plan([3], settings=TINY)[0].config, 'cpu') < .1


def test_lambda_study_compares_at_equal_compute():
    jobs = sweep.lambda_study([3, 4, 5])
    assert len({j.name for j in jobs}) == len(jobs) == 3*2*(3 + 2*2 + 2*3)
    for boardsize in (3, 4, 5):
        mine = [j for j in jobs if j.config.boardsize == boardsize]
        assert len({j.flops for j in mine}) == 1
        assert {(j.config.width, j.config.depth) for j in mine} == {plans.CHEAPEST[boardsize]}
        curves = [j for j in mine if len(j.snapshots) > 1]
        assert all(len(j.snapshots) >= 12 for j in curves) and len(curves) == 6
        each = {(j.config.rule, j.config.c_puct/C_PUCT[j.config.rule], j.config.n_nodes)
                for j in mine}
        assert each == {(rule, *x) for rule in C_PUCT
                        for x in [(1, 64), (1/4, 64), (4, 64), (1, 16), (1, 256)]}
    few = sweep.lambda_study([9], 2, samples=1e6, shape=(64, 4))
    assert {(j.config.width, j.config.depth, j.flops) for j in few} == {
        (64, 4, 1e6*networks.flops_per_sample(9, 64, 4))}
    assert [(j.config.rule, j.config.seed, j.decades > 0) for j in few[:4]] == [
        (rule, seed, True) for seed in (0, 1) for rule in C_PUCT]


def test_long_runs_are_others_than_the_grids():
    jobs = sweep.long_runs([3, 4], seeds=2)
    assert [(j.config.boardsize, j.config.seed) for j in jobs] == [(3, 0), (4, 0), (3, 1), (4, 1)]
    first = {j.config.boardsize: j for j in sweep.plan([3, 4], n_runs=1)}
    for job in jobs:
        usual = first[job.config.boardsize]
        assert job.description == usual.description and job.flops == 3*usual.flops
        assert (job.config.width, job.config.depth) == (usual.config.width, usual.config.depth)
        assert job.config.lr == usual.config.lr/3
        assert job.name not in {j.name for j in sweep.plan([3, 4], seeds=2)}


# Pools

def echo(item):
    return item*2


def fail(item):
    raise ValueError(f'{item} is refused')


def die_once(path):
    """Kills its own process the first time."""
    if not os.path.exists(path):
        open(path, 'w').close()
        os.kill(os.getpid(), signal.SIGKILL)
    return 'done'


def die(item):
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(item):
    time.sleep(60)


def say_and_sleep(item):
    print('begun', flush=True)
    sleep(item)


def test_local_pool(tmp_path):
    pool = sweep.Local(2)
    assert dict(pool.map(echo, [1, 2, 3])) == {1: 2, 2: 4, 3: 6}
    [(_, error)] = pool.map(fail, [7])
    assert isinstance(error, ValueError) and '7 is refused' in str(error)
    assert list(pool.map(echo, [])) == []


def test_local_pool_takes_up_the_work_of_the_dead(tmp_path):
    paths = [str(tmp_path/'a'), str(tmp_path/'b')]
    assert dict(sweep.Local(2).map(die_once, paths)) == dict.fromkeys(paths, 'done')
    [(_, error)] = sweep.Local(1).map(die, [0])
    assert isinstance(error, sweep.Lost) and '-9' in str(error)


def test_local_pool_ends_at_its_deadline():
    began = time.monotonic()
    assert list(sweep.Local(1).map(sleep, [1, 2], time.time() + .5)) == []
    assert time.monotonic() - began < 20


def test_workers_end_with_a_sweep_that_is_killed():
    code = ('from boardlaw import sweep; from test_sweep import say_and_sleep; '
            'list(sweep.Local(1).map(say_and_sleep, [1]))')
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE,
                          cwd=Path(__file__).parent) as process:
        assert process.stdout.readline().strip() == b'begun'
        process.kill()
        process.communicate(timeout=30)     # its workers hold the other end


# The whole

def snapshots(run):
    states = [storage.load_snapshot(run, n) for n in storage.snapshots(run).index]
    for saved in states:
        del saved['runtime'], saved['cputime']
    return states


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a.equal(b) if hasattr(a, 'equal') else a == b


def test_sweep_from_nothing_to_ratings_and_again(root):
    lines = []
    jobs = sweep.plan([3], settings=TINY, n_runs=2)
    rated = sweep.sweep(jobs, pool=sweep.Local(2), direct_games=64,
                        report=lines.append)
    [(group, ratings_)] = rated.items()
    assert group == (3, 'bee/3')
    reach = (ratings_.upper - ratings_.lower)/2
    assert reach.max() <= sweep.rating.WIDTH and ratings_.elo.notna().all()
    with sql.use(root/'replica.sqlite'):
        ags = sql.agent_query()
        exact = ags.index[ags.description == 'perfect']
        assert len(exact) == 1 and ratings_.elo[exact].tolist() == [0]
        assert len(ags) == 1 + sum(len(job.snapshots) for job in jobs)
        times = sql.query('select * from snap_details')
        assert len(times) == len(ags) - 1 and (times.cpu_seconds > 0).all()
        details = sql.query('select * from run_details').dropna()
        assert json.loads(details.params.iloc[0])['lr'] == 1e-3 and details.seed.eq(0).all()
        played = ratings.trials(ags).shape
        top = best.top(3, 'bee/3')
        apart = sql.query('select black_agent, white_agent from trials where id in '
                          "(select trial from trial_details where study = 'top')")
        assert len(apart) and apart.eq(top).any(axis=1).all()
        assert (best.against(top).games.drop(exact) >= 2*64).all()
        assert (best.against(exact[0]).games >= 2*4*64).sum() >= 3
        own = mirror.played(3, 'bee/3').games
        assert sorted(own.index) == sorted(ags.index.drop(exact)) and set(own) == {32, 128}
        assert own[top] == own[ratings_.elo.drop(exact).idxmax()] == 128
        all_of_them = len(sql.trial_query(3))
    before = lines.copy()
    again = sweep.sweep(jobs, pool=sweep.Local(2), direct_games=64,
                        report=lines.append)
    assert '2 runs, 2 of them finished before' in lines[len(before):]
    with sql.use(root/'replica.sqlite'):
        assert ratings.trials(sql.agent_query()).shape == played, 'nothing was played again'
        assert len(sql.trial_query(3)) == all_of_them
    assert again[group].equals(ratings_)


def test_the_two_rules_meet_where_all_else_is_equal(root):
    jobs = [job for job in sweep.lambda_study([3], 2, {3: (16, 1e-3, 1e4)})
            if job.config.n_nodes != 256]
    sweep.train_all(jobs, sweep.Local(2), sql.create(root/'replica.sqlite'),
                    report=lambda line: None)
    with sql.use(root/'replica.sqlite'):
        sweep.between_rules(sweep.plan([3]), sweep.Local(1), n_games=4)
        assert sql.study_query().empty, 'in other studies there is but one rule'
        for _ in range(2):
            sweep.between_rules(jobs, sweep.Local(2), n_games=4)
        found = sql.agent_query()
        assert ratings.trials(found).empty and set(sql.study_query()) == {'rules'}
        met = sql.trial_query(3)
        assert ((met.black_wins + met.white_wins) == 4).all()
        assert not met.duplicated(['black_agent', 'white_agent']).any()
        params = sql.query('select run, params from run_details').set_index('run').params.map(
            json.loads)
        sides = [found.loc[met[side], 'run'].map(params).tolist()
                 for side in ('black_agent', 'white_agent')]
        for black, white in zip(*sides):
            assert {black['rule'], white['rule']} == {'corrected', '2021'}
            assert black['nodes'] == white['nodes']
            assert black['c_puct']/C_PUCT[black['rule']] == white['c_puct']/C_PUCT[white['rule']]
        # Two seeds of each rule: of 64 nodes with three values of c_puct, and of 16 nodes.
        assert len(met) == 4*2*2*2
        last = found.groupby('run').idx.transform('max')
        assert (found.idx == last)[[*met.black_agent, *met.white_agent]].all()


def test_a_finished_run_goes_on_when_more_is_asked_for(root):
    database = sql.create(root/'x.sqlite')

    def trained(samples):
        jobs = sweep.plan([3], settings=TINY, n_runs=1, samples=samples)
        sweep.train_all(jobs, Here(), database, report=lambda line: None)
        assert sweep.done(*jobs)
        return jobs[0]

    short = trained(3000)
    run = sweep.find(short)
    for _ in range(2):
        long = trained(12_000)
        assert runs.names() == [run] and sweep.find(long) == sweep.find(short) == run
        assert sweep.done(short) and long.snapshots[-1] > short.snapshots[-1]
    own = runs.info(run)['params']['snapshots']
    assert own == sorted({*short.snapshots, *long.snapshots})
    with sql.use(database):
        assert len(sql.agent_query().query('width > 0')) == len(own)
    carried_on = dict(zip(own, snapshots(run)))
    with pavlov.use_root(root/'straight'):
        straight = dict(zip(long.snapshots, snapshots(sweep.find(trained(12_000)))))
    assert len(straight) == len(long.snapshots)
    assert all(same(carried_on[x], straight[x]) for x in straight)

    pavlov.files.remove(run, [storage.LATEST])    # as in a package: it cannot go on
    longer = trained(30_000)
    assert len(runs.names()) == 2 and sweep.find(longer) != run
    assert sweep.find(long) == run


def test_the_bar_follows_the_savepoints_of_those_who_train(root, monkeypatch):
    short, job = (sweep.plan([3], settings=TINY, n_runs=1, samples=n)[0] for n in (3000, 12_000))
    bars, shown = [], []

    class Bar(training.tqdm):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            bars.append(self)

    class Halfway:
        def map(self, function, items, deadline):
            assert bars[0].n == 0
            training._train((short, str(root), 'cpu'))
            end = time.time() + 10
            while not bars[0].n and time.time() < end:
                time.sleep(.01)
            assert bars[0].n == state.n_samples(sweep.find(short))
            shown.append(bars[0].n)
            for item in items:
                yield item, function(item)
                shown.append(bars[0].n)

    monkeypatch.setattr(training, 'tqdm', Bar)
    monkeypatch.setattr(training, 'FOLLOW', .05)
    training.train_all([job], Halfway(), sql.create(root/'x.sqlite'), report=lambda line: None)
    total = job.snapshots[-1]/job.config.flops_per_sample
    assert 0 < shown[0] < total/2 and shown[1] == bars[0].total == total

    # What is there already counts, and a savepoint that nobody can read stops nothing.
    longer, = sweep.plan([3], settings=TINY, n_runs=1, samples=30_000)
    before = state.n_samples(sweep.find(job))
    training.train_all([longer], Here(), root/'x.sqlite', report=lambda line: None)
    assert bars[1].initial == before >= total
    longest, = sweep.plan([3], settings=TINY, n_runs=1, samples=60_000)
    pavlov.files.path(sweep.find(longest), storage.LATEST).write_bytes(b'x')
    with pytest.raises(pavlov.CorruptFile):     # from the training
        training.train_all([longest], Here(), root/'x.sqlite', report=lambda line: None)
    assert bars[2].initial == 0


def test_workers_that_are_told_to_end_leave_nothing_behind(tmp_path):
    """A progress bar in a worker makes a semaphore, which Python removes if the worker ends by
    itself; else it complains at the end of the sweep."""
    (tmp_path/'held.py').write_text('''
import multiprocessing, os, time
from boardlaw.sweep import pools

def hold(first):
    if first:
        held = multiprocessing.RLock()
        os.mkdir('begun')
        time.sleep(60)
    while not os.path.exists('begun'):
        time.sleep(.01)

if __name__ == '__main__':
    work = pools.Local(2).map(hold, [True, False])
    assert next(work) == (False, None)
    work.close()
''')
    ended = subprocess.run([sys.executable, 'held.py'], cwd=tmp_path, capture_output=True,
                           env=os.environ | {'PYTHONPATH': str(training.CHECKOUT)}, text=True)
    assert (ended.returncode, ended.stderr) == (0, '')


def test_finished_runs_take_none_of_a_sweeps_time(root, monkeypatch):
    jobs = sweep.plan([3], settings=TINY, n_runs=3)
    monkeypatch.setattr(plans, '_seconds_per_sample', lambda config, device: 1.)
    for stage in ('rate_alone', 'between_rules', 'measure_noise'):
        monkeypatch.setattr(sweep, stage, lambda *args, **kwargs: {})
    lines = []
    for n in (1, 2, 3, 3):    # one fits into this time, each time
        sweep.sweep(jobs, minutes=1, pool=Here(), report=lines.append)
        assert [sweep.done(job) for job in jobs] == [i < n for i in range(3)]
    assert [line for line in lines if 'fit' in line] == [
        f'{min(n, 1)} of {n} runs fit into 1 minutes' for n in (3, 2, 1, 0)]


def test_killed_workers_change_nothing(root):
    """Kills the workers again and again; the snapshots are those of trainings left alone."""
    settings = {3: (64, 1e-3, 60_000)}
    jobs = sweep.plan([3], settings=settings, n_runs=2)
    database = sql.create(root/'killed.sqlite')
    stop, kills = threading.Event(), []

    def killer():
        while not stop.wait(2.5) and len(kills) < 2:
            for job in jobs:
                if (run := sweep.find(job)) and (workers := children()):
                    os.kill(workers[len(kills) % len(workers)], signal.SIGKILL)
                    kills.append(run)
                    break

    thread = threading.Thread(target=killer)
    thread.start()
    sweep.train_all(jobs, sweep.Local(2), database, report=lambda line: None)
    stop.set(), thread.join()
    assert kills and all(map(sweep.done, jobs)) and len(runs.names()) == 2
    killed = [snapshots(sweep.find(job)) for job in jobs]
    with pavlov.use_root(root/'straight'):
        for job in jobs:
            assert 'samples in' in training._train((job, str(root/'straight'), 'cpu'))
        assert all(same(x, snapshots(sweep.find(job))) for x, job in zip(killed, jobs))


def processes():
    """Of every process its id, its parent's and its command."""
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            parent = int((folder/'stat').read_text().rpartition(')')[2].split()[1])
            yield int(folder.name), parent, (folder/'cmdline').read_text()
        except OSError:   # it has ended
            pass


def children():
    """The workers of this process."""
    found = list(processes())
    servers = [pid for pid, parent, command in found
               if parent == os.getpid() and 'forkserver' in command]
    return [pid for pid, parent, _ in found if parent in servers]


def test_a_run_that_another_sweep_trains_is_left_to_it(root):
    [job] = sweep.plan([3], settings=TINY, n_runs=1)
    with state.alone(job.name):
        assert 'another sweep' in training._train((job, str(root), 'cpu'))
        assert runs.names() == []
    assert 'samples in' in training._train((job, str(root), 'cpu'))
    assert training._train((job, str(root), 'cpu')) == 'finished by another sweep'
    with state.alone('rate-bee/3-3'), sql.use(sql.create(root/'x.sqlite')):
        sweep.register(job)
        assert sweep.rate_alone(3, 'bee/3', sweep.Local(1)) is None


def test_a_sweep_waits_for_another_that_may_not_know_its_agents(root, monkeypatch):
    [job] = sweep.plan([3], settings=TINY, n_runs=1)
    training._train((job, str(root), 'cpu'))
    work = []
    monkeypatch.setattr(rating, 'rate', lambda *args, **kwargs: work.append('rated'))
    for stage in ('direct', 'mirror'):
        monkeypatch.setattr(rating, stage, lambda *args, **kwargs: None)
    monkeypatch.setattr(noise, '_measure', lambda ids: work.append('noise'))

    def other():
        with pavlov.use_root(root), state.alone('rate-bee/3-3'), state.alone('noise'):
            held.set()
            time.sleep(2)
            work.append('the other is done')

    held, thread = threading.Event(), threading.Thread(target=other)
    thread.start()
    held.wait()
    lines = []
    [rated] = sweep.sweep([job], pool=Here(), report=lines.append).values()
    thread.join()
    assert '3x3: is rated by another sweep' in lines
    assert work[:2] == ['the other is done', 'rated'] and set(work[2:]) == {'noise'}
    assert len(rated) == 1 + len(job.snapshots)
    with state.alone('noise'), sql.use(root/'replica.sqlite'):
        noise.measure_noise([job], Here(), time.time(), lines.append)
    assert lines[-1] == 'noise scales: are measured by another sweep'
    assert work.count('noise') == 1


class Here:
    """A pool of this process."""
    workers = 1

    def map(self, function, items, deadline=math.inf):
        return [(item, function(item)) for item in items]


TWO = """if True:
    import sys
    from boardlaw import sweep
    jobs = sweep.plan([3], settings={3: (32, 1e-3, 8000)}, n_runs=3)
    rated = sweep.sweep(jobs, pool=sweep.Local(1), direct_games=64)
    [ratings] = rated.values()
    print('rated', len(ratings), ((ratings.upper - ratings.lower)/2).max())
"""


def test_two_sweeps_at_once_share_the_work(root):
    """Every run is trained once, no game is played twice, every agent is rated by both's end."""
    both = [subprocess.Popen([sys.executable, '-c', TWO], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.STDOUT) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], '\n'.join(said)
    jobs = sweep.plan([3], settings={3: (32, 1e-3, 8000)}, n_runs=3)
    assert len(runs.names()) == 3 and all(map(sweep.done, jobs))
    trained = [line for text in said for line in text.splitlines() if ' samples in ' in line]
    assert len(trained) == 3, 'each once: ' + '\n'.join(said)
    assert all('samples in' in text for text in said), 'both took a share: ' + '\n'.join(said)
    with sql.use(root/'replica.sqlite'):
        ags = sql.agent_query()
        assert len(ags) == 1 + sum(len(job.snapshots) for job in jobs)
        rated = ratings.ratings(ratings.agents(3, 'bee/3'))
        assert ((rated.upper - rated.lower)/2).max() <= sweep.rating.WIDTH
        scales = sql.query('select agent_id, kind from noise_scales')
        assert len(scales) and not scales.duplicated().any()
        # A match's seed counts the games of the pair before it: a match that was played by both
        # would not be the one that follows from those that were saved.
        rows = sql.query('select * from trials order by id')
        rows['games'] = rows.black_wins + rows.white_wins
        before = rows.groupby(['black_agent', 'white_agent']).games.cumsum() - rows.games
        agents = arena.load(ags.index)
        for row, n in zip(rows.itertuples(), before):
            seed = rng.fold(2021, row.black_agent, row.white_agent, n)
            again = matches.play(agents[row.black_agent], agents[row.white_agent], row.games, 3,
                                 seed)
            assert (again.black_wins, again.moves) == (row.black_wins, row.moves)


def test_agents_whose_snapshots_are_elsewhere_keep_their_games(root):
    """As with the runs that ship, of which some have their last snapshot only."""
    settings = {3: (16, 1e-3, 8_000)}
    first, second = sweep.plan([3], 2, settings, shapes=[(1, 1)])
    database = root/'replica.sqlite'
    options = {'pool': Here(), 'report': lambda line: None, 'direct_games': 2}
    sweep.sweep([first], **options)
    run = sweep.find(first)
    last, *others = storage.snapshots(run).index[::-1]
    for n in others:
        (runs.path(run)/storage.SNAPSHOT.format(n=n)).unlink()

    def games():
        played = sql.query('select * from trials').set_index(['black_agent', 'white_agent'])
        return (played.black_wins + played.white_wins).groupby(level=[0, 1]).sum()

    with sql.use(database):
        agents, before = sql.agent_query(), games()
        gone = agents.index[(agents.run == run) & (agents.idx != last)]
        assert set(agents.index) - set(state.present(agents)) == set(gone) and len(gone) > 5
    lines = []
    [rated] = sweep.sweep([second], **options | {'report': lines.append}).values()
    with sql.use(database):
        agents = sql.agent_query()
        new = agents.index[agents.run == sweep.find(second)]
        after = games()
    assert rated.elo[[*gone, *new]].notna().all()
    assert any(f'{len(gone)} others cannot play here' in line for line in lines)
    theirs = [pair for pair in after.index if set(pair) & set(gone)]
    assert after[theirs].equals(before.reindex(theirs)), 'a game that nobody can have played'
    assert set(new) <= {i for pair in after.index for i in pair}


def test_test_trees_are_agents_of_their_own(root):
    [job] = sweep.plan([3], settings=TINY, n_runs=1)
    training._train((job, str(root), 'cpu'))
    with sql.use(sql.create(root/'x.sqlite')):
        sweep.register(job)
        sweep.register(job, nodes=[1, 64, 512], every=3)
        ags, n = sql.agent_query(), len(job.snapshots)
        assert ags.test_nodes.value_counts().to_dict() == {0: 1, 64: n, 1: -(-n//3), 512: -(-n//3)}
        assert sorted(ags[ags.test_nodes == 1].idx) == list(range(n))[::-3][::-1]
        weak, strong = (sql.agent_query().query(f'test_nodes == {n}').index[-1] for n in (1, 512))
        assert arena.load([weak, strong])[strong].n_nodes == 512


def test_command_line_stops_and_goes_on(root):
    command = [sys.executable, '-m', 'boardlaw', 'sweep', '--boards', '3', '--runs', '1',
               '--minutes', '60', '--workers', '1']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    [job] = sweep.plan([3], n_runs=1)
    while (run := sweep.find(job)) is None or not len(storage.snapshots(run)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(.1)
    process.terminate()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM and '1 of 1 runs fit' in said
    samples = storage.load_latest(run)['n_samples']
    assert samples > 0, 'it has saved itself'
    assert not children()
    assert sweep.find(job) == run and not sweep.done(job)


# On a cluster

def test_who_enters_a_run_first_is_named(root, monkeypatch):
    [job] = sweep.plan([3], settings=TINY, n_runs=1)
    with sql.use(sql.create(root/'own.sqlite')):
        sweep.train_all([job], sweep.Local(1), root/'own.sqlite', report=lambda line: None)
        before = sql.query('select * from run_details where machine is not null')
        assert before.version.tolist() == [training.release()]
        monkeypatch.setattr(training, 'release', lambda: 'another')
        monkeypatch.setattr(training, 'machine', lambda: 'another')
        sweep.register(job, [1, 2])
        assert len(sql.agent_query().query('width > 0').test_nodes.unique()) == 3
        assert sql.query('select * from run_details where machine is not null').equals(before)


@pytest.mark.parametrize('folder', ['with space', 'a&b', '(x)'])
def test_ray_is_refused_where_its_workers_would_never_come_up(folder, monkeypatch):
    pytest.importorskip('ray')
    monkeypatch.setattr(sys, 'executable', f'/opt/{folder}/bin/python')
    with pytest.raises(RuntimeError, match='does not quote'):
        sweep.Ray('local')


def test_ray_cluster_loses_a_worker(root):
    ray = pytest.importorskip('ray')
    if set(sys.executable) & set(pools._READ_BY_A_SHELL):
        pytest.skip('Ray cannot start workers of a Python in a folder of this name')
    settings = {3: (64, 1e-3, 60_000)}
    jobs = sweep.plan([3], settings=settings, n_runs=2)
    os.environ['RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO'] = '0'
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
             runtime_env={'env_vars': {'BOARDLAW_OUTPUT': str(root)}})
    try:
        pool = sweep.Ray('local')
        assert pool.workers == 2
        killed = []

        def killer():
            while not (run := sweep.find(jobs[0])) or not len(storage.snapshots(run)):
                time.sleep(.2)
            for pid, _, command in processes():
                if command.startswith('ray::_task'):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        thread = threading.Thread(target=killer)
        thread.start()
        database = sql.create(root/'ray.sqlite')
        sweep.train_all(jobs, pool, database, report=lambda line: None)
        thread.join()
        assert killed and all(map(sweep.done, jobs)) and len(runs.names()) == 2
        with sql.use(database):
            rated = sweep.rate(3, 'bee/3', pool, width=60, report=lambda line: None)
        assert rated.elo.notna().all()
        assert ((rated.upper - rated.lower)/2).max() <= 60
        [(_, error)] = pool.map(math.sqrt, [-1])
        assert isinstance(error, ValueError)
    finally:
        ray.shutdown()


@pytest.fixture
def rated_again(monkeypatch):
    """Rates two agents, with these half intervals after each round of games: (what each round
    aimed at, the lines reported)."""
    def rate(reaches):
        found = pd.DataFrame({'boardsize': 3, 'description': 'bee/3'}, [1, 2])
        reaches, asked, lines = iter(reaches), [], []
        played = pd.DataFrame({'black_agent': [1], 'white_agent': [2], 'black_wins': [1],
                               'white_wins': [1]})
        monkeypatch.setattr(rating, '_pool', lambda *_: found)
        monkeypatch.setattr(state, 'present', lambda agents: list(agents.index))
        monkeypatch.setattr(ratings, 'trials', lambda _: played)
        monkeypatch.setattr(ratings, 'ratings', lambda *_: (lambda reach: pd.DataFrame(
            {'elo': 0., 'lower': -reach, 'upper': reach}, found.index))(next(reaches)))
        monkeypatch.setattr(elos, 'suggest', lambda *_, until, **__: asked.append(until) or (
            pd.DataFrame({'agent': [1], 'opponent': [2], 'games': [64]})))
        monkeypatch.setattr(rating, 'play', lambda *_: None)
        rating.rate(3, 'bee/3', sweep.Local(1), width=60, report=lines.append)
        assert next(reaches, None) is None, 'it ended early'
        return asked, lines
    return rate


def test_rating_asks_for_more_where_the_design_expected_enough(rated_again):
    """Else it would play one match a round without end, of agents who need it least."""
    asked, lines = rated_again([90., 70., 65., 50.])
    assert len(asked) == 3 and asked == sorted(asked, reverse=True) and len(set(asked)) == 3
    assert len(lines) == 4 and 'no longer' not in lines[-1]


def test_rating_ends_where_more_games_do_not_help(rated_again):
    """A pair's games tell only so much: it would play without end, or to the deadline."""
    asked, lines = rated_again([math.inf, math.inf, 90., 89.9, 91., 80., 79.9, 80., 79.9])
    assert len(asked) == 8
    assert 'no longer' in lines[-1] and not any('no longer' in line for line in lines[:-1])
