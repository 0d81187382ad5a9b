"""Compiles the GPU's kernels where there is no GPU, and prints what each takes of one.

    python benchmarks/gpu_compile.py [--boards 9] [--networks 128x4,512x4] [--tiles]

Triton's interpreter shows that the kernels compute what they should; this, that they compile for a
card, an H100 or H200 by default, and whether they keep within its registers and shared memory. It
needs the package triton, and no more than a few seconds a board.

`resident` is how many warps of a kernel a multiprocessor of these cards holds at once, of at most
64: the more, the better it hides what each waits for.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

os.environ.pop('TRITON_INTERPRET', None)
if find_spec('triton') is None:
    sys.exit('Nothing was compiled: `pip install triton` brings what it takes')

import gpu_tiles  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from boardlaw.hex import gpu_kernels as rules  # noqa: E402
from boardlaw.main import _shapes  # noqa: E402
from boardlaw.mcts import gpu as searches  # noqa: E402
from boardlaw.mcts import gpu_network  # noqa: E402
from boardlaw.mcts.search import _settings  # noqa: E402

#: A multiprocessor of capability 9.0: registers, and how many go to a warp at once; bytes of shared
#: memory, and those that each block takes beside its own; the most blocks and warps at a time.
REGISTERS, PORTION, SHARED, RESERVED, BLOCKS, WARPS = 65_536, 256, 233_472, 1024, 32, 64

N_GAMES = 256
CPU = torch.device('cpu')


class Absent:
    """As much of a driver as compiling takes: it names the card that is compiled for."""

    def __init__(self, capability):
        self.target = GPUTarget('cuda', capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):   # Triton keeps what it has compiled by device
        return self.target.arch

    def get_current_stream(self, device=0):
        return 0


@contextmanager
def compiling(capability=90):
    """In this context kernels are compiled instead of launched.

    Args:
        capability: of the card, as 90 for 9.0.

    Yields:
        A dict of what they are used for, to be changed at will, and a list: a dict for each kernel
        when it is first compiled: what it is used for; kernel; registers of a lane; stack, bytes
        of a lane, mostly of what the registers do not hold; shared, bytes of a block; warps of a
        block; resident, as above; tensor, the instruction of its matrix products, if any.
    """
    use, found, known, run = {}, [], set(), JITFunction.run

    def compile_only(self, *args, warmup, **kwargs):
        kernel = run(self, *args, warmup=True, **kwargs)
        if kernel.hash not in known:
            known.add(kernel.hash)
            found.append({**use, 'kernel': self.fn.__name__, **resources(kernel)})
        return kernel

    triton.runtime.driver.set_active(Absent(capability))
    JITFunction.run = compile_only
    try:
        yield use, found
    finally:
        JITFunction.run = run


def all_kernels(boards, networks, capability=90):
    """What the kernels of games and searches take.

    Args:
        boards: sizes.
        networks: (width, depth) pairs.

    Returns:
        A list as of :func:`compiling`.
    """
    with compiling(capability) as (use, found):
        for boardsize in boards:
            use |= {'boardsize': boardsize, 'use': 'games'}
            play(boardsize)
            for width, depth in networks:
                use['use'] = f'{width}x{depth}'
                search(boardsize, width, depth, capability)
            for changed in ({'rule': '2021'}, {'unvisited': 'worst'}, {'eps': 0.}, {'alpha': 1.5}):
                use['use'] = ' '.join(map(str, *changed.items()))
                search(boardsize, *networks[0], capability, **changed)
    return found


def all_tiles(capability=90):
    """The same of the tiles that gpu_check.py compares: of the layers between first and last, or
    of the whole network in one."""
    with compiling(capability) as (use, found):
        for width, tiles in gpu_tiles.CANDIDATES.items():
            for tile in tiles:
                use |= {'width': width, 'tile': ' '.join(f'{k}={v}' for k, v in tile.items())}
                with gpu_tiles.using(width, tile):
                    forward = gpu_network.Forward(8192, 9, width, 4, CPU)
                if forward.fused:
                    forward()
                else:
                    a, b = forward.x
                    forward._linear(a, forward.body[0], forward.body_bias[0], b, forward.alphas[0])
    return found


def play(boardsize):
    """Launches the kernels of the rules."""
    bits = torch.zeros((N_GAMES, 2, 4, rules.n_words(boardsize)), dtype=torch.int64)
    seats = torch.zeros(N_GAMES, dtype=torch.int32)
    numbers = torch.zeros(N_GAMES, dtype=torch.int64)
    for reset in (False, True):
        rules.step(bits, seats, numbers, reset, boardsize)
    rules.observations(bits, seats, boardsize)
    rules.random_actions(bits, seats, numbers, boardsize)


def search(boardsize, width, depth, capability, rule='corrected', eps=.25, alpha=None,
           unvisited='parent'):
    """Launches the kernels of a search of two nodes: more would launch the same ones again."""
    settings = _settings(2, 1/16, rule, eps, alpha, unvisited, boardsize**2)
    searcher = searches.Searcher(N_GAMES, 2, boardsize, width, depth, settings, CPU)
    searcher.forward.by_torch = capability < 80
    searcher.run()


def resources(kernel):
    """What a compiled kernel takes."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        Path(file.name).write_bytes(kernel.asm['cubin'])
        said = subprocess.run([triton.knobs.nvidia.cuobjdump.path, '--dump-resource-usage',
                               file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf'{name}:(\d+)', said)[1]) for name in ('REG', 'STACK'))
    shared, warps = kernel.metadata.shared, kernel.metadata.num_warps
    of_warp = -(-registers*32//PORTION)*PORTION
    blocks = min(BLOCKS, WARPS//warps, REGISTERS//of_warp//warps, SHARED//(shared + RESERVED))
    tensor = re.search(r'wgmma\.mma|mma\.sync|tcgen05\.mma', kernel.asm['ptx'])
    return {'registers': registers, 'stack': stack, 'shared': shared, 'warps': warps,
            'resident': blocks*warps, 'tensor': tensor[0] if tensor else ''}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--boards', type=int, nargs='+', default=[9])
    parser.add_argument('--networks', type=_shapes, default=[(128, 4), (512, 4)])
    parser.add_argument('--capability', type=int, default=90, help='of the card, 90 for 9.0')
    parser.add_argument('--tiles', action='store_true', help='those that gpu_check.py compares')
    args = parser.parse_args()
    found = (all_tiles(args.capability) if args.tiles else
             all_kernels(args.boards, args.networks, args.capability))
    print(pd.DataFrame(found).to_string(index=False))


if __name__ == '__main__':
    main()
