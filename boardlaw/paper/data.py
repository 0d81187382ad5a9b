"""Rated agents, and what the paper reads off them: frontiers, best sizes, test-time trade-offs.

An *agents* frame has one row for each rated agent, a snapshot of a run with a number of search
nodes. Columns, those of the evaluation database's view `agents_details`:

    boardsize     the board's
    run, idx      the run's name, the snapshot's number in it
    width, depth  the network's
    samples       of self-play, up to the snapshot
    train_flops   their compute
    test_nodes    of the search when it was rated (64 in training)
    elo           0 is perfect play, or the best that is known

Elo here is on the usual scale, where 400 is ten wins to one. `boardlaw.elos` rates in nats, as the
2021 code does; :func:`rated` joins such ratings to agents and converts them.

Compute counts one FLOP a multiply-add of the search's forward passes; no backward pass, no tree.

Explained in the chapters book/scaling.ipynb and book/testtime.ipynb.
"""
import json
import warnings
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

from boardlaw import elos, sql
from boardlaw.arena import best, mirror, ratings

TRAIN_NODES = 64        # search nodes in training, and in the paper's main figures
PERFECT = -50           # the Elo from which the paper calls play perfect
FLOORS = (-2000, -1500, -1000, -500)            # of figure 8: Elo of the agents shown, at least
LEVELS = tuple(range(-1500, -249, 250))         # of figure 9: 9x9, six of them
MORE_LEVELS = tuple(range(-1700, -299, 175))    # nine from 85 to 15 % of the way to perfect play


def published() -> pd.DataFrame:
    """The 2,966 snapshots of the paper's compute-performance figure, an agents frame.

    Read from the coordinates of the published vector graphic (Jones 2021, figure 5; see
    boardlaw/data/README.md). `params` counts the network's weights and biases.
    """
    return _published().copy()


@cache
def _published():
    with (files('boardlaw')/'data'/'published_curves.csv').open() as f:
        agents = pd.read_csv(f).rename(columns={'snapshot': 'idx'})
    board = agents.boardsize.astype(str)
    agents['run'] = board + 'x' + board + '/' + agents.run.astype(str)
    agents['test_nodes'] = TRAIN_NODES
    agents['params'] = params(agents.width, agents.depth, agents.boardsize)
    agents.attrs['source'] = 'published'
    return agents


def replica(study='bee', target='replica', unfinished=False) -> pd.DataFrame:
    """The agents of our own runs, an agents frame, indexed by the database's ids.

    `elo` is measured from the exact player where there is one (boards 3 to 6), so that 0 is perfect
    play; elsewhere the board's best agent is 0. That agent may be far from perfect, as long as the
    trainings of its board go on. Such a board is left out: one whose best agent shows, by its games
    with itself (:mod:`boardlaw.arena.mirror`), that it is more than 50 Elo below perfect play. In
    the shipped database 10x10 and 11x11 are such; of boards left out of another a warning tells.

    Further columns: `exact`, whether 0 is the exact player; `finished`, as above; `lower` and
    `upper`, the 95 % interval of `elo`; `runtime`, the seconds that the training took: processor
    time of all cores, or wall time if it ran on a GPU, for which the processor mostly waits; and
    the training's `rule`, `c_puct` and `seed`.

    Args:
        study: 'bee', the runs of the paper's figures, or 'lambda', those of the two rules.
        target: the database, as for `sql.use`.
        unfinished: whether to keep the boards that are not finished.

    Raises:
        ValueError: there are no such agents.
    """
    agents = _replica(study, str(target))
    kept = agents if unfinished else agents[agents.finished]
    if left := sorted(set(agents.boardsize) - set(kept.boardsize)):
        boards = ', '.join(f'{b}x{b}' for b in left)
        why = (f'the best agents on {boards} are more than {-PERFECT} Elo below perfect play, by '
               'their games with themselves: train on, or pass unfinished=True')
        if kept.empty:
            raise ValueError(why)
        if target != 'replica':     # of what ships the docstring says so
            warnings.warn(f'boards are left out: {why}', stacklevel=2)
    return kept.copy()


