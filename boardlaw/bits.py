"""What compiled functions need of the machine and Numba does not name."""
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_ONE = np.uint64(1)


def njit_uncounted(**options):
    """Numba's njit for functions that make no arrays: they do not count references to any.

    Counting is an atomic operation for every row that is looked at, a quarter of a search's time.
    What a function is given must live on its caller's side until it returns.
    """
    return njit(_nrt=False, **options)


@intrinsic
def popcount(typingctx, x):
    """Number of set bits of a uint64."""
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])
    return types.uint64(types.uint64), codegen


@intrinsic
def trailing_zeros(typingctx, x):
    """Index of the lowest set bit of a uint64; undefined for 0."""
    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))
    return types.uint64(types.uint64), codegen


def _nth_bit(x, n):
    for _ in range(n):
        x &= x - _ONE
    return trailing_zeros(x)


@intrinsic
def nth_bit(typingctx, x, n):
    """Index of the ``n``-th set bit of a uint64, counting from 0; there must be so many."""
    def codegen(context, builder, signature, args):
        if '+bmi2' not in context.codegen().magic_tuple()[2]:   # the features compiled for
            return context.compile_internal(builder, _nth_bit, signature, args)
        word = ir.IntType(64)
        deposit = builder.module.declare_intrinsic(
            'llvm.x86.bmi.pdep.64', (), ir.FunctionType(word, [word, word]))
        bit = builder.call(deposit, [builder.shl(word(1), args[1]), args[0]])
        return builder.cttz(bit, ir.Constant(ir.IntType(1), 1))
    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def as_float32(typingctx, x):
    """The float32 whose bits are those of an int32."""
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())
    return types.float32(types.int32), codegen
