"""Our own runs beside the published ones: what they are, compute at equal Elo, every claim.

    ours, theirs = paper.replica(), paper.published()
    comparison.compute_ratio(ours, theirs)
    comparison.claims(ours, theirs)

Explained in the chapters book/replica.ipynb and book/cost.ipynb.
"""
import json

import numpy as np
import pandas as pd

from boardlaw import sql, style
from boardlaw.arena import ratings
from boardlaw.style import boardsize_color, boardsize_name

from . import data, figures, fits, tables

#: Names of the columns of :func:`claims` that hold data: all published curves, those of the boards
#: that ours have as well, and ours.
CURVES, SAME, OURS = 'curves', 'same boards', 'replica'


def runs(agents, target='replica') -> pd.DataFrame:
    """The training runs that the agents come from, one row each.

    Args:
        agents: :func:`boardlaw.paper.replica` of the same target.
        target: the database, as for `sql.use`.

    Returns:
        Indexed by run: boardsize, width, depth, seed, n_envs, batch_size, lr, rule; snapshots,
        samples, train_flops and hours (of processor time) at its end; elo, lower, upper of its best
        agent of 64 nodes; version, machine.
    """
    with sql.use(target):
        details = sql.query('select * from run_details').set_index('run')
    settings = pd.DataFrame(list(details.params.map(json.loads)), index=details.index)
    agents = data.train_agents(agents, 'boardsize', 'run', 'samples', 'train_flops', 'elo')
    each = agents.groupby('run')
    ends = each[['boardsize', 'width', 'depth', 'samples', 'train_flops']].max()
    ends['snapshots'], ends['hours'] = each.idx.nunique(), each.runtime.max()/3600
    best = agents.loc[each.elo.idxmax()].set_index('run')[['elo', 'lower', 'upper']]
    found = ends.join(best).join(details[['seed', 'version', 'machine']]).join(
        settings[['n_envs', 'batch_size', 'lr', 'rule']])
    return found.sort_values(['boardsize', 'seed', 'train_flops'])


def boards(agents, target='replica') -> pd.DataFrame:
    """:func:`runs` in one row a board: runs, networks, seeds, snapshots, samples and hours of all;
    games that rate the agents, and the hours they took; elo, lower, upper of the best run; what the
    runs have in common."""
    each = runs(agents, target)
    with sql.use(target):
        played = {b: ratings.trials(ratings.agents(b, f'bee/{b}'))
                  for b in sorted(agents.boardsize.unique())}

    def written(x):
        return f'{x:.2g}' if isinstance(x, float) else str(x)

    def one(board):
        best = board.loc[board.elo.idxmax()]
        common = {c: ', '.join(dict.fromkeys(map(written, board[c])))
                  for c in ('seed', 'batch_size', 'lr', 'rule', 'machine')}
        return pd.Series({
            'runs': len(board), 'networks': board[['width', 'depth']].drop_duplicates().shape[0],
            'snapshots': board.snapshots.sum(), 'samples': board.samples.sum(),
            'hours': board.hours.sum(), **best[['elo', 'lower', 'upper']], **common})
    table = each.groupby('boardsize').apply(one, include_groups=False)
    table.insert(5, 'games', pd.Series(
        {b: int((x.black_wins + x.white_wins).sum()) for b, x in played.items()}))
    table.insert(6, 'rating hours', pd.Series({b: x.times.sum()/3600 for b, x in played.items()}))
    return table


