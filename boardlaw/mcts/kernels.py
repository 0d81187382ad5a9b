"""The steps of one simulation in one game, compiled: choose, descend, expand, back up.

The policy at a node is the regularised policy of Grill et al. (ICML 2020, arXiv 2007.12509),

    pi_bar(a) = lambda pi(a) / (alpha - q(a)),    alpha such that the sum over a is 1,

with q the mover's value mapped from [-1, 1] to [0, 1]. We solve for delta = (alpha - max q)/lambda,
a number between the best action's prior and 1, in

    pi_bar(a) = pi(a) / (delta + gap(a)),    gap(a) = (max q - q(a)) / lambda,

so that float32 keeps its relative precision however small or large lambda is.
"""
import math

import numpy as np
from numba import njit

from ..bits import as_float32, njit_uncounted
from ..lanes import LANES, larger, largest, load, splat
from ..rng import uniform

#: How lambda depends on the visits N of a node's children (:data:`RULES` gives the names).
CORRECTED, RULE_2021 = 0, 1
RULES = {'corrected': CORRECTED, '2021': RULE_2021}

#: What an action without a child is taken to be worth: the worst value, or its node's mean.
WORST, PARENT = 0, 1
UNVISITED = {'worst': WORST, 'parent': PARENT}

# Sums may be reordered, so that they vectorise; nan and infinity keep their meaning.
FAST = {'reassoc', 'contract', 'arcp', 'nsz'}
F0, F1, HALF = np.float32(0), np.float32(1), np.float32(.5)
TINY, LOWEST = np.float32(1e-36), np.float32(-3e38)
FAINT = np.float32(-75)   # logits this far below the largest give a prior of 0, others above TINY
SAMPLING, EXACT = np.float32(1e-3), np.float32(1e-6)   # tolerances of the sum of pi_bar
BLOCK = 8   # terms summed together, a vector register's worth
_NOISE = 1 << 32   # counters of the noise begin here, far above those of the simulations
_DEPTHS = 12       # bits of a counter that number the depth


@njit(nogil=True)
def scratch(n_nodes):
    """Room for the terms of one node's policy: ids, and `[2, n]` priors (then shares) and gaps."""
    n = n_nodes + 1 + BLOCK
    return np.empty(n, np.int64), np.empty((2, n), np.float32)


@njit_uncounted(fastmath=FAST, error_model='numpy', forceinline=True)
def solve(terms, k, delta, tolerance):
    """Turns pi (``terms[0, :k]``) into pi_bar, given the gaps (``terms[1, :k]``).

    Newton's method on 1/S(delta) - 1, where S(delta) = sum pi / (delta + gap). 1/S is
    concave and increasing, so wherever a step starts it ends at the solution or left of it, and
    from the left the steps rise to it without overshooting. They are exact where all gaps are
    equal; two or three suffice.

    Args:
        terms: `[2, >= k + BLOCK]`, changed in place; what lies beyond ``k`` is overwritten.
        delta: where to start.
        tolerance: how far the sum may be from 1 at the end.

    Returns:
        delta, and the sum of the shares.
    """
    least = TINY
    for i in range(k):
        least = max(least, terms[0, i] - terms[1, i])
    blocks = (k + BLOCK - 1)//BLOCK
    for i in range(k, blocks*BLOCK):
        terms[0, i], terms[1, i] = F0, F1
    delta = max(delta, least)
    total = F0
    for _ in range(100):
        total, slope = F0, F0
        for b in range(blocks):
            for i in range(BLOCK):
                inverse = F1/(delta + terms[1, b*BLOCK + i])
                share = terms[0, b*BLOCK + i]*inverse
                total += share
                slope += share*inverse
        error = total - F1
        if abs(error) < tolerance:
            break
        new = max(least, delta + total*error/slope)
        if new == delta:   # as good as float32 gets
            break
        delta = new
    for i in range(blocks*BLOCK):
        terms[0, i] /= delta + terms[1, i]
    return delta, total


@njit_uncounted(error_model='numpy', nogil=True)
def largest_q(nodes, size):
    """Rule '2021' stretches q so that the largest |q| in the tree, which this is, becomes 1."""
    largest = F0
    for i in range(size):
        largest = max(largest, abs(nodes[i].q))
    return largest if largest > 0 else F1


