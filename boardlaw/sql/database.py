"""Which database is in use, and how it is opened."""
import contextlib
import os
import re
import sqlite3
import urllib.parse
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from .. import backup, download, pavlov
from . import tables

#: Where in the bucket of 2021 its database is: SQLite, about 70 MB.
PATH_2021 = 'output/experiments/eval/database.sql'

#: The database that this package ships, made from runs of its own.
REPLICA = Path(__file__).parents[1] / 'data' / 'replica.sqlite'

#: Environment variable that names the database to use.
VARIABLE = 'BOARDLAW_DB'

_CREATING = 0x626f617264   # any number of our own: the name of a lock

_chosen = None


class BadDatabase(RuntimeError):
    """A database that is not there, not whole, or not one of these; the message says which.

    What to do: give the path of one to `sql.use`, make one with `sql.create`, or put a whole copy
    in its place.
    """


class use:
    """Chooses the database of this process.

    ``target`` is 'replica' (what the package ships, the default), '2021' (downloaded at the first
    query), the path of an SQLite file, or any SQLAlchemy URL. ``use(target)`` holds until the next
    call, ``use(None)`` goes back to the environment variable BOARDLAW_DB, else to 'replica', and
    ``with use(target): ...`` restores the earlier choice at the end of the block.
    """

    def __init__(self, target):
        global _chosen
        self._previous = _chosen
        _chosen = None if target is None else str(target)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        global _chosen
        _chosen = self._previous


def target():
    """What is in use: 'replica', '2021', a path or a URL."""
    return _chosen or os.environ.get(VARIABLE) or 'replica'


def engine():
    """The SQLAlchemy engine of the database in use; '2021' is downloaded if it is not here yet.

    Raises:
        BadDatabase: the file is not there, is damaged, or is not an evaluation database.
        boardlaw.download.DownloadError: '2021' cannot be downloaded; the message says what to do.
    """
    name = target()
    if name == 'replica':
        return _opened(_read_only(REPLICA), os.getpid())
    if name == '2021':
        return _opened(_read_only(path_2021(fetch=True)), os.getpid())
    if '://' in name:
        return _opened(name, os.getpid())
    if not Path(name).is_file():
        raise BadDatabase(f'there is no database at "{name}": give the path of one, or make it '
                          'with boardlaw.sql.create')
    return _opened(_sqlite(Path(name)), os.getpid())


def path_2021(fetch=False):
    """Path of the database of 2021; with ``fetch`` it is downloaded first if it is not there.

    It comes from the public bucket, or from a mirror whose address BOARDLAW_B2_URL holds.
    """
    path = pavlov.root()/'experiments'/'eval'/'database.sql'
    if fetch and not path.exists():
        base = os.environ.get('BOARDLAW_B2_URL') or backup.BASE_URL
        url = f'{base.rstrip("/")}/{PATH_2021}'
        try:
            download.fetch(url, path, validate=check)
        except download.DownloadError as e:
            raise type(e)(f'{e} The database of 2021 cannot be used without it: try again with a '
                          f'network, put a copy of {url} at "{path}", or stay with '
                          "boardlaw.sql.use('replica').") from e
    return path


def check(path):
    """Raises BadDatabase unless ``path`` is a whole SQLite file with the tables of 2021."""
    try:
        connection = sqlite3.connect(f'{Path(path).absolute().as_uri()}?mode=ro', uri=True)
        try:
            [[verdict], *_] = connection.execute('pragma integrity_check').fetchall()
            names = {n for n, in connection.execute(
                "select name from sqlite_master where type = 'table'")}
        finally:
            connection.close()
    except sqlite3.Error as e:
        raise BadDatabase(f'"{path}" is not a whole SQLite database: {e}') from e
    if verdict != 'ok':
        raise BadDatabase(f'"{path}" is a damaged SQLite database: {verdict}')
    if missing := tables.NEEDED - names:
        raise BadDatabase(f'"{path}" is not an evaluation database: it has no '
                          f'{", ".join(sorted(missing))}')


