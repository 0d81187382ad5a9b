"""From rows of trials to what was played between each two agents.

One pair of agents is the unit throughout the package: `i < j` are positions in the sorted agents,
`wins` are the games of the pair that went to `i`. An agent's win rate against another is the mean
of its rates as Black and as White, so unequal numbers of games in the two colours do not bias it; a
pair played in one colour order only has that order's rate.
"""
from typing import NamedTuple

import numpy as np
import pandas as pd

from . import kernels

TRIAL_COLUMNS = ['black_agent', 'white_agent', 'black_wins', 'white_wins']
COUNT_COLUMNS = ['black_wins', 'black_games', 'white_wins', 'white_games']

LEAST = .1  # share of the variance of coin tosses that the first move is taken to leave at least


class Games(NamedTuple):
    """Pairs that have met, at least one game each, no agent with itself."""
    agents: pd.Index
    """Labels of the `n_agents` agents, those who never played included."""
    i: np.ndarray
    """Position of the pair's first agent, `[n_pairs]`."""
    j: np.ndarray
    """Position of its second agent, `[n_pairs]`, above `i`."""
    wins: np.ndarray
    """Colour-balanced wins of `i`, `[n_pairs]`, not always whole."""
    games: np.ndarray
    """Games of the pair, `[n_pairs]`."""
    counts: np.ndarray | None = None
    """`[4, n_pairs]`: wins and games of `i` as Black, then as White. None where not known."""


def pairs(trials: pd.DataFrame, agents=None) -> pd.DataFrame:
    """One row for each two agents that have met: the long, sparse form of `symmetrize`.

    Every function of this package that takes `ws, gs` takes this frame alone as well. It serves
    thousands of agents with few opponents each, and it keeps the colours apart, from which
    `posterior` learns how random the results really were.

    :param trials: rows with black_agent, white_agent, black_wins and white_wins; a pair may have
        any number of rows in either colour order
    :param agents: labels to keep, by default all that occur
    :return: columns agent, opponent; black_wins, black_games, white_wins, white_games (the agent's
        in each colour); wins, games (both colours, balanced as `symmetrize` says)
    :raises ValueError: a column is missing, or a count is negative or not a number
    """
    agents, i, j, counts = _tally(trials, agents)
    met = (i != j) & (counts[1] + counts[3] > 0)
    i, j, counts = i[met], j[met], counts[:, met]
    frame = pd.DataFrame({'agent': agents[i], 'opponent': agents[j],
                          **dict(zip(COUNT_COLUMNS, counts))})
    return frame.assign(wins=_balanced(counts), games=counts[1] + counts[3])


