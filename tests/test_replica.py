"""The runs that the package ships: what was promised of them, and that they can be repeated."""
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reproduce
import sources
import torch

import boardlaw
from boardlaw import arena, main, networks, pavlov, sql, sweep, training
from boardlaw.arena import best, mirror, ratings
from boardlaw.hex import Hex
from boardlaw.paper import data, fits, prediction
from boardlaw.pavlov import runs, storage
from boardlaw.selfplay import Config
from boardlaw.sql import database
from boardlaw.sweep import packs, shipping

pytestmark = pytest.mark.skipif(not database.REPLICA.exists(), reason='no replica is shipped')

BOARDS = {3: 8, 4: 8, 5: 5, 6: 8, 7: 6, 8: 6, 9: 7}   # least number of runs
BEGUN = {10: 2, 11: 3}     # the same of boards whose best agent is not perfect yet
SHORT = {7: -90., 8: -120., 9: -160.}   # Elo that 64 nodes reach where training ended before -50
CHEAPEST = sweep.grid.CHEAPEST | {9: (256, 4)}   # ours that is the best: the paper's is wider
WIDTH = {9: 90.}   # Elo: the run trained last has few opponents, of the others only the ends ship
TREES = 8   # the largest board where several runs have larger trees
SOLVED = [b for b in BOARDS if b <= sweep.training.SOLVED]


@pytest.fixture(autouse=True)
def shipped():
    with sql.use('replica'):
        yield


@pytest.fixture(scope='module')
def unpacked(tmp_path_factory):
    with pavlov.use_root(tmp_path_factory.mktemp('replica')):
        shipping.unpack()
        yield


@pytest.mark.parametrize('boardsize', BOARDS)
def test_runs_snapshots_and_intervals(boardsize):
    agents = data.replica().query('boardsize == @boardsize and test_nodes == 64')
    snapshots = agents.groupby('run').idx.nunique()
    assert len(snapshots) >= BOARDS[boardsize] and snapshots.min() >= 12
    assert ((agents.upper - agents.lower)/2).max() <= WIDTH.get(boardsize, sweep.rating.WIDTH)
    reached = SHORT.get(boardsize, data.PERFECT)
    assert agents.elo.max() > reached, 'the best plays perfectly by the measure of the paper'
    assert (agents.runtime > 0).all()
    # So does the paper's cheapest perfect network; on 9x9 a smaller one.
    width, depth = CHEAPEST[boardsize]
    cheapest = agents.query('width == @width and depth == @depth')
    assert cheapest.elo.max() > reached


def test_what_was_foretold_of_the_last_board_held():
    """From the top at every level, and from below wherever that reading speaks of the climb."""
    kept = database.REPLICA.parent/'predictions'
    made = prediction.load(kept/'2026-11-28-boards-9.json')
    assert made.boards == [3, 4, 5, 6, 7, 8] and set(made.table.boardsize) == {9}
    assert (prediction.outcome(made, data.replica()).verdict == 'held').all()
    told = prediction.outcome(made, data.replica(), below=True)
    climb = told[told.elo < data.PERFECT]
    assert climb.found.notna().sum() >= 2 and not (climb.verdict == 'did not hold').any()


def test_direct_ratings_ask_for_games(monkeypatch):
    few = pd.DataFrame(0., range(3), ['elo', 'lower', 'upper', 'games'])
    monkeypatch.setattr(best, 'direct', lambda boardsize, description: few)
    with pytest.raises(ValueError, match='sweep.direct'):
        data.direct()


def test_zero_is_the_exact_player():
    for boardsize in SOLVED:
        found = ratings.agents(boardsize, f'bee/{boardsize}')
        exact = ratings.reference(found)
        assert ratings.ratings(found).elo[exact] == 0
        games = best.against(exact)
        # Black wins from the empty board, so the exact player never loses as Black.
        assert (games.white_wins == 0).all() and (games.wins <= games.games/2).all()


