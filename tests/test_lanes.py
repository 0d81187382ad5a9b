"""Vectors in compiled functions against NumPy, and bfloat16 against torch."""
import numpy as np
import pytest
import torch
from numba import njit

from boardlaw import lanes
from boardlaw.lanes import LANES

DRAW = np.random.default_rng(0)


def floats(n, *special):
    x = (DRAW.normal(size=n)*10.**DRAW.integers(-30, 30, n)).astype(np.float32)
    x[:len(special)] = special
    return x


@pytest.mark.parametrize('n, whole', [(0, 0), (1, 16), (16, 16), (17, 32), (128, 128)])
def test_whole(n, whole):
    assert lanes.whole(n) == whole == njit(lambda: lanes.whole(n))()


def test_load_and_store_count_from_the_beginning():
    @njit
    def move(x, y):
        lanes.store(y, 3, lanes.load(x, 40 + 5))

    x, y = floats(80).reshape(2, 40), np.zeros((4, 5), np.float32)
    move(x, y)
    assert (y.ravel()[3:19] == x[1, 5:5 + LANES]).all() and (y.ravel()[[0, 1, 2, 19]] == 0).all()


def test_bfloat16_is_rounded_as_torch_does():
    @njit
    def there_and_back(x, half, y):
        for i in range(0, len(x), LANES):
            lanes.store(half, i, lanes.load(x, i))
            lanes.store(y, i, lanes.load(half, i))

    x = floats(1 << 12, np.inf, -np.inf, np.nan, 0., -0., 3.4e38, 1e-45, 1 + 2**-8, 1 + 3*2**-8)
    half, y = np.zeros(len(x), np.int16), np.zeros_like(x)
    there_and_back(x, half, y)
    expected = torch.from_numpy(x).bfloat16()
    assert (half == expected.view(torch.int16).numpy())[~np.isnan(x)].all()
    np.testing.assert_array_equal(y, expected.float().numpy())


def test_arithmetic():
    @njit
    def each(x, y, a, bits, out):
        u, v = lanes.load(x, 0), lanes.load(y, 0)
        lanes.store(out, 0, lanes.add(u, v))
        lanes.store(out, LANES, lanes.add_scaled(u, a, v))
        lanes.store(out, 2*LANES, lanes.relu(u))
        lanes.store(out, 3*LANES, lanes.larger(u, v))
        lanes.store(out, 4*LANES, lanes.keep(bits, u, v))
        lanes.store(out, 5*LANES, lanes.splat(a))
        return lanes.largest(u)

    for _ in range(100):
        x, y = DRAW.normal(size=(2, LANES)).astype(np.float32)
        a, bits = np.float32(DRAW.normal()), DRAW.integers(0, 1 << 63, dtype=np.uint64)
        out = np.zeros((6, LANES), np.float32)
        assert each(x, y, a, bits, out) == x.max()
        assert (out[0] == x + y).all()
        np.testing.assert_allclose(out[1], x + a.astype(float)*y, rtol=1e-6, atol=1e-6)
        assert (out[2] == np.maximum(x, 0)).all() and (out[3] == np.maximum(x, y)).all()
        assert (out[4] == np.where(int(bits) >> np.arange(LANES) & 1, x, y)).all()
        assert (out[5] == a).all()


def test_nan_is_passed_over_where_the_search_relies_on_it():
    @njit
    def both(x, y, out):
        lanes.store(out, 0, lanes.relu(lanes.load(x, 0)))
        lanes.store(out, LANES, lanes.larger(lanes.load(x, 0), lanes.load(y, 0)))

    out = np.ones((2, LANES), np.float32)
    both(np.full(LANES, np.nan, np.float32), np.full(LANES, -2, np.float32), out)
    assert (out[0] == 0).all() and (out[1] == -2).all()
