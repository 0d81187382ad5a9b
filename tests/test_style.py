import re
from io import StringIO
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from boardlaw import style

# Full colour deficiencies in linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.
VISION = {
    'normal': np.eye(3),
    'protan': [[.152286, 1.052583, -.204868], [.114503, .786281, .099216],
               [-.003882, -.048116, 1.051998]],
    'deutan': [[.367322, .860646, -.227968], [.280085, .672501, .047413],
               [-.011820, .042940, .968881]],
    'tritan': [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602],
               [.004733, .691367, .303900]],
}
TO_XYZ = np.array([[.4124564, .3575761, .1804375], [.2126729, .7151522, .0721750],
                   [.0193339, .1191920, .9503041]])


def linear(color):
    return np.array([x/12.92 if x <= .04045 else ((x + .055)/1.055)**2.4
                     for x in (int(color[i:i+2], 16)/255 for i in (1, 3, 5))])


def cielab(rgb):
    xyz = TO_XYZ @ rgb/(TO_XYZ @ np.ones(3))
    f = np.where(xyz > (6/29)**3, np.cbrt(xyz), xyz/(3*(6/29)**2) + 4/29)
    return np.array([116*f[1] - 16, 500*(f[0] - f[1]), 200*(f[1] - f[2])])


@pytest.mark.parametrize('vision', VISION)
def test_board_sizes_can_be_told_apart_in_every_colour_vision(vision):
    labs = [cielab(np.clip(VISION[vision] @ linear(style.boardsize_color(s)), 0, 1))
            for s in range(3, 14)]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(labs) for b in labs[:i]]
    assert min(apart) > 10


def test_board_sizes_of_the_paper_run_from_dark_to_light():
    lightness = [cielab(linear(style.boardsize_color(s)))[0] for s in range(3, 10)]
    assert (np.diff(lightness) > 0).all()


def test_contrast_is_that_of_wcag():
    assert style.contrast('#000000') == pytest.approx(21)
    assert style.contrast('#777777') == pytest.approx(4.48, abs=.005)    # the standard's example
    assert style.contrast('#767676') > 4.5
    for s in range(3, 14):
        color = style.boardsize_color(s)
        assert style.contrast(color) >= 3
        assert 4.5 <= style.contrast(style.text_color(color)) <= max(4.9, style.contrast(color))
    for color in (style.INK, style.MUTED):
        assert style.contrast(color) >= 4.5


@pytest.mark.parametrize('boardsize', [2, 14, 9., '9', None])
def test_other_board_sizes_have_no_colour(boardsize):
    with pytest.raises(ValueError, match='from 3 to 13'):
        style.boardsize_color(boardsize)


def test_a_numpy_board_size_has_its_colour():
    assert style.boardsize_color(np.int64(9)) == style.boardsize_color(9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(.1, 30))
def test_spread_leaves_gaps_and_keeps_order(values, gap):
    moved = style.spread(values, gap)
    order = np.argsort(values, kind='stable')
    assert (np.diff(moved[order]) >= gap - 1e-6).all()
    assert np.mean(moved) == pytest.approx(np.mean(values), abs=1e-6)


def test_spread_moves_as_little_as_can_be():
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = np.sort(rng.uniform(0, 30, 5))
        best = minimize(lambda x, to: ((x - to)**2).sum(), np.arange(5)*10., values, 'SLSQP',
                        constraints={'type': 'ineq', 'fun': lambda x: np.diff(x) - 8})
        np.testing.assert_allclose(style.spread(values, 8), best.x, atol=1e-3)
    assert len(style.spread([], 8)) == 0


def example(alt='A line rises.'):
    fig, ax = style.subplots()
    ax.plot([1, 10], [1, 2], 'o-')
    return style.describe(fig, alt) if alt else fig


def test_svg_is_the_same_each_time_and_well_formed():
    text = style.svg(example())
    assert text == style.svg(example())
    root = ElementTree.fromstring(text)
    assert root.attrib['role'] == 'img' and root.attrib['aria-label'] == 'A line rises.'
    assert 'metadata' not in text and '<!--' not in text
    assert '<style' not in text         # it would hold for the whole page


def test_svg_has_ids_of_its_own_and_every_reference_meets_one():
    def ids(text):
        return set(re.findall(r'\bid="([^"]+)"', text))

    fig, ax = style.subplots()
    ax.plot([1, 10], [1, 3], 'o-')
    one, other = style.svg(example()), style.svg(fig)
    assert ids(one) and not ids(one) & ids(other)
    for text in (one, other):
        used = re.findall(r'(?:url\(#|xlink:href="#)([^")]+)', text)
        assert used and set(used) <= ids(text)


def test_svg_draws_what_matplotlib_drew():
    """Shortened coordinates stay within a hundredth of a point of matplotlib's."""
    fig, ax = style.subplots()
    ax.plot(np.linspace(0, 1, 50), np.random.default_rng(0).random(50))
    fig.savefig(out := StringIO(), format='svg')

    def numbers(text):
        paths = re.findall(r' d="([^"]+)"', text)
        return np.array([float(x) for x in re.findall(r'-?\d+\.?\d*', ' '.join(paths))])

    ours, theirs = numbers(style.svg(fig)), numbers(out.getvalue())
    np.testing.assert_allclose(ours, theirs, atol=.0051)


