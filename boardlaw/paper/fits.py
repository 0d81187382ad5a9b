"""Fits to frontiers and best sizes, the numbers that follow from them, and their intervals.

Explained in the chapter book/scaling.ipynb.
"""
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from boardlaw import elos

from .data import PERFECT, check, crossings, frontier, optimal_model_size, train_agents


def winrate(elo):
    """The chance to win against an opponent `elo` (in Elo) weaker: 1/(1 + 10^(-elo/400))."""
    return elos.winrate(np.asarray(elo, float)/elos.to_elo)


@dataclass(frozen=True)
class ChangePoint:
    """Elo as a plateau of random play, an incline, and perfect play at 0 (Jones 2021, table III):

        plateau = plateau_boardsize · boardsize + plateau_const
        incline = incline_flops · log10(train_flops)
                  + incline_boardsize · boardsize + incline_const
        elo     = min(0, max(plateau, incline))

    Found by `fit_frontier`.
    """
    plateau_boardsize: float
    plateau_const: float
    incline_flops: float
    incline_boardsize: float
    incline_const: float

    def predict(self, boardsize, train_flops):
        """Elo at these board sizes and computes, arrays that broadcast."""
        return _predict(astuple(self), np.asarray(boardsize, float), np.log10(train_flops))

    def residuals(self, frontiers):
        """Fitted minus measured Elo, one for each row of a frontier frame."""
        return self.predict(frontiers.boardsize, frontiers.train_flops) - frontiers.elo.to_numpy()

    def plateau(self, boardsize):
        """The Elo of random play, where a frontier begins."""
        return self.plateau_boardsize*np.asarray(boardsize, float) + self.plateau_const

    def takeoff(self, boardsize):
        """The compute at which the incline leaves the plateau."""
        gap = ((self.plateau_boardsize - self.incline_boardsize)*np.asarray(boardsize, float)
               + self.plateau_const - self.incline_const)
        return 10**(gap/self.incline_flops)

    def compute(self, boardsize, elo=PERFECT):
        """The compute at which the incline reaches `elo`."""
        rest = elo - self.incline_boardsize*np.asarray(boardsize, float) - self.incline_const
        return 10**(rest/self.incline_flops)

    @property
    def double_compute_winrate(self):
        """The win rate of twice the training compute, on the incline."""
        return float(winrate(self.incline_flops*np.log10(2)))

    @property
    def takeoff_growth(self):
        """The factor by which the compute at takeoff grows from one board size to the next."""
        return float(self.takeoff(1)/self.takeoff(0))

    @property
    def perfect_growth(self):
        """The factor by which the compute for perfect play grows from one board size to the
        next."""
        return float(self.compute(1)/self.compute(0))

    @property
    def gap_growth(self):
        """Elo that one further board size adds between random and perfect play."""
        return -self.plateau_boardsize


def _predict(p, b, x):
    return np.minimum(0, np.maximum(p[0]*b + p[1], p[2]*x + p[3]*b + p[4]))


def _jacobian(p, b, x):
    plateau, incline = p[0]*b + p[1], p[2]*x + p[3]*b + p[4]
    on_plateau = (plateau > incline) & (plateau < 0)
    on_incline = (plateau <= incline) & (incline < 0)
    one = np.ones_like(b)
    return np.where([on_plateau]*2 + [on_incline]*3, [b, one, x, b, one], 0).T


