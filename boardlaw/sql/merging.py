"""Two databases made one."""
from collections import Counter

from . import tables, writers
from .database import BadDatabase, query, use


def merge(source):
    """Adds to the database in use the rows of another that it lacks.

    Runs, snapshots and agents are the same if their names, numbers and searches are; ids may
    differ. A row of games or of noise that is there already, equal in every number and in the time
    it took, is not added again. So a second merge changes nothing, and of two databases copied from
    one, only the rows added since are merged.

    Args:
        source: path or URL of the other one.

    Returns:
        How many rows of games were added.
    """
    with use(source):
        found = {table.name: _rows(table) for table in tables.metadata.sorted_tables}
    details = {name: {row.pop(key): _given(row) for row in found[name]} for name, key in [
        ('run_details', 'run'), ('snap_details', 'snap'), ('trial_details', 'trial')]}
    for row in found['runs']:
        writers.add_run(**row, details=details['run_details'].get(row['run']))
    snaps = {row['id']: writers.add_snap(row['run'], row['idx'], row['samples'], row['flops'],
                                         details['snap_details'].get(row['id']))
             for row in found['snaps']}
    agents = {row['id']: writers.add_agent(snaps[row['snap']], row['nodes'], row['c'])
              for row in found['agents']}
    for table, save, sides in [(tables.mohex_trials, writers.save_mohex_trials, ('black', 'white')),
                               (tables.noise_scales, writers.save_noise_scales, ())]:
        columns = [f'{side}_agent' for side in sides] or ['agent_id']
        save([row for _, row in _new(table, found[table.name], columns, agents)])
    rows = _new(tables.trials, found['trials'], ['black_agent', 'white_agent'], agents)
    return len(writers.save_trials([row | details['trial_details'].get(i, {}) for i, row in rows]))


def _rows(table):
    try:
        return query(f'select * from {table.name}').astype(object).to_dict('records')
    except BadDatabase as e:
        if 'lacks a table' not in str(e) or table.name in tables.NEEDED:
            raise
        return []   # of 2021, which had no details


def _given(row):
    return {k: v for k, v in row.items() if v is not None and v == v}


def _new(table, rows, columns, agents):
    """(id in the source, row for the database in use) of the rows that this one lacks."""
    def key(row):
        return tuple(None if row[c.name] != row[c.name] else row[c.name]
                     for c in table.columns if c.name != 'id')

    there, new = Counter(map(key, _rows(table))), []
    for row in rows:
        row = dict(row) | {c: agents[row[c]] for c in columns if _given({c: row[c]})}
        if there[key(row)] > 0:
            there[key(row)] -= 1
        else:
            new.append((row.pop('id'), row))
    return new
