"""The search against its plain reference, brute force, and games whose values are known."""
import copy
import itertools
from collections import Counter

import numpy as np
import pytest
import tiny_games
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opinionated import make_network
from scipy import optimize, stats

from boardlaw import mcts, rng, tiles
from boardlaw.hex import Hex
from boardlaw.mcts import BadSearch, MCTSAgent, batched, fused, generic, kernels, reference
from boardlaw.mcts import tree as trees
from boardlaw.mcts.agent import sample
from boardlaw.networks import Output

SEEDED = settings(deadline=None, derandomize=True, database=None, max_examples=25)
BOTH = pytest.mark.parametrize('rule, unvisited', [
    ('corrected', 'parent'), ('corrected', 'worst'), ('2021', 'worst')])


def positions(boardsize, n_envs, seed=0, most=.7):
    """Random unfinished games of all lengths up to ``most`` of the board, both seats to move."""
    keys = rng.keys(seed, n_envs, 0)
    worlds = []
    for i in range(n_envs):
        world, n_moves = Hex.initial(1, boardsize), int(i*most*boardsize**2/n_envs)
        for move in range(n_moves):
            after, transition = world.step(world.random_actions(keys[i:i + 1] + np.uint64(move)))
            if transition.terminal:
                break
            world = after
        worlds.append(world)
    return Hex.cat(worlds or [Hex.initial(0, boardsize)])


def plain(network):
    """The same network, as something that the compiled road does not know."""
    return lambda world: network(world)


def nodes(found, game):
    """The nodes in use of one game's tree."""
    return found.tree.nodes[game, :found.tree.size[game]]


def paths(found, game):
    """Visits of every node of one game's tree, by the moves that lead there."""
    moves, visits = {}, {}
    for i, node in enumerate(nodes(found, game)):
        moves[i] = moves[node['parent']] + (int(node['action']),) if i else ()
        visits[moves[i]] = int(node['n'])
    return visits


def reference_paths(node, moves=()):
    """The same of the reference's tree."""
    below = [reference_paths(child, (*moves, a)) for a, child in node.children.items()]
    return {moves: node.n} | {k: n for part in below for k, n in part.items()}


def root_policy(found, game, prior, c_puct, rule, unvisited):
    """pi_bar of the root by the reference, from the visits and values that the tree holds."""
    tree = nodes(found, game)
    children = tree[tree['parent'] == 0]
    q, n = np.zeros(len(prior)), np.zeros(len(prior), int)
    q[children['action']], n[children['action']] = children['q'], children['n']
    sign = 1. - 2*tree['seat'][0]
    scale = 1/np.abs(tree['q']).max() if rule == '2021' and tree['q'].any() else 1.
    mean = sign*scale*tree['q'][0]
    return reference.policy(prior/prior.sum(), sign*scale*q, n, c_puct, rule,
                            mean if unvisited == 'parent' else -1.)


# The reference itself

def test_policy_solves_the_formula():
    """Against brentq on the formula as it is printed, and a case solved by hand."""
    random = np.random.default_rng(0)
    for _ in range(50):
        n_actions, c = random.integers(2, 30), 10**random.uniform(-2, 1)
        prior = random.dirichlet(np.ones(n_actions))
        q, n = random.uniform(-1, 1, n_actions), random.integers(0, 9, n_actions)
        n[0] += 1
        for rule in ('corrected', '2021'):
            visits = n.sum() if rule == 'corrected' else sum(2*x if x else 1 for x in n)
            lam = c*(visits**.5 if rule == 'corrected' else visits)/(visits + n_actions)
            value = (1 + np.where(n > 0, q, .3))/2
            alpha = optimize.brentq(lambda x: (lam*prior/(x - value)).sum() - 1,  # noqa: B023
                                    (value + lam*prior).max(), value.max() + lam, xtol=1e-14)
            pi_bar = reference.policy(prior, q, n, c, rule, .3)
            np.testing.assert_allclose(pi_bar, lam*prior/(alpha - value), atol=1e-9)
            assert pi_bar.sum() == pytest.approx(1, abs=1e-9)
    # By hand: lambda = 1 sqrt(4)/(4 + 2) = 1/3 and gap 1/3, so that with delta = alpha - max q
    # 1/6 (1/delta + 1/(delta + 1/3)) = 1, delta^2 = 1/18 and the better move gets 1/sqrt(2).
    np.testing.assert_allclose(reference.policy([.5, .5], [1/3, -1/3], [2, 2], 1),
                               [.5**.5, 1 - .5**.5], atol=1e-12)


def test_policy_is_the_regularised_optimum():
    """pi_bar maximises q.y - lambda KL(pi, y) over the simplex (Grill et al., equation 3)."""
    random = np.random.default_rng(1)
    prior, q = random.dirichlet(np.ones(5)), random.uniform(-1, 1, 5)
    n = np.array([3, 1, 4, 1, 5])
    lam = .7*np.sqrt(n.sum())/(n.sum() + 5)

    def objective(y):
        return (1 + q)/2 @ y - lam*(prior*np.log(prior/y)).sum(-1)
    best = reference.policy(prior, q, n, .7)
    others = random.dirichlet(np.ones(5), 2000)
    mixed = .98*best + .02*others
    assert (objective(best) >= [objective(y) for y in np.concatenate([others, mixed])]).all()
    uniform = reference.policy(prior, np.full(5, .2), n, .7)
    np.testing.assert_allclose(uniform, prior, atol=1e-12)      # equal values: the prior
    np.testing.assert_array_equal(reference.policy(prior, q, 0*n, .7), prior)   # no visits: too