def compute_ratio(ours, theirs, elos=(data.PERFECT,), n_resamples=200, seed=0,
                  level=.9) -> pd.DataFrame:
    """How many times more training compute theirs take than ours to reach the same Elo.

    The computes are those at which the frontiers cross that Elo. The interval is the basic
    bootstrap's of the ratio's logarithm, over the runs of both: a resample in which only one
    frontier gets there extends it to 0 or infinity; one in which neither does is left out.

    Args:
        ours, theirs: agents frames: boardsize, run, train_flops, elo.
        elos: the levels.

    Returns:
        ours, theirs, ratio, low, high, indexed by boardsize (those that both have) and elo.
    """
    shared = sorted(set(ours.boardsize) & set(theirs.boardsize))
    if not shared:
        raise ValueError('ours and theirs have no board size in common')

    def crossings(agents):
        fronts = data.frontier(agents)
        each = pd.concat({e: data.crossings(fronts, e) for e in elos}, names=['elo'])
        return np.log10(each.swaplevel().sort_index()).fillna(np.inf)

    logs, drawn = {}, {}
    for k, (name, agents) in enumerate({'ours': ours, 'theirs': theirs}.items()):
        agents = data.train_agents(agents, 'boardsize', 'run', 'train_flops', 'elo')
        agents = agents[agents.boardsize.isin(shared)]
        logs[name] = crossings(agents)
        drawn[name] = fits.bootstrap(agents, crossings, n_resamples, seed + k)
    with np.errstate(invalid='ignore'):      # where neither gets there
        ratio, ratios = logs['theirs'] - logs['ours'], drawn['theirs'] - drawn['ours']
        low, high = (ratios.apply(_quantile, args=(q, side)) for q, side in (
            ((1 - level)/2, 'lower'), ((1 + level)/2, 'higher')))
        table = 10**pd.DataFrame({**logs, 'ratio': ratio, 'low': 2*ratio - high,
                                  'high': 2*ratio - low})
    table[['ours', 'theirs']] = table[['ours', 'theirs']].replace(np.inf, np.nan)
    return table


def beyond(agents, boardsizes, n_resamples=200, seed=0, level=.9) -> pd.DataFrame:
    """What perfect play on larger boards would cost if the trend of these agents' boards went on.

    Compute by the fit to all frontiers; time by a straight line through the logarithms of each
    board's quickest snapshot above -50 Elo. The intervals are basic bootstrap intervals over runs:
    they cover the choice of runs, but not whether the trend goes on.

    Args:
        agents: boardsize, run, train_flops, elo, runtime.
        boardsizes: the larger boards.

    Returns:
        (flops, seconds) x (estimate, low, high), indexed by boardsize.
    """
    sizes = np.asarray(boardsizes)

    def statistic(agents):
        fit = fits.fit_frontier(data.frontier(agents))
        quickest = agents[agents.elo > data.PERFECT].groupby('boardsize').runtime.min()
        line = (np.polyfit(quickest.index, np.log10(quickest), 1) if len(quickest) > 1
                else [np.nan]*2)
        return pd.concat({'flops': pd.Series(fit.compute(sizes), sizes),
                          'seconds': pd.Series(10**np.polyval(line, sizes), sizes)})

    agents = data.train_agents(agents, 'boardsize', 'run', 'train_flops', 'elo', 'runtime')
    with np.errstate(over='ignore', divide='ignore'):   # a resample whose incline is level
        computed = statistic(agents)
        table = fits.intervals(computed, fits.bootstrap(agents, statistic, n_resamples, seed),
                               level, ratios=computed.index)
    return table.unstack(0).swaplevel(axis=1).sort_index(axis=1).rename_axis('boardsize')


def _quantile(x, q, side):
    """A quantile that is one of the values: between infinities there is no mean."""
    x = x.dropna()
    return np.quantile(x, q, method=side) if len(x) else np.nan


