"""Saved states: they come back as they were, are there whole or not at all, and run nothing."""

import os
import pickle
import random
import re
import resource
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from boardlaw import pavlov
from boardlaw.pavlov import runs, storage

pytestmark = pytest.mark.usefixtures('output')


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and (a == b or a != a and b != b)


def state():
    torch.manual_seed(0)
    weights = {f'network.{n}.α': torch.randn(2, 3) for n in range(3)}
    adam = {'state': {0: {'step': torch.tensor(1.), 'exp_avg': torch.randn(2, 3)}},
            'param_groups': [{'lr': 1e-3, 'betas': (.9, .999), 'fused': None, 'params': [0]}]}
    return {'agent': OrderedDict(weights), 'optimiser': adam,
            'random': torch.random.get_rng_state(), 'n_flops': 10**17, 'n_samples': 3,
            'runtime': 1.5, 'nan': float('nan'), 'none': None,
            'rows': {'stats.x.0.npr': 7}, 'list': [1, (2, 'α'), True], 7: torch.tensor(3).to(int)}


def test_a_2021_run_loads(old):
    df = storage.snapshots(old)
    assert list(df.index) == list(range(7)) and df.present.all() and (df['size'] == 4041).all()
    assert df.loc[3, 'name'] == 'storage.snapshot.3.pkl'
    assert str(df.loc[0, '_created']) == '2026-11-23 09:48:15.348321+00:00'
    states = [storage.load_snapshot(old, n) for n in df.index]
    samples = [s['n_samples'] for s in states]
    assert samples == sorted(samples) and samples[0] == 256 and samples[-1] == 76800
    assert list(states[0]) == ['agent', 'n_flops', 'n_samples', 'runtime']
    assert states[0]['agent']['network.body.0.weight'].shape == (2, 18)
    assert states[0]['agent']['kwargs.n_nodes'] == 64
    assert equal(storage.load_snapshot(old, -1), states[6])
    assert equal(storage.load_snapshot(old, -7), states[0])
    assert storage.load_latest(old)['n_samples'] >= 256


def test_states_come_back_as_they_were(output):
    run = runs.new_run()
    kept = state()
    path = storage.save_latest(run, kept)
    assert path == output / 'pavlov' / run / 'storage.latest.pkl'
    assert equal(storage.load_latest(run), kept)
    assert runs.info(run)['_files']['storage.latest.pkl']['_pattern'] == 'storage.latest.pkl'
    storage.save_snapshot(run, 2, kept), storage.save_snapshot(run, 0, {'n': np.float64(2)})
    assert list(storage.snapshots(run).index) == [0, 2]
    assert equal(storage.load_snapshot(run, 2), kept)
    assert equal(storage.load_snapshot(run, 0), {'n': 2.})
    entry = runs.info(run)['_files']['storage.snapshot.2.pkl']
    assert entry['_pattern'] == 'storage.snapshot.{n}.pkl'
    storage.save_snapshot(run, 2, {'again': 1})  # a resumed run comes past it once more
    assert storage.load_snapshot(run, 2) == {'again': 1} and len(storage.snapshots(run)) == 2
    assert not [p for p in os.listdir(output / 'pavlov' / run) if 'tmp' in p]
    with pytest.raises(ValueError, match='numbered from 0'):
        storage.save_snapshot(run, -1, {})


def test_equal_states_are_equal_files():
    run = runs.new_run()
    a, b = (storage.save_snapshot(run, n, state()).read_bytes() for n in (0, 1))
    assert a == b


def test_a_view_does_not_drag_its_whole_storage_along():
    run = runs.new_run()
    path = storage.save_latest(run, {'x': torch.zeros(1_000_000)[:3], 'y': torch.ones(2, 3).T})
    assert path.stat().st_size < 10_000
    assert equal(storage.load_latest(run)['x'], torch.zeros(3))


@pytest.mark.parametrize('bad, where', [
    ({'a': {'b': [1, object()]}}, r"state\['a'\]\['b'\]\[1\] is a object"),
    ({'a': np.ones(3)}, 'ndarray'), ({'a': {1}}, 'set'), ({'a': lambda: 0}, 'function'),
    ({'a': torch.nn.Linear(1, 1)}, 'Linear'), ({(1, 2): 3}, r'the key \(1, 2\)'), ([1], 'a dict')])
