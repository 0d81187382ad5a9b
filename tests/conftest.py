"""What several test modules set up."""
import shutil
from pathlib import Path

import pytest
import torch

from boardlaw import pavlov, sql

FIXTURES = Path(__file__).parent / 'fixtures/original-format/output'
OLD = '2026-11-23 09-48-06 arch-calm'


@pytest.fixture
def output(tmp_path):
    """An output folder of the test's own."""
    with pavlov.use_root(tmp_path):
        yield tmp_path


@pytest.fixture
def old(output):
    """A copy of a run that the 2021 code wrote."""
    shutil.copytree(FIXTURES / 'pavlov' / OLD, output / 'pavlov' / OLD)
    return OLD


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """No database of the user's own choice, and an empty output folder."""
    monkeypatch.delenv('BOARDLAW_DB', raising=False)
    monkeypatch.setenv('BOARDLAW_OUTPUT', str(tmp_path / 'output'))
    sql.use(None)
    yield
    sql.use(None)


@pytest.fixture
def one_thread():
    """Parallel regions over such small tensors only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
