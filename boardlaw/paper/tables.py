"""The paper's tables, and its claims: what was published beside what these data give.

Published numbers carry where they were read: 'text', quoted from the paper's second version;
'curve', computed from its published figure.
"""
import numpy as np
import pandas as pd

from boardlaw import elos

from . import data, fits

# Table III: the fitted frontier, as printed.
TABLE_3 = fits.ChangePoint(plateau_boardsize=-270, plateau_const=570, incline_flops=510,
                           incline_boardsize=-430, incline_const=-4400)

# Table II: neurons, layers, samples, compute by board size.
TABLE_2 = {3: (2, 4, 4e8, 1e12), 4: (16, 4, 2e8, 1e13), 5: (16, 8, 3e8, 3e13),
           6: (128, 8, 6e8, 4e14), 7: (512, 8, 1e9, 1e16), 8: (512, 8, 1e9, 3e16),
           9: (1024, 8, 2e9, 1e17)}

PARAMETERS = {
    'plateau_boardsize': ('plateau', 'm_boardsize'), 'plateau_const': ('plateau', 'c'),
    'incline_flops': ('incline', 'm_flops'), 'incline_boardsize': ('incline', 'm_boardsize'),
    'incline_const': ('incline', 'c')}


def hyperparameters(config=None) -> pd.DataFrame:
    """Table I: the paper's training beside that of `config`.

    Args:
        config: a :class:`boardlaw.selfplay.Config`; by default that of the paper's largest
            network with all else as the package has it.

    Returns:
        ours, published; indexed by hyperparameter.
    """
    from boardlaw.selfplay import Config
    c = config or Config(boardsize=9, width=1024, depth=8)
    n_actions = c.boardsize**2
    return pd.DataFrame({
        'number of envs': (c.n_envs, 32*1024),
        'batch size (samples)': (c.batch_size, 32*1024),
        'buffer size (samples)': (c.n_envs*c.buffer_len, 2*1024**2),
        'buffer length (steps)': (c.buffer_len, 64),
        'learning rate (Adam)': (c.lr, 1e-3),
        'search nodes': (c.n_nodes, 64),
        'c_puct': (c.c_puct, 1/16),
        'noise share ε': (c.noise_eps, 1/4),
        'Dirichlet α · number of actions': (c.dirichlet_alpha*n_actions, 10),
    }, index=['ours', 'published'], dtype=object).T.rename_axis('hyperparameter')


def limits(agents) -> pd.DataFrame:
    """Table II: the largest network and the longest training on each board.

    Args:
        agents: boardsize, width, depth, samples, train_flops.

    Returns:
        Columns (neurons, layers, samples, compute) x (computed, published), indexed by boardsize.
    """
    columns = {'width': 'neurons', 'depth': 'layers', 'samples': 'samples',
               'train_flops': 'compute'}
    agents = data.train_agents(agents, 'boardsize', *columns)
    computed = agents.groupby('boardsize')[list(columns)].max().rename(columns=columns)
    paper = pd.DataFrame.from_dict(TABLE_2, orient='index', columns=list(columns.values()))
    both = pd.concat({'computed': computed, 'published': paper.reindex(computed.index)}, axis=1)
    both = both.astype({(who, c): float for who in both.columns.levels[0]
                        for c in ('samples', 'compute')})
    return both.swaplevel(axis=1)[[(c, who) for c in computed for who in ('computed', 'published')]]


def fitted_frontier(agents, n_resamples=200, seed=0) -> pd.DataFrame:
    """Table III: the five parameters of the frontier, in Elo, with 90 % intervals over runs.

    Args:
        agents: boardsize, run, width, depth, train_flops, elo.
        n_resamples: of the bootstrap; 0 for no intervals.

    Returns:
        published, computed, low, high; indexed by (line, term).
    """
    return _parameters(agents, TABLE_3, n_resamples, seed)


def direct_frontier(agents, n_resamples=200, seed=0) -> pd.DataFrame:
    """Table IV: as :func:`fitted_frontier`, of ratings from games against the top agent alone.

    What the paper printed here is not known to us: `published` is nan.
    """
    return _parameters(agents, None, n_resamples, seed)


def _parameters(agents, paper, n_resamples, seed):
    def statistic(agents):
        return pd.Series(vars(fits.fit_frontier(data.frontier(agents))))

    table = _with_intervals(agents, statistic, n_resamples, seed)
    table.insert(0, 'published', pd.Series(vars(paper) if paper else np.nan, index=table.index))
    table.index = pd.MultiIndex.from_tuples(map(PARAMETERS.get, table.index),
                                            names=['line', 'term'])
    return table


def _with_intervals(agents, statistic, n_resamples, seed):
    """computed, low, high of each number of `statistic`."""
    computed = statistic(agents)
    if not n_resamples:
        return pd.DataFrame({'computed': computed, 'low': np.nan, 'high': np.nan})
    resamples = fits.bootstrap(agents, statistic, n_resamples, seed)
    table = fits.intervals(computed, resamples, ratios=_RATIOS)
    return table.rename(columns={'estimate': 'computed'})