@cache
def _replica(study, target):
    with sql.use(target):
        known = sql.agent_query()
        frames = []
        for boardsize in sorted(known.boardsize.unique()):
            found = ratings.agents(boardsize, f'{study}/{boardsize}')
            if found.empty:     # a board of other studies alone
                continue
            rated = found.join(ratings.ratings(found)[['elo', 'lower', 'upper']])
            if rated.elo.isna().all():  # the exact player alone, or games yet to come
                continue
            rated['exact'] = rated.elo.get(ratings.reference(found)) == 0   # it may have no games
            rated['finished'] = rated.exact.all() or _may_be_perfect(
                rated.elo.idxmax(), mirror.played(boardsize, f'{study}/{boardsize}'))
            frames.append(rated[rated.description != ratings.PERFECT].dropna(subset='elo'))
        times = sql.query('select snap, seconds, cpu_seconds from snap_details').set_index('snap')
        details = sql.query('select run, params, machine from run_details').set_index('run')
    agents = pd.concat(frames) if frames else known.iloc[:0]
    if agents.empty:
        raise ValueError(f'the database {target} holds no rated agents of the study {study!r}')
    trained = agents.run.map(details.params.map(json.loads))
    for name in ('rule', 'c_puct', 'seed'):
        agents[name] = [params[name] for params in trained]
    times = times.reindex(agents.snap_id).set_index(agents.index)
    on_gpu = agents.run.map(details.machine).astype(str).str.contains(', GPU ')
    agents['runtime'] = times.seconds.where(on_gpu, times.cpu_seconds)
    agents['params'] = params(agents.width, agents.depth, agents.boardsize)
    agents.attrs['source'] = 'replica'
    return agents


def _may_be_perfect(agent, own):
    """Whether an agent can be perfect as the paper has it, by `own`, of :func:`mirror.played`;
    yes, if it has not played itself."""
    own = own.loc[own.index == agent]
    return own.empty or mirror.elo(own.black_wins, own.games).upper.item() >= PERFECT


def params(width, depth, boardsize):
    """Weights and biases of a network, numbers or arrays: `networks.count_params`."""
    from boardlaw.networks import count_params
    return count_params(boardsize, width, depth)


def rated(agents, nats) -> pd.DataFrame:
    """Joins ratings to agents: an agents frame with the best of each board at 0 Elo.

    Args:
        agents: the columns above without `elo`, indexed by agent.
        nats: Series of ratings in nats (`elos.solve`) with the same index; agents that it lacks
            are left out.
    """
    out = agents.drop(columns='elo', errors='ignore').join(
        (elos.to_elo*nats).rename('elo'), how='inner')
    if out.empty:
        raise ValueError('no agent has a rating: are both indexed by agent?')
    out['elo'] -= out.groupby('boardsize').elo.transform('max')
    return out


def direct(study='bee', target='replica') -> pd.DataFrame:
    """The agents of 64 nodes of :func:`replica`, rated by games against their board's top agent
    alone, which is at 0 (the paper's figure 10 and table IV); see :mod:`boardlaw.arena.best`.

    A board whose top agent has met less than half of the others is left out.

    Raises:
        ValueError: there are no such agents, or no board is left.
    """
    agents = replica(study, target)
    n_agents = train_agents(agents).groupby('boardsize').size()
    with sql.use(target):
        each = [best.direct(b, f'{study}/{b}') for b in n_agents.index]
    met = [found for found, n in zip(each, n_agents) if len(found) > n/2]
    if not met:
        raise ValueError('no top agent has met half of the others of its board: let '
                         'boardlaw.sweep.direct play these games')
    rated = pd.concat(met)
    columns = ['elo', 'lower', 'upper', 'games']
    return _from(agents, agents.drop(columns=columns, errors='ignore').join(rated[columns],
                                                                            how='inner'))


def best_at_zero(agents) -> pd.DataFrame:
    """The agents with Elo counted from their board's best, as the paper counts it."""
    top = check(agents, 'boardsize', 'elo').groupby('boardsize').elo.transform('max')
    shifted = {c: agents[c] - top for c in ('elo', 'lower', 'upper') if c in agents}
    return _from(agents, agents.assign(**shifted))


def check(agents, *columns) -> pd.DataFrame:
    """`agents` itself, if it has these columns, some rows, and no gap in the numbers used here."""
    missing = [c for c in columns if c not in agents]
    if missing:
        raise ValueError(f'the agents lack the column{"s" if len(missing) > 1 else ""} '
                         f'{", ".join(missing)}; they have {", ".join(map(str, agents))}')
    if agents.empty:
        raise ValueError('there are no agents')
    for c in {'train_flops', 'samples', 'elo', 'runtime'} & set(columns):
        x = agents[c].to_numpy(float)
        wrong = ~np.isfinite(x) if c == 'elo' else ~(np.isfinite(x) & (x > 0))
        if wrong.any():
            raise ValueError(f'{wrong.sum()} agents have no usable {c} (the first in row '
                             f'{agents.index[wrong.argmax()]!r}): drop or rate them first')
    return agents


def train_agents(agents, *columns) -> pd.DataFrame:
    """The agents that search as they did in training, 64 nodes; all, where none says otherwise."""
    check(agents, *columns)
    if 'test_nodes' not in agents:
        return agents
    return check(agents[agents.test_nodes == TRAIN_NODES], *columns)


