"""Statistics of a run: time series that a training writes and anybody reads, then or later.

    with stats.to_run(run):
        stats.mean('traj-length', total, count)
        stats.rate('sample-rate.actor', n_envs)

    stats.pandas(run, 'traj-length', rule='60s')

There is one function for each kind of statistic; it adds a row to a channel. Outside of a `to_run`
block they do nothing, so that code which reports statistics also runs where nobody records them.
Numbers may be Python's, or numpy's and torch's scalars. `boardlaw.pavlov.kinds` says what a kind's
rows become when read, and what it means that several processes wrote one channel."""

from . import writing
from .reading import array, channels, compare, pandas, plot
from .writing import Writer, offsets, to_run, truncate

__all__ = ['Writer', 'array', 'channels', 'compare', 'cumsum', 'duty', 'last', 'line', 'max',
           'max_percent', 'maxrate', 'mean', 'mean_percent', 'mean_std', 'offsets', 'pandas',
           'period', 'plot', 'quantiles', 'rate', 'silent', 'std', 'timeaverage', 'to_run',
           'truncate']


def _write(kind: str, channel: str, *values) -> None:
    if (writer := writing.current.get()) is not None:
        writer.write(kind, channel, *values)


def last(channel: str, x) -> None:
    """The newest value, held until the next."""
    _write('last', channel, x)


def max(channel: str, x) -> None:  # noqa: A001
    """The greatest value of an interval."""
    _write('max', channel, x)


def max_percent(channel: str, x) -> None:
    """The greatest fraction of an interval, shown as a percentage."""
    _write('max_percent', channel, x)


def mean(channel: str, total, count=1) -> None:
    """The sum of `total` over the sum of `count`."""
    _write('mean', channel, total, count)


def mean_percent(channel: str, total, count=1) -> None:
    """As `mean`, a fraction shown as a percentage."""
    _write('mean_percent', channel, total, count)


def std(channel: str, x) -> None:
    """The standard deviation of an interval's values (n - 1 in the denominator)."""
    _write('std', channel, x)


def cumsum(channel: str, total=1) -> None:
    """The sum of everything so far."""
    _write('cumsum', channel, total)


def rate(channel: str, count=1) -> None:
    """Events a second: the sum of `count` over an interval's length."""
    _write('rate', channel, count)


def period(channel: str, count=1) -> None:
    """Seconds for each event: an interval's length over the sum of `count`."""
    _write('period', channel, count)


def duty(channel: str, duration) -> None:
    """The fraction of the time spent on it; `duration` in seconds."""
    _write('duty', channel, duration)


def maxrate(channel: str, duration, count=1) -> None:
    """Events a second of the time spent on them; `duration` in seconds."""
    _write('maxrate', channel, duration, count)


def timeaverage(channel: str, x) -> None:
    """The mean weighted by time: `x` stands for the time since this process's row before."""
    _write('timeaverage', channel, x)


def mean_std(channel: str, μ, σ) -> None:
    """An estimate with its standard error."""
    _write('mean_std', channel, μ, σ)


def quantiles(channel: str, qs) -> None:
    """Evenly spaced quantiles of a sample, from its least to its greatest, `[n_quantiles]`."""
    _write('quantiles', channel, *(float(q) for q in writing.numbers(qs)))


def silent(channel: str, x) -> None:
    """A value that is kept but shown only on request."""
    _write('silent', channel, x)


def line(channel: str, xs, ys) -> None:
    """A curve of `[n]` points, which takes the place of the one before."""
    if (writer := writing.current.get()) is not None:
        writer.line(channel, xs, ys)
