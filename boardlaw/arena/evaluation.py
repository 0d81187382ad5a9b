"""From runs on disk to games in the evaluation database."""
import itertools

import pandas as pd
from tqdm import tqdm

from .. import rng, sql
from ..hex.solve import PerfectPlayer
from ..pavlov import runs, storage
from . import common, matches

#: Description in the database of the exact solver's player, as whom a rating has its 0.
PERFECT = 'perfect'


def register(run=-1, n_nodes=None, c_puct=None, every=1, **details):
    """Enters a run's snapshots in the database in use, as agents.

    Args:
        n_nodes, c_puct: of their search in play; by default those of their training.
        every: k for only every k-th snapshot, counted back from the last.
        details: further fields of run_details (version, machine) by name.

    Returns:
        A Series of snapshot numbers indexed by the agents' ids.
    """
    run = runs.resolve(run)
    info = runs.info(run)
    params = info['params']
    if missing := {'boardsize', 'width', 'depth'} - params.keys():
        raise ValueError(f'run "{run}" cannot be registered: its description does not say its '
                         f'{", ".join(sorted(missing))}')
    sql.add_run(run, info.get('description', ''), params['boardsize'], params['width'],
                params['depth'], params.get('nodes', common.NODES_2021),
                {'params': params, 'seed': params.get('seed'), **details})
    found = storage.snapshots(run).query('present').index[::-every][::-1]
    ids = [_register(run, n, n_nodes, c_puct) for n in found]
    return pd.Series(list(found), index=pd.Index(ids, name='id'), name='snapshot')


def _register(run, n, n_nodes, c_puct):
    saved = storage.load_snapshot(run, n)
    agent = common.agent(run, n, n_nodes=n_nodes, c_puct=c_puct)
    details = {k: saved[v] for k, v in [('seconds', 'runtime'), ('cpu_seconds', 'cputime')]
               if v in saved}
    snap = sql.add_snap(run, n, saved['n_samples'], saved['n_flops'], details)
    return sql.add_agent(snap, agent.n_nodes, agent.c_puct)


def register_perfect(boardsize):
    """Enters the exact solver's player for a board in the database in use; returns its id.

    It is the agent of a run without a network: width, depth and nodes are 0. It plays a lost
    position as :class:`boardlaw.hex.solve.PerfectPlayer` does by default, but on 6x6 at random.
    """
    run = sql.add_run(f'{PERFECT} {boardsize}x{boardsize}', PERFECT, boardsize, 0, 0, 0)
    return sql.add_agent(sql.add_snap(run, 0, 0, 0), 0, 0)


def _perfect(boardsize):
    # How it plays a lost position leaves it perfect, and to resist on 6x6 takes minutes a move.
    return PerfectPlayer('resist' if boardsize <= 5 else 'random')


def load(ids, device='cpu'):
    """The agents with these ids in the database in use, whose runs must be on disk: {id: agent}."""
    known = sql.agent_query()
    if missing := set(ids) - set(known.index):
        raise LookupError(f'the database in use has no agents {sorted(missing)}')
    return {i: _perfect(row.boardsize) if row.description == PERFECT else
            common.agent(row.run, row.idx, device, n_nodes=int(row.test_nodes), c_puct=row.test_c)
            for i, row in known.loc[list(ids)].iterrows()}


def evaluate(agents, pairs=None, n_games=512, seed=0, progress=True, more=False, device='cpu',
             study=None):
    """Plays the pairs that the database in use lacks, in both colour orders, and saves each row.

    Games that are in the database are not played again: after an interruption, call it once more.

    Args:
        agents: {id: agent} as :func:`load` returns them, or ids.
        pairs: pairs of ids, each played in both orders; by default all pairs. An agent may be
            paired with itself.
        n_games: games in each order, a number or one for each pair.
        seed: with the ids it determines every game.
        more: whether to play `n_games` in addition to the games that are in the database.
        device: where to play; agents given as objects, not ids, must be on it.
        study: 'top', 'rules' or 'mirror' for games that do not enter the pool's ratings, see
            :func:`.ratings.trials`.

    Returns:
        How many games were played.

    Raises:
        ValueError: a pair plays on different boards.
    """
    known = sql.agent_query()
    if not isinstance(agents, dict):
        agents = load(agents, device)
    pairs = list(itertools.combinations(agents, 2) if pairs is None else pairs)
    n_games = list(n_games) if hasattr(n_games, '__len__') else [n_games]*len(pairs)
    board = known.boardsize
    if mixed := [(a, b) for a, b in pairs if board[a] != board[b]]:
        raise ValueError(f'agents {mixed[0]} play on boards of different size: evaluate those of '
                         'each board apart')
    orders = [(order, n) for (a, b), n in zip(pairs, n_games, strict=True)
              for order in dict.fromkeys(((a, b), (b, a)))]   # one order with itself
    played = sql.query('select black_agent, white_agent, sum(black_wins + white_wins) as games '
                       'from trials group by black_agent, white_agent')
    played = {(row.black_agent, row.white_agent): int(row.games) for row in played.itertuples()}
    todo = [(*order, before, n if more else n - before) for order, n in orders
            for before in [played.get(order, 0)] if more or n > before]
    for black, white, before, n in tqdm(todo, 'matches', disable=not progress):
        # Games that top up an earlier row must not repeat it: the seed counts what was played.
        result = matches.play(agents[black], agents[white], n, int(board[black]),
                              rng.fold(seed, black, white, before), device)
        sides = agents[black], agents[white]
        sql.save_trials([{
            'black_agent': black, 'white_agent': white, 'black_wins': result.black_wins,
            'white_wins': result.white_wins, 'moves': result.moves, 'times': result.seconds,
            'seed': seed, 'rule': '/'.join(getattr(side, 'rule', 'exact') for side in sides),
            'noise_eps': max(getattr(side, 'noise_eps', 0.) for side in sides),
            'sampled': int(not any(getattr(side, 'argmax', False) for side in sides)),
            'study': study}])
    return sum(n for *_, n in todo)
