import numpy as np
import pytest
import torch

from boardlaw import learning, networks
from boardlaw.hex import Hex
from boardlaw.learning import Batch
from boardlaw.networks import Network, Output

pytestmark = pytest.mark.usefixtures('one_thread')


def a_batch(n=256, boardsize=3, seed=0):
    """Random-play positions with made-up targets."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**63, n, np.uint64)
    world = Hex.cat([Hex.initial(n//8, boardsize).random_steps(k, keys[k::8])[0]
                     for k in range(8)])
    policy = torch.from_numpy(rng.gamma(.3, size=world.valid.shape)).float()*world.valid
    policy[::7] = policy[::7].round()*world.valid[::7]     # some valid actions weigh nothing
    policy[policy.sum(1) == 0] = world.valid[policy.sum(1) == 0].float()
    policy /= policy.sum(1, keepdim=True)
    prior = world.valid/world.valid.sum(1, keepdim=True)
    won = torch.from_numpy(rng.choice([-1., 1.], n)).float()
    return Batch(world.obs, world.valid, world.seats, policy, prior, torch.stack([won, -won], 1))


def a_network(boardsize=3, width=8, depth=2, seed=0):
    torch.manual_seed(seed)
    network = Network(boardsize, width, depth)
    with torch.no_grad():
        for layer in network.body[1:]:
            layer.α.fill_(.5)
    return network


# Reward-to-go

def plain_reward_to_go(rewards, terminal, bootstrap):
    T, n_envs, n_seats = rewards.shape
    result = np.zeros(rewards.shape)
    for e in range(n_envs):
        for s in range(n_seats):
            for t in range(T):
                total, u = 0, t
                while True:
                    if u == T:
                        total += bootstrap[e, s]
                        break
                    total += rewards[u, e, s]
                    if terminal[u, e]:
                        break
                    u += 1
                result[t, e, s] = total
    return result


@pytest.mark.parametrize('shape', [(1, 1, 1), (7, 5, 2), (16, 9, 3), (64, 4, 2), (0, 3, 2)])
@pytest.mark.parametrize('p', [0, .2, 1])
def test_reward_to_go_agrees_with_a_plain_loop(shape, p):
    rng = np.random.default_rng(0)
    rewards = torch.from_numpy(rng.normal(size=shape)).float()
    terminal = torch.from_numpy(rng.random(shape[:2]) < p)
    bootstrap = torch.from_numpy(rng.normal(size=shape[1:])).float()
    before = [x.clone() for x in (rewards, terminal, bootstrap)]
    result = learning.reward_to_go(rewards, terminal, bootstrap)
    np.testing.assert_allclose(result, plain_reward_to_go(*(x.numpy() for x in before)), atol=1e-4)
    assert all(torch.equal(x, y) for x, y in zip(before, (rewards, terminal, bootstrap)))


def test_reward_to_go_by_hand():
    # One game: a step, a winning step for seat 1, then two steps of an unfinished game.
    rewards = torch.tensor([[0., 0], [-1, 1], [0, 0], [0, 0]]).unsqueeze(1)
    terminal = torch.tensor([[False], [True], [False], [False]])
    result = learning.reward_to_go(rewards, terminal, torch.tensor([[.25, -.25]]))
    assert result[:, 0].tolist() == [[-1, 1], [-1, 1], [.25, -.25], [.25, -.25]]


# Losses

def test_losses_agree_with_their_definition():
    batch, network = a_batch(), a_network()
    output = network(batch)
    loss = learning.losses(output, batch)
    policy, value = 0, 0
    for i in range(len(batch.seats)):
        for a in range(9):
            if batch.policy[i, a] > 0:
                policy -= (batch.policy[i, a]*output.logits[i, a]).item()/len(batch.seats)
        mover = batch.seats[i]
        value += (output.v[i, mover] - batch.reward_to_go[i, mover]).item()**2/len(batch.seats)
    assert loss.policy.item() == pytest.approx(policy, rel=1e-4)
    assert loss.value.item() == pytest.approx(value, rel=1e-4)   # both seats err alike


def test_an_action_without_a_target_or_not_valid_has_no_weight():
    valid = torch.tensor([[True, True, True, False]])
    logits = torch.tensor([[1., 2, 3, 4]]).masked_fill(~valid, -torch.inf).log_softmax(1)
    logits.requires_grad_()
    output = Output(logits, torch.zeros(1, 2))
    # The third action's probability underflowed; the fourth, not valid, has garbage.
    batch = Batch(None, valid, torch.tensor([0]), torch.tensor([[.5, .5, 0, .5]]), None,
                  torch.zeros(1, 2))
    loss = learning.losses(output, batch)
    assert loss.policy.item() == pytest.approx(-(.5*logits[0, 0] + .5*logits[0, 1]).item())
    loss.policy.backward()
    assert logits.grad.tolist() == [[-.5, -.5, 0, 0]]


def test_the_policy_loss_is_least_at_the_target():
    batch = a_batch()
    entropy = learning.losses(Output(batch.policy.log(), batch.reward_to_go), batch)
    others = torch.randn(20, *batch.policy.shape, generator=torch.Generator().manual_seed(0))
    assert entropy.value.item() == 0
    for x in others:
        logits = x.masked_fill(~batch.valid, -torch.inf).log_softmax(1)
        loss = learning.losses(Output(logits, batch.reward_to_go), batch)
        assert loss.policy > entropy.policy


def test_gradients_agree_with_finite_differences():
    batch = a_batch(32)
    network = a_network().double()
    batch = Batch(*(x.double() if x.is_floating_point() else x for x in vars(batch).values()))
    found = learning.gradients(network, batch)['joint']
    params = list(network.parameters())
    ends = np.cumsum([x.numel() for x in params])
    rng = np.random.default_rng(0)
    for j in rng.choice(ends[-1], 20, replace=False):
        k = int(np.searchsorted(ends, j, side='right'))
        entry = params[k].data.view(-1)
        at, kept = j - (ends[k - 1] if k else 0), None
        kept = entry[at].item()
        sums = []
        for h in (1e-5, -1e-5):
            entry[at] = kept + h
            sums.append(sum(learning.losses(network(batch), batch)).item())
        entry[at] = kept
        assert found[j].item() == pytest.approx((sums[0] - sums[1])/2e-5, abs=1e-7)


def test_optimise_learns_a_fixed_batch():
    batch = a_batch(256)[96:160]    # three to four moves each: hardly two positions are the same
    network = a_network(width=32)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    first = learning.optimise(network, optimiser, batch)[1]
    for _ in range(150):
        output, loss = learning.optimise(network, optimiser, batch)
    entropy = -torch.special.xlogy(batch.policy, batch.policy).sum(1).mean()
    assert loss.value < .3 < .9 < first.value
    assert loss.policy - entropy < .3*(first.policy - entropy)
    assert not (output.v.requires_grad or loss.value.requires_grad)


# Noise scale

def measured(gradients, batch_size):
    """The noise scale from gradients `[n_batches, n_params]`."""
    n_batches, n_params = gradients.shape
    return learning.gradient_noise_scale((gradients.mean(0)**2).mean(), (gradients**2).mean(),
                                         n_params, batch_size, n_batches)


def test_the_noise_scale_of_known_gradients():
    # Per-sample gradients N(g, diag(s^2)): the noise scale is sum(s^2)/|g|^2, exactly.
    rng = np.random.default_rng(0)
    g, s = rng.normal(size=40), rng.gamma(2, size=40)*6
    rows = [measured(rng.normal(g, s/np.sqrt(32), size=(8, 40)), 32) for _ in range(200)]
    # The mean of 200 has a standard error; 4 of them bound the error of an unbiased estimator.
    for name, true in [('trace', (s**2).mean()), ('signal', (g**2).mean())]:
        found = [row[name] for row in rows]
        assert abs(np.mean(found) - true) < 4*np.std(found)/np.sqrt(200)
    total = {name: sum(row[name] for row in rows) for name in ('trace', 'signal')}
    assert total['trace']/total['signal'] == pytest.approx((s**2).sum()/(g**2).sum(), rel=.1)


def test_the_noise_scale_is_mccandlish_with_two_batch_sizes():
    gradients = np.random.default_rng(0).normal(1, 1, (16, 10))
    small, big = 8, 8*16
    g_small = (gradients**2).sum(1).mean()
    g_big = (gradients.mean(0)**2).sum()
    m = measured(gradients, small)
    assert m['signal']*10 == pytest.approx((big*g_big - small*g_small)/(big - small))
    assert m['trace']*10 == pytest.approx((g_small - g_big)/(1/small - 1/big))
    # The sample variance, as numpy has it.
    assert m['variance'] == pytest.approx(gradients.var(0, ddof=1).mean())


def test_noise_scales_of_batches():
    batch, network = a_batch(256), a_network()
    parts = [batch[i:i + 64] for i in range(0, 256, 64)]
    rows = {kind: np.stack([learning.gradients(network, part)[kind].numpy() for part in parts])
            for kind in ('policy', 'value', 'joint')}
    whole = learning.gradients(network, batch)
    scales = learning.noise_scales(network, iter(parts))
    total = networks.count_params(3, 8, 2) + 2    # and two α
    for kind, n_params in [('policy', total - 9), ('value', total - 8*9 - 9), ('joint', total)]:
        np.testing.assert_allclose(rows[kind].mean(0), whole[kind], atol=1e-6)
        found = {name: float(x) for name, x in scales[kind].items()}
        assert (found['n_params'], found['batch_size'], found['batches']) == (n_params, 64, 4)
        assert found == pytest.approx(measured(rows[kind], 64), rel=1e-3, abs=1e-7)


# Diagnostics

def test_diagnostics_agree_with_their_definitions():
    batch, network = a_batch(), a_network()
    output = Output(*(x.detach() for x in network(batch)))
    loss = learning.losses(output, batch)
    found = {k: (t/c).item() for k, (t, c) in learning.diagnostics(output, batch, loss).items()}
    pi, target, prior = (x.double().numpy() for x in
                         (output.logits.exp(), batch.policy, batch.prior))
    valid, goal, v = batch.valid.numpy(), batch.reward_to_go.numpy(), output.v.numpy()

    def kl(p, q):
        return np.mean([sum(a*np.log(a/b) for a, b in zip(x, y) if b > 0 and a > 0)
                        for x, y in zip(p, q)])

    def entropy(p):
        return np.mean([-sum(a*np.log(a) for a in x if a > 0) for x in p])

    uniform = np.log(valid.sum(1)).mean()
    log_pi, log_target = np.log(pi[valid]), np.log(target[target > 0])
    expected = {
        'loss.policy': loss.policy, 'loss.value': loss.value,
        'corr.resid-var': ((v - goal)**2).mean()/(goal**2).mean(),
        'kl-div.prior': kl(pi, prior), 'kl-div.behaviour': kl(pi, target),
        'rel-entropy.policy': entropy(pi)/uniform, 'rel-entropy.targets': entropy(target)/uniform,
        'policy-conc': target.max(1).mean(),
        'v.outputs.mean': v.mean(), 'v.outputs.std': v.std(), 'v.outputs.max': abs(v).max(),
        'v.target.mean': goal.mean(), 'v.target.std': goal.std(), 'v.target.max': 1,
        'p.outputs.mean': log_pi.mean(), 'p.outputs.std': log_pi.std(),
        'p.outputs.max': abs(log_pi).max(), 'p.target.mean': log_target.mean(),
        'p.target.std': log_target.std(), 'p.target.max': abs(log_target).max()}
    assert found == pytest.approx({k: float(x) for k, x in expected.items()}, rel=1e-4, abs=1e-6)


def test_diagnostics_of_a_network_that_is_right():
    batch = a_batch()
    output = Output(batch.policy.clamp_min(1e-30).log(), batch.reward_to_go)
    loss = learning.losses(output, batch)
    found = {k: (t/c).item() for k, (t, c) in learning.diagnostics(output, batch, loss).items()}
    assert found['corr.resid-var'] == 0 and found['kl-div.behaviour'] == pytest.approx(0, abs=1e-6)
    assert found['rel-entropy.policy'] == pytest.approx(found['rel-entropy.targets'], rel=1e-5)
    assert 0 < found['rel-entropy.policy'] < 1


def test_correlation_of_some_entries():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30, 2))
    weight = rng.random((30, 2)) < .5
    found = learning.correlation(*(torch.from_numpy(z) for z in (x, x + y, weight)))
    assert found.item() == pytest.approx(np.corrcoef(x[weight], (x + y)[weight])[0, 1])
    none = learning.correlation(*(torch.from_numpy(z) for z in (x, y, weight & False)))
    assert torch.isnan(none)


def test_step_diagnostics():
    batch, network = a_batch(), a_network()
    before = learning.flat(network.parameters())
    optimiser = torch.optim.SGD(network.parameters(), lr=.5)
    learning.optimise(network, optimiser, batch)
    found = {k: row[0].item() for k, row in learning.step_diagnostics(network, before).items()}
    gradient = np.concatenate([x.grad.numpy().ravel() for x in network.parameters()])
    assert found == pytest.approx({
        'step.std': gradient.std(ddof=1)/2, 'step.max': abs(gradient).max()/2,
        'grad.std': gradient.std(ddof=1), 'grad.max': abs(gradient).max(),
        'grad.norm': (gradient**2).sum()**.5}, rel=1e-3)


def test_game_diagnostics_by_hand():
    # Two games over four steps: the first is won by seat 0 at step 1 and by seat 1 at step 3, the
    # second by seat 0 at step 2.
    wins = torch.tensor([[0., 0], [1, 0], [0, 1], [-1, 0]])
    rewards, terminal = torch.stack([wins, -wins], -1), wins != 0
    v = torch.tensor([[.5, .1], [.4, .2], [-.3, .3], [.6, .1]])
    found = learning.game_diagnostics(rewards, terminal, torch.stack([v, -v], -1))
    ratio = {k: (total/count).item() for k, (total, count) in found.items()}
    last, result = np.array([.4, .3, .6]), np.array([1, 1, -1])
    before = np.array([.5, .2, -.3])
    both = [np.concatenate([x, -x]) for x in (last, before, result)]
    assert ratio == pytest.approx({
        'traj-length': 8/3, 'wins.seat-0': 2/3, 'wins.seat-1': 1/3,
        'corr.terminal': np.corrcoef(both[0], both[2])[0, 1],
        'corr.penultimate': np.corrcoef(both[1], both[2])[0, 1]})


def test_game_diagnostics_of_one_move_games():
    rewards = torch.tensor([1., -1]).expand(4, 3, 2)
    found = learning.game_diagnostics(rewards, torch.ones(4, 3, dtype=torch.bool), rewards*.9)
    assert torch.isnan(found['corr.penultimate'][0])    # no game has a move before the last
    assert found['traj-length'][0]/found['traj-length'][1] == 1