def test_what_could_not_be_read_back_is_refused(bad, where):
    run = runs.new_run()
    storage.save_latest(run, {'good': 1})
    with pytest.raises(TypeError, match=where):
        storage.save_latest(run, bad)
    assert storage.load_latest(run) == {'good': 1}


def test_missing_states(old, output):
    run = runs.new_run()
    assert len(storage.snapshots(run)) == 0
    with pytest.raises(pavlov.NotFound, match='no savepoint'):
        storage.load_latest(run)
    for n in (0, -1):
        with pytest.raises(pavlov.NotFound):
            storage.load_snapshot(run, n)
    # downloaded in part
    for n in (0, 1, 2, 4, 6):
        (output / 'pavlov' / old / f'storage.snapshot.{n}.pkl').unlink()
    assert list(storage.snapshots(old).query('present').index) == [3, 5]
    assert equal(storage.load_snapshot(old, -1), storage.load_snapshot(old, 5))
    assert equal(storage.load_snapshot(old, -2), storage.load_snapshot(old, 3))
    with pytest.raises(pavlov.NotFound, match='listed but not here'):
        storage.load_snapshot(old, 6)
    with pytest.raises(pavlov.NotFound, match='2 snapshots here'):
        storage.load_snapshot(old, -3)
    # there, but not listed
    with runs.update(old) as info:
        del info['_files']['storage.snapshot.3.pkl']
    assert not storage.snapshots(old).loc[3, 'listed'] and storage.load_snapshot(old, 3)


