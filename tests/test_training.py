import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import boardlaw
from boardlaw import learning, main, mcts, networks, pavlov, rng, selfplay, training
from boardlaw.hex import Hex
from boardlaw.pavlov import runs, stats, storage
from boardlaw.selfplay import BadConfig, Buffer, Config, Trainer

FIXTURES = Path(__file__).parent / 'fixtures/original-format/output'
SMALL = dict(boardsize=3, width=2, depth=1, n_envs=32, buffer_len=12, n_nodes=8, progress=False)
SCHEDULE = [3e4, 1e5, 3e5]


@pytest.fixture(autouse=True)
def output(tmp_path):
    with pavlov.use_root(tmp_path):
        yield tmp_path


pytestmark = pytest.mark.usefixtures('one_thread')


def result(run):
    """All that a run left behind that does not depend on the clock."""
    saved = storage.load_latest(run)
    saved.pop('runtime'), saved.pop('cputime')
    numbered = {n: storage.load_snapshot(run, n) for n in storage.snapshots(run).index}
    for state in numbered.values():
        state.pop('runtime'), state.pop('cputime')
    rows = {}
    for channel in stats.channels(run):
        array = stats.array(run, channel)
        rows[channel] = [tuple(row)[1:] for row in array.tolist()]
    return {'latest': saved, 'snapshots': numbered, 'rows': rows}


