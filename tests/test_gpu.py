"""The Triton kernels against the CPU's and the plain references: on a GPU where there is one,
elsewhere through Triton's interpreter, which shows the logic though neither races nor speed."""
import json
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from opinionated import make_network
from scipy import stats

from boardlaw import gpu, mcts, pavlov, rng, sql, sweep
from boardlaw.hex import BadAction, Hex
from boardlaw.mcts import BadSearch, reference
from boardlaw.mcts.search import _settings
from boardlaw.pavlov import runs
from boardlaw.selfplay import Config
from boardlaw.sweep import Job, packs, rating, training
from boardlaw.training import train

if find_spec('triton') is None:
    pytest.skip('needs the package triton: `pip install triton`', allow_module_level=True)

GPU = torch.cuda.is_available() and os.environ.get('TRITON_INTERPRET') != '1'
DEVICE = 'cuda' if GPU else 'cpu'
if not GPU:
    os.environ['TRITON_INTERPRET'] = '1'   # read when the kernels are imported

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from boardlaw.gpu_rng import uniform  # noqa: E402
from boardlaw.hex import gpu_kernels as rules  # noqa: E402
from boardlaw.mcts import gpu as searches  # noqa: E402
from boardlaw.mcts import gpu_kernels as kernels  # noqa: E402
from boardlaw.mcts import gpu_network  # noqa: E402
from boardlaw.mcts.gpu_network import FUSED_WIDTH, Forward  # noqa: E402

BENCHMARKS = Path(__file__).parents[1]/'benchmarks'
sys.path.append(str(BENCHMARKS))
import gpu_profile  # noqa: E402
import gpu_tiles  # noqa: E402

pytestmark = pytest.mark.filterwarnings('ignore::RuntimeWarning')   # of the interpreter
needs_gpu = pytest.mark.skipif(not GPU, reason='needs a GPU')
BOTH = pytest.mark.parametrize('rule, unvisited', [
    ('corrected', 'parent'), ('corrected', 'worst'), ('2021', 'worst')])
MANY = 4096 if GPU else 1   # factor on the numbers of games


@contextmanager
def kernels_on_cpu():
    """Worlds on the CPU use the Triton kernels, interpreted."""
    usable = gpu.usable
    gpu.usable = lambda device, boardsize: boardsize <= gpu.LARGEST
    try:
        yield
    finally:
        gpu.usable = usable


def triton_kernels():
    return nullcontext() if GPU else kernels_on_cpu()


def moved(world):
    """The world on the device, with nothing cached."""
    return Hex(world.bits.to(DEVICE), world.seats.to(DEVICE), world.boardsize)


def positions(boardsize, n_envs, seed=0):
    """Unfinished games of all lengths, from the empty board to where a game may end."""
    games = []
    for i in range(n_envs):
        keys = rng.keys(seed, [i], 0)
        games.append(Hex.initial(1, boardsize).random_steps(
            int(i*boardsize**2*1.5/n_envs), keys)[0])
    return Hex.cat(games)


def search(world, network, *args, **kwargs):
    with triton_kernels():
        return mcts.search(moved(world), network.to(DEVICE), *args, **kwargs)


def test_uniform():
    @triton.jit
    def run(keys, counters, out, N: tl.constexpr):
        i = tl.arange(0, N)
        key = tl.load(keys + i).to(tl.uint64, bitcast=True)
        tl.store(out + i, uniform(key, tl.load(counters + i).to(tl.uint64, bitcast=True)))

    keys = rng.keys(7, 256, 3)
    counters = np.random.default_rng(0).integers(0, 2**40, 256)
    out = torch.empty(256, device=DEVICE)
    run[(1,)](torch.from_numpy(keys.view(np.int64)).to(DEVICE),
              torch.from_numpy(counters).to(DEVICE), out, N=256)
    expected = [rng.uniforms(keys[i:i + 1], int(c))[0] for i, c in enumerate(counters)]
    np.testing.assert_array_equal(out.cpu().double(), expected)


