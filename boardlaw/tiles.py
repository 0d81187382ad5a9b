"""Products of matrices in bfloat16 by a CPU's tile instructions (AMX), in compiled functions.

A tile is a register of 16 rows of 64 bytes, of which a thread has eight. One instruction adds to
a tile of 16 x 16 float32 the product of 16 x 32 and 32 x 16 bfloat16: 8,192 multiply-adds, where
one on vectors of 64 bytes makes 32. A library's call brings tiles to large matrices only: before
it multiplies it looks up a plan and lays out the weights, which for a few hundred rows takes as
long as the product. Here weights are laid out once (:func:`pack`).

Arrays are C-contiguous and bfloat16 is int16, as in :mod:`boardlaw.lanes`.
"""
from functools import cache

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .bits import njit_uncounted
from .lanes import LANES, pointer

#: Rows and columns of the result that :func:`product` works out at once: two tiles by two.
BLOCK = 2*LANES

#: What :func:`configure` takes: eight tiles of 16 rows of 64 bytes.
SHAPES = np.zeros(64, np.uint8)
SHAPES[0], SHAPES[48:56] = 1, 16
SHAPES[16:32].view(np.uint16)[:] = 64

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)


@cache
def available():
    """Whether this CPU has tiles for bfloat16 and the system lets the process use them."""
    has, ask = (getattr(torch.cpu, name, bool)
                for name in ('_is_amx_tile_supported', '_init_amx'))
    return bool(has() and ask())


def whole(n):
    """``n`` rounded up to whole blocks."""
    return -(-n//BLOCK)*BLOCK


def pack(matrix):
    """Matrices as :func:`product` reads them.

    Args:
        matrix: `[.., n, columns]` float32 tensor, the last two whole blocks.

    Returns:
        `[.., columns/16, n/32, 16, 16, 2]` int16 array: for each 16 columns and each 32 rows a
        tile, in which rows lie in pairs.
    """
    *several, n, columns = matrix.shape
    tiles = matrix.bfloat16().reshape(*several, n//32, 16, 2, columns//16, 16).movedim(-2, -5)
    return tiles.transpose(-1, -2).contiguous().view(torch.int16).numpy()


def _emit(builder, name, *args):
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in args])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f'llvm.x86.{name}'), args)


def _number(tile):
    return ir.Constant(_BYTE, tile.literal_value)


@intrinsic
def configure(typingctx, shapes):
    """Readies the thread's tiles; ``shapes`` is :data:`SHAPES`."""
    def codegen(context, builder, signature, args):
        _emit(builder, 'ldtilecfg', pointer(context, builder, shapes, args[0], _WORD(0), _BYTE))
        return context.get_dummy_value()
    return types.void(shapes), codegen


@intrinsic
def release(typingctx):
    """Gives the tiles back, so that the system need not save them when it changes threads."""
    def codegen(context, builder, signature, args):
        _emit(builder, 'tilerelease')
        return context.get_dummy_value()
    return types.void(), codegen


def _move(instruction, doc):
    def move(typingctx, tile, array, index, stride):
        def codegen(context, builder, signature, args):
            size = _WORD(array.dtype.bitwidth//8)
            _emit(builder, instruction, _number(tile),
                  pointer(context, builder, array, *args[1:3], _BYTE), builder.mul(args[3], size))
            return context.get_dummy_value()
        return types.void(tile, array, types.int64, types.int64), codegen
    move.__doc__ = doc
    return intrinsic(prefer_literal=True)(move)


_load = _move('tileloadd64', 'Fills a tile from rows ``stride`` elements apart.')
_store = _move('tilestored64', 'Writes a tile to rows ``stride`` elements apart.')


@intrinsic(prefer_literal=True)
def _multiply(typingctx, c, a, b):
    """Adds to tile ``c`` the product of ``a`` and ``b``."""
    def codegen(context, builder, signature, args):
        _emit(builder, 'tdpbf16ps', *map(_number, (c, a, b)))
        return context.get_dummy_value()
    return types.void(c, a, b), codegen


@njit_uncounted(forceinline=True)
def product(a, a_at, n, w, w_at, start, start_at, start_by, x, x_at, x_by):
    """One block, 32 rows by 32 columns, of ``start + a @ w``, written to ``x``.

    Where a block lies in an array is told by the element at which it begins and by three steps:
    from a tile to its right neighbour, to the one below, and from a row to the next. Steps of 0
    repeat what is there, as for a bias that all rows share.

    Args:
        a: int16, of which two rows of tiles are read, each `[n/32, 16, 32]`, from ``a_at`` on.
        w: int16, of which two columns of tiles, each `[n/32, 16, 16, 2]`, are read from ``w_at``
            on (:func:`pack`).
        start, x: float32, and where their blocks lie.
    """
    right, down, row = start_by
    _load(0, start, start_at, row)
    _load(1, start, start_at + right, row)
    _load(2, start, start_at + down, row)
    _load(3, start, start_at + down + right, row)
    for k in range(0, 16*n, 512):
        _load(4, a, a_at + k, 32)
        _load(6, w, w_at + k, 32)
        _multiply(0, 4, 6)
        _load(7, w, w_at + 16*n + k, 32)
        _multiply(1, 4, 7)
        _load(5, a, a_at + 16*n + k, 32)
        _multiply(2, 5, 6)
        _multiply(3, 5, 7)
    right, down, row = x_by
    _store(0, x, x_at, row)
    _store(1, x, x_at + right, row)
    _store(2, x, x_at + down, row)
    _store(3, x, x_at + down + right, row)