def assert_equal(a, b, where=''):
    """Equality to the last bit of nested dicts, lists and tensors."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            assert_equal(a[k], b[k], f'{where}.{k}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f'{where}[{i}]')
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    else:
        assert a == b, where


# The schedule and the settings

def test_the_schedule_is_the_papers():
    for boardsize, lo, hi in [(3, 1e9, 1e12), (4, 1e10, 1e13), (5, 1e11, 3e13), (6, 1e11, 4e14),
                              (7, 1e11, 1e16), (8, 1e11, 3e16), (9, 1e12, 1e17)]:
        points = training.schedule(boardsize)
        assert len(points) == 21
        assert points[[0, -1]] == pytest.approx([lo, hi])
        assert np.diff(np.log(points)) == pytest.approx(np.log(hi/lo)/20)
    assert training.schedule(11)[-1] > training.schedule(9)[-1]
    assert (training.schedule(2) == training.schedule(3)).all()


@pytest.mark.parametrize('settings, message', [
    (dict(boardsize=0), 'boardsize'), (dict(boardsize=40), 'boardsize'), (dict(width=0), 'width'),
    (dict(depth=1.5), 'depth'), (dict(n_envs=0), 'n_envs'), (dict(lr=-1.), 'lr'),
    (dict(lr=math.nan), 'lr'), (dict(rule='2022'), 'rule'), (dict(noise_eps=2.), 'noise_eps'),
    (dict(c_puct=0.), 'c_puct'), (dict(n_nodes=0), 'n_nodes'), (dict(seed=-1), 'seed'),
    (dict(batch_size='many'), 'batch_size'), (dict(minutes=0), 'minutes'),
    (dict(samples=math.inf), 'samples'), (dict(snapshots=[3, 2]), 'snapshots'),
    (dict(snapshots=[]), 'snapshots'), (dict(device='abacus'), 'device'),
    (dict(save_seconds=-1), 'save_seconds')])
def test_bad_settings_are_refused_before_there_is_a_run(settings, message):
    with pytest.raises(BadConfig, match=message):
        training.train(**(SMALL | {'samples': 100} | settings))
    assert runs.names() == []


def test_an_architecture_is_needed():
    with pytest.raises(BadConfig, match='depth, width'):
        training.train(3)


def test_a_config_goes_through_a_runs_params():
    config = Config(np.int64(5), 16, 4, rule='2021', lr=3e-4)
    params = json.loads(json.dumps(config.params()))
    assert Config.from_params(params) == config
    # What the runs of 2021 have, under the names that they have.
    old = json.loads(next(FIXTURES.glob('pavlov/*/_info.json')).read_text())['params']
    assert old.keys() <= params.keys()
    assert config.c_puct == 1/16 and config.batch_size == config.n_envs
    assert config.dirichlet_alpha == 10/25


# Self-play

def test_the_buffer_gives_back_what_was_put_in():
    generator = np.random.default_rng(0)
    length, n_envs, n_steps = 5, 4, 13
    buffer, kept = Buffer(length, n_envs, 3, 'cpu'), []
    world = selfplay.mixed(Hex.initial(n_envs, 3), 0)
    for _ in range(n_steps):
        policy = torch.from_numpy(generator.random((n_envs, 9))).half().float()*world.valid
        following, transition = world.step(world.random_actions(rng.keys(0, n_envs, len(kept))))
        row = dict(obs=world.obs, seats=world.seats, policy=policy, prior=policy.flip(0),
                   v=torch.zeros(n_envs, 2), rewards=transition.rewards,
                   terminal=transition.terminal)
        buffer.append(**row)
        kept.append((world, row))
        world = following
    assert buffer.full
    bootstrap = torch.from_numpy(generator.normal(size=(n_envs, 2))).float()
    ages, envs = torch.arange(length).repeat(n_envs), torch.arange(n_envs).repeat_interleave(length)
    batch = buffer.batch(ages, envs, bootstrap)
    for i, (age, env) in enumerate(zip(ages.tolist(), envs.tolist())):
        world, row = kept[n_steps - length + age]
        assert torch.equal(batch.obs[i], world.obs[env])
        assert torch.equal(batch.valid[i], world.valid[env])
        assert batch.seats[i] == world.seats[env]
        assert torch.equal(batch.policy[i], row['policy'][env])
        assert torch.equal(batch.prior[i], row['prior'][env])
        goal = bootstrap[env]
        for _, later in kept[n_steps - length + age:]:
            if later['terminal'][env]:
                goal = later['rewards'][env]
                break
        assert torch.equal(batch.reward_to_go[i], goal)


def ends(world, n_steps):
    """How many games end at each of some steps of random play."""
    found = []
    for t in range(n_steps):
        world, transition = world.step(world.random_actions(rng.keys(5, world.n_envs, t)))
        found.append(transition.terminal.sum().item())
    return np.array(found)


@pytest.mark.parametrize('boardsize', [3, 7])
def test_mixed_games_end_evenly_in_time(boardsize):
    n_envs, n_steps = 2048, 3*boardsize**2

    def spread(world):
        """Variance of the ends at a step, relative to that of independent games."""
        x = ends(world, n_steps)
        return x.var()/(x.mean()*(1 - x.mean()/n_envs))

    assert spread(Hex.initial(n_envs, boardsize)) > 20
    assert spread(selfplay.mixed(Hex.initial(n_envs, boardsize), 0)) < 6
    a, b = (selfplay.mixed(Hex.initial(16, boardsize), seed) for seed in (0, 1))
    assert not torch.equal(a.bits, b.bits)


def test_the_sample_has_one_position_of_each_game_and_all_ages():
    trainer = Trainer(Config(3, 2, 1, n_envs=64, buffer_len=8, n_nodes=2))
    while not trainer.buffer.full:
        trainer.advance()
    ages = []
    trainer.buffer.batch = lambda a, e, bootstrap: ages.append((a, e))
    for trainer.step in range(200):
        trainer.sample(None)
    counts = torch.stack([torch.bincount(a, minlength=8) for a, _ in ages]).sum(0)
    assert all(sorted(e.tolist()) == list(range(64)) for _, e in ages)
    # Chi-square with 7 degrees of freedom: 24.3 is exceeded once in a thousand.
    expected = 200*64/8
    assert ((counts - expected)**2/expected).sum() < 24.3
    assert not torch.equal(ages[0][0], ages[1][0])


def test_a_batch_of_another_size():
    for batch_size in (1, 10, 100):
        trainer = Trainer(Config(3, 2, 1, n_envs=32, buffer_len=2, n_nodes=2,
                                 batch_size=batch_size))
        for _ in range(5):
            measured = trainer.advance(measure=True)
        assert trainer.n_samples == 3*32 and 'loss.value' in measured


def test_the_search_trains_with_noise_and_the_targets_are_its_policy():
    trainer = Trainer(Config(3, 2, 1, n_envs=16, buffer_len=4, n_nodes=16, seed=3))
    world, network = trainer.world, trainer.network
    trainer.advance()
    search = mcts.search(world, network, 16, noise_eps=1/4, dirichlet_alpha=10/9,
                         keys=rng.keys(3, 16, 0))
    assert torch.equal(trainer.buffer.last('policy', 1)[0], search.policy.half())
    assert torch.equal(trainer.buffer.last('v', 1)[0], search.root_value)
    plain = mcts.search(world, network, 16, keys=rng.keys(3, 16, 0))
    assert not torch.equal(search.policy, plain.policy)


def test_noise_scales_cover_the_whole_buffer_once():
    trainer = Trainer(Config(3, 2, 1, n_envs=16, buffer_len=4, n_nodes=2))
    for _ in range(6):
        trainer.advance()
    seen = []
    batch = trainer.buffer.batch

    def watched(ages, envs, bootstrap):
        seen.append(ages*16 + envs)
        return batch(ages, envs, bootstrap)

    trainer.buffer.batch = watched
    scales = trainer.noise_scales()
    assert sorted(torch.cat(seen).tolist()) == list(range(64))
    assert scales['joint']['batches'] == 4 and scales['joint']['batch_size'] == 16


# A run

def test_a_run_in_all_its_parts():
    run = training.train(**SMALL, samples=3000, snapshots=SCHEDULE)
    config = Config(3, 2, 1, n_envs=32, buffer_len=12, n_nodes=8)
    assert runs.info(run)['description'] == 'bee/3'
    assert Config.from_params(runs.info(run)['params']) == config

    latest = storage.load_latest(run)
    assert latest['n_samples'] == 94*32    # the first multiple of 32 that is at least 3000
    assert latest['n_flops'] == latest['n_samples']*8*networks.count_params(3, 2, 1)
    assert latest['runtime'] > 0
    network = networks.from_state_dict(latest['agent'], boardsize=3)
    assert (network.width, network.depth) == (2, 1)
    assert latest['agent']['kwargs.n_nodes'] == 8 and latest['agent']['kwargs.c_puct'] == .25

    # Each snapshot is from the first step that reached its point of the schedule.
    assert storage.snapshots(run).index.tolist() == [0, 1, 2]
    for n, point in enumerate(SCHEDULE):
        state = storage.load_snapshot(run, n)
        assert point <= state['n_flops'] < point + 32*config.flops_per_sample
        old = storage.load(next(FIXTURES.glob('pavlov/*/storage.snapshot.1.pkl')))
        assert state.keys() == old.keys() | {'cputime'}
        assert state['agent'].keys() == old['agent'].keys()
        networks.from_state_dict(state['agent'], boardsize=3)

    def total(channel):
        array = stats.array(run, channel)
        return array[array.dtype.names[1]].sum()

    assert total('count.samples') == total('sample-rate.actor') == latest['n_samples']
    assert total('count.sims') == total('sim-rate') == latest['n_samples']*7
    assert total('count.learner-steps') == total('step-rate.learner') == 94
    assert total('sample-rate.learner') == latest['n_samples']
    wins = [stats.array(run, f'wins.seat-{i}') for i in (0, 1)]
    assert wins[0]['total'].sum() + wins[1]['total'].sum() == total('count.traj')
    length = stats.array(run, 'traj-length')
    assert 5 <= length['total'].sum()/length['count'].sum() <= 9
    assert 1 <= total('mcts-n-leaves')/len(stats.array(run, 'mcts-n-leaves')) < 8
    log = next(runs.path(run).glob('logs.*.txt')).read_text()
    assert 'Snapshot 2' in log and 'Finished' in log


def test_every_channel_of_2021_with_its_kind():
    run = training.train(**SMALL | {'n_envs': 8}, samples=training.NOISE_EVERY*8)

    def kinds(info):
        listed = {name.split('.', 1)[1].rsplit('.', 2)[0]: entry['kind']
                  for name, entry in info['_files'].items() if name.endswith('.npr')}
        return {k: x for k, x in listed.items()
                if k not in ('elo-mohex', 'step-rate.chunks-check')}    # not the training's

    old = json.loads(next(FIXTURES.glob('pavlov/*/_info.json')).read_text())
    assert kinds(runs.info(run)) == kinds(old)


def test_the_same_seed_gives_the_same_run_whatever_the_threads(monkeypatch):
    first = training.train(**SMALL, samples=1000)
    monkeypatch.setenv('BOARDLAW_THREADS', '1')
    torch.manual_seed(99)
    second = training.train(**SMALL, samples=1000)
    other = training.train(**SMALL, samples=1000, seed=1)
    assert_equal(result(first), result(second))
    weights = [storage.load_latest(r)['agent']['network.body.0.weight'] for r in (first, other)]
    assert not torch.equal(*weights)


def test_the_default_limits_are_the_papers(monkeypatch):
    monkeypatch.setitem(training.FLOPS, 3, (1e4, 1e6))
    run = training.train(**SMALL)
    assert len(storage.snapshots(run)) == 21 and storage.load_latest(run)['n_flops'] >= 1e6
    monkeypatch.setitem(training.SAMPLES, 3, 640)
    run = training.train(**SMALL)
    assert storage.load_latest(run)['n_samples'] == 640


def test_minutes_end_a_run():
    began = time.monotonic()
    run = training.train(**SMALL, minutes=1/60)
    assert 1 <= storage.load_latest(run)['runtime'] <= time.monotonic() - began


def test_the_loss_falls_and_the_agent_beats_random_play():
    run = training.train(3, 2, 4, n_envs=256, n_nodes=16, lr=1e-2, samples=100_000, progress=False)
    residual = stats.array(run, 'corr.resid-var')
    ratio = residual['total']/residual['count']
    assert ratio[-5:].mean() < .8*ratio[:5].mean()
    network = networks.from_state_dict(storage.load_latest(run)['agent'])
    agent = mcts.MCTSAgent(network, n_nodes=16)
    n_games = 200
    for colour in (0, 1):
        won = games_against_random(agent, colour, n_games)
        # Of a player no better than random in this colour, who wins p of these games, this is more
        # than 4 standard deviations above the mean.
        p = games_against_random(None, colour, 4000)/4000
        assert won/n_games > p + 4*math.sqrt(p*(1 - p)/n_games)
        assert won/n_games > .8


def games_against_random(agent, colour, n_games):
    """How many games an agent (None: a random player, too) wins as a colour against random play."""
    world, won = Hex.initial(n_games, 3), torch.zeros(n_games, dtype=torch.bool)
    alive = ~won
    for move in range(9):
        actions = world.random_actions(rng.keys(7, n_games, move))
        if move % 2 == colour and agent is not None:
            actions = agent(world, seed=1, move=move).actions
        world, transition = world.step(actions)
        won |= alive & (transition.rewards[:, colour] > 0)
        alive &= ~transition.terminal    # the first game of each environment counts
    assert not alive.any()
    return won.sum().item()


def test_progress_is_shown(capsys):
    training.train(**SMALL | {'progress': True}, minutes=1.5/60)
    shown = capsys.readouterr().err
    for part in ('samples/s', 'sims/s', 'FLOPs', 'value', '100%', runs.resolve(-1)):
        assert part in shown


# Stopping and going on

@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """What a run of 6000 samples leaves behind."""
    with pavlov.use_root(tmp_path_factory.mktemp('straight')):
        return result(training.train(**SMALL, samples=6000, snapshots=SCHEDULE))


def failing_after(n_steps):
    """A Trainer.advance that fails after some steps, like a machine that loses power."""
    advance, calls = Trainer.advance, []

    def fails(self, measure=False):
        calls.append(None)
        if len(calls) > n_steps:
            raise MemoryError('out of memory')
        return advance(self, measure)
    return fails


@pytest.mark.parametrize('n_steps', [0, 12, 20, 150])
def test_a_run_that_failed_goes_on_as_if_it_had_not(n_steps, straight, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Trainer, 'advance', failing_after(n_steps))
        training.train(**SMALL, samples=6000, snapshots=SCHEDULE, save_seconds=0)
    run = training.train(resume=-1, progress=False)
    assert_equal(result(run), straight)
    assert 'Stopped by MemoryError' in (runs.path(run) / 'logs.0.txt').read_text()


def test_a_finished_run_can_be_extended(straight):
    run = training.train(**SMALL, samples=1234, snapshots=SCHEDULE)
    assert training.train(resume=run, samples=6000, progress=False) == run
    extended = result(run)
    assert_equal(extended['snapshots'], straight['snapshots'])
    # One row more, where it had ended; the rows since then are of other windows.
    for part in ('agent', 'n_flops', 'n_samples'):
        assert_equal(extended['latest'][part], straight['latest'][part])
    assert_equal(extended['latest']['training']['optimiser'],
                 straight['latest']['training']['optimiser'])
    counts = [sum(r[0] for r in x['rows']['count.samples']) for x in (extended, straight)]
    assert counts[0] == counts[1]


def test_a_finished_run_can_have_later_snapshots(straight):
    first = SCHEDULE[:2]
    run = training.train(**SMALL, flops=first[-1], snapshots=first)
    assert storage.snapshots(run).index.tolist() == [0, 1]
    training.train(resume=run, samples=6000, snapshots=SCHEDULE, progress=False)
    assert_equal(result(run)['snapshots'], straight['snapshots'])
    assert runs.info(run)['params']['snapshots'] == SCHEDULE
    assert training.train(resume=run, snapshots=SCHEDULE, progress=False) == run


def savepoint():
    """When the newest run's savepoint was written; 0 if there is none."""
    found = [f.stat().st_mtime_ns for f in runs.folder().glob('*/storage.latest.pkl')]
    return max(found, default=0)


