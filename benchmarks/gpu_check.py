"""Everything that needs a GPU, in one call of at most eight minutes.

    python benchmarks/gpu_check.py [benchmarks/gpu_report.json] [--minutes 8] [--only search ...]

Checks the GPU's games and searches against the CPU's, measures the search beside the network
alone, the gaps between launches, trainings side by side, matches, memory, the learner and whole
trainings, trains two agents for a short while, and tries other tiles. Each part's results go to the
report as they come, with the date and the card; what did not fit into the time is listed as left
out, and a part that does not end is cut off at the end of the time. gpu_times.csv, beside the
report, gets a row of the main figures: a table of versions and times. The exit code is 1 if a part
failed.

``--rehearse`` runs every part in miniature on a CPU, through Triton's interpreter: its figures mean
nothing and are not written.

The tests at full size come last and want four minutes: run them by themselves, ``--only tests``.
"""
import argparse
import datetime
import faulthandler
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

REHEARSE = '--rehearse' in sys.argv
if REHEARSE:
    os.environ['TRITON_INTERPRET'] = '1'
if missing := [x for x in ('torch', 'triton', 'numba') if find_spec(x) is None]:
    sys.exit(f'Nothing was measured: {", ".join(missing)} not installed for {sys.executable}')

import gpu_profile  # noqa: E402
import gpu_tiles  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import triton  # noqa: E402

from boardlaw import arena, gpu, learning, mcts, networks, rng, selfplay  # noqa: E402
from boardlaw.hex import Hex  # noqa: E402
from boardlaw.mcts import gpu as searches  # noqa: E402
from boardlaw.mcts.gpu_network import FUSED_WIDTH  # noqa: E402

DEVICE = torch.device('cpu' if REHEARSE else 'cuda')
N_NODES = 4 if REHEARSE else 64
SHAPES = [(3, 4, 2)] if REHEARSE else [(5, 16, 4), (7, 128, 4), (9, 512, 4)]
GAMES = [3] if REHEARSE else [1024, 8192, 32768]
MOST, BOARD = max(GAMES), SHAPES[-1]


def network_of(boardsize, width, depth, seed=0):
    """A network whose every part matters."""
    torch.manual_seed(seed)
    network = networks.Network(boardsize, width, depth)
    with torch.no_grad():
        for layer in network.body[1:]:
            layer.α.fill_(.4)
    return network


def positions(boardsize, n_envs):
    """Games of all lengths, on the CPU."""
    return selfplay.mixed(Hex.initial(n_envs, boardsize), 0)


def moved(world, device=None):
    return Hex(world.bits.to(device or DEVICE), world.seats.to(device or DEVICE), world.boardsize)


@contextmanager
def on_cpu():
    """Hex by the CPU's kernels, in a rehearsal too."""
    usable, gpu.usable = gpu.usable, lambda device, boardsize: False
    try:
        yield
    finally:
        gpu.usable = usable


def synchronise():
    if DEVICE.type == 'cuda':
        torch.cuda.synchronize()


def seconds(call, repeats=7, warm=2):
    """Median seconds of a call, and half the spread of the middle half."""
    if REHEARSE:
        repeats, warm = 2, 0
    times = []
    for i in range(warm + repeats):
        synchronise()
        began = time.perf_counter()
        call()
        synchronise()
        if i >= warm:
            times.append(time.perf_counter() - began)
    low, middle, high = np.quantile(times, [.25, .5, .75])
    return middle, (high - low)/2


def graphed(call):
    """The call, captured where that can be done."""
    if DEVICE.type != 'cuda':
        return call
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


CEILINGS = {}   # what :func:`ceilings` found


def ceilings():
    """What the card's memory and matrix units do at best: the floors rest on it."""
    n = 64 if REHEARSE else 8192
    a, b = (torch.randn(n, n, device=DEVICE).half() for _ in range(2))
    big = torch.randn(n*n*4, device=DEVICE)
    other = torch.empty_like(big)
    product, copy = seconds(lambda: a @ b)[0], seconds(lambda: other.copy_(big))[0]
    CEILINGS.update(matmul_tflops=2*n**3/product/1e12, copy_gbytes_s=8*len(big)/copy/1e9)
    return CEILINGS


