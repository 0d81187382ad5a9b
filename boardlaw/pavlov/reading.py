"""Reading statistics: the rows of a channel, its resampled values, many runs side by side."""

from __future__ import annotations

import difflib
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from . import files, kinds, npr, runs, writing
from .disk import CorruptFile, NotFound

MAX_LINE = 2**26  # bytes of one array of a line


def channels(run: str | int = -1) -> dict[str, str]:
    """Channel -> kind, by name, of all channels of which there is a file to read."""
    return {channel: kind for channel, (kind, here) in sources(runs.resolve(run)).items() if here}


def sources(run: str) -> dict[str, tuple[str, list[Path]]]:
    """Channel -> its kind, and those of its files that are here."""
    found, home = {}, runs.folder() / run
    for file, entry in files.entries(run).items():
        if parsed := writing.parse(file):
            channel, kind = parsed[0], entry.get('kind')
        elif file.startswith('stats.') and file.endswith('.npz'):
            channel, kind = file[6:-4], 'line'
        else:
            continue
        known, here = found.get(channel, (None, []))
        found[channel] = kind or known, here + [home / file] * (entry['size'] is not None)
    for channel, (kind, here) in found.items():
        if kind is None:  # no file of it is listed
            fields = [d.names[1:] for f in here if (d := npr.measure(f)[1])]
            found[channel] = kinds.guess(fields[0]) if fields else 'last', here
    return dict(sorted(found.items()))


def _find(run: str | int, channel: str) -> tuple[str, str, list[Path]]:
    """The run's full name, the channel's kind and its files."""
    run = runs.resolve(run)
    known = sources(run)
    kind, here = known.get(channel, (None, []))
    if here:
        return run, kind, here
    if kind:
        raise NotFound(f'The files of channel "{channel}" are listed by run "{run}" but are not '
                       'here: download the run again.')
    near = difflib.get_close_matches(str(channel), known, 3, .5)
    raise NotFound(f'Run "{run}" has no channel "{channel}". ' + (
        f'Near it are {near}.' if near else f'It has {len(known)} channels.'))


def rows(here: list[Path], kind: str, created: pd.Timestamp) -> list[np.ndarray]:
    """The rows of each writer, checked: the fields of the kind, at times that can be."""
    low = np.datetime64((created - pd.Timedelta('1D')).tz_localize(None), 'us')
    high = np.datetime64((created + pd.Timedelta('3650D')).tz_localize(None), 'us')
    parts = []
    for file in here:
        if (part := npr.read(file)) is None:
            continue
        heads = tuple(dict.fromkeys(n.split('.')[0] for n in part.dtype.names[1:]))
        if kind in kinds.KINDS and heads != kinds.KINDS[kind].fields:
            raise CorruptFile(f'"{file}" has the fields {heads}: not those of a {kind}')
        wrong = ~((part['_time'] >= low) & (part['_time'] <= high))  # NaT compares false
        if wrong.any():
            i = int(wrong.argmax())
            raise CorruptFile(f'"{file}": row {i} is dated {part["_time"][i]}, the run {created}')
        parts.append(part)
    if len({p.dtype.names for p in parts}) > 1:
        raise CorruptFile(f'"{here[0]}" and its sequels differ in their fields')
    if not parts:
        fields = kinds.KINDS[kind].fields if kind in kinds.KINDS else ()
        parts = [np.empty(0, npr.dtype(dict.fromkeys(fields, '<f8')))]
    return parts


def merged(parts: list[np.ndarray], created: pd.Timestamp) -> pd.DataFrame:
    """Rows of all writers by time since creation, with the writer's number as a column."""
    start = np.datetime64(created.tz_localize(None), 'us')
    return pd.concat([
        pd.DataFrame({n: p[n] for n in p.dtype.names[1:]},
                     pd.TimedeltaIndex(p['_time'] - start, name='_time')).assign(writer=i)
        for i, p in enumerate(parts)]).sort_index(kind='stable')


def array(run: str | int, channel: str) -> np.ndarray | dict[str, np.ndarray]:
    """The rows of all writers as they were written, by time: `[n_rows]` records of `_time` (UTC)
    and the fields of the channel's kind. Of a line: a dict of its 'xs' and 'ys', `[n]`."""
    run, kind, here = _find(run, channel)
    if kind == 'line':
        return _line(here[0])
    parts = rows(here, kind, runs.created(run))
    together = np.concatenate(parts)
    return together[np.argsort(together['_time'], kind='stable')]


