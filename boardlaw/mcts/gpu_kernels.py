"""The steps of one simulation on a GPU, in Triton: what :mod:`boardlaw.mcts.kernels` does on a CPU.

One program searches one game with one warp whose lanes are the actions. A node keeps a row of
priors and a row of its children's numbers, so that the lanes gather what pi_bar needs. Here the
cumulative sum of pi_bar runs over the actions in their order (the CPU's takes children first), so
the two draw from the same distribution and not the same tree.

In Hex only a move that ends the game pays. So the return from a leaf is one number for the whole
path above it: the network's value, or what the last move paid; ``value`` holds it for each node.
All values are seat 0's.

Arrays of the tree, game by game (:class:`boardlaw.mcts.gpu.Trees` makes them):

    prior [n, n_nodes, A] float32       children [n, n_nodes, A] int16, 0 where none
    parent, action [n, n_nodes] int16   seat, terminal [n, n_nodes] int8
    q, value, delta [n, n_nodes] float32    visits [n, n_nodes] int32
    path [n, n_nodes] int32, the nodes from the root to the leaf
    size, leaf, depth, grown, n_leaves, bad [n] int32
"""
import triton
import triton.language as tl

from ..gpu_rng import uniform
from ..hex.gpu_kernels import free_cells
from ..hex.gpu_kernels import place as place_stone

SAMPLING, EXACT = tl.constexpr(1e-3), tl.constexpr(1e-6)   # tolerances of the sum of pi_bar
TINY, LOWEST, FAINT = tl.constexpr(1e-36), tl.constexpr(-3e38), tl.constexpr(-75.)
_NOISE = tl.constexpr(1 << 32)   # counters of the noise begin here
_DRAWS = tl.constexpr(256)       # counters of one action's noise
_CHUNK = tl.constexpr(32)        # nodes that are looked at together
_PACK = tl.constexpr(1 << 16)    # above the number of any node


@triton.jit
def _policy(prior, children, q, visits, seat, delta, first, node, lane, stretch, c_puct,
            TOLERANCE: tl.constexpr, RULE_2021: tl.constexpr, PARENT: tl.constexpr,
            A: tl.constexpr):
    """pi_bar of one node, as explained in :mod:`boardlaw.mcts.kernels`.

    Args:
        first: where the game's nodes begin.
        stretch: what the gaps between q are divided by.

    Returns:
        The lanes' shares, their sum, the lanes' children, and delta.
    """
    at = first + node
    inside = lane < A
    p = tl.load(prior + at*A + lane, mask=inside, other=0.)
    child = tl.load(children + at*A + lane, mask=inside, other=0).to(tl.int32)
    sign = (1 - 2*tl.load(seat + at).to(tl.int32)).to(tl.float32)
    taken = child > 0
    value = sign*tl.load(q + first + child, mask=taken, other=0.)
    n = (tl.load(visits + at) - 1).to(tl.float32)
    if PARENT:
        unvisited = sign*tl.load(q + at)
    else:
        unvisited = 0 - stretch
    if RULE_2021:
        n = 2*n + A - tl.sum(taken.to(tl.int32), 0).to(tl.float32)
        weight = c_puct*n/(n + A)
    else:
        weight = c_puct*tl.sqrt(n)/(n + A)
    value = tl.where(taken, value, unvisited)
    possible = p > 0
    best = tl.max(tl.where(possible, value, LOWEST), 0)
    scale = tl.where(weight > 0, 0.5/(stretch*tl.maximum(weight, TINY)), 0.)
    gap = tl.where(possible, (best - value)*scale, 1.)
    least = tl.maximum(tl.max(tl.where(possible, p - gap, TINY), 0), TINY)
    x = tl.maximum(tl.load(delta + at), least)
    inverse = 1/(x + gap)
    share = p*inverse
    total = tl.sum(share, 0)
    going = (tl.abs(total - 1) >= TOLERANCE).to(tl.int32)
    rounds = 0
    while going > 0:   # Newton's method on 1/S - 1
        slope = tl.sum(share*inverse, 0)
        new = tl.maximum(least, x + total*(total - 1)/tl.maximum(slope, TINY))
        moves = (new != x) & (rounds < 50)
        x = new
        inverse = 1/(x + gap)
        share = p*inverse
        total = tl.sum(share, 0)
        rounds += 1
        going = ((tl.abs(total - 1) >= TOLERANCE) & moves).to(tl.int32)
    return share, total, child, x


@triton.jit
def _stretch(q, first, size, RULE_2021: tl.constexpr):
    """Rule '2021' stretches q so that the largest |q| in the tree, which this is, becomes 1."""
    largest = 1.
    if RULE_2021:
        seen = tl.zeros((_CHUNK,), tl.float32)
        start = size - size
        while start < size:
            i = start + tl.arange(0, _CHUNK)
            start += _CHUNK
            seen = tl.maximum(seen, tl.abs(tl.load(q + first + i, mask=i < size, other=0.)))
        largest = tl.max(seen, 0)
        largest = tl.where(largest > 0, largest, 1.)
    return largest