@pytest.mark.parametrize('boardsize', range(1, 14))
def test_rules(boardsize):
    """Worlds agree with the CPU's along random games, with resets and without."""
    cpu = positions(boardsize, 32*min(MANY, 64), boardsize)
    for move in range(3*boardsize**2 if GPU else 3):
        keys, reset = rng.keys(1, cpu.n_envs, move), move != 1
        if not reset:
            before = cpu
        actions = cpu.random_actions(keys)
        with triton_kernels():
            ours = moved(cpu)
            assert torch.equal(ours.obs.cpu(), cpu.obs)
            assert torch.equal(ours.valid.cpu(), cpu.valid)
            if move == 0 or GPU:
                assert torch.equal(ours.random_actions(keys).cpu(), actions)
            ours, transition = ours.step(actions.to(DEVICE), reset=reset)
        cpu, expected = cpu.step(actions, reset=reset)
        assert torch.equal(ours.bits.cpu(), cpu.bits) and torch.equal(ours.seats.cpu(), cpu.seats)
        assert torch.equal(transition.rewards.cpu(), expected.rewards)
        assert torch.equal(transition.terminal.cpu(), expected.terminal)
        if not reset:
            with triton_kernels():
                assert moved(cpu).first_over() == cpu.first_over()
            cpu = before.step(actions)[0]


def test_winding_chains():
    """A chain that winds over the whole board joins at once, whatever word its stones are in."""
    snake = '''b b b b b b b b b b b b b
                . . . . . . . . . . . . b
                 b b b b b b b b b b b b .
                  b . . . . . . . . . . . .
                   b b b b b b b b b b b b b
                    . . . . . . . . . . . . b
                     b b b b b b b b b b b b .
                      b . . . . . . . . . . . .
                       b b b b b b b b b b b b b
                        . . . . . . . . . . . . b
                         . . . . . . . . . . . b .
                          . . . . . . . . . . b . .
                           . . . . . . . . . . . . .'''
    for start, cell in [(snake, 12*13 + 10), (snake.replace('b', '.', 1), 0)]:
        cpu = Hex.parse(start, seat=0)
        expected, _ = cpu.step([cell], reset=False)
        with triton_kernels():
            found, _ = moved(cpu).step([cell], reset=False)
        assert torch.equal(found.bits.cpu(), expected.bits)


def test_bad_actions():
    with triton_kernels():
        world = moved(positions(5, 6))
        taken = int((~world.valid[5]).nonzero()[0])
        for action, words in [(taken, 'already holds'), (25, 'names no cell'), (-1, 'names no')]:
            actions = [int(v.nonzero()[0]) for v in world.valid[:5]] + [action]
            with pytest.raises(BadAction, match=f'environment 5: .*{words}'):
                world.step(actions)
        over = moved(Hex.parse('b w\n b .', seat=1))
        with pytest.raises(BadAction, match='environment 0: the game is over, Black has won'):
            over.step([3])
        over = moved(Hex.parse('b', seat=1))
        with pytest.raises(BadAction, match='board is full'):
            over.random_actions(rng.keys(0, 1, 0))
        with pytest.raises(BadSearch, match='environment 0: the game is over'):
            mcts.search(over, make_network(1).to(DEVICE))


@pytest.mark.parametrize('boardsize, width, depth, n', [
    (1, 1, 0, 1), (3, 2, 4, 17), (5, 16, 1, 70), (9, FUSED_WIDTH, 2, 5), (4, FUSED_WIDTH + 1, 0, 3),
    (9, 256, 2, 17), (13, 200, 1, 2)])
def test_forward(boardsize, width, depth, n):
    check_forward(boardsize, width, depth, n)


@pytest.mark.parametrize('boardsize, width, depth, n', [
    (1, 1, 0, 1), (5, 16, 1, 70), (9, 256, 2, 17)])
def test_forward_on_cards_whose_matrix_units_triton_does_not_reach(monkeypatch, boardsize, width,
                                                                    depth, n):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    assert not gpu_network._has_units(torch.device('cuda'))
    monkeypatch.setattr(gpu_network, '_has_units', lambda device: False)
    check_forward(boardsize, width, depth, n)