def symmetrize(trials: pd.DataFrame, agents=None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Wins and games of each agent against each other, colours balanced.

    `ws.loc[a, b]` is (a's win rate as Black against b + a's win rate as White against b)/2, times
    all games of the two; a pair in one colour order only uses that order. So
    `ws + ws.T` equals `gs` wherever two agents have met.

    :param trials: rows with black_agent, white_agent, black_wins and white_wins, as
        `sql.trial_query` returns them; wins may be fractions
    :param agents: labels of the rows and columns; by default every agent that occurs, in whatever
        colour. Trials with any other agent are left out
    :return: ws, wins `[n_agents, n_agents]`, nan where two have never met; gs, games, 0 there
    :raises ValueError: a column is missing, or a count is negative or not a number
    """
    agents, i, j, counts = _tally(trials, agents)
    games, wins = counts[1] + counts[3], _balanced(counts)
    wins[i == j] = games[i == j] / 2
    ws, gs = np.full((len(agents),) * 2, np.nan), np.zeros((len(agents),) * 2)
    met = games > 0
    i, j, wins, games = i[met], j[met], wins[met], games[met]
    ws[i, j], ws[j, i] = wins, games - wins
    gs[i, j] = gs[j, i] = games
    labels = dict(index=agents, columns=agents.rename('opponent'))
    return pd.DataFrame(ws, **labels), pd.DataFrame(gs, **labels)


def independent(games, rho):
    """As how many independent games these of one pair count, whose results correlate by rho."""
    return games / (1 + np.maximum(games - 1, 0) * rho)


def by_colour(games):
    """Variance `[n_pairs]` of each pair's balanced rate, in units of coin tosses at its mean.

    The mean of two rates varies less than that of one coin, by a quarter of their squared
    difference. Noise alone makes a difference too: only what exceeds twice its variance counts.
    """
    if games.counts is None:
        return np.ones(len(games.games))
    black_wins, black_games, white_wins, white_games = games.counts
    with np.errstate(divide='ignore', invalid='ignore'):
        per_game = 1 / black_games + 1 / white_games
        black, white = black_wins / black_games, white_wins / white_games
        own = (games.games * (black + white) / 2 + 1) / (games.games + 2)  # neither 0 nor 1
        toss = own * (1 - own)
        credible = np.maximum((black - white)**2 - 2 * toss * per_game, 0) / 4
        remains = np.maximum(1 - credible / toss, LEAST) * per_game * games.games / 4
    return np.where((black_games > 0) & (white_games > 0), remains, 1.)


def read(ws, gs=None, agents=None) -> Games:
    """The games in `ws, gs` as `symmetrize` makes them, or in the frame that `pairs` makes.

    :param agents: of the frame, labels of all agents; by default those who have met another
    :raises ValueError: with the two agents named, if their numbers contradict each other; the frame
        names an agent that is not among `agents`, or these are given with matrices
    """
    if gs is None:
        return _read_pairs(ws, agents)
    if agents is not None:
        raise ValueError('ws and gs name their agents themselves; give agents with the frame of '
                         'pairs alone')
    return _read_square(ws, gs)


def _tally(trials, agents):
    """Agents, the pairs `i <= j` in the trials, and their counts `[4, n_pairs]`."""
    missing = [c for c in TRIAL_COLUMNS if c not in trials.columns]
    if missing:
        raise ValueError(f'trials need the columns {", ".join(TRIAL_COLUMNS)}; '
                         f'{", ".join(missing)} not found')
    black, white = trials['black_agent'], trials['white_agent']
    if agents is None:
        agents = np.unique(np.concatenate([black.to_numpy(), white.to_numpy()]))
    agents = _distinct(agents)
    b, w = agents.get_indexer(black), agents.get_indexer(white)
    x, y = (trials[c].to_numpy(float) for c in TRIAL_COLUMNS[2:])
    if not ((x >= 0) & (y >= 0) & np.isfinite(x + y)).all():
        row = trials[~((x >= 0) & (y >= 0) & np.isfinite(x + y))].iloc[0]
        raise ValueError('wins must be numbers of at least 0, this trial has others: '
                         f'{row[TRIAL_COLUMNS].to_dict()}')
    known = (b >= 0) & (w >= 0)
    b, w, x, y = b[known], w[known], x[known], y[known]

    keys, row = np.unique(np.minimum(b, w) * len(agents) + np.maximum(b, w), return_inverse=True)
    i, j = np.divmod(keys, max(len(agents), 1))
    first = b <= w  # the pair's first agent has Black
    counts = np.stack([np.bincount(row, np.where(mask, amount, 0.), len(keys))
                       for mask, amount in [(first, x), (first, x + y), (~first, y),
                                            (~first, x + y)]])
    return agents, i, j, counts


def _distinct(agents):
    """These labels as an index."""
    agents = pd.Index(agents)
    if not agents.is_unique:
        raise ValueError(f'agents occur twice: {_some(agents[agents.duplicated()].unique())}')
    return agents.rename(agents.name or 'id')


def _balanced(counts):
    """Colour-balanced wins `[n_pairs]` of each pair's first agent; 0 where no game was played."""
    black_wins, black_games, white_wins, white_games = counts
    black_rate = black_wins / np.maximum(black_games, 1e-300)
    white_rate = white_wins / np.maximum(white_games, 1e-300)
    n_orders = (black_games > 0) * 1. + (white_games > 0)
    return (black_rate + white_rate) / np.maximum(n_orders, 1) * (black_games + white_games)


def _read_pairs(frame, agents):
    needed = ['agent', 'opponent', 'wins', 'games']
    missing = [c for c in needed if c not in getattr(frame, 'columns', [])]
    if missing:
        raise ValueError('give ws and gs, as symmetrize returns them, or the frame that pairs '
                         f'returns; this has no column {", ".join(missing)}')
    met = pd.Index(np.unique(np.concatenate([frame['agent'], frame['opponent']])), name='id')
    agents = met if agents is None else _distinct(agents)
    if len(strangers := met.difference(agents)):
        raise ValueError('there are games of agents who are not among those named: '
                         f'{_some(strangers)}')
    i, j = agents.get_indexer(frame['agent']), agents.get_indexer(frame['opponent'])
    wins, games = frame['wins'].to_numpy(float), frame['games'].to_numpy(float)
    counts = None
    if all(c in frame.columns for c in COUNT_COLUMNS):
        counts = frame[COUNT_COLUMNS].to_numpy(float).T
    _check(~(games > 0) | (i == j), agents, i, j, 'need at least one game, and two agents')
    _check(~((wins >= 0) & (wins <= games)), agents, i, j, 'have more wins than games, or fewer '
           'than 0')
    # The frame may name a pair's agents in either order, but only once.
    wins = np.where(i < j, wins, games - wins)
    if counts is not None:
        other = np.stack([counts[3] - counts[2], counts[3], counts[1] - counts[0], counts[1]])
        counts = np.where(i < j, counts, other)
    i, j = np.minimum(i, j), np.maximum(i, j)
    _check(pd.Series(i * len(agents) + j).duplicated().to_numpy(), agents, i, j, 'occur twice')
    return Games(agents, i, j, wins, games, counts)


def _read_square(ws, gs):
    ws, gs = pd.DataFrame(ws), pd.DataFrame(gs)
    if ws.shape[0] != ws.shape[1] or not ws.index.is_unique:
        raise ValueError(f'ws must be square, one row and column an agent; it is {ws.shape} with '
                         f'{ws.index.nunique()} different rows')
    for frame in (ws.columns, gs.index, gs.columns):
        if not ws.index.equals(frame):
            raise ValueError('ws and gs must have the same agents in the same order, as rows and '
                             'as columns')
    agents, w, g = ws.index, ws.to_numpy(float), gs.to_numpy(float)
    i, j, wins, games, unequal, unsound = kernels.pairs_above(w, g)
    _check(unequal, agents, i, j, 'have unequal or negative games in gs')
    _check(unsound, agents, i, j, 'have wins in ws that do not add up to their games in gs')
    return Games(agents, i, j, wins, games)


def _check(bad, agents, i, j, what):
    if bad.any():
        k = np.flatnonzero(bad)[0]
        raise ValueError(f'agents {agents[i[k]]} and {agents[j[k]]} {what} '
                         f'({bad.sum()} such pairs)')


def _some(labels, n=5):
    """The first few of many labels, for a message."""
    labels = list(labels)
    shown = ', '.join(map(str, labels[:n]))
    return shown if len(labels) <= n else f'{shown} .. ({len(labels)} agents)'
