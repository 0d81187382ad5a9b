"""How noisy the gradients of trained agents are."""
from .. import pavlov, sql
from ..arena import common
from ..selfplay import Config, Trainer

_SEED = 1_000_000   # games other than those that the agents learnt from


def missing(jobs, find):
    """Ids of the agents of these jobs whose noise is not in the database in use yet.

    Args:
        find: of a job the name of its run, or None.
    """
    names = {find(job) for job in jobs}
    known = sql.agent_query()
    measured = set(sql.query('select distinct agent_id from noise_scales').agent_id)
    mine = known[known.run.isin(names) & (known.test_nodes == known.train_nodes)]
    return [int(i) for i in mine.index if i not in measured]


def measure(share):
    """Measures agents on a buffer of their own self-play and saves what it finds.

    Args:
        share: folder of runs, database, ids of agents.
    """
    root, database, ids = share
    with pavlov.use_root(root), sql.use(database):
        known = sql.agent_query()
        for i in ids:
            run, n = known.run[i], int(known.idx[i])
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
