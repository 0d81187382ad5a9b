"""The evaluation database: who was trained, who met whom, and who won.

    ags = sql.agent_query().query('test_nodes == 64')
    trials = sql.trial_query(9, 'bee/%')

It reads the database that the package ships unless ``sql.use`` or the environment variable
BOARDLAW_DB names another: '2021', a path, or an SQLAlchemy URL.

Explained in the chapters book/data2021.ipynb and book/schema.ipynb.
"""
from .database import BadDatabase, check, create, engine, execute, path_2021, query, target, use
from .merging import merge
from .queries import agent_query, mohex_trial_query, noise_scale_query, study_query, trial_query
from .tables import schema
from .writers import add_agent, add_run, add_snap, save_mohex_trials, save_noise_scales, save_trials

__all__ = ['BadDatabase', 'add_agent', 'add_run', 'add_snap', 'agent_query', 'check', 'create',
           'engine', 'execute', 'merge', 'mohex_trial_query', 'noise_scale_query', 'path_2021',
           'query', 'save_mohex_trials', 'save_noise_scales', 'save_trials', 'schema',
           'study_query', 'target', 'trial_query', 'use']