def _line(file: Path) -> dict[str, np.ndarray]:
    out = {}
    try:
        with zipfile.ZipFile(file) as z:
            for key in ('xs', 'ys'):
                if z.getinfo(f'{key}.npy').file_size > MAX_LINE:
                    raise ValueError(f'{key} is larger than {MAX_LINE} bytes')
                data = z.read(f'{key}.npy')
                start, declared = npr.literal(data)
                # frombuffer neither unpickles nor trusts the shape
                if not npr.NUMBER.fullmatch(str(declared['descr'])):
                    raise ValueError(f'{key} does not hold plain numbers')
                out[key] = np.frombuffer(data, declared['descr'], offset=start)
                if declared['shape'] != out[key].shape:
                    raise ValueError(f'{key} is not of the shape that it declares')
            if len(out['xs']) != len(out['ys']):
                raise ValueError('xs and ys differ in length')
    except (ValueError, KeyError, EOFError, OverflowError, RuntimeError, MemoryError, OSError,
            zipfile.BadZipFile, zlib.error) as e:   # OSError: it points to before its beginning
        raise CorruptFile(f'"{file}" is not a line: {e}'[:500]) from e
    return out


def pandas(run: str | int, channel: str, rule: str | None = '60s',
           field: str | None = None) -> pd.Series | pd.DataFrame:
    """Values of a channel in bins of `rule` from the run's creation, by the formula of its kind.

    A Series indexed by the bin's start (a Timedelta), or a DataFrame for the kinds of several
    values: 'μ', 'σ', 'μ-', 'μ+' (two sigma) of a mean_std, percentages of quantiles. `field`
    picks one column. With `rule=None`, the raw rows of all writers as a DataFrame, indexed by the
    time since creation. A line is not resampled: a Series of its ys by its xs.

    Raises NotFound if the run or channel is not here, CorruptFile if a file is damaged."""
    run, kind, here = _find(run, channel)
    if kind == 'line':
        line = _line(here[0])
        return pd.Series(line['ys'], pd.Index(line['xs'], name='x'), name=channel).sort_index()
    created = runs.created(run)
    table = merged(rows(here, kind, created), created)
    values = table.drop(columns='writer') if rule is None else kinds.resample(kind, table, rule)
    if isinstance(values, pd.Series):
        return values.rename(channel)
    if field is not None and field not in values:
        raise NotFound(f'channel "{channel}" has no field {field!r}: {list(values)}')
    return values if field is None else values[field].rename(channel)


def compare(rs, channel: str, rule: str | None = '60s', field: str | None = None) -> pd.DataFrame:
    """One channel of many runs, a column a run, indexed by time since each run's creation.

    `rs` is a run or a list of runs. Kinds of several values give columns (run, value), or one a
    run if `field` says which. Runs without the channel are left out with a warning; if all are,
    raises NotFound."""
    columns, missing = {}, []
    for run in [rs] if isinstance(rs, (str, int)) else rs:
        name = runs.resolve(run)
        try:
            columns[name] = pandas(name, channel, rule, field)
        except NotFound as e:
            missing.append(str(e))
    if not columns:
        raise NotFound('; '.join(missing) or 'no runs were given')
    if missing:
        warnings.warn('left out: ' + '; '.join(missing), stacklevel=2)
    if rule is None:
        raise ValueError("rows of several runs have no common times: give a rule, such as '60s'")
    return pd.concat(columns, axis=1)


def plot(rs, channel: str, rule: str = '60s', field: str | None = None, ax=None, **kwargs):
    """Draw a channel of one or more runs against time since creation; returns the Axes.

    A mean_std is drawn with its two-sigma band, quantiles as bands around the median. `kwargs` go
    to `Axes.plot`."""
    if ax is None:
        import matplotlib.pyplot as plt
        ax = plt.subplots()[1]
    run_names = [runs.resolve(r) for r in ([rs] if isinstance(rs, (str, int)) else rs)]
    for name in run_names:
        values = pandas(name, channel, rule, field)
        kind = _find(name, channel)[1]
        xs = values.index if kind == 'line' else values.index.total_seconds() / 60
        _draw(ax, xs, values, {'label': ' '.join(name.split(' ')[2:]) or name, **kwargs})
    ax.set_ylabel(channel)
    if kind != 'line':
        ax.set_xlabel('minutes since creation')
    if kind in kinds.KINDS and kinds.KINDS[kind].percent:
        ax.yaxis.set_major_formatter(lambda y, _: f'{100*y:g} %')
    if len(run_names) > 1:
        ax.legend()
    return ax


def _draw(ax, xs, values, style):
    if isinstance(values, pd.Series):
        ax.plot(xs, values, **style)
    elif 'μ' in values:
        [drawn] = ax.plot(xs, values['μ'], **style)
        ax.fill_between(xs, values['μ-'], values['μ+'], color=drawn.get_color(), alpha=.2, lw=0)
    else:
        columns = values.shape[1]
        [drawn] = ax.plot(xs, values.iloc[:, columns // 2], **style)
        for i in range(columns // 2):
            ax.fill_between(xs, values.iloc[:, i], values.iloc[:, -1 - i], alpha=.15, lw=0,
                            color=drawn.get_color())
