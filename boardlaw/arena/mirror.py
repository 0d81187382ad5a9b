"""Games of agents with themselves, which tell how far from perfect they play.

The first player wins Hex. So when perfect play meets itself Black wins every game, and each game of
an agent with itself that White wins holds a move that gave the win away. No solver is needed to
count these games, on a board of any size.

Let each move of the side that stands to win give the win away with a small probability. It makes
about m such moves in a game, whichever side it is, and Black wins if an even number of them give it
away: at the rate q with 2q - 1 = (1 - 2e)^m. Against White who never errs Black must not give it
away at all, which happens at the rate p = (1 - e)^m. For small e

    p = sqrt(2q - 1).

With White the agent wins nothing from a perfect player, so its win rate is p/2, and its Elo from
perfect play 400 log10(p/(2 - p)). On 3x3 to 5x5, where the exact solver can check it, p bounds what
agents win, and strong agents are near it.

Explained in the chapter book/calibration.ipynb.
"""
import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import beta

from .. import elos, sql
from . import ratings


def played(boardsize, description):
    """The games that each agent has played with itself.

    Args:
        description: of the agents' runs, such as 'bee/<boardsize>'.

    Returns:
        black_wins and games, indexed by agent; those who have not played themselves are left out.
    """
    found = ratings.agents(boardsize, description)
    own = sql.query('select black_agent as id, sum(black_wins) as black_wins, '
                    'sum(black_wins + white_wins) as games from trials '
                    'where black_agent = white_agent group by black_agent').set_index('id')
    return own[own.index.isin(found.index)]


def as_black(rate):
    """The rate p at which an agent should win as Black from a perfect player.

    Args:
        rate: q, that at which Black wins when it plays itself; 0 is returned for one half and less.

    >>> print(round(as_black(.95), 3))
    0.949
    """
    return np.sqrt(np.clip(2*np.asarray(rate) - 1, 0, 1))


def elo(black_wins, games, level=.95):
    """The Elo from perfect play that an agent can have at most, by its games with itself.

    Strong agents are near it. Others are weaker, some by far: an agent may know one way to play,
    and meets itself on no other, while a perfect player leads it elsewhere.

    Args:
        black_wins, games: counts, arrays.
        level: of the interval, Jeffreys' for the rate.

    Returns:
        A DataFrame: rate (Black's share), as_black, elo, lower, upper.

    >>> print(elo([486], [512]).elo.round().item())
    -19.0
    """
    wins, n = np.asarray(black_wins, float), np.asarray(games, float)
    rate, posterior = wins/n, beta(wins + .5, n - wins + .5)
    low, high = posterior.interval(level)
    index = black_wins.index if isinstance(black_wins, pd.Series) else None
    return pd.DataFrame({'rate': rate, 'as_black': as_black(rate), 'elo': _elo(rate),
                         'lower': _elo(low), 'upper': _elo(high)}, index)


def _elo(rate):
    return elos.to_elo*logit(as_black(rate)/2)
