"""Maximum-likelihood strengths by Newton's method, for three agents or ten thousand.

The log-likelihood of strengths `x` (nats) is the sum over pairs of
    wins log p + losses log(1 - p),  p = 1/(1 + exp(-(x_i - x_j))),
concave, with gradient wins - games p at i (and its opposite at j) and, as Hessian, minus the
Laplacian of the graph with weights games p (1 - p). Strengths are known up to a constant, which
the linear solvers fix in whichever way suits them.
"""
import numpy as np
from scipy.linalg import cho_factor, cho_solve, cho_solve_banded, cholesky_banded
from scipy.linalg.lapack import dpotri
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.sparse.linalg import LinearOperator, cg

from . import kernels

DENSE = 2000     # agents up to which a dense Cholesky factor is the quickest
BANDWIDTH = 500  # up to which a banded one is


class Graph:
    """Agents, and the pairs of them that have met.

    :param n: agents
    :param i: positions `[n_pairs]` of the pairs' first agents, and `j` of the second
    """

    def __init__(self, n: int, i: np.ndarray, j: np.ndarray):
        self.n, self.i, self.j = n, i, j

    def difference(self, x: np.ndarray) -> np.ndarray:
        """x_i - x_j, `[n_pairs]`."""
        return kernels.difference(x, self.i, self.j)

    def net(self, flow: np.ndarray) -> np.ndarray:
        """Sum `[n]` over each agent's pairs, counted negative where it is the second of the two."""
        return np.bincount(self.i, flow, self.n) - np.bincount(self.j, flow, self.n)

    def slopes(self, x: np.ndarray, wins: np.ndarray, games: np.ndarray):
        """The log-likelihood's gradient `[n]` at `x`, and the pairs' weights games p (1 - p)."""
        with np.errstate(over='ignore'):  # exp(710) is inf, and the rate rightly 0
            odds = np.exp(-self.difference(x))
        return kernels.slopes(self.n, self.i, self.j, odds, wins, games)

    def total(self, weights: np.ndarray) -> np.ndarray:
        """Sum `[n]` over each agent's pairs."""
        return np.bincount(self.i, weights, self.n) + np.bincount(self.j, weights, self.n)

    def laplacian(self, weights: np.ndarray) -> csr_array:
        """`[n, n]`: x @ laplacian @ x is the sum of weights times squared differences."""
        above = csr_array((weights, (self.i, self.j)), shape=(self.n, self.n))
        return (diags_array(self.total(weights), dtype=float) - above - above.T).tocsr()

    def islands(self) -> np.ndarray:
        """Label `[n]` of the connected part that each agent is in."""
        met = np.bincount(self.i, minlength=self.n) + np.bincount(self.j, minlength=self.n)
        if len(self.i) and met.max() == self.n - 1:
            return np.zeros(self.n, int)  # one agent has met all others
        edges = csr_array((np.ones(len(self.i)), (self.i, self.j)), shape=(self.n, self.n))
        return connected_components(edges, directed=False)[1]

    def covariance(self, weights: np.ndarray, ground: int) -> np.ndarray:
        """Covariance `[n, n]` of the strengths' differences from agent `ground`, nats squared.

        The inverse of the Laplacian without its row and column `ground`, which are 0 here.
        """
        a = kernels.laplacian(self.n, self.i, self.j, weights, 0.).T
        a[ground], a[:, ground], a[ground, ground] = 0, 0, 1
        chol, _ = cho_factor(a, lower=True, overwrite_a=True, check_finite=False)
        inverse, error = dpotri(chol, lower=1, overwrite_c=1)
        if error:
            raise np.linalg.LinAlgError(f'dpotri failed with {error}')
        _mirror(inverse)
        inverse[ground, ground] = 0
        return inverse

    def factor(self, weights: np.ndarray):
        """A function b -> x that solves laplacian @ x = b, for b that adds up to 0."""
        if self.n <= DENSE:
            return self._dense(weights)
        order = reverse_cuthill_mckee(self.laplacian(weights), symmetric_mode=True)
        place = np.empty(self.n, int)
        place[order] = np.arange(self.n)
        if np.abs(place[self.i] - place[self.j]).max() <= BANDWIDTH:
            return self._banded(weights, place)
        return self._iterative(weights)

    def _dense(self, weights):
        # A constant added to all entries moves only the eigenvalue of equal strengths, from 0.
        shift = 2 * weights.sum() / self.n**2
        a = kernels.laplacian(self.n, self.i, self.j, weights, shift).T  # LAPACK works in place
        chol = cho_factor(a, lower=True, overwrite_a=True, check_finite=False)
        return lambda b: cho_solve(chol, b, check_finite=False)

    def _banded(self, weights, place):
        """`place` is each agent's in an order in which agents who met are near each other."""
        ends = np.sort([place[self.i], place[self.j]], axis=0)
        width = ends[1] - ends[0]
        bands = np.zeros((width.max() + 1, self.n))
        bands[0, place] = self.total(weights)
        bands[width, ends[0]] = -weights
        # The first agent of the order is grounded: its row and column leave the system.
        chol = cholesky_banded(bands[:, 1:], lower=True, check_finite=False)

        def solve(b):
            shuffled = np.empty(self.n)
            shuffled[place] = b
            x = cho_solve_banded((chol, True), shuffled[1:], check_finite=False)
            return np.concatenate([[0.], x])[place]

        return solve

    def _iterative(self, weights):
        """Conjugate gradients: a graph of large bandwidth mixes fast, few steps are needed."""
        a, diagonal = self.laplacian(weights), self.total(weights)
        jacobi = LinearOperator(a.shape, matvec=lambda r: r / diagonal)
        # Rounding leaves b a small mean, which no x can give, and cg would hunt for it forever.
        return lambda b: cg(a, b - b.mean(), rtol=1e-8, maxiter=2 * self.n, M=jacobi)[0]


