"""Products of matrices in bfloat16 by a CPU's tile instructions (AMX), in compiled functions.

A tile is a register of 16 rows of 64 bytes, of which a thread has eight. One instruction adds to
a tile of 16 x 16 float32 the product of 16 x 32 and 32 x 16 bfloat16, as many operations as 16 of
the widest other instructions. A library's call brings tiles to large matrices only: before it
multiplies it looks up a plan and lays out the weights, which takes as long as a product of 128
rows and 256 columns. Here weights are laid out once (:func:`pack`).

Arrays are C-contiguous and bfloat16 is int16, as in :mod:`boardlaw.lanes`.
"""
from functools import cache

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .bits import njit_uncounted
from .lanes import LANES

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
    module, name = builder.module, f'llvm.x86.{name}'
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in args])
    builder.call(module.globals.get(name) or ir.Function(module, kind, name), args)


def _pointer(context, builder, array, value, index):
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), _BYTE.as_pointer())


def _number(tile):
    return ir.Constant(_BYTE, tile.literal_value)


@intrinsic
def configure(typingctx, shapes):
    """Readies the thread's tiles; ``shapes`` is :data:`SHAPES`."""
    def codegen(context, builder, signature, args):
        _emit(builder, 'ldtilecfg', _pointer(context, builder, shapes, args[0], _WORD(0)))
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
                  _pointer(context, builder, array, *args[1:3]), builder.mul(args[3], size))
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
def product(a, i, w, first, start, start_at, start_stride, x, j):
    """One block of a product: ``x[i:i + 32, j:j + 32] = start + a[i:i + 32] @ w[:, j:j + 32]``.

    Args:
        a: `[.., n]` int16.
        w: what :func:`pack` made of a matrix of `n` rows, which begins at element ``first``.
        start: float32 array, of which the block begins at element ``start_at`` and has its rows
            ``start_stride`` apart: 0 for a row that is the same for all.
        x: `[.., columns]` float32.
    """
    n, columns = a.shape[1], x.shape[1]
    at, steps, row = i*n, n//32, first + j*n
    _load(0, start, start_at, start_stride)
    _load(1, start, start_at + 16, start_stride)
    _load(2, start, start_at + 16*start_stride, start_stride)
    _load(3, start, start_at + 16*start_stride + 16, start_stride)
    for k in range(steps):
        _load(4, a, at + 32*k, n)
        _load(6, w, row + 512*k, 32)
        _multiply(0, 4, 6)
        _load(7, w, row + 512*(steps + k), 32)
        _multiply(1, 4, 7)
        _load(5, a, at + 16*n + 32*k, n)
        _multiply(2, 5, 6)
        _multiply(3, 5, 7)
    at = i*columns + j
    _store(0, x, at, columns)
    _store(1, x, at + 16, columns)
    _store(2, x, at + 16*columns, columns)
    _store(3, x, at + 16*columns + 16, columns)