@style.drawn
def frontiers(ours, theirs):
    """Figures 5 and 6 of both on the same axes: our runs and frontiers, and theirs faint.

    Args:
        ours, theirs: boardsize, run, train_flops, elo; with test_nodes, those of 64. Of theirs the
            boards that ours have.
    """
    ours = data.train_agents(ours, 'boardsize', 'run', 'train_flops', 'elo')
    theirs = data.train_agents(theirs[theirs.boardsize.isin(set(ours.boardsize))])
    mine, published = data.frontier(ours), data.frontier(theirs)
    fig, ax = style.subplots(height=4)
    for (boardsize, _), run in ours.sort_values('train_flops').groupby(['boardsize', 'run']):
        ax.plot(run.train_flops, run.elo, color=boardsize_color(boardsize), lw=.6, alpha=.35)
    for boardsize, front in published.groupby('boardsize'):
        ax.plot(front.train_flops, front.elo, color=boardsize_color(boardsize), lw=2.2, alpha=.3)
    for boardsize, front in mine.groupby('boardsize'):
        ax.plot(front.train_flops, front.elo, color=boardsize_color(boardsize), lw=2.6)
    both = pd.concat([ours, theirs])
    figures._compute_axes(ax, mine, both, figures.ELO)
    figures._note(ax, 'strong: ours\nfaint: published, 2021')
    at = pd.DataFrame({'ours': data.crossings(mine), 'theirs': data.crossings(published)})
    words = '; '.join(f'{boardsize_name(b)}: ours {_reach(x.ours)}, the published '
                      f'{_reach(x.theirs)}' for b, x in at.iterrows())
    return style.describe(fig, (
        'Elo against training compute on the boards that we trained on: our runs thin, their '
        'frontiers thick, the published frontiers faint and further to the right. Reaching '
        f'{data.PERFECT} Elo, {words}.'),
        'Data: published curves (Jones 2021), faint; our own runs, strong.')


def _reach(flops):
    return 'never' if np.isnan(flops) else f'at {flops:.1e} FLOPs'


def claims(ours, theirs, n_resamples=200, seed=0) -> pd.DataFrame:
    """Every claim of the paper: published, from its curves, from our runs, verdicts, the reason.

    Verdicts as in :func:`tables.claims`; reasons, and the levels of claim 5, are those of ours. The
    published curves are also taken for our boards alone, which tells apart a claim that is not true
    of small boards from one of which our training gives another number. The numbers of the law are
    read as the paper reads them, with the best agent of a board at 0; claim 8, that this agent is
    perfect, with Elo as it is in `ours`.

    Args:
        ours, theirs: as for :func:`tables.claims`; ours with exact, whether 0 is the exact player,
            and with lower and upper, the interval of `elo`.

    Returns:
        number, claim, published, read from; for each of `CURVES`, `SAME` and `OURS` the number
        under that name, and '... low', '... high', '... verdict'; reason. One row a claim, first
        those that are numbers.
    """
    small = theirs[theirs.boardsize.isin(set(ours.boardsize))]
    every, table = set(theirs.boardsize) <= set(ours.boardsize), None
    for name, agents in ((CURVES, theirs), (SAME, small), (OURS, data.best_at_zero(ours))):
        if name != SAME or not every:    # on every board they are the curves again
            found = tables.claims(agents, n_resamples, seed)
        if table is None:
            table = found[['number', 'claim', 'published', 'rounding', 'read from']]
        table['remark'] = found.remark
        part = found[['computed', 'low', 'high', 'verdict']]
        part.columns = [name, f'{name} low', f'{name} high', f'{name} verdict']
        table = table.join(part)
    table['reason'] = [_reason(row, every) for _, row in table.iterrows()]
    rest = pd.DataFrame(_untested(theirs) + _perfection(ours))
    return pd.concat([table, rest], ignore_index=True).drop(columns=['rounding', 'remark'])


