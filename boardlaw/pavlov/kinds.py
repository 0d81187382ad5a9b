"""The kinds of a statistic: the fields of its rows, and its value after resampling.

Rows of several processes that wrote one channel are first merged into one table by time, and the
formula is applied to that. So totals and counts add up (a mean is weighted by all counts, a rate is
the rate of all processes together, a duty can exceed 1), `last` is the newest row of anyone, and
`max`, `std`, `mean_std` and `quantiles` treat every row alike whoever wrote it. Only `timeaverage`
needs to know the writer: a row stands for the time since the same writer's row before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

MAX_BINS = 10_000_000


@dataclass(frozen=True)
class Kind:
    """`fields` of a row; `value(bins, seconds)` of each bin; whether values are shown as percent,
    and shown at all when nobody asked for this channel."""
    fields: tuple[str, ...]
    value: Callable
    percent: bool = False
    shown: bool = True


def _mean_std(bins, seconds):
    # sigma belongs to the mean precision, not their sum: rows are repeated readings of one
    # quantity, not independent evidence for it.
    precision = bins['precision'].mean()
    μ, σ = bins['weighted'].mean() / precision, precision**-.5
    return pd.DataFrame({'μ': μ, 'σ': σ, 'μ-': μ - 2*σ, 'μ+': μ + 2*σ})


def _quantiles(bins, seconds):
    means = bins.mean().filter(like='qs.').sort_index(axis=1, key=lambda c: c.str[3:].astype(int))
    means.columns = [f'{q:.0f}' for q in np.linspace(0, 100, means.shape[1])]
    return means


_pooled = lambda bins, seconds: bins['total'].mean() / bins['count'].mean()  # noqa: E731
_latest = lambda bins, seconds: bins['x'].last().ffill()  # noqa: E731
_max = lambda bins, seconds: bins['x'].max()  # noqa: E731

KINDS = {
    'last': Kind(('x',), _latest),
    'max': Kind(('x',), _max),
    'max_percent': Kind(('x',), _max, percent=True),
    'mean': Kind(('total', 'count'), _pooled),
    'mean_percent': Kind(('total', 'count'), _pooled, percent=True),
    'std': Kind(('x',), lambda bins, seconds: bins['x'].std()),
    'cumsum': Kind(('total',), lambda bins, seconds: bins['total'].sum().cumsum()),
    'rate': Kind(('count',), lambda bins, seconds: bins['count'].sum() / seconds),
    'period': Kind(('count',), lambda bins, seconds: seconds / bins['count'].sum()),
    'duty': Kind(('duration',), lambda bins, seconds: bins['duration'].sum() / seconds, True),
    'maxrate': Kind(('duration', 'count'),
                    lambda bins, seconds: bins['count'].mean() / bins['duration'].mean()),
    'timeaverage': Kind(('x',), lambda bins, seconds: bins['x dt'].sum() / bins['dt'].sum()),
    'mean_std': Kind(('μ', 'σ'), _mean_std),
    'quantiles': Kind(('qs',), _quantiles),
    'silent': Kind(('x',), _latest, shown=False),
}


def guess(fields: tuple[str, ...]) -> str:
    """The kind of a file that no `_info.json` lists, guessed from its fields; 'last' if none
    fits."""
    heads = {f.split('.')[0] for f in fields}
    plain = ('mean', 'cumsum', 'rate', 'duty', 'maxrate', 'mean_std', 'quantiles')
    return next((k for k in plain if set(KINDS[k].fields) == heads), 'last')


def width(rule: str) -> pd.Timedelta:
    """The length of a bin, from a rule such as '60s', '5min' or '1h'."""
    try:
        length = pd.Timedelta(pd.tseries.frequencies.to_offset(rule))
    except (ValueError, TypeError) as e:
        raise ValueError(f"{rule!r} is not a bin length such as '60s' or '5min': {e}") from None
    if not length > pd.Timedelta(0):
        raise ValueError(f"{rule!r} is not a bin length: it must be positive")
    return length


def resample(kind: str, rows: pd.DataFrame, rule: str) -> pd.Series | pd.DataFrame:
    """Value of a channel in bins of `rule`, indexed by each bin's start since the run's creation.

    `rows` has the fields of `kind` as columns, the time since creation as index, and the writer's
    number in a column 'writer'. Bins start at time 0, whenever the first row came; rows from before
    it (of a machine whose clock is behind) fall into the first bin. `rate`, `period` and `duty`
    divide by a bin's whole length, the last, partial bin included; only where the run is younger
    than one bin, by its age."""
    if kind not in KINDS:
        raise ValueError(f'there is no resampling for the kind {kind!r}: read the rows, rule=None')
    length, zero = width(rule), pd.Timedelta(0)
    rows = rows.astype(float)
    rows.index = rows.index.where(rows.index > zero, zero)
    if kind == 'timeaverage':
        age = rows.index.to_series().dt.total_seconds()
        before = age.groupby(rows['writer'].to_numpy()).shift(fill_value=0.)
        dt = (age - before).where(rows['x'].notna())
        rows['dt'], rows['x dt'] = dt, rows['x'] * dt
    if kind == 'mean_std':
        rows['precision'] = rows['σ'].clip(lower=1e-12)**-2.
        rows['weighted'] = rows['μ'] * rows['precision']
    start = pd.DataFrame(np.nan, index=pd.TimedeltaIndex([zero]).as_unit('us'),
                         columns=rows.columns)
    rows = pd.concat([start, rows]).rename_axis('_time')
    end = rows.index[-1]
    if end / length > MAX_BINS:
        raise ValueError(f'{rule!r} would cut {end} into more than {MAX_BINS:,} bins; take a '
                         'longer rule')
    seconds = min(length, end).total_seconds() if end > zero else length.total_seconds()
    with np.errstate(divide='ignore', invalid='ignore'):
        return KINDS[kind].value(rows.resample(length), seconds)
