"""Many runs and their ratings, within a time limit, on this machine or on a cluster.

    sweep.sweep(sweep.plan([3, 4, 5]), minutes=120)
    python -m boardlaw sweep --boards 3,4,5 --minutes 120

A sweep is a plan (:mod:`.grid`), done by workers (:mod:`.pools`), then rated (:mod:`.rating`). All
its state is in the folder of runs and in the database: started again after an interruption, it goes
on where it stopped; two sweeps on one folder share the work.

Explained in the chapter book/replica.ipynb.
"""
import math
import time

from .. import pavlov, sql
from ..arena import ratings
from . import pools, state
from .grid import Job, fitting, lambda_study, long_runs, plan
from .noise import measure_noise
from .pools import Local, Lost, Ray
from .rating import DIRECT_GAMES, between_rules, direct, mirror, rate, rate_alone
from .state import done, find
from .training import register, train_all

__all__ = ['Job', 'Local', 'Lost', 'Ray', 'between_rules', 'direct', 'done', 'find', 'fitting',
           'lambda_study', 'long_runs', 'measure_noise', 'mirror', 'plan', 'pools', 'rate',
           'rate_alone', 'register', 'sweep', 'train_all']

#: Share of a sweep's time that is kept for rating.
RATING_SHARE = .3

#: Nodes of the search trees in the study of test-time compute, which takes every third snapshot.
TEST_NODES, TEST_EVERY = [2**k for k in range(10)], 3


def sweep(jobs, minutes=None, pool=None, database=None, test_boards=(), device='cpu',
          direct_games=DIRECT_GAMES, report=print):
    """Trains as many of the agents as the time allows, and rates them.

    Args:
        jobs: what to train, see :func:`plan`, :func:`long_runs` and
            :func:`lambda_study`.
        minutes: time for training and rating together, of which runs that are finished take none;
            None: all of them are trained and rated.
        pool: :class:`Local` (the default) or :class:`Ray`.
        database: path or URL of the evaluation database; by default replica.sqlite in the folder of
            runs. It is made if it is not there.
        test_boards: boards whose agents are also rated with search trees of 1, 2, 4 .. 512 nodes.
        device: where to train.
        direct_games: of the top agent against each of the others, see :func:`direct`; agents play
            half as many with themselves, see :func:`mirror`.
        report: called with every line of progress.

    Returns:
        {(boardsize, description): ratings}, see :func:`boardlaw.arena.ratings.ratings`.
    """
    pool = pool or Local()
    began = time.time()
    limit = math.inf if minutes is None else 60*minutes
    database = sql.create(database or pavlov.root()/'replica.sqlite')
    if minutes is not None:
        known = state.descriptions()
        todo = [job for job in jobs if not done(job, known)]
        chosen = fitting(todo, limit*(1 - RATING_SHARE)*pool.workers, device)
        report(f'{len(chosen)} of {len(todo)} runs fit into {minutes:g} minutes')
        jobs = [job for job in jobs if job in chosen or job not in todo]
    train_all(jobs, pool, database, began + limit*(1 - RATING_SHARE), device, report)
    groups = sorted({(job.config.boardsize, job.description) for job in jobs})
    with sql.use(database):
        for job in jobs:
            if job.config.boardsize in test_boards:
                register(job, TEST_NODES, TEST_EVERY)
        options = began + limit, direct_games, report
        rated = {group: rate_alone(*group, pool, *options) for group in groups}
        for group in groups:
            if rated[group] is None:   # by now another sweep's: it may have missed agents of ours
                rated[group] = rate_alone(*group, pool, *options, wait=True)
            if rated[group] is None:
                rated[group] = ratings.ratings(ratings.agents(*group))
        between_rules(jobs, pool, deadline=began + limit)
        measure_noise(jobs, pool, began + limit, report)
    return rated