@pytest.mark.parametrize('width, tile', [
    (width, tile) for width, tiles in gpu_tiles.CANDIDATES.items() for tile in tiles])
def test_forward_with_other_tiles(width, tile):
    with gpu_tiles.using(width, tile):
        check_forward(5, width, 1, 70)


def check_forward(boardsize, width, depth, n):
    """The network in half precision, within its rounding of the one in float32."""
    network, world = make_network(boardsize, width, depth).to(DEVICE), positions(boardsize, n)
    forward = Forward(n, boardsize, width, depth, torch.device(DEVICE))
    forward.load(network)
    forward.out.fill_(torch.nan)
    obs = world.obs.flatten(1).to(DEVICE)
    forward.obs[:n, :obs.shape[1]] = obs
    forward()
    with torch.no_grad():
        x = obs
        for layer in network.body:
            x = layer(x)
        expected = torch.cat([network.policy(x), network.value(x)], 1)
    found = forward.out[:n, :expected.shape[1]]
    assert (found - expected).norm() < 2e-3*expected.norm()


@BOTH
@pytest.mark.parametrize('c_puct', [1e-6, 1/16, 1/4, 1e3])
def test_root_policies_agree_with_the_reference(rule, unvisited, c_puct):
    """Random visits, values and priors, ties included."""
    random, c_puct = np.random.default_rng(2), float(np.float32(c_puct))
    for boardsize in (2, 5, 9):
        n_games, n_actions, n_nodes = 8, boardsize**2, 12
        trees = searches.Trees(n_games, n_nodes, boardsize, torch.device('cpu'))
        expected, counts = [], []
        for g in range(n_games):
            seat, k = g % 2, int(random.integers(0, min(n_nodes - 1, n_actions) + 1))
            logits = random.choice([0, 1, 5, 20])*random.normal(size=n_actions)
            prior = np.exp(logits - logits.max())*(logits - logits.max() > kernels.FAINT.value)
            prior = (prior/prior.sum()).astype(np.float32)
            actions = random.permutation(np.flatnonzero(prior))[:k]
            k = len(actions)
            q, n = np.zeros(n_actions), np.zeros(n_actions, int)
            n[actions] = random.integers(1, 20, k)
            q[actions] = random.choice(np.float32([1, -1, 0]), k) if g % 3 == 0 else \
                random.uniform(-1, 1, k).astype(np.float32)
            mean = np.float32((q*n).sum()/(1 + n.sum()))
            trees.prior[g, 0] = torch.from_numpy(prior)
            trees.children[g, 0, torch.from_numpy(actions)] = torch.arange(1, k + 1).short()
            trees.q[g, 0], trees.visits[g, 0] = float(mean), int(1 + n.sum())
            trees.q[g, 1:k + 1] = torch.from_numpy(q[actions])
            trees.visits[g, 1:k + 1] = torch.from_numpy(n[actions])
            trees.size[g], trees.seat[g, 0] = k + 1, seat
            largest = max(abs(mean), np.abs(q).max()) if rule == '2021' else 1
            sign = (1. - 2*seat)/(largest or 1)
            expected.append(reference.policy(prior.astype(float)/prior.sum(dtype=float), sign*q, n,
                                             c_puct, rule,
                                             sign*mean if unvisited == 'parent' else -1.))
            counts.append(n)
        on_device = {name: x.to(DEVICE) for name, x in vars(trees).items()
                     if isinstance(x, torch.Tensor)}
        t = type('Filled', (), on_device)
        kernels.summarise[(n_games,)](
            t.prior, t.children, t.q, t.visits, t.seat, t.delta, t.size, t.policy, t.counts,
            n_nodes, c_puct, RULE_2021=rule == '2021', PARENT=unvisited == 'parent', A=n_actions,
            AP=triton.next_power_of_2(n_actions), num_warps=1)
        np.testing.assert_allclose(t.policy.cpu(), expected, atol=1e-5)
        np.testing.assert_array_equal(t.counts.cpu(), counts)


