"""Games between a board's agents until every rating is known well enough."""
import math
import time

from .. import arena, elos, pavlov, sql
from ..arena import ratings

#: Elo: half the 95 % interval at which an agent's rating is good enough.
WIDTH = 25.

_SEED = 2021


def rate(boardsize, description, pool, width=WIDTH, games=256, deadline=math.inf, report=print):
    """Plays what `elos.suggest` asks for until every agent's interval is at most ±`width` Elo.

    Args:
        pool: see :mod:`boardlaw.sweep.pools`.
        games: of one match, half in each colour.
        deadline: as of `time.time`, when to stop.
        report: called with a line on each round.

    Returns:
        The :func:`boardlaw.arena.ratings.ratings` at the end.
    """
    while True:
        found = ratings.agents(boardsize, description)
        played = ratings.trials(found)
        rated = ratings.ratings(found, played)
        reach = ((rated.upper - rated.lower)/2).fillna(math.inf)
        wide = reach[reach > width]
        n_games = int(played[['black_wins', 'white_wins']].to_numpy().sum())
        report(f'{boardsize}x{boardsize}: {len(reach) - len(wide)} of {len(reach)} agents within '
               f'±{width:g} Elo, the widest ±{reach.max():.0f}, after {n_games} games')
        if wide.empty or time.time() > deadline:
            return rated
        ws, gs = elos.symmetrize(played, found.index)
        n = max(4*pool.workers, min(len(wide)//2, 512))
        todo = elos.suggest(ws, gs, n=n, games=games, reference=ratings.reference(found))
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