def wait_for(condition, alive):
    end = time.monotonic() + 120
    while not condition():
        assert alive(), 'it ended before it could be stopped'
        assert time.monotonic() < end
        time.sleep(.002)


def train_in(output, settings):
    pavlov.use_root(output)
    torch.set_num_threads(1)
    training.train(**settings)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a system that forks')
def test_a_run_that_was_killed_goes_on_as_if_it_had_not(output):
    settings = SMALL | {'samples': 15_000, 'save_seconds': 0}
    straight = training.train(**settings)
    # A server that has imported everything forks each process, which saves seconds at each start.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['boardlaw.training', 'torch._dynamo'])
    moments, kills = random.Random(0), 0
    with pavlov.use_root(output / 'killed'):
        while kills < 3:
            before = savepoint()
            process = context.Process(target=train_in, args=(output / 'killed', settings))
            process.start()
            wait_for(lambda last=before: savepoint() > last, process.is_alive)
            time.sleep(moments.uniform(0, .1))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            assert storage.load_latest(-1)['n_samples'] < 15_000
            settings = dict(resume=-1, save_seconds=0, progress=False)
        assert len(runs.names()) == 1
        killed = result(training.train(**settings))
    assert_equal(killed, result(straight))


@pytest.mark.parametrize('written', [False, True])
def test_the_last_snapshot_stands_for_the_whole_run(written, output, monkeypatch):
    """Who dies before it is there, or is listed, leaves a finished savepoint to write it from."""
    settings = SMALL | {'flops': 1e5, 'snapshots': [3e4, 9.9e4, 1e5], 'save_seconds': 0}
    straight, save = training.train(**settings), storage._save

    def dies(path, state):
        if path.name != storage.SNAPSHOT.format(n=2) or written:
            save(path, state)
        if path.name == storage.SNAPSHOT.format(n=2):
            raise OSError('no more')
    monkeypatch.setattr(storage, '_save', dies)
    with pavlov.use_root(output / 'killed'):
        with pytest.raises(OSError, match='no more'):
            training.train(**settings)
        assert storage.load_latest(-1)['n_flops'] >= 1e5
        assert not storage.snapshots(-1).listed.get(2, False)
        monkeypatch.undo()
        killed = result(training.train(resume=-1, progress=False))
        assert storage.snapshots(-1).listed.tolist() == [True]*3
    assert_equal(killed, result(straight))