def check_tree(found, world, network, game, n_nodes, rule, unvisited, prior):
    """A game's tree against the rules, the network and the reference."""
    tree = found.tree.nodes[game, :found.tree.size[game]]
    worlds, over, sums, counts = [], [], np.zeros(len(tree)), np.zeros(len(tree), int)
    for i, node in enumerate(tree):
        if i == 0:
            worlds, over = [world[game]], [False]
        else:
            after, transition = worlds[node['parent']].step([int(node['action'])], reset=False)
            worlds.append(after)
            over.append(bool(transition.terminal))
            assert node['reward'] == transition.rewards[0, 0]
        assert node['seat'] == worlds[i].seats[0] and node['terminal'] == over[i]
        # Simulations that end at a node: one made it, more if it is a finished game.
        ends = node['n'] if over[i] else 1
        up = i
        while up >= 0:
            sums[up] += ends*(node['reward'] if over[i] else node['v'])
            counts[up] += ends
            up = tree['parent'][up]
    np.testing.assert_array_equal(tree['n'], counts)
    np.testing.assert_allclose(tree['q'], sums/counts, atol=1e-5)
    assert tree['n'][0] == n_nodes
    open_nodes = np.flatnonzero(~np.array(over))
    with torch.no_grad():
        out = network(Hex.cat([worlds[i] for i in open_nodes]))
    np.testing.assert_allclose(tree['v'][open_nodes], out.v[:, 0], atol=3e-3)
    priors = found.tree.prior[game, :len(tree)].astype(float)
    for i in range(1, len(tree)):
        priors[tree['parent'][i], tree['action'][i]] = tree['p'][i]
    assert np.abs(priors[0] - prior).max() < 1e-6
    np.testing.assert_allclose(priors[open_nodes[1:]], out.logits.exp()[1:], atol=3e-3)
    np.testing.assert_allclose(found.tree.root[game], out.logits[0].exp(), atol=3e-3)
    children = tree[tree['parent'] == 0]
    q, n = np.zeros(len(prior)), np.zeros(len(prior), int)
    q[children['action']], n[children['action']] = children['q'], children['n']
    sign = 1. - 2*tree['seat'][0]
    sign /= np.abs(tree['q']).max() if rule == '2021' else 1
    expected = reference.policy(prior/prior.sum(), sign*q, n, 1/4, rule,
                                sign*tree['q'][0] if unvisited == 'parent' else -1.)
    np.testing.assert_allclose(found.policy[game].cpu(), expected, atol=1e-5)
    np.testing.assert_array_equal(found.visits[game].cpu(), n)
    assert found.n_leaves[game] == len(set(range(len(tree))) - set(tree['parent']))


@BOTH
@pytest.mark.parametrize('boardsize, width, n_envs, n_nodes', [
    (3, 16, 17, 4), (3, 4, 3, 12), (5, 16, 1, 16), (9, 16, 1, 5), (13, 8, 1, 3)])
def test_searches_agree_with_the_reference(boardsize, width, n_envs, n_nodes, rule, unvisited):
    network, n_nodes = make_network(boardsize, width), 64 if GPU else n_nodes
    world = positions(boardsize, n_envs, boardsize)
    for eps in (.25, 0.) if GPU else (.25,):
        ask = dict(c_puct=1/4, rule=rule, noise_eps=eps, unvisited=unvisited, seed=n_nodes)
        found = search(world, network, n_nodes, keep_tree=True, **ask)
        prior = search(world, network, 1, **ask).policy.double().cpu().numpy()
        for game in range(n_envs):
            check_tree(found, world, network.cpu(), game, n_nodes, rule, unvisited, prior[game])
        total = 1. - found.policy.sum(1).cpu()
        assert total.abs().max() < 1e-5 and (found.policy.cpu()[~world.valid] == 0).all()
        assert torch.equal(found.value[:, 0], -found.value[:, 1])


