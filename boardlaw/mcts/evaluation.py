"""A network as the compiled pass reads it, and its layers for a few positions at a time.

The first layer is a sum of rows of weights, one a stone, for on a board most inputs are 0.
"""
from typing import NamedTuple

import numpy as np
import torch

from ..bits import njit_uncounted
from ..hex import kernels as rules
from ..lanes import LANES, add, add_scaled, load, relu, store, whole

#: Positions evaluated side by side: where one's sum waits for its last addition, the others' go on
#: (:func:`_product` has room for as many).
GROUP = 4


class Weights(NamedTuple):
    """A network's parameters as the compiled pass reads them: inputs by rows, alpha multiplied in.

    ``first`` `[2*S*S, width]`, ``body`` `[depth, width, width]`, ``heads`` `[width, S*S + 1]`
    (the policy's columns, then the value's), and their biases.
    """
    first: np.ndarray
    first_bias: np.ndarray
    body: np.ndarray
    body_bias: np.ndarray
    heads: np.ndarray
    heads_bias: np.ndarray


def weights(network):
    """Reads the :class:`Weights` of a :class:`boardlaw.networks.Network`."""
    with torch.no_grad():
        first, *layers = network.body
        scaled = [(x.weight.T*x.α, x.bias*x.α) for x in layers]
        width = first.weight.shape[0]
        body = [w for w, _ in scaled] or [torch.zeros(0, width)]
        bias = [b for _, b in scaled]
        policy, value = network.policy.core, network.value.core
        tensors = (first.weight.T, first.bias,
                   torch.stack(body) if scaled else torch.zeros(0, width, width),
                   torch.stack(bias) if scaled else torch.zeros(0, width),
                   torch.cat([policy.weight, value.weight]).T, torch.cat([policy.bias, value.bias]))
        return Weights(*[np.ascontiguousarray(t.cpu().float().numpy()) for t in tensors])


def padded(net):
    """The same :class:`Weights` with columns of zeros up to whole vectors of :mod:`boardlaw.lanes`.

    The rows stay, so that ``len(heads)`` is still the width.
    """
    return Weights(*[np.pad(w, [(0, 0)]*(w.ndim - 1) + [(0, whole(w.shape[-1]) - w.shape[-1])])
                     for w in net])


@njit_uncounted(forceinline=True)
def show(bits, seat, net, rows, x, i):
    """The first layer of one position, row ``i`` of ``x``: a row of weights for each stone."""
    n, width = 0, x.shape[1]
    for word in range(bits.shape[2]):
        for colour in range(2):
            stones = bits[seat, colour, word]
            while stones != 0:
                cell = word*64 + np.int64(rules.trailing_zeros(stones))
                rows[n] = (2*cell + colour)*width
                n += 1
                stones &= stones - rules.ONE
    fours = width - width % (4*LANES)
    for j in range(0, fours, 4*LANES):   # four neighbours at once, for memory comes in such pieces
        a, b = load(net.first_bias, j), load(net.first_bias, j + LANES)
        c, d = load(net.first_bias, j + 2*LANES), load(net.first_bias, j + 3*LANES)
        for k in range(n):
            p = rows[k] + j
            a = add(a, load(net.first, p))
            b = add(b, load(net.first, p + LANES))
            c = add(c, load(net.first, p + 2*LANES))
            d = add(d, load(net.first, p + 3*LANES))
        p = i*width + j
        store(x, p, a)
        store(x, p + LANES, b)
        store(x, p + 2*LANES, c)
        store(x, p + 3*LANES, d)
    for j in range(fours, width, LANES):
        total = load(net.first_bias, j)
        for k in range(n):
            total = add(total, load(net.first, rows[k] + j))
        store(x, i*width + j, total)


@njit_uncounted(forceinline=True)
def show_leaf(tree, states, g, net, rows, x, i):
    leaf = tree.leaf[g]
    show(states[g, leaf], np.int64(tree.nodes[g, leaf].seat), net, rows, x, i)


@njit_uncounted(forceinline=True)
def _product(a, n, w, first, x, j):
    """``x += a @ w`` for four rows and the columns from ``j``.

    Args:
        a: `[4, >= n]`.
        w: `[.., n, columns]`, of which the matrix in question begins at element ``first``.
        x: `[4, columns]`.
    """
    columns = x.shape[1]
    p, q, r, s = j, columns + j, 2*columns + j, 3*columns + j
    t, u, v, z = load(x, p), load(x, q), load(x, r), load(x, s)
    for k in range(n):
        row = load(w, first + k*columns + j)
        t = add_scaled(t, a[0, k], row)
        u = add_scaled(u, a[1, k], row)
        v = add_scaled(v, a[2, k], row)
        z = add_scaled(z, a[3, k], row)
    store(x, p, t)
    store(x, q, u)
    store(x, r, v)
    store(x, s, z)


@njit_uncounted(forceinline=True)
def evaluate(net, x, y, out):
    """The layers after the first for :data:`GROUP` positions.

    Args:
        x: `[GROUP, columns]`, what :func:`show` made; changed.
        y: `[GROUP, columns]`, scratch.
        out: `[GROUP, S*S + 1 and more]` becomes the logits and then the mover's value.
    """
    n, columns = len(net.heads), x.shape[1]
    for layer in range(net.body.shape[0]):
        for j in range(0, columns, LANES):
            bias = load(net.body_bias, layer*columns + j)
            for i in range(j, GROUP*columns, columns):
                value = load(x, i)
                store(y, i, relu(value))
                store(x, i, add(value, bias))
        for j in range(0, columns, LANES):
            _product(y, n, net.body, layer*n*columns, x, j)
    for j in range(0, out.shape[1], LANES):
        bias = load(net.heads_bias, j)
        for i in range(GROUP):
            store(out, i*out.shape[1] + j, bias)
        _product(x, n, net.heads, 0, out, j)
