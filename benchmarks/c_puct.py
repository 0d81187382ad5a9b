"""How c_puct of the corrected rule, and the value of an unvisited action, were chosen.

    python benchmarks/c_puct.py [--boardsize 4 --width 8 --depth 2 --samples 800000 --seeds 2]

Trains one agent for each c_puct and seed with the same number of samples, lets all of them meet,
each playing as it was trained, and fits their Elo. Then gives one trained network to searches that
differ in c_puct and in ``unvisited`` and lets each meet the plain one. Everything is written to
boardlaw/data/c_puct.json, from which the book's chapter on the search draws it.
"""
import argparse
import itertools
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import boardlaw
from boardlaw import arena, elos, pavlov
from boardlaw.arena import common
from boardlaw.mcts import MCTSAgent
from boardlaw.training import train

FILE = Path(boardlaw.__file__).parent / 'data' / 'c_puct.json'


def trained(args, c_puct, seed):
    run = train(args.boardsize, args.width, args.depth, c_puct=c_puct, seed=seed,
                samples=args.samples, n_envs=1024, progress=False,
                snapshots=[1e30], description=f'c_puct {c_puct} seed {seed}')
    return common.agent(run)




def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in [('boardsize', 4), ('width', 8), ('depth', 2), ('samples', 800_000),
                          ('seeds', 2), ('games', 1024)]:
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--c_pucts', type=float, nargs='+',
                        default=[1/16, 1/8, 1/4, 1/2, 1, 2], help='1/4 must be among them')
    args = parser.parse_args()
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    key = f'{args.boardsize}x{args.boardsize} {args.width}x{args.depth} {args.samples} samples'
    with tempfile.TemporaryDirectory() as folder, pavlov.use_root(folder):
        agents = {(c, seed): trained(args, c, seed)
                  for c, seed in itertools.product(args.c_pucts, range(args.seeds))}
        results[key] = {'trained': rate(agents, args), 'searching': searches(agents, args)}
    FILE.write_text(json.dumps(results, indent=1))
    print(pd.DataFrame(results[key]['trained']).to_string())
    print(pd.DataFrame(results[key]['searching']).to_string())


def rate(agents, args):
    """Elo of the trained agents, each playing as it was trained."""
    rows = []
    for i, (a, b) in enumerate(itertools.combinations(range(len(agents)), 2)):
        first, second = list(agents.values())[a], list(agents.values())[b]
        for x, y, result in zip((a, b), (b, a), arena.match(first, second, args.games,
                                                            args.boardsize, i), strict=True):
            rows.append((x, y, result.black_wins, result.white_wins))
    trials = pd.DataFrame(rows, columns=['black_agent', 'white_agent', 'black_wins', 'white_wins'])
    elo = elos.solve(*elos.symmetrize(trials))*400/math.log(10)
    return [{'c_puct': c, 'seed': seed, 'elo': round(float(elo[i]), 1)}
            for i, (c, seed) in enumerate(agents)]


def searches(agents, args):
    """Win rates of searches over one network against the search with c_puct 1/4, 'parent'."""
    network = agents[1/4, 0].network
    plain, rows = MCTSAgent(network, c_puct=1/4), []
    for seed, (c, unvisited) in enumerate(itertools.product(args.c_pucts, ('parent', 'worst'))):
        agent = MCTSAgent(network, c_puct=c, unvisited=unvisited)
        rate = arena.winrate(agent, plain, 4*args.games, args.boardsize, seed)
        rows.append({'c_puct': c, 'unvisited': unvisited, 'winrate': rate,
                     'error': float(np.sqrt(rate*(1 - rate)/(4*args.games)))})
    return rows


if __name__ == '__main__':
    main()