class Fit:
    """The maximum of the likelihood on one connected graph, for one or several sets of games.

    The first guess takes a factor, of weights near the Hessian's. The Hessian itself is factored
    only where a step by the factor at hand is large, or not a tenth of the one before; often that
    is never, and another call with nearly the same games does without as well.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.x = self.solve = None

    def __call__(self, wins: np.ndarray, games: np.ndarray, tolerance: float = 1e-8) -> np.ndarray:
        """Strengths `[n]` in nats, of mean 0. The first call starts at the weighted least-squares
        fit of the pairs' log odds, which on a tree is the answer.

        :param wins: of the first agents, `[n_pairs]`, above 0, pseudo-wins included
        :param games: of the pairs, `[n_pairs]`, above the wins
        :param tolerance: the last step's largest change of a difference, nats
        """
        graph, losses = self.graph, games - wins
        if self.x is None:
            weights = wins * losses / games
            self.solve = graph.factor(weights)
            self.x = self.solve(graph.net(weights * np.log(wins / losses)))
        size = np.inf
        for _ in range(100):
            gradient, weights = graph.slopes(self.x, wins, games)
            step = self.solve(gradient)
            if np.ptp(step) > min(1., .1 * size):
                self.solve = graph.factor(weights)
                step = self.solve(gradient)
            size = np.ptp(step)
            # Newton's step is safe where no rate changes much; else it must gain something.
            if size > 1:
                step *= _shorten(graph, self.x, step, wins, losses, gradient @ step)
            self.x = self.x + step
            self.x -= self.x.mean()
            if size < tolerance:
                return self.x
        raise RuntimeError(f'no convergence on {graph.n} agents, last step {size:.2g} nats: are '
                           'there numbers of games as different as 1 and 1e12?')


def winrates(difference: np.ndarray) -> np.ndarray:
    """Probability that the agent wins that is `difference` nats stronger."""
    with np.errstate(over='ignore'):  # exp(710) is inf, and the rate rightly 0
        return 1 / (1 + np.exp(-difference))


def _shorten(graph, x, step, wins, losses, slope):
    """The first of 1, 1/2, 1/4 .. of a step that gains a part of what its slope promises."""
    def value(d):
        return -(wins @ np.logaddexp(0, -d) + losses @ np.logaddexp(0, d))

    difference, along = graph.difference(x), graph.difference(step)
    size, now = 1., value(difference)
    while size > 1e-6 and value(difference + size * along) < now + 1e-4 * size * slope:
        size /= 2
    return size


def _mirror(a, block=256):
    """Copies the lower triangle of `a` onto the upper, in place."""
    for s in range(0, len(a), block):
        e = min(s + block, len(a))
        a[s:e, e:] = a[e:, s:e].T
        square = np.tril(a[s:e, s:e], -1)
        a[s:e, s:e] = square + square.T + np.diag(np.diag(a[s:e, s:e]))