def _reason(row, every=False):
    """Why a claim that is a number has its verdict on our runs, which may be on `every` board."""
    low, high = row[f'{OURS} low'], row[f'{OURS} high']
    verdict, reasons = row[f'{OURS} verdict'], [row.remark] if row.remark else []
    if verdict == 'not tested':
        reasons.append('no data of ours say it')
    elif verdict == 'differs' and not np.isnan(low):
        meets = low <= row[f'{SAME} high'] and high >= row[f'{SAME} low']
        if np.isnan(row[SAME]):
            reasons.append('the published curves of our boards cannot tell whether it is the board')
        elif row[f'{SAME} verdict'] == 'agrees':
            reasons.append('the published curves ' + (
                'agree, so it is' if every else 'of the same boards agree, so it is not the boards '
                'but') + ' the training, or the reading of the ratings')
        elif every:
            reasons.append('the published curves differ as well, and '
                           + ('ours agree with those' if meets else 'from ours'))
        else:
            reasons.append('the published curves of the same boards differ as well'
                           + (', and ours agree with those: small boards are different' if meets
                              else ', and from ours: not only the boards are different'))
    elif verdict == 'agrees' and high - low > row.published:
        reasons.append('an interval wider than the number itself tests little')
    if verdict == 'agrees' and row[f'{CURVES} verdict'] == 'differs':
        reasons.append("the paper's own curves differ, so that ours do not confirm its number")
    if verdict == 'agrees' and not low <= row.published <= high:
        reasons.append(f'our interval does not hold {row.published:.3g} itself, only numbers that '
                       'round to it')
    if 'table III' in row.remark and not np.isnan(low):
        implied = {3: tables.TABLE_3.takeoff_growth, 4: tables.TABLE_3.gap_growth}[row.number]
        held = [f'{x:.3g}' for x in (row.published, implied) if low <= x <= high]
        reasons.append('our interval holds ' + (
            ' and '.join(held) or f'neither {row.published:.3g} nor {implied:.3g}'))
    return '; '.join(reasons)


def _untested(theirs):
    """The claims that no agent of ours can speak of, with what the published curves say."""
    last = theirs.sort_values('train_flops').groupby('run').tail(1)
    least = (last.samples/last.boardsize**2).sum()
    n_runs, n_snapshots = len(last), len(theirs)

    def row(number, claim, published, reason, curves=np.nan, verdict='not tested'):
        return {'number': number, 'claim': claim, 'published': published, 'read from': 'third',
                CURVES: curves, f'{CURVES} verdict': verdict,
                f'{SAME} verdict': 'not tested', f'{OURS} verdict': 'not tested', 'reason': reason}

    def count(number, claim, published, found, half_step):
        near = abs(found - published) <= half_step
        return row(number, claim, published, 'a count of the published figure; ours is not meant',
                   found, 'agrees' if near else 'differs')
    return [
        row(7, 'perfect 9×9 on one RTX 2080 Ti (hours), "a little under"', 3,
            'takes a training on that card; we trained on a processor'),
        count(7, 'models trained, about', 200, n_runs, 50),
        count(7, 'snapshots rated, about', 2800, n_snapshots, 50),
        row(7, 'games', 7e8, 'it is not said which games; the training runs of the published '
            f'curves alone had at least {least:.1e}, since no game has more moves than cells'),
        row(7, 'all of it (GPU hours)', 500, 'times were not published with the curves'),
    ]


def _perfection(ours):
    """Claim 8, that the best agent of a board is perfect: known where Elo 0 is the exact player."""
    rows = []
    for boardsize, board in ours.groupby('boardsize'):
        best = board.loc[board.elo.idxmax()]
        row = {
            'number': 8, 'claim': f'the best agent plays perfectly, {boardsize_name(boardsize)} '
            f'(Elo from perfect play; above {data.PERFECT} counts)', 'published': 0.,
            'read from': 'code', f'{CURVES} verdict': 'not tested', f'{SAME} verdict': 'not tested',
            f'{OURS} verdict': 'not tested',
            'reason': 'there is no exact player for this board; 0 is the best agent'}
        if best.exact:
            above = ('; an interval above 0 is too narrow, since nobody plays better than '
                     'perfectly: in games with the exact player alone no agent is above 0'
                     if best.lower > 0 else '')
            row |= {OURS: best.elo, f'{OURS} low': best.lower, f'{OURS} high': best.upper,
                    f'{OURS} verdict': 'agrees' if best.upper > data.PERFECT else 'differs',
                    'reason': 'our 0 is the exact player; the interval is that of the rating '
                              "(95 %); the paper's curves have their own best agent at 0" + above}
        rows.append(row)
    return rows
