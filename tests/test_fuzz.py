"""The fast version of what `make soak` does at length; see `fuzz`."""
import os
import signal

import fuzz
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs a system that forks')


@pytest.mark.parametrize('name', fuzz.KINDS)
def test_damaged_files_end_in_a_result_or_one_clear_error(name):
    found = fuzz.fuzz(name, 30)
    assert found['failures'] == {} and found['cases'] == 30, found
    if name != 'count of downloads':   # of which every line that is one counts
        assert found['refused'] >= 4, found


class Careless(fuzz.Series):
    """A reader with every fault that the fuzzer is there to find."""

    def read(self):
        data = (self.home / self.name).read_bytes()
        if len(data) < 50:
            os.kill(os.getpid(), signal.SIGKILL)
        return {'size': len(data)} if data[:6] == b'\x93NUMPY' else 1/0


class Greedy(Careless):
    def read(self):
        return super().read() if len((self.home / self.name).read_bytes()) > 50 else [0]*10**9


def test_the_fuzzer_finds_faults(monkeypatch):
    fuzz.KINDS |= {'careless': Careless, 'greedy': Greedy}   # in the child too: it is forked
    monkeypatch.setattr(fuzz, 'context', fuzz.multiprocessing.get_context('fork'))
    try:
        ends = ' '.join(fuzz.fuzz('careless', 60)['failures'].values())
        assert 'ZeroDivisionError' in ends and 'exit code -9' in ends
        assert 'MemoryError' in ' '.join(fuzz.fuzz('greedy', 60)['failures'].values())
    finally:
        del fuzz.KINDS['careless'], fuzz.KINDS['greedy']
