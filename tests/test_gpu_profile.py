"""What the GPU's report makes of a profile, against counting microsecond by microsecond."""
import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]/'benchmarks'))
import gpu_profile  # noqa: E402


def test_account_of_random_spans():
    rng = np.random.default_rng(0)
    names = ['_linear', 'advance', 'observe', 'Memcpy DtoH', 'sgemm']
    for _ in range(50):
        spans = [(names[rng.integers(5)], float(a), float(a + rng.integers(1, 9)))
                 for a in rng.integers(0, 100, rng.integers(1, 12))]
        busy = np.zeros(120, bool)
        for _, start, end in spans:
            busy[int(start):int(end)] = True
        first, last = busy.argmax(), 120 - busy[::-1].argmax()
        found = gpu_profile.account(spans)
        assert found['busy_ms'] == pytest.approx(busy.sum()/1e3)
        assert found['span_ms'] == pytest.approx((last - first)/1e3)
        assert found['idle_share'] == pytest.approx(1 - busy.sum()/(last - first))
        assert found['launches'] == len(spans)
        assert sum(found['kinds_ms'].values()) == pytest.approx(
            sum(end - start for _, start, end in spans)/1e3)
        kinds = dict(zip(names, ['network', 'tree', 'rules', 'memory', 'learner']))
        for kind in found['kinds_ms']:
            assert found['kinds_ms'][kind] == pytest.approx(sum(
                end - start for name, start, end in spans if kinds[name] == kind)/1e3)
    assert gpu_profile.account([]) == {'launches': 0}
    assert gpu_profile.account([('a', 0, 2), ('b', 5, 6), ('c', 7, 9)])['gap_us'] == 3


def test_kinds_are_those_of_the_kernels():
    """Every Triton kernel of the package has a kind of its own."""
    package = Path(gpu_profile.__file__).parents[1]/'boardlaw'
    known = {name for names in gpu_profile.KINDS.values() for name in names}
    for name in known - {'Memcpy', 'Memset'}:
        assert any(f'def {name}(' in path.read_text('utf-8') for path in package.rglob('gpu_*.py'))


def test_a_profile_is_read():
    a = torch.randn(64, 64)
    found = gpu_profile.profiled(lambda: [a @ a for _ in range(3)], torch.device('cpu'))
    assert found['kernels_ms']['aten::matmul'][1] == 3 and 0 <= found['idle_share'] < 1


def test_side_by_side():
    found = gpu_profile.side_by_side((3, 2, 1), 8, (1, 2), .2, torch.device('cpu'))
    assert found.keys() == {'1', '2'} and all(x > 0 for x in found.values())


def test_table_of_versions_and_times(tmp_path):
    path = tmp_path/gpu_profile.TABLE
    machine = {'date': '2026-01-01', 'card': 'A', 'torch': '2', 'lacks': []}
    shapes = [(5, 16, 4)]
    gpu_profile.record({'machine': machine}, shapes, path)
    gpu_profile.record({'machine': machine, 'learner': 'failed: no', 'training_rate': {
        '5x5 16x4': {'samples_per_s': 12345.678}}}, shapes, path)   # goes on: the same row
    gpu_profile.record({'machine': machine | {'date': '2026-01-02'}, 'learner': {'tf32_ms': 1.5},
                        'search': [{'boardsize': 9, 'n_envs': 4, 'sims_per_s': 7e6, 'ratio': 1.25}]
                        }, shapes, path)
    with path.open() as f:
        first, second = csv.DictReader(f)
    assert first['samples/s 5'] == '1.235e+04' and first['learner tf32 ms'] == ''
    assert second['sims/s 9 4'] == '7e+06' and second['whole/network 9 4'] == '1.25'
    assert second['learner tf32 ms'] == '1.5' and 'lacks' not in second
    if (shipped := Path(gpu_profile.__file__).with_name(gpu_profile.TABLE)).exists():
        with shipped.open() as f:
            assert all(row['date'] and row['card'] for row in csv.DictReader(f))
