"""Trains the shipped runs anew, and says how far the new networks are from those that ship.

    python tools/reproduce.py [--workers 2] [--unknown]

A run's settings and seed are those that ship with it. Each is trained to its first snapshot: for
the runs of the study of lambda, which have one alone, that is the whole run. The results go to
boardlaw/data/reproduced.json as they come, with the processor, by which sums are rounded one way
or another. A second call does what is missing on its machine.
"""
import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.resources import files

import torch

from boardlaw import pavlov, rng, sql, training
from boardlaw.hex import Hex
from boardlaw.networks import from_state_dict
from boardlaw.pavlov import runs, storage
from boardlaw.selfplay import Config
from boardlaw.sql.database import REPLICA
from boardlaw.sweep import shipping
from boardlaw.sweep.training import machine, release

FILE = files('boardlaw')/'data'/'reproduced.json'


def again(run, folder):
    """Trains a run to its first snapshot and compares the two, as a row of the file."""
    torch.set_num_threads(1)
    began = time.monotonic()
    with pavlov.use_root(folder):
        params, old = runs.info(run)['params'], storage.load_snapshot(run, 0)
    with tempfile.TemporaryDirectory() as other, pavlov.use_root(other):
        new = storage.load_snapshot(training.train(
            **vars(Config.from_params(params)), snapshots=params['snapshots'],
            flops=params['snapshots'][0], progress=False, save_seconds=3600), 0)
    return {'run': run, 'samples': old['n_samples'], 'samples_now': new['n_samples'],
            **gaps(old['agent'], new['agent'], params['boardsize']),
            'seconds': round(time.monotonic() - began, 1)}


def gaps(old, new, boardsize):
    """The greatest difference of any weight, and of any move's probability in 256 positions."""
    world = Hex.initial(256, boardsize).random_steps(boardsize**2//3, rng.keys(0, 256, 0))[0]
    with torch.no_grad():
        mine, theirs = (from_state_dict(s)(world).logits.exp() for s in (new, old))
    weights = [(old[k] - new[k]).abs().max().item() for k in old if k.startswith('network')]
    return {'weight_gap': max(weights), 'policy_gap': (mine - theirs).abs().max().item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workers', type=int, default=2, help='runs at once')
    parser.add_argument('--unknown', action='store_true',
                        help='only runs whose row names no commit')
    args = parser.parse_args()
    about = {'version': release(), 'machine': machine()}
    found = json.loads(FILE.read_text('utf-8')) if FILE.is_file() else []
    done = {row['run'] for row in found if row['machine'] == about['machine']}
    with sql.use(REPLICA):
        known = sql.query('select run, version from run_details')
    if args.unknown:
        known = known[~known.version.fillna('').str.contains('+', regex=False)]
    with tempfile.TemporaryDirectory() as folder:
        with pavlov.use_root(folder):
            todo = (set(shipping.unpack()) & set(known.run)) - done
            # Of some runs only the end ships. The shortest first: most results soonest.
            todo = [run for run in todo if storage.snapshots(run).present.get(0)]
            todo = sorted(todo, key=lambda run: storage.load_snapshot(run, 0)['n_flops'])
        with ProcessPoolExecutor(args.workers) as pool:
            for job in as_completed([pool.submit(again, run, folder) for run in todo]):
                found.append(job.result() | about)
                print(len(found), found[-1], flush=True)
                FILE.write_text(json.dumps(found, indent=0) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
