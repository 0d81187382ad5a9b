"""The networks too large for the compiled pass: products of matrices over the leaves of a chunk.

Where the CPU has instructions for bfloat16 every layer is a product of ours (:class:`Tiled`).
Elsewhere torch multiplies in float32 (:class:`Batched`), all but the first layer.
"""
import os

import numpy as np
import torch
from numba import njit

from .. import tiles
from ..bits import njit_uncounted
from ..lanes import LANES, add, keep, load, relu, splat, store
from ..tiles import BLOCK
from .evaluation import Weights, show_leaf


def is_tiled(width):
    """Whether a network's layers are multiplied in bfloat16, by :mod:`boardlaw.tiles`.

    From 128 neurons on that is several times as fast, if the CPU can. What is multiplied then
    carries 8 bits; sums, the residual stream and everything in the tree stay in float32. The
    environment variable BOARDLAW_BFLOAT16, 0 or 1, overrules the width.
    """
    asked = os.environ.get('BOARDLAW_BFLOAT16')
    return bool(tiles.ways()) and (asked == '1' if asked else width >= 128)


def evaluator(net, n_games):
    """The :class:`Tiled` or :class:`Batched` that evaluates the leaves of up to so many games."""
    return (Tiled if is_tiled(len(net.heads)) else Batched)(net, n_games)


class Batched:
    """A network's layers after the first as torch's products.

    Args:
        net: :class:`~boardlaw.mcts.evaluation.Weights`, padded.

    Attributes:
        out: `[n_games, S*S + 1 and more]` float32, the logits and then the mover's value.
    """

    def __init__(self, net, n_games):
        n, columns = len(net.heads), len(net.first_bias)
        rows = [(0, columns - n), (0, 0)]
        self._net = net
        self._body = [torch.from_numpy(np.pad(w, rows)) for w in net.body]
        self._heads = torch.from_numpy(np.pad(net.heads, rows))
        self._heads_bias = torch.from_numpy(net.heads_bias)
        self._x = torch.empty(n_games, columns)
        self._y, self._z = torch.zeros(2, n_games, columns)
        self._out = torch.empty(n_games, len(net.heads_bias))
        self.out = self._out.numpy()

    def __call__(self, tree, states, n):
        """Evaluates the leaves of the first ``n`` games."""
        x, y, z = self._x[:n], self._y[:n], self._z[:n]
        arrays = [t.numpy() for t in (x, y, z)]
        _show_leaves(tree, states, self._net, arrays[0])
        for layer, weight in enumerate(self._body):
            _between(*arrays, self._net.body_bias, layer)
            torch.mm(y, weight, out=z)
        if self._body:
            x.add_(z)
        torch.addmm(self._heads_bias, x, self._heads, out=self._out[:n])


@njit(nogil=True, cache=True)
def _show_leaves(tree, states, net, x):
    rows = np.empty(len(net.first), np.int64)
    for g in range(len(x)):
        show_leaf(tree, states, g, net, rows, x, g)


@njit(nogil=True, cache=True)
def _between(x, y, z, bias, layer):
    """What comes before a layer's product: adds the last layer's, ``z``, to the stream ``x``, then
    writes its relu to ``y``, of which the product will be, and adds the layer's bias."""
    columns = x.shape[1]
    for i in range(len(x)):
        for j in range(0, columns, LANES):
            value = load(x, i*columns + j)
            if layer > 0:
                value = add(value, load(z, i*columns + j))
            store(y, i*columns + j, relu(value))
            store(x, i*columns + j, add(value, load(bias, layer*columns + j)))


