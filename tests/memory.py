"""Whether the memory of long self-play stays flat: search, learning, measurements, statistics.

    python tests/memory.py --minutes 60
"""
import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from boardlaw import pavlov
from boardlaw.pavlov import runs, stats
from boardlaw.selfplay import Config, Trainer

WARM = 32        # learner steps before memory counts
LOOKS = 2000     # at the memory, in all: a list of every step would itself be growth
BOUND = .02      # by how much it may grow from then on
CONFIG = Config(5, 16, 4, n_envs=256, n_nodes=16, buffer_len=32)


def resident():
    """Bytes of memory that this process holds now (where Linux does not say, the most so far)."""
    try:
        return int(Path('/proc/self/statm').read_text().split()[1])*resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


def flat(minutes, config=CONFIG, progress=lambda found: None):
    """Trains for so many minutes, after a start that fills the buffer.

    Returns:
        'minutes', 'samples', 'first' and 'last' (MB, medians of the first and the last tenth of the
        time), 'growth' of the one over the other, and 'errors' if it is above the bound.
    """
    trainer, seen = Trainer(config), []
    with tempfile.TemporaryDirectory() as folder, pavlov.use_root(folder), \
            stats.to_run(runs.new_run(), 'training'):
        while trainer.n_learnt < WARM or len(seen) < 20 or time.time() - seen[0][0] < 60*minutes:
            measured = trainer.advance(measure=trainer.buffer.full and trainer.step % 4 == 0)
            for channel, row in measured.items():
                (stats.mean if len(row) == 2 else stats.max)(channel, *row)
            if trainer.n_learnt >= WARM and (
                    not seen or time.time() - seen[-1][0] >= 60*minutes/LOOKS):
                seen.append((time.time(), resident()))
                if len(seen) > 1:
                    progress(report(seen, trainer))
    return report(seen, trainer)


def report(seen, trainer):
    t, used = np.array(seen).T
    share = (t - t[0])/max(t[-1] - t[0], 1e-9)
    first, last = np.median(used[share <= .1]), np.median(used[share >= .9])
    growth = float(last/first - 1)
    return {'minutes': round(float(t[-1] - t[0])/60, 2), 'samples': trainer.n_samples,
            'first': round(float(first)/1e6, 1), 'last': round(float(last)/1e6, 1),
            'growth': round(growth, 5),
            'errors': [f'memory grew by {growth:.1%}'] if growth > BOUND else []}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=60)
    print(flat(parser.parse_args().minutes))