@BOTH
def test_the_reference_grows_the_same_trees(rule, unvisited, monkeypatch):
    """From the same draws and the same order of actions. Where a draw falls within the rounding of
    the network or the tolerance of pi_bar from a border between actions the trees part."""
    def by_action(node, pi_bar, u):
        return int(np.flatnonzero(pi_bar.cumsum() > u*pi_bar.sum())[0])

    def moves(visits, parents, actions, size):
        names = {0: ()}
        for i in range(1, size):
            names[i] = (*names[parents[i]], int(actions[i]))
        return {names[i]: int(visits[i]) for i in range(size)}

    def reference_moves(node, names=()):
        return {names: node.n} | {k: n for a, child in node.children.items()
                                  for k, n in reference_moves(child, (*names, a)).items()}

    monkeypatch.setattr(reference.Node, 'choose', by_action)
    n = 40 if GPU else 10
    network, world, keys = make_network(3), positions(3, n, 3), rng.keys(5, n, 0)
    n_nodes, same = 12, 0
    found = search(world, network, n_nodes, 1/4, rule, unvisited=unvisited, keys=keys,
                   keep_tree=True)
    for game, key in enumerate(keys):
        root = reference.search(world[game], network.cpu(), n_nodes, 1/4, rule, unvisited, key)
        tree, size = found.tree.nodes[game], found.tree.size[game]
        same += reference_moves(root) == moves(tree['n'], tree['parent'], tree['action'], size)
    assert same >= .7*n


def test_choices_follow_pi_bar():
    """How often each first move is chosen, by chi-square against the prior."""
    network, n = make_network(3), 150*MANY
    world = Hex.initial(n, 3)
    found = search(world, network, 2, seed=3)
    counts = found.visits.sum(0).cpu().numpy()
    prior = found.prior[0].double().cpu().numpy()
    assert stats.chisquare(counts, n*prior/prior.sum()).pvalue > 1e-3


@pytest.mark.parametrize('alpha', [.1, 1., 10.])
def test_noise_is_dirichlet(alpha):
    """A component of a Dirichlet vector over the valid actions is Beta distributed."""
    n = 60*min(MANY, 100)
    world = Hex.parse('b w . \n . . . \n b w .')
    world = Hex.cat([world]*n)
    found = search(world, make_network(3), 1, noise_eps=1., dirichlet_alpha=alpha, seed=1)
    k = int(world.valid[0].sum())
    assert (found.policy.cpu()[~world.valid] == 0).all()
    for a in world.valid[0].nonzero()[:, 0].tolist():
        x = found.policy[:, a].double().cpu().numpy()
        assert stats.kstest(x, stats.beta(alpha, alpha*(k - 1)).cdf).pvalue > 1e-3
    again = search(world[:5], make_network(3), 1, noise_eps=1., dirichlet_alpha=alpha, seed=1)
    torch.testing.assert_close(again.policy, found.policy[:5])


def test_a_game_does_not_depend_on_its_neighbours(monkeypatch):
    """Alone, or in turns because memory is short."""
    network, world, keys = make_network(4), positions(4, 7), rng.keys(2, 7, 0)
    whole = search(world, network, 6, keys=keys, noise_eps=.25, keep_tree=True)
    alone = search(world[4], network, 6, keys=keys[4:5], noise_eps=.25)
    monkeypatch.setattr(searches, 'games_at_once', lambda *args: 3)
    turns = search(world, network, 6, keys=keys, noise_eps=.25, keep_tree=True)
    for name in ('policy', 'prior', 'visits', 'value', 'root_value', 'n_leaves'):
        torch.testing.assert_close(getattr(turns, name), getattr(whole, name), atol=1e-5, rtol=0)
        torch.testing.assert_close(getattr(alone, name), getattr(whole, name)[4:5], atol=1e-5,
                                   rtol=0)
    np.testing.assert_array_equal(turns.tree.nodes['n'], whole.tree.nodes['n'])