def fit_frontier(frontiers) -> ChangePoint:
    """The change point with the least squared error over all points of the frontiers.

    The error has many local minima, as points change sides at the corners. Each start sorts the
    points by how far they have come from their board's first Elo to 0, into plateau, incline and
    perfect play, and fits a plane to each. Least squares goes on from the best starts; the best
    end is shaken by the size of its residuals until that improves it no more.

    Args:
        frontiers: boardsize, train_flops, elo, from :func:`data.frontier`; two boards at least.

    Returns:
        A :class:`ChangePoint`.

    >>> from boardlaw.paper import data
    >>> law = fit_frontier(data.frontier(data.published()))
    >>> print(round(law.incline_flops, 1))      # Elo for ten times the compute
    505.6
    """
    b = frontiers.boardsize.to_numpy(float)
    x, y = np.log10(frontiers.train_flops.to_numpy(float)), frontiers.elo.to_numpy(float)
    if len(np.unique(b)) < 2:
        raise ValueError('a fit over board sizes needs two of them at least')
    first = frontiers.groupby('boardsize').elo.transform('first').to_numpy()
    progress = 1 - y/np.minimum(first, -1e-9)
    starts = [_start(b, x, y, progress <= left, (progress > left) & (progress < right))
              for left in (.02, .05, .1, .2, .3, .5) for right in (.6, .8, .9, .97)]
    starts = [p for p in starts if p is not None]
    if not starts:
        raise ValueError('the frontiers have no incline to fit: they need points between their '
                         'first Elo and 0 on two boards')

    def error(p):
        return _predict(p, b, x) - y

    def descend(p):
        end = least_squares(error, p, lambda p: _jacobian(p, b, x), method='lm')
        return end.cost, tuple(map(float, end.x))

    cost, best = min(map(descend, sorted(starts, key=lambda p: (error(p)**2).sum())[:8]))
    for _ in range(10):
        shake = np.sqrt(2*cost/len(y))*np.array([[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]])
        last, (cost, best) = cost, min([(cost, best), *map(descend, [*(best + shake),
                                                                     *(best - shake)])])
        if cost > (1 - 1e-9)*last:
            break
    return ChangePoint(*best)


def _start(b, x, y, on_plateau, on_incline):
    """Planes through the points said to be on the plateau and on the incline, or None."""
    plateau = np.stack([b, np.ones_like(b)], 1)[on_plateau]
    incline = np.stack([x, b, np.ones_like(b)], 1)[on_incline]
    # Of no rows at all, NumPy before 2.3 knows no rank.
    if any(len(x) < x.shape[1] or np.linalg.matrix_rank(x) < x.shape[1]
           for x in (plateau, incline)):
        return None
    return np.concatenate([np.linalg.lstsq(plateau, y[on_plateau], rcond=None)[0],
                           np.linalg.lstsq(incline, y[on_incline], rcond=None)[0]])


def residual_variance(frontiers) -> pd.DataFrame:
    """How well boards up to `seen` predict each board: mean squared error / mean squared Elo.

    Args:
        frontiers: as for :func:`fit_frontier`.

    Returns:
        boardsize, seen, resid_var, and extrapolated (whether the board is larger than all seen).
    """
    boards = sorted(frontiers.boardsize.unique())
    rows = []
    for seen in boards[1:]:
        fit = fit_frontier(frontiers[frontiers.boardsize <= seen])
        for boardsize, board in frontiers.groupby('boardsize'):
            ratio = (fit.residuals(board)**2).mean()/(board.elo**2).mean()
            rows.append((boardsize, seen, ratio, boardsize > seen))
    return pd.DataFrame(rows, columns=['boardsize', 'seen', 'resid_var', 'extrapolated'])


@dataclass(frozen=True)
class PowerLaw:
    """log10(y) = exponent · log10(x) + intercept."""
    exponent: float
    intercept: float

    def predict(self, x):
        """y at `x`, numbers or arrays."""
        return 10**(self.exponent*np.log10(x) + self.intercept)


def fit_power_law(x, y) -> PowerLaw:
    """Ordinary least squares on both logarithms.

    Args:
        x, y: `[n]` positive numbers.

    Raises:
        ValueError: all x are the same, so that no slope fits better than another.

    >>> law = fit_power_law([1, 10, 100], [2, 20, 200])
    >>> round(law.exponent, 6), round(law.intercept, 6)
    (1.0, 0.30103)
    """
    x, y = np.log10(np.asarray(x, float)), np.log10(np.asarray(y, float))
    if np.unique(x).size < 2:
        raise ValueError(f'{x.size} points with one x between them have no slope: give at least '
                         'two different x')
    return PowerLaw(*map(float, np.polyfit(x, y, 1)))


def growth(by_boardsize) -> float:
    """The factor by which a Series indexed by boardsize grows from one size to the next (OLS on
    log10).

    Sizes without a value are left out.
    """
    known = by_boardsize.dropna()
    return float(10**np.polyfit(known.index, np.log10(known), 1)[0])


