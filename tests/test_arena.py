import functools
import json
import pickle
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from boardlaw import arena, pavlov, rng, sql
from boardlaw.arena import best, common, matches, mirror, ratings
from boardlaw.hex import Hex
from boardlaw.mcts import C_PUCT, MCTSAgent
from boardlaw.networks import Network
from boardlaw.pavlov import runs, storage

FIXTURE = next((Path(__file__).parent / 'fixtures/original-format/output/pavlov').iterdir())
RUN = FIXTURE.name


pytestmark = pytest.mark.usefixtures('clean')


@pytest.fixture
def original():
    """A copy of a run of 2021 in the output folder; returns its folder."""
    folder = pavlov.root() / 'pavlov' / RUN
    shutil.copytree(FIXTURE, folder)
    return folder


class Scripted:
    """An agent whose moves are a function of one board; it notes how it was called."""

    def __init__(self, choose):
        self.choose, self.calls = choose, []

    def __call__(self, world, seed=0, move=0, games=None):
        self.calls.append(SimpleNamespace(seed=seed, move=move, games=list(games),
                                          seats=world.seats.tolist()))
        return SimpleNamespace(actions=torch.tensor(
            [self.choose(world[i]) for i in range(world.n_envs)], dtype=torch.int64))


@functools.cache
def outcome(text, seat):
    """(1 if the mover wins with perfect play else -1, an action that achieves it): brute force."""
    world = Hex.parse(text, seat=seat)
    best = (-2, None)
    for action in torch.nonzero(world.valid[0]).ravel().tolist():
        after, transition = world.step(torch.tensor([action]), reset=False)
        value = (transition.rewards[0, seat].item() if transition.terminal.item()
                 else -outcome(colours(after), 1 - seat)[0])
        if value > best[0]:
            best = value, action
        if value == 1:
            break
    return best


def colours(world):
    return world.text().replace('T', 'b').replace('B', 'b').replace('L', 'w').replace('R', 'w')


def perfect():
    return Scripted(lambda world: outcome(colours(world), int(world.seats[0]))[1])


def first_free():
    return Scripted(lambda world: int(torch.nonzero(world.valid[0])[0]))


def mcts(boardsize=3, seed=0, **settings):
    torch.manual_seed(seed)
    network = Network(boardsize, 4, 1)
    with torch.no_grad():
        network.policy.core.weight.mul_(4)
    return MCTSAgent(network, **({'n_nodes': 4} | settings))


# Matches

@pytest.mark.parametrize('boardsize', [2, 3])
def test_a_perfect_first_player_wins_every_game(boardsize):
    # The first player wins Hex on every board (strategy stealing), so Black never loses if perfect.
    result = arena.play(perfect(), arena.RandomAgent(), 40, boardsize, seed=1)
    assert (result.black_wins, result.white_wins, result.games) == (40, 0, 40)
    result = arena.play(perfect(), perfect(), 8, boardsize)
    assert (result.black_wins, result.white_wins) == (8, 0)
    assert arena.winrate(perfect(), perfect(), 16, boardsize) == .5, 'half with each colour'


def test_who_wins_is_counted_for_whom():
    # Against a random Black a perfect White wins most, and the colours are not mixed up.
    a, b = arena.match(perfect(), arena.RandomAgent(), 200, 3, seed=3)
    assert a.games == b.games == 100 and a.black_wins == 100 and b.white_wins > 60
    rate = arena.winrate(perfect(), arena.RandomAgent(), 200, 3, seed=3)
    assert rate == (100 + b.white_wins)/200
    assert arena.winrate(arena.RandomAgent(), perfect(), 200, 3, seed=3) < .3


def exact_random(text, seat):
    """Black's chance and the mean number of further moves in random play: the whole tree."""
    world = Hex.parse(text, seat=seat)
    found = []
    for action in torch.nonzero(world.valid[0]).ravel().tolist():
        after, t = world.step(torch.tensor([action]), reset=False)
        chance, moves = ((t.rewards[0, 0].item() + 1)/2, 0.) if t.terminal.item() \
            else exact_random(colours(after), 1 - seat)
        found.append((chance, moves + 1))
    return tuple(np.mean(found, 0))


