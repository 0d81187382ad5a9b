"""Games between a board's agents until every rating is known well enough."""
import math
import time

import numpy as np
import pandas as pd

from .. import arena, elos, pavlov, sql
from ..arena.evaluation import PERFECT

#: Elo: half the 95 % interval at which an agent's rating is good enough.
WIDTH = 25.

#: The largest board that has the exact solver's player among its agents, as 0.
SOLVED = 5

_SEED = 2021


def agents(boardsize, description):
    """The agents to rate together: those of one description, and the exact player if there is one.

    Returns:
        The rows of :func:`boardlaw.sql.agent_query`.
    """
    found = sql.agent_query()
    found = found[found.boardsize == boardsize]
    return found[(found.description == description) | (found.description == PERFECT)]


def reference(found):
    """Id of the exact player among these agents; None if it is not there."""
    exact = found.index[found.description == PERFECT]
    return int(exact[0]) if len(exact) else None


def trials(found):
    """The games between these agents."""
    played = sql.trial_query(int(found.boardsize.iloc[0]))
    return played[played.black_agent.isin(found.index) & played.white_agent.isin(found.index)]


def ratings(found, played=None):
    """Elo and its 95 % interval of these agents, the exact player or else the best at 0.

    Returns:
        A DataFrame indexed by agent: elo, std, lower, upper. An agent that no chain of games links
        to the reference has nan.
    """
    played = trials(found) if played is None else played
    if played.empty:
        return pd.DataFrame(np.nan, found.index, ['elo', 'std', 'lower', 'upper'])
    pairs, ref = elos.pairs(played), reference(found)
    rows = elos.intervals(pairs, islands='each', reference=ref)*elos.to_elo
    island = elos.find_islands(pairs)
    return rows[island == island.get(ref, 0)].reindex(found.index)


def rate(boardsize, description, pool, width=WIDTH, games=256, deadline=math.inf, report=print):
    """Plays what `elos.suggest` asks for until every agent's interval is at most ±`width` Elo.

    Args:
        pool: see :mod:`boardlaw.sweep.pools`.
        games: of one match, half in each colour.
        deadline: as of `time.time`, when to stop.
        report: called with a line on each round.

    Returns:
        The :func:`ratings` at the end.
    """
    while True:
        found = agents(boardsize, description)
        played = trials(found)
        rated = ratings(found, played)
        reach = ((rated.upper - rated.lower)/2).fillna(math.inf)
        wide = reach[reach > width]
        n_games = int(played[['black_wins', 'white_wins']].to_numpy().sum())
        report(f'{boardsize}x{boardsize}: {len(reach) - len(wide)} of {len(reach)} agents within '
               f'±{width:g} Elo, the widest ±{reach.max():.0f}, after {n_games} games')
        if wide.empty or time.time() > deadline:
            return rated
        ws, gs = elos.symmetrize(played, found.index)
        n = max(4*pool.workers, min(len(wide), 128))
        todo = elos.suggest(ws, gs, n=n, games=games, reference=reference(found))
        # Dealt out in turn, so that each worker has a like share of the long games.
        shares = [(str(pavlov.root()), sql.target(), todo.iloc[k::pool.workers].values.tolist())
                  for k in range(min(pool.workers, len(todo)))]
        for _, result in pool.map(play, shares, deadline):
            if isinstance(result, Exception):
                raise result


def play(share):
    """Plays matches and saves them as they end.

    Args:
        share: folder of runs, database, and rows of agent, opponent and number of games.
    """
    root, database, rows = share
    with pavlov.use_root(root), sql.use(database):
        loaded = arena.load({int(i) for row in rows for i in row[:2]})
        return arena.evaluate(loaded, [(int(a), int(b)) for a, b, _ in rows],
                              [int(n)//2 for *_, n in rows], _SEED, progress=False, more=True)