def test_the_exact_player_is_zero_only_where_it_has_played(tmp_path):
    exact = data.replica().groupby('boardsize').exact.agg(['all', 'any'])
    assert (exact['all'] == exact['any']).all()
    assert exact.index[exact['all']].tolist() == SOLVED
    shutil.copy(database.REPLICA, tmp_path)
    with sql.use(tmp_path/database.REPLICA.name):
        ref = ratings.reference(ratings.agents(3, 'bee/3'))
        theirs = 'black_agent = :id or white_agent = :id'
        sql.execute('delete from trial_details where trial in '
                    f'(select id from trials where {theirs})', id=ref)
        sql.execute(f'delete from trials where {theirs}', id=ref)
    with pytest.warns(UserWarning, match='the best agents on 3x3'):   # now weaker than perfect
        without = data.replica(target=tmp_path/database.REPLICA.name)
    assert set(without[without.exact].boardsize) == set(SOLVED) - {3}


def test_largest_board_has_its_test_trees():
    trees = data.largest_board(data.replica())
    assert set(trees.boardsize) == {TREES}
    assert set(trees.test_nodes) == {2**k for k in range(10)}
    assert trees.groupby('test_nodes').run.nunique().min() >= 5


def test_every_run_says_where_it_comes_from():
    details = sql.query('select * from run_details')
    assert set(details.run) == set(sql.agent_query().query('width > 0').run)
    for row in details.itertuples():
        params = json.loads(row.params)
        assert Config.from_params(params).seed == row.seed
        assert row.version and 'torch' in row.machine
    times = sql.query('select * from snap_details')
    assert (times.cpu_seconds > 0).all() and (times.seconds > 0).all()


def test_the_commands_that_are_named_plan_these_runs():
    planned = []
    for command in shipping.COMMANDS:
        planned += main._jobs(**vars(main.parser().parse_args(command.split())))[0]
    known = {run: {'description': description, 'params': json.loads(params)}
             for run, description, params in sql.query(
                 'select run, description, params from runs join run_details using (run) '
                 'where width > 0').values}
    assert {sweep.find(job, known) for job in planned} == set(known)


@pytest.mark.parametrize('boardsize', BEGUN)
def test_a_board_that_is_begun(boardsize):
    every = data.replica(unfinished=True)
    agents = every.query('boardsize == @boardsize and test_nodes == 64')
    snapshots = agents.groupby('run').idx.nunique()
    assert len(snapshots) >= BEGUN[boardsize] and snapshots.min() >= 12
    assert not agents.finished.any() and (agents.runtime > 0).all()
    top = best.top(boardsize, f'bee/{boardsize}')
    own = mirror.played(boardsize, f'bee/{boardsize}').loc[[top]]
    assert mirror.elo(own.black_wins, own.games).upper.item() < data.PERFECT
    # The prediction, written down before, can be read from below.
    [made] = [m for m in map(prediction.load, (database.REPLICA.parent/'predictions').iterdir())
              if boardsize in m.table.boardsize.values and max(m.boards) == max(BOARDS)]
    told = prediction.outcome(made, every, below=True).query('boardsize == @boardsize')
    assert told.found.notna().any() and not (told.verdict == 'did not hold').any()


def test_a_study_is_of_its_own_boards(recwarn):
    assert set(data.replica().boardsize) == set(BOARDS)
    assert set(data.replica(unfinished=True).boardsize) == {*BOARDS, *BEGUN}
    assert not recwarn.list, 'the docstring says what is left out'
    assert set(data.replica('lambda').boardsize) == {3, 4, 5, 6, 7, 9}
    with pytest.raises(ValueError, match="no rated agents of the study 'zeta'"):
        data.replica('zeta')


