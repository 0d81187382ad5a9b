"""The fully-connected ReZero network: a board in, a policy and a value out.

A stack of residual layers x + α W relu(x), each with a scalar α that starts at 0, so that a new
network is a linear map however deep it is (Bachlechner et al., "ReZero is all you need",
arXiv 2003.04887). The parameter names are those of the agents published in 2021, so that their
files load here and ours load there.

Explained in the chapter book/network.ipynb.
"""
import re
from collections.abc import Mapping
from numbers import Integral
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Output(NamedTuple):
    """A network's policy and value for `n_envs` positions.

    Attributes:
        logits: `[n_envs, n_actions]` log-probabilities in the mover's frame, -inf where the action
            is not valid (everywhere, if no action is valid).
        v: `[n_envs, 2]` the value of each seat, from -1 (lost) to 1 (won); the two sum to 0.
    """
    logits: torch.Tensor
    v: torch.Tensor


class ReZero(nn.Linear):
    """One residual layer: x + α (W relu(x) + b), with α a learnt scalar."""

    def __init__(self, width):
        super().__init__(width, width)
        self.α = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.α*super().forward(F.relu(x))


class Head(nn.Module):
    """A linear readout of `n_outputs` numbers, under the name that the published files give it."""

    def __init__(self, width, n_outputs):
        super().__init__()
        self.core = nn.Linear(width, n_outputs)

    def forward(self, x):
        return self.core(x)


class Network(nn.Module):
    """A ReZero perceptron with a policy head and a value head.

    Weights and biases start uniform within 1/sqrt(fan-in), the α at 0.

    Args:
        boardsize: S, cells along an edge.
        width: neurons in a layer.
        depth: residual layers after the first linear one.
    """

    def __init__(self, boardsize, width, depth):
        super().__init__()
        for name, value, least in [('boardsize', boardsize, 1), ('width', width, 1),
                                   ('depth', depth, 0)]:
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f'{name} must be a whole number of at least {least}, '
                                 f'got {value!r}')
        self.boardsize, self.width, self.depth = map(int, (boardsize, width, depth))
        self.body = nn.ModuleList([nn.Linear(2*boardsize**2, width),
                                   *(ReZero(width) for _ in range(depth))])
        self.policy = Head(width, boardsize**2)
        self.value = Head(width, 1)

    def forward(self, worlds):
        """Evaluates positions.

        Args:
            worlds: anything with `obs` `[n_envs, S, S, 2]`, `valid` `[n_envs, S*S]` bool and
                `seats` `[n_envs]`.

        Returns:
            An :class:`Output`. The network sees the board as the mover does and values it for the
            mover; `v` spreads that value over the seats.
        """
        x = worlds.obs.flatten(1)
        for layer in self.body:
            x = layer(x)
        # A finite floor, so that a row without a valid action gives -inf rather than nan.
        logits = self.policy(x).masked_fill(~worlds.valid, -1e30).log_softmax(-1)
        v = torch.tanh(self.value(x)) * (1 - 2*worlds.seats).unsqueeze(-1)
        return Output(logits.masked_fill(~worlds.valid, -torch.inf), torch.cat([v, -v], -1))

    def extra_repr(self):
        return f'boardsize={self.boardsize}, width={self.width}, depth={self.depth}'


def count_params(boardsize, width, depth):
    """P, the weights and biases of a network; the ReZero scalars are not counted, as in 2021.

    P = (2 S² w + w) + d (w² + w) + (w S² + S²) + (w + 1) for width w and depth d.

    >>> count_params(boardsize=3, width=2, depth=4)
    92
    """
    inputs, n_actions = 2*boardsize**2, boardsize**2
    body = (inputs*width + width) + depth*(width**2 + width)
    return body + (width*n_actions + n_actions) + (width + 1)


def flops_per_sample(boardsize, width, depth, n_nodes=64):
    """The compute of one sample of self-play, as the paper counts it.

    One for each multiply-add of the `n_nodes` forward passes of one search: n_nodes * P. The
    backward pass and the tree are not counted.

    >>> flops_per_sample(boardsize=3, width=2, depth=4) == 64*92
    True
    """
    return n_nodes*count_params(boardsize, width, depth)


def from_state_dict(state, boardsize=None):
    """Builds the network that a state dict describes.

    Args:
        state: tensors by parameter name, either bare (`body.0.weight`) or as in a run's files
            (`network.body.0.weight`; entries under other prefixes, such as `kwargs.n_nodes`, are
            ignored).
        boardsize: the board size that the network must have been made for, if it is known.

    Returns:
        A :class:`Network` in float32 on the CPU that shares no memory with `state`.

    Raises:
        ValueError: a name is missing or unknown, a shape does not fit the others, a value is not a
            finite floating-point number, or the network is for another board.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise ValueError('a state dict maps names to tensors')
    if any(name.startswith('network.') for name in state):
        state = {name.removeprefix('network.'): x for name, x in state.items()
                 if name.startswith('network.')}
    for name, x in state.items():
        _check_tensor(name, x)
    with torch.device('meta'):   # takes no memory, nor random numbers, until all is known to fit
        network = Network(*_architecture(state))
    if boardsize is not None and network.boardsize != boardsize:
        raise ValueError(f'the network is for a {network.boardsize}x{network.boardsize} board, '
                         f'not for {boardsize}x{boardsize}')
    _check_shapes(state, {name: tuple(x.shape) for name, x in network.state_dict().items()})
    network.to_empty(device='cpu').load_state_dict(state)
    return network


def _check_tensor(name, x):
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or not x.is_floating_point():
        raise ValueError(f'{name} is not a dense floating-point tensor')
    if x.numel()*x.element_size() > x.untyped_storage().nbytes():
        raise ValueError(f'{name} claims {x.numel()} values and holds fewer')
    if not torch.isfinite(x).all():
        raise ValueError(f'{name} holds values that are not finite')


def _architecture(state):
    """(boardsize, width, depth) as the shapes have it."""
    shapes = {}
    for name in ['body.0.weight', 'policy.core.weight']:
        if name not in state:
            raise ValueError(f'{name} is missing: this is not the state of a network')
        shapes[name] = tuple(state[name].shape)
        if len(shapes[name]) != 2 or 0 in shapes[name]:
            raise ValueError(f'{name} has shape {shapes[name]}, it must be a matrix')
    width, inputs = shapes['body.0.weight']
    boardsize = round((inputs/2)**.5)
    if 2*boardsize**2 != inputs:
        raise ValueError(f'body.0.weight takes {inputs} inputs: no square board has two planes of '
                         'that many cells')
    layers = {int(m[1]) for name in state if (m := re.match(r'body\.(\d+)\.', name))}
    return boardsize, width, len(layers) - 1


def _check_shapes(state, shapes):
    missing, extra = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    if missing or extra:
        raise ValueError('; '.join(f'{what}: {", ".join(names)}' for what, names in
                                   [('missing', missing), ('unknown', extra)] if names))
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            raise ValueError(f'{name} has shape {tuple(state[name].shape)}, expected {shape}')
