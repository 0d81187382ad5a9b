"""The paper's figures, one function each, named as the paper numbers them.

Each takes an agents frame (see :mod:`boardlaw.paper.data`), says which columns it needs, and
returns a :class:`boardlaw.style.Figure`, which a notebook shows with its alt text and its source.
All numbers in them, alt text included, are computed from what they are given.

     1 hex_game            a last position
     2 elo_winrate         win rate by Elo
     3 runtimes            time to perfect play
     4 calibrations        win rate against it
     5 flops_curves        every run by compute
     6 frontiers           the best of them
     7 resid_var           larger boards foretold
     8 test_compute        Elo by nodes
     9 train_test          lines of equal Elo
    10 direct_frontiers    6, by direct games
    11 optimal_model_size  size by compute
"""
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy.stats import beta

from boardlaw import style
from boardlaw.style import MUTED, boardsize_color, boardsize_name

from . import data, fits

COMPUTE = 'Training compute (FLOPs)'
ELO = 'Elo relative to perfect play'


@style.drawn
def hex_game(world, i=0):
    """Figure 1: the last position of a game.

    Args:
        world: a :class:`boardlaw.hex.Hex` or a board `[S, S]` of labels, after the winning move.
        i: which game of several.
    """
    from boardlaw.hex import drawing
    fig, ax = style.subplots(height=3.4)
    drawing.plot(world, i, ax=ax)
    return style.describe(fig, drawing.describe(world, i))


@style.drawn
def elo_winrate(agents=None):
    """Figure 2: the win rate that a difference in Elo means.

    Args:
        agents: if given, also marks the difference that twice the training compute makes on these
            agents' frontier (columns of :func:`frontiers`).
    """
    fig, ax = style.subplots(height=3.2)
    d = np.linspace(-1000, 1000, 401)
    ax.plot(d, 100*fits.winrate(d), color=style.INK)
    marks = [(x, f'+{x} Elo: {100*fits.winrate(x):.0f}%', 8) for x in (100, 200, 400)]
    if agents is not None:
        fit = fits.fit_frontier(data.frontier(agents))
        double = fit.incline_flops*np.log10(2)
        marks.append((double, f'twice the training compute\n+{double:.0f} Elo: '
                              f'{100*fit.double_compute_winrate:.1f}%', -8))
    for x, text, dx in marks:
        ax.plot(x, 100*fits.winrate(x), 'o', ms=5, color=style.INK)
        style.label(ax, x, 100*fits.winrate(x), text, dx=dx, dy=-dx/2, size=9,
                    weight='normal' if dx > 0 else 'bold')
    ax.set(xlabel='Elo difference', xlim=(-1000, 1000), xticks=range(-1000, 1001, 500),
           ylim=(0, 100), yticks=range(0, 101, 25))
    style.title(ax, 'Win rate (%)')
    return style.describe(fig, (
        'An S-shaped curve from 0 to 100% win rate as the Elo difference goes from -1000 to 1000, '
        f'50% at 0. Marked: {"; ".join(text for _, text, _ in marks)}.'), _source(agents))


@style.drawn
def runtimes(agents):
    """Figure 3: how long the quickest training to perfect play (-50 Elo) took, by board size.

    Args:
        agents: boardsize, elo, and runtime in seconds of training, as snapshots store it; with
            test_nodes, those of 64.
    """
    agents = data.train_agents(agents, 'boardsize', 'elo', 'runtime')
    perfect = agents[agents.elo > data.PERFECT]
    if perfect.empty:
        raise ValueError(f'no agent is above {data.PERFECT} Elo, where play counts as perfect')
    seconds = perfect.groupby('boardsize').runtime.min()
    fig, ax = style.subplots(height=3.2)
    ax.plot(seconds.index, seconds, color=MUTED, lw=1)
    for boardsize, s in seconds.items():
        color = boardsize_color(boardsize)
        ax.plot(boardsize, s, 'o', ms=7, color=color)
        style.label(ax, boardsize, s, _duration(s), color, dx=-7, dy=3, size=9)
    ax.set_yscale('log')
    style.log_axis(ax.yaxis)
    ax.margins(x=.12, y=.12)
    ax.grid(False, axis='x')
    style.boardsize_axis(ax.xaxis, seconds.index)
    style.title(ax, 'Training time to perfect play (seconds)')
    each = ', '.join(f'{boardsize_name(b)} {_duration(s)}' for b, s in seconds.items())
    return style.describe(fig, f'Shortest training time to {data.PERFECT} Elo by board size, on a '
                               f'logarithmic axis: {each}.', _source(agents))


