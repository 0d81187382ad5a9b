"""Ours beside the peers, in one run: `make bench`, or `make bench BENCH=--quick` for a first look.

    python benchmarks/bench.py [--quick] [--only search] [--batches 256 1024]

Installs the peers (the extra `bench` of pyproject.toml) into an environment of their own, and runs
one worker in it and one in ours. Every group of contenders does the same work; they take turns,
A B A B, and the table gives the median of the turns with the slowest and the fastest. The first
run of each, which compiles, is timed apart. A peer that cannot be installed or fails is named in
the table and stops nothing.

Beside each measurement stands its floor, see ours.py. A full run writes boardlaw/data/bench.json,
which ships with the package: the book's chapter 'How fast' is drawn from it.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import ours
import pandas as pd
from worker import Failed, Worker

import boardlaw
from boardlaw import elos, threads
from boardlaw.mcts.batched import is_tiled
from boardlaw.mcts.evaluation import weights

FILE = Path(boardlaw.__file__).parent / 'data' / 'bench.json'
NETWORKS = {5: (16, 4), 7: (128, 4), 9: (512, 4)}   # boardsize: (width, depth)
PER_SAMPLE = 64 + 3   # evaluations a sample: the search's, and the learner's three passes


def install(folder):
    """The peers' environment; returns its Python, and what could not be installed."""
    python = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    wanted = [re.split(r'\s*;', r)[0] for r in metadata.requires('boardlaw')
              if re.search(r'extra\s*==\s*.bench.', r)]
    if not python.exists():
        subprocess.run([sys.executable, '-m', 'venv', str(folder)], check=True)
    pip = [str(python), '-m', 'pip', 'install', '-q', '--disable-pip-version-check']
    if subprocess.run([*pip, *wanted]).returncode == 0:
        return python, []
    return python, [r for r in wanted if subprocess.run([*pip, r]).returncode]


def contender(name, side, task, repeats=None, per=1, note='', **arguments):
    """One of those who take turns: ``side`` is 'ours', 'peer', 'floor', or 'part' or
    'network' for a part of ours.

    Args:
        repeats: turns, if fewer than the others'.
        per: the task's units in one unit of the group, a number or a function of what ours told.
    """
    return dict(name=name, side=side, task=task, repeats=repeats, per=per, note=note,
                arguments=arguments)


def random_play(quick):
    n_envs = 8192
    for size in (5, 9, 11):
        few, many = (5, 40) if quick else (40, 400)
        steps = dict(boardsize=size, n_envs=n_envs)
        yield dict(work='random play', unit='steps/s', boardsize=size, n_envs=n_envs), [
            contender('boardlaw', 'ours', 'random_steps', n_steps=many, **steps),
            contender('boardlaw, step by step', 'ours', 'random_loop', n_steps=few, **steps),
            contender('pgx', 'peer', 'pgx_random', n_steps=2*few, **steps,
                      note='' if size == 11 else 'patched: its own Hex works at 11x11 only'),
            contender('OpenSpiel', 'peer', 'openspiel_random', boardsize=size,
                      n_games=(50_000 if quick else 500_000)//size**2,
                      note='C++ bots, without observations'),
            contender('boardlaw, no observations', 'part', 'random_blind', n_steps=many, **steps),
            contender('observations written', 'floor', 'writing', n_steps=many, fresh=False,
                      **steps),
            contender('observations written, new memory', 'floor', 'writing', n_steps=few,
                      fresh=True, **steps)]


def searches(quick, batches, folder):
    for size, (width, depth) in NETWORKS.items():
        net = dict(boardsize=size, width=width, depth=depth)
        file = folder / f'{size}.npz'
        np.savez(file, **weights(ours.network(**net))._asdict())
        for n_envs in batches:
            big = n_envs > 2000   # where a turn of mctx takes half a minute
            same = dict(n_envs=n_envs, **net)
            found = [contender('boardlaw', 'ours', 'search', **same),
                     contender('mctx gumbel', 'peer', 'mctx_search', policy='gumbel',
                               weights=str(file), repeats=3 if big else None, **same),
                     contender('network alone', 'network', 'evaluations', **same),
                     contender('matrix products', 'floor', 'products', **net,
                               n_times=16 if quick else 256)]
            if n_envs == 1024 or quick:
                found += [contender('mctx muzero', 'peer', 'mctx_search', policy='muzero',
                                    weights=str(file), repeats=1, **same),
                          contender('OpenSpiel MCTS', 'peer', 'openspiel_search', boardsize=size,
                                    n_games=64 if quick else 512,
                                    note='C++, random rollouts in place of a network')]
            yield dict(work='search', unit='simulations/s', **same), found


