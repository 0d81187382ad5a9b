"""What the published rule for lambda changes, from trainings by it and by the corrected one.

    lambda_2021 = c N/(N + A)        lambda = c sqrt(N)/(N + A)

N is the number of visits of a node's children, A the number of actions. The published rule acts as
the corrected one would with sqrt(N) times its c_puct, so a constant that suits one search explores
more in a longer one.

Explained in the chapter book/rules.ipynb.
"""
import numpy as np
import pandas as pd
from scipy.stats import t

from boardlaw import elos
from boardlaw.mcts import C_PUCT

from .data import check, crossings


def effective_c_puct(visits, c_puct=C_PUCT['2021'], n_actions=None):
    """The c_puct at which the corrected rule has the published one's lambda.

    Without `n_actions` both rules count each visit once, as in the formulas above, and the number
    of actions drops out. With it the published rule counts as the 2021 code and the search by rule
    '2021' do: each visit twice, and one for each action not yet tried, if every action is tried
    once before any is tried twice. That is much more where there are few visits.

    Args:
        visits: N of a node, numbers or arrays, 1 or more.
        c_puct: of the published rule.
        n_actions: A, the cells of the board.

    >>> print(effective_c_puct(64), effective_c_puct(64, n_actions=9).round(2))
    0.5 0.53
    """
    visits = np.asarray(visits, float)
    if n_actions is None:
        return c_puct*np.sqrt(visits)
    counted = 2*visits + np.maximum(n_actions - visits, 0)
    return c_puct*counted/(counted + n_actions)*(visits + n_actions)/np.sqrt(visits)


def weight(visits, n_actions, rule='corrected', c_puct=None):
    """Lambda, the weight of the prior in the search's policy, each visit counted once.

    The search by rule '2021' counts otherwise (:func:`effective_c_puct`).

    Args:
        visits: N of a node, numbers or arrays.
        n_actions: A, the cells of the board.
        rule, c_puct: as for :func:`boardlaw.mcts.search`.

    >>> print(weight(64, 81, '2021', 1/16) == weight(64, 81, 'corrected', 1/16 * 64**.5))
    True
    """
    c_puct = C_PUCT[rule] if c_puct is None else c_puct
    visits = np.asarray(visits, float)
    return c_puct*(np.sqrt(visits) if rule == 'corrected' else visits)/(visits + n_actions)


def variants(agents) -> pd.DataFrame:
    """The end of every run of the study: its last snapshot, searching as it was trained.

    Args:
        agents: of `data.replica('lambda')`.

    Returns:
        Their rows with `factor`, c_puct over the rule's own.
    """
    check(agents, 'boardsize', 'run', 'idx', 'rule', 'c_puct', 'seed', 'train_nodes', 'test_nodes',
          'elo')
    last = agents[agents.idx == agents.groupby('run').idx.transform('max')]
    last = last[last.test_nodes == last.train_nodes]
    return last.assign(factor=last.c_puct/last.rule.map(C_PUCT))


def curves(agents) -> pd.DataFrame:
    """Elo against compute of each rule: mean, least and greatest over the seeds.

    Only runs with their rule's own c_puct and 64 nodes, the last snapshot's compute included.

    Returns:
        boardsize, rule, train_flops, mean, low, high, n_seeds.
    """
    by = _plain(agents).groupby(['boardsize', 'rule', 'idx'])
    table = by.agg(train_flops=('train_flops', 'mean'), mean=('elo', 'mean'), low=('elo', 'min'),
                   high=('elo', 'max'), n_seeds=('elo', 'size')).reset_index()
    full = table.groupby(['boardsize', 'rule']).n_seeds.transform('max')
    return table[table.n_seeds == full].drop(columns='idx').reset_index(drop=True)


def _plain(agents):
    return agents[(agents.train_nodes == 64) & (agents.test_nodes == 64)
                  & np.isclose(agents.c_puct, agents.rule.map(C_PUCT))]


def reached(agents, shares=(.25, .5, .75)) -> pd.DataFrame:
    """The compute at which each run of :func:`curves` first gets a share of its board's way up,
    which goes from the lowest mean to the end of the rule that ends lower.

    Returns:
        boardsize, share, rule, run, elo (of that share), and log_flops, the compute's log10: nan
        where a run never gets there.
    """
    table, rows = curves(agents), []
    for boardsize, board in _plain(agents).sort_values('train_flops').groupby('boardsize'):
        curve = table[table.boardsize == boardsize]
        low, high = curve['mean'].min(), curve.groupby('rule')['mean'].last().min()
        for share in shares:
            elo = low + share*(high - low)
            rows += [(boardsize, share, rule, run, elo, np.log10(crossings(own, elo)[boardsize]))
                     for (rule, run), own in board.groupby(['rule', 'run'])]
    return pd.DataFrame(rows, columns=['boardsize', 'share', 'rule', 'run', 'elo', 'log_flops'])