def test_a_full_disk_keeps_the_old_savepoint():
    run = runs.new_run()
    storage.save_latest(run, {'step': 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match='storage.latest.pkl'):
            storage.save_latest(run, {'step': 2, 'x': torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert storage.load_latest(run) == {'step': 1}


def test_cut_files_are_refused(output):
    run = runs.new_run()
    path = storage.save_latest(run, state())
    whole = path.read_bytes()
    for size in {0, 1, 2, 3, 4, *range(5, len(whole), len(whole) // 60), len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(pavlov.CorruptFile, match='storage.latest.pkl'):
            storage.load_latest(run)


def test_flipped_bits_never_change_what_is_loaded(old, output):
    path = output / 'pavlov' / old / 'storage.snapshot.3.pkl'
    whole, kept, rng = path.read_bytes(), storage.load_snapshot(old, 3), random.Random(2)
    refused = 0
    with zipfile.ZipFile(path) as z:  # of all bits, these were the only ones that once did
        marks = [m.start() + 38 for m in re.finditer(b'PK\x01\x02', whole)]
        assert len(marks) == len(z.infolist())
    for at in [*marks, *(rng.randrange(len(whole)) for _ in range(400))]:
        data = bytearray(whole)
        data[at] ^= 0x10 if at in marks else 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert equal(storage.load_snapshot(old, 3), kept)
        except pavlov.CorruptFile as e:
            assert path.name in str(e)
            refused += 1
    assert refused > 100


class Evil:
    def __reduce__(self):
        return os.system, ('touch pwned',)


def _bombs(folder):
    with zipfile.ZipFile(folder / 'deflated', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('archive/data.pkl', bytes(10**8))
    good = folder / 'good'
    torch.save({'x': torch.zeros(10)}, good)
    data = good.read_bytes()
    with zipfile.ZipFile(good) as z:
        size = z.getinfo('archive/data/0').file_size if 'archive/data/0' in z.namelist() else 40
    # the directory at the end declares more than the file holds
    at = data.rindex(b'data/0') - len('good/') - 46
    assert int.from_bytes(data[at + 24:at + 28], 'little') == size == 40
    huge = data[:at + 20] + (2**31).to_bytes(4, 'little') * 2 + data[at + 28:]
    return [(folder / 'deflated').read_bytes(), huge]


def test_hostile_files_run_nothing(old, output, monkeypatch):
    monkeypatch.chdir(output)
    home = output / 'pavlov' / old
    torch.save({'agent': Evil()}, 'evil.pt')
    torch.save({'agent': Evil()}, 'evil-old.pt', _use_new_zipfile_serialization=False)
    torch.save([1, 2], 'list.pt')
    contents = [pickle.dumps(Evil()), pickle.dumps({'agent': 1}), Path('evil.pt').read_bytes(),
                Path('evil-old.pt').read_bytes(), Path('list.pt').read_bytes(), bytes(5000),
                b'PK\x03\x04' + bytes(100), (home / 'stats.loss.value.0.npr').read_bytes(),
                *_bombs(output)]
    for content in contents:
        (home / 'storage.snapshot.0.pkl').write_bytes(content)
        (home / 'storage.named.model.pkl').write_bytes(content)
        with pytest.raises(pavlov.CorruptFile, match='storage.snapshot.0.pkl'):
            storage.load_snapshot(old, 0)
        assert len(storage.snapshots(old)) == 7
    assert not Path('pwned').exists()
    assert os.system('true') == 0  # so it would have worked


def _with_pickle(path, data):
    """A torch file at `path` whose pickle is this, with ten numbers as its part 0."""
    torch.save({'x': torch.arange(10.)}, path)
    with zipfile.ZipFile(path) as z:
        parts = {e.filename: z.read(e) for e in z.infolist()}
    with zipfile.ZipFile(path, 'w') as z:
        for name, part in parts.items():
            z.writestr(name, data(part) if name.endswith('data.pkl') else part)


def _nested(levels):
    value = [1]
    for _ in range(levels):
        value = [value, value]
    return pickle.dumps({'x': value}, 2)


SHAPE = b'K\x00K\n\x85q\x08K\x01\x85'   # offset 0, size (10,), stride (1,)
DECLARED = {
    'more numbers than there are': lambda p: p.replace(b'K\nt', b'M\x10\x27t', 1),
    'one number, 10 GB long': lambda p: p.replace(
        SHAPE, b'K\x00J\x00\x00\x00\x70\x85q\x08K\x00\x85'),
    'beyond the end': lambda p: p.replace(SHAPE, SHAPE.replace(b'K\x00', b'K\x01', 1)),
    'before the beginning': lambda p: p.replace(
        SHAPE, b'J\xff\xff\xff\xff' + SHAPE[2:]),
    'a buffer of 2 GB': lambda p: b'\x80\x02cbuiltins\nbytearray\n(J\x00\x00\x00\x70tR.',
    'a tensor of that size': lambda p: b'\x80\x02ctorch\nTensor\n(J\x00\x00\x00\x70tR.',
    'a list of 2^40': lambda p: _nested(40),
    'a list in itself': lambda p: b'\x80\x02]q\x00(h\x00h\x00e.',
    'a part numbered 2^28': lambda p: b'\x80\x02}r\xff\xff\xff\x0f.',
}


@pytest.mark.parametrize('name', DECLARED)
def test_what_a_file_declares_is_not_believed(tmp_path, name):
    path = tmp_path / 'state.pkl'
    _with_pickle(path, lambda p: p)
    assert storage.load(path)['x'].tolist() == list(range(10))
    _with_pickle(path, DECLARED[name])
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(pavlov.CorruptFile, match='state.pkl'):
        storage.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 300_000   # kB


def test_parts_of_one_name_are_refused(tmp_path):
    path = tmp_path / 'state.pkl'
    torch.save({'x': torch.zeros(10)}, path)
    with zipfile.ZipFile(path) as z:
        name = next(n for n in z.namelist() if n.endswith('data/0'))
    with zipfile.ZipFile(path, 'a') as z:
        z.writestr(name.upper(), torch.ones(10).numpy().tobytes())
    with pytest.raises(pavlov.CorruptFile, match='one name'):
        storage.load(path)


def test_states_go_to_the_device_asked_for(old):
    assert storage.load_snapshot(old, 0, device='meta')['agent']['network.body.0.weight'].is_meta


def test_pavlov_imports_nothing_else_of_the_package():
    code = ('import sys, boardlaw.pavlov; print('
            '[m for m in sys.modules if m.startswith("boardlaw.") and "pavlov" not in m], '
            '"ipywidgets" in sys.modules, "matplotlib" in sys.modules)')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['boardlaw.notebook'] False False", 'it knows no other'