# Kernels against the reference

def random_root(random, n_actions, n_children, spread, seat, values):
    """A tree of one level, as the kernels keep it: (tree, prior, q, n)."""
    tree = trees.allocate(1, n_actions + 1, n_actions)
    logits = spread*random.normal(size=n_actions)
    logits = np.where(logits - logits.max() < kernels.FAINT, -np.inf, logits - logits.max())
    prior = (np.exp(logits)/np.exp(logits).sum()).astype(np.float32)
    actions = random.permutation(np.flatnonzero(prior))[:n_children]
    k = len(actions)
    q, n = np.zeros(n_actions), np.zeros(n_actions, int)
    n[actions] = random.integers(1, 20, k)
    q[actions] = random.uniform(-1, 1, k).astype(np.float32) if values is None else \
        random.choice(np.float32(values), k)
    root, children = tree.nodes[0, 0], tree.nodes[0, 1:k + 1]
    tree.nodes['child'] = -1
    root['seat'], root['n'], root['n_children'] = seat, 1 + n.sum(), k
    root['q'] = (q*n).sum()/(1 + n.sum())
    root['child'] = k or -1
    for name, value in [('action', actions), ('sibling', np.where(np.arange(k), np.arange(k), -1)),
                        ('p', prior[actions]), ('q', q[actions]), ('n', n[actions])]:
        children[name] = value
    tree.prior[0, 0] = prior
    tree.prior[0, 0, actions] = 0
    root['rest'] = tree.prior[0, 0].sum()
    tree.size[0] = k + 1
    return tree, prior.astype(float)/prior.sum(dtype=float), q, n


@BOTH
@pytest.mark.parametrize('c_puct', [1e-6, 1e-3, 1/16, 1/4, 1, 1e3])
def test_root_policies_agree_with_the_reference(rule, unvisited, c_puct):
    """Random visits, values and priors, the smallest 1e-32 of the largest, ties included."""
    random = np.random.default_rng(2)
    c_puct = float(np.float32(c_puct))
    for i, spread in enumerate([0, 1, 3, 10, 30]*8):
        seat, n_actions = i % 2, int(random.choice([1, 2, 9, 25, 81, 361]))
        n_children = int(random.integers(0, min(n_actions, 64) + 1))
        values = [None, None, [1, -1, 0], [.3]][i % 4]
        tree, prior, q, n = random_root(random, n_actions, n_children, spread, seat, values)
        policy, visits = np.empty((1, n_actions), np.float32), np.empty((1, n_actions), np.int32)
        n_leaves = np.empty(1, np.int32)
        generic.results(tree, np.float32(c_puct), kernels.RULES[rule],
                        kernels.UNVISITED[unvisited], policy, visits, n_leaves)
        sign, mean = 1. - 2*seat, float(tree.nodes[0, 0]['q'])
        largest = max(abs(mean), np.abs(q).max()) if rule == '2021' else 1
        sign /= largest or 1
        expected = reference.policy(prior, sign*q, n, c_puct, rule,
                                    sign*mean if unvisited == 'parent' else -1.)
        np.testing.assert_allclose(policy[0], expected, atol=1e-5)
        assert policy.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(visits[0], n)
        assert n_leaves[0] == max(1, (n > 0).sum())


@BOTH
@pytest.mark.parametrize('boardsize', range(3, 10))
def test_searches_agree_with_the_reference(boardsize, rule, unvisited):
    """Trees of 1 to 64 nodes on Hex, with noise at the root and without."""
    network, world = make_network(boardsize), positions(boardsize, 12, boardsize)
    for n_nodes, eps in [(1, 0.), (2, .25), (7, 0.), (31, .25), (64, 0.), (64, .25)]:
        ask = dict(c_puct=1/4, rule=rule, noise_eps=eps, unvisited=unvisited, seed=n_nodes)
        found = mcts.search(world, network, n_nodes, keep_tree=True, **ask)
        # Before anything is visited, the policy is the root's prior with its noise.
        prior = mcts.search(world, network, 1, **ask).policy.double().numpy()
        for game in range(world.n_envs):
            expected = root_policy(found, game, prior[game], 1/4, rule, unvisited)
            np.testing.assert_allclose(found.policy[game], expected, atol=1e-5)


@BOTH
def test_the_reference_grows_the_same_trees(rule, unvisited):
    """From the same draws. Where a draw falls within the kernels' tolerance of 1e-3 from a border
    between two actions the trees part, which one game in ten may do."""
    network, world = make_network(4), positions(4, 20, 3)
    keys = rng.keys(5, 20, 0)
    found = mcts.search(world, network, 24, 1/4, rule, unvisited=unvisited, keys=keys,
                        keep_tree=True)
    same = 0
    for game, key in enumerate(keys):
        root = reference.search(world[game], network, 24, 1/4, rule, unvisited, key)
        if reference_paths(root) == paths(found, game):
            same += 1
            np.testing.assert_allclose(found.prior[game], root.prior, atol=1e-6)
            np.testing.assert_allclose(found.value[game], root.q, atol=1e-5)
            pi_bar = root.policy(1/4, rule, 'worst' if rule == '2021' else unvisited,
                                 reference.stretch(root, rule))
            np.testing.assert_allclose(found.policy[game], pi_bar, atol=1e-4)
            assert found.n_leaves[game] == sum(not node.children for node in root.walk())
    assert same >= 18