def test_random_play_agrees_with_the_whole_tree():
    chance, moves = exact_random('. .\n . .', 0)
    n = 20_000
    result = arena.play(arena.RandomAgent(), arena.RandomAgent(), n, 2, seed=5)
    assert result.games == n
    # Four standard errors; the length of a 2x2 game is 3 or 4, so its deviation is at most 1/2.
    assert abs(result.black_wins/n - chance) < 4*(chance*(1 - chance)/n)**.5
    assert abs(result.moves/n - moves) < 4*.5/n**.5
    assert result.seconds > 0


def test_scripted_games_move_by_move():
    black, white = first_free(), first_free()
    result = arena.play(black, white, 3, 3, seed=9)
    board, moves = Hex.initial(1, 3), 0
    while True:
        seat = int(board.seats[0])
        board, t = board.step(torch.nonzero(board.valid[0])[0], reset=False)
        moves += 1
        if t.terminal.item():
            break
    assert result.moves == 3*moves and (result.black_wins, result.white_wins)[seat] == 3
    assert [c.move for c in black.calls] == list(range(0, moves, 2))
    assert [c.move for c in white.calls] == list(range(1, moves, 2))
    for calls, seat in [(black.calls, 0), (white.calls, 1)]:
        assert all(c.seats == [seat]*3 and c.seed == 9 and c.games == [0, 1, 2] for c in calls)


def test_a_game_that_ends_leaves_the_others_their_numbers():
    agents = arena.RandomAgent(), Scripted(lambda world: int(torch.nonzero(world.valid[0])[-1]))
    result = arena.play(*agents, 50, 3, seed=2)
    sizes = [len(c.games) for c in agents[1].calls]
    assert result.games == 50 and sizes == sorted(sizes, reverse=True) and sizes[-1] < 50
    for before, after in zip(agents[1].calls, agents[1].calls[1:]):
        assert set(after.games) <= set(before.games) == set(range(50)) & set(before.games)
    assert result.moves >= 50*5, 'a 3x3 game takes at least five moves'


@pytest.mark.parametrize('agents', [
    lambda: (arena.RandomAgent(), arena.RandomAgent()),
    lambda: (mcts(seed=0), mcts(seed=1)),
    lambda: (mcts(seed=0, argmax=True), arena.RandomAgent())])
def test_seeds_fix_every_game_whatever_the_batch(agents):
    def final(games, seed=4):
        """The last board of each of these games, played together."""
        world, ends = Hex.initial(len(games), 3), {}
        black, white = agents()
        games, move = np.array(games), 0
        while len(games):
            seat = int(world.seats[0])
            d = (black, white)[seat](world, seed=seed, move=move, games=games)
            world, t = world.step(d.actions, reset=False)
            ends |= {int(g): world[i].text() for i, g in enumerate(games) if t.terminal[i]}
            games, world, move = games[~t.terminal.numpy()], world[~t.terminal], move + 1
        return ends

    together = final(range(24))
    apart = final(range(7)) | final([*range(23, 6, -1)])
    assert together == apart and len(set(together.values())) > 1
    assert final(range(24), seed=5) != together
    a, b = (arena.play(*agents(), 24, 3, seed=4) for _ in range(2))
    assert (a.black_wins, a.white_wins, a.moves) == (b.black_wins, b.white_wins, b.moves)
    assert a.moves == sum(c in 'bwTBLR' for end in together.values() for c in end)


def test_the_orders_of_a_match_have_their_own_seeds():
    first, second = first_free(), first_free()
    arena.match(first, second, 4, 3, seed=7)
    assert {c.seed for c in first.calls} == {14, 15} == {c.seed for c in second.calls}


def test_start_from_given_positions():
    world = Hex.cat([Hex.parse('. b .\n . w .\n  . . .')]*6)
    result = arena.play(perfect(), perfect(), 6, 3, world=world)
    value, _ = outcome(colours(world[0]), 0)
    assert (result.black_wins, result.white_wins) == ((6, 0) if value == 1 else (0, 6))
    white = Hex.cat([Hex.parse('. b .\n . . .\n  . . .', seat=1)]*5)
    assert arena.play(perfect(), perfect(), 5, 3, world=white).games == 5
    with pytest.raises(ValueError, match='side to move'):
        arena.play(perfect(), perfect(), 2, 3, world=Hex.cat([world[:1], white[:1]]))


def test_bad_numbers_of_games():
    for n in (0, 1, 3, -2):
        with pytest.raises(ValueError, match='even number'):
            arena.match(arena.RandomAgent(), arena.RandomAgent(), n, 3)


