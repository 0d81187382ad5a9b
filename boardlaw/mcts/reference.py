"""The search in plain Python, one game at a time: what the compiled kernels are checked against.

Written from the formula of Grill et al. (ICML 2020, arXiv 2007.12509, section 3) in float64, with
root finding by bisection, and without regard to speed. It shares nothing with the kernels but the
numbering of their random draws, so that both grow the same trees. The book prints it, hence the
short lines.
"""
import numpy as np
import torch

from .. import rng


def policy(prior, q, n, c_puct, rule='corrected', unvisited=-1.):
    """The regularised policy pi_bar of one node, `[n_actions]`.

    Args:
        prior: `[n_actions]`, sums to 1, 0 where not valid.
        q: `[n_actions]` mean returns to the mover, from -1 to 1; read
            only where there are visits.
        n: `[n_actions]` visits.
        c_puct: the weight of the prior.
        rule: 'corrected', lambda = c_puct sqrt(N)/(N + A); or '2021',
            lambda = c_puct N'/(N' + A), where N' counts every visit
            twice and each action without a visit once.
        unvisited: what an action without a visit is taken to be worth.
    """
    prior, n = np.asarray(prior, float), np.asarray(n)
    N, A = n.sum(), len(n)
    if rule == '2021':
        N = 2*N + (n == 0).sum()
    lam = c_puct*(N if rule == '2021' else np.sqrt(N))/(N + A)
    if lam == 0:    # the limit: nothing to weigh against the prior
        return prior
    q = (1 + np.where(n > 0, q, unvisited))/2    # [-1, 1] to [0, 1]
    possible = prior > 0
    gap = np.where(possible, q[possible].max() - q, 0)
    # With delta = alpha - max q: at `low` one share alone is 1, at `high`
    # the sum is at most 1. Between them, halve the interval of log delta.
    low, high = (lam*prior - gap)[possible].max(), lam
    for _ in range(100):
        delta = np.sqrt(low*high)
        if (lam*prior/(delta + gap)).sum() > 1:
            low = delta
        else:
            high = delta
    return lam*prior/(high + gap)


class Node:
    """A position in the tree; `total` and `reward` are by seat.

    Attributes:
        world: the position, a batch of one game.
        reward, terminal: what the move into this node paid, and whether
            it ended the game.
        prior: `[n_actions]`, once the network was asked.
        children: nodes by action, oldest first.
        n: visits, the one that made the node included.
        total: the sum, over the visits, of the returns from the move
            into this node onward.
    """

    def __init__(self, world, reward=0., terminal=False):
        self.world, self.seat = world, int(world.seats[0])
        self.reward, self.terminal = np.asarray(reward, float), terminal
        self.prior, self.children = None, {}
        self.n, self.total = 0, np.zeros(world.n_seats)

    @property
    def q(self):
        """The mean return, by seat."""
        return self.total/self.n

    def evaluate(self, network):
        """Keeps the network's policy and returns its value, by seat."""
        if self.terminal:
            return np.zeros(self.world.n_seats)
        with torch.no_grad():
            logits, v = (x[0].double().numpy() for x in network(self.world))
        if self.prior is None:
            logits = np.where(self.world.valid[0], logits, -np.inf)
            weights = np.exp(logits - logits.max())
            self.prior = weights/weights.sum()
        return v

    def step(self, action):
        """The node that a move leads to."""
        world, transition = self.world.step(
            torch.tensor([action]), reset=False)
        return Node(world, transition.rewards[0].numpy(),
                    bool(transition.terminal[0]))

    def policy(self, c_puct, rule='corrected', unvisited='parent',
               scale=1.):
        """pi_bar here; `unvisited` is 'parent' or 'worst'."""
        q, n = np.zeros((2, len(self.prior)))
        for action, child in self.children.items():
            q[action], n[action] = child.q[self.seat], child.n
        mean = (self.q - self.reward)[self.seat]
        return policy(self.prior, scale*q, n, c_puct, rule,
                      scale*mean if unvisited == 'parent' else -1.)

    def choose(self, pi_bar, u):
        """The action where the cumulative sum of pi_bar passes u.

        Children are counted first, the newest ahead, then the rest.
        """
        children = list(self.children)[::-1]
        others = [a for a in np.flatnonzero(pi_bar) if a not in children]
        order = children + others
        sums = pi_bar[order].cumsum()
        k = np.searchsorted(sums, u*sums[-1], side='right')
        return int(order[min(k, len(order) - 1)])

    def walk(self):
        """This node and all below it."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def stretch(root, rule):
    """Under rule '2021', what makes the tree's largest |q| 1."""
    if rule != '2021' or not root.n:
        return 1.
    largest = max(np.abs(node.q).max() for node in root.walk())
    return 1/largest if largest else 1.


def search(world, network, n_nodes=64, c_puct=1/4, rule='corrected',
           unvisited='parent', key=0, prior=None):
    """Grows the tree of one game and returns its root.

    The result is the root's policy; its `q` is the search's value.

    Args:
        world: a batch of one game.
        key: from boardlaw.rng.keys.
        prior: `[n_actions]` in place of the network's policy at the
            root, such as one with noise.
    """
    unvisited = 'worst' if rule == '2021' else unvisited
    root = Node(world)
    root.prior = prior
    for simulation in range(n_nodes):
        node, path, scale = root, [root], stretch(root, rule)
        while node.n and not node.terminal:                # descend
            u = rng.uniforms(key, (simulation << 12) + len(path) - 1)
            pi_bar = node.policy(c_puct, rule, unvisited, scale)
            action = node.choose(pi_bar, u)
            if action not in node.children:                # expand
                node.children[action] = node.step(action)
            node = node.children[action]
            path.append(node)
        value = node.evaluate(network)                     # evaluate
        for node in reversed(path):                        # back up
            value = value + node.reward
            node.n, node.total = node.n + 1, node.total + value
    return root