def learning(quick):
    for size, width in ((3, 2), (5, 16)):
        net = dict(boardsize=size, width=width, depth=4)
        n_envs = 128 if quick else 1024
        yield dict(work='training', unit='samples/s', n_envs=n_envs, **net), [
            contender('boardlaw', 'ours', 'training', n_envs=n_envs, n_steps=2 if quick else 5,
                      **net),
            contender('matrix products', 'floor', 'products', per=PER_SAMPLE, **net)]


def playing(quick):
    net = dict(boardsize=5, width=16, depth=4)
    n_games = 64 if quick else 512
    yield dict(work='matches', unit='games/s', n_envs=n_games, **net), [
        contender('boardlaw', 'ours', 'matches', n_games=n_games, **net),
        contender('matrix products', 'floor', 'products', **net,
                  per=lambda told: 64*told['moves'])]


def ratings(quick, folder):
    rng = np.random.default_rng(0)
    for n in (100, 1000):
        strengths = rng.uniform(-6, 0, n)
        wins = np.triu(rng.binomial(64, elos.winrate(strengths[:, None] - strengths)), 1)
        wins = wins + np.tril(64 - wins.T, -1)
        games = folder / f'dense{n}.npz'
        np.savez(games, wins=wins)
        games = str(games)
        yield dict(work='Elo', unit='fits/s', agents=n, pairs=n*(n - 1)//2), [
            contender('boardlaw', 'ours', 'elo', games=games),
            contender('boardlaw, with covariance', 'ours', 'elo_covariance', games=games),
            contender('choix', 'peer', 'choix_dense', games=games, note='ilsr_pairwise_dense'),
            contender('one factor', 'floor', 'cholesky', n_agents=n, covariance=False),
            contender('one factor and inverse', 'floor', 'cholesky', n_agents=n, covariance=True)]
    n, each = (1000 if quick else 10_000), 10
    i = np.repeat(np.arange(n), each)
    j = (i + np.tile(np.arange(1, each + 1)**2, n)) % n
    i, j = np.unique(np.sort([i, j], axis=0), axis=1)
    strengths = rng.uniform(-6, 0, n)
    won = rng.binomial(8, elos.winrate(strengths[i] - strengths[j]))
    games = folder / 'sparse.npz'
    np.savez(games, n=n, i=i, j=j, won=won, lost=8 - won)
    yield dict(work='Elo', unit='fits/s', agents=n, pairs=len(i)), [
        contender('boardlaw', 'ours', 'elo', games=str(games)),
        contender('choix, one iteration', 'peer', 'choix_sparse', games=str(games), repeats=1,
                  note='mm_pairwise, far from converged; its other fits are dense'),
        contender('pairs read once', 'floor', 'reading', n_pairs=len(i))]


def profiles(quick):
    for size, (width, depth) in NETWORKS.items():
        yield dict(work='profile', unit='simulations/s', boardsize=size, width=width, depth=depth,
                   n_envs=256), [
            contender('boardlaw, one core', 'ours', 'profile', boardsize=size, width=width,
                      depth=depth)]


def measure(workers, setting, contenders, repeats):
    """Rows of the table, one a contender: they take turns."""
    rates, firsts, failed, told = {}, {}, {}, {}
    for turn in range(repeats + 1):   # turn 0 prepares
        for c in contenders:
            name = c['name']
            if name in failed or turn > (c['repeats'] or repeats):
                continue
            at = workers['peers' if c['side'] == 'peer' else 'ours']
            try:
                if at is None:
                    raise Failed('not installed')
                answer = (at.prepare if turn == 0 else at.run)(c['task'], c['arguments'])
            except Failed as error:
                failed[name] = str(error)
                continue
            if turn == 0:
                firsts[name] = answer['seconds']
            else:
                rates.setdefault(name, []).append(answer['amount']/answer['seconds'])
                if rates[name][-1] == max(rates[name]):   # a profile is of the quietest turn
                    told[name] = {k: x for k, x in answer.items() if k not in ('seconds', 'amount')}
    told['ours'] = told.get(contenders[0]['name'], {})
    rows = [row(setting, c, rates, firsts, failed, told) for c in contenders]
    for at in filter(None, workers.values()):
        at.forget()
    return rows


