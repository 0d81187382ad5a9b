"""The live view of a run, and its log."""

import base64
import logging
import re
import shutil
import sys
import time

import numpy as np
import pandas as pd
import pytest

from boardlaw import notebook, pavlov
from boardlaw.pavlov import live, logs, runs, stats

pytestmark = pytest.mark.usefixtures('output')


def test_the_table_shows_current_values(old):
    lines = pavlov.Watch(old).text().splitlines()
    assert lines[0] == f'{old}  bee/3' and lines[1].startswith('01:26:26 in, last row ')
    shown = {line.split()[0]: line.split()[1] for line in lines[3:]}
    kinds = stats.channels(old)
    assert set(shown) == {c for c, k in kinds.items() if k != 'silent'}
    assert shown['count.traj'] == f'{stats.array(old, "count.traj")["total"].sum() / 1000:.4g}k'
    # a rate is that of the last whole bin: from 60 to 65 s the run was ending
    rows = stats.array(old, 'sample-rate.actor')
    start = np.datetime64(runs.created(old).tz_localize(None))
    t = (rows['_time'] - start) / np.timedelta64(1, 's')
    rate = rows['count'][(t >= 55) & (t < 60)].sum() / 5
    assert shown['sample-rate.actor'] == f'{rate / 1000:.4g}k/s'


def test_numbers():
    assert live._number(1234567., 'cumsum') == '1.235M'
    assert live._number(.1234567, 'mean') == '0.1235'
    assert live._number(.1234567, 'mean_percent') == '12.3 %'
    assert live._number(-4e12, 'rate') == '-4T/s'
    assert live._number(float('nan'), 'mean') == 'nan'
    series = pd.Series([0, 7, np.nan, 3.5])
    assert live._sparkline(series) == '▁█ ▅' and live._sparkline(series * 0 + 1) == '▁▁ ▁'


def test_the_figure_has_a_panel_a_pattern(old):
    axes = pavlov.Watch(old).figure().axes
    assert [ax.get_title('left') for ax in axes] == [
        'loss', 'elo-mohex', 'sample-rate', 'corr', 'kl-div', 'rel-entropy']
    assert [len(ax.get_lines()) for ax in axes] == [2, 1, 2, 3, 2, 2]
    value = stats.pandas(old, 'loss.value', '5s').dropna()
    drawn = axes[0].get_lines()[1]
    assert drawn.get_label() == 'value'
    np.testing.assert_array_equal(drawn.get_ydata(), value)
    np.testing.assert_array_equal(drawn.get_xdata(), value.index.total_seconds() / 60)
    assert len(pavlov.Watch(old, curves=['p.*.max']).figure().axes) == 1
    assert pavlov.Watch(old, curves=['nothing']).figure() is None


def test_it_leaves_a_static_page(old):
    bundle = pavlov.watch(old, live=False)._repr_mimebundle_()
    assert set(bundle) == {'text/plain', 'text/html'}
    page = bundle['text/html']
    assert 'loss.value' in page and re.search(r'<img alt="Curves of run [^"]+"', page)
    picture = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', page)[1]
    assert b'</svg>' in base64.b64decode(picture)
    assert 'http' not in page.replace(picture, '')  # nothing is fetched
    assert bundle['text/plain'].splitlines()[0] == f'{old}  bee/3'


def test_a_run_without_statistics_and_with_a_hostile_description():
    run = runs.new_run('<script>alert(1)</script>')
    view = pavlov.Watch(run)
    assert view.text().endswith('no statistics yet') and view.figure() is None
    assert '<script>' not in view.html()
    with stats.to_run(run):
        stats.silent('x', 1)
    assert view.text().endswith('no statistics yet')


def test_it_goes_on_where_a_channel_is_damaged(old, output):
    (output / 'pavlov' / old / 'stats.loss.value.0.npr').write_bytes(b'x' * 500)
    (output / 'pavlov' / old / 'stats.loss.policy.0.npr').unlink()
    text = pavlov.Watch(old).text()
    assert 'loss.' not in text and 'corr.terminal' in text