@triton.jit
def _expand(out, states, prior, children, root, noise, first, leaf, seat, g, lane, eps,
            stride, A: tl.constexpr, W: tl.constexpr, NOISE: tl.constexpr):
    """Gives a leaf its row of priors; returns its value and whether the output is good."""
    at = first + leaf
    inside = lane < A
    free = free_cells(states + at*8*W, seat, lane, A, W)
    logits = tl.load(out + g.to(tl.int64)*stride + lane, mask=free, other=float('-inf'))
    x = logits - tl.max(logits, 0)
    x = tl.where(free & ~(x < FAINT), tl.exp(x), 0.)
    total = tl.sum(x, 0)
    raw = tl.load(out + g.to(tl.int64)*stride + A)
    v = 1 - 2/(1 + tl.exp(2*raw))   # tanh
    good = (total > 0) & (total < float('inf')) & (tl.abs(raw) < float('inf'))   # not nan either
    p = tl.where(x < float('inf'), x, 0.)*tl.where(good, 1/total, 0.)
    if leaf == 0:
        tl.store(root + g.to(tl.int64)*A + lane, p, mask=inside)
        if NOISE:
            p = (1 - eps)*p + eps*tl.load(noise + g.to(tl.int64)*A + lane, mask=inside, other=0.)
    tl.store(prior + at*A + lane, p, mask=inside)
    tl.store(children + at*A + lane, tl.zeros_like(lane).to(tl.int16), mask=inside)
    return tl.where(good, v*(1 - 2*seat).to(tl.float32), 0.), good.to(tl.int32)


@triton.jit(do_not_specialize=['simulation', 'n_nodes'])
def advance(out, states, prior, children, root, noise, parent, action, seat, terminal, q, value,
            delta, visits, path, size, leaf, depth, grown, n_leaves, bad, keys, simulation,
            n_nodes, c_puct, eps, stride, GROW: tl.constexpr, RULE_2021: tl.constexpr,
            PARENT: tl.constexpr, NOISE: tl.constexpr, A: tl.constexpr, AP: tl.constexpr,
            W: tl.constexpr):
    """Expands and backs up the leaf that the network has seen, then descends to the next.

    Rows of ``out``, ``stride`` apart, hold the network's logits and its raw value. With ``GROW`` a
    new leaf is attached, unless the way ends at a finished game; :func:`place` then plays its move.
    """
    g = tl.program_id(0)
    first = g.to(tl.int64)*n_nodes
    lane = tl.arange(0, AP)
    here = tl.load(leaf + g)

    over = tl.load(terminal + first + here).to(tl.int32)
    if over == 0:
        v, good = _expand(out, states, prior, children, root, noise, first, here,
                           tl.load(seat + first + here).to(tl.int32), g, lane, eps, stride,
                           A, W, NOISE)
        tl.store(value + first + here, v)
        if good == 0:
            tl.store(bad + g, 1)
    tl.debug_barrier()   # what a lane stores below and above, others read

    result = tl.load(value + first + here)
    steps = tl.load(depth + g)
    start = steps - steps
    while start <= steps:
        i = start + tl.arange(0, _CHUNK)
        start += _CHUNK
        passed = i <= steps
        at = first + tl.load(path + first + i, mask=passed, other=0)
        n = tl.load(visits + at, mask=passed, other=0) + 1
        mean = tl.load(q + at, mask=passed, other=0.)
        tl.store(visits + at, n, mask=passed)
        tl.store(q + at, mean + (result - mean)/n.to(tl.float32), mask=passed)
    tl.debug_barrier()

    if GROW:
        new = tl.load(size + g)
        key = tl.load(keys + g).to(tl.uint64, bitcast=True)
        stretch = _stretch(q, first, new, RULE_2021)
        node = new - new
        steps = node
        chosen, child, going = node, node, node + 1
        while going > 0:
            share, total, kids, x = _policy(prior, children, q, visits, seat, delta, first, node,
                                            lane, stretch, c_puct, SAMPLING, RULE_2021, PARENT, A)
            tl.store(delta + first + node, x)
            u = uniform(key, ((simulation << 12) + steps).to(tl.uint64))
            possible = share > 0
            after = (tl.cumsum(share, 0) > u*total) & possible
            # The first such lane and its child, found together.
            best = tl.min(tl.where(after, lane*_PACK + kids, AP*_PACK), 0)
            if best >= AP*_PACK:   # a draw at the very end
                best = tl.max(tl.where(possible, lane*_PACK + kids, 0), 0)
            chosen = best//_PACK
            child = best % _PACK
            steps += 1
            tl.store(path + first + steps, tl.where(child > 0, child, new))
            node = tl.where(child > 0, child, node)
            ended = tl.load(terminal + first + child, mask=child > 0, other=1).to(tl.int32)
            going = 1 - ended
        tl.store(depth + g, steps)
        tl.store(leaf + g, tl.where(child > 0, child, new))
        tl.store(grown + g, (child == 0).to(tl.int32))
        if child == 0:
            at = first + new
            tl.store(children + (first + node)*A + chosen, new.to(tl.int16))
            tl.store(parent + at, node.to(tl.int16))
            tl.store(action + at, chosen.to(tl.int16))
            tl.store(q + at, 0.)
            tl.store(delta + at, 0.)
            tl.store(visits + at, 0)
            tl.store(size + g, new + 1)
            has_others = (tl.load(visits + first + node) > 1).to(tl.int32)
            tl.store(n_leaves + g, tl.load(n_leaves + g) + has_others)


