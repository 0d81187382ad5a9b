"""The steps of one simulation in one game, compiled: choose, descend, expand, back up.

The policy at a node is the regularised policy of Grill et al. (ICML 2020, arXiv 2007.12509),

    pi_bar(a) = lambda pi(a) / (alpha - q(a)),    alpha such that the sum over a is 1,

with q the mover's value mapped from [-1, 1] to [0, 1]. We solve for delta = alpha - max q, which
keeps its relative precision in float32 however small lambda is.
"""
import math

import numpy as np
from numba import njit

from ..bits import as_float32
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
TINY = np.float32(1e-30)
_NOISE = 1 << 32   # counters of the noise begin here, far above those of the simulations
_DEPTHS = 12       # bits of a counter that number the depth


@njit(nogil=True)
def scratch(tree):
    """Room for the terms of one node's policy."""
    n = tree.child.shape[1] + 1
    return np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.float32)


@njit(fastmath=FAST, error_model='numpy', nogil=True)
def solve(lp, gap, k, tolerance):
    """The delta > 0 with sum_i lp[i] / (delta + gap[i]) = 1, over the first ``k`` entries.

    Newton's method on 1/S(delta) - 1, where S is that sum. 1/S is concave and increasing, so from
    the left of the solution the steps rise to it without overshooting; they are exact where all
    gaps are equal, and usually two or three suffice.
    """
    delta = TINY
    for i in range(k):
        delta = max(delta, lp[i] - gap[i])
    for _ in range(100):
        total, slope = F0, F0
        for i in range(k):
            inverse = F1/(delta + gap[i])
            share = lp[i]*inverse
            total += share
            slope += share*inverse
        error = total - F1
        delta += total*error/slope
        if error < tolerance:
            break
    return delta


@njit(error_model='numpy', nogil=True)
def scale_2021(tree, g):
    """Rule '2021' stretches q so that the largest |q| in the tree becomes 1."""
    largest = F0
    for i in range(tree.size[g]):
        largest = max(largest, abs(tree.q[g, i]))
    return F1/largest if largest > 0 else F1


@njit(fastmath=FAST, error_model='numpy', nogil=True)
def policy(tree, g, node, c_puct, rule, unvisited, tolerance, ids, share, gap):
    """pi_bar at a node: ``share[:k]`` for its children ``ids[:k]``, newest first.

    If there are actions without a child, ``share[k]`` is what they get together, divided among
    them in proportion to their priors; else it is 0.

    Returns:
        k, the number of children.
    """
    n_actions = tree.prior.shape[2]
    sign = np.float32(1 - 2*tree.seat[g, node])
    visits = np.float32(tree.n[g, node] - 1)
    rest = tree.rest[g, node]
    scale = scale_2021(tree, g) if rule == RULE_2021 else F1
    best = -F1
    k = 0
    j = tree.child[g, node]
    while j >= 0:
        q = HALF + HALF*scale*sign*tree.q[g, j]
        ids[k], share[k], gap[k] = j, tree.p[g, j], q
        best = max(best, q)
        k += 1
        j = tree.sibling[g, j]
    if k == 0:
        share[0] = F1
        return 0
    if rule == RULE_2021:
        visits = 2*visits + np.float32(n_actions - k)
        weight = c_puct*visits/(visits + n_actions)
    else:
        weight = c_puct*np.sqrt(visits)/(visits + n_actions)
    terms = k
    share[k] = F0
    if rest > 0:
        q = F0 if unvisited == WORST else HALF + HALF*scale*sign*tree.q[g, node]
        share[k], gap[k] = rest, q
        best = max(best, q)
        terms = k + 1
    for i in range(terms):
        share[i] *= weight
        gap[i] = best - gap[i]
    delta = solve(share, gap, terms, tolerance)
    for i in range(terms):
        share[i] /= delta + gap[i]
    return k


@njit(nogil=True)
def choose(tree, g, node, u, c_puct, rule, unvisited, ids, share, gap):
    """Samples an action of pi_bar by one uniform number; returns (action, child or -1)."""
    k = policy(tree, g, node, c_puct, rule, unvisited, np.float32(1e-2), ids, share, gap)
    total = F0
    for i in range(k + 1):
        total += share[i]
    u *= total
    for i in range(k):
        u -= share[i]
        if u < 0:
            return np.int64(tree.action[g, ids[i]]), np.int64(ids[i])
    if share[k] <= 0:
        return np.int64(tree.action[g, ids[k - 1]]), np.int64(ids[k - 1])
    u *= tree.rest[g, node]/share[k]
    prior = tree.prior[g, node]
    last = -1
    for a in range(len(prior)):
        if prior[a] > 0:
            u -= prior[a]
            last = a
            if u < 0:
                break
    return np.int64(last), np.int64(-1)


@njit(nogil=True)
def start(tree, g, seat):
    """An empty root."""
    tree.size[g], tree.leaf[g] = 1, 0
    tree.child[g, 0] = tree.sibling[g, 0] = tree.parent[g, 0] = tree.action[g, 0] = -1
    tree.seat[g, 0], tree.terminal[g, 0], tree.reward[g, 0] = seat, False, 0
    tree.p[g, 0], tree.n[g, 0], tree.q[g, 0] = 1, 0, 0


@njit(nogil=True)
def descend(tree, g, key, simulation, c_puct, rule, unvisited, ids, share, gap):
    """Walks from the root to where the tree ends; returns (node, action).

    The action leads out of the tree; it is -1 if the node is terminal.
    """
    node, depth = np.int64(0), 0
    while not tree.terminal[g, node]:
        u = uniform(key, (simulation << _DEPTHS) + depth)
        action, child = choose(tree, g, node, u, c_puct, rule, unvisited, ids, share, gap)
        if child < 0:
            return node, action
        node = child
        depth += 1
    return node, np.int64(-1)


