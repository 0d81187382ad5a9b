"""Ratings of agents in the database in use, from the games of their pool."""
import numpy as np
import pandas as pd

from .. import elos, sql
from .evaluation import PERFECT


def agents(boardsize, description):
    """The agents to rate together: those of one description, and the exact player if there is one.

    Returns:
        The rows of :func:`boardlaw.sql.agent_query`.
    """
    found = sql.agent_query()
    found = found[found.boardsize == boardsize]
    return found[(found.description == description) | (found.description == PERFECT)]


def reference(found):
    """Id of the exact player in `found`, from :func:`agents`; None if it is not there."""
    exact = found.index[found.description == PERFECT]
    return int(exact[0]) if len(exact) else None


def trials(found):
    """The games between the agents `found` by :func:`agents`, as rows of the table trials.

    Those of other studies are left out, such as all agents' with the best one (:mod:`.best`). So
    the paper has it: strength is not quite transitive, and so many games with one opponent would
    shift every rating.
    """
    played = sql.trial_query(int(found.boardsize.iloc[0]))
    played = played.drop(sql.study_query().index, errors='ignore')
    return played[played.black_agent.isin(found.index) & played.white_agent.isin(found.index)]


def ratings(found, played=None):
    """Elo and its 95 % interval for these agents; 0 is the exact player, or else the best agent.

    Some agents do better against one opponent than against others. How much so is estimated, and
    the intervals allow for it (:func:`boardlaw.elos.overdispersion`).

    The best agent is also at 0 while the exact player has no games.

    Args:
        found: from :func:`agents`.
        played: from :func:`trials`, by default all that the database has.

    Returns:
        A DataFrame indexed by agent: elo, std, lower, upper. An agent that no chain of games links
        to the reference has nan.
    """
    played = trials(found) if played is None else played
    if played.empty:
        return pd.DataFrame(np.nan, found.index, ['elo', 'std', 'lower', 'upper'])
    pairs, ref = elos.pairs(played), reference(found)
    if ref not in {*pairs.agent, *pairs.opponent}:
        ref = None
    rows = elos.intervals(pairs, islands='each', reference=ref, rho=None)*elos.to_elo
    island = elos.find_islands(pairs)
    return rows[island == island.get(ref, 0)].reindex(found.index)