@BOTH
def test_choices_follow_brute_force(rule, unvisited):
    """Every way that three choices can go, with its probability by root finding, by chi-square.

    Each move ends the game, so an action's value is its payoff and everything is known."""
    payoffs, logits, c_puct, n_games = [.8, -.3, .1, -.9], [0., 1., -1., .5], .6, 20_000
    prior = np.exp(logits)/np.exp(logits).sum()
    expected = Counter()

    def descend(visits, chance):
        if sum(visits) == 3:
            expected[tuple(visits)] += chance
            return
        n = np.array(visits)
        mean = (n*payoffs).sum()/(1 + n.sum())
        largest = max(np.abs([mean, *np.where(n > 0, payoffs, 0)])) if rule == '2021' else 1
        pi_bar = reference.policy(prior, np.array(payoffs)/(largest or 1), n, c_puct, rule,
                                  mean if unvisited == 'parent' else -1.)
        for a, p in enumerate(pi_bar):
            descend([x + (i == a) for i, x in enumerate(visits)], chance*p)
    descend([0]*4, 1.)

    world = tiny_games.start(tiny_games.bandit(*payoffs), n_games, n_seats=1)
    found = mcts.search(world, tiny_games.table(start=logits), 4, c_puct, rule,
                        unvisited=unvisited)
    counts = Counter(map(tuple, found.visits.tolist()))
    assert set(counts) <= set(expected) and sum(expected.values()) == pytest.approx(1)
    observed, wanted = np.array([(counts[v], n_games*expected[v]) for v in expected]).T
    bins = np.where(wanted < 10, 0, 1 + np.arange(len(wanted)))          # the rare ones together
    observed, wanted = (np.bincount(bins, x) for x in (observed, wanted))
    kept = wanted > 0
    assert kept.sum() >= 8 and stats.chisquare(observed[kept], wanted[kept]).pvalue > 1e-4


def test_each_simulation_follows_its_draws():
    """Every step of every descent took the action on which its random number falls.

    The tree after m simulations is the tree of a search with m nodes, so the path of the next one
    can be read off, and each choice on it checked against the reference's pi_bar."""
    network, world, c_puct = make_network(4), positions(4, 8, 1), .3
    keys = rng.keys(3, 8, 0)
    grown = [mcts.search(world, network, m, c_puct, keys=keys, keep_tree=True)
             for m in range(1, 26)]
    n_choices = 0
    for game, (m, (before, after)) in itertools.product(range(8),
                                                        enumerate(itertools.pairwise(grown), 1)):
        old, new = nodes(before, game), nodes(after, game)
        assert (new['n'][:len(old)] >= old['n']).all()       # the past does not change
        visited = np.flatnonzero(new['n'] > np.pad(old['n'], (0, len(new) - len(old))))
        for depth, (node, child) in enumerate(itertools.pairwise(visited)):
            assert new['parent'][child] == node
            prior = before.tree.prior[game, node].astype(float)
            children = np.flatnonzero(old['parent'] == node)[::-1]         # newest first
            children = children[children > 0]
            q, n = np.zeros(16), np.zeros(16, int)
            moves = old['action'][children]
            prior[moves], q[moves], n[moves] = (old[name][children] for name in ('p', 'q', 'n'))
            sign = 1 - 2*old['seat'][node]
            pi_bar = reference.policy(prior/prior.sum(), sign*q, n, c_puct,
                                      unvisited=float(sign*old['q'][node]))
            order = [*moves, *np.setdiff1d(np.arange(16), moves)]
            edges = np.concatenate([[0], pi_bar[order].cumsum()])
            k = order.index(new['action'][child])
            u = rng.uniforms(keys[game], (m << 12) + depth)
            assert edges[k] - 2e-3 <= u <= edges[k + 1] + 2e-3
            n_choices += 1
    assert n_choices > 8*24


def agree(a, b, share=.95, atol=1e-5):
    """Same visits in (nearly) all games: a draw may fall between two roundings. Same results."""
    same = (a.visits == b.visits).all(1)
    assert same.float().mean() >= share
    for name in ('policy', 'prior', 'value', 'root_value'):
        np.testing.assert_allclose(getattr(a, name)[same], getattr(b, name)[same], atol=atol)
    assert torch.equal(a.n_leaves[same], b.n_leaves[same])


@BOTH
@pytest.mark.parametrize('boardsize, width, depth', [
    (1, 2, 0), (2, 3, 1), (3, 2, 4), (5, 16, 1), (9, 32, 2), (13, 5, 0)])
def test_roads_agree(boardsize, width, depth, rule, unvisited, monkeypatch):
    """Inline, batched and generic, which share the steps but neither rules nor network code."""
    network, world = make_network(boardsize, width, depth), positions(boardsize, 20, 2)
    ask = dict(rule=rule, unvisited=unvisited, noise_eps=.25, seed=9)
    inline = mcts.search(world, network, 40, **ask)
    generic_ = mcts.search(world, plain(network), 40, **ask)
    monkeypatch.setattr(fused, 'INLINE_WIDTH', 0)
    agree(inline, mcts.search(world, network, 40, **ask))
    agree(inline, generic_)
    with torch.no_grad():
        output = network(world)
    np.testing.assert_allclose(inline.prior, output.logits.exp(), atol=1e-6)
    np.testing.assert_allclose(inline.root_value, output.v, atol=1e-5)