@njit(nogil=True)
def attach(tree, g, node, action, seat, terminal, reward):
    """Adds the child of ``node`` by ``action``, makes it the leaf and returns its index."""
    new = np.int64(tree.size[g])
    tree.size[g] += 1
    tree.leaf[g] = new
    tree.parent[g, new], tree.action[g, new], tree.child[g, new] = node, action, -1
    tree.sibling[g, new] = tree.child[g, node]
    tree.child[g, node] = new
    tree.seat[g, new], tree.terminal[g, new], tree.reward[g, new] = seat, terminal, reward
    p = tree.prior[g, node, action]
    tree.p[g, new], tree.n[g, new], tree.q[g, new], tree.v[g, new] = p, 0, 0, 0
    tree.prior[g, node, action] = 0
    rest = tree.rest[g, node] - p
    if rest < np.float32(1e-4):   # where rounding could matter, sum anew
        rest = F0
        for a in range(tree.prior.shape[2]):
            rest += tree.prior[g, node, a]
    tree.rest[g, node] = rest
    return new


@njit(nogil=True)
def back_up(tree, g):
    """Adds the leaf's return to the mean of every node from it to the root."""
    node = np.int64(tree.leaf[g])
    value = F0 if tree.terminal[g, node] else tree.v[g, node]
    while node >= 0:
        value += tree.reward[g, node]
        tree.n[g, node] += 1
        tree.q[g, node] += (value - tree.q[g, node])/np.float32(tree.n[g, node])
        node = np.int64(tree.parent[g, node])


@njit(fastmath=FAST, nogil=True)
def exp(x):
    """exp(x) for x <= 0 to 2e-7 relative, in operations that vectorise; 0 below -87."""
    t = max(x, np.float32(-87.0))*np.float32(1.4426950408889634)
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
    return y if x >= np.float32(-87.0) else F0


@njit(fastmath=FAST, nogil=True)
def softmax(logits, prior):
    """Writes the softmax of ``logits`` over the actions where ``prior`` is positive on entry.

    Returns:
        False if a logit was nan or infinite where it counts.
    """
    largest = np.float32(-3e38)
    for a in range(len(prior)):
        largest = max(largest, logits[a] if prior[a] > 0 else np.float32(-3e38))
    total = F0
    for a in range(len(prior)):
        x = exp(logits[a] - largest) if prior[a] > 0 else F0
        prior[a] = x
        total += x
    inverse = F1/total
    for a in range(len(prior)):
        prior[a] *= inverse
    return np.isfinite(total) and np.isfinite(largest)


@njit(nogil=True)
def _gamma(shape, key, counter):
    """A Gamma(shape, 1) variate (Marsaglia and Tsang 2000) and the next unused counter."""
    boosted = shape if shape >= 1 else shape + 1
    d = boosted - 1/3
    c = 1/math.sqrt(9*d)
    while True:
        u, w = uniform(key, counter), uniform(key, counter + 1)
        normal = math.sqrt(-2*math.log(u))*math.cos(2*math.pi*w)
        v = (1 + c*normal)**3
        accept = uniform(key, counter + 2)
        counter += 3
        if v > 0 and math.log(accept) < normal*normal/2 + d - d*v + d*math.log(v):
            break
    x = d*v
    if shape < 1:
        x *= math.exp(math.log(uniform(key, counter))/shape)
        counter += 1
    return x, counter


@njit(nogil=True)
def add_noise(prior, key, eps, alpha, noise):
    """Mixes Dirichlet(alpha) noise over the valid actions into a root's prior, in place.

    Drawing over all cells, masking and renormalising (the paper's way) has the same distribution:
    a part of a Dirichlet vector, renormalised, is Dirichlet.
    """
    counter, total = _NOISE, 0.
    for a in range(len(prior)):
        noise[a] = 0
        if prior[a] > 0:
            x, counter = _gamma(alpha, key, counter)
            noise[a] = x
            total += x
    if total > 0:   # all may underflow when alpha is tiny
        for a in range(len(prior)):
            prior[a] = np.float32((1 - eps)*prior[a] + eps*noise[a]/total)


@njit(nogil=True)
def keep_root(tree, g, key, eps, alpha, noise):
    """Notes the network's policy at the root, then adds noise to the prior."""
    prior = tree.prior[g, 0]
    tree.root[g] = prior
    if eps > 0:
        add_noise(prior, key, eps, alpha, noise)


@njit(nogil=True)
def root_policy(tree, g, c_puct, rule, unvisited, ids, share, gap, out, visits):
    """Writes pi_bar at the root and the visit counts of its children; returns the leaf count."""
    k = policy(tree, g, 0, c_puct, rule, unvisited, np.float32(1e-4), ids, share, gap)
    total = F0
    for i in range(k + 1):
        total += share[i]
    rest = tree.rest[g, 0]
    factor = share[k]/(total*rest) if rest > 0 else F0
    for a in range(len(out)):
        out[a] = tree.prior[g, 0, a]*factor
        visits[a] = 0
    for i in range(k):
        a = tree.action[g, ids[i]]
        out[a] = share[i]/total
        visits[a] = tree.n[g, ids[i]]
    leaves = 0
    for i in range(tree.size[g]):
        leaves += tree.child[g, i] < 0
    return leaves