def test_a_stronger_search_wins():
    # A perfect opponent tells a random network with a search from one without.
    torch.manual_seed(0)
    network = Network(3, 8, 1)
    rate = arena.winrate(MCTSAgent(network, 64), arena.RandomAgent(), 200, 3)
    assert rate > .6


# Agents from runs

def test_an_agent_of_2021(original):
    with pytest.warns(common.Rule2021, match=f'run "{RUN}", snapshot 3 names no rule.*2021') as w:
        agent = common.agent(RUN, 3)
    assert w[0].filename == __file__
    assert (agent.rule, agent.c_puct, agent.n_nodes) == ('2021', 1/16, 64)
    assert (agent.noise_eps, agent.argmax) == (0, False)
    weights = storage.load_snapshot(RUN, 3)['agent']
    for name, x in agent.network.state_dict().items():
        assert torch.equal(x, weights[f'network.{name}'])
    worlds = common.worlds(RUN, n_envs=2)
    assert (worlds.boardsize, worlds.n_envs) == (3, 2) and not worlds.board.any()
    decided = agent(worlds)
    assert decided.actions.shape == (2,) and decided.logits.shape == (2, 9)


@pytest.mark.filterwarnings('ignore::boardlaw.arena.common.Rule2021')
def test_which_state_and_which_run(original):
    assert torch.equal(*(a.network.body[0].weight for a in (common.agent(), common.agent(RUN))))
    latest = storage.load_latest(RUN)['agent']['network.body.0.weight']
    assert torch.equal(common.agent('arch-calm').network.body[0].weight, latest)
    last, also = common.agent(-1, -1), common.agent(0, 6)
    assert torch.equal(last.network.body[0].weight, also.network.body[0].weight)
    with pytest.raises(pavlov.NotFound, match='snapshot 20'):
        common.agent(RUN, 20)
    with pytest.raises(pavlov.NotFound):
        common.agent('no such run')


def set_params(folder, drop=(), **changed):
    info = json.loads((folder / '_info.json').read_text())
    info['params'] = {k: v for k, v in (info['params'] | changed).items() if k not in drop}
    (folder / '_info.json').write_text(json.dumps(info))


def set_state(folder, change, n=3):
    path = folder / f'storage.snapshot.{n}.pkl'
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.filterwarnings('ignore::boardlaw.arena.common.Rule2021')
def test_settings_that_the_files_do_not_state(original):
    # The paper's runs have no c_puct at all: 1/16.
    set_params(original, drop=('c_puct', 'nodes'))
    set_state(original, lambda s: [s['agent'].pop(k) for k in list(s['agent'])
                                   if k.startswith('kwargs')])
    agent = common.agent(RUN, 3)
    assert (agent.rule, agent.c_puct, agent.n_nodes) == ('2021', 1/16, 64)
    set_params(original, c_puct=.25, nodes=16)
    agent = common.agent(RUN, 3)
    assert (agent.c_puct, agent.n_nodes) == (.25, 16)
    set_state(original, lambda s: s['agent'].update({'kwargs.c_puct': .5, 'kwargs.n_nodes': 8}))
    agent = common.agent(RUN, 3)
    assert (agent.c_puct, agent.n_nodes) == (.5, 8), "the agent's own go first"


def test_overrides(original):
    with warnings.catch_warnings():
        warnings.simplefilter('error')      # who names the rule needs no warning
        agent = common.agent(RUN, 3, rule='corrected')
        assert (agent.rule, agent.c_puct) == ('corrected', C_PUCT['corrected'])
        agent = common.agent(RUN, 3, rule='2021', c_puct=.2, n_nodes=7, argmax=True, noise_eps=.1)
        assert (agent.rule, agent.c_puct, agent.n_nodes) == ('2021', .2, 7)
        assert (agent.argmax, agent.noise_eps) == (True, .1)
        set_params(original, rule='corrected', c_puct=.3)
        set_state(original, lambda s: s['agent'].update({'kwargs.c_puct': .3}))
        agent = common.agent(RUN, 3)
        assert (agent.rule, agent.c_puct) == ('corrected', pytest.approx(.3))
        # A c_puct means nothing under the other rule.
        assert common.agent(RUN, 3, rule='2021').c_puct == C_PUCT['2021']
    with pytest.raises(ValueError, match='rule'):
        common.agent(RUN, 3, rule='2022')