def test_direct_ratings_agree_with_the_pools():
    every, pool = data.direct(), data.replica().elo
    assert set(every.boardsize) == set(BOARDS) - {9}
    for boardsize, direct in every.groupby('boardsize'):
        near = direct[(direct.elo > -100*boardsize) & (direct.games >= 1024)]
        assert len(near) > (10 if boardsize == 8 else 15)   # on 8x8 few runs get so far
        # Strength is not quite a line; but the two must tell one story.
        assert np.corrcoef(near.elo, pool[near.index])[0, 1] > .8


def test_games_with_itself_bound_those_with_the_exact_player():
    elo, rows = data.replica().elo, []
    for boardsize in BOARDS:
        agents = ratings.agents(boardsize, f'bee/{boardsize}')
        own = mirror.played(boardsize, f'bee/{boardsize}')
        assert (own.games >= 256).all() and best.top(boardsize, f'bee/{boardsize}') in own.index
        assert set(agents.index[agents.test_nodes == best.NODES]) <= set(own.index)
        said = mirror.elo(own.black_wins, own.games)
        if boardsize <= 5:
            met = best.against(ratings.reference(agents)).reindex(own.index)
            rows.append(said.join(met).dropna().assign(games=own.games, elo=elo))
        elif boardsize > sweep.training.SOLVED:
            assert said.upper[elo[own.index].idxmax()] < -10, 'the best agent is not perfect'
    rows = pd.concat(rows)
    found = rows.black_wins/rows.black_games
    error = np.sqrt(rows.rate*(1 - rows.rate)/rows.games/rows.as_black.clip(.2)**2
                    + (found*(1 - found) + 1/rows.black_games)/rows.black_games)
    off = found - rows.as_black
    assert len(off) > 400 and (off > 2*error).mean() < .025 and not (off > 3.5*error).any()
    strong = off[rows.elo > data.PERFECT]
    assert len(strong) > 40 and abs(strong.mean()) < .03 and (strong.abs() < .05).mean() > .9


def test_the_law_can_be_fitted():
    law = fits.fit_frontier(data.frontier(data.replica()))
    assert law.incline_flops > 0 and law.plateau_boardsize < 0


def test_noise_scales_are_there():
    found = sql.noise_scale_query()
    assert set(found.kind) == {'policy', 'value', 'joint'}
    assert set(found.merge(sql.agent_query(), left_on='agent_id', right_index=True).boardsize) \
        == set(BOARDS)


def test_small_enough():
    package = Path(boardlaw.__file__).parent
    assert sum(f.stat().st_size for f in package.rglob('*') if f.is_file()
               and '__pycache__' not in f.parts) < 70e6


def test_the_rest_of_the_repository_leaves_room_for_a_state():
    """As CONTRIBUTING.md says of a GPU to which 64 MiB can be taken."""
    names = [name for name in sources.shipped() if not name.startswith('boardlaw/data/replica')]
    assert sum((sources.ROOT/name).stat().st_size for name in names) + packs.MOST < 2**26


def test_agents_play_again(unpacked):
    agents = data.replica()
    ids = agents[(agents.boardsize == 3) & (agents.test_nodes == 64)].elo
    strong, weak = (arena.load([i])[i] for i in (ids.idxmax(), ids.idxmin()))
    assert arena.winrate(strong, weak, 512, 3) > .6
    assert runs.info(agents.run.iloc[0])['_host'] == ''


