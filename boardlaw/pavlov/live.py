"""A live view of a run in training: current values, short trends, curves."""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
import sys
import threading
import time
from fnmatch import fnmatchcase

import pandas as pd

from .. import notebook
from . import kinds, reading, runs, writing
from .disk import CorruptFile, NotFound

CURVES = ('loss.*', 'elo*', 'sample-rate.*', 'corr.*', 'kl-div.*', 'rel-entropy.*')
RULES = ('1s', '5s', '15s', '60s', '5min', '15min', '1h', '6h')
N_BINS = 60  # at most this many bins, as long as RULES has a longer one
IDLE = 600.  # seconds without a new row after which refreshing ends
UNITS = {'rate': '/s', 'maxrate': '/s', 'period': ' s'}
BLOCKS = '▁▂▃▄▅▆▇█'
# A page shows the view as it shows the figures of boardlaw.style; on a phone the table fits, too.
CARD = ('max-width:580px;box-sizing:border-box;padding:.4em;border-radius:4px;background:#fff;'
        'color:#24292f')
TABLE = ('margin:0 0 1em;padding:0;border:0;background:none;color:inherit;line-height:1.3;'
         'overflow-x:auto;font-size:min(.875rem, 3.1vw)')


def _number(value: float, kind: str) -> str:
    if kind in kinds.KINDS and kinds.KINDS[kind].percent:
        return f'{100*value:.3g} %'
    for scale, letter in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= scale:
            return f'{value/scale:.4g}{letter}{UNITS.get(kind, "")}'
    return f'{value:.4g}{UNITS.get(kind, "")}'


def _prefix(panel: list[str]) -> str:
    """What all channels of a panel begin with, up to a dot; '' if that is nothing."""
    shared = os.path.commonprefix(panel)
    return shared[:shared.rfind('.') + 1] if len(panel) > 1 else ''


def _sparkline(values: pd.Series, width: int = 24) -> str:
    values = values.iloc[-width:]
    low, high = values.min(), values.max()
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.
    return ''.join(' ' if pd.isna(v) else BLOCKS[round((v - low) * scale)] for v in values)


