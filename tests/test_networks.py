from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from boardlaw import networks, rng
from boardlaw.hex import Hex
from boardlaw.networks import Network

FIXTURES = Path(__file__).parent / 'fixtures/original-format'


def perturbed(boardsize=5, width=16, depth=3, seed=0):
    """A network whose every parameter, the α among them, is random."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(boardsize, width, depth)
    with torch.no_grad():
        for x in network.parameters():
            x.copy_(torch.randn(x.shape, generator=generator)/2)
    return network


def positions(n_envs=64, boardsize=5, seed=0):
    """Games cut off after different numbers of random moves, so that either seat is to move."""
    keys = rng.keys(seed, n_envs, 0)
    world = Hex.initial(n_envs, boardsize)
    return Hex.cat([world[i].random_steps(i, keys[i:i + 1])[0] for i in range(n_envs)])


def reference(state, obs, valid, seats):
    """FORMATS: x = body.0(flat obs), x + α linear(relu(x)), log-softmax, tanh; in float64."""
    p = {name: x.double().numpy() for name, x in state.items()}
    x = obs.double().numpy().reshape(len(obs), -1) @ p['body.0.weight'].T + p['body.0.bias']
    i = 1
    while f'body.{i}.α' in p:
        x = x + p[f'body.{i}.α']*(
            np.maximum(x, 0) @ p[f'body.{i}.weight'].T + p[f'body.{i}.bias'])
        i += 1
    policy = x @ p['policy.core.weight'].T + p['policy.core.bias']
    policy[~valid.numpy()] = -np.inf
    logits = policy - np.log(np.exp(policy).sum(1, keepdims=True))
    v = np.tanh(x @ p['value.core.weight'].T + p['value.core.bias'])[:, 0]
    return logits, np.array([[u, -u] if seat == 0 else [-u, u] for u, seat in zip(v, seats)])


@pytest.mark.parametrize('width, depth', [(1, 1), (2, 4), (16, 0), (64, 8)])
def test_forward_agrees_with_the_formula(width, depth):
    network, world = perturbed(5, width, depth), positions()
    output = network(world)
    logits, v = reference(network.state_dict(), world.obs, world.valid, world.seats)
    np.testing.assert_allclose(output.logits.detach(), logits, atol=1e-4)
    np.testing.assert_allclose(output.v.detach(), v, atol=1e-5)
    assert set(world.seats.tolist()) == {0, 1}


def test_the_mover_is_valued_alike_in_either_seat():
    network, world = perturbed(), positions()
    swapped = SimpleNamespace(obs=world.obs, valid=world.valid, seats=1 - world.seats)
    torch.testing.assert_close(network(world).v, network(swapped).v.flip(1))


def test_no_valid_action_gives_no_probability_and_no_nan():
    network, world = perturbed(), positions(4)
    none = SimpleNamespace(obs=world.obs, valid=torch.zeros_like(world.valid), seats=world.seats)
    output = network(none)
    assert (output.logits == -torch.inf).all() and torch.isfinite(output.v).all()
    output.v.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in network.parameters() if x.grad is not None)


def test_an_empty_batch():
    output = Network(3, 2, 1)(Hex.initial(0, 3))
    assert output.logits.shape == (0, 9) and output.v.shape == (0, 2)


def test_a_new_network_is_linear_and_every_layer_can_learn():
    torch.manual_seed(0)
    network, world = Network(5, 16, 3), positions()
    linear = Network(5, 16, 0)
    linear.load_state_dict({name: x for name, x in network.state_dict().items()
                            if not name.startswith(('body.1', 'body.2', 'body.3'))})
    torch.testing.assert_close(network(world).v, linear(world).v)
    network(world).v[:, 0].sum().backward()
    assert all(layer.α.item() == 0 and layer.α.grad.abs() > 0 for layer in network.body[1:])


@pytest.mark.parametrize('boardsize, width, depth', [(3, 2, 4), (9, 1024, 8), (1, 1, 0)])
def test_parameters_are_counted_as_they_are(boardsize, width, depth):
    with torch.device('meta'):
        network = Network(boardsize, width, depth)
    assert networks.count_params(boardsize, width, depth) \
        == sum(x.numel() for x in network.parameters()) - depth


def test_flops_are_those_of_the_2021_files():
    # A snapshot of a 3x3 run of width 2 and depth 1, 64 nodes: n_samples 768, n_flops 3637248.
    assert 768*networks.flops_per_sample(3, 2, 1) == 3637248
    assert networks.flops_per_sample(3, 2, 1, n_nodes=1) == networks.count_params(3, 2, 1)


@pytest.mark.parametrize('name, args', [('boardsize', (0, 2, 2)), ('width', (3, 0, 2)),
                                        ('depth', (3, 2, -1)), ('width', (3, 2.5, 1))])
def test_an_impossible_architecture_is_refused(name, args):
    with pytest.raises(ValueError, match=name):
        Network(*args)


# Files

def prefixed(state):
    return {f'network.{name}': x for name, x in state.items()} | {'kwargs.n_nodes': 64}


@pytest.mark.parametrize('wrap', [dict, prefixed])
def test_state_goes_round(wrap):
    network, world = perturbed(), positions()
    again = networks.from_state_dict(wrap(network.state_dict()), boardsize=5)
    assert (again.boardsize, again.width, again.depth) == (5, 16, 3)
    assert torch.equal(again(world).v, network(world).v)
    with torch.no_grad():
        again.body[0].weight.zero_()
    assert network.body[0].weight.abs().sum() > 0


def test_loading_leaves_the_global_random_numbers_alone():
    state = perturbed().state_dict()
    before = torch.random.get_rng_state()
    networks.from_state_dict(state)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_snapshots_of_2021_load_and_evaluate():
    files = sorted(FIXTURES.glob('output/pavlov/*/storage.snapshot.*.pkl'))
    assert len(files) == 7
    world = positions(64, 3)
    for file in files:
        state = torch.load(file, weights_only=True, map_location='cpu')['agent']
        network = networks.from_state_dict(state, boardsize=3)
        assert (network.width, network.depth) == (2, 1)
        assert {f'network.{name}' for name in network.state_dict()} \
            == {name for name in state if not name.startswith('kwargs.')}
        output = network(world)
        bare = {name.removeprefix('network.'): x for name, x in state.items()
                if name.startswith('network.')}
        logits, v = reference(bare, world.obs, world.valid, world.seats)
        np.testing.assert_allclose(output.logits.detach(), logits, atol=1e-5)
        np.testing.assert_allclose(output.v.detach(), v, atol=1e-6)


def broken(change):
    state = perturbed().state_dict()
    change(state)
    return state


@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('value.core.bias'), 'missing: value.core.bias'),
    (lambda s: s.pop('body.0.weight'), 'body.0.weight is missing'),
    (lambda s: s.pop('body.2.α'), 'missing: body.2.α'),
    (lambda s: s.clear(), 'missing'),
    (lambda s: s.update({'sampler': torch.zeros(3)}), 'unknown: sampler'),
    (lambda s: s.update({'body.9.α': torch.zeros(())}), 'unknown: body.9.α'),
    (lambda s: s.update({'policy.core.weight': torch.zeros(24, 16)}), 'weight has shape'),
    (lambda s: s.update({'body.0.weight': torch.zeros(16, 51)}), 'no square board'),
    (lambda s: s.update({'body.0.weight': torch.zeros(50)}), 'must be a matrix'),
    (lambda s: s.update({'body.0.weight': torch.zeros(0, 50)}), 'must be a matrix'),
    (lambda s: s.update({'body.1.weight': torch.zeros(1).expand(10**6, 10**6)}), 'holds fewer'),
    (lambda s: s.update({'body.1.α': torch.tensor(torch.nan)}), 'body.1.α holds'),
    (lambda s: s.update({'body.0.bias': torch.full((16,), torch.inf)}), 'body.0.bias holds'),
    (lambda s: s.update({'body.0.bias': torch.zeros(16, dtype=torch.int64)}), 'floating-point'),
    (lambda s: s.update({'body.0.bias': [0.]*16}), 'floating-point')])
def test_a_broken_state_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        networks.from_state_dict(broken(change))


def test_another_board_is_refused():
    with pytest.raises(ValueError, match='5x5 board, not for 3x3'):
        networks.from_state_dict(perturbed().state_dict(), boardsize=3)
    with pytest.raises(ValueError, match='maps names to tensors'):
        networks.from_state_dict([1, 2])
