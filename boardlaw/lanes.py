"""Vectors of float32 as values in compiled functions.

Numba leaves it to LLVM to find what can be done several numbers at a time, and LLVM prefers loops
of many rounds: a layer of 16 neurons it takes in small pieces, and a running sum goes through
memory between two rows of weights. With a vector as a value a sum stays in a register, and its
order is the one that is written. A CPU whose registers hold fewer than :data:`LANES` takes several.

Arrays must be C-contiguous, and an ``index`` counts elements from their beginning, however many
dimensions they have; it is not checked. An int16 array holds bfloat16, the upper halves of float32.
"""
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_jitable, register_model

#: Numbers in a vector, the most that a CPU of today takes at once.
LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)


class _Lanes(types.Type):
    def __init__(self):
        super().__init__('Lanes')


lanes = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _FLOATS)


@register_jitable
def whole(n):
    """``n`` rounded up to whole vectors."""
    return -(-n//LANES)*LANES


def _each(number):
    """An int in every lane."""
    return ir.Constant(_INTS, [number]*LANES)


def pointer(context, builder, array, value, index, kind):
    """Where an array's element lies, as a pointer to an LLVM ``kind``."""
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """The vector that begins at ``index``."""
    def codegen(context, builder, signature, args):
        half = array.dtype == types.int16
        where = pointer(context, builder, array, *args, _HALVES if half else _FLOATS)
        x = builder.load(where)
        x.align = array.dtype.bitwidth//8
        if half:
            x = builder.bitcast(builder.shl(builder.zext(x, _INTS), _each(16)), _FLOATS)
        return x
    return lanes(array, types.int64), codegen


@intrinsic
def store(typingctx, array, index, x):
    """Writes a vector to where ``index`` begins; for bfloat16 rounded to nearest, ties to even."""
    def codegen(context, builder, signature, args):
        *where, x = args
        half = array.dtype == types.int16
        if half:
            bits = builder.bitcast(x, _INTS)
            odd = builder.and_(builder.lshr(bits, _each(16)), _each(1))
            bits = builder.add(bits, builder.add(odd, _each(0x7fff)))
            x = builder.trunc(builder.lshr(bits, _each(16)), _HALVES)
        put = builder.store(x, pointer(context, builder, array, *where, x.type))
        put.align = array.dtype.bitwidth//8
        return context.get_dummy_value()
    return types.void(array, types.int64, lanes), codegen


def everywhere(builder, a, kind=_FLOATS):
    """The LLVM vector of this kind with a number in every lane."""
    none = ir.Constant(kind, ir.Undefined)
    a = builder.insert_element(none, a, ir.IntType(32)(0))
    return builder.shuffle_vector(a, none, _each(0))


@intrinsic
def splat(typingctx, a):
    """A float32 in every lane."""
    def codegen(context, builder, signature, args):
        return everywhere(builder, args[0])
    return lanes(types.float32), codegen


@intrinsic
def add(typingctx, x, y):
    """x + y."""
    def codegen(context, builder, signature, args):
        return builder.fadd(*args)
    return lanes(lanes, lanes), codegen


@intrinsic
def add_scaled(typingctx, x, a, y):
    """x + a*y for a float32 ``a``, rounded once where the CPU can."""
    def codegen(context, builder, signature, args):
        x, a, y = args
        kind = ir.FunctionType(_FLOATS, [_FLOATS]*3)
        name = f'llvm.fmuladd.v{LANES}f32'
        fma = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(fma, [everywhere(builder, a), y, x])
    return lanes(lanes, types.float32, lanes), codegen


@intrinsic
def relu(typingctx, x):
    """max(x, 0), and 0 for nan."""
    def codegen(context, builder, signature, args):
        zero = ir.Constant(_FLOATS, [0.]*LANES)
        return builder.select(builder.fcmp_ordered('>', args[0], zero), args[0], zero)
    return lanes(lanes), codegen


@intrinsic
def keep(typingctx, bits, x, other):
    """``x`` in the lanes whose bit of the uint64 ``bits`` is set, else ``other``."""
    def codegen(context, builder, signature, args):
        bits, x, other = args
        mask = builder.bitcast(builder.trunc(bits, ir.IntType(LANES)),
                               ir.VectorType(ir.IntType(1), LANES))
        return builder.select(mask, x, other)
    return lanes(types.uint64, lanes, lanes), codegen


def _larger(builder, x, y):
    """The larger of two vectors; ``y`` where ``x`` is nan."""
    return builder.select(builder.fcmp_ordered('>', x, y), x, y)


@intrinsic
def larger(typingctx, x, y):
    """The larger of two vectors; ``y`` where ``x`` is nan."""
    def codegen(context, builder, signature, args):
        return _larger(builder, *args)
    return lanes(lanes, lanes), codegen


@intrinsic
def largest(typingctx, x):
    """The largest number of a vector without nan."""
    def codegen(context, builder, signature, args):
        x, half = args[0], LANES//2
        while half:
            order = [(i + half) % LANES for i in range(LANES)]
            x = _larger(builder, builder.shuffle_vector(x, x, ir.Constant(_INTS, order)), x)
            half //= 2
        return builder.extract_element(x, ir.IntType(32)(0))
    return types.float32(lanes), codegen
