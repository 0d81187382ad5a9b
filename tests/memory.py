"""Whether the memory of long self-play stays flat: random play, search and learning, hour after hour.

    python tests/memory.py --minutes 60
"""
import argparse
import gc
import resource
import time
from pathlib import Path

import numpy as np

from boardlaw.selfplay import Config, Trainer

WARM = .2        # share of the time after which memory counts
BOUND = .02      # by how much it may have grown since


def resident():
    """Bytes of memory that this process holds now (where Linux does not say, the most so far)."""
    try:
        return int(Path('/proc/self/statm').read_text().split()[1])*resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


def flat(minutes, progress=lambda found: None, every=None):
    """Trains for so many minutes.

    Returns:
        'minutes', 'samples', 'first' and 'last' (MB, medians of the tenth of the time after the
        warm-up and of the last tenth), 'growth' of the one over the other, and 'errors' if it is
        above the bound.
    """
    trainer, began, seen = Trainer(Config(5, 16, 4, n_envs=256, n_nodes=16)), time.time(), []
    length = 60*minutes
    every = every or max(.2, length/500)
    while (now := time.time() - began) < length or len(seen) < 20:
        trainer.advance(measure=trainer.step % 8 == 0 and trainer.buffer.full)
        if not seen or now - seen[-1][0] > every:
            gc.collect()
            seen.append((now, resident()))
            progress(report(seen, trainer))
    return report(seen, trainer)


def report(seen, trainer):
    t, used = np.array(seen).T
    share = t/max(t[-1], 1e-9)
    first = np.median(used[(share >= WARM) & (share <= WARM + .1)]) if len(t) >= 20 else used[-1]
    last = np.median(used[share >= .9])
    growth = last/first - 1
    return {'minutes': t[-1]/60, 'samples': trainer.n_samples, 'first': first/1e6,
            'last': last/1e6, 'growth': growth, 'errors': [
                f'memory grew by {growth:.1%}'] if len(t) >= 20 and growth > BOUND else []}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=60)
    print(flat(parser.parse_args().minutes))