@njit_uncounted(fastmath=FAST, error_model='numpy', forceinline=True)
def policy(nodes, size, node, n_actions, c_puct, rule, unvisited, tolerance, ids, terms):
    """pi_bar at a node: ``terms[0, :k]`` for its children ``ids[:k]``, newest first.

    Actions without a child share ``terms[0, k]`` in proportion to their priors; it is 0 if there
    are none.

    Returns:
        k, the number of children, and the sum of the terms, 1 within ``tolerance``.
    """
    here = nodes[node]
    worst = -F1
    if rule == RULE_2021:
        visits = np.float32(2*(here.n - 1) + n_actions - here.n_children)
        weight = c_puct*visits/(visits + n_actions)
        worst *= largest_q(nodes, size)
    else:
        visits = np.float32(here.n - 1)
        weight = c_puct*np.sqrt(visits)/(visits + n_actions)
    sign = np.float32(1 - 2*here.seat)
    best = LOWEST
    k = 0
    j = here.child
    while j >= 0:
        there = nodes[j]
        q = sign*there.q
        ids[k], terms[0, k], terms[1, k] = j, there.p, q
        best = max(best, q)
        k += 1
        j = there.sibling
    terms[0, k] = F0
    if k == 0:
        terms[0, 0] = F1
        return 0, F1
    n = k
    if here.rest > 0:
        q = worst if unvisited == WORST else sign*(here.q - here.reward)
        terms[0, k], terms[1, k] = here.rest, q
        best = max(best, q)
        n = k + 1
    scale = HALF/(-worst*weight)   # takes gaps of -1 to 1, or -worst, to those of 0 to 1
    for i in range(n):
        terms[1, i] = (best - terms[1, i])*scale
    here.delta, total = solve(terms, n, here.delta, tolerance)
    return k, total


@njit_uncounted(fastmath=FAST, forceinline=True)
def pick(nodes, prior, node, u, k, total, ids, terms):
    """The action where a policy's cumulative sum passes ``u``: (action, child or -1)."""
    u *= total
    for i in range(k):
        u -= terms[0, i]
        if u < 0:
            return np.int64(nodes[ids[i]].action), np.int64(ids[i])
    if terms[0, k] <= 0:
        return np.int64(nodes[ids[k - 1]].action), np.int64(ids[k - 1])
    u *= nodes[node].rest/terms[0, k]
    n_actions = prior.shape[1]
    for a in range(n_actions):
        u -= prior[node, a]
        if u < 0:
            return np.int64(a), np.int64(-1)
    for a in range(n_actions - 1, -1, -1):   # rounding left a little of u: the last one that can be
        if prior[node, a] > 0:
            return np.int64(a), np.int64(-1)
    return np.int64(-1), np.int64(-1)


@njit_uncounted(forceinline=True)
def start(nodes, seat):
    """An empty root."""
    root = nodes[0]
    root.parent = root.action = root.child = root.sibling = -1
    root.n = root.n_children = 0
    root.p, root.q, root.reward, root.v, root.delta = F1, F0, F0, F0, F0
    root.seat, root.terminal = seat, False


@njit_uncounted(forceinline=True)
def descend(nodes, prior, size, key, simulation, c_puct, rule, unvisited, ids, terms):
    """Walks from the root to where the tree ends; returns (node, action).

    The action leads out of the tree; it is -1 if the node is terminal.
    """
    node, depth = np.int64(0), 0
    while not nodes[node].terminal:
        k, total = policy(nodes, size, node, prior.shape[1], c_puct, rule, unvisited, SAMPLING,
                          ids, terms)
        u = uniform(key, (simulation << _DEPTHS) + depth)
        action, child = pick(nodes, prior, node, u, k, total, ids, terms)
        if child < 0:
            return node, action
        node = child
        depth += 1
    return node, np.int64(-1)


@njit_uncounted(forceinline=True)
def attach(nodes, prior, new, node, action, seat, terminal, reward):
    """Makes ``new`` the child of ``node`` by ``action``."""
    p = prior[node, action]
    leaf, here = nodes[new], nodes[node]
    leaf.parent, leaf.action, leaf.child, leaf.sibling = node, action, -1, here.child
    leaf.p, leaf.q, leaf.n, leaf.reward, leaf.v = p, F0, 0, reward, F0
    leaf.rest = leaf.delta = F0
    leaf.seat, leaf.terminal, leaf.n_children = seat, terminal, 0
    here.child = new
    here.n_children += 1
    prior[node, action] = 0
    here.rest -= p
    if here.rest < np.float32(1e-3):   # where rounding could matter, sum anew
        here.rest = F0
        for a in range(prior.shape[1]):
            here.rest += prior[node, a]


@njit_uncounted(forceinline=True)
def back_up(nodes, leaf):
    """Adds the leaf's return to the mean of every node from it to the root."""
    node = np.int64(leaf)
    value = nodes[node].v
    while node >= 0:
        here = nodes[node]
        value += here.reward
        here.n += 1
        here.q += (value - here.q)/np.float32(here.n)
        node = np.int64(here.parent)