@triton.jit(do_not_specialize=['n', 'n_nodes'])
def place(states, parent, action, seat, terminal, value, leaf, grown, n, n_nodes,
          BLOCK: tl.constexpr, S: tl.constexpr, W: tl.constexpr, L0: tl.constexpr,
          L1: tl.constexpr, L2: tl.constexpr, R0: tl.constexpr, R1: tl.constexpr,
          R2: tl.constexpr):
    """Makes the positions of the new leaves; a lane is a game."""
    g = tl.program_id(0)*BLOCK + tl.arange(0, BLOCK)
    mask = (g < n) & (tl.load(grown + g, mask=g < n, other=0) > 0)
    first = g.to(tl.int64)*n_nodes
    to = first + tl.load(leaf + g, mask=mask, other=0)
    origin = first + tl.load(parent + to, mask=mask, other=0)
    a = tl.load(action + to, mask=mask, other=0).to(tl.int64)
    mover = tl.load(seat + origin, mask=mask, other=0).to(tl.int64)
    for i in tl.static_range(8*W):
        tl.store(states + to*8*W + i, tl.load(states + origin*8*W + i, mask=mask, other=0),
                 mask=mask)
    won = place_stone(states + to*8*W, mover, a, mask, S, W, L0, L1, L2, R0, R1, R2)
    tl.store(seat + to, (1 - mover).to(tl.int8), mask=mask)
    tl.store(terminal + to, won.to(tl.int8), mask=mask)
    tl.store(value + to, won.to(tl.float32)*(1 - 2*mover).to(tl.float32), mask=mask)


@triton.jit(do_not_specialize=['n_nodes'])
def summarise(prior, children, q, visits, seat, delta, size, policy, counts, n_nodes, c_puct,
              RULE_2021: tl.constexpr, PARENT: tl.constexpr, A: tl.constexpr, AP: tl.constexpr):
    """The root's pi_bar `[n, A]` and the visits of its actions `[n, A]`."""
    g = tl.program_id(0)
    first = g.to(tl.int64)*n_nodes
    lane = tl.arange(0, AP)
    stretch = _stretch(q, first, tl.load(size + g), RULE_2021)
    share, total, child, x = _policy(prior, children, q, visits, seat, delta, first, 0, lane,
                                     stretch, c_puct, EXACT, RULE_2021, PARENT, A)
    row = g.to(tl.int64)*A + lane
    tl.store(policy + row, share/total, mask=lane < A)
    n = tl.load(visits + first + child, mask=child > 0, other=0)
    tl.store(counts + row, n, mask=lane < A)


@triton.jit(do_not_specialize=['n_nodes'])
def dirichlet(states, seat, keys, noise, n_nodes, alpha, d, c, BOOST: tl.constexpr,
              A: tl.constexpr, AP: tl.constexpr, W: tl.constexpr):
    """Dirichlet(alpha) noise `[n, A]` over the free cells of every root.

    Normalised Gamma variates (Marsaglia and Tsang 2000), kept as logs: for a small alpha all of
    them may be too small for a number. With ``BOOST`` they are made from those of alpha + 1;
    ``d`` and ``c`` are the method's constants.
    """
    g = tl.program_id(0)
    lane = tl.arange(0, AP)
    at = g.to(tl.int64)*n_nodes
    free = free_cells(states + at*8*W, tl.load(seat + at).to(tl.int32), lane, A, W)
    key = tl.load(keys + g).to(tl.uint64, bitcast=True)
    counter = _NOISE + lane.to(tl.uint64)*_DRAWS
    log_x = tl.zeros((AP,), tl.float32)
    pending = free
    going = tl.max(pending.to(tl.int32), 0)
    rounds = 0
    while going > 0:
        u, w = uniform(key, counter), uniform(key, counter + 1)
        normal = tl.sqrt(-2*tl.log(u))*tl.cos(6.283185307179586*w)
        root = 1 + c*normal
        v = root*root*root
        log_v = tl.log(tl.maximum(v, TINY))
        bound = normal*normal/2 + d - d*v + d*log_v
        accepted = pending & (root > 0) & (tl.log(uniform(key, counter + 2)) < bound)
        log_x = tl.where(accepted, log_v, log_x)
        pending = pending & ~accepted
        counter += 3
        rounds += 1
        going = tl.max(pending.to(tl.int32), 0)*(rounds < 80).to(tl.int32)
    if BOOST:
        u = uniform(key, _NOISE + lane.to(tl.uint64)*_DRAWS + (_DRAWS - 1))
        log_x += tl.log(u)/alpha
    log_x = tl.where(free, log_x, float('-inf'))
    x = tl.where(free, tl.exp(log_x - tl.max(log_x, 0)), 0.)
    tl.store(noise + g.to(tl.int64)*A + lane, x/tl.sum(x, 0), mask=lane < A)