def test_control_c_saves_first_and_a_second_process_is_refused(output):
    arguments = [f'--{k.replace("_", "-")}={v}' for k, v in SMALL.items() if k != 'progress']
    process = subprocess.Popen(
        [sys.executable, '-m', 'boardlaw', 'train', '--save-seconds=1000', '--samples=1e9',
         *arguments], cwd=Path(boardlaw.__file__).parent.parent, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {'BOARDLAW_OUTPUT': str(output)},
        # In the background of a shell the signal is ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for(lambda: runs.names() and any(runs.path(-1).glob('stats.loss.value.*')),
             lambda: process.poll() is None)
    with pytest.raises(RuntimeError, match='another process'):
        training.train(resume=-1, progress=False)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    reached = storage.load_latest(-1)['n_samples']
    assert reached > 0
    run = training.train(resume=-1, samples=reached + 320, progress=False)
    assert storage.load_latest(run)['n_samples'] == reached + 320


def test_settings_of_a_run_are_kept():
    run = training.train(**SMALL, samples=500, lr=2e-3)
    longer = [*training.schedule(SMALL['boardsize']), 1e18]
    for wrong in (dict(width=4), dict(lr=1e-3), dict(seed=1), dict(snapshots=[1.]),
                  dict(snapshots=longer[:-2]), dict(snapshots=longer[1:])):
        with pytest.raises(BadConfig, match='goes on with the settings'):
            training.train(resume=run, **wrong)
    assert training.train(resume=run, lr=2e-3, width=2, samples=600, progress=False) == run
    assert runs.info(run)['params']['limits'] == {'samples': 600}