def test_alt_text_is_escaped_and_required():
    picture = style.show(example('Wins "more" & <often> \\1'))
    root = ElementTree.fromstring(re.search(r'<svg.*</svg>', picture.html, re.S)[0])
    assert root.attrib['aria-label'] == 'Wins "more" & <often> \\1'
    assert picture._repr_mimebundle_()['text/plain'] == 'Wins "more" & <often> \\1'
    with pytest.raises(ValueError, match='alt'):
        style.show(example(alt=None))
    with pytest.raises(ValueError, match='alt'):
        style.describe(example(), '  ')
    assert 'aria-hidden="true"' in style.svg(example(alt=None))


def test_a_source_stands_under_the_picture():
    assert style.SOURCES['replica'] in style.show(example(), source='replica').html
    assert 'From a &lt;file&gt;.' in style.show(example(), source='From a <file>.').html
    assert 'Data' not in style.show(example()).html


def test_a_notebook_shows_one_vector_picture(monkeypatch):
    formatters = pytest.importorskip('IPython.core.formatters')
    formatter, shown = formatters.DisplayFormatter(), []
    monkeypatch.setattr('IPython.display.display', shown.append)
    # Pyplot's inline backend registers pixels for every figure.
    formatter.formatters['image/png'].for_type(matplotlib.figure.Figure, lambda fig: b'pixels')
    assert formatter.format(example()) == ({}, {})
    (picture,) = shown
    bundle, _ = formatter.format(picture)
    assert set(bundle) == {'text/html', 'text/plain'}
    assert '<svg' in bundle['text/html'] and bundle['text/plain'] == 'A line rises.'


def test_pyplot_figures_are_shown_once():
    from matplotlib import pyplot as plt
    matplotlib.use('agg')
    fig = plt.figure()
    assert '<svg' in style.show(fig, alt='An empty figure.').html
    assert not plt.fignum_exists(fig.number)


def test_the_style_stays_its_own_until_asked():
    before = dict(matplotlib.rcParams)
    fig, ax = style.subplots()
    style.svg(style.describe(fig, 'Nothing.'))
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context():
        style.use()
        assert matplotlib.rcParams['axes.edgecolor'] == style.MUTED
    assert dict(matplotlib.rcParams) == before


def boxes(ax, texts):
    ax.figure.draw_without_rendering()
    return [t.get_window_extent() for t in ax.texts if t.get_text() in texts]


def test_names_at_the_ends_of_lines_do_not_overlap():
    fig, ax = style.subplots()
    ends = [1., 1.01, 1.02, 3., 0.]
    for end in ends:
        ax.plot([0, 1], [0, end])
    names = [f'line {i}' for i in range(5)]
    style.label_lines(ax, [(1, end, name, '#000000') for end, name in zip(ends, names)])
    found = boxes(ax, names)
    assert len(found) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    heights = [b.y0 for b in found]
    assert np.array_equal(np.argsort(heights), np.argsort(ends))


def test_names_of_points_keep_clear_of_lines_and_of_each_other():
    fig, ax = style.subplots()
    ax.plot([0, 1, 2], [0, 1, 0])
    ax.plot([1, 1], [1, 0])
    points = [(1, 1, 'top', '#000000'), (1, 1, 'other', '#000000'), (0, 0, 'left', '#000000')]
    style.label_clear(ax, points)
    found = boxes(ax, {'top', 'other', 'left'})
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    for line in ax.lines:
        along = style._dense(ax.transData.transform(line.get_xydata()), 1.)
        for box in found:
            inside = ((along > box.min) & (along < box.max)).all(1)
            assert not inside.any()


def test_a_legend_has_words_in_their_colours_and_no_marks():
    fig, ax = style.subplots()
    for size in (3, 9):
        ax.plot([0, 1], [0, size], 'o', color=style.boardsize_color(size), label=f'{size}')
    made = style.legend(ax, 'lower right')
    words = {t.get_text(): t.get_color() for t in made.get_texts()}
    assert words == {f'{s}': style.text_color(style.boardsize_color(s)) for s in (3, 9)}
    assert not any(handle.get_visible() for handle in made.legend_handles)


def test_log_axis_and_board_axis_read_as_they_should():
    fig, ax = style.subplots()
    ax.plot([4, 9], [.001, .04])
    ax.set_yscale('log')
    style.log_axis(ax.yaxis, subs=(1, 2, 5), percent=True)
    style.boardsize_axis(ax.xaxis, [9, 4])
    fig.draw_without_rendering()
    assert [t.get_text() for t in ax.get_xticklabels()] == ['4×4', '9×9']
    assert {'0.1%', '0.5%', '2%'} <= {t.get_text() for t in ax.get_yticklabels()}


def test_shades_go_from_light_to_dark_with_rank():
    shades = style.shades({'weak': 1, 'mid': 2, 'strong': 9})
    lightness = {k: cielab(linear(v))[0] for k, v in shades.items()}
    assert lightness['weak'] > lightness['mid'] > lightness['strong']
    assert all(style.contrast(c) >= 3 for c in shades.values())
    assert set(style.shades({'only': 5})) == {'only'}


def test_listed():
    assert [style.listed('abc'[:n]) for n in range(4)] == ['', 'a', 'a and b', 'a, b and c']
    assert style.listed(range(2)) == '0 and 1'
