"""Which games to play next: a greedy design of the experiment."""
import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve

from . import newton
from .games import by_colour, independent, read

PRIOR_STD = 3.  # nats; what is known of an agent that has never played
SHARPNESS = 8   # power of the variance by which wide intervals count for more than narrow ones


def suggest(ws, gs=None, n: int = 1, games: float = 64, reference=None,
            until: float = 0., rho: float = 0., agents=None, among=None) -> pd.DataFrame:
    """The pairs to play next so that the widest interval shrinks the most.

    One match at a time: takes the pair whose games would shrink the intervals most, the widest
    counting by far the most, supposes that it was played, and goes on. A match is worth more the
    less certain its result and the more agents hang on it, so that near equals and agents
    who link others are chosen. Agents who have never played, and islands, are welcome: strengths
    have a normal prior of 3 nats (520 Elo), so these are the least sure and are linked first.

    :param ws: wins, and `gs` games, as for `solve`
    :param n: matches to choose; the same pair may be chosen several times
    :param games: games of one match, half in each colour
    :param reference: the agent to measure from, by default the best so far
    :param until: nats; no further match once the standard deviation of every difference from the
        reference should be at most this. One match is chosen in any case
    :param rho: correlation of a pair's games (`overdispersion`). Above 0 they tell less the more of
        them there are, and new opponents are preferred
    :param agents: labels of all agents where `ws` is the frame of `pairs`, which knows only those
        who have played
    :param among: labels of those who can play, by default all; the widths of the others count for
        nothing
    :return: agent, opponent, games: one row a pair, at most n, in the order chosen
    :raises ValueError: fewer than two agents who can play, or the reference is not one of the
        agents, or one who has played is not among `agents`
    """
    played = read(ws, gs, agents)
    agents = played.agents
    able = np.ones(len(agents), bool) if among is None else agents.isin(among)
    if able.sum() < 2:
        raise ValueError(f'a match needs two agents who can play, there are {able.sum()}')
    if reference is not None and reference not in agents:
        raise ValueError(f'the reference {reference} is not among the agents')
    x, cov = _belief(played, rho)
    total = np.zeros(cov.shape)
    total[played.i, played.j] = total[played.j, played.i] = played.games
    ref = x.argmax() if reference is None else agents.get_loc(reference)

    chosen = {}
    for _ in range(n):
        # Of each agent's strength with each difference from the reference, then of each pair's
        # difference with these, squared and added up: the pair's say in the widths.
        shared = cov - cov[:, [ref]]
        width = np.maximum(np.diag(shared) - shared[ref], 0) * able
        if chosen and width.max() <= until**2:
            break
        weight = (width / width.max())**SHARPNESS
        wide = weight > 1e-3
        say = _squared_distance((shared[:, wide] * weight[wide]) @ shared[:, wide].T)
        var = _squared_distance(cov)
        a_game = _randomness(x[:, None] - x, var)
        value = a_game * (independent(total + games, rho) - independent(total, rho))
        gain = np.where(able[:, None] & able, value * say / (1 + value * var), -1)
        i, j = sorted(divmod(int(gain.argmax()), len(agents)))
        chosen[i, j] = chosen.get((i, j), 0) + games
        total[i, j] = total[j, i] = total[i, j] + games
        along = cov[i] - cov[j]
        cov -= np.outer(along, along * (value[i, j] / (1 + value[i, j] * var[i, j])))
    rows = [(agents[i], agents[j], total) for (i, j), total in chosen.items()]
    return pd.DataFrame(rows, columns=['agent', 'opponent', 'games'])


def _belief(played, rho):
    """Strengths `[n]` and their covariance `[n, n]` under the prior, after the games so far."""
    n = len(played.agents)
    graph, x = newton.Graph(n, played.i, played.j), np.zeros(n)
    games = independent(played.games, rho) / by_colour(played)
    wins = played.wins * games / played.games
    for _ in range(100):
        slope, weights = graph.slopes(x, wins, games)
        slope -= x / PRIOR_STD**2
        precision = graph.laplacian(weights).toarray()
        precision[np.arange(n), np.arange(n)] += PRIOR_STD**-2
        factor = cho_factor(precision, lower=True, overwrite_a=True, check_finite=False)
        step = cho_solve(factor, slope, check_finite=False)
        size = np.abs(step).max()
        x = x + step / max(size, 1.)
        if size < 1e-3:
            break
    return x, cho_solve(factor, np.eye(n), check_finite=False)


def _squared_distance(inner):
    """Of each two points, from their inner products `[n, n]`."""
    square = np.diag(inner)
    return np.maximum(square[:, None] + square - 2 * inner, 0)


def _randomness(difference, variance):
    """p(1 - p) of a game, averaged over what is not known of the difference: the slope of
    MacKay's approximation to the mean of a logistic under a normal."""
    scale = np.sqrt(1 + np.pi / 8 * variance)
    p = newton.winrates(difference / scale)
    return p * (1 - p) / scale
