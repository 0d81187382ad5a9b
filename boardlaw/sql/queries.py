"""The questions that the book and the paper ask of the evaluation database."""
import pandas as pd
import sqlalchemy as sa

from . import tables
from .database import engine, query

_details = tables.agents_details.subquery('details')


def agent_query():
    """All agents: a DataFrame indexed by the agent's id.

    Columns: test_nodes, test_c (its search in play), snap_id, samples, train_flops, idx (its
    snapshot), run, description, boardsize, width, depth, train_nodes (its run), and test_flops, the
    compute of one move on the paper's scale: test_nodes * train_flops / samples, which already
    holds the nodes of training.
    """
    found = query(sa.select(_details).order_by(_details.c.id)).set_index('id')
    return found.assign(test_flops=found.test_nodes*found.train_flops/found.samples)


def trial_query(boardsize, desc='%', test_nodes=None):
    """The games between agents of one board: a DataFrame indexed by the row's id.

    Args:
        boardsize: cells along an edge.
        desc: a pattern of SQL's ``like`` that both runs' descriptions match; 'bee/%' are the
            paper's.
        test_nodes: if given, only agents that search with this many nodes.

    Columns: black_agent, white_agent, black_wins, white_wins, moves, times. A pair has many rows;
    the paper keeps, of each ordered pair, the first with at least 512 games.
    """
    black, white = (tables.agents_details.subquery(name) for name in ('black', 'white'))
    found = (sa.select(tables.trials)
             .join(black, tables.trials.c.black_agent == black.c.id)
             .join(white, tables.trials.c.white_agent == white.c.id)
             .where(*_of(black, boardsize, desc, test_nodes),
                    *_of(white, boardsize, desc, test_nodes))
             .order_by(tables.trials.c.id))
    return query(found).set_index('id')


def study_query():
    """The games that are not of the pool: their study ('top', 'rules', 'mirror') by the row's id.

    It is empty for a file of 2021 or of an earlier version, which say nothing of it.
    """
    details, there = tables.trial_details, sa.inspect(engine())
    known = there.has_table(details.name) and 'study' in {
        column['name'] for column in there.get_columns(details.name)}
    rows = sa.select(details.c.trial, details.c.study).where(details.c.study.is_not(None))
    return (query(rows) if known else pd.DataFrame({'trial': [], 'study': []})
            ).set_index('trial').study


def mohex_trial_query(boardsize, desc='%', test_nodes=None):
    """Like :func:`trial_query` for the games against MoHex, whose side is empty (NaN)."""
    t = tables.mohex_trials
    found = (sa.select(t)
             .join(_details, _details.c.id == sa.func.coalesce(t.c.black_agent, t.c.white_agent))
             .where(*_of(_details, boardsize, desc, test_nodes))
             .order_by(t.c.id))
    return query(found).set_index('id')


def noise_scale_query(boardsize=None, desc='%', test_nodes=None):
    """The measured gradient noise: a DataFrame indexed by the row's id, the agent's details
    joined by :func:`agent_query` on agent_id."""
    t = tables.noise_scales
    found = sa.select(t).join(_details, _details.c.id == t.c.agent_id).where(
        *_of(_details, boardsize, desc, test_nodes)).order_by(t.c.id)
    return query(found).set_index('id')


def _of(details, boardsize, desc, test_nodes):
    conditions = [details.c.description.like(desc)]
    if boardsize is not None:
        conditions.append(details.c.boardsize == int(boardsize))
    if test_nodes is not None:
        conditions.append(details.c.test_nodes == int(test_nodes))
    return conditions