@dataclass(frozen=True)
class TrainTest:
    """log10(test_flops) = train · log10(train_flops) + elo · elo + const, over all lines."""
    train: float
    elo: float
    const: float

    def predict(self, train_flops, elo):
        """The test compute needed for `elo` after a training of `train_flops`, numbers or
        arrays."""
        return 10**(self.train*np.log10(train_flops) + self.elo*np.asarray(elo) + self.const)

    @property
    def saving(self):
        """The factor by which ten times the training compute reduces the test compute."""
        return 10**-self.train


def fit_train_test(lines) -> TrainTest:
    """Ordinary least squares over the corners of :func:`data.train_test`."""
    design = np.stack([np.log10(lines.train_flops), lines.elo, np.ones(len(lines))], 1)
    if np.linalg.matrix_rank(design) < 3:
        raise ValueError('the trade-off needs points on two lines of equal Elo, and two on one')
    return TrainTest(*map(float, np.linalg.lstsq(design, np.log10(lines.test_flops),
                                                 rcond=None)[0]))


def headline(agents) -> pd.Series:
    """Every number that the paper's claims rest on, from one agents frame.

    The five parameters of :class:`ChangePoint`, its `double_compute_winrate`, `takeoff_growth`,
    `perfect_growth` and `gap_growth`; the same two growths without a fit, `perfect_growth_raw` from
    where the frontiers cross -50 Elo and `gap_growth_raw` from each board's weakest snapshot; the
    law of :func:`data.optimal_model_size`, `size_exponent` and `size_intercept`.

    Args:
        agents: boardsize, run, width, depth, train_flops, elo.
    """
    frontiers = frontier(agents)
    fit = fit_frontier(frontiers)
    weakest = train_agents(agents).groupby('boardsize').elo.min()
    sizes = optimal_model_size(agents)
    law = fit_power_law(sizes.limit, sizes['size'])
    return pd.Series({
        **vars(fit),
        'double_compute_winrate': fit.double_compute_winrate,
        'perfect_growth': fit.perfect_growth,
        'perfect_growth_raw': growth(crossings(frontiers)),
        'takeoff_growth': fit.takeoff_growth,
        'gap_growth': fit.gap_growth,
        'gap_growth_raw': -float(np.polyfit(weakest.index, weakest, 1)[0]),
        'size_exponent': law.exponent,
        'size_intercept': law.intercept,
    })


def bootstrap(agents, statistic=headline, n_resamples=200, seed=0) -> pd.DataFrame:
    """`statistic` of agents whose runs are drawn anew, with replacement, within each board.

    This measures how much rests on which runs were trained; the error of each rating is not in it.

    Args:
        statistic: from an agents frame to a Series of numbers.

    Returns:
        `[n_resamples, n_statistics]`.
    """
    check(agents, 'boardsize', 'run')
    boards = {}
    for (boardsize, _), rows in agents.groupby(['boardsize', 'run']).indices.items():
        boards.setdefault(boardsize, []).append(rows)
    rng = np.random.default_rng(seed)
    resamples = []
    for _ in range(n_resamples):
        drawn = [runs[i] for runs in boards.values() for i in rng.integers(len(runs),
                                                                          size=len(runs))]
        names = np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
        resamples.append(statistic(agents.iloc[np.concatenate(drawn)].assign(run=names)))
    return pd.DataFrame(resamples).reset_index(drop=True)


def intervals(estimate, resamples, level=.9, ratios=()) -> pd.DataFrame:
    """The basic bootstrap interval of each number (Davison and Hinkley 1997, section 5.2).

    A resample holds about 63 % of the runs, so its frontier, a maximum, lies lower. This interval
    reflects the resamples about the estimate and so corrects for that; quantiles of the resamples
    would count it twice.

    Args:
        estimate: Series of numbers, such as :func:`headline` of all agents.
        resamples: the same numbers in the columns, from :func:`bootstrap`.
        ratios: names of those that say how many times; they are reflected in the logarithm, and so
            stay positive.

    Returns:
        estimate, low, high; indexed as `estimate`.
    """
    low, high = (resamples[estimate.index].quantile(q) for q in ((1 - level)/2, (1 + level)/2))
    out = pd.DataFrame({'estimate': estimate, 'low': 2*estimate - high, 'high': 2*estimate - low})
    times = [name for name in ratios if name in out.index]
    out.loc[times, 'low'] = estimate[times]**2/high[times]
    out.loc[times, 'high'] = estimate[times]**2/low[times]
    return out
