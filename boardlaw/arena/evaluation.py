"""From runs on disk to games in the evaluation database."""
import itertools

import pandas as pd
from tqdm import tqdm

from .. import rng, sql
from ..pavlov import runs, storage
from . import common, matches


def register(run=-1, n_nodes=None, c_puct=None, **details):
    """Enters a run's snapshots in the database in use, as agents.

    Args:
        n_nodes, c_puct: of their search in play; by default those of their training.
        details: further fields of run_details (version, machine, seconds) by name.

    Returns:
        A Series of snapshot numbers indexed by the agents' ids.
    """
    run = runs.resolve(run)
    info = runs.info(run)
    params = info['params']
    sql.add_run(run, info['description'], params['boardsize'], params['width'], params['depth'],
                params.get('nodes', common.NODES_2021),
                {'params': params, 'seed': params.get('seed'), **details})
    found = storage.snapshots(run).query('present').index
    ids = [_register(run, n, n_nodes, c_puct) for n in found]
    return pd.Series(list(found), index=pd.Index(ids, name='id'), name='snapshot')


def _register(run, n, n_nodes, c_puct):
    saved = storage.load_snapshot(run, n)
    agent = common.agent(run, n, n_nodes=n_nodes, c_puct=c_puct)
    snap = sql.add_snap(run, n, saved['n_samples'], saved['n_flops'])
    return sql.add_agent(snap, agent.n_nodes, agent.c_puct)


def load(ids, device='cpu'):
    """The agents with these ids of the database in use, their runs being here: {id: agent}."""
    known = sql.agent_query()
    if missing := set(ids) - set(known.index):
        raise LookupError(f'{sql.engine().url} has no agents {sorted(missing)}')
    return {i: common.agent(row.run, row.idx, device, n_nodes=int(row.test_nodes),
                            c_puct=row.test_c)
            for i, row in known.loc[list(ids)].iterrows()}


def evaluate(agents, pairs=None, n_games=512, seed=0, progress=True):
    """Plays the pairs that the database in use lacks, in both colour orders, and saves each row.

    What is there is not played again: after an interruption, call it once more.

    Args:
        agents: {id: agent} as :func:`load` returns them, or ids.
        pairs: pairs of ids, each played in both orders; by default all pairs.
        n_games: games in each order.
        seed: with the ids it determines every game.

    Returns:
        How many games were played.

    Raises:
        ValueError: a pair plays on different boards.
    """
    agents = agents if isinstance(agents, dict) else load(agents)
    pairs = list(itertools.combinations(agents, 2) if pairs is None else pairs)
    if mixed := [(a, b) for a, b in pairs if _boardsize(agents[a]) != _boardsize(agents[b])]:
        raise ValueError(f'agents {mixed[0]} play on boards of different size: evaluate those of '
                         'each board apart')
    orders = [order for a, b in pairs for order in ((a, b), (b, a))]
    played = sql.query('select black_agent, white_agent, sum(black_wins + white_wins) as games '
                       'from trials group by black_agent, white_agent')
    played = {(row.black_agent, row.white_agent): row.games for row in played.itertuples()}
    todo = [(order, n) for order in orders if (n := n_games - played.get(order, 0)) > 0]
    for (black, white), n in tqdm(todo, 'matches', disable=not progress):
        # Games that top up an earlier row must not repeat it: the seed counts what was played.
        result = matches.play(agents[black], agents[white], int(n), _boardsize(agents[black]),
                              rng.fold(seed, black, white, n_games - n))
        sql.save_trials([{
            'black_agent': black, 'white_agent': white, 'black_wins': result.black_wins,
            'white_wins': result.white_wins, 'moves': result.moves, 'times': result.seconds,
            'seed': seed, 'rule': f'{agents[black].rule}/{agents[white].rule}',
            'noise_eps': max(agents[black].noise_eps, agents[white].noise_eps),
            'sampled': int(not (agents[black].argmax or agents[white].argmax))}])
    return sum(n for _, n in todo)


def _boardsize(agent):
    return agent.network.boardsize
