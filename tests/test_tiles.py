"""Products on a CPU's tiles against torch's, and networks on tiles against the plain network."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config, njit
from opinionated import make_network

from boardlaw import rng, tiles
from boardlaw.hex import Hex
from boardlaw.mcts import batched, fused
from boardlaw.mcts.evaluation import padded, weights
from boardlaw.mcts.tree import allocate

each_way = pytest.mark.parametrize('way', [
    pytest.param(way, marks=pytest.mark.skipif(
        way not in tiles.ways(), reason=f'this CPU lacks instructions for bfloat16 ({way})'))
    for way in tiles.WAYS])


@pytest.mark.parametrize('name, value', [('CPU_NAME', 'generic'), ('CPU_FEATURES', '+sse2'),
                                         ('ENABLE_AVX', 0)])
def test_nothing_is_used_that_numba_may_not(name, value, monkeypatch):
    monkeypatch.setattr(config, name, value)
    assert tiles.ways.__wrapped__() == ()


def test_pack_lays_rows_in_pairs():
    """By the plain definition: element (2*p + r, c) of a tile is number r of pair (p, c)."""
    matrix = torch.arange(2*64*96).reshape(2, 64, 96) % 251
    packed = torch.from_numpy(tiles.pack(matrix.float())).view(torch.bfloat16)
    assert packed.shape == (2, 6, 2, 16, 16, 2)
    for layer, column, row, pair, c, r in [(0, 0, 0, 0, 0, 0), (1, 5, 1, 15, 15, 1),
                                           (0, 2, 1, 7, 3, 1), (1, 4, 0, 9, 11, 0)]:
        assert (packed[layer, column, row, pair, c, r]
                == matrix[layer, 32*row + 2*pair + r, 16*column + c])


@njit
def _product(shapes, a, w, start, start_by, x):
    n, columns = a.shape[1]*a.shape[3], x.shape[1]
    tiles.configure(shapes)
    for i in range(0, x.shape[0], 32):
        for j in range(0, columns, 32):
            begin = i//16*start_by[1] + j//16*start_by[0]
            tiles.product(shapes, a, i*n, n, w, j*n, start, begin, start_by,
                          x, i*columns + j, (16, 16*columns, columns))
    tiles.release(shapes)


@each_way
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_product(way, rows, inner, columns, same, seed):
    """Integers up to 15 and their sums are exact in any order of the additions."""
    torch.manual_seed(seed)
    a, w = (torch.randint(-15, 16, (32*n, 32*m)).float()
            for n, m in ((rows, inner), (inner, columns)))
    start = torch.randint(-99, 99, (1 if same else 32*rows, 32*columns)).float()
    in_tiles = a.bfloat16().reshape(2*rows, 16, inner, 32).transpose(1, 2).contiguous()
    x = np.empty((32*rows, 32*columns), np.float32)
    steps = (16, 0, 0) if same else (16, 16*32*columns, 32*columns)
    _product(tiles.WAYS[way], in_tiles.view(torch.int16).numpy(), tiles.pack(w), start.numpy(),
             steps, x)
    np.testing.assert_array_equal(x, start + a@w)


@each_way
@pytest.mark.parametrize('boardsize, width, depth, n', [
    (3, 16, 2, 1), (5, 128, 4, 33), (8, 256, 1, 64), (9, 512, 4, 70), (11, 200, 3, 5),
    (13, 129, 2, 31)])
def test_networks_on_tiles(way, boardsize, width, depth, n, monkeypatch):
    """The outputs are those of the network but for what 8 bits lose, in every row."""
    monkeypatch.setenv('BOARDLAW_BFLOAT16', '1')
    monkeypatch.setattr(tiles, 'ways', lambda: (way,))
    network = make_network(boardsize, width, depth)
    keys = rng.keys(0, n, 0)
    world = Hex.initial(n, boardsize).random_steps(boardsize**2//3, keys)[0]
    tree = allocate(n, 1, boardsize**2)
    states = np.empty((n, 1, *world._bits.shape[1:]), np.uint64)
    fused._begin(tree, states, world._bits, world._seats)
    evaluate = batched.evaluator(padded(weights(network)), n)
    assert isinstance(evaluate, batched.Tiled)
    evaluate(tree, states, n)
    with torch.no_grad():
        x = world.obs.flatten(1)
        for layer in network.body:
            x = layer(x)
        expected = torch.cat([network.policy(x), network.value(x)], -1)
    found = torch.from_numpy(evaluate.out)[:n, :boardsize**2 + 1]
    assert (found - expected).abs().max() < .02*expected.abs().max()
    assert not torch.equal(found, expected)