@style.drawn
def calibrations(matches, level=.9):
    """Figure 4: win rate of each board's best agent against the reference perfect player.

    The box is the central interval of the posterior Beta(wins + 1, losses + 1), the line its
    median. The paper's text says 90 %; its code drew 80 % (quantiles .1 and .9, 128 games).

    Args:
        matches: boardsize, wins, games: one row an agent, its games against the reference with
            both colours; per board the one with the best win rate is shown.
        level: of the interval.
    """
    data.check(matches, 'boardsize', 'wins', 'games')
    if not ((matches.games > 0) & (matches.wins >= 0) & (matches.wins <= matches.games)).all():
        raise ValueError('every agent needs games > 0 and 0 <= wins <= games')
    best = matches.assign(rate=matches.wins/matches.games).sort_values('rate', kind='stable')
    best = best.groupby('boardsize').tail(1).set_index('boardsize').sort_index()
    posterior = beta(best.wins + 1, best.games - best.wins + 1)
    low, mid, high = (pd.Series(100*posterior.ppf(q), best.index)
                      for q in ((1 - level)/2, .5, (1 + level)/2))
    fig, ax = style.subplots(height=3.2)
    ax.axhline(50, color=MUTED, lw=1)
    for b in best.index:
        color = boardsize_color(b)
        ax.bar(b, high[b] - low[b], .5, low[b], color=color, alpha=.25)
        ax.plot([b - .25, b + .25], [mid[b]]*2, color=color, lw=2.5, solid_capstyle='butt')
        style.label(ax, b, high[b], f'{mid[b]:.0f}%', color, dx=0, dy=3, size=9,
                    bbox={'facecolor': style.PAPER, 'edgecolor': 'none', 'pad': .5})
    ax.set(ylim=(min(40, low.min() - 2), max(60, high.max() + 4)))
    ax.grid(False, axis='x')
    style.boardsize_axis(ax.xaxis, best.index)
    style.title(ax, f'Win rate against perfect play (%), {100*level:.0f}% credible')
    each = ', '.join(f'{boardsize_name(b)} {mid[b]:.0f}% ({low[b]:.0f} to {high[b]:.0f})'
                     for b in best.index)
    return style.describe(fig, f'Win rate of the best agent against the reference player with '
                               f'{100*level:.0f}% credible intervals: {each}.', _source(matches))


@style.drawn
def flops_curves(agents):
    """Figure 5: every run's Elo against its training compute, and each board's frontier.

    Args:
        agents: boardsize, run, train_flops, elo; with test_nodes, those of 64.
    """
    fronts = data.frontier(agents)
    fig, ax = style.subplots(height=3.8)
    agents = data.train_agents(agents).sort_values('train_flops')
    for (boardsize, _), run in agents.groupby(['boardsize', 'run']):
        ax.plot(run.train_flops, run.elo, color=boardsize_color(boardsize), lw=.6, alpha=.35)
    for boardsize, front in fronts.groupby('boardsize'):
        ax.plot(front.train_flops, front.elo, color=boardsize_color(boardsize), lw=2.4)
    _compute_axes(ax, fronts, agents)
    n_runs = agents.groupby('boardsize').run.nunique().sum()
    return style.describe(fig, f'{n_runs} training runs and the best Elo of any, by board size. '
                               f'{_in_words(fronts)}', _source(agents))