# Training compute

def frontier(agents, n_points=101, keep_last=False) -> pd.DataFrame:
    """The best Elo that any run reached within a training compute, by board size.

    Per board: `n_points` computes from the least to the greatest, evenly in the logarithm; each
    run's Elo at them, linear between its snapshots, none before the first, after its end that of
    the last point within it; of all runs the maximum. It falls where the leading run's Elo falls.

    That is the paper's definition. So what a run gains between the last point within it and its
    last snapshot does not count, unless the board's longest runs end there.

    Args:
        agents: boardsize, run, train_flops, elo.
        keep_last: after its end, count a run's last snapshot instead.

    Returns:
        boardsize, train_flops, elo: `n_points` rows a board.
    """
    agents = train_agents(agents, 'boardsize', 'run', 'train_flops', 'elo')
    runs = agents.run.factorize()[0]
    log_flops, elo = np.log10(agents.train_flops.to_numpy(float)), agents.elo.to_numpy(float)
    frames = []
    for boardsize, rows in agents.groupby('boardsize').indices.items():
        rows = rows[np.lexsort((log_flops[rows], runs[rows]))]
        starts = np.flatnonzero(np.diff(runs[rows])) + 1
        x, y = np.split(log_flops[rows], starts), np.split(elo[rows], starts)
        grid = np.linspace(log_flops[rows].min(), log_flops[rows].max(), n_points)
        curves = [np.interp(grid, *run, left=np.nan, right=run[1][-1] if keep_last else np.nan)
                  for run in zip(x, y)]
        best = pd.DataFrame(np.transpose(curves)).ffill().max(axis=1)
        frames.append(pd.DataFrame({'boardsize': boardsize, 'train_flops': 10**grid, 'elo': best}))
    return _from(agents, pd.concat(frames, ignore_index=True))


def crossings(frontiers, elo=PERFECT) -> pd.Series:
    """The compute at which each board's frontier first reaches `elo`; nan where it never does.

    Linear in log compute between the two points. Indexed by boardsize.
    """
    out = {}
    for boardsize, board in frontiers.groupby('boardsize'):
        x, y = np.log10(board.train_flops.to_numpy()), board.elo.to_numpy()
        i = int(np.argmax(y >= elo))
        if y[i] < elo:
            out[boardsize] = np.nan
        elif i == 0:
            out[boardsize] = 10**x[0]
        else:
            out[boardsize] = 10**np.interp(elo, y[i-1:i+1], x[i-1:i+1])
    return pd.Series(out, name='train_flops').rename_axis('boardsize')


def cheapest(agents, elo=-elos.to_elo/2) -> pd.DataFrame:
    """Per board the snapshot with the least compute of those above `elo`, by default half a nat
    below perfect play. A board without one is left out.

    Args:
        agents: boardsize, train_flops, elo.

    Returns:
        Rows of `agents`, indexed by boardsize.
    """
    agents = train_agents(agents, 'boardsize', 'train_flops', 'elo')
    above = agents[agents.elo > elo].sort_values('train_flops')
    return above.groupby('boardsize').head(1).set_index('boardsize').sort_index()


def optimal_model_size(agents, n_limits=10) -> pd.DataFrame:
    """The network of the best snapshot under each of `n_limits` compute limits, by board size.

    The limits are the upper ends of `n_limits` equal parts of the board's log compute.

    Args:
        agents: boardsize, width, depth, train_flops, elo.

    Returns:
        boardsize, train_flops, width, depth, elo of the best snapshot, its limit, and its size as
        the paper measures it, width² · depth: one row a board and limit.
    """
    columns = ['boardsize', 'train_flops', 'width', 'depth', 'elo']
    agents = train_agents(agents, *columns)[columns].sort_values(columns[:2])
    chosen, limits = [], []
    for rows in agents.groupby('boardsize').indices.values():
        board = agents.iloc[rows]
        log_flops, elo = np.log10(board.train_flops.to_numpy(float)), board.elo.to_numpy()
        limits.append(np.linspace(log_flops[0], log_flops[-1], n_limits + 1)[1:])
        within = np.searchsorted(log_flops, limits[-1], side='right')
        chosen.append([rows[elo[:n].argmax()] for n in within])
    best = agents.iloc[np.concatenate(chosen)].reset_index(drop=True)
    return best.assign(limit=10**np.concatenate(limits), size=best.width**2*best.depth)


# Test-time compute

