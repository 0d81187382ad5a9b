"""Trains the shipped runs anew, and says how far their weights are from those that ship.

    python tools/reproduce.py [--workers 2] [--unknown]

A run's settings and seed are those that ship with it. Each is trained to its first snapshot: for
the runs of the study of lambda, which have one alone, that is the whole run. The results go to
boardlaw/data/reproduced.json as they come; a second call does what is missing.
"""
import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.resources import files

import torch

from boardlaw import pavlov, sql, training
from boardlaw.pavlov import runs, storage
from boardlaw.selfplay import Config
from boardlaw.sql.database import REPLICA
from boardlaw.sweep import shipping
from boardlaw.sweep.training import machine, release

FILE = files('boardlaw')/'data'/'reproduced.json'


def again(run, folder):
    """Trains a run to its first snapshot: samples, and the greatest difference of any weight."""
    torch.set_num_threads(1)
    began = time.monotonic()
    with pavlov.use_root(folder):
        params, shipped = runs.info(run)['params'], storage.load_snapshot(run, 0)
        with tempfile.TemporaryDirectory() as other, pavlov.use_root(other):
            config = vars(Config.from_params(params))
            new = storage.load_snapshot(training.train(
                **config, snapshots=params['snapshots'], flops=params['snapshots'][0],
                progress=False, save_seconds=3600), 0)
    gaps = [(shipped['agent'][name] - new['agent'][name]).abs().max().item()
            for name in shipped['agent'] if name.startswith('network')]
    return {'run': run, 'samples': shipped['n_samples'], 'samples_now': new['n_samples'],
            'largest_gap': max(gaps), 'seconds': round(time.monotonic() - began, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workers', type=int, default=2, help='runs at once')
    parser.add_argument('--unknown', action='store_true',
                        help='only runs whose row names no commit')
    args = parser.parse_args()
    found = json.loads(FILE.read_text('utf-8')) if FILE.is_file() else []
    with sql.use(REPLICA):
        known = sql.query('select run, version from run_details')
    if args.unknown:
        known = known[~known.version.fillna('').str.contains('+', regex=False)]
    with tempfile.TemporaryDirectory() as folder:
        with pavlov.use_root(folder):
            todo = (set(shipping.unpack()) & set(known.run)) - {row['run'] for row in found}
            # The shortest first: most results soonest.
            todo = sorted(todo, key=lambda run: storage.load_snapshot(run, 0)['n_flops'])
        about = {'version': release(), 'machine': machine()}
        with ProcessPoolExecutor(args.workers) as pool:
            for job in as_completed([pool.submit(again, run, folder) for run in todo]):
                found.append(job.result() | about)
                print(len(found), found[-1], flush=True)
                FILE.write_text(json.dumps(found, indent=0) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
