"""A run's log, one file `logs.{n}.txt` a process."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager

from . import files

LOGGER = 'boardlaw'


@contextmanager
def to_run(run: str | int, level: int = logging.INFO):
    """Write what the package logs during the block to a new log file of the run; yields its path.

    Only the logger 'boardlaw' and those below it: libraries may log addresses and credentials.
    Times are UTC. If the block raises, the log's last line says with what."""
    path = files.new_file(run, 'logs.{n}.txt')
    handler = logging.FileHandler(path, encoding='utf-8')
    formatter = logging.Formatter('%(asctime)s %(levelname)s %(name)s: %(message)s', '%H:%M:%S')
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.setLevel(level)
    logger = logging.getLogger(LOGGER)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, logger.getEffectiveLevel()))
    try:
        yield path
    except BaseException as e:
        logger.error('Stopped by %s: %s', type(e).__name__, e)
        raise
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