def test_flops(agents, literal=False) -> pd.Series:
    """The compute of one move: test_nodes times the training compute of one sample.

    A sample of training is itself a search of 64 nodes, so the paper's axis, kept here, is 64
    times the FLOPs of the forward passes. `literal` gives those.

    Args:
        agents: samples, train_flops, test_nodes.
    """
    check(agents, 'samples', 'train_flops', 'test_nodes')
    per_sample = agents.train_flops/agents.samples
    return agents.test_nodes*per_sample/(TRAIN_NODES if literal else 1)


def tree_boards(agents) -> list:
    """The board sizes on which several runs were rated with search trees of several sizes, as one
    run alone cannot show what training buys; if there is none, those with one run, else all.

    Args:
        agents: boardsize, run, test_nodes.
    """
    check(agents, 'boardsize', 'run', 'test_nodes')
    several = agents.groupby(['boardsize', 'run']).test_nodes.nunique() > 1
    runs = several.groupby('boardsize').sum()
    return list(runs.index[runs >= min(2, runs.max())])


def largest_board(agents) -> pd.DataFrame:
    """The agents of the largest of the :func:`tree_boards`."""
    return agents[agents.boardsize == max(tree_boards(agents))]


def test_curves(agents, floors=FLOORS, literal=False) -> pd.DataFrame:
    """Elo against test compute for the last snapshot of one run per floor.

    For each floor the run whose last snapshot gets above it with the least test compute; a run
    that serves several floors comes once, and a floor that nobody reaches is left out.

    Args:
        agents: one board's run, idx, width, depth, samples, train_flops, test_nodes, elo.

    Returns:
        The chosen runs' rows of `agents` with `test_flops`, sorted by it within each run.
    """
    check(agents, 'run', 'idx', 'width', 'depth', 'samples', 'train_flops', 'test_nodes', 'elo')
    last = agents[agents.idx == agents.groupby('run').idx.transform('max')]
    last = last.assign(test_flops=test_flops(last, literal)).sort_values('test_flops')
    above = [last[last.elo > floor] for floor in floors]
    runs = list(dict.fromkeys(rows.run.iloc[0] for rows in above if len(rows)))
    if not runs:
        raise ValueError(f'no agent is above {min(floors)} Elo: give lower floors')
    return pd.concat([last[last.run == run] for run in runs], ignore_index=True)


def like_9x9(levels, agents) -> list:
    """Levels of Elo that lie on the largest board where `levels` lie on the paper's 9x9.

    Each keeps its share of the distance from untrained to perfect play. The Elo of an untrained
    agent is the median of all runs' first snapshots, with 64 nodes.

    Args:
        levels: Elo on 9x9, such as the defaults of :func:`test_curves` and :func:`train_test`.
        agents: boardsize, run, idx, test_nodes, elo.

    Returns:
        As many levels, rounded to 10 Elo; on 9x9 `levels` themselves.
    """
    board = largest_board(check(agents, 'run', 'idx', 'test_nodes', 'elo'))
    if board.boardsize.iloc[0] == 9:
        return list(levels)
    ratio = _untrained(board)/_untrained(largest_board(published()))
    return [int(round(ratio*level, -1)) for level in levels]


def _untrained(board):
    """The median Elo of the runs' first snapshots."""
    board = board[board.test_nodes == TRAIN_NODES]
    return board.loc[board.idx == board.groupby('run').idx.transform('min'), 'elo'].median()


def train_test(agents, elos=LEVELS, literal=False) -> pd.DataFrame:
    """What training compute saves at test time: lines of equal Elo.

    On each line the points where more training gets to `elo` with less test compute than any
    snapshot trained less: the corners of the lower staircase.

    Args:
        agents: one board's samples, train_flops, test_nodes, elo.

    Returns:
        elo, train_flops, test_flops, and the other columns of the agent in each corner
        (its own rating is `agent_elo`), by elo and train_flops.
    """
    check(agents, 'samples', 'train_flops', 'test_nodes', 'elo')
    agents = agents.assign(test_flops=test_flops(agents, literal)).rename(
        columns={'elo': 'agent_elo'}).sort_values(['train_flops', 'test_flops'])
    test, own = agents.test_flops.to_numpy(), agents.agent_elo.to_numpy()
    corners = []
    for elo in elos:
        cost = np.where(own >= elo, test, np.inf)
        before = np.minimum.accumulate(np.append(np.inf, cost[:-1]))
        corners.append(np.flatnonzero(cost < before))
    out = agents.iloc[np.concatenate(corners)].reset_index(drop=True).assign(
        elo=np.repeat(elos, [len(rows) for rows in corners]))
    if out.empty:
        raise ValueError(f'no agent reaches {min(elos)} Elo: give lower levels')
    return out


def _from(agents, frame):
    """`frame`, with the source that `agents` is marked with."""
    frame.attrs.update(agents.attrs)
    return frame
