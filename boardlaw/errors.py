"""Every exception and warning of this package, and what each says of itself.

    errors.catalogue()

Explained in the chapter book/errors.ipynb.
"""
import importlib
import inspect
import pkgutil

import pandas as pd

import boardlaw

_CURE = 'What to do:'


def classes():
    """The exceptions and warnings that this package defines for its users: a list of classes.

    Modules that need what is not installed here are passed over.
    """
    found = []
    for module in pkgutil.walk_packages(boardlaw.__path__, 'boardlaw.'):
        if module.name.endswith('__main__'):
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:
            continue
        found += [c for _, c in inspect.getmembers(loaded, inspect.isclass)
                  if issubclass(c, Exception) and c.__module__ == module.name
                  and not c.__name__.startswith('_')]
    return found


def cause(error):
    """What an exception (`error`) of this package, or its class, means."""
    return _parts(error)[0]


def cure(error):
    """What to do about an exception (`error`) of this package, or its class.

    >>> from boardlaw.hex import BadBoard
    >>> cure(BadBoard)
    'use a size from 1 to 19, or write the text as `world.text()` does.'
    """
    return _parts(error)[1]


def _parts(error):
    kind = error if inspect.isclass(error) else type(error)
    paragraphs = [' '.join(p.split()) for p in inspect.getdoc(kind).split('\n\n')]
    cures = [p.removeprefix(_CURE).strip() for p in paragraphs if p.startswith(_CURE)]
    return paragraphs[0], cures[0] if cures else ''


def name(error):
    """Where an exception (`error`) or its class is found: 'boardlaw.sql.database.BadDatabase'."""
    kind = error if inspect.isclass(error) else type(error)
    return f'{kind.__module__}.{kind.__name__}'


def catalogue():
    """All of them: a DataFrame indexed by name, with what each is a kind of, its cause and cure."""
    rows = [{'error': name(c), 'kind of': c.__bases__[0].__name__, 'cause': cause(c),
             'cure': cure(c)} for c in classes()]
    return pd.DataFrame(rows).set_index('error').sort_index()
