"""Products of matrices in bfloat16 by a CPU's instructions for them, in compiled functions.

A tile is 16 rows of 64 bytes. CPUs with AMX have registers of this size, eight a thread: one
instruction adds to a tile of 16 x 16 float32 the product of 16 x 32 and 32 x 16 bfloat16, 8,192
multiply-adds. On CPUs with AVX512_BF16 a register is a row of a tile, and one instruction makes 32.
Both read the same arrays.

A library's call pays for large matrices only: before it multiplies it looks up a plan and lays out
the weights, which for a few hundred rows takes about as long as the product. Here weights are laid
out once (:func:`pack`).

Arrays are C-contiguous and bfloat16 is int16, as in :mod:`boardlaw.lanes`.
"""
from functools import cache

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .bits import njit_uncounted
from .lanes import LANES, everywhere, pointer

#: Rows and columns of the result that :func:`product` works out at once: two tiles by two.
BLOCK = 2*LANES

#: What AMX is told before it multiplies: eight tiles of 16 rows of 64 bytes.
SHAPES = np.zeros(64, np.uint8)
SHAPES[0], SHAPES[48:56] = 1, 16
SHAPES[16:32].view(np.uint16)[:] = 64

#: How a CPU may multiply, the fastest first, and the `shapes` that say so to compiled functions:
#: an argument, for they are kept from one process to the next by the types of their arguments.
WAYS = {'amx': SHAPES, 'avx512_bf16': None}

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_FLOATS, _PAIRS = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.IntType(32)))
_DOT = 'llvm.x86.avx512bf16.dpbf16ps.512'
_ROWS = 8   # that vectors add up at once: 16 sums with both columns, in half of the registers


@cache
def ways():
    """The names in :data:`WAYS` of what this CPU has and the system lets the process use."""
    if config.CPU_NAME or config.CPU_FEATURES or not config.ENABLE_AVX:
        return ()   # Numba was told to compile for another CPU
    try:
        has = llvmlite.binding.get_host_cpu_features()
    except RuntimeError:   # on this kind of processor LLVM cannot ask
        return ()
    ask = getattr(torch.cpu, '_init_amx', bool)
    found = {'amx': has.get('amx-bf16') and ask(), 'avx512_bf16': has.get('avx512bf16')}
    return tuple(way for way in WAYS if found[way])


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
def _configure(typingctx, shapes):
    """Readies the thread's tiles; ``shapes`` is :data:`SHAPES`."""
    def codegen(context, builder, signature, args):
        _emit(builder, 'ldtilecfg', pointer(context, builder, shapes, args[0], _WORD(0), _BYTE))
        return context.get_dummy_value()
    return types.void(shapes), codegen


@intrinsic
def _release(typingctx):
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
def configure(shapes):
    """Readies a thread for products, before the first of several."""
    if shapes is not None:
        _configure(shapes)


@njit_uncounted(forceinline=True)
def release(shapes):
    """Ends what :func:`configure` began."""
    if shapes is not None:
        _release()


@njit_uncounted(forceinline=True)
def product(shapes, a, a_at, n, w, w_at, start, start_at, start_by, x, x_at, x_by):
    """One block, 32 rows by 32 columns, of ``start + a @ w``, written to ``x``.

    Where a block lies in an array is told by the element at which it begins and by three steps:
    from a tile to its right neighbour, to the one below, and from a row to the next. Steps of 0
    repeat what is there, as for a bias that all rows share.

    Args:
        shapes: how to multiply, one of :data:`WAYS`.
        a: int16, of which two rows of tiles are read, each `[n/32, 16, 32]`, from ``a_at`` on.
        w: int16, of which two columns of tiles, each `[n/32, 16, 16, 2]`, are read from ``w_at``
            on (:func:`pack`).
        start, x: float32, and where their blocks lie.
    """
    if shapes is None:
        for i in range(0, BLOCK, _ROWS):
            tile, row = divmod(i, 16)
            _add_rows(a, a_at + tile*16*n + row*32, n, w, w_at,
                      start, start_at + tile*start_by[1] + row*start_by[2], start_by,
                      x, x_at + tile*x_by[1] + row*x_by[2], x_by)
    else:
        _on_tiles(a, a_at, n, w, w_at, start, start_at, start_by, x, x_at, x_by)


@njit_uncounted(forceinline=True)
def _on_tiles(a, a_at, n, w, w_at, start, start_at, start_by, x, x_at, x_by):
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


@intrinsic
def _add_rows(typingctx, a, a_at, n, w, w_at, start, start_at, start_by, x, x_at, x_by):
    """The first rows of a block, :data:`_ROWS` of them, by vectors: two numbers of ``a``, the same
    in all lanes, times a row of pairs of ``w``."""
    def codegen(context, builder, signature, args):
        values = dict(zip(names, args))

        def where(name, at, kind):
            array = signature.args[names.index(name)]
            return pointer(context, builder, array, values[name], at, kind)

        def times(number, by, step):
            return builder.mul(builder.extract_value(values[by], step), _WORD(number))

        def block(name):
            """Where the vectors of the rows lie in ``start`` or ``x``."""
            for i, j in sums:
                at = builder.add(times(j, f'{name}_by', 0), times(i, f'{name}_by', 2))
                at = builder.add(values[f'{name}_at'], at)
                yield sums[i, j], where(name, at, _FLOATS)

        kind = ir.FunctionType(_FLOATS, [_FLOATS, _PAIRS, _PAIRS])
        dot = cgutils.get_or_insert_function(builder.module, kind, _DOT)
        sums = {(i, j): cgutils.alloca_once(builder, _FLOATS) for i in range(_ROWS) for j in (0, 1)}
        for total, at in block('start'):
            builder.store(builder.load(at, align=4), total)
        inner = builder.mul(values['n'], _WORD(16))   # elements of a row, or column, of tiles
        with cgutils.for_range_slice(builder, _WORD(0), inner, _WORD(512), inc=True) as (tile, _), \
                cgutils.for_range(builder, _WORD(16)) as pair:
            at = builder.add(builder.add(values['w_at'], tile), builder.mul(pair.index, _WORD(32)))
            right = [builder.load(where('w', x, _PAIRS), align=2)
                     for x in (at, builder.add(at, inner))]
            at = builder.add(builder.add(values['a_at'], tile), builder.mul(pair.index, _WORD(2)))
            for i in range(_ROWS):
                left = where('a', builder.add(at, _WORD(32*i)), _PAIRS.element)
                left = everywhere(builder, builder.load(left, align=2), _PAIRS)
                for j in (0, 1):
                    total = builder.load(sums[i, j])
                    builder.store(builder.call(dot, [total, left, right[j]]), sums[i, j])
        for total, at in block('x'):
            builder.store(builder.load(total), at, align=4)
        return context.get_dummy_value()

    places = types.int64
    names = ['a', 'a_at', 'n', 'w', 'w_at', 'start', 'start_at', 'start_by', 'x', 'x_at', 'x_by']
    return types.void(a, places, places, w, places, start, places, start_by, x, places,
                      x_by), codegen
