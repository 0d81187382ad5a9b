"""How noisy the gradients of trained agents are."""
import math

from .. import pavlov, sql
from ..arena import common
from ..selfplay import Config, Trainer
from . import pools, state
from .grid import CHEAPEST

_SEED = 1_000_000   # games other than those that the agents learnt from


def measure_noise(jobs, pool, deadline=math.inf, report=print):
    """Measures the gradient's noise for the agents of each board's cheapest perfect network,
    unless it is in the database in use, and saves it there; one sweep on a folder at a time."""
    try:
        with state.alone('noise', deadline):
            _measure_missing(jobs, pool, deadline, report)
    except BlockingIOError:
        report('noise scales: are measured by another sweep')


def _measure_missing(jobs, pool, deadline, report):
    ids = _missing([job for job in jobs if job.decades and job.description.startswith('bee/')
                    and (job.config.width, job.config.depth) == CHEAPEST[job.config.boardsize]])
    for n_agents in pools.deal(pool, _measure, ids, deadline):
        report(f'noise scales: {n_agents} agents measured')


def _missing(jobs):
    """Ids of the agents of these jobs whose noise is not in the database in use yet."""
    known = state.descriptions()
    names = {state.find(job, known) for job in jobs}
    agents = sql.agent_query()
    measured = set(sql.query('select distinct agent_id from noise_scales').agent_id)
    mine = agents[agents.run.isin(names) & (agents.test_nodes == agents.train_nodes)]
    return [int(i) for i in state.present(mine) if i not in measured]


def _measure(ids):
    """Measures agents on a buffer of their own self-play; returns how many."""
    agents = sql.agent_query()
    for i in ids:
        run, n = agents.run[i], int(agents.idx[i])
        config = Config.from_params({**pavlov.runs.info(run)['params'], 'seed': _SEED})
        trainer = Trainer(config)
        trainer.network.load_state_dict(common.agent(run, n).network.state_dict())
        while not trainer.buffer.full:
            trainer.advance()
        fields = ('mean_sq', 'sq_mean', 'variance', 'n_params', 'batch_size', 'batches')
        sql.save_noise_scales([
            {'agent_id': i, 'kind': kind, **{k: float(row[k]) for k in fields}}
            for kind, row in trainer.noise_scales().items()])
    return len(ids)
