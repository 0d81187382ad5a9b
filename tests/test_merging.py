"""Databases merged: everything arrives once, whatever the ids were."""
from pathlib import Path

import pandas as pd
import pytest

from boardlaw import sql
from boardlaw.sql import tables

FIXTURE = Path(__file__).parent/'fixtures/original-format/output/experiments/eval/database.sql'

pytestmark = pytest.mark.usefixtures('clean')


@pytest.fixture
def fresh(tmp_path):
    with sql.use(sql.create(tmp_path/'ours.sqlite')) as used:
        yield used


def contents():
    """Every row of the database in use, with names in the place of ids: {table: sorted rows}."""
    who = sql.agent_query()
    who = (who.run + ' ' + who.idx.astype(str) + ' ' + who.test_nodes.astype(str)
           + ' ' + who.test_c.astype(str)).to_dict()
    found = {}
    for name in ('trials', 'mohex_trials', 'noise_scales'):
        rows = sql.query(f'select * from {name}').drop(columns='id')
        for column in rows.columns.intersection(['black_agent', 'white_agent', 'agent_id']):
            rows[column] = rows[column].map(who)
        found[name] = sorted(map(repr, rows.astype(object).values.tolist()))
    found['agents'] = sorted(who.values())
    found['runs'] = sorted(map(repr, sql.query('select * from runs').values.tolist()))
    return found


def size():
    return {t.name: int(sql.query(f'select count(*) as n from {t.name}').n.iloc[0])
            for t in tables.metadata.sorted_tables}


def test_a_database_of_2021_arrives_whole_and_once(fresh):
    with sql.use(FIXTURE):
        wanted, n = contents(), len(sql.query('select * from trials'))
    assert sql.merge(FIXTURE) == n
    assert contents() == wanted
    assert sql.merge(FIXTURE) == 0 and contents() == wanted


def add(run, wins, details=True):
    sql.add_run(run, 'bee/3', 3, 2, 2, 64, {'params': {'lr': 1e-3}, 'seed': 2**62 + 1})
    snap = sql.add_snap(run, 0, 10, 1e3, {'seconds': 1.5, 'cpu_seconds': 1.25})
    agent = sql.add_agent(snap)
    row = {'black_agent': agent, 'white_agent': agent, 'black_wins': wins, 'white_wins': 1,
           'moves': 20, 'times': .125}
    sql.save_trials([row | {'seed': 7, 'rule': 'corrected/exact', 'noise_eps': 0., 'sampled': 1},
                     row])   # two rows may be equal but for how they were played
    sql.save_noise_scales([{'agent_id': agent, 'kind': 'joint', 'mean_sq': .5, 'batches': 3}])
    return agent


def test_two_that_go_back_to_one(fresh, tmp_path):
    with sql.use(sql.create(tmp_path/'other.sqlite')):
        add('z', 1), add('b', 5)   # here 'b' has another id
        ids = sql.agent_query().reset_index().set_index('run').id
    add('b', 5), add('a', 9)
    assert (ids['b'] != sql.agent_query().reset_index().set_index('run').id['b'])
    before = size()
    assert sql.merge(tmp_path/'other.sqlite') == 2, 'those of z; those of b were there'
    added = {'mohex_trials': 0, 'trials': 2}   # else one more of each
    assert size() == {k: n + added.get(k, 1) for k, n in before.items()}
    joined = sql.query('select t.*, d.* from trials t left join trial_details d on d.trial = t.id')
    assert joined.seed.notna().sum() == 3
    assert set(sql.query('select seed from run_details').seed) == {2**62 + 1}
    assert sql.query('select cpu_seconds from snap_details').cpu_seconds.eq(1.25).all()
    wins = joined.groupby('black_agent').black_wins.unique().map(list)
    names = sql.agent_query().run
    assert {names[i]: x for i, x in wins.items()} == {'b': [5], 'a': [9], 'z': [1]}
    assert not pd.isna(sql.query('select mean_sq from noise_scales').mean_sq).any()


def test_what_is_no_database_is_refused(fresh, tmp_path):
    before = size()
    with pytest.raises(sql.BadDatabase):
        sql.merge(tmp_path/'missing.sqlite')
    (tmp_path/'text.sqlite').write_text('not a database')
    with pytest.raises(sql.BadDatabase):
        sql.merge(tmp_path/'text.sqlite')
    assert size() == before
