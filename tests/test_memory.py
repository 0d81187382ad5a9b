"""The fast version of what `make soak` does at length; see `memory`."""
import memory
import pytest

from boardlaw.selfplay import Config


@pytest.mark.usefixtures('one_thread')
def test_memory_of_self_play_stays(monkeypatch):
    found = memory.flat(.05, Config(3, 2, 1, n_envs=64, n_nodes=8, buffer_len=16))
    assert found['errors'] == [] and found['samples'] > 64*memory.WARM


def test_growth_is_found(monkeypatch):
    sizes = iter(range(400_000_000, 10**12, 2_000_000))
    monkeypatch.setattr(memory, 'resident', lambda: next(sizes))
    [error] = memory.flat(0, Config(3, 2, 1, n_envs=4, n_nodes=2, buffer_len=2))['errors']
    assert 'grew by' in error