def test_every_network_ships_but_for_studies_of_which_the_ends_do(unpacked):
    known = sql.agent_query().query('width > 0')
    of_ends = known.description.isin(shipping.ENDS) & ~known.run.isin(shipping.WHOLE)
    promised = {run: sorted(set(n)) for run, n in known[~of_ends].groupby('run').idx}
    for run, n in known[of_ends].groupby('run').idx:
        if n.nunique() > 1:
            promised[run] = [n.max()]
    assert sorted(shipping.unpack()) == sorted(promised)
    for run, numbers in promised.items():
        assert list(storage.snapshots(run).query('present').index) == numbers
    ends = known[of_ends & known.run.isin(promised.keys())].drop_duplicates('run', keep='last')
    assert set(ends.boardsize) == {6, 7, 9, 11}
    assert all(len(promised[whole]) >= 12 for whole in shipping.WHOLE)
    loaded = arena.load(ends.index)
    of_rules = [loaded[i].rule for i in ends.index if ends.description[i].startswith('lambda/')]
    assert sorted(of_rules) == ['2021']*9 + ['corrected']*9
    with pytest.raises(storage.NotFound):
        arena.load(known[of_ends].index[~known[of_ends].run.isin(promised.keys())][:1])


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('boardsize', [9, *BEGUN])
def test_the_longest_run_of_a_large_board_can_go_on(unpacked, boardsize):
    part = data.replica(unfinished=True).query('boardsize == @boardsize')
    last = part.loc[part.train_flops.idxmax()]
    params = runs.info(last.run)['params']
    [job] = sweep.plan([boardsize], shapes=[(last.width, last.depth)], samples=2*last.samples)
    assert job.config == Config.from_params(params)
    assert sweep.find(job) == last.run and not sweep.done(job)
    run = training._Run(last.run, job.config, torch.device('cpu'))
    assert run.trainer.n_samples == last.samples and run.trainer.n_learnt > 0
    assert run.n_snapshots == len(params['snapshots']) and not run.trainer.buffer.full
    shipped = storage.load_snapshot(last.run, last.idx)['agent']
    for name, x in run.trainer.network.state_dict().items():
        torch.testing.assert_close(x, shipped[f'network.{name}'].float(), rtol=1e-3, atol=1e-4)


def packed(boardsize, folder=database.REPLICA.parent):
    """Name and content of each file in a board's archive."""
    with tarfile.open(shipping.archive(boardsize, folder)) as file:
        return [(member.name, file.extractfile(member).read()) for member in file]


@pytest.mark.parametrize('boardsize', [*BOARDS, *BEGUN])
def test_packed_again_it_is_the_same(unpacked, boardsize):
    theirs, ours = packed(boardsize), list(shipping.contents(database.REPLICA, boardsize))
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert ours == theirs


@pytest.fixture
def few(unpacked, monkeypatch):
    """Three runs on 3x3, as if there were no others, by their number of parameters."""
    shipped = shipping._snapshots(database.REPLICA)[3]
    known = sql.agent_query().query('description == "bee/3" and width > 0').drop_duplicates('run')
    size = {row.run: networks.count_params(3, row.width, row.depth) for row in known.itertuples()}
    chosen = sorted(size, key=size.get)[::3][:3]
    monkeypatch.setattr(shipping, '_snapshots',
                        lambda _: {3: {run: shipped[run] for run in chosen}})
    return {run: size[run] for run in chosen}


def test_pack_and_unpack(few, tmp_path, monkeypatch):
    """Also where the database is the file that is written."""
    shutil.copy(database.REPLICA, tmp_path)
    made = shipping.pack(tmp_path/database.REPLICA.name, tmp_path)
    first = shipping.archive(3, tmp_path).read_bytes()
    for table in ('runs', 'snaps', 'agents', 'trials', 'run_details', 'trial_details'):
        theirs = sql.query(f'select * from {table}')
        with sql.use(made):
            pd.testing.assert_frame_equal(sql.query(f'select * from {table}'), theirs)
    archive = shipping.archive
    monkeypatch.setattr(shipping, 'archive', lambda b, folder=tmp_path: archive(b, folder))
    with pavlov.use_root(tmp_path/'other'):
        (run, *others) = few
        (runs.folder()/run/'mine').mkdir(parents=True)
        assert shipping.unpack() == shipping.unpack([3]) == list(few)
        assert [f.name for f in (runs.folder()/run).iterdir()] == ['mine'], 'it was there before'
        assert {f.name for f in runs.folder().parent.iterdir()} == {runs.folder().name}
        for other in others:
            agent = arena.common.agent(other, 0)
            assert agent(Hex.initial(2, 3)).actions.shape == (2,)
        shutil.rmtree(runs.folder()/run)
        shipping.unpack()
        shipping.pack(made, tmp_path/'other')
        assert archive(3, tmp_path/'other').read_bytes() == first


