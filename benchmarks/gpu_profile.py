"""Where a GPU's time goes: kernels by what they are for, the gaps between them, what several
trainings side by side on one card gain, and the table of versions and times. Parts of
benchmarks/gpu_check.py.

    python benchmarks/gpu_profile.py 6 128 1 1024 --seconds 5      # a training, told when to run
"""
import argparse
import csv
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

#: What kernels are for, by the beginning of their names; all others are the learner's, or moves of
#: memory.
KINDS = {'network': ('_perceptron', '_linear'),
         'tree': ('advance', 'summarise', 'dirichlet'),
         'rules': ('place', 'observe', '_step', '_random_actions'),
         'memory': ('Memcpy', 'Memset')}

#: What the whole package needs, beside what this benchmark does.
NEEDED = ('torch', 'triton', 'numba', 'numpy', 'pandas', 'scipy', 'sqlalchemy', 'tqdm')


def missing():
    """Packages that the sweep needs and this Python lacks."""
    return [name for name in NEEDED if find_spec(name) is None]


def kind(name):
    """What a kernel is for.

    >>> kind('_linear'), kind('ampere_sgemm_128x64_tn'), kind('Memcpy DtoH')
    ('network', 'learner', 'memory')
    """
    return next((kind for kind, names in KINDS.items() if name.startswith(names)), 'learner')


def account(spans):
    """What a profile's kernels add up to.

    Args:
        spans: (name, start, end) of each kernel, in microseconds.

    Returns:
        span_ms from the first start to the last end; busy_ms, in which some kernel runs;
        idle_share, in which none does; launches; gap_us, the median of the gaps; kinds_ms, kernels'
        time by :data:`KINDS`; kernels_ms, time and launches of those that take most.
    """
    if not spans:
        return {'launches': 0}
    spans = sorted(spans, key=lambda span: span[1])
    busy, gaps, reached = 0., [], spans[0][1]
    kinds, kernels = {}, {}
    for name, start, end in spans:
        busy += max(0., end - max(start, reached))
        if start > reached:
            gaps.append(start - reached)
        reached = max(reached, end)
        kinds[kind(name)] = kinds.get(kind(name), 0.) + (end - start)/1e3
        total, count = kernels.get(name[:40], (0., 0))
        kernels[name[:40]] = total + (end - start)/1e3, count + 1
    span = reached - spans[0][1]
    return {'span_ms': span/1e3, 'busy_ms': busy/1e3, 'idle_share': 1 - busy/span if span else 0.,
            'launches': len(spans), 'gap_us': sorted(gaps)[len(gaps)//2] if gaps else 0.,
            'kinds_ms': kinds, 'kernels_ms': {name: list(x) for name, x in sorted(
                kernels.items(), key=lambda item: -item[1][0])[:12]}}


def profiled(call, device):
    """:func:`account` of a call's kernels; on a CPU of its operators, which nest: a rehearsal."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA]*(device.type == 'cuda')
    with profile(activities=activities) as found:
        call()
        if device.type == 'cuda':
            torch.cuda.synchronize()
    return account([(event.name, event.time_range.start, event.time_range.end)
                    for event in found.events()
                    if device.type.upper() in str(event.device_type)])


def side_by_side(shape, n_envs, counts, seconds, device):
    """Samples a second of so many trainings at once, each in a process of its own: {count: all
    together}. All are started and warmed up once."""
    command = [sys.executable, __file__, *map(str, shape), str(n_envs), '--seconds', str(seconds),
               '--device', device.type]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                 for _ in range(max(counts))]
    try:
        for process in processes:
            if process.stdout.readline().strip() != 'ready':
                raise RuntimeError('a training side by side with others failed to start')
        found = {}
        for k in counts:
            for process in processes[:k]:
                process.stdin.write('go\n')
                process.stdin.flush()
            found[str(k)] = sum(float(process.stdout.readline()) for process in processes[:k])
        return found
    finally:
        for process in processes:
            process.kill()
            process.wait()


#: The table of versions and times: one row a report.
TABLE = 'gpu_times.csv'


def record(report, shapes, path):
    """Writes the table with this report's row, in place of an earlier one of its date.

    Args:
        report: of benchmarks/gpu_check.py, as far as it has got.
        shapes: (boardsize, width, depth) of the trainings in it.
        path: of the table; where there is none, the one beside this file is gone on with.
    """
    row = {k: v for k, v in report['machine'].items() if k != 'lacks'}
    for x in report['search'] if isinstance(report.get('search'), list) else []:
        row[f'sims/s {x["boardsize"]} {x["n_envs"]}'] = x['sims_per_s']
        row[f'whole/network {x["boardsize"]} {x["n_envs"]}'] = x['ratio']
    wanted = {f'samples/s {shape[0]}': ('training_rate', '{0}x{0} {1}x{2}'.format(*shape),
                                        'samples_per_s') for shape in shapes}
    wanted |= {f'learner {x} ms': ('learner', f'{x}_ms') for x in ('float32', 'tf32', 'bfloat16')}
    wanted |= {f'layers {x} ms': ('layers', f'{x}_ms') for x in ('ours', 'torch_half')}
    for name, keys in wanted.items():
        found = report
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            row[name] = found
    before = next((x for x in (path, Path(__file__).with_name(TABLE)) if x.exists()), None)
    rows = []
    if before is not None:
        with before.open(newline='') as f:
            rows = [x for x in csv.DictReader(f) if x['date'] != row['date']]
    rows.append({k: f'{v:.4g}' if isinstance(v, float) else v for k, v in row.items()})
    with path.open('w', newline='') as f:
        writer = csv.DictWriter(f, list(dict.fromkeys(name for x in rows for name in x)),
                                lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def commit():
    """Which text of the package this is, where git can say."""
    try:
        found = subprocess.run(['git', 'describe', '--always', '--dirty'], timeout=10, text=True,
                               cwd=Path(__file__).parent, capture_output=True)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return found.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('shape', nargs=3, type=int)
    parser.add_argument('n_envs', type=int)
    parser.add_argument('--seconds', type=float, default=5.)
    parser.add_argument('--device', default='cuda')
    args = parser.parse_args()
    import torch

    from boardlaw import selfplay
    torch.set_num_threads(1)
    trainer = selfplay.Trainer(selfplay.Config(*args.shape, n_envs=args.n_envs, buffer_len=8),
                               args.device)
    for _ in range(12):
        trainer.advance()
    print('ready', flush=True)
    for _ in sys.stdin:
        began, before = time.monotonic(), trainer.n_samples
        while (gone := time.monotonic() - began) < args.seconds:
            trainer.advance()
            if args.device == 'cuda':
                torch.cuda.synchronize()
        print((trainer.n_samples - before)/gone, flush=True)


if __name__ == '__main__':
    main()