@style.drawn
def frontiers(agents):
    """Figure 6: each board's frontier (solid) and the five-parameter fit to all (dashed).

    Args:
        agents: boardsize, run, train_flops, elo; with test_nodes, those of 64.
    """
    return _frontiers(agents, ELO)


@style.drawn
def direct_frontiers(agents):
    """Figure 10: as :func:`frontiers`, with Elo from games against the board's top agent alone.

    Args:
        agents: boardsize, run, train_flops, and elo so estimated (the paper: 64k games a pair).
    """
    return _frontiers(agents, 'Elo relative to the top agent, by direct play')


def _frontiers(agents, name):
    fronts = data.frontier(agents)
    fit = fits.fit_frontier(fronts)
    fig, ax = style.subplots(height=3.8)
    for boardsize, front in fronts.groupby('boardsize'):
        color, x = boardsize_color(boardsize), front.train_flops
        ax.plot(x, front.elo, color=color, lw=2.2)
        ax.plot(x, fit.predict(boardsize, x), '--', color=color, lw=1.2, dash_capstyle='butt')
    _compute_axes(ax, fronts, fronts, name)
    _note(ax, 'solid: best of all runs\ndashed: one fit to all,\n'
              f'+{fit.incline_flops:.0f} Elo per 10×')
    rms = np.sqrt((fit.residuals(fronts)**2).mean())
    return style.describe(fig, (
        f'Best Elo against training compute by board size. {_in_words(fronts)} Dashed, the fit: a '
        f'flat start, {-fit.plateau_boardsize:.0f} Elo lower per board size, then a rise of '
        f'{fit.incline_flops:.0f} Elo per factor of ten in compute, the same on every board, up '
        f'to 0; it is off by {rms:.0f} Elo (root mean square).'), _source(agents))


def _note(ax, text):
    """What the kinds of line are, in the lower right corner, which curves that rise leave free."""
    ax.text(.99, .03, text, transform=ax.transAxes, ha='right', size=9, color=MUTED,
            linespacing=1.4, zorder=1,
            bbox={'facecolor': style.PAPER, 'edgecolor': 'none', 'pad': 1, 'alpha': .85})


def _compute_axes(ax, fronts, points, name=ELO):
    """Axes of training compute and Elo, the boards named where their frontiers begin."""
    ax.set_xscale('log')
    low, high = points.train_flops.min(), points.train_flops.max()
    ax.set(xlabel=COMPUTE, xlim=(low/(high/low)**.13, high*(high/low)**.02),
           ylim=(points.elo.min() - 90, 40))
    style.log_axis(ax.xaxis, every=1 if high/low < 1e6 else 2)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    style.title(ax, name)
    starts = fronts.groupby('boardsize').first()
    style.label_lines(ax, [(s.train_flops, s.elo, boardsize_name(b), boardsize_color(b))
                           for b, s in starts.iterrows()], side='left')


def _in_words(fronts):
    crossings = data.crossings(fronts)
    parts = []
    for boardsize, front in fronts.groupby('boardsize'):
        reach = (f'and reaches {data.PERFECT} at {_power(crossings[boardsize])}'
                 if crossings[boardsize] > 0 else f'and ends at {front.elo.iloc[-1]:.0f}')
        parts.append(f'{boardsize_name(boardsize)} starts at {front.elo.iloc[0]:.0f} Elo with '
                     f'{_power(front.train_flops.iloc[0])} FLOPs {reach}')
    return '; '.join(parts) + '.'


