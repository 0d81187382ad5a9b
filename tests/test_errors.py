import inspect

import pytest

from boardlaw import arena, backup, download, errors, hex, mcts, pavlov, sql, training


def test_every_exception_says_what_it_means_and_what_to_do():
    found = errors.catalogue()
    assert (found.cause.str.len() > 20).all() and (found.cure.str.len() > 10).all()
    assert found.cause.str.endswith('.').all() and found.cure.str.endswith('.').all()
    assert found.index.is_unique


def test_the_catalogue_is_whole():
    known = {hex.BadAction, hex.BadBoard, mcts.BadSearch, training.BadConfig, training.Diverged,
             pavlov.CorruptFile, pavlov.NotFound, sql.BadDatabase, arena.common.Rule2021}
    for module in (backup, download):
        known |= {c for _, c in inspect.getmembers(module, inspect.isclass)
                  if issubclass(c, Exception) and c.__module__ == module.__name__
                  and not c.__name__.startswith('_')}
    assert known <= set(errors.classes())


def test_cause_and_cure_of_one():
    with pytest.raises(hex.BadAction) as e:
        hex.Hex.initial(1, 3).step([9])
    assert errors.name(e.value) == 'boardlaw.hex.worlds.BadAction'
    assert errors.cause(e.value).startswith('An action that the rules do not allow')
    assert errors.cure(e.value).startswith('choose one of the actions')
    assert errors.cure(ValueError('x')) == ''

