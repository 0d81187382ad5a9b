"""Ratings from games: Bradley-Terry strengths, how sure they are, which games to play next.

Agent i beats agent j with probability 1/(1 + exp(-(x_i - x_j))), x in nats. Elo is the same on
another scale: `x * to_elo`, so that 400 Elo are odds of 10 to 1. Everything here is in nats.

    trials = sql.trial_query(9, 'bee/%')
    ws, gs = elos.symmetrize(trials)
    elos.solve(ws, gs) * elos.to_elo                    # the best agent is 0
    elos.intervals(elos.pairs(trials)) * elos.to_elo    # with a 95 % interval for each

There are two estimates. `solve` is the paper's: one pseudo-win each way on every pair that has
met. They pull every pair together, also those whose result was never in doubt, and so shrink the
whole scale. The shrinkage grows with the cube of the scale's span and falls with the games a pair:
40 Elo in a round robin over 2,170 Elo (as on 9x9) with 1,024 games a pair, 270 with 128. Around
such a rating an interval would miss the truth. `posterior` has Jeffreys' prior instead, half a
pseudo-win each way times the pair's leverage: in all about one game for each agent instead of two
for each pair, which removes the bias to first order (Firth 1993, Biometrika 80).

One number an agent is a model, and agents depart from it: some do better against one opponent than
against others. Then p = 1/(1 + exp(-(x_i - x_j))) is the mean over such pairs, and a pair's own
rate varies about it with variance rho p (1 - p), the beta-binomial distribution (Williams 1982,
Applied Statistics 31). Any two games of a pair are correlated by rho, and n of them tell as much as
n/(1 + (n - 1) rho) independent ones, never more than 1/rho: intervals are wider, and opponents
count for more than games. `overdispersion` estimates rho; 0, the default, is the plain model.

Explained in the chapter book/elo.ipynb.
"""
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, ndtri

from . import kernels, newton
from .design import suggest
from .games import Games, by_colour, independent, pairs, read, symmetrize

__all__ = ['Disconnected', 'Posterior', 'find_islands', 'intervals', 'overdispersion', 'pairs',
           'posterior', 'solve', 'suggest', 'symmetrize', 'to_elo', 'toy_model', 'winrate']

to_elo = float(400 / np.log(10))
"""Elo a nat, 173.7."""


class Disconnected(ValueError):
    """No chain of games connects some agents. `islands` lists the parts, largest first.

    What to do: play a match between two parts, or rate each apart.
    """

    def __init__(self, parts: list[list]):
        self.islands = parts
        shown = '; '.join(_shown(part) for part in parts[:5])
        more = f'; and {len(parts) - 5} more' if len(parts) > 5 else ''
        super().__init__(
            f'the games leave {len(parts)} islands of agents that have not met each other, '
            f"directly or through others: {shown}{more}. Play a match between islands, leave "
            "agents out, or ask for islands='each', which rates every island by itself")


class Posterior(NamedTuple):
    """Strengths as a normal distribution, in nats from the reference.

    Attributes:
        mean: `[n_agents]`, the reference 0.
        covariance: `[n_agents, n_agents]`, nats squared, of the differences from the reference
            (whose row and column are 0); the variance of a - b is
            `c.loc[a, a] + c.loc[b, b] - 2*c.loc[a, b]`. nan between islands.
    """
    mean: pd.Series
    covariance: pd.DataFrame


def solve(ws, gs=None, islands: str = 'error') -> pd.Series:
    """The paper's ratings: Bradley-Terry with one pseudo-win each way on every pair that has met.

    The pull of the mean to 0, which the definition has as well, only picks one of many equal
    solutions, before the best agent is set to 0.

    :param ws: wins `[n_agents, n_agents]` from `symmetrize`, or, without gs, the frame of `pairs`
    :param gs: games `[n_agents, n_agents]`
    :param islands: 'error', or 'each': rate every connected part by itself, its best agent 0.
        Ratings of two islands cannot be compared; an agent without any game is nan
    :return: 'elo', `[n_agents]` in nats (times `to_elo` for Elo), 0 the best agent, others below
    :raises Disconnected: no chain of games connects some agents

    >>> trials = pd.DataFrame({'black_agent': ['a', 'b'], 'white_agent': ['b', 'a'],
    ...                        'black_wins': [600, 200], 'white_wins': [200, 600]})
    >>> (solve(*symmetrize(trials)) * to_elo).round().astype(int).to_dict()   # 3 to 1
    {'a': 0, 'b': -191}
    """
    games = read(ws, gs)
    elo = np.full(len(games.agents), np.nan)
    for members, part, graph in _parts(games, islands):
        if len(members) > 1:
            x = newton.Fit(graph)(part.wins + 1, part.games + 2)
            elo[members] = x - x.max()
    return pd.Series(elo, games.agents, name='elo')


