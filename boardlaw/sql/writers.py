"""Adding runs, snapshots, agents and games, from any number of processes at once."""
import json

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from . import tables
from .database import engine


def add_run(run, description, boardsize, width, depth, nodes, details=None):
    """Adds a training run, or leaves it as it is if it is there; returns its name.

    Args:
        details: where it comes from, fields of run_details by name; ``params`` may be a dict.
            Given again, they replace the earlier ones.
    """
    _get_or_add(tables.runs, {'run': run}, description=description, boardsize=int(boardsize),
                width=int(width), depth=int(depth), nodes=int(nodes))
    if details:
        details = {k: json.dumps(v, sort_keys=True) if isinstance(v, dict) else v
                   for k, v in details.items()}
        _get_or_add(tables.run_details, {'run': run})
        with engine().begin() as connection:
            connection.execute(sa.update(tables.run_details)
                               .where(tables.run_details.c.run == run).values(**details))
    return run


def add_snap(run, idx, samples, flops):
    """Adds snapshot ``idx`` of a run unless it is there; returns its id."""
    return _get_or_add(tables.snaps, {'run': run, 'idx': int(idx)}, samples=float(samples),
                       flops=float(flops))


def add_agent(snap, nodes=64, c=1/16):
    """Adds the player with a snapshot's network and this search unless it is there; returns its
    id."""
    return _get_or_add(tables.agents, {'snap': int(snap), 'nodes': int(nodes), 'c': float(c)})


def save_trials(trials):
    """Adds rows of games; either all of them arrive or none.

    Args:
        trials: dicts (or a DataFrame) with black_agent, white_agent (ids), black_wins, white_wins,
            moves and times, and optionally seed, rule, noise_eps and sampled, for trial_details.

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
    fields = {c.name for c in table.columns} - {'id'}
    extra = ({c.name for c in details.columns} - {'trial'}) if details is not None else set()
    ids = []
    with engine().begin() as connection:
        for row in rows:
            if unknown := row.keys() - fields - extra:
                raise ValueError(f'{table.name} has no field {sorted(unknown)}; it has '
                                 f'{sorted(fields | extra)}')
            values = {k: row[k] for k in fields & row.keys()}
            [new] = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
            ids.append(int(new))
            if given := {k: row[k] for k in extra & row.keys() if row[k] is not None}:
                connection.execute(sa.insert(details).values(trial=new, **given))
    return ids


def _get_or_add(table, key, **values):
    """The primary key of the row with these ``key`` fields, which is added if there is none.

    Two processes may try at once: the database lets one in, and the other finds its row.
    """
    [primary] = table.primary_key.columns
    find = sa.select(primary).where(*[table.c[k] == v for k, v in key.items()])
    for _ in range(3):
        with engine().connect() as connection:
            found = connection.execute(find).scalar()
        if found is not None:
            return found
        try:
            with engine().begin() as connection:
                added = connection.execute(sa.insert(table).values(**key, **values))
                return added.inserted_primary_key[0]
        except IntegrityError as e:
            error = e
    raise error