@style.drawn
def resid_var(agents):
    """Figure 7: how well small boards predict large ones.

    The share of Elo's mean square that a fit to boards up to a size leaves on each board.

    Args:
        agents: boardsize, run, train_flops, elo; with test_nodes, those of 64.
    """
    table = fits.residual_variance(data.frontier(agents))
    fig, ax = style.subplots(height=3.7)
    ends = []
    for boardsize, line in table.groupby('boardsize'):
        color, ahead = boardsize_color(boardsize), line[line.extrapolated]
        ax.plot(line.seen, line.resid_var, color=color, lw=.9)
        ax.plot(ahead.seen, ahead.resid_var, color=color, lw=2.6)
        ax.plot(line.seen, line.resid_var, 'o', ms=4.5, color=color, mfc=style.PAPER)
        ax.plot(ahead.seen, ahead.resid_var, 'o', ms=4.5, color=color)
        ends.append((line.seen.iloc[-1], line.resid_var.iloc[-1], boardsize_name(boardsize), color))
    ax.set_yscale('log')
    ax.margins(y=.06)
    ax.set(xlabel='Largest board in the fit', xlim=(table.seen.min() - .15, table.seen.max() + .15))
    style.boardsize_axis(ax.xaxis, table.seen.unique())
    style.log_axis(ax.yaxis, subs=(1, 2, 5), percent=True)
    style.title(ax, 'Residual variance, by predicted board',
                'filled, thick: a board larger than any in the fit')
    style.label_lines(ax, ends, dx=8)
    largest = table[table.boardsize == table.boardsize.max()]
    each = ', '.join(f'{100*r:.2g}% with boards up to {boardsize_name(s)}'
                     for s, r in zip(largest.seen, largest.resid_var))
    return style.describe(fig, (
        'Residual variance of the fit on each board, against the largest board in the fit, on a '
        f'logarithmic axis. On {boardsize_name(largest.boardsize.iloc[0])}: {each}.'),
        _source(agents))


@style.drawn
def test_compute(agents, floors=data.FLOORS, literal=False):
    """Figure 8: how Elo grows with the search's nodes, for snapshots of different strength.

    The last snapshot of one run for each of ``floors``, on the largest board; see
    :func:`data.test_curves`. Points are named by nodes, lines by depth x width.

    Args:
        agents: boardsize, run, idx, width, depth, samples, train_flops, test_nodes, elo.
        literal: whether to count the FLOPs of the forward passes; by default, as in the paper, 64
            times that.
    """
    board = data.largest_board(agents)
    curves = data.test_curves(board, floors, literal)
    fig, ax = style.subplots(height=3.8)
    sizes = curves.drop_duplicates('run').set_index('run').eval('width**2*depth')
    shades = style.shades(sizes.rank(method='dense'))
    words = []
    for run, curve in curves.groupby('run', sort=False):
        color, name = shades[run], f'{curve.depth.iloc[0]}×{curve.width.iloc[0]}'
        ax.plot(curve.test_flops, curve.elo, 'o-', ms=3.5, color=color)
        for nodes, x, y in zip(curve.test_nodes, curve.test_flops, curve.elo):
            if nodes in (1, 8, 64, curve.test_nodes.max()):
                style.label(ax, x, y, f'{nodes}', color, dx=3, dy=-7, size=9, weight='normal')
        style.label(ax, curve.test_flops.iloc[0], curve.elo.iloc[0], name, color, dx=0, dy=5)
        words.append(f'{name} from {curve.elo.iloc[0]:.0f} Elo with {curve.test_nodes.iloc[0]} '
                     f'to {curve.elo.iloc[-1]:.0f} with {curve.test_nodes.iloc[-1]} nodes')
    ax.set_xscale('log')
    ax.margins(x=.06, y=.09)
    style.log_axis(ax.xaxis)
    ax.set_xlabel(_test_axis(literal))
    name = boardsize_name(board.boardsize.iloc[0])
    style.title(ax, f'{ELO}, {name}; depth × width')
    return style.describe(fig, f'Elo on {name} against test compute as the search tree grows, '
                               f'networks as depth × width: {"; ".join(words)}.', _source(agents))