def create(where):
    """Makes what tables are missing in an SQLite file or at an SQLAlchemy URL; returns it.

    A table trial_details of an earlier version gets the fields that it lacks.
    """
    where = str(where)
    if where in ('replica', '2021'):
        raise BadDatabase(f"'{where}' is not made here: give the path of a file or a URL")
    if '://' not in where:
        Path(where).parent.mkdir(parents=True, exist_ok=True)
    made = _opened(where if '://' in where else _sqlite(Path(where)), os.getpid())
    with _clear_errors(made):
        if made.dialect.name == 'sqlite':
            with made.connect() as connection:   # readers then wait for nobody
                connection.exec_driver_sql('pragma journal_mode = wal')
        with made.begin() as connection:
            # Several processes may be creating it: each looks only once it is alone.
            if made.dialect.name == 'sqlite':
                connection.exec_driver_sql('begin immediate')
            elif made.dialect.name == 'postgresql':
                connection.exec_driver_sql(f'select pg_advisory_xact_lock({_CREATING})')
            tables.metadata.create_all(connection)
            _add_fields(connection, tables.trial_details)
            if 'agents_details' not in sa.inspect(connection).get_view_names():
                connection.execute(sa.text(tables.VIEW))
    return where


def _add_fields(connection, table):
    """Those that a table of an earlier version lacks; they may all be empty."""
    there = {column['name'] for column in sa.inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            kind = column.type.compile(connection.dialect)
            connection.exec_driver_sql(f'alter table {table.name} add column {column.name} {kind}')


def query(sql, **params):
    """The rows of a select, as a DataFrame.

    Args:
        sql: text with named parameters such as ``:boardsize``, or a SQLAlchemy select.
        params: their values. They are bound, never pasted into the text.
    """
    sql = sa.text(sql) if isinstance(sql, str) else sql
    used = engine()
    with _clear_errors(used), used.connect() as connection:
        found = connection.execute(sql, plain(params))
        frame = pd.DataFrame.from_records([tuple(row) for row in found],
                                          columns=list(found.keys()), coerce_float=True)
    if isinstance(sql, sa.Select):
        _check_types(frame, sql, used)
    return frame


def _check_types(frame, select, used):
    """Raises BadDatabase if a number is none, or a text: SQLite stores anything anywhere."""
    for column in select.selected_columns:
        values = frame[column.name]
        if isinstance(column.type, sa.Text):
            wrong = values[[not isinstance(x, (str, type(None))) for x in values]]
        elif isinstance(column.type, (sa.Integer, sa.Float)) and values.dtype == object:
            wrong = values[[isinstance(x, (str, bytes)) for x in values]]
        else:
            continue
        if len(wrong):
            raise BadDatabase(f'"{_name(used)}" is damaged: {column.name} is {wrong.iloc[0]!r:.80} '
                              f'in {len(wrong)} rows')


def _name(used):
    """What to call a database in a message; a URL without its password."""
    if used.dialect.name != 'sqlite':
        return used.url.set(query={})   # in which a password may stand too
    path = used.url.database
    return urllib.parse.unquote(path[len('file://'):]) if path.startswith('file://') else path


def execute(sql, **params):
    """Runs a statement in a transaction of its own; returns the number of rows it touched."""
    sql = sa.text(sql) if isinstance(sql, str) else sql
    with begin() as connection:
        return connection.execute(sql, plain(params)).rowcount


@contextlib.contextmanager
def begin():
    """A connection that writes: what the block does arrives whole, or not at all if it raises."""
    if target() in ('replica', '2021'):
        raise BadDatabase(f"the database '{target()}' is only read: choose one of your own by "
                          'boardlaw.sql.use(boardlaw.sql.create(path))')
    used = engine()
    with _clear_errors(used), used.begin() as connection:
        yield connection


def plain(values):
    """The same dict with Python's own numbers: SQLite takes those of numpy for raw bytes."""
    values = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
    return {k: None if v is pd.NA or v != v else v for k, v in values.items()}


def _read_only(path):
    if not path.exists():
        raise BadDatabase(f'"{path}" is not there')
    # Nothing changes it, so it needs no lock and may lie on a read-only disk; but a log beside it
    # holds rows that are not in the file yet, which SQLite passes over in an immutable one.
    immutable = 0 if Path(f'{path}-wal').exists() else 1
    return sa.URL.create('sqlite', database=path.absolute().as_uri(), query={
        'mode': 'ro', 'immutable': str(immutable), 'uri': 'true'})


def _sqlite(path):
    return sa.URL.create('sqlite', database=str(path.absolute()))


#: What SQLite says, and what that means for whoever reads it.
_SAID = {
    'malformed|not a database|not decode|corrupt|unsupported file format':
        '"{name}" is not a whole SQLite database ({said}): put a copy in its place, or make or '
        'download it again',
    'database or disk is full|disk I/O error':
        '"{name}" cannot be written or read ({said}): free space, or see whether the disk is '
        'whole, and call again; what was saved before is kept',
    'readonly database|unable to open':
        '"{name}" cannot be opened for this ({said}): see whether its folder is there and may be '
        'written to, or choose another by boardlaw.sql.use',
    'connection (to server|failed|refused|is bad)|server closed|password authentication':
        'the server of "{name}" cannot be used ({said}): check the address, the user and the '
        'network, and call again; what was saved before is kept',
    'database is locked':
        '"{name}" has been written by others for longer than a minute ({said}): call again, what '
        'was saved before is kept'}


@contextlib.contextmanager
def _clear_errors(used):
    """Says what to do about a file that is damaged or lacks tables."""
    try:
        yield
    except sa.exc.DBAPIError as e:
        said = str(e.orig).strip()
        name = _name(used)
        if re.search('no such table|has no column|(relation|column) .* does not exist', said):
            raise BadDatabase(f'"{name}" lacks a table or field ({said}): boardlaw.sql.create adds '
                              'what is missing') from e
        for pattern, message in _SAID.items():
            if re.search(pattern, said, re.IGNORECASE):
                raise BadDatabase(message.format(name=name, said=said)) from e
        raise


@cache
def _opened(url, pid):
    # Keyed on the process: connections must not be shared with a forked child.
    try:
        made = sa.create_engine(url)
    except (sa.exc.ArgumentError, ValueError) as e:
        # Without its cause: either may quote the URL, and with it a password.
        said = re.sub('//.*@', '//...@', str(e))
        raise BadDatabase(f'the URL of the database cannot be used: {said}') from None
    except ImportError as e:
        raise BadDatabase(f'the URL of the database needs a driver ({e}): for Postgres, pip '
                          'install "psycopg[binary]" and begin it with '
                          'postgresql+psycopg://') from e
    if made.dialect.name == 'sqlite':
        sa.event.listen(made, 'connect', _prepare)
    return made


def _prepare(connection, _):
    """Writers wait for each other; code that a file brings is not run."""
    connection.execute('pragma busy_timeout = 60000')
    connection.execute('pragma foreign_keys = on')
    connection.execute('pragma trusted_schema = off')
    connection.execute('pragma synchronous = normal')
    try:
        found = connection.execute(_CODE).fetchall()
        [[_, _, path], *_] = connection.execute('pragma database_list').fetchall()
    except sqlite3.Error:   # it is damaged: the first query will say how
        return
    if found:
        raise BadDatabase(f'"{path}" is refused: it holds code, {_listed(found)}; an evaluation '
                          'database is plain tables and the view agents_details')


def _listed(found):
    return ', '.join(f'the {kind} {name}' for kind, name in found[:3]) + ', ...'*(len(found) > 3)


#: What in a file would be computed when a table of ours is read or written.
_CODE = f"""
    select type, name from sqlite_master where type = 'trigger'
    union all select type, name from sqlite_master
        where type = 'view' and name in ({', '.join(f"'{t}'" for t in tables.metadata.tables)})
    union all select 'virtual table', name from sqlite_master
        where type = 'table' and rootpage = 0
    union all select 'computed column', m.name || '.' || x.name
        from sqlite_master m, pragma_table_xinfo(m.name) x where m.type = 'table' and x.hidden > 0
    limit 4"""
