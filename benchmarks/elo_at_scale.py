"""How long it takes to rate 600 agents from 360,000 rows of games, from the database to the Elo.

    python benchmarks/elo_at_scale.py [--agents 600 --games 64]

Makes a database in which agents of known strength have met, one row for each ordered pair,
reads it, and rates them, three times. Prints the median seconds of each step, and how far the
ratings are from the strengths that the games were drawn with. The aim is at most 10 s on two cores.
"""
import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import sqlalchemy as sa

from boardlaw import elos, sql
from boardlaw.sql import tables


def fill(path, n_agents, n_games, seed=0):
    """A database of `n_agents` agents and a row for each ordered pair; returns their strengths."""
    rng = np.random.default_rng(seed)
    strengths = rng.uniform(-8, 0, n_agents)    # nats: a range of 1,400 Elo
    sql.use(sql.create(path))
    ids = []
    for run in range(-(-n_agents // 20)):
        name = sql.add_run(f'run {run}', 'bee/9', 9, 64, 4, 64)
        snaps = [sql.add_snap(name, k, 1e6*(k + 1), 1e9*(k + 1)) for k in range(20)]
        ids += [sql.add_agent(snap) for snap in snaps[:n_agents - len(ids)]]
    black, white = (x.ravel() for x in np.meshgrid(*[np.arange(n_agents)]*2, indexing='ij'))
    wins = rng.binomial(n_games, elos.winrate(strengths[black] - strengths[white] + .2))
    rows = pd.DataFrame({
        'black_agent': np.array(ids)[black], 'white_agent': np.array(ids)[white],
        'black_wins': wins, 'white_wins': n_games - wins, 'moves': 40*n_games, 'times': 1.})
    with sql.engine().begin() as connection:
        connection.execute(sa.insert(tables.trials), rows.to_dict('records'))
    return pd.Series(strengths - strengths.max(), ids)


def measure():
    """Seconds of each step, and the ratings."""
    seconds, at = {}, perf_counter()

    def lap(name):
        nonlocal at
        seconds[name], at = perf_counter() - at, perf_counter()

    ags = sql.agent_query().query('test_nodes == 64')
    trials = sql.trial_query(9, 'bee/%')
    lap('query')
    first = (trials.query('black_wins + white_wins >= 64')
             .groupby(['black_agent', 'white_agent']).first().reset_index())
    lap('first row of each pair')
    ws, gs = elos.symmetrize(first)
    lap('symmetrize')
    ags = ags.join(elos.solve(ws, gs), how='inner')
    lap('solve')
    elos.intervals(elos.pairs(first))
    lap('intervals (beyond the example)')
    return seconds, ags.elo, len(trials)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--agents', type=int, default=600)
    parser.add_argument('--games', type=int, default=64, help='a row')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        truth = fill(Path(folder) / 'database.sqlite', args.agents, args.games)
        print(f'made in {perf_counter() - start:.1f} s')
        found = [measure() for _ in range(3)]
    _, elo, n_rows = found[0]
    seconds = pd.DataFrame([s for s, _, _ in found]).median()
    print(f'{len(elo)} agents, {n_rows} rows, median seconds of 3:')
    print(seconds.round(2).to_string())
    print(f'query to solve: {seconds.iloc[:4].sum():.2f} s')
    error = (elo - elo.mean()) - (truth - truth.mean())
    print(f'root mean square error {error.std()*elos.to_elo:.1f} Elo')


if __name__ == '__main__':
    main()
