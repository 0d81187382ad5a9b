"""Adding runs, snapshots, agents and games, from any number of processes at once."""
import json

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from . import tables
from .database import begin, plain


def add_run(run, description, boardsize, width, depth, nodes, details=None):
    """Adds a training run, or leaves it as it is if it is there; returns its name.

    Args:
        details: where the run comes from: fields of run_details by name; ``params`` may be a dict.
            Given again, they replace the earlier ones.
    """
    _get_or_add(tables.runs, {'run': run}, description=description, boardsize=int(boardsize),
                width=int(width), depth=int(depth), nodes=int(nodes))
    if details:
        _refuse_unknown(tables.run_details, details, _fields(tables.run_details, 'run'))
        details = {k: json.dumps(v, sort_keys=True) if isinstance(v, dict) else v
                   for k, v in details.items()}
        _get_or_add(tables.run_details, {'run': run})
        with begin() as connection:
            connection.execute(sa.update(tables.run_details)
                               .where(tables.run_details.c.run == run).values(**plain(details)))
    return run


def add_snap(run, idx, samples, flops, details=None):
    """Adds snapshot ``idx`` of a run unless it is there; returns its id.

    Args:
        details: the time that it took to train, fields of snap_details by name; not changed if they
            are there.
    """
    snap = _get_or_add(tables.snaps, {'run': run, 'idx': int(idx)}, samples=float(samples),
                       flops=float(flops))
    if details:
        _refuse_unknown(tables.snap_details, details, _fields(tables.snap_details, 'snap'))
        _get_or_add(tables.snap_details, {'snap': snap}, **details)
    return snap


def add_agent(snap, nodes=64, c=1/16):
    """Adds the player with a snapshot's network and this search unless it is there; returns its
    id."""
    return _get_or_add(tables.agents, {'snap': int(snap), 'nodes': int(nodes), 'c': float(c)})


def save_trials(trials):
    """Adds rows of games; either all of them arrive or none.

    Args:
        trials: dicts (or a DataFrame) with black_agent, white_agent (ids), black_wins, white_wins,
            moves and times, and optionally seed, rule, noise_eps, sampled and study, for
            trial_details.

    Returns:
        The ids of the new rows.
    """
    return _save(tables.trials, trials, tables.trial_details)


def save_mohex_trials(trials):
    """Like :func:`save_trials` for games against MoHex, whose side is None."""
    return _save(tables.mohex_trials, trials)


def save_noise_scales(rows):
    """Adds measurements of gradient noise: dicts of the fields of noise_scales."""
    return _save(tables.noise_scales, rows)


def _save(table, rows, details=None):
    rows = rows.to_dict('records') if hasattr(rows, 'to_dict') else list(rows)
    known = _fields(table, 'id')
    extra = set() if details is None else _fields(details, 'trial')
    for row in rows:
        _refuse_unknown(table, row, known | extra)
    ids = []
    with begin() as connection:
        for row in map(plain, rows):
            values = {k: row[k] for k in known & row.keys()}
            [new] = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
            ids.append(int(new))
            if given := {k: row[k] for k in extra & row.keys() if row[k] is not None}:
                connection.execute(sa.insert(details).values(trial=new, **given))
    return ids


def _fields(table, key):
    return {c.name for c in table.columns} - {key}


def _refuse_unknown(table, row, known):
    if unknown := row.keys() - known:
        raise ValueError(f'{table.name} has no field {sorted(unknown)}; it has {sorted(known)}')


def _get_or_add(table, key, **values):
    """The primary key of the row with these ``key`` fields, which is added if there is none.

    Two processes may try at once. One statement both looks and adds, so SQLite lets one in, also
    where a file of 2021 has no constraint that would stop the other; elsewhere the constraint does.
    """
    [primary] = table.primary_key.columns
    found = sa.select(primary).where(*[table.c[k] == v for k, v in key.items()])
    new = [sa.literal(v, table.c[k].type).label(k) for k, v in (key | values).items()]
    add = sa.insert(table).from_select([*key, *values],
                                       sa.select(*new).where(~sa.exists(found)))
    for attempt in (1, 2):
        try:
            with begin() as connection:
                connection.execute(add)
                return connection.execute(found).scalar()
        except IntegrityError:  # another was quicker; or what the row refers to is not there
            if attempt == 2:
                raise