def posterior(ws, gs=None, islands: str = 'error', reference=None,
              rho: float | None = 0.) -> Posterior:
    """Strengths under Jeffreys' prior with their covariance (Laplace's approximation).

    From `ws, gs` every game counts as a coin toss at the pair's mean rate. The frame of `pairs`
    knows the results by colour. There a pair counts for more where the first move decides most
    games, since less is left to luck, and for less where one of the colours has few games.

    :param reference: the agent to measure from, by default the best (of each island)
    :param rho: correlation of a pair's games; None estimates it (`overdispersion`) for each island
    :return: mean and covariance; dense, 8 n_agents^2 bytes
    :raises Disconnected: no chain of games connects some agents
    """
    games = read(ws, gs)
    n = len(games.agents)
    if reference is not None and reference not in games.agents:
        raise ValueError(f'the reference {reference} is not among the agents')
    mean, cov = np.full(n, np.nan), np.full((n, n), np.nan)
    for members, part, graph in _parts(games, islands):
        if len(members) > 1:
            x, c = _jeffreys(graph, part, _williams(graph, part) if rho is None else rho)
            named = reference is not None and reference in part.agents
            ref = part.agents.get_loc(reference) if named else x.argmax()
            mean[members] = x - x[ref]
            if c[ref, ref] > 0:  # measured from another agent so far
                c = c - c[ref] - c[:, [ref]] + c[ref, ref]
            if len(members) == n:
                cov = c
            else:
                cov[np.ix_(members, members)] = c
    return Posterior(pd.Series(mean, games.agents, name='elo'),
                     pd.DataFrame(cov, games.agents, games.agents.rename('opponent')))


def intervals(ws, gs=None, level: float = .95, islands: str = 'error', reference=None,
              rho: float | None = 0.) -> pd.DataFrame:
    """Ratings relative to the reference, with the interval that each is in.

    By default the reference is the best agent, chosen by the same games: among near equals it is
    also the luckiest, and all others look too weak by the same amount. The intervals, not the
    ratings, are moved up by that luck (`_luck`). A reference that is named, chosen without looking
    at these games, needs no such move.

    :param level: probability that an interval contains the true difference
    :param reference: label of an agent
    :param rho: as for `posterior`. With 0 an interval knows of the luck of the games alone
    :return: columns elo (of `posterior`, close to but not the same as `solve`'s), std (of the
        difference), lower, upper; all in nats, so that `intervals(ws, gs) * to_elo` is in Elo
    :raises Disconnected: no chain of games connects some agents
    """
    mean, cov = posterior(ws, gs, islands, reference, rho)
    std = np.sqrt(np.diag(cov))
    centre = mean
    if reference is None:
        each = find_islands(ws, gs) if islands == 'each' else np.zeros(len(mean))
        centre = mean + _luck(mean, std, each)
    reach = ndtri((1 + level) / 2) * std
    return pd.DataFrame({'elo': mean, 'std': std, 'lower': centre - reach,
                         'upper': centre + reach})


def overdispersion(ws, gs=None) -> float:
    """Correlation rho of the games of a pair, beyond what the two ratings say.

    Estimated by moments (Paule and Mandel 1982): the squared residuals of the pairs, each over its
    variance with rho, add up to (pairs) - (agents - 1).

    :param ws: wins, and `gs` games, as for `solve`
    :return: rho of the largest island; 0 where the games vary no more than luck does, and where
        every pair is needed to link the agents
    """
    games = read(ws, gs)
    parts = [(part, graph) for _, part, graph in _parts(games, 'each')]
    part, graph = max(parts, key=lambda one: len(one[0].agents))
    return _williams(graph, part) if len(part.agents) > 1 else 0.


def find_islands(ws, gs=None) -> pd.Series:
    """Number of the connected part that each agent is in, `[n_agents]`; 0 is the largest.

    :param ws: wins, and `gs` games, as for `solve`
    """
    games = read(ws, gs)
    label = newton.Graph(len(games.agents), games.i, games.j).islands()
    sizes = np.bincount(label)
    rank = np.argsort(np.argsort(-sizes, kind='stable'))
    return pd.Series(rank[label], games.agents, name='island')


def winrate(difference):
    """Probability of a win for the agent that is `difference` nats stronger (Elo: / `to_elo`).

    >>> print(round(winrate(400/to_elo), 4))    # ten to one
    0.9091
    """
    return expit(difference)


