"""Which database is in use, and how it is opened."""
import os
import sqlite3
from functools import cache
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from .. import download, pavlov
from . import tables

#: Where the database of 2021 is published: SQLite, about 70 MB.
URL_2021 = ('https://f002.backblazeb2.com/file/boardlaw/'
            'output/experiments/eval/database.sql')

#: The database that this package ships, made from runs of its own.
REPLICA = Path(__file__).parents[1] / 'data' / 'replica.sqlite'

#: Environment variable that names the database to use.
VARIABLE = 'BOARDLAW_DB'

_chosen = None


class BadDatabase(RuntimeError):
    """A database that is not there, not whole, or not one of these; the message says which."""


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
        boardlaw.download.DownloadError: '2021' cannot be had; the message says what to do.
    """
    name = target()
    if name == 'replica':
        return _opened(_read_only(REPLICA), os.getpid())
    if name == '2021':
        return _opened(_read_only(path_2021(fetch=True)), os.getpid())
    if '://' in name:
        return _opened(name, os.getpid())
    if not Path(name).exists():
        raise BadDatabase(f'there is no database at "{name}": give the path of one, or make it '
                          'with boardlaw.sql.create')
    return _opened(_sqlite(Path(name)), os.getpid())


def path_2021(fetch=False):
    """Where the database of 2021 lies once it is downloaded, which ``fetch`` does if need be."""
    path = pavlov.root()/'experiments'/'eval'/'database.sql'
    if fetch and not path.exists():
        try:
            download.fetch(URL_2021, path, validate=check)
        except download.DownloadError as e:
            raise type(e)(f'{e} The database of 2021 cannot be used without it: try again with a '
                          f'network, put a copy of {URL_2021} at "{path}", or stay with '
                          "boardlaw.sql.use('replica').") from e
    return path


def check(path):
    """Raises BadDatabase unless ``path`` is a whole SQLite file with the tables of 2021."""
    try:
        connection = sqlite3.connect(f'{Path(path).absolute().as_uri()}?mode=ro', uri=True)
        try:
            [[verdict], *_] = connection.execute('pragma integrity_check').fetchall()
            names = {n for n, in connection.execute('select name from sqlite_master')}
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
    """Makes the tables that are missing in an SQLite file or at an SQLAlchemy URL; returns it."""
    where = str(where)
    if '://' not in where:
        Path(where).parent.mkdir(parents=True, exist_ok=True)
    made = _opened(where if '://' in where else _sqlite(Path(where)), os.getpid())
    if made.dialect.name == 'sqlite':
        with made.connect() as connection:   # readers then wait for nobody; the file remembers it
            connection.exec_driver_sql('pragma journal_mode = wal')
    with made.begin() as connection:
        tables.metadata.create_all(connection)
        if 'agents_details' not in sa.inspect(connection).get_view_names():
            connection.execute(sa.text(tables.VIEW))
    return where


def query(sql, **params):
    """The rows of a select, as a DataFrame.

    Args:
        sql: text with named parameters such as ``:boardsize``, or a SQLAlchemy select.
        params: their values. They are bound, never pasted into the text.
    """
    sql = sa.text(sql) if isinstance(sql, str) else sql
    with engine().connect() as connection:
        return pd.read_sql_query(sql, connection, params=params)


def execute(sql, **params):
    """Runs a statement in a transaction of its own; returns the number of rows it touched."""
    sql = sa.text(sql) if isinstance(sql, str) else sql
    with engine().begin() as connection:
        return connection.execute(sql, params).rowcount


def _read_only(path):
    if not path.exists():
        raise BadDatabase(f'"{path}" is not there')
    # Nothing can change it, so it needs no lock: it may lie on a read-only disk.
    return f'sqlite:///{path.absolute().as_uri()}?mode=ro&immutable=1&uri=true'


def _sqlite(path):
    return f'sqlite:///{path.absolute()}'


@cache
def _opened(url, pid):
    # Keyed on the process: connections must not be shared with a forked child.
    made = sa.create_engine(url)
    if made.dialect.name == 'sqlite':
        sa.event.listen(made, 'connect', _prepare)
    return made


def _prepare(connection, _):
    """Writers wait for each other; code that a file brings, in a view say, is not trusted."""
    connection.execute('pragma busy_timeout = 60000')
    connection.execute('pragma foreign_keys = on')
    connection.execute('pragma trusted_schema = off')
    connection.execute('pragma synchronous = normal')