def test_runs_that_cannot_be_resumed(output):
    (output / 'pavlov').symlink_to(FIXTURES / 'pavlov')
    with pytest.raises(BadConfig, match='not trained by this package'):
        training.train(resume=-1)


def test_a_run_that_was_kept_without_its_savepoint_does_not_go_on():
    run = training.train(**SMALL, flops=SCHEDULE[0], snapshots=SCHEDULE[:1])
    pavlov.files.remove(run, [storage.LATEST])
    before = runs.info(run)
    with pytest.raises(BadConfig, match='without its savepoint'):
        training.train(resume=run, snapshots=SCHEDULE, flops=SCHEDULE[-1], progress=False)
    assert runs.info(run) == before


def test_a_run_without_its_savepoint_is_not_begun_anew():
    run = training.train(**SMALL, samples=500)
    (runs.path(run) / 'storage.latest.pkl').unlink()    # as after an incomplete download
    with pytest.raises(pavlov.NotFound, match='download'):
        training.train(resume=run, progress=False)
    assert len(stats.array(run, 'loss.value')) > 0


def test_no_such_run():
    with pytest.raises(pavlov.NotFound):
        training.train(resume='nowhere')


@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('training'), 'holds an agent only'),
    (lambda s: s['training'].update(version=99), 'version 99'),
    (lambda s: s['training'].pop('optimiser'), 'not a savepoint'),
    (lambda s: s['training']['config'].update(width=3), 'other settings'),
    (lambda s: s['agent'].pop('network.body.0.bias'), 'not a savepoint'),
    (lambda s: s['training']['buffer']['rows'].update(obs=torch.zeros(2)), 'not a savepoint')])
