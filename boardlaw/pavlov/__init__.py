"""Runs on disk, in the layout of the 2021 code: descriptions, files, statistics and saved states.

    run = pavlov.runs.new_run('a first try', params={'boardsize': 3})
    with pavlov.stats.to_run(run), pavlov.logs.to_run(run):
        pavlov.stats.mean('loss.value', .5)
        pavlov.storage.save_latest(run, {'agent': network.state_dict()})

    pavlov.runs.pandas();  pavlov.stats.pandas(run, 'loss.value');  pavlov.watch(run)

It knows nothing of what is trained.

Explained in the chapter book/data2021.ipynb.
"""

from . import files, logs, runs, stats, storage
from .disk import CorruptFile, NotFound, root, use_root
from .live import Watch, watch

__all__ = ['CorruptFile', 'NotFound', 'Watch', 'files', 'logs', 'root', 'runs', 'stats', 'storage',
           'use_root', 'watch']