def toy_model(compute_ratio):
    """Win rate of a player with `compute_ratio` times the other's compute, in the toy game.

    Each player draws as many uniform numbers as it has compute, and the highest of all wins. Every
    number is equally likely to be that one, so the rate is r/(1 + r), 2/3 for twice the compute:
    the Bradley-Terry model with strength log(compute).

    >>> round(toy_model(2), 4)
    0.6667
    """
    return compute_ratio / (1 + compute_ratio)


def _parts(games, islands):
    """Each connected part: its agents' positions, its games and its graph, with positions among
    those."""
    if islands not in ('error', 'each'):
        raise ValueError(f"islands is 'error' or 'each', not {islands!r}")
    n = len(games.agents)
    graph = newton.Graph(n, games.i, games.j)
    label = graph.islands()
    if not label.any():
        return [(np.arange(n), games, graph)]
    members = np.split(np.argsort(label, kind='stable'), np.bincount(label).cumsum()[:-1])
    if islands == 'error':
        parts = [games.agents[m].to_list() for m in members]
        raise Disconnected(sorted(parts, key=len, reverse=True))
    place = np.empty(n, int)
    for m in members:
        place[m] = np.arange(len(m))
    order = np.argsort(label[games.i], kind='stable')
    ends = np.bincount(label[games.i], minlength=len(members)).cumsum()[:-1]
    parts = []
    for m, e in zip(members, np.split(order, ends)):
        part = Games(games.agents[m], place[games.i[e]], place[games.j[e]], games.wins[e],
                     games.games[e], None if games.counts is None else games.counts[:, e])
        parts.append((m, part, newton.Graph(len(m), part.i, part.j)))
    return parts


def _jeffreys(graph, games, rho=0.):
    """Strengths `[n]` and their covariance `[n, n]`, as differences from one of the agents.

    A pair's pseudo-games are its leverage: the share of its own games in what is known of its
    difference, that is its weight times the variance of the difference. All add up to n - 1.
    """
    wins, total = _counted(games, rho, by_colour(games))
    fit, lever = newton.Fit(graph), np.full(len(wins), (graph.n - 1) / len(wins))
    x = fit(wins + lever / 2, total + lever, tolerance=1e-3)  # where to begin
    ground = x.argmax()
    for _ in range(20):
        _, weights = graph.slopes(x, wins, total + lever)
        cov = graph.covariance(weights, ground)
        lever = kernels.leverages(cov, graph.i, graph.j, weights)
        before, x = x, fit(wins + lever / 2, total + lever, tolerance=1e-5)
        moved = (x - x[ground]) - (before - before[ground])
        if (np.abs(moved) <= .1 * np.sqrt(np.diag(cov))).all():
            break
    return x, cov


def _counted(games, rho, coins):
    """Each pair's wins and games, `[n_pairs]`, as they count: fewer where they correlate by rho,
    more where their variance in coin tosses, `coins` of `by_colour`, is small."""
    total = independent(games.games, rho) / coins
    return games.wins * total / games.games, total


def _williams(graph, games):
    """rho of one connected part, see `overdispersion`. Every pair has as many pseudo-games here."""
    free, rho, n = len(games.wins) - (graph.n - 1), 0., games.games
    if free < 1:
        return rho
    coins, fit, even = by_colour(games), newton.Fit(graph), (graph.n - 1) / len(n)
    for _ in range(20):
        wins, total = _counted(games, rho, coins)
        p = newton.winrates(graph.difference(fit(wins + even / 2, total + even, tolerance=1e-5)))
        square = (games.wins - n * p)**2 / (n * p * (1 - p) * coins)
        before, rho = rho, 0. if square.sum() <= free else brentq(
            lambda r, square=square: (square * independent(n, r) / n).sum() - free, 0, 1e3)
        if abs(rho - before) <= 1e-3 * rho:
            break
    return min(rho, 1.)


def _luck(mean, std, island):
    """Nats by which its own games flatter the best agent of each island, for every agent.

    The best was drawn, as far as anyone knows, from agents like those whose ratings it cannot be
    told from. Each counts by the likelihood of what was seen if the best were no better than it,
    and the mean of these is what the best is worth (empirical Bayes, after Tweedie's formula).
    """
    weight = np.exp(-(mean / np.where(std > 0, std, np.inf))**2 / 2)
    return (-(weight * mean).groupby(island).transform('sum')
            / weight.groupby(island).transform('sum'))


def _shown(part, n=5):
    labels = ', '.join(map(str, part[:n]))
    return f'[{labels}]' if len(part) <= n else f'[{labels} .. {len(part)} agents]'