def floors(boardsize, width, depth, n):
    """Predicted from the ceilings, before anything is measured: the milliseconds of a move's
    matrix products, and those of its memory traffic if every position's observation, logits and,
    of a wide network, residual stream are written and read once."""
    ops = 2*networks.count_params(boardsize, width, depth)*n*N_NODES
    stream = 0 if width <= FUSED_WIDTH else 8*width*(depth + 1)
    moved = (2*2*2*boardsize**2 + 2*4*(boardsize**2 + 1) + stream)*n*N_NODES
    return {'products_floor_ms': ops/CEILINGS['matmul_tflops']/1e9,
            'traffic_floor_ms': moved/CEILINGS['copy_gbytes_s']/1e6}


def agreement():
    """Games equal to the CPU's; searches equal in distribution."""
    result = {}
    for size in [3] if REHEARSE else [3, 5, 9, 11, 13]:
        world = positions(size, 4 if REHEARSE else 4096)
        for move in range(3 if REHEARSE else size**2):
            with on_cpu():
                actions = world.random_actions(rng.keys(0, world.n_envs, move))
                after, expected = world.step(actions)
                obs = world.obs
            ours, transition = moved(world).step(actions.to(DEVICE))
            assert torch.equal(ours.bits.cpu(), after.bits), f'{size}: boards differ'
            assert torch.equal(transition.rewards.cpu(), expected.rewards), f'{size}: rewards'
            assert torch.equal(moved(world).obs.cpu(), obs), f'{size}: observations differ'
            world = after
        result[f'hex_{size}_steps'] = world.n_envs*(move + 1)
    for size, width, depth in SHAPES:
        n = 4 if REHEARSE else 2048
        network, world = network_of(size, width, depth), positions(size, n)
        ask = dict(n_nodes=N_NODES, noise_eps=.25)
        with on_cpu():
            a = mcts.search(moved(world, 'cpu'), network, **ask)
        b = mcts.search(moved(world), network.to(DEVICE), **ask)
        difference = (b.value[:, 0].cpu() - a.value[:, 0]).double().numpy()
        z = difference.mean()/(difference.std(ddof=1)/n**.5)
        prior = float((a.prior - b.prior.cpu()).abs().max())
        policy = float((a.policy.mean(0) - b.policy.cpu().mean(0)).abs().max())
        result[f'search_{size}'] = {'value_z': float(z), 'prior_max': prior,
                                    'mean_policy_max': policy}
        assert REHEARSE or (abs(z) < 4 and prior < .01 and policy < .02), result
    return result