def row(setting, c, rates, firsts, failed, told):
    name, result = c['name'], dict(setting, name=c['name'], side=c['side'], note=c['note'])
    if name in failed:
        return result | {'note': f'failed: {failed[name]}'}
    per = c['per'](told['ours']) if callable(c['per']) else c['per']
    found = [x/per for x in rates[name]]
    extra = {k: x for k, x in told[name].items() if k != 'elo'}
    if 'elo' in told[name] and c['side'] == 'peer':
        gap = np.subtract(told[name]['elo'], told['ours']['elo'])
        extra['largest_difference'] = float(np.abs(gap).max()*elos.to_elo)
    return result | {'median': median(found), 'low': min(found), 'high': max(found),
                     'repeats': len(found), 'first_seconds': firsts[name]} | extra


def shown(rows):
    """A group's table: rates, and how many times the first row's each is."""
    base = rows[0].get('median', float('nan'))
    return pd.DataFrame([{
        '': r['name'], r['unit']: f"{r['median']:,.4g}" if 'median' in r else '-',
        'low': f"{r['low']:,.4g}" if 'median' in r else '',
        'high': f"{r['high']:,.4g}" if 'median' in r else '',
        'ours/this': f"{base/r['median']:.3g}" if 'median' in r else '',
        'first run (s)': f"{r['first_seconds']:.1f}" if 'median' in r else '',
        'note': r['note']} for r in rows]).to_string(index=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='little work, two turns; writes '
                        'nothing unless --out is given')
    parser.add_argument('--only', nargs='+', help='random, search, training, matches, elo, profile')
    parser.add_argument('--batches', type=int, nargs='+', default=[256, 1024, 8192])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--peers', type=Path, default=Path('_build/bench/venv'),
                        help='the folder of their environment')
    parser.add_argument('--out', type=Path, help=f'by default {FILE}')
    args = parser.parse_args()
    if args.quick:
        args.batches, args.repeats = [64], 2
    out = args.out or (None if args.quick or args.only else FILE)
    began, load = perf_counter(), os.getloadavg()[0]
    python, missing = install(args.peers)
    workers = {'ours': Worker(sys.executable, 'ours.py'), 'peers': Worker(python, 'peers.py')}
    machine = dict(
        date=datetime.now(timezone.utc).date().isoformat(),
        cpu=threads.cpu(), cores=threads.n_threads(),
        load_before=load, quick=args.quick, not_installed=missing,
        bfloat16_from_width=128 if is_tiled(128) else None,
        versions={k: x for w in workers.values() for k, x in w.ask(do='versions').items()})
    print(json.dumps(machine, indent=1), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        groups = {'random': random_play(args.quick),
                  'search': searches(args.quick, args.batches, folder),
                  'training': learning(args.quick), 'matches': playing(args.quick),
                  'elo': ratings(args.quick, folder), 'profile': profiles(args.quick)}
        for name in args.only or groups:
            for setting, contenders in groups[name]:
                found = measure(workers, setting, contenders, args.repeats)
                print('\n' + ', '.join(f'{k} {x}' for k, x in setting.items() if k != 'unit'))
                print(shown(found), flush=True)
                rows += found
                machine |= {'load_after': os.getloadavg()[0],
                            'seconds': round(perf_counter() - began)}
                if out:   # after every group: a run that is cut short is not lost
                    out.write_text(json.dumps({'machine': machine, 'rows': rows}, indent=1) + '\n')
    for at in workers.values():
        at.close()
    print(f"\n{machine['seconds']} s; load {load:.2f} before, {machine['load_after']:.2f} after")
    if out:
        print(f'written to {out}')


if __name__ == '__main__':
    main()
