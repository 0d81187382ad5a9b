"""The search in plain Python, one game at a time: what the compiled kernels are checked against.

Written from the formula of Grill et al. (ICML 2020, arXiv 2007.12509, section 3) in float64, with
root finding by bisection, and without regard to speed. It shares nothing with the kernels but the
numbering of their random draws, so that both grow the same trees.
"""
import numpy as np
import torch

from .. import rng


def policy(prior, q, n, c_puct, rule='corrected', unvisited=-1.):
    """The regularised policy pi_bar(a) = lambda pi(a) / (alpha - q(a)) of one node: `[n_actions]`.

    Args:
        prior: `[n_actions]`, sums to 1, 0 where not valid.
        q: `[n_actions]` mean returns to the mover, from -1 to 1, read only where there are visits.
        n: `[n_actions]` visits of the actions.
        c_puct: the weight of the prior.
        rule: 'corrected', lambda = c_puct sqrt(N)/(N + A); or '2021', lambda = c_puct N'/(N' + A),
            where N' counts every visit twice and each action without one once.
        unvisited: what an action without a visit is taken to be worth, from -1 to 1.
    """
    prior, n = np.asarray(prior, float), np.asarray(n)
    total, n_actions = n.sum(), len(n)
    if rule == '2021':
        total = 2*total + (n == 0).sum()
    lam = c_puct*(total if rule == '2021' else np.sqrt(total))/(total + n_actions)
    if lam == 0:                    # the limit: no visits, so nothing to weigh against the prior
        return prior
    q = (1 + np.where(n > 0, q, unvisited))/2     # from [-1, 1] to [0, 1]
    possible = prior > 0
    gap = np.where(possible, q[possible].max() - q, 0)
    # With delta = alpha - max q: the sum is at least 1 where the largest share is exactly 1, at
    # most 1 where delta = lambda, and falls in between.
    low, high = (lam*prior - gap)[possible].max(), lam
    for _ in range(100):
        delta = np.sqrt(low*high)   # halves the interval of log delta, which may span 30 decades
        if (lam*prior/(delta + gap)).sum() > 1:
            low = delta
        else:
            high = delta
    return lam*prior/(high + gap)


class Node:
    """A position in the tree. Rewards, values and totals are by seat, `[n_seats]`.

    Attributes:
        world: the position, a batch of one game.
        reward, terminal: what the move into this node paid, and whether it ended the game.
        prior: `[n_actions]`, the network's policy, once it was asked.
        children: nodes by action, oldest first.
        n: visits, the one that made the node included.
        total: the sum over these visits of the returns from the move into this node onward.
    """

    def __init__(self, world, reward=0., terminal=False):
        self.world, self.reward, self.terminal = world, np.asarray(reward, float), terminal
        self.seat = int(world.seats[0])
        self.prior, self.children = None, {}
        self.n, self.total = 0, np.zeros(world.n_seats)

    @property
    def q(self):
        """`[n_seats]`: the mean return."""
        return self.total/self.n

    def evaluate(self, network):
        """Asks the network, keeps its policy, returns its value; 0 where the game is over."""
        if self.terminal:
            return np.zeros(self.world.n_seats)
        with torch.no_grad():
            logits, v = (x[0].double().numpy() for x in network(self.world))
        if self.prior is None:
            weights = np.exp(np.where(self.world.valid[0], logits - logits.max(), -np.inf))
            self.prior = weights/weights.sum()
        return v

    def step(self, action):
        """The node that a move leads to."""
        world, transition = self.world.step(torch.tensor([action]), reset=False)
        return Node(world, transition.rewards[0].numpy(), bool(transition.terminal[0]))

    def policy(self, c_puct, rule='corrected', unvisited='parent', scale=1.):
        """pi_bar at this node.

        Args:
            unvisited: 'worst', the worst value; or 'parent', the mean value of this node.
            scale: what q is multiplied by first; see :func:`stretch`.
        """
        q, n = np.zeros(len(self.prior)), np.zeros(len(self.prior), int)
        for action, child in self.children.items():
            q[action], n[action] = scale*child.q[self.seat], child.n
        mean = scale*(self.q - self.reward)[self.seat]
        return policy(self.prior, q, n, c_puct, rule, mean if unvisited == 'parent' else -1.)

    def choose(self, pi_bar, u):
        """The action where the cumulative sum of pi_bar passes ``u``.

        Actions with children come first, the newest ahead, then the others in their order.
        """
        children = list(self.children)[::-1]
        order = children + [a for a in np.flatnonzero(pi_bar) if a not in self.children]
        k = np.searchsorted(pi_bar[order].cumsum(), u*pi_bar.sum(), side='right')
        return int(order[min(k, len(order) - 1)])

    def walk(self):
        """This node and all below it."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def stretch(root, rule):
    """What q is multiplied by: under rule '2021' the tree's largest |q| becomes 1."""
    if rule != '2021':
        return 1.
    largest = max((np.abs(node.q).max() for node in root.walk() if node.n), default=0)
    return 1/largest if largest else 1.


def search(world, network, n_nodes=64, c_puct=1/4, rule='corrected', unvisited='parent', key=0,
           prior=None):
    """Grows the tree of one game; returns its root.

    The root's :meth:`Node.policy` is the result, its ``q`` the search's value.

    Args:
        world: a batch of one game.
        key: from :func:`boardlaw.rng.keys`.
        prior: `[n_actions]` in place of the network's policy at the root, such as one with noise.
    """
    unvisited = 'worst' if rule == '2021' else unvisited
    root = Node(world)
    root.prior = prior
    for simulation in range(n_nodes):
        node, path, scale = root, [root], stretch(root, rule)
        while node.n and not node.terminal:                              # descend
            u = rng.uniforms(key, (simulation << 12) + len(path) - 1)
            action = node.choose(node.policy(c_puct, rule, unvisited, scale), u)
            if action not in node.children:                              # expand
                node.children[action] = node.step(action)
            node = node.children[action]
            path.append(node)
        value = node.evaluate(network)                                   # evaluate
        for node in reversed(path):                                      # back up
            value = value + node.reward
            node.n, node.total = node.n + 1, node.total + value
    return root
