"""Games between a board's agents until every rating is known well enough."""
import math
import time
from contextlib import ExitStack, suppress
from functools import partial
from itertools import product

from scipy.special import ndtri

from .. import arena, elos, sql
from ..arena import best, ratings
from ..mcts import C_PUCT
from . import pools, state

#: Elo: half the 95 % interval at which an agent's rating is good enough.
WIDTH = 60.

#: Games of one match, half in each colour. More would tell less than games with another opponent.
MATCH = 64

#: Games of the top agent against each of the others, in each order.
DIRECT_GAMES = 512

#: Games of an agent with itself; the strongest play four times as many.
MIRROR_GAMES = 256

#: Games of two agents that differ in the rule for lambda, in each order.
RULE_GAMES = 128

#: The largest board on which the exact player moves in milliseconds. On larger ones one of its
#: games takes as long as hundreds of others, so there it plays what :func:`direct` asks for and no
#: more.
QUICK = 5

#: Share of the width to which a round of games aims, as some intervals end wider than foreseen.
AIM = .95

#: Rounds of games in a row that may fail to narrow the wide intervals by a hundredth.
PATIENCE, NARROWER = 2, .99

_SEED = 2021
_UNKNOWN = 1e4  # Elo, for an agent without games


def rate(boardsize, description, pool, width=WIDTH, games=MATCH, deadline=math.inf, report=print,
         device='cpu'):
    """Plays what `elos.suggest` asks for until each agent is known to `width` Elo either way.

    It ends earlier, and says so, where more games do not help: agents depart from one line
    (:func:`boardlaw.elos.overdispersion`), so that a pair's games tell only so much, and the best
    agent may have few opponents of its strength. More agents near it are needed then, such as the
    same networks with larger trees.

    Agents whose snapshots are not in the folder of runs keep the games that they have.

    Args:
        pool: see :mod:`boardlaw.sweep.pools`.
        games: of one match, half in each colour.
        deadline: as of `time.time`, when to stop.
        report: called with a line on each round.
        device: where to play.

    Returns:
        The :func:`boardlaw.arena.ratings.ratings` at the end.
    """
    aim, widest, stuck = AIM, math.inf, 0
    while True:
        found = _pool(boardsize, description)
        here = state.present(found)
        played = ratings.trials(found)
        rated = ratings.ratings(found, played)
        reach = ((rated.upper - rated.lower)/2).fillna(math.inf)[here]
        wide = reach[reach > width]
        n_games = int(played[['black_wins', 'white_wins']].to_numpy().sum())
        away = len(found) - len(here)
        report(f'{boardsize}x{boardsize}: {len(reach) - len(wide)} of {len(reach)} agents within '
               f'±{width:g} Elo, the widest ±{reach.max():.0f}, after {n_games} games'
               + (f'; {away} others cannot play here' if away else ''))
        if wide.empty or len(here) < 2 or time.time() > deadline:
            return rated
        total = wide.clip(upper=_UNKNOWN).sum()
        stuck = 0 if total < NARROWER*widest else stuck + 1
        widest = min(total, widest)
        if stuck > PATIENCE:
            report(f'{boardsize}x{boardsize}: more games between these agents no longer narrow the '
                   'intervals; more agents near the best would, such as larger trees')
            return rated
        n = max(4*pool.workers, min(2*len(wide), 512))
        pairs = elos.pairs(played)
        todo = elos.suggest(pairs, n=n, games=games, reference=ratings.reference(found),
                            until=aim*width/ndtri(.975)/elos.to_elo, agents=found.index,
                            rho=elos.overdispersion(pairs), among=here)
        if len(todo) < n:   # it expects this to be enough, but it may not be
            aim *= AIM
        play([(int(a), int(b), int(n)//2) for a, b, n in todo.values], pool, deadline, True, device)


def direct(boardsize, description, pool, n_games=DIRECT_GAMES, deadline=math.inf, device='cpu'):
    """Plays the board's top agent against all others, and the best against the exact player.

    The best are three with 64 nodes, whose ratings make the frontier, and three of all.

    Games with the top agent do not enter the ratings of the pool; those with the exact player do,
    and may change who is best: it goes on until the best have played. Against the exact player they
    play four times as many, where it is quick: the scale's 0 should rest on its games with near
    equals. It beats weak agents more surely than an agent that samples its moves would.

    Args:
        pool, deadline, device: as for :func:`rate`.
        n_games: games of each pair in each order; those that are there count.
    """
    found, played = _pool(boardsize, description), None
    exact = ratings.reference(ratings.agents(boardsize, description))
    while played != 0 and time.time() < deadline:
        played = 0
        if exact is not None:
            against_exact = 4*n_games if boardsize <= QUICK else n_games
            todo = [(exact, i, against_exact) for i in _strongest(found)]
            played = play(todo, pool, deadline, device=device)
        todo = [(a, b, n_games) for a, b in best.pairs(boardsize, description)]
        played += play(todo, pool, deadline, device=device, study='top')


def mirror(boardsize, description, pool, n_games=MIRROR_GAMES, deadline=math.inf, device='cpu'):
    """Plays agents against themselves: those with 64 nodes, and four times as many games of the
    strongest of all.

    They do not enter the ratings of the pool, but tell how far from perfect it is
    (:mod:`boardlaw.arena.mirror`).

    Args:
        pool, deadline, device: as for :func:`rate`.
        n_games: of each agent; those that are there count.
    """
    found = _pool(boardsize, description)
    games = dict.fromkeys(found.index[found.test_nodes == best.NODES], n_games)
    games |= dict.fromkeys(_strongest(found), 4*n_games)
    play([(int(i), int(i), n) for i, n in games.items()], pool, deadline, device=device,
         study='mirror')


def _strongest(found):
    """Ids of three agents with 64 nodes, whose ratings make the frontier, and of three of all."""
    exact = ratings.reference(found)
    elo = ratings.ratings(found).elo.drop([] if exact is None else [exact], errors='ignore')
    return sorted({*map(int, elo.nlargest(3).index),
                   *map(int, elo[found.test_nodes == best.NODES].nlargest(3).index)})


def between_rules(jobs, pool, n_games=RULE_GAMES, deadline=math.inf, device='cpu'):
    """Plays trainings by the published rule for lambda against such by the corrected one.

    Two trainings meet if they differ in nothing but the rule and the seed: their last snapshots,
    each searching as it was trained. The pool's ratings leave these games out.

    Args:
        jobs: of :func:`boardlaw.sweep.lambda_study`; others have no such partners.
        pool, deadline, device: as for :func:`rate`.
        n_games: of each pair in each order; those that are there count.
    """
    if len({job.config.rule for job in jobs}) < 2:
        return
    known, agents, alike = state.descriptions(), sql.agent_query(), {}
    own = agents[agents.test_nodes == agents.train_nodes]
    last = own.sort_values('idx').reset_index().groupby('run').id.last()
    for job in jobs:
        c, run = job.config, state.find(job, known)
        if run in last.index:
            kind = job.description, c.width, c.depth, c.n_nodes, c.c_puct/C_PUCT[c.rule]
            alike.setdefault(kind, {}).setdefault(c.rule, []).append(int(last[run]))
    todo = [(a, b, n_games) for rules in alike.values()
            for a, b in product(rules.get('corrected', ()), rules.get('2021', ()))]
    name = '-'.join(['rules', *sorted({job.description for job in jobs})])
    with suppress(BlockingIOError), state.alone(name, deadline):     # another sweep plays them
        play(todo, pool, deadline, device=device, study='rules')


def _pool(boardsize, description):
    """The agents who play as many games as their ratings ask for."""
    found = ratings.agents(boardsize, description)
    exact = ratings.reference(found)
    return found if boardsize <= QUICK or exact is None else found.drop(exact)


def rate_alone(boardsize, description, pool, deadline=math.inf, direct_games=DIRECT_GAMES,
               report=print, wait=False):
    """:func:`rate_fully`, unless another sweep is rating these agents here: that would play the
    same games.

    Args:
        wait: whether to wait, until the deadline, for another sweep to end: it may not have seen
            agents that are newer than its start.

    Returns:
        The ratings, or None if another sweep has not ended.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(state.alone(f'rate-{description}-{boardsize}',
                                            deadline if wait else -math.inf))
        except BlockingIOError:
            report(f'{boardsize}x{boardsize}: is rated by another sweep')
            return None
        rate_fully(boardsize, description, pool, direct_games, deadline=deadline, report=report)
        return ratings.ratings(ratings.agents(boardsize, description))


def rate_fully(boardsize, description, pool, direct_games=DIRECT_GAMES, games=MATCH, report=print,
               **how):
    """:func:`rate`, :func:`direct` and, for the paper's grid, :func:`mirror`.

    Args:
        games, report: as for :func:`rate`.
        how: deadline, device.
    """
    rate(boardsize, description, pool, games=games, report=report, **how)
    direct(boardsize, description, pool, direct_games, **how)
    if description.startswith('bee/'):
        mirror(boardsize, description, pool, max(1, direct_games//2), **how)


def play(matches, pool, deadline=math.inf, more=False, device='cpu', study=None):
    """Deals matches out to the pool's workers, those between agents who are here
    (:func:`state.present`).

    Args:
        matches: of (agent, opponent, games in each order).
        pool, deadline, device: as for :func:`rate`.
        more, study: as for :func:`boardlaw.arena.evaluate`.

    Returns:
        How many games were played.
    """
    ids = {i for a, b, _ in matches for i in (a, b)}
    here = set(state.present(sql.agent_query().loc[sorted(ids)]))
    matches = [match for match in matches if here.issuperset(match[:2])]
    return sum(pools.deal(pool, partial(_play, more=more, device=device, study=study),
                          matches, deadline))


def _play(matches, more, device, study):
    loaded = arena.load({i for a, b, _ in matches for i in (a, b)}, device)
    return arena.evaluate(loaded, [(a, b) for a, b, _ in matches], [n for *_, n in matches],
                          _SEED, progress=False, more=more, device=device, study=study)