class Watch:
    """A view of a run. In a notebook it shows itself, refreshes every `every` seconds where
    ipywidgets is installed (unless `live=False`), and leaves a static picture in the saved page;
    `print(view.text())` and `view.figure()` give its parts.

    `curves` are patterns of channel names; each that fits something gets a panel."""

    def __init__(self, run: str | int = -1, every: float = 5., curves=CURVES, live: bool = True):
        self.run, self.every, self.curves, self.live = runs.resolve(run), every, curves, live
        self._stop, self._thread = threading.Event(), None

    def values(self) -> tuple[dict[str, tuple[str, pd.Series]], pd.Timedelta | None]:
        """Channel -> (kind, values in bins that suit its length), and the time of the newest
        row since the run's creation. Of a kind of several values, the middle one. A rate's last
        bin, not yet full, is left out."""
        created, tables = runs.created(self.run), {}
        for channel, (kind, here) in reading.sources(self.run).items():
            if kind in kinds.KINDS and kinds.KINDS[kind].shown:
                try:
                    parts = reading.rows(here, kind, created)
                except (CorruptFile, OSError):
                    continue  # the view goes on with what can be read
                if any(map(len, parts)):
                    tables[channel] = kind, reading.merged(parts, created)
        if not tables:
            return {}, None
        age = max(table.index[-1] for _, table in tables.values())
        found = {}
        for channel, (kind, table) in tables.items():
            end = table.index[-1]
            rule = next((r for r in RULES if end / kinds.width(r) <= N_BINS), RULES[-1])
            values = kinds.resample(kind, table, rule)
            if isinstance(values, pd.DataFrame):
                values = values['μ'] if 'μ' in values else values.iloc[:, values.shape[1] // 2]
            if kind in ('rate', 'period', 'duty') and len(values) > 1:
                values = values.iloc[:-1]
            found[channel] = kind, values
        return found, age

    def text(self) -> str:
        """A table of current values with their trends."""
        return self._text(*self.values())

    def _text(self, values, age, trend=24) -> str:
        lines = [f'{self.run}  {runs.info(self.run).get("description") or ""}'.rstrip()]
        if age is None:
            return '\n'.join([*lines, 'no statistics yet'])
        ago = (pd.Timestamp.now('UTC') - runs.created(self.run) - age).round('1s')
        lines += [f'{str(age.round("1s")).removeprefix("0 days ")} in, last row '
                  f'{str(ago).removeprefix("0 days ")} ago', '']
        width = max(map(len, values))
        for channel, (kind, series) in values.items():
            known = series.dropna()
            now = _number(known.iloc[-1], kind) if len(known) else '-'
            lines.append(f'{channel:{width}}  {now:>11}  {_sparkline(series, trend)}'.rstrip())
        return '\n'.join(lines)

    def figure(self):
        """The curves, one panel a pattern, as a matplotlib Figure; None if there are none yet."""
        return self._figure(self.values()[0])

    def _figure(self, values):
        from matplotlib.figure import Figure  # not pyplot: this is drawn in a thread
        panels = [[c for c in values if fnmatchcase(c, pattern)] for pattern in self.curves]
        panels = [p for p in panels if p]
        if not panels:
            return None
        columns = min(len(panels), 2)
        n_rows = -(-len(panels) // columns)
        figure = Figure(figsize=(2.4 * columns, 2.6 * n_rows), layout='constrained')
        for i, panel in enumerate(panels):
            self._panel(figure.add_subplot(n_rows, columns, i + 1), panel, values)
        figure.supxlabel('minutes', fontsize=10)
        return figure

    def _panel(self, ax, panel, values):
        prefix = _prefix(panel)
        for channel in panel:
            series = values[channel][1].dropna()
            ax.plot(series.index.total_seconds() / 60, series,
                    marker='.' if len(series) == 1 else '', label=channel.removeprefix(prefix))
        ax.tick_params(labelsize=10)
        ax.locator_params(nbins=4)
        title, rows = (panel[0], 0) if len(panel) == 1 else (panel[0].split('.')[0], len(panel))
        ax.set_title(title, fontsize=10, loc='left', weight='bold', pad=6 + 13 * rows)
        if rows:  # above the axes: where the curves will go is not known
            ax.legend(fontsize=10, frameon=False, loc='lower left', bbox_to_anchor=(0, 1),
                      borderpad=0, borderaxespad=.4, handlelength=1, labelspacing=.1)

    def html(self) -> str:
        """Table and curves as one piece of HTML that needs nothing else."""
        return self._html(*self.values())

    def _html(self, values, age) -> str:
        table = html.escape(self._text(values, age, trend=12))
        figure, image = self._figure(values), ''
        if figure is not None:
            svg = io.BytesIO()
            figure.savefig(svg, format='svg', metadata={'Date': None})
            alt = html.escape(f'Curves of run {self.run} over time: {", ".join(self.curves)}', True)
            image = (f'<img alt="{alt}" style="width:100%;background:white" '
                     f'src="data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}">')
        return (f'<div class="boardlaw-figure" style="{CARD}"><pre style="{TABLE}">{table}</pre>'
                f'{image}</div>')

    def print(self, updates: int | None = None) -> None:
        """Print the table, on a terminal again every `every` seconds until Ctrl-C or until there
        has been no new row for ten minutes; `updates` is the most times."""
        terminal = sys.stdout.isatty()
        if not terminal:
            updates = 1
        try:
            for text in itertools.islice(self._views(self.text, threading.Event()), updates):
                print(('\x1b[H\x1b[2J' if terminal else '') + text, flush=True)
        except KeyboardInterrupt:
            pass

    def _views(self, view, stop: threading.Event):
        """What `view()` returns, again and again until `stop` or IDLE. Slower if it takes long, so
        that watching takes at most a tenth of a core."""
        rows, changed, wait = None, time.monotonic(), 0.
        while not stop.wait(wait):
            start = time.monotonic()
            now = sum(writing.offsets(self.run).values())
            if now != rows:
                rows, changed = now, start
            yield view()
            if time.monotonic() - changed > IDLE:
                return
            wait = max(self.every, 10 * (time.monotonic() - start))

    def stop(self) -> None:
        """End the refreshing."""
        self._stop.set()

    def _widget(self, page: str):
        ipywidgets = notebook.import_ipywidgets()
        self.stop()  # a view that is shown anew refreshes there, and no longer where it was
        self._stop = stop = threading.Event()
        content = ipywidgets.HTML(page)
        button = ipywidgets.Button(description='Stop refreshing')
        button.on_click(lambda _: stop.set())

        def refresh():
            try:
                for content.value in self._views(self.html, stop):
                    pass
            except (CorruptFile, NotFound, OSError):
                pass  # the run was moved or deleted: the last picture stays
            button.disabled, button.description = True, 'Not refreshing'

        self._thread = threading.Thread(target=refresh, daemon=True, name='watch')
        self._thread.start()
        return ipywidgets.VBox([content, button])

    def _repr_mimebundle_(self, include=None, exclude=None):
        values = self.values()
        page = self._html(*values)
        return notebook.mimebundle(self._text(*values), page, lambda: self._widget(page),
                                   self.live)

    def __repr__(self):
        return f'Watch({self.run!r})'


def watch(run: str | int = -1, every: float = 5., curves=CURVES, live: bool = True) -> Watch:
    """Watch a run in training: current rates, losses and curves, refreshed every `every` seconds.

    In a notebook, the value of the cell is the view (see `Watch`). On a terminal it is printed
    until Ctrl-C; into a file or pipe, and with `live=False`, once."""
    view = Watch(run, every, curves, live)
    if not notebook.in_kernel():
        view.print(updates=None if live else 1)
    return view
