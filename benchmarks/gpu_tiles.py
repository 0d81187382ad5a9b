"""The network's products with other tiles than those in use, for gpu_check.py.

A tile is what `boardlaw.mcts.gpu_network` calls FUSED or WIDE: with an H, one kernel runs the whole
network. `gpu_compile.py --tiles` says without a GPU what each takes on the chip: of those in use, a
layer of a wide network leaves room for 8 warps on a multiprocessor of 64, for lack of registers.
The others leave room for 16 and read more, with half the rows the weights twice as often, with half
the columns the positions; or run a network 256 wide in one kernel, which keeps the positions on the
chip from layer to layer and reads all weights for every 64 of them.
"""
from contextlib import contextmanager

import torch

from boardlaw.mcts import gpu_network
from boardlaw.mcts.gpu_network import FUSED, WIDE

_LAYERS = [WIDE, WIDE | {'M': 64}, WIDE | {'N': 64}, WIDE | {'M': 64, 'num_warps': 4},
           WIDE | {'K': 32, 'num_stages': 4}]

#: {width of a network: tiles to compare, those in use first}.
CANDIDATES = {
    128: [FUSED, FUSED | {'num_warps': 8}, FUSED | {'M': 128, 'num_warps': 8}, FUSED | {'M': 32},
          FUSED | {'num_stages': 1}],
    256: [*_LAYERS, FUSED | {'N': 256, 'num_warps': 8, 'num_stages': 1}],
    512: _LAYERS}


@contextmanager
def using(width, tile):
    """Networks of a width are evaluated with a tile."""
    kept = {name: getattr(gpu_network, name) for name in ('FUSED_WIDTH', 'FUSED', 'WIDE')}
    gpu_network.FUSED_WIDTH = width if 'H' in tile else 0
    gpu_network.FUSED = gpu_network.WIDE = tile
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(gpu_network, name, value)


def measure(network, tiles, n, seconds, graphed, device):
    """Times a forward pass of `[n]` positions with each tile.

    Args:
        network: a :class:`boardlaw.networks.Network` on the device.
        seconds: from a call to its median seconds and their spread.
        graphed: from a call to one that repeats it.

    Returns:
        A list of {tile, ms, spread, differs}, the largest difference to the first tile's outputs;
        or {tile, failed}: a card with less shared memory may not hold it.
    """
    rows, expected = [], None
    obs = torch.randint(0, 2, (n, 2*network.boardsize**2), device=device).half()
    for tile in tiles:
        try:
            with using(network.width, tile):
                forward = gpu_network.Forward(n, network.boardsize, network.width, network.depth,
                                              device)
            forward.load(network)
            forward.obs[:n, :obs.shape[1]] = obs
            forward()
            out = forward.out[:n, :network.boardsize**2 + 1].clone()
            expected = out if expected is None else expected
            took, spread = seconds(graphed(forward))
            rows.append({'tile': tile, 'ms': 1e3*took, 'spread': spread/took,
                         'differs': float((out - expected).abs().max())})
        except Exception as error:   # Triton has a kind for each reason
            rows.append({'tile': tile, 'failed': f'{type(error).__name__}: {error}'})
    return rows