@pytest.mark.filterwarnings('ignore::boardlaw.arena.common.Rule2021')
def test_weights_that_do_not_fit_are_an_error(original):
    set_params(original, boardsize=5)
    with pytest.raises(ValueError, match=f'run "{RUN}", snapshot 3: .*3x3 board, not for 5x5'):
        common.agent(RUN, 3)
    set_params(original, boardsize=3)
    changes = {'missing: value.core.bias': lambda s: s['agent'].pop('network.value.core.bias'),
               'unknown: extra': lambda s: s['agent'].update({'network.extra': torch.zeros(1)}),
               'has shape': lambda s: s['agent'].update(
                   {'network.policy.core.bias': torch.zeros(8)}),
               'no agent': lambda s: s.pop('agent')}
    content = (original / 'storage.snapshot.3.pkl').read_bytes()
    for message, change in changes.items():
        (original / 'storage.snapshot.3.pkl').write_bytes(content)
        set_state(original, change)
        with pytest.raises(ValueError, match=f'snapshot 3: .*{message}'):
            common.agent(RUN, 3)
    (original / 'storage.snapshot.3.pkl').write_bytes(content[:-100])
    with pytest.raises(pavlov.CorruptFile, match='not a saved state'):
        common.agent(RUN, 3)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings('ignore::boardlaw.arena.common.Rule2021')
@pytest.mark.parametrize('dump', [
    lambda x, path: path.write_bytes(pickle.dumps(x)),
    lambda x, path: torch.save(x, path),
    lambda x, path: torch.save({'agent': x, 'n_flops': 1, 'n_samples': 1}, path),
    lambda x, path: torch.save(x, path, _use_new_zipfile_serialization=False)],
    ids=['pickle', 'torch', 'inside', 'torch, old'])
def test_a_malicious_pickle_does_not_execute(original, tmp_path, dump):
    touched = tmp_path / 'touched'
    for name in ('storage.snapshot.3.pkl', 'storage.latest.pkl', 'storage.named.model.pkl'):
        dump(Evil(touched), original / name)
    for snapshot in (3, None):
        with pytest.raises(pavlov.CorruptFile, match='not a saved state'):
            common.agent(RUN, snapshot)
    runs.pandas()
    pavlov.files.pandas(RUN)
    storage.snapshots(RUN)
    assert common.agent(RUN, 2).n_nodes == 64, 'the model file is never opened'
    assert not touched.exists()
    pickle.loads(pickle.dumps(Evil(touched)))
    assert touched.exists(), 'it would have'


# Runs in the database

@pytest.fixture
def trained():
    """Two runs with two snapshots each, and a database in use."""
    names = []
    for k in range(2):
        run = runs.new_run('bee/3', {'boardsize': 3, 'width': 4, 'depth': 1, 'nodes': 4,
                                     'c_puct': .5, 'rule': 'corrected', 'seed': k}, seed=k)
        for n in range(2):
            agent = mcts(seed=10*k + n)
            state = {f'network.{name}': x for name, x in agent.network.state_dict().items()}
            storage.save_snapshot(run, n, {
                'agent': state | {'kwargs.n_nodes': 4, 'kwargs.c_puct': .5},
                'n_flops': 1000*(n + 1), 'n_samples': 100*(n + 1), 'runtime': 1.})
        names.append(run)
    with sql.use(sql.create(pavlov.root() / 'games.sqlite')):
        yield names


def test_register(trained):
    first = arena.register(trained[0], version='1', machine='a laptop')
    assert first.tolist() == [0, 1] and first.index.name == 'id'
    pd.testing.assert_series_equal(arena.register(trained[0]), first)
    ags = sql.agent_query()
    assert ags.index.tolist() == first.index.tolist()
    assert ags.drop(columns='snap_id').iloc[1].to_dict() == {
        'test_nodes': 4, 'test_c': .5, 'samples': 200, 'train_flops': 2000, 'idx': 1,
        'run': trained[0], 'description': 'bee/3', 'boardsize': 3, 'width': 4, 'depth': 1,
        'train_nodes': 4, 'test_flops': 4*2000/200}
    details = sql.query('select * from run_details').iloc[0]
    assert json.loads(details.params)['rule'] == 'corrected'
    assert (details.seed, details.version, details.machine) == (0, '1', 'a laptop')
    assert sql.query('select seconds from snap_details').seconds.tolist() == [1., 1.]
    more = arena.register(trained[0], n_nodes=16, c_puct=.25)
    assert set(more.index).isdisjoint(first.index) and len(sql.agent_query()) == 4
    loaded = arena.load(more.index)
    assert [(a.n_nodes, a.c_puct, a.rule) for a in loaded.values()] == [(16, .25, 'corrected')]*2
    expected = storage.load_snapshot(trained[0], 1)['agent']['network.body.0.weight']
    assert torch.equal(loaded[more.index[1]].network.body[0].weight, expected)
    with pytest.raises(LookupError, match=r'has no agents \[99\]'):
        arena.load([99])