def perfect_play(agents) -> pd.DataFrame:
    """The compute for perfect play (-50 Elo) on each board, and the cheapest nearly perfect agent.

    Args:
        agents: boardsize, run, width, depth, samples, train_flops, elo.

    Returns:
        Indexed by boardsize: `fit` and `frontier`, the compute by the fit and where the frontier
        crosses; width, depth, samples, train_flops of :func:`data.cheapest`, nan if there is none.
    """
    frontiers = data.frontier(agents)
    fit, crossings = fits.fit_frontier(frontiers), data.crossings(frontiers)
    table = pd.DataFrame({'fit': fit.compute(crossings.index), 'frontier': crossings})
    return table.join(data.cheapest(agents)[['width', 'depth', 'samples', 'train_flops']])


_RATIOS = ['perfect_growth', 'perfect_growth_raw', 'takeoff_growth', 'train_test_saving',
           'train_test_saving_more']

# Number of the claim, text, name among the statistics, published value, half the step to which it
# was rounded, where it was read, a remark.
_CLAIMS = [
    (1, 'ten times the training compute buys, on the incline (Elo)',
     'incline_flops', 500, 50, 'text', ''),
    (1, 'twice the training compute wins (share of games)',
     'double_compute_winrate', 2/3, .05, 'text', 'published as "about 2/3"'),
    (2, 'compute for perfect play, per board size (times), by the fit',
     'perfect_growth', 7, .5, 'text', ''),
    (2, 'compute for perfect play, per board size (times), where frontiers cross -50 Elo',
     'perfect_growth_raw', 7, .5, 'text', ''),
    (3, 'compute at takeoff, per board size (times)',
     'takeoff_growth', 4, .5, 'text', "table III as printed gives {table_3.takeoff_growth:.2f}"),
    (4, 'from random to perfect play, per board size (Elo), by the fit',
     'gap_growth', 500, 50, 'text', "table III as printed gives {table_3.gap_growth:.0f}"),
    (4, 'from random to perfect play, per board size (Elo), from the weakest snapshots',
     'gap_growth_raw', 500, 50, 'text', ''),
    (5, 'ten times the training compute divides the test compute by',
     'train_test_saving', 15, 2.5, 'text', 'on the largest board'),
    (6, 'twice the compute wins in the toy model (share of games)',
     'toy', 2/3, .005, 'text', 'exact'),
    (None, 'best size against compute: exponent',
     'size_exponent', .92, .005, 'curve', '64-node data'),
    (None, 'best size against compute: intercept',
     'size_intercept', -9.2, .05, 'curve', '64-node data'),
]


def claims(agents, n_resamples=200, seed=0) -> pd.DataFrame:
    """Each claim that is a number: published, computed from these agents, the interval, a verdict.

    A claim 'agrees' where the 90 % bootstrap interval over runs meets published +- rounding, the
    range that the printed number stands for, and 'differs' otherwise; it is 'not tested' where
    these agents cannot tell. What training saves at test time depends on the levels of Elo that
    are compared: it 'agrees' or 'differs' where it does so both by the paper's six levels, whose
    number is given, and by the nine of `data.MORE_LEVELS`, which the remark gives; otherwise it is
    'undecided'.

    Args:
        agents: boardsize, run, width, depth, train_flops, elo; with several test_nodes, idx and
            samples also what training saves at test time.
        n_resamples: of the bootstrap.

    Returns:
        number, claim, published, rounding, read from, computed, low, high, verdict, remark: one
        row a claim.
    """
    ours = _with_intervals(agents, _statistics, n_resamples, seed)
    ours.loc['toy'] = float(elos.toy_model(2))
    rows = []
    for number, claim, name, paper, half_step, where, remark in _CLAIMS:
        value, low, high = ours.loc[name] if name in ours.index else [np.nan]*3
        verdict = _verdict(value, low, high, paper, half_step)
        remark = remark.format(table_3=TABLE_3)
        if f'{name}_more' in ours.index:
            more = ours.loc[f'{name}_more']
            other = _verdict(*more, paper, half_step)
            reach = '' if np.isnan(more.low) else f' ({more.low:.1f} to {more.high:.1f})'
            remark += (f"; by the paper's six levels of Elo it {verdict}, by nine it is "
                       f'{more.computed:.1f}{reach} and {other}')
            verdict = verdict if verdict == other else 'undecided'
        rows.append((number, claim, paper, half_step, where, value, low, high, verdict, remark))
    return pd.DataFrame(rows, columns=['number', 'claim', 'published', 'rounding', 'read from',
                                       'computed', 'low', 'high', 'verdict', 'remark'])


def _verdict(value, low, high, paper, half_step):
    """Whether the interval, or the value where there is none, meets paper +- half_step."""
    if np.isnan(value):
        return 'not tested'
    low, high = (value, value) if np.isnan(low) else (low, high)
    return 'agrees' if low <= paper + half_step and high >= paper - half_step else 'differs'


def _statistics(agents):
    out = fits.headline(agents)
    if 'test_nodes' in agents and agents.test_nodes.nunique() > 1:
        board = data.largest_board(agents)
        for name, levels in (('', data.LEVELS), ('_more', data.MORE_LEVELS)):
            lines = data.train_test(board, data.like_9x9(levels, board))
            out[f'train_test_saving{name}'] = fits.fit_train_test(lines).saving
    return out