def search_rate():
    """Searches a second beside their network evaluations alone, both captured."""
    rows = []
    for size, width, depth in SHAPES:
        network = network_of(size, width, depth).to(DEVICE)
        world = moved(positions(size, MOST))
        for n in GAMES:
            searches._kept.clear()
            part, keys = world[:n], rng.keys(0, n, 0)
            whole = seconds(lambda: mcts.search(part, network, N_NODES, keys=keys,  # noqa: B023
                                                noise_eps=.25))
            run = next(iter(searches._kept.values()))
            forward = run.forward

            def evaluations(forward=forward):
                for _ in range(N_NODES):
                    forward()
            floor = seconds(graphed(evaluations))
            ops = 2*networks.count_params(size, width, depth)*n*N_NODES
            rows.append({
                'boardsize': size, 'width': width, 'depth': depth, 'n_envs': n,
                'sims_per_s': n*N_NODES/whole[0], 'spread': whole[1]/whole[0],
                'search_ms': 1e3*whole[0], 'network_ms': 1e3*floor[0],
                'ratio': whole[0]/floor[0], 'network_tflops': ops/floor[0]/1e12,
                'tree_bytes_per_game': run.trees.n_bytes/n} | (
                    floors(size, width, depth, n) if CEILINGS else {}))
            print('   ', {k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    searches._kept.clear()
    return rows


def layers():
    """One forward pass of the widest shape: our kernels, torch's products in half precision."""
    size, width, depth = BOARD
    network = network_of(size, width, depth).to(DEVICE)
    forward = searches.Forward(MOST, size, width, depth, DEVICE)
    forward.load(network)
    half = [layer.to(DEVICE).half() for layer in [
        *network_of(size, width, depth).body, torch.nn.Linear(width, size**2 + 1)]]
    obs = torch.zeros(MOST, 2*size**2, dtype=torch.float16, device=DEVICE)
    obs[:, ::3] = 1

    @torch.no_grad()
    def plain():
        x = obs
        for layer in half:
            x = layer(x)
    return {'ours_ms': 1e3*seconds(graphed(forward))[0],
            'torch_half_ms': 1e3*seconds(graphed(plain))[0]}


def tiles():
    """A forward pass on 9x9 with other tiles than those in use."""
    found = {}
    for width in [128] if REHEARSE else gpu_tiles.CANDIDATES:
        network = network_of(3 if REHEARSE else 9, width, 1 if REHEARSE else 4).to(DEVICE)
        rows = gpu_tiles.measure(network, gpu_tiles.CANDIDATES[width], MOST, seconds, graphed,
                                 DEVICE)
        assert all(row.get('differs', 0) < .02 for row in rows), rows
        found[width] = rows
    return found


def profile():
    """Of a move's search, and of training steps: how long each kernel runs, what for, and how much
    of the time none does."""
    result = {}
    for shape, n in [(SHAPES[0], GAMES[-2 if len(GAMES) > 1 else 0]), (BOARD, MOST)]:
        name = '{0}x{0} {1}x{2} {3}'.format(*shape, n)
        network, world = network_of(*shape).to(DEVICE), moved(positions(shape[0], n))
        trainer = trainer_of(shape, n, buffer_len=2)
        for _ in range(1 if REHEARSE else 4):   # kernels are compiled, graphs captured
            mcts.search(world, network, N_NODES, noise_eps=.25)
            trainer.advance()

        def search(world=world, network=network):
            mcts.search(world, network, N_NODES, noise_eps=.25)

        def steps(trainer=trainer):
            for _ in range(1 if REHEARSE else 5):
                trainer.advance()
        result[f'search {name}'] = gpu_profile.profiled(search, DEVICE)
        result[f'5 training steps {name}'] = gpu_profile.profiled(steps, DEVICE)
        searches._kept.clear()
    return result


def side_by_side():
    """Samples a second of 1, 2, 4 and 8 trainings on one card, with the sweep's settings."""
    if REHEARSE:
        return {}
    return {'{0}x{0} {1}x{2} {3}'.format(*shape, n): gpu_profile.side_by_side(
        shape, n, counts, 4., DEVICE)
        for shape, n, counts in [((6, 16, 1), 1024, (1, 2, 4, 8)), ((8, 256, 4), 2048, (1, 2, 4))]}


def matches():
    """Games a second between two agents, both colours, as ratings play them."""
    result = {}
    for shape in SHAPES:
        agents = [mcts.MCTSAgent(network_of(*shape, seed=k).to(DEVICE), N_NODES) for k in range(2)]
        for n in [2] if REHEARSE else [256, 1024]:
            times = []
            for k in range(2):    # the first compiles and captures
                began = time.perf_counter()
                arena.match(*agents, n, shape[0], seed=k, device=DEVICE)
                times.append(time.perf_counter() - began)
            result['{0}x{0} {1}x{2} {3}'.format(*shape, n)] = {
                'games_per_s': n/times[1], 'first_s': times[0]}
    searches._kept.clear()
    return result


def memory():
    """Device memory of a search, a game."""
    result = {}
    for size, width, depth in SHAPES:
        searches._kept.clear()
        network, world = network_of(size, width, depth).to(DEVICE), moved(positions(size, MOST))
        if DEVICE.type == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        for _ in range(2):
            mcts.search(world, network, N_NODES)
        peak = torch.cuda.max_memory_allocated() - before if DEVICE.type == 'cuda' else 0
        result[f'{size}x{size} {width}x{depth}'] = {
            'peak_bytes_per_game': peak/MOST,
            'tree_bytes_per_game': searches.bytes_per_game(N_NODES, size)}
    searches._kept.clear()
    return result


def learner():
    """One optimiser step on a batch of one position a game, by kind of arithmetic."""
    size, width, depth = BOARD
    world = moved(positions(size, MOST))
    policy = world.valid.float()/world.valid.sum(1, keepdim=True)
    batch = learning.Batch(world.obs, world.valid, world.seats, policy, policy,
                           torch.randn(MOST, 2, device=DEVICE).sign())
    result, tf32 = {}, torch.backends.cuda.matmul.allow_tf32
    for name in ('float32', 'tf32', 'bfloat16'):
        network = network_of(size, width, depth).to(DEVICE)
        optimiser = selfplay.optimiser(network, 1e-3)
        torch.backends.cuda.matmul.allow_tf32 = name == 'tf32'
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=name == 'bfloat16'):
            result[f'{name}_ms'] = 1e3*seconds(
                lambda: learning.optimise(network, optimiser, batch))[0]  # noqa: B023
    torch.backends.cuda.matmul.allow_tf32 = tf32
    return result


def trainer_of(shape, n_envs, **settings):
    return selfplay.Trainer(selfplay.Config(*shape, n_envs=n_envs, n_nodes=N_NODES, **settings),
                            DEVICE)


def training_rate():
    """Samples a second of whole training steps, the buffer full."""
    result = {}
    for shape in SHAPES:
        length = 2 if REHEARSE else 16
        trainer = trainer_of(shape, MOST, buffer_len=length)
        while not trainer.buffer.full:
            trainer.advance()
        step = seconds(trainer.advance, 9)
        result['{0}x{0} {1}x{2}'.format(*shape)] = {'samples_per_s': MOST/step[0],
                                                    'step_ms': 1e3*step[0]}
        del trainer
        searches._kept.clear()
    return result


def smoke(shape, limit):
    """Trains for a while, then plays the agent against the untrained network, both colours."""
    n = 4 if REHEARSE else 8192 if shape[0] < 5 else 32768
    trainer = trainer_of(shape, n, buffer_len=2 if REHEARSE else 64)
    new = networks.Network(*shape).to(DEVICE)
    new.load_state_dict(trainer.network.state_dict())
    began, curve = time.monotonic(), []
    while (gone := time.monotonic() - began) < limit or (REHEARSE and not curve):
        measure = trainer.buffer.full and trainer.n_learnt % 50 == 0
        measured = trainer.advance(measure)
        if measure:
            value, count = measured['corr.resid-var']
            curve.append([gone, trainer.n_samples, float(value/count)])
    assert curve and np.isfinite([x[2] for x in curve]).all(), 'no learner step or no finite loss'
    k, wins = 8 if REHEARSE else 512, []
    for black in (True, False):
        agents = [mcts.MCTSAgent(x, n_nodes=min(16, N_NODES)) for x in
                  ((trainer.network, new) if black else (new, trainer.network))]
        world, paid, move = Hex.initial(k, shape[0], DEVICE), 0, 0
        while world.n_envs:
            decisions = agents[move % 2](world, seed=9, move=move)
            world, transition = world.step(decisions.actions, reset=False)
            paid += int((transition.rewards[:, 0 if black else 1] > 0).sum())
            world, move = world[~transition.terminal], move + 1
        wins.append(paid/k)
    searches._kept.clear()
    return {'samples': trainer.n_samples, 'samples_per_s': trainer.n_samples/gone,
            'resid_var': curve[::max(1, len(curve)//20)] + curve[-1:],
            'win_rate_v_untrained': {'black': wins[0], 'white': wins[1], 'games_each': k}}


def tests(limit=240):
    """tests/test_gpu.py at full size, where pytest and scipy are installed."""
    if missing := [x for x in ('pytest', 'scipy') if find_spec(x) is None]:
        return f'left out: {" and ".join(missing)} not installed'
    if REHEARSE:
        return {}
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-x', '--tb=short',
                          'tests/test_gpu.py'], cwd=root, timeout=limit, capture_output=True,
                         text=True, env=os.environ | {'PYTHONPATH': str(root)})
    assert run.returncode == 0, run.stdout[-3000:]
    return run.stdout.strip().splitlines()[-1]


PARTS = {   # name: (work, seconds that it may need)
    'ceilings': (ceilings, 10), 'agreement': (agreement, 90), 'search': (search_rate, 60),
    'training_rate': (training_rate, 40), 'profile': (profile, 40), 'learner': (learner, 15),
    'matches': (matches, 40), 'side_by_side': (side_by_side, 80), 'layers': (layers, 15),
    'memory': (memory, 25),
    'smoke_3x3': (lambda: smoke(SHAPES[0] if REHEARSE else (3, 2, 4), 2 if REHEARSE else 20), 30),
    'smoke_9x9': (lambda: smoke(BOARD, 2 if REHEARSE else 60), 80), 'tiles': (tiles, 40),
    'tests': (tests, 240)}


def machine():
    """The date, the card and the versions."""
    card = 'none' if REHEARSE else torch.cuda.get_device_name()
    return {'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'card': card, 'python': platform.python_version(), 'torch': torch.__version__,
            'cuda': torch.version.cuda, 'triton': triton.__version__,
            'commit': gpu_profile.commit(),
            'lacks': gpu_profile.missing()}


class OutOfTime(BaseException):
    """The minutes are over: the part under way is cut off."""


def out_of_time(*_):
    raise OutOfTime('cut off at the end of the time')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('report', nargs='?', default=str(Path(__file__).with_name(
        'gpu_report.json')))
    parser.add_argument('--minutes', type=float, default=8)
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--rehearse', action='store_true')
    args = parser.parse_args()
    if not REHEARSE and not torch.cuda.is_available():
        sys.exit('No CUDA device is at hand: nothing was measured.')
    if REHEARSE:
        gpu.usable = lambda device, boardsize: True
    began, report = time.monotonic(), {'machine': machine(), 'seconds': {}}
    print(report['machine'], flush=True)
    Path(args.report).parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(int(60*args.minutes))
    # What hangs within a library does not hear the alarm.
    faulthandler.dump_traceback_later(60*args.minutes + 20, exit=True)
    for name in args.only:
        work, need = PARTS[name]
        start = time.monotonic()
        if start - began + need > 60*args.minutes:
            report[name] = 'left out: no time left'
        else:
            try:
                report[name] = work()
            except (Exception, OutOfTime) as error:
                traceback.print_exc()
                report[name] = f'failed: {type(error).__name__}: {error}'
        report['seconds'][name] = round(time.monotonic() - start, 1)
        print(f'{name} ({report["seconds"][name]} s): {json.dumps(report[name])}', flush=True)
        if not REHEARSE:   # whole after every part, whatever happens next
            Path(args.report + '.new').write_text(json.dumps(report, indent=1))
            os.replace(args.report + '.new', args.report)
            gpu_profile.record(report, SHAPES, Path(args.report).with_name(gpu_profile.TABLE))
    signal.alarm(0)
    table(report)
    sys.exit(any(isinstance(x, str) and x.startswith('failed') for x in report.values()))


def table(report):
    """The search's rates, for the eye."""
    if isinstance(report.get('search'), list):
        print(f'{"board":>5} {"network":>8} {"games":>6} {"sims/s":>12} {"ms":>8} {"network":>8} '
              f'{"ratio":>6} {"TFLOP/s":>8}')
        for x in report['search']:
            print('{boardsize:>5} {width:>6}x{depth} {n_envs:>6} {sims_per_s:>12,.0f} '
                  '{search_ms:>8.2f} {network_ms:>8.2f} {ratio:>6.2f} '
                  '{network_tflops:>8.1f}'.format(**x))


if __name__ == '__main__':
    main()