@pytest.mark.filterwarnings('ignore::boardlaw.arena.common.Rule2021')
def test_register_a_run_of_2021_in_a_file_of_2021(original, tmp_path):
    path = tmp_path / 'database.sql'
    shutil.copy(FIXTURE.parents[1] / 'experiments/eval/database.sql', path)
    with sql.use(sql.create(path)):
        ids = arena.register(RUN)
        assert ids.index.tolist() == [1, 2, 3, 4, 5, 6, 7], 'they are there already'
        assert arena.load([3])[3].rule == '2021'
        before = len(sql.trial_query(3))
        pair = sql.query('select black_wins + white_wins as n from trials where black_agent = 1 '
                         'and white_agent = 2').n.sum()
        assert arena.evaluate([1, 2], n_games=int(pair), progress=False) == 0
        assert len(sql.trial_query(3)) == before


def test_evaluate_plays_what_is_missing_and_saves_it(trained):
    ids = [*arena.register(trained[0]).index, *arena.register(trained[1]).index]
    a, b, c, d = ids
    assert arena.evaluate([a, b], n_games=6, seed=3, progress=False) == 12
    rows = sql.trial_query(3)
    assert rows[['black_agent', 'white_agent']].values.tolist() == [[a, b], [b, a]]
    assert (rows.black_wins + rows.white_wins).tolist() == [6, 6]
    details = sql.query('select * from trial_details order by trial')
    assert details.trial.tolist() == rows.index.tolist()
    assert details.drop(columns='trial').drop_duplicates().to_dict('records') == [
        {'seed': 3, 'rule': 'corrected/corrected', 'noise_eps': 0., 'sampled': 1, 'study': None}]
    agents = arena.load([a, b])
    by_hand = matches.play(agents[b], agents[a], 6, 3, rng.fold(3, b, a, 0))
    assert rows.iloc[1][['black_wins', 'white_wins', 'moves']].tolist() \
        == [by_hand.black_wins, by_hand.white_wins, by_hand.moves]
    assert rows.times.min() > 0

    assert arena.evaluate(ids, n_games=6, seed=3, progress=False) == (12 - 2)*6, 'all but one pair'
    assert arena.evaluate(ids, n_games=6, seed=3, progress=False) == 0
    assert len(sql.trial_query(3)) == 12
    assert arena.evaluate([c, d], n_games=10, seed=3, progress=False) == 2*4, 'only four more each'
    top = sql.trial_query(3).iloc[-1]
    assert top.black_wins + top.white_wins == 4
    assert arena.evaluate(ids, pairs=[(a, d)], n_games=8, progress=False) == 2*2
    games = sql.trial_query(3).assign(n=lambda t: t.black_wins + t.white_wins)
    assert games.groupby(['black_agent', 'white_agent']).n.sum().to_dict() == {
        (i, j): {(c, d): 10, (d, c): 10, (a, d): 8, (d, a): 8}.get((i, j), 6)
        for i in ids for j in ids if i != j}


def test_evaluate_goes_on_after_an_interruption(trained, monkeypatch):
    ids = arena.register(trained[0]).index.tolist() + arena.register(trained[1]).index.tolist()
    real, played = matches.play, []

    def play(*args, **kwargs):
        if len(played) == 5:
            raise KeyboardInterrupt
        played.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(matches, 'play', play)
    with pytest.raises(KeyboardInterrupt):
        arena.evaluate(ids, n_games=4, progress=False)
    assert len(sql.trial_query(3)) == 5, 'what was played is kept'
    monkeypatch.setattr(matches, 'play', real)
    assert arena.evaluate(ids, n_games=4, progress=False) == 7*4
    resumed = sql.trial_query(3).drop(columns='times').values.tolist()
    with sql.use(sql.create(pavlov.root() / 'straight.sqlite')):
        arena.register(trained[0]), arena.register(trained[1])
        arena.evaluate(np.array(ids), n_games=4, progress=False)
        assert sql.trial_query(3).drop(columns='times').values.tolist() == resumed