class Tiled:
    """A network's layers as our own products, on tiles; like :class:`Batched` in all else.

    What goes from layer to layer lies as tiles do, 16 rows of 64 bytes together, so that a block
    of it is not scattered over the cache; only the outputs lie in rows.

    Attributes:
        arguments: what :func:`evaluate_on_tiles` takes after the leaves.
        out: as in :class:`Batched`, with rows and columns up to whole blocks.
    """

    def __init__(self, net, n_games):
        rows, depth, width = tiles.whole(n_games), len(net.body), tiles.whole(len(net.heads))
        cells, outputs = len(net.first)//2, tiles.whole(len(net.heads_bias))
        colour = tiles.whole(2*cells)//2   # inputs of one colour
        first = _fitted(net.first.reshape(cells, 2, -1).swapaxes(0, 1), 2, colour, width)
        packed = Weights(
            first=tiles.pack(first.view(2*colour, width)),
            first_bias=_fitted(net.first_bias, width).numpy(),
            body=tiles.pack(_fitted(net.body, depth, width, width)),
            body_bias=_fitted(net.body_bias, depth, width).numpy(),
            heads=tiles.pack(_fitted(net.heads, width, outputs)),
            heads_bias=_fitted(net.heads_bias, outputs).numpy())
        obs = np.zeros((rows, 2*colour), np.int16)
        y, z = np.zeros((2, rows, width), np.int16)
        x = np.zeros((rows, width), np.float32)
        self.out = np.zeros((rows, outputs), np.float32)
        self.arguments = packed, tiles.WAYS[tiles.ways()[0]], obs, y, z, x, self.out

    def __call__(self, tree, states, n):
        """Evaluates the leaves of the first ``n`` games."""
        evaluate_on_tiles(tree, states, n, *self.arguments)


def _fitted(x, *shape):
    """An array cut or filled with zeros to a shape, as a tensor."""
    found, kept = torch.zeros(shape), tuple(slice(min(n, m)) for n, m in zip(x.shape, shape))
    found[kept] = torch.from_numpy(np.ascontiguousarray(x))[kept]
    return found


@njit(nogil=True, cache=True)
def evaluate_on_tiles(tree, states, n, net, shapes, obs, y, z, x, out):
    """All layers: the stream is ``x``; a layer reads ``y`` and writes ``z`` for the next."""
    for g in range(n):
        _observe(tree, states, g, obs)
    inputs, width, outputs, last = obs.shape[1], x.shape[1], out.shape[1], len(net.body) - 1
    # The steps of blocks: of the stream, of the outputs, and of a bias.
    tiled, plain, row = (256, 16*width, 16), (16, 16*outputs, outputs), (16, 0, 0)
    tiles.configure(shapes)
    for j in range(0, width, BLOCK):
        for i in range(0, n, BLOCK):
            at = i*width + 16*j
            tiles.product(shapes, obs, i*inputs, inputs, net.first, j*inputs,
                          net.first_bias, j, row, x, at, tiled)
            _finish(x, at, y, net.body_bias, j, last < 0)
    for layer in range(len(net.body)):
        for j in range(0, width, BLOCK):
            for i in range(0, n, BLOCK):
                at = i*width + 16*j
                tiles.product(shapes, y, i*width, width, net.body, (layer*width + j)*width,
                              x, at, tiled, x, at, tiled)
                _finish(x, at, z, net.body_bias, (layer + 1)*width + j, layer == last)
        y, z = z, y
    for j in range(0, outputs, BLOCK):
        for i in range(0, n, BLOCK):
            tiles.product(shapes, y, i*width, width, net.heads, j*width,
                          net.heads_bias, j, row, out, i*outputs + j, plain)
    tiles.release(shapes)


@njit_uncounted(forceinline=True)
def _observe(tree, states, g, obs):
    """What row ``g`` of the observations holds: the mover's stones, then the other's."""
    leaf = tree.leaf[g]
    seat, n = np.int64(tree.nodes[g, leaf].seat), obs.shape[1]
    one, zero = splat(np.float32(1)), splat(np.float32(0))
    for j in range(0, n, LANES):
        colour, cell = divmod(j, n//2)
        stones = states[g, leaf, seat, colour, cell//64] >> np.uint64(cell % 64)
        at = g//16*16*n + j//32*512 + g % 16*32 + j % 32
        store(obs, at, keep(stones, one, zero))


@njit_uncounted(forceinline=True)
def _finish(x, at, y, bias, bias_at, last):
    """What comes after a block's product: its relu goes to ``y`` and the next layer's bias is
    added; after the last layer all of it goes to ``y``, as the heads read it."""
    width = x.shape[1]
    for tile in range(4):
        down, right = at + tile//2*16*width, tile % 2
        for i in range(16):
            here, there = down + right*256 + i*16, down + i*32 + right*16
            value = load(x, here)
            if last:
                store(y, there, value)
            else:
                store(y, there, relu(value))
                store(x, here, add(value, load(bias, bias_at + right*16)))