@njit_uncounted(fastmath=FAST, forceinline=True)
def exp(x):
    """exp(x) for x <= 0, in operations that vectorise; 0 below FAINT, nan for nan.

    Its relative error is 3e-7 near 0 and grows to 4e-6 at FAINT.
    """
    t = (FAINT if x < FAINT else x)*np.float32(1.4426950408889634)
    whole = np.floor(t + HALF)
    r = t - whole
    y = np.float32(1.5352734e-4)
    y = y*r + np.float32(1.3398574e-3)
    y = y*r + np.float32(9.6180896e-3)
    y = y*r + np.float32(5.5503301e-2)
    y = y*r + np.float32(2.4022651e-1)
    y = y*r + np.float32(6.9314718e-1)
    y = y*r + F1
    y *= as_float32((np.int32(whole) + np.int32(127)) << np.int32(23))
    return F0 if x < FAINT else y


@njit_uncounted(fastmath=FAST, error_model='numpy', forceinline=True)
def expand(nodes, prior, root, leaf, logits, v, key, eps, alpha, noise):
    """Gives a leaf its priors and value (seat 0's) from the network's output.

    Args:
        logits: `[n_actions]` rounded up to whole :data:`~boardlaw.lanes.LANES`, :data:`LOWEST`
            where an action is not valid and beyond; changed.

    Returns:
        False if no action is valid, or an output that matters is nan or infinite. (A single logit
        may be -inf, a probability of 0.)
    """
    n_actions, most = prior.shape[1], splat(LOWEST)
    for b in range(0, len(logits), LANES):
        most = larger(load(logits, b), most)
    top = largest(most)
    for a in range(len(logits)):   # whole vectors, so nothing is left for a slow end of the loop
        logits[a] = exp(logits[a] - top)
    total = F0
    for a in range(n_actions):
        total += logits[a]
    inverse = F1/total
    for a in range(n_actions):
        prior[leaf, a] = logits[a]*inverse
    nodes[leaf].v, nodes[leaf].rest = v, F1
    if leaf == 0:
        for a in range(n_actions):
            root[a] = prior[0, a]
        if eps > 0:
            add_noise(prior, key, eps, alpha, noise)
    return np.isfinite(total) and np.isfinite(v) and top > LOWEST


@njit_uncounted(nogil=True)
def _log_gamma(shape, key, counter):
    """The log of a Gamma(shape, 1) variate (Marsaglia and Tsang 2000), and the next counter."""
    boosted = shape if shape >= 1 else shape + 1
    d = boosted - 1/3
    c = 1/math.sqrt(9*d)
    while True:
        u, w = uniform(key, counter), uniform(key, counter + 1)
        normal = math.sqrt(-2*math.log(u))*math.cos(2*math.pi*w)
        v = (1 + c*normal)**3
        log_v = math.log(v) if v > 0 else 0.
        accept = uniform(key, counter + 2)
        counter += 3
        if v > 0 and math.log(accept) < normal*normal/2 + d - d*v + d*log_v:
            break
    x = math.log(d) + log_v
    if shape < 1:
        x += math.log(uniform(key, counter))/shape
        counter += 1
    return x, counter


@njit_uncounted(nogil=True)
def add_noise(prior, key, eps, alpha, noise):
    """Mixes Dirichlet(alpha) noise over the valid actions into the root's prior, in place.

    Drawing over all cells, masking and renormalising (the paper's way) has the same distribution:
    a part of a Dirichlet vector, renormalised, is Dirichlet. Variates are kept as logs: for a small
    alpha all of them may be too small for a number.
    """
    counter, largest, total = _NOISE, -math.inf, 0.
    for a in range(prior.shape[1]):
        noise[a] = -math.inf
        if prior[0, a] > 0:
            noise[a], counter = _log_gamma(alpha, key, counter)
            largest = max(largest, noise[a])
    for a in range(prior.shape[1]):
        noise[a] = math.exp(noise[a] - largest)
        total += noise[a]
    for a in range(prior.shape[1]):
        prior[0, a] = np.float32((1 - eps)*prior[0, a] + eps*noise[a]/total)


@njit(nogil=True)
def summarise(nodes, prior, size, c_puct, rule, unvisited, ids, terms, out, visits):
    """Writes pi_bar at the root and its actions' visit counts; returns the leaf count."""
    k, _ = policy(nodes, size, 0, prior.shape[1], c_puct, rule, unvisited, EXACT, ids, terms)
    total = F0
    for i in range(k + 1):
        total += terms[0, i]
    rest = nodes[0].rest
    factor = terms[0, k]/(total*rest) if rest > 0 else F0
    for a in range(len(out)):
        out[a] = prior[0, a]*factor
        visits[a] = 0
    for i in range(k):
        child = nodes[ids[i]]
        out[child.action] = terms[0, i]/total
        visits[child.action] = child.n
    leaves = 0
    for i in range(size):
        leaves += nodes[i].child < 0
    return leaves