def test_games_with_the_top_agent_are_not_of_the_pool(trained):
    ids = [*arena.register(trained[0]).index, *arena.register(trained[1]).index]
    arena.evaluate(ids, n_games=6, progress=False)
    found = sql.agent_query()
    pool, rated = ratings.trials(found), ratings.ratings(found)
    pairs = [(ids[0], i) for i in ids[1:]]
    assert arena.evaluate(ids, pairs, 20, progress=False, study='top') == 2*14*3
    pd.testing.assert_frame_equal(ratings.trials(found), pool)
    pd.testing.assert_frame_equal(ratings.ratings(found), rated)
    assert (best.against(ids[0]).games == 2*20).all(), 'there they count, with those of the pool'
    last = best.against(ids[-1]).games      # the first of no pair
    assert last.to_dict() == {i: 2*20 if i == ids[0] else 2*6 for i in ids[:-1]}
    assert arena.evaluate(ids, pairs, 20, progress=False) == 0


def test_games_of_an_agent_with_itself(trained):
    """One order each, not of the pool, and counted by agent."""
    ids = [*arena.register(trained[0]).index, *arena.register(trained[1]).index]
    arena.evaluate(ids, n_games=6, progress=False)
    found = sql.agent_query()
    pool, rated, met = ratings.trials(found), ratings.ratings(found), best.against(ids[0])
    assert mirror.played(3, 'bee/3').empty
    own = [(i, i) for i in ids[:3]]
    assert arena.evaluate(ids, own, [30, 20, 10], progress=False, study='mirror') == 60
    assert arena.evaluate(ids, own, [40, 20, 10], progress=False, study='mirror') == 10, 'the rest'
    played = mirror.played(3, 'bee/3')
    assert played.games.to_dict() == dict(zip(ids, [40, 20, 10]))
    rows = sql.query('select * from trials where black_agent = white_agent')
    assert len(rows) == 4
    assert played.black_wins.to_dict() == rows.groupby('black_agent').black_wins.sum().to_dict()
    agents = arena.load(ids[:1])
    first = matches.play(agents[ids[0]], agents[ids[0]], 30, 3, rng.fold(0, ids[0], ids[0], 0))
    assert rows.black_wins[0] == first.black_wins
    assert mirror.played(3, 'lambda/3').empty
    pd.testing.assert_frame_equal(ratings.trials(found), pool)
    pd.testing.assert_frame_equal(ratings.ratings(found), rated)
    pd.testing.assert_frame_equal(best.against(ids[0]), met)


def test_the_top_agent_has_64_nodes_and_the_highest_rating_of_all(trained):
    few, many = (arena.register(run, n).index for run, n in zip(trained, (64, 128)))
    def beats(a, b, games=64, lost=1/4):
        sql.save_trials([dict(black_agent=int(x), white_agent=int(y), black_wins=w, white_wins=v,
                              moves=0, times=0.)
                         for x, y, w, v in [(a, b, games, 0),
                                            (b, a, games*lost, games*(1 - lost))]])
    beats(few[1], few[0])
    beats(many[1], few[1])
    beats(few[0], many[1], lost=0)      # by more than it lost to the other
    beats(few[0], many[0], 640)
    elo = ratings.ratings(ratings.agents(3, 'bee/3')).elo
    assert best.top(3, 'bee/3') == elo[few].idxmax() == few[0]


def test_argmax_and_noise_are_recorded(trained):
    ids = arena.register(trained[0]).index
    agents = arena.load(ids)
    agents[ids[0]].argmax, agents[ids[1]].noise_eps = True, .25
    arena.evaluate(agents, n_games=2, progress=False)
    details = sql.query('select sampled, noise_eps from trial_details')
    assert details.values.tolist() == [[0, .25]]*2


def test_agents_of_two_boards_do_not_meet(trained):
    run = runs.new_run('bee/4', {'boardsize': 4, 'width': 4, 'depth': 1, 'nodes': 4,
                                 'c_puct': .5, 'rule': 'corrected'})
    state = {f'network.{name}': x for name, x in mcts(4).network.state_dict().items()}
    storage.save_snapshot(run, 0, {'agent': state, 'n_flops': 1, 'n_samples': 1, 'runtime': 1.})
    ids = [*arena.register(trained[0]).index, *arena.register(run).index]
    with pytest.raises(ValueError, match='boards of different size'):
        arena.evaluate(ids, n_games=2, progress=False)
    assert sql.trial_query(3).empty, 'it is found out before anything is played'