def test_printing(old, capsys, monkeypatch):
    view = pavlov.watch(old)
    out = capsys.readouterr().out
    assert out.count('loss.value') == 1 and '\x1b' not in out  # into a pipe: once
    assert repr(view) == f'Watch({old!r})'
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    monkeypatch.setattr(view, 'text', lambda: 'table')
    view.every = 0
    view.print(updates=2)
    assert capsys.readouterr().out == '\x1b[H\x1b[2Jtable\n' * 2
    monkeypatch.setattr(live, 'IDLE', 0)
    view.print()  # ends by itself when nothing is written any more
    assert capsys.readouterr().out.count('table') == 1

    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(view, 'text', interrupted)
    view.print()


def test_the_widget_refreshes_until_stopped():
    pytest.importorskip('ipywidgets')
    run = runs.new_run()
    with stats.to_run(run) as writer:
        stats.mean('loss.value', 1.25)
        writer.flush()
        view = pavlov.Watch(run, every=.05)
        page, button = view._widget(view.html()).children
        assert '1.25' in page.value
        stats.mean('loss.value', 7.75)  # the mean of both is 4.5
        writer.flush()
        for _ in range(400):
            if '4.5' in page.value:
                break
            time.sleep(.05)
        assert '4.5' in page.value
        button.click()
        view._thread.join(20)
        assert not view._thread.is_alive() and button.description == 'Not refreshing'


def test_a_view_refreshes_in_one_place_and_ends_with_its_run(output):
    pytest.importorskip('ipywidgets')
    view = pavlov.Watch(runs.new_run(), every=.05)
    first = view._widget('') and view._thread
    second = view._widget('') and view._thread
    first.join(20)
    assert not first.is_alive() and second.is_alive()
    shutil.rmtree(output / 'pavlov')
    second.join(20)
    assert not second.is_alive()


def test_in_a_notebook_the_widget_comes_with_the_picture(monkeypatch):
    pytest.importorskip('ipywidgets')
    for name in ('in_kernel', 'attended'):
        monkeypatch.setattr(notebook, name, lambda: True)
    with stats.to_run(runs.new_run()):
        stats.mean('loss.value', 1)
    view = pavlov.watch()
    bundle = view._repr_mimebundle_()
    view.stop(), view._thread.join(20)
    assert set(bundle) >= {'application/vnd.jupyter.widget-view+json', 'text/plain', 'text/html'}
    assert 'loss.value' in bundle['text/plain'] and '<img' in bundle['text/html']
    assert set(pavlov.watch(live=False)._repr_mimebundle_()) == {'text/plain', 'text/html'}
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)  # not installed
    bundle = pavlov.watch()._repr_mimebundle_()
    assert set(bundle) == {'text/plain', 'text/html'}
    assert 'pip install ipywidgets' in bundle['text/html']


def test_logs_one_a_process_and_only_ours(output):
    run = runs.new_run()
    ours, others = logging.getLogger('boardlaw.training'), logging.getLogger('b2sdk')
    before = logging.getLogger('boardlaw').level
    with logs.to_run(run) as path:
        ours.info('step %d', 3), ours.debug('detail'), others.error('key=secret')
    with pytest.raises(KeyError), logs.to_run(run):
        raise KeyError('x')
    ours.error('after')
    assert path == output / 'pavlov' / run / 'logs.0.txt'
    assert re.fullmatch(r'\d\d:\d\d:\d\d INFO boardlaw.training: step 3\n', path.read_text())
    second = (output / 'pavlov' / run / 'logs.1.txt').read_text()
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR boardlaw: Stopped by KeyError: 'x'\n", second)
    assert runs.info(run)['_files']['logs.1.txt']['_pattern'] == 'logs.{n}.txt'
    assert logging.getLogger('boardlaw').level == before
    assert not logging.getLogger('boardlaw').handlers