def lag(reached, by=('boardsize', 'share'), level=.95) -> pd.DataFrame:
    """How many times the corrected rule's compute the published one takes to get as far.

    Args:
        reached: of the function of that name.
        by: its columns to tell apart; without boardsize the ratio is the geometric mean over
            boards.

    Returns:
        ratio, low, high, by :func:`combined` from logarithms, indexed by `by`; nan where a run
        never gets there.
    """
    def one(part):
        groups = part.groupby(['rule', 'boardsize']).log_flops
        sign = [1 if rule == '2021' else -1 for rule, _ in groups.groups]
        weights = pd.Series(sign, groups.groups)/part.boardsize.nunique()
        known = part.log_flops.notna().all()
        found = 10**np.array(combined(groups, weights, level)) if known else np.nan
        return pd.Series(found, ['ratio', 'low', 'high'])
    return reached.groupby(list(by))[['rule', 'boardsize', 'log_flops']].apply(one)


def combined(groups, weights, level=.95):
    """A weighted sum of the means of groups, with its interval after Welch and Satterthwaite.

    Args:
        groups: a grouped Series, its values independent.
        weights: a Series with the groups' keys.

    Returns:
        The sum and the ends of its interval, which are nan where a group has one value.
    """
    cells = groups.agg(['mean', 'var', 'size'])
    weights = weights.reindex(cells.index)
    value = weights @ cells['mean']
    reach = _reach((weights**2*cells['var']/cells['size']).to_numpy(), cells['size'], level)
    return value, value - reach, value + reach


def _reach(parts, sizes, level):
    """Half of Welch's interval: `parts` of the variance, and how many values each was seen by."""
    df = parts.sum()**2/(parts**2/(np.array(sizes) - 1)).sum()
    return t.ppf((1 + level)/2, df)*parts.sum()**.5


def contrast(ends, level=.95) -> pd.DataFrame:
    """Elo of the corrected rule above the published one, by board: Welch's interval over seeds.

    Args:
        ends: rows of :func:`variants`, of one factor and one number of nodes.

    Returns:
        corrected, published (means), difference, low, high, n_seeds; indexed by boardsize. The
        interval is nan where a rule has one seed.
    """
    rows = {}
    for boardsize, board in ends.groupby('boardsize'):
        ours, theirs = (board[board.rule == rule].elo for rule in ('corrected', '2021'))
        if min(len(ours), len(theirs)) == 0:
            continue
        difference, low, high = combined(board.groupby('rule').elo,
                                         pd.Series({'corrected': 1, '2021': -1}), level)
        rows[boardsize] = {'corrected': ours.mean(), 'published': theirs.mean(),
                           'difference': difference, 'low': low, 'high': high,
                           'n_seeds': min(len(ours), len(theirs))}
    return pd.DataFrame.from_dict(rows, orient='index').rename_axis('boardsize')


def between(ends, trials, level=.95) -> pd.DataFrame:
    """As :func:`contrast`, but by the games of the two rules' agents with each other alone.

    Each pair's Elo has half a pseudo-win each way. An interval is Welch's again: a seed stands for
    its mean over all seeds of the other rule.

    Args:
        ends: rows of :func:`variants`, indexed by agent, of one factor and one number of nodes.
        trials: games, as rows of the table trials.

    Returns:
        rate, the share of games that the corrected rule wins, then difference, low and high in Elo,
        games; indexed by boardsize.
    """
    rows = {}
    for boardsize, board in ends.groupby('boardsize'):
        ours, theirs = (board.index[board.rule == rule] for rule in ('corrected', '2021'))
        ws, gs = (x.loc[ours, theirs] for x in elos.symmetrize(trials, board.index))
        elo = (np.log((ws + .5)/(gs - ws + .5))*elos.to_elo).where(gs > 0)
        parts = np.array([elo.mean(axis=axis).var()/elo.shape[1 - axis] for axis in (0, 1)])
        mean, reach = elo.mean(axis=None), _reach(parts, elo.shape[::-1], level)
        games = gs.to_numpy().sum()
        rows[boardsize] = {'rate': ws.to_numpy().sum()/games, 'difference': mean,
                           'low': mean - reach, 'high': mean + reach, 'games': int(games)}
    return pd.DataFrame.from_dict(rows, orient='index').rename_axis('boardsize')


def verdict(table) -> str:
    """Says in words what the table of :func:`contrast` shows."""
    parts = []
    for boardsize, row in table.iterrows():
        name = f'{boardsize}×{boardsize}'
        if not row.low*row.high > 0:
            parts.append(f'on {name} the two cannot be told apart ({row.difference:+.0f} Elo, '
                         f'{row.low:.0f} to {row.high:.0f})')
        else:
            better = 'corrected' if row.difference > 0 else 'published'
            parts.append(f'on {name} the {better} rule is stronger ({row.difference:+.0f} Elo for '
                         f'the corrected one, {row.low:.0f} to {row.high:.0f})')
    return '; '.join(parts)