def test_numbers_of_games_come_again(monkeypatch):
    """A match whose games end one by one needs few shapes; memory's limit holds."""
    cuda = torch.device('cuda')
    monkeypatch.setattr(searches, '_room', lambda device: 1000*searches.bytes_per_game(8, 3))
    at_once = [searches.games_at_once(n, 8, 3, cuda) for n in range(5000)]
    assert [at_once[n] for n in (0, 1, 64, 65, 256, 257, 512, 700, 768)] == [
        0, 64, 64, 128, 256, 512, 512, 1000, 768]
    assert set(at_once[1:513]) == {64, 128, 256, 512}
    assert max(at_once) <= 1000
    assert all(-(-n//k) == -(-n//1000) for n, k in enumerate(at_once) if n), 'no turn too many'


def test_shapes_fill_no_more_than_their_share(monkeypatch):
    searches._kept.clear()
    monkeypatch.setattr(searches, '_room', lambda device: 10*searches.bytes_per_game(4, 3))
    network = make_network(3)
    for n in (4, 5, 2):
        search(Hex.initial(n, 3), network, 4)
    assert [key[0] for key in searches._kept] == [5, 2]
    monkeypatch.setattr(searches, '_room', lambda device: 0)
    search(Hex.initial(1, 3), network, 4)
    assert [key[0] for key in searches._kept] == [1], 'the one in use is always there'
    searches._kept.clear()


@pytest.mark.parametrize('width', [16, FUSED_WIDTH + 1])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_network_gone_wrong(bad, width):
    network = make_network(3, width)
    with torch.no_grad():
        network.body[1].weight[0, 0] = bad
    with pytest.raises(BadSearch, match="environment 0: .* network's output is nan"):
        search(Hex.initial(1, 3), network, 2)
    with pytest.raises(BadSearch, match='plays 3x3'):
        search(Hex.initial(1, 4), network, 3)


@pytest.mark.parametrize('column, bad', [(4, np.nan), (4, np.inf), (9, np.nan), (9, -np.inf)])
def test_the_bad_game_is_named(column, bad, monkeypatch):
    """A logit or a value that is nan or infinite, in the second of three games."""
    call = Forward.__call__

    def spoiled(forward):
        call(forward)
        forward.out[1, column] = bad

    monkeypatch.setattr(Forward, '__call__', spoiled)
    searches._kept.clear()
    with pytest.raises(BadSearch, match='environment 1'):
        search(Hex.initial(3, 3), make_network(3), 3)
    searches._kept.clear()


def test_no_games():
    found = search(Hex.initial(0, 3), make_network(3), 4, keep_tree=True)
    assert found.policy.shape == (0, 9) and found.value.shape == (0, 2)
    with triton_kernels():
        world = moved(Hex.initial(0, 3))
        assert world.obs.shape == (0, 3, 3, 2) and len(world.step([])[0]) == 0
        assert world.random_actions(rng.keys(0, 0, 0)).shape == (0,)


def test_without_triton(monkeypatch):
    """One warning, then the slow road."""
    gpu._has_triton.cache_clear()
    monkeypatch.setattr(gpu, 'find_spec', lambda name: None)
    with pytest.warns(UserWarning, match='triton is missing'):
        assert not gpu.usable(torch.device('cuda'), 9)
    assert not gpu.usable(torch.device('cuda'), 9)
    gpu._has_triton.cache_clear()
    monkeypatch.undo()
    assert gpu.usable(torch.device('cuda'), 13) and not gpu.usable(torch.device('cuda'), 14)
    assert not gpu.usable(torch.device('cpu'), 9) and gpu.LARGEST == rules.BOARDSIZES[-1]


@needs_gpu
@BOTH
@pytest.mark.parametrize('boardsize, width', [(3, 2), (5, 16), (9, 512), (13, 128)])
def test_graph_equals_launches(boardsize, width, rule, unvisited):
    """A captured move gives what the same kernels give one by one; weights are taken anew."""
    settings = _settings(64, 1/4, rule, .25, None, unvisited, boardsize**2)
    world, keys = moved(positions(boardsize, 1000)), rng.keys(0, 1000, 0)
    keys = torch.from_numpy(keys.view(np.int64)).cuda()
    run = searches.Searcher(1000, 64, boardsize, width, 4, settings, world.device)
    networks = [make_network(boardsize, width, 4, seed).cuda() for seed in range(2)]
    plain = [run(world.bits, world.seats, keys, networks[0])]
    run.n_runs = 0
    plain.append(run(world.bits, world.seats, keys, networks[1]))
    assert run.graph is None
    for network, expected in zip(networks, plain):
        found = run(world.bits, world.seats, keys, network)
        assert run.graph is not None
        for x, y in zip(found[0], expected[0]):
            assert torch.equal(x, y)


def compiled(*calls):
    """What benchmarks/gpu_compile.py finds: in a process without the interpreter."""
    code = f'import gpu_compile as g, json; print(json.dumps([{", ".join(calls)}]))'
    said = subprocess.run([sys.executable, '-c', code], cwd=BENCHMARKS, capture_output=True,
                          text=True, env=os.environ | {'PYTHONPATH': str(BENCHMARKS.parent)})
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def test_the_kernels_compile_for_an_h200():
    """With or without one: Triton's compiler refuses more than its interpreter does."""
    kernels, tiles = compiled('g.all_kernels([3, 13], [(8, 1), (128, 4), (512, 4)])',
                              'g.all_tiles()')
    kinds = [name for kind in ('network', 'tree', 'rules') for name in gpu_profile.KINDS[kind]]
    assert {row['kernel'] for row in kernels} == set(kinds)
    assert all('wgmma' in row['tensor'] for row in kernels if row['kernel'] == '_linear')
    for row in kernels + tiles:
        check_fits(row, 227)


@pytest.mark.parametrize('capability, room', [(75, 64), (80, 163), (89, 99), (100, 227)])
def test_the_kernels_compile_for_other_cards(capability, room):
    """In whose multiprocessors a block has this many KiB of shared memory."""
    kernels, = compiled(f'g.all_kernels([9], [(128, 4), (512, 4)], {capability})')
    by_triton = {row['kernel'] for row in kernels} & set(gpu_profile.KINDS['network'])
    assert by_triton == (set() if capability < 80 else set(gpu_profile.KINDS['network']))
    for row in kernels:
        check_fits(row, room)


def check_fits(row, room):
    assert row['stack'] <= 40*(row['kernel'] == 'dirichlet'), row   # a cosine has an array
    assert row['shared'] <= room*1024 and row['resident'] > 0, row


@needs_gpu
@pytest.mark.parametrize('n_envs', [1, 2, 33, 1000, 65536])
@pytest.mark.parametrize('boardsize', [3, 9, 13])
def test_any_number_of_games(boardsize, n_envs):
    world = moved(positions(boardsize, min(n_envs, 64)))
    world = world[torch.arange(n_envs) % world.n_envs]
    network = make_network(boardsize).cuda()
    for _ in range(2):   # launched, then captured
        found = mcts.search(world, network, 32, noise_eps=.25)
        assert (found.visits.sum(1) == 31).all()
        assert (1 - found.policy.sum(1)).abs().max() < 1e-4
        assert (found.policy[~world.valid] == 0).all()
        assert (found.value.abs() <= 1).all()


def test_a_sweep_trains_rates_and_goes_on(tmp_path):
    """A training stopped on one machine, its state carried to the next, its end, and matches."""
    config = Config(3, 2, 1, n_envs=4, n_nodes=3, buffer_len=2)
    job = Job(config, 6*config.n_envs*config.flops_per_sample, 'bee/3', .4)
    with triton_kernels(), sql.use(None), pavlov.use_root(tmp_path/'first'):
        settings = {k: v for k, v in vars(config).items()}
        run = train(**settings, snapshots=job.snapshots, description='bee/3', device=DEVICE,
                    flops=job.snapshots[-1]/2, progress=False)
        with runs.update(run) as info:
            info['params']['limits'] = {'flops': job.snapshots[-1]}
        packs.save([job], sql.create(tmp_path/'first'/'replica.sqlite'), tmp_path/'state')
        with pavlov.use_root(tmp_path/'second'):
            packs.load(tmp_path/'state')
            training._train((job, str(tmp_path/'second'), DEVICE))
            assert sweep.done(job) and sweep.find(job) == run
            with sql.use(tmp_path/'second'/'replica.sqlite'):
                sweep.register(job)
                a, *_, b = sql.agent_query().query('width > 0').index
                assert rating.play([(a, b, 2)], packs._Here(), device=DEVICE) == 4
                assert sql.trial_query(3)[['black_wins', 'white_wins']].to_numpy().sum() == 4