@pytest.mark.skipif(not tiles.ways(), reason='this CPU has no instructions for bfloat16')
def test_bfloat16_parity(monkeypatch):
    """Products in bfloat16 carry 8 bits: what the network says moves by 0.03 at most, and what the
    search makes of it by 0.03 on average, for draws fall differently in some games."""
    network, world = make_network(5, 128, 4), positions(5, 64, 4)
    found = {}
    for on in '01':
        monkeypatch.setenv('BOARDLAW_BFLOAT16', on)
        assert batched.is_tiled(128) == (on == '1')
        found[on] = mcts.search(world, network, 32)
    assert not torch.equal(found['0'].prior, found['1'].prior)
    for name in ('prior', 'root_value'):
        assert (getattr(found['0'], name) - getattr(found['1'], name)).abs().max() < .03
    for name in ('policy', 'value'):
        assert (getattr(found['0'], name) - getattr(found['1'], name)).abs().mean() < .03


# Games with known answers

@pytest.mark.parametrize('n_seats, seat', [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize('best', [0, 4])
def test_one_winning_move(n_seats, seat, best):
    payoffs = [(1 if a == best else -1)*(1 - 2*seat) for a in range(5)]
    world = tiny_games.start(tiny_games.bandit(*payoffs, seat=seat), 50, n_seats)
    found = mcts.search(world, tiny_games.uniform, 64)
    assert (found.policy[:, best] > .85).all() and found.policy[:, best].median() > .95
    assert found.value.shape == (50, n_seats)
    assert (found.value[:, seat] > .6).all() and (found.root_value == 0).all()
    if n_seats == 2:
        assert torch.equal(found.value[:, 0], -found.value[:, 1])


def test_nim_is_solved():
    """Whoever faces a multiple of three stones loses; elsewhere one move leaves such a multiple."""
    game = tiny_games.nim()
    states = [(stones, seat) for stones in range(1, 9) for seat in (0, 1)]
    world = tiny_games.World(game, states, 2)
    found = mcts.search(world, tiny_games.uniform, 512)
    for i, (stones, seat) in enumerate(states):
        value, best = tiny_games.solve(game, (stones, seat))
        assert value == (1 if stones % 3 else -1)*(1 - 2*seat)
        assert found.policy[i, list(best)].sum() > .9
        assert abs(found.value[i, 0] - value) < .4


@pytest.mark.parametrize('length', [2, 4, 6])
def test_payoff_deep_in_the_tree(length):
    world = tiny_games.start(tiny_games.corridor(length), 20, n_seats=1)
    found = mcts.search(world, tiny_games.uniform, 512)
    assert (found.policy[:, 1] > .95).all() and (found.value[:, 0] > .3).all()


def test_the_opponents_reply_is_found():
    found = mcts.search(tiny_games.start(tiny_games.TRAP, 20), tiny_games.uniform, 256)
    assert (found.policy[:, 1] > .9).all() and (found.value[:, 0].abs() < .25).all()


@pytest.mark.parametrize('unvisited', ['parent', 'worst'])
def test_payoffs_on_the_way_count(unvisited):
    found = mcts.search(tiny_games.start(tiny_games.TOLL, 20, n_seats=1), tiny_games.uniform, 512,
                        unvisited=unvisited)
    assert tiny_games.solve(tiny_games.TOLL) == (pytest.approx(.4), {1})
    assert (found.policy[:, 1] > .9).all()
    assert (found.value[:, 0] - .4).abs().mean() < .15


@BOTH
def test_what_a_move_paid_is_no_part_of_what_follows(rule, unvisited):
    """An unvisited action is worth what followed its node, not what the move into it paid."""
    game = {'start': (0, {0: ('paid', -.9)}),
            'paid': (0, {0: (None, -.5), 1: (None, -.4), 2: (None, -.6)})}
    world, keys = tiny_games.start(game, 60, n_seats=1), rng.keys(0, 60, 0)
    found = mcts.search(world, tiny_games.uniform, 12, .05, rule, unvisited=unvisited, keys=keys,
                        keep_tree=True)
    same = 0
    for i, key in enumerate(keys):
        root = reference.search(world[i], tiny_games.uniform, 12, .05, rule, unvisited, key)
        same += reference_paths(root) == paths(found, i)
    assert same >= 56


def test_random_game_trees():
    """Against minimax on 40 trees; draws between several best moves are one answer."""
    random = np.random.default_rng(0)
    for _ in range(40):
        game = tiny_games.random_tree(random)
        value, best = tiny_games.solve(game)
        found = mcts.search(tiny_games.start(game), tiny_games.uniform, 512)
        assert found.policy[0, list(best)].sum() > .8
        assert abs(found.value[0, 0] - value) < .5


def test_finished_games():
    with pytest.raises(BadSearch, match='environment 1: no valid action'):
        mcts.search(tiny_games.World(tiny_games.nim(), [(3, 0), None], 2), tiny_games.uniform)
    won, _ = Hex.initial(1, 1).step([0], reset=False)
    for network in (make_network(1), plain(make_network(1))):
        with pytest.raises(BadSearch, match='environment 2: the game is over'):
            mcts.search(Hex.cat([Hex.initial(2, 1), won]), network)


def test_an_immediate_win_is_played():
    """With 64 nodes and a network that knows nothing; some games have several winning moves."""
    texts = ['''. . b .
                 w . b w
                  . . . w
                   . . b .''', '''. . .
                                   w w .
                                    b b .''']
    for text in texts:
        world = Hex.parse(text, seat=0 if text is texts[0] else 1)
        blank = copy.deepcopy(make_network(world.boardsize))
        with torch.no_grad():
            for parameter in blank.parameters():
                parameter.zero_()
        after = [world.step([a], reset=False)[1] if world.valid[0, a] else None
                 for a in range(world.n_actions)]
        wins = [a for a, transition in enumerate(after) if transition and transition.terminal[0]]
        many = Hex.cat([world]*100)
        found = mcts.search(many, blank, 64)
        share = found.policy[:, wins].sum(1)      # a game in 400 never tries the one of 11 moves
        assert wins and share.median() > .9 and (share > .5).float().mean() >= .97
        assert found.value[:, int(world.seats[0])].mean() > .5


# What every search has in common

def check(found, world, n_nodes, valid=None):
    """The invariants of a search's results and trees."""
    valid = world.valid if valid is None else valid
    assert found.policy.dtype == found.prior.dtype == found.value.dtype == torch.float32
    assert found.visits.dtype == found.n_leaves.dtype == torch.int32
    np.testing.assert_allclose(found.policy.sum(1), np.ones(world.n_envs), atol=1e-4)
    np.testing.assert_allclose(found.prior.sum(1), np.ones(world.n_envs), atol=1e-5)
    for x in (found.policy, found.prior, found.visits):
        assert x.shape == valid.shape and (x >= 0).all() and (x[~valid] == 0).all()
    assert (found.visits.sum(1) == n_nodes - 1).all()
    assert (found.value.abs() <= 1).all() and torch.equal(found.value[:, 0], -found.value[:, 1])
    for game in range(world.n_envs):
        tree = nodes(found, game)
        terminal = tree['terminal']
        inner = np.unique(tree['parent'][1:])
        assert found.n_leaves[game] == len(tree) - len(inner)
        # The value is the mean of what the simulations ended at: new nodes, or finished games.
        ends = np.where(terminal, tree['n']*tree['reward'], tree['v'])
        assert ends.sum()/n_nodes == pytest.approx(float(found.value[game, 0]), abs=1e-5)
        assert tree['n'][0] == n_nodes and not terminal[inner].any()
        assert (np.abs(tree['reward']) == terminal).all()
        for i in inner:
            below = tree['n'][np.flatnonzero(tree['parent'][1:] == i) + 1].sum()
            assert tree['n'][i] == 1 + below


@SEEDED
@given(st.integers(1, 13), st.integers(0, 9), st.sampled_from([1, 2, 3, 16, 64]),
       st.sampled_from([1e-6, 1/16, 1/4, 1e3]), st.sampled_from(['corrected', '2021']),
       st.sampled_from([0., .25, 1.]), st.sampled_from([0, 1, 60]), st.booleans(),
       st.integers(0, 2**32))
def test_invariants(boardsize, n_envs, n_nodes, c_puct, rule, eps, sharp, inline, seed):
    """Any board from 1x1 up, empty to nearly full, flat networks and ones with huge logits."""
    network = make_network(boardsize, seed=seed % 97, sharp=sharp)
    world = positions(boardsize, n_envs, seed, most=.95)
    found = mcts.search(world, network if inline else plain(network), n_nodes, c_puct, rule, eps,
                        seed=seed, keep_tree=True)
    check(found, world, n_nodes)


def test_large_trees():
    network, world = make_network(4), positions(4, 3)
    for rule in ('corrected', '2021'):
        check(mcts.search(world, network, 512, rule=rule, keep_tree=True), world, 512)
    check(mcts.search(world[:1], network, 4096, keep_tree=True), world[:1], 4096)


def test_nearly_full_boards():
    """One free cell: the move is forced, and decides the game."""
    full = '''b w b w
               w b w b
                w b w w
                 b w b .'''
    for seat in (0, 1):
        world = Hex.parse(full, seat=seat)
        if world.winner[0] >= 0:
            continue
        found = mcts.search(world, make_network(4), 16, noise_eps=.25)
        assert found.policy[0].tolist() == [0.]*15 + [1.]
        assert found.visits[0, 15] == 15 and found.n_leaves[0] in (1, 2)
    found = mcts.search(Hex.initial(3, 1), make_network(1), 16)
    assert (found.policy == 1).all() and (found.value[:, 0] > .8).all()


@SEEDED
@given(st.integers(1, 13), st.integers(0, 12), st.sampled_from([0, 1]),
       st.sampled_from([1, 2, 17]), st.booleans(), st.sampled_from(['corrected', '2021']))
def test_one_free_cell_that_decides(boardsize, row, seat, n_nodes, inline, rule):
    """Black holds a column but for one cell, White all beside it: who moves, wins."""
    row, column = row % boardsize, boardsize//2
    lines = [''.join('w' if c != column else 'b' if r != row else '.' for c in range(boardsize))
             for r in range(boardsize)]
    world = Hex.parse('\n'.join(lines), seat=seat)
    action = row*boardsize + column if seat == 0 else column*boardsize + row
    network = make_network(boardsize)
    found = mcts.search(world, network if inline else plain(network), n_nodes, rule=rule)
    assert found.policy[0, action] == 1 and found.visits[0].sum() == n_nodes - 1
    v = float(found.root_value[0, seat])
    assert float(found.value[0, seat]) == pytest.approx((v + n_nodes - 1)/n_nodes, abs=1e-5)


def test_no_games_at_all():
    for network in (make_network(3), plain(make_network(3)), make_network(3, 64)):
        found = mcts.search(Hex.initial(0, 3), network, 8, keep_tree=True)
        assert found.policy.shape == found.visits.shape == (0, 9) and found.value.shape == (0, 2)
        assert len(found.tree.nodes) == 0


def test_one_node_gives_the_prior():
    network, world = make_network(5), positions(5, 12)
    with torch.no_grad():
        output = network(world)
    for rule in ('corrected', '2021'):
        found = mcts.search(world, network, 1, rule=rule)
        np.testing.assert_allclose(found.policy, output.logits.exp(), atol=1e-6)
        np.testing.assert_allclose(found.value, output.v, atol=1e-6)
        assert torch.equal(found.value, found.root_value)
        assert (found.n_leaves == 1).all() and not found.visits.any() and found.tree is None


def same(a, b):
    for name in ('policy', 'prior', 'visits', 'value', 'root_value', 'n_leaves'):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def part(found, index):
    return mcts.Search(*(getattr(found, name)[index] for name in (
        'policy', 'prior', 'visits', 'value', 'root_value', 'n_leaves')))


@pytest.mark.parametrize('road', ['inline', 'batched', 'generic'])
def test_a_game_does_not_depend_on_its_neighbours(road, monkeypatch):
    """Batch size, order, chunks and threads. Matrix products round differently with the number of
    their rows, so where torch evaluates the network the policies agree to 1e-4, not to the bit."""
    monkeypatch.setattr(fused, 'INLINE_WIDTH', 32 if road == 'inline' else 0)
    network, world = make_network(5), positions(5, 90, 1)
    asked = plain(network) if road == 'generic' else network
    keys = rng.keys(1, 90, 3)

    def search(index, **more):
        return mcts.search(world[index], asked, 24, keys=keys[index], noise_eps=.25, **more)

    def close(a, b):
        same(a, b) if road == 'inline' else agree(a, b, atol=1e-4)
    whole = search(slice(None), keep_tree=True)
    order = np.random.default_rng(0).permutation(90)
    close(search(order), part(whole, order))
    for index in (slice(0, 1), slice(40, 47), [89], order[:33]):
        close(search(index), part(whole, index))
    for threads in '123':
        monkeypatch.setenv('BOARDLAW_THREADS', threads)
        close(search(slice(None)), whole)
    for chunk in (1, 7, 1000):
        monkeypatch.setattr(fused, 'INLINE_CHUNK', chunk)
        monkeypatch.setattr(fused, 'BATCHED_CHUNK', chunk)
        found = search(slice(None), keep_tree=True)
        close(found, whole)
        if road == 'inline':
            for i in range(90):
                assert (nodes(found, i) == nodes(whole, i)).all()


def test_seeds_and_keys():
    network, world = make_network(5), positions(5, 16)
    first = mcts.search(world, network, seed=3)
    same(first, mcts.search(world, network, seed=3))
    same(first, mcts.search(world, network, keys=rng.keys(3, 16, 0)))
    same(first, mcts.search(world, network, keys=rng.keys(3, 16, 0).tolist()))
    for other in (dict(seed=4), dict(keys=rng.keys(3, 16, 1)), dict(seed=3, noise_eps=.25)):
        found = mcts.search(world, network, **other)
        assert not torch.equal(found.policy, first.policy)
        assert torch.equal(found.prior, first.prior)
    # One game many times over, with a key each: the draws differ, and so do the trees.
    many = mcts.search(Hex.cat([world[5]]*64), network)
    assert len(set(map(tuple, many.visits.tolist()))) > 32
    alike = mcts.search(Hex.cat([world[5]]*64), network, keys=[7]*64)
    assert (alike.policy == alike.policy[0]).all()


# Noise

@pytest.mark.parametrize('alpha', [.02, 10/16, 5.])
def test_noise_is_dirichlet_over_the_valid_actions(alpha):
    """Mean 1/k, variance (k - 1)/(k^2 (k alpha + 1)), each within five of its standard errors, and
    a marginal of Beta(alpha, (k - 1) alpha) by a Kolmogorov-Smirnov test."""
    n, world = 4000, Hex.cat([positions(4, 3, 5)[2]]*4000)
    valid = world.valid[0]
    k = int(valid.sum())
    assert 8 < k < 16
    noise = mcts.search(world, make_network(4), 1, noise_eps=1., dirichlet_alpha=alpha).policy
    assert (noise[:, ~valid] == 0).all()
    x = noise[:, valid].double().numpy()
    np.testing.assert_allclose(x.sum(1), 1, atol=1e-5)
    variance = (k - 1)/(k**2*(k*alpha + 1))
    assert (np.abs(x.mean(0) - 1/k) < 5*np.sqrt(variance/n)).all()
    spread = (x - 1/k)**2
    assert (np.abs(spread.mean(0) - variance) < 5*spread.std(0)/n**.5).all()
    smallest = 1e-30                       # what float32 rounds to 0 is no evidence
    beta = stats.beta(alpha, (k - 1)*alpha)
    for i in (0, k - 1):
        y = x[:, i][x[:, i] > smallest]
        assert stats.kstest(y, lambda t: (beta.cdf(t) - beta.cdf(smallest))  # noqa: B023
                            / beta.sf(smallest)).pvalue > 1e-4


def test_noise_is_mixed_into_the_prior():
    """eps of it, 10/A by default, into the policy and not into what is returned as the prior."""
    network, world = make_network(4), positions(4, 30)
    noise = mcts.search(world, network, 1, noise_eps=1.).policy
    assert torch.equal(noise, mcts.search(world, network, 1, noise_eps=1.,
                                          dirichlet_alpha=10/16).policy)
    mixed = mcts.search(world, network, 1, noise_eps=.25)
    np.testing.assert_allclose(mixed.policy, .75*mixed.prior + .25*noise, atol=1e-6)
    assert torch.equal(mixed.prior, mcts.search(world, network, 1).policy)


@pytest.mark.parametrize('shape', [.01, .3, 1., 7.5, 1e4])
def test_gamma(shape):
    draws, counter = [], 0
    for _ in range(3000):
        x, counter = kernels._log_gamma.py_func(shape, np.uint64(12345), counter)
        draws.append(x)
    assert stats.kstest(draws, stats.loggamma(shape).cdf).pvalue > 1e-4


def test_exp():
    """The prior of a game with 20,001 moves is the exponential of its logits, scaled."""
    logits = np.linspace(-76, 0, 20_001, dtype=np.float32)
    game = tiny_games.bandit(*[0]*len(logits))
    found = mcts.search(tiny_games.start(game), tiny_games.table(start=logits.tolist()), 1)
    prior = found.prior[0].double().numpy()
    expected = np.where(logits >= kernels.FAINT, np.exp(logits.astype(float)), 0)
    assert (prior[expected == 0] == 0).all() and prior[-1] > 0
    kept = expected > 0
    error = np.abs(prior[kept]/prior[-1]/expected[kept] - 1)
    assert (error < 4e-7 + 1e-7*np.abs(logits[kept])).all()


# What cannot be searched

@pytest.mark.parametrize('wrong, words', [
    (dict(c_puct=0), 'c_puct 0: choose a positive number'),
    (dict(c_puct=-1.), 'c_puct -1.0'), (dict(c_puct=float('nan')), 'c_puct nan'),
    (dict(c_puct=float('inf')), 'c_puct inf'), (dict(c_puct=1e-12), 'c_puct 1e-12'),
    (dict(rule='2020'), r"rule '2020': choose one of \['2021', 'corrected'\]"),
    (dict(unvisited='best'), "unvisited 'best'"),
    (dict(n_nodes=0), 'n_nodes 0'), (dict(n_nodes=8.), 'n_nodes 8.0'),
    (dict(n_nodes=5000), 'n_nodes 5000'),
    (dict(noise_eps=-.1), 'noise_eps -0.1'), (dict(noise_eps=1.1), 'noise_eps 1.1'),
    (dict(noise_eps=float('nan')), 'noise_eps nan'),
    (dict(dirichlet_alpha=0), 'dirichlet_alpha 0'),
    (dict(dirichlet_alpha=float('inf')), 'dirichlet_alpha inf'),
    (dict(dirichlet_alpha=float('nan')), 'dirichlet_alpha nan'),
    (dict(keys=rng.keys(0, 3, 0)), r'keys must have shape \[2\].*got \[3\]'),
    (dict(keys=rng.keys(0, 4, 0).reshape(2, 2)), r'got \[2, 2\]')])
def test_bad_settings(wrong, words):
    with pytest.raises(BadSearch, match=words):
        mcts.search(Hex.initial(2, 3), make_network(3), **wrong)


def test_good_settings():
    world, network = Hex.initial(2, 3), make_network(3)
    same(mcts.search(world, network, np.int64(8)), mcts.search(world, network, 8))
    same(mcts.search(world, network, 8, np.float64(.25)), mcts.search(world, network, 8, 1/4))
    same(mcts.search(world, network, 8), mcts.search(world, network, 8, mcts.C_PUCT['corrected']))


def test_network_of_another_board():
    with pytest.raises(BadSearch, match='the network plays 4x4, the world is 3x3'):
        mcts.search(Hex.initial(2, 3), make_network(4))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_network_gone_wrong(bad):
    """One bad number, wherever it stands, is found, and the environment named."""
    world = positions(3, 5)
    good = make_network(3)(world)

    def network(world, cell=None):
        logits, v = (x.detach().clone() for x in good)
        (v if cell is None else logits)[3, 0 if cell is None else cell] = bad
        return Output(logits, v)
    for cell in [None, *torch.nonzero(world.valid[3]).flatten().tolist()]:
        with pytest.raises(BadSearch, match='environment 3: .*nan or infinite'):
            mcts.search(world, lambda w: network(w, cell), 1)  # noqa: B023
    for cell in torch.nonzero(~world.valid[3]).flatten().tolist():    # these do not matter
        mcts.search(world, lambda w: network(w, cell), 1)  # noqa: B023


@SEEDED
@given(st.integers(6, 13), st.sampled_from([1, 2, 5]), st.integers(0, 6), st.integers(0, 99),
       st.sampled_from([float('nan'), float('inf'), -float('inf')]), st.booleans(),
       st.sampled_from(['corrected', '2021']))
def test_a_network_that_goes_wrong_in_the_middle(boardsize, n_envs, call, where, bad, in_v, rule):
    """At any evaluation, in any game, the search ends with an error that names the environment.

    No game ends within so few moves: what a network says of a finished one does not matter."""
    network, world, calls = make_network(boardsize), positions(boardsize, n_envs, most=.05), []
    game = where % n_envs

    def spoilt(leaves):
        logits, v = (x.detach().clone() for x in network(leaves))
        if len(calls) == call:
            assert len(leaves) == n_envs, 'one row a game'
            if in_v:
                v[game, 0] = bad   # Black's value; White's is its negative
            else:   # of a single -inf an action would only be ruled out
                logits[game] = bad
        calls.append(None)
        return Output(logits, v)
    with pytest.raises(BadSearch, match=f'environment {game}: .*nan or infinite'):
        mcts.search(world, spoilt, 8, rule=rule)
    assert len(calls) == call + 1, 'it went on'


@pytest.mark.parametrize('width', [4, 64])
@pytest.mark.parametrize('name', ['body.0.weight', 'body.1.weight', 'policy.core.weight',
                                  'policy.core.bias', 'value.core.bias'])
def test_weights_gone_wrong(name, width):
    network = make_network(3, width)
    with torch.no_grad():
        network.get_parameter(name).fill_(float('nan'))
    with pytest.raises(BadSearch, match='environment 0: .*weights'):
        mcts.search(Hex.initial(2, 3), network, 8)


def test_probabilities_of_zero():
    """A network may rule out an action altogether."""
    world = tiny_games.start(tiny_games.bandit(.1, 1., -1.), 8)
    found = mcts.search(world, tiny_games.table(start=[0., -torch.inf, 0.]), 32)
    assert (found.policy[:, 1] == 0).all() and (found.policy[:, 0] > .8).all()
    with pytest.raises(BadSearch, match='environment 0'):
        mcts.search(world, tiny_games.table(start=[-torch.inf]*3), 32)


def test_faint_priors_and_huge_logits():
    """The best action has a prior of e^-60; once the others are known to lose, it is found."""
    for logit, least in [(-20., .9), (-60., .9), (-74., .9)]:
        world = tiny_games.start(tiny_games.bandit(-1., -1., 1.), 8)
        found = mcts.search(world, tiny_games.table(start=[0., 0., logit]), 64, 1e-3)
        assert (found.policy[:, 2] > least).all(), logit
    network = tiny_games.table(start=[3e38, -3e38, 0.])
    found = mcts.search(tiny_games.start(tiny_games.bandit(-1., 1., 1.), 8), network, 64)
    assert (found.policy[:, 0] == 1).all()


# Agents

def test_actions_follow_the_policy():
    """Each action's count over 10,000 games is a sum of Bernoulli draws: within 4.5 sigma."""
    network, n = make_network(3, sharp=2), 10_000
    world = Hex.cat([positions(3, 4, 2)[2]]*n)
    decisions = MCTSAgent(network, n_nodes=8)(world, seed=1, move=2)
    p = decisions.logits.exp().double().numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-4)
    assert torch.equal(decisions.logits > -torch.inf, world.valid)
    assert decisions.actions.dtype == torch.int64 and decisions.v.shape == (n, 2)
    counts = np.bincount(decisions.actions, minlength=9)
    z = (counts - p.sum(0))/np.sqrt((p*(1 - p)).sum(0) + 1e-9)
    assert (np.abs(z) < 4.5).all() and np.ptp(counts[world.valid[0]]) > 0


def test_sample():
    policy = torch.tensor([[0, .2, 0, .5, .3, 0]]).repeat(20_000, 1)
    counts = np.bincount(sample(policy, rng.keys(0, 20_000, 0)), minlength=6)
    assert stats.chisquare(counts[[1, 3, 4]], [4000, 10_000, 6000]).pvalue > 1e-4
    assert counts.sum() == counts[[1, 3, 4]].sum()
    sure = sample(torch.eye(5), rng.keys(0, 5, 0))
    assert sure.tolist() == [0, 1, 2, 3, 4]


def test_agent_argmax_and_batches():
    network, world = make_network(4), positions(4, 40)
    found = mcts.search(world, network, 16, keys=rng.keys(5, 40, 7))
    greedy = MCTSAgent(network, n_nodes=16, argmax=True)(world, seed=5, move=7)
    assert torch.equal(greedy.actions, found.policy.argmax(1))
    agent = MCTSAgent(network, n_nodes=16)
    whole = agent(world, seed=5, move=7)
    np.testing.assert_allclose(whole.logits.exp(), found.policy, rtol=1e-6)
    np.testing.assert_allclose(whole.prior.exp(), found.prior, rtol=1e-6)
    assert torch.equal(whole.v, found.value) and torch.equal(whole.n_leaves, found.n_leaves)
    order = np.random.default_rng(1).permutation(40)[:23]
    some = agent(world[order], seed=5, move=7, games=order)
    for name in ('actions', 'logits', 'prior', 'v', 'n_leaves'):
        assert torch.equal(getattr(some, name), getattr(whole, name)[order])
    later = agent(world, seed=5, move=8)
    assert not torch.equal(later.actions, whole.actions)
    moves = agent(world, seed=5, move=np.where(np.arange(40) < 20, 7, 8))
    assert torch.equal(moves.actions, torch.cat([whole.actions[:20], later.actions[20:]]))
    assert 'n_nodes=16' in repr(agent) and '4x4' in repr(agent)


def test_agent_settings_reach_the_search():
    network, world = make_network(4), positions(4, 8)
    ask = dict(n_nodes=12, c_puct=.5, rule='corrected', noise_eps=.25, dirichlet_alpha=2.,
               unvisited='worst')
    decisions = MCTSAgent(network, **ask)(world, seed=2)
    found = mcts.search(world, network, keys=rng.keys(2, 8, 0), **ask)
    np.testing.assert_allclose(decisions.logits.exp(), found.policy, rtol=1e-6)
    assert MCTSAgent(network, rule='2021').c_puct == 1/16
    with pytest.raises(BadSearch, match='rule'):
        MCTSAgent(network, rule='2020')(world)