def test_runs_of_some_boards_are_unpacked(tmp_path):
    with pavlov.use_root(tmp_path):
        names = shipping.unpack([4])
        assert sorted(names) == sorted(f.name for f in runs.folder().iterdir())
        assert {runs.info(name)['params']['boardsize'] for name in names} == {4}
        with pytest.raises(ValueError, match=r'no runs .* of boards \[12\]: choose from \[3, 4, '):
            shipping.unpack([3, 12])
        assert sorted(names) == sorted(f.name for f in runs.folder().iterdir()), 'nothing is done'


def test_packing_over_a_database_that_was_read_before(unpacked, tmp_path, monkeypatch):
    every = shipping._snapshots
    monkeypatch.setattr(shipping, '_snapshots',
                        lambda db: {3: dict(list(every(db)[3].items())[:2])})
    with sql.use(sql.create(tmp_path/database.REPLICA.name)):
        assert sql.agent_query().empty
    shipping.pack(database.REPLICA, tmp_path)
    assert len({Path(name).parts[0] for name, _ in packed(3, tmp_path)}) == 2


def test_large_networks_take_half_the_room(few, monkeypatch, tmp_path):
    """Only their matrices are rounded, not again what is rounded, and no run's first snapshot."""
    monkeypatch.setattr(shipping, 'EXACT', sorted(few.values())[1])
    assert len({n_params > shipping.EXACT for n_params in few.values()}) == 2
    shipped = dict(shipping.contents(database.REPLICA, 3))
    for run, n_params in few.items():
        for n in storage.snapshots(run).index:
            path = tmp_path/'snapshot'
            path.write_bytes(shipped[f'{run}/{storage.SNAPSHOT.format(n=n)}'])
            large = n > 0 and n_params > shipping.EXACT
            assert not large or shipping.snapshot(path, n_params) == path.read_bytes()
            exact, rounded = storage.load_snapshot(run, n)['agent'], storage.load(path)['agent']
            for name, x in exact.items():
                wanted = x.half() if large and getattr(x, 'ndim', 0) == 2 else x
                torch.testing.assert_close(rounded[name], wanted, rtol=0, atol=0)


def test_first_snapshots_are_made_again(unpacked, tmp_path):
    """The same settings and seed lead to the same weights: exactly on a machine like the one that
    trained them, nearly on others, where sums are rounded in another order."""
    [job] = sweep.plan([3], n_runs=1)
    run = sweep.find(job)
    assert run is not None
    theirs = storage.load_snapshot(run, 0)['agent']
    with pavlov.use_root(tmp_path):
        settings = job.config.params()
        settings['n_nodes'] = settings.pop('nodes')
        again = boardlaw.training.train(**settings, snapshots=job.snapshots, progress=False,
                                        flops=job.snapshots[0])
        ours = storage.load_snapshot(again, 0)['agent']
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        if torch.is_tensor(x):
            torch.testing.assert_close(x, theirs[name], atol=1e-4, rtol=1e-3)


def test_runs_made_anew(unpacked):
    """The file on runs made anew tells of shipped ones, names commits, and what it says holds."""
    found = json.loads(reproduce.FILE.read_text('utf-8'))
    for row in found:
        shipped = storage.load_snapshot(row['run'], 0)['n_samples']
        assert row['samples'] == row['samples_now'] == shipped
        assert '+' in row['version'] and 'torch' in row['machine']
        assert row['weight_gap'] >= 0 and 0 <= row['policy_gap'] <= 1
        assert row['weight_gap'] > 0 or row['policy_gap'] == 0
    row = reproduce.again(found[0]['run'], pavlov.root())
    assert row['samples_now'] == found[0]['samples'] and row['policy_gap'] < 1e-3
