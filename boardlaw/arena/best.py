"""Each board's top agent, and ratings from games against it alone.

An Elo from a pool of agents rests on chains of games. Where strength is not transitive, it depends
on who was in the pool. The paper therefore rated its agents a second time, each by direct games
against the best of its board (its figure 10 and table IV).
"""
import numpy as np
import pandas as pd
from scipy.stats import beta

from .. import elos, sql
from . import ratings

#: Search nodes of the agents that are compared, those of training.
NODES = 64


def top(boardsize, description):
    """Id of the agent with 64 nodes whose rating is highest.

    Args:
        description: of the agents' runs, such as 'bee/<boardsize>'.
    """
    found = ratings.agents(boardsize, description)
    elo = ratings.ratings(found).elo[(found.test_nodes == NODES)
                                     & (found.description != ratings.PERFECT)]
    if elo.isna().all():
        raise LookupError(f'no agent of "{description}" on {boardsize}x{boardsize} has a rating')
    return int(elo.idxmax())


def pairs(boardsize, description):
    """The top agent with each of the others, as ids."""
    best, found = top(boardsize, description), ratings.agents(boardsize, description)
    found = found[(found.test_nodes == NODES) & (found.description == description)]
    return [(best, int(i)) for i in found.index if i != best]


def against(opponent):
    """The wins of every agent against one opponent, an id: a DataFrame indexed by agent.

    Columns: black_wins, black_games, white_wins, white_games (the agent's in each colour), wins and
    games, the colours balanced as in :func:`boardlaw.elos.symmetrize`.
    """
    played = sql.query('select * from trials where black_agent = :id or white_agent = :id',
                       id=int(opponent))
    rows = elos.pairs(played)
    theirs = rows.agent == opponent   # a row of the opponent's: turn it round
    own = rows[theirs]
    turned = own.assign(
        agent=own.opponent, wins=own.games - own.wins,
        black_wins=own.white_games - own.white_wins, black_games=own.white_games,
        white_wins=own.black_games - own.black_wins, white_games=own.black_games)
    return pd.concat([rows[~theirs], turned]).set_index('agent').drop(columns='opponent')


def direct(boardsize, description, level=.95):
    """Elo by games against the top agent alone, which is at 0.

    The estimate adds half a pseudo-win each way; the interval is Jeffreys' for a rate.

    Returns:
        elo, lower, upper and games, indexed by agent.
    """
    best = top(boardsize, description)
    rows = against(best).loc[lambda x: x.index.isin([i for _, i in pairs(boardsize, description)])]
    wins, losses = rows.wins + .5, rows.games - rows.wins + .5
    rate = beta(wins, losses)
    out = pd.DataFrame({'elo': np.log(wins/losses), 'games': rows.games,
                        **{name: np.log(p/(1 - p)) for name, p in [
                            ('lower', rate.ppf((1 - level)/2)), ('upper', rate.ppf((1 + level)/2))]
                           }}, rows.index)
    out[['elo', 'lower', 'upper']] *= elos.to_elo
    out.loc[best] = {'elo': 0., 'games': 0, 'lower': 0., 'upper': 0.}
    return out