def test_a_damaged_savepoint_is_refused(change, message):
    run = training.train(**SMALL, samples=500)
    before = stats.array(run, 'loss.value')
    state = storage.load_latest(run)
    change(state)
    storage.save_latest(run, state)
    with pytest.raises(ValueError, match=message) as error:
        training.train(resume=run, progress=False)
    assert 'storage.latest.pkl' in str(error.value)
    assert len(stats.array(run, 'loss.value')) == len(before)    # nothing was cut off


def test_a_training_that_diverges_says_so_and_keeps_its_last_savepoint(monkeypatch):
    small = SMALL | {'buffer_len': 1}    # a row of statistics at every step
    run = training.train(**small, samples=500)
    before = storage.load_latest(run)
    losses = learning.losses

    def infinite(output, batch):
        return learning.Losses(*(x*math.inf for x in losses(output, batch)))

    with monkeypatch.context() as patch, pytest.raises(training.Diverged, match='loss.policy'):
        patch.setattr(learning, 'losses', infinite)
        training.train(resume=run, samples=5000, progress=False, save_seconds=0)
    assert_equal(storage.load_latest(run), before)
    assert training.train(resume=run, progress=False) == run
    assert storage.load_latest(run)['n_samples'] >= 5000


def test_a_full_disk_stops_with_a_clear_error(monkeypatch):
    run = training.train(**SMALL, samples=500)
    before = storage.load_latest(run)

    def full(*args):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
        patch.setattr(os, 'fsync', full)
        training.train(resume=run, samples=1000, progress=False)
    assert_equal(storage.load_latest(run), before)


# The command line

def test_the_command_trains(capsys):
    main.main(['train', '--quiet', '--samples=500', *(
        f'--{k.replace("_", "-")}={v}' for k, v in SMALL.items() if k != 'progress')])
    run = capsys.readouterr().out.strip()
    assert Config.from_params(runs.info(run)['params']) == Config(
        3, 2, 1, n_envs=32, buffer_len=12, n_nodes=8)
    main.main(['train', '--quiet', '--resume=-1', '--samples=600'])
    assert storage.load_latest(run)['n_samples'] == 608


@pytest.mark.parametrize('arguments, message', [
    (['train', '--boardsize=3'], 'depth, width'), (['train', '--resume=0'], 'no run 0'),
    (['train', '--resume=nowhere'], 'No run fits'), (['train', '--width=x'], 'invalid int'),
    ([], 'required'), (['fly'], 'invalid choice')])
def test_mistakes_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main.main(arguments)
    assert end.value.code not in (0, None)
    assert message in f'{end.value.code} {capsys.readouterr().err}'


def test_debug_shows_where_an_error_came_from():
    with pytest.raises(BadConfig):
        main.main(['--debug', 'train'])


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit):
        main.main(['train', '--help'])
    shown = capsys.readouterr().out
    for name in training.train.__kwdefaults__:
        if name not in ('progress', 'snapshots'):
            assert f'--{name.replace("_", "-")}' in shown