@style.drawn
def train_test(agents, elos=data.LEVELS, literal=False):
    """Figure 9: lines of equal Elo, the least test compute against the training compute.

    See :func:`data.train_test`; dashed the plane fitted to all lines, its equation in the figure.

    Args:
        agents: boardsize, run, samples, train_flops, test_nodes, elo; the largest board is used.
        elos: the levels.
        literal: as for :func:`test_compute`.
    """
    board = data.largest_board(agents)
    lines = data.train_test(board, elos, literal)
    fit = fits.fit_train_test(lines)
    fig, ax = style.subplots(height=3.8)
    levels = sorted(lines.elo.unique())
    shades = style.shades(dict(zip(levels, range(len(levels)))))
    ends = []
    for elo, line in lines.groupby('elo'):
        ax.plot(line.train_flops, line.test_flops, 'o-', ms=3, color=shades[elo])
        x = line.train_flops.iloc[[0, -1]]
        ax.plot(x, fit.predict(x, elo), '--', lw=1.1, color=shades[elo])
        ends.append((*line[['train_flops', 'test_flops']].iloc[-1], _equation(f'{elo}'),
                     shades[elo]))
    ax.set_xscale('log')
    ax.set_yscale('log')
    style.log_axis(ax.xaxis)
    ax.margins(x=.12, y=.12)
    style.log_axis(ax.yaxis)
    ax.set_xlabel(COMPUTE)
    name = boardsize_name(board.boardsize.iloc[0])
    equation = _equation(f'log₁₀(test) = {fit.train:.2g} · log₁₀(train) + {fit.elo:.2g} · Elo '
                         f'+ {fit.const:.2g}')
    style.title(ax, f'{_test_axis(literal)}, by Elo on {name}', equation)
    style.label_clear(ax, ends, size=9)
    return style.describe(fig, (
        f'Least test compute against training compute for {len(levels)} levels of Elo on {name}, '
        f'both logarithmic; the lines fall. Fit: {equation}: ten times the training compute '
        f'divides the test compute by {fit.saving:.1f}.'), _source(agents))


def _test_axis(literal):
    return f'Test compute a move ({"FLOPs" if literal else "64 × FLOPs"})'


@style.drawn
def optimal_model_size(agents):
    """Figure 11: the size of the best network within each of ten computes, by board size.

    Size is width² · depth; dashed the power law fitted to all, its equation in the figure.

    Args:
        agents: boardsize, width, depth, train_flops, elo; with test_nodes, those of 64.
    """
    best = data.optimal_model_size(agents)
    law = fits.fit_power_law(best.limit, best['size'])
    fig, ax = style.subplots(height=3.8)
    ends = []
    for boardsize, line in best.groupby('boardsize'):
        color = boardsize_color(boardsize)
        ax.plot(line.limit, line['size'], 'o-', ms=4, lw=1.6, color=color)
        ends.append((line.limit.iloc[-1], line['size'].iloc[-1], boardsize_name(boardsize), color))
    x = best.limit.agg(['min', 'max'])
    ax.plot(x, law.predict(x), '--', color=style.INK, lw=1.2)
    ax.set_xscale('log')
    ax.set_yscale('log')
    ax.set(xlabel=COMPUTE, ylim=(best['size'].min()/2, best['size'].max()*3))
    style.log_axis(ax.xaxis, every=1 if x['max']/x['min'] < 1e6 else 2)
    style.log_axis(ax.yaxis)
    equation = _equation(f'log₁₀(size) = {law.exponent:.2f} · log₁₀(compute) '
                         f'+ {law.intercept:.1f}')
    style.title(ax, 'Best network size, width² · depth', equation)
    style.label_clear(ax, ends)
    each = ', '.join(f'{boardsize_name(b)} {line["size"].iloc[0]} to {line["size"].iloc[-1]}'
                     for b, line in best.groupby('boardsize'))
    return style.describe(fig, (
        'Size of the best network within a training compute, by board size, both logarithmic: '
        f'{each}. Fit to all: {equation}.'), _source(agents))


def _source(frame):
    return None if frame is None else frame.attrs.get('source')


def _equation(text):
    """`text` with minus signs for hyphens, and no '+ −'."""
    return text.replace('+ -', '− ').replace('-', '−')


def _power(x):
    """'1.3e11' for 1.27e11."""
    return f'{x:.1e}'.replace('e+', 'e').replace('e0', 'e')


def _duration(seconds):
    """'45 s', '12 min', '2.8 h'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds/60:.0f} min' if seconds < 5400 else f'{seconds/3600:.1f} h'
