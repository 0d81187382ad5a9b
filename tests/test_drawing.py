"""Drawings: valid, complete, described in words, and the same in SVG and in matplotlib."""
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from boardlaw import rng
from boardlaw.hex import BadBoard, Hex, drawing

matplotlib.use('agg')
SVG = '{http://www.w3.org/2000/svg}'
WON = 'b.w\nbw.\nb..'


def parse(text):
    root = ElementTree.fromstring(text)
    assert root.tag == SVG + 'svg' and root.get('role') == 'img'
    return root


def circles(root, name):
    return [(float(x.get('cx')), float(x.get('cy')))
            for group in root.iter(SVG + 'g') if group.get('class') == name
            for x in group.iter(SVG + 'circle')]


def words(root, name):
    """The texts of a kind by their position."""
    return {(float(x.get('x')), float(x.get('y'))): x.text
            for group in root.iter(SVG + 'g') if group.get('class') == name for x in group}


def hexagons(root):
    """The fill of each cell's hexagon by its centre."""
    fills = {}
    for path in root.iter(SVG + 'path'):
        if path.get('class') == 'cells':
            for outline in path.get('d').rstrip('z').split('z'):
                corners = np.array(re.findall(r'[-\d.]+', outline), float).reshape(-1, 2)
                assert corners.shape == (6, 2)
                fills[tuple(corners.mean(0).round(2) + 0.)] = path.get('fill')
    return fills


def centre(r, c):
    return round(c + r/2, 2), round(r*np.sqrt(3)/2, 2)


@pytest.fixture(scope='module')
def world():
    return Hex.initial(12, 5).random_steps(11, rng.keys(1, 12, 0))[0]


@pytest.mark.parametrize('boardsize', [1, 2, 3, 9, 13, 19])
def test_every_cell_and_stone_is_drawn_where_it_belongs(boardsize):
    world = Hex.initial(1, boardsize).random_steps(boardsize**2//2, rng.keys(2, 1, 0))[0]
    root = parse(drawing.svg(world))
    board = world.board[0].numpy()
    assert set(hexagons(root)) == {centre(r, c) for r, c in np.ndindex(board.shape)}
    for name, labels in (('stone black', (1, 3, 4)), ('stone white', (2, 5, 6))):
        drawn = {tuple(np.round(x, 2)) for x in circles(root, name)}
        assert drawn == {centre(r, c) for r, c in np.argwhere(np.isin(board, labels)).tolist()}
    assert not circles(root, 'last')
    box = np.array(root.get('viewBox').split(), float)
    numbers = [np.array(re.findall(r'[-\d.]+', path.get('d')), float).reshape(-1, 2)
               for path in root.iter(SVG + 'path')]
    assert (np.concatenate(numbers) >= box[:2]).all()
    assert (np.concatenate(numbers) <= box[:2] + box[2:]).all()
    assert float(root.get('width'))/float(root.get('height')) == pytest.approx(
        box[2]/box[3], rel=.02)


def test_neighbours_touch_and_only_they():
    """The picture tells the rules: cells of the six neighbours share a side, one unit apart."""
    cells = [(r, c) for r in range(4) for c in range(4)]
    near = {(-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0)}
    for r, c in cells:
        for s, d in cells:
            distance = np.hypot(*np.subtract(centre(r, c), centre(s, d)))
            assert (abs(distance - 1) < .02) == ((s - r, d - c) in near)


@pytest.mark.parametrize('boardsize', [1, 4])
def test_edges_lie_on_their_owners_sides(boardsize):
    root = parse(drawing.svg(Hex.initial(1, boardsize)))
    end, where = boardsize - 1, {}
    for path in root.iter(SVG + 'path'):
        if path.get('class').startswith('edge'):
            for outline in path.get('d').rstrip('z').split('z'):
                x, y = np.array(re.findall(r'[-\d.]+', outline), float).reshape(-1, 2).mean(0)
                row = y*2/np.sqrt(3)
                where.setdefault(path.get('class'), []).append((row, x - row/2))
    (top, bottom), (left, right) = where['edge black'], where['edge white']
    assert top[0] < -.4 and bottom[0] > end + .4 and left[1] < -.4 and right[1] > end + .4
    for along in (top[1], bottom[1], left[0], right[0]):
        assert abs(along - end/2) < .5


def test_words_of_the_position():
    world = Hex.parse('b.\n.w')
    root = parse(drawing.svg(world, last=(1, 1)))
    assert root.find(SVG + 'title').text == 'Hex board, 2x2: Black to move.'
    assert root.find(SVG + 'desc').text == (
        'Black (top to bottom): a1. White (left to right): b2. Last move: b2.')
    assert drawing.describe(world, last=(1, 1)) == (
        f'{root.find(SVG + "title").text} {root.find(SVG + "desc").text}')
    assert 'White to move' in drawing.describe(Hex.parse('b.\n..'))
    assert 'no stones' in drawing.describe(Hex.parse('..\n..'))
    assert drawing.describe(world.board[0]).startswith('Hex board, 2x2. Black')   # seat unknown


@pytest.mark.parametrize('text, cells, result', [
    (WON, [(0, 0), (1, 0), (2, 0)], 'Black has won'),
    ('bb.\nwww\nb..', [(1, 0), (1, 1), (1, 2)], 'White has won'),
    ('.wb\nwb.\nb..', [(0, 2), (1, 1), (2, 0)], 'Black has won'),
    ('b.w\n.bw\n..b', [], 'White to move')])
def test_the_winning_chain_is_drawn_and_said(text, cells, result):
    world = Hex.parse(text, seat=1)
    root = parse(drawing.svg(world))
    paths = [x for x in root.iter(SVG + 'path') if x.get('class') == 'path']
    assert len(paths) == bool(cells)
    if cells:
        points = np.array(re.findall(r'[-\d.]+', paths[0].get('d')), float).reshape(-1, 2)
        assert [tuple(x) for x in points.round(2)] == [centre(*cell) for cell in cells]
    assert result in root.find(SVG + 'title').text


def test_winner_in_words_agrees_with_the_rules():
    world = Hex.initial(60, 4)
    for t in range(16):
        for i in range(0, 60, 7):
            said = 'has won' in drawing.describe(world, i)
            assert said == (world.winner[i] >= 0)
        world, _ = world.step(world.random_actions(rng.keys(0, 60, t)), reset=False)
    assert (world.winner >= 0).all()


def test_last_move():
    board = Hex.parse('b.\n.w').board[0]
    assert circles(parse(drawing.svg(board, last=(1, 1))), 'last') == [(1.5, .866)]
    for last in ((0, 1), (2, 0), (-1, -1), 3, 'a1', (0, 0, 0)):
        with pytest.raises(BadBoard, match='last'):
            drawing.svg(board, last=last)


def test_heat():
    plain = set(hexagons(parse(drawing.svg(Hex.initial(1, 3)))).values())
    assert plain == {drawing.CELL}
    fills = hexagons(parse(drawing.svg(Hex.initial(1, 3), heat=np.zeros((3, 3)))))
    assert set(fills.values()) == plain
    heat = [[0, .5, 1], [np.nan, -np.inf, -1], [-.5, 0, 0]]
    fills = hexagons(parse(drawing.svg(Hex.initial(1, 3), heat=torch.tensor(heat))))
    assert fills[centre(0, 2)] == drawing.POSITIVE and fills[centre(1, 2)] == drawing.NEGATIVE
    assert {cell for cell, fill in fills.items() if fill == drawing.CELL} == {
        centre(*cell) for cell in ((0, 0), (1, 0), (1, 1), (2, 1), (2, 2))}
    assert len({fills[centre(*cell)] for cell in ((0, 1), (0, 2), (1, 2), (2, 0))}) == 4


def test_labels_are_text_where_they_are_put():
    labels = [['<1', '', None], ['b', '22', ''], ['', '', '&']]
    root = parse(drawing.svg(Hex.parse('b..\n...\n..w'), labels=labels))
    drawn = {tuple(np.round(x, 2)): text for x, text in words(root, 'label').items()}
    assert drawn == {centre(0, 0): '<1', centre(1, 0): 'b', centre(1, 1): '22', centre(2, 2): '&'}
    ink = {x.text: group.get('fill') for group in root.iter(SVG + 'g')
           if group.get('class') == 'label' for x in group}
    assert ink['<1'] != ink['&'] == ink['b']    # light on a black stone, dark elsewhere


@pytest.mark.parametrize('option', ['heat', 'labels'])
@pytest.mark.parametrize('values', [np.zeros(9), np.zeros((2, 2)), 0])
def test_values_of_the_wrong_shape(option, values):
    with pytest.raises(BadBoard, match=rf'{option} must have shape \[3, 3\]'):
        drawing.svg(Hex.initial(1, 3), **{option: values})


@pytest.mark.parametrize('board', [np.zeros((2, 3)), np.zeros(4), np.zeros((0, 0)),
                                   np.full((2, 2), 7), np.full((2, 2), .5)])
def test_what_is_no_board(board):
    with pytest.raises(BadBoard):
        drawing.svg(board)
    with pytest.raises(BadBoard):
        drawing.plot(board)


def test_coordinates():
    root = parse(drawing.svg(Hex.initial(1, 4)))
    assert list(words(root, 'columns').values()) == ['a', 'b', 'c', 'd']
    assert list(words(root, 'rows').values()) == ['1', '2', '3', '4']
    assert not list(parse(drawing.svg(Hex.initial(1, 4), coords=False)).iter(SVG + 'text'))


def test_svg_is_deterministic_and_self_contained(world):
    one = drawing.svg(world, 3, last=None)
    assert one == drawing.svg(world[3]) == drawing.svg(world.clone(), 3)
    assert drawing.svg(world.board, 3) == drawing.svg(world.board[3].numpy())
    assert one.count('http') == 1 and 'href' not in one and ' id=' not in one   # its namespace
    assert 'width="100"' in drawing.svg(world, size=100)
    with pytest.raises(IndexError):
        drawing.svg(world, 12)


def test_gallery(world):
    for some, shown in ((world, 8), (world[:3], 3), (world[:0], 0), (world[:1], 1)):
        html = some._repr_html_()
        assert html.count('<svg') == html.count('</svg>') == shown
        ElementTree.fromstring(html)
    assert '12 games of 5x5 Hex; 4 not shown' in drawing.gallery(world)
    assert drawing.gallery(world, limit=2).count('<svg') == 2
    assert 'not shown' not in drawing.gallery(world, limit=12)
    assert 'Black has won' in Hex.parse(WON)._repr_html_()


def test_plot_is_the_same_picture(world, tmp_path):
    options = dict(last=tuple(np.argwhere(world.board[0].numpy())[0]), heat=np.eye(5),
                   labels=[['x']*5]*5)
    ax = drawing.plot(world, 0, **options)
    root = parse(drawing.svg(world, 0, **options))
    kinds = {}
    for collection in ax.collections:
        kinds.setdefault(collection.get_label()[1:], []).extend(collection.get_paths())
    assert len(kinds['cells']) == 25 and len(kinds['last']) == 1
    for name in ('stone black', 'stone white'):
        boxes = [path.get_extents() for path in kinds[name]]
        drawn = sorted(((box.x0 + box.x1)/2, (box.y0 + box.y1)/2) for box in boxes)
        np.testing.assert_allclose(drawn, sorted(circles(root, name)), atol=.002)
    assert len(ax.patches) == len(list(root.iter(SVG + 'text')))
    for kind in ('png', 'svg', 'pdf'):
        ax.figure.savefig(tmp_path/f'board.{kind}')
        assert (tmp_path/f'board.{kind}').stat().st_size > 1000
    plt.close(ax.figure)


def test_plot_on_axes_of_ones_own():
    """Lines keep their width in cells whatever the size of the axes."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 2), dpi=400, width_ratios=[1, 5])
    pixels = []
    for ax in axes:
        assert drawing.plot(Hex.parse(WON), ax=ax) is ax
    fig.canvas.draw()
    image = np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)
    rim = np.array([int(drawing.RIM[0][k:k + 2], 16) for k in (1, 3, 5)])
    for ax in axes:
        box = ax.get_window_extent()
        part = image[:, int(box.x0):int(box.x1)]
        pixels.append((abs(part - rim).sum(-1) < 30).sum()/box.width**2)
    assert pixels[0] == pytest.approx(pixels[1], rel=.1)
    plt.close(fig)


def test_frames():
    world, _ = Hex.initial(1, 3).step([1])
    policy = world.valid[0].float()/8             # of White, in its own frame
    board = drawing.to_board_frame(policy, world.seats[0])
    assert np.argwhere(board == 0).tolist() == [[0, 1]]
    assert drawing.board_cell(2, 1, 3) == (2, 0) and drawing.board_cell(2, 0, 3) == (0, 2)
    after, _ = world.step([2])
    assert after.board[0][drawing.board_cell(2, world.seats[0], 3)] == 5
    both = drawing.to_board_frame(np.arange(18).reshape(2, 9), [0, 1])
    np.testing.assert_array_equal(both[0], np.arange(9).reshape(3, 3))
    np.testing.assert_array_equal(both[1], np.arange(9, 18).reshape(3, 3).T)
    with pytest.raises(BadBoard, match='8 values'):
        drawing.to_board_frame(np.zeros(8), 0)
    assert [drawing.cell_name(*x) for x in ((0, 0), (2, 1), (18, 18))] == ['a1', 'b3', 's19']


def contrast(a, b):
    """The WCAG 2 contrast ratio of two colours."""
    def luminance(colour):
        parts = np.array([int(colour[k:k + 2], 16) for k in (1, 3, 5)])/255
        parts = np.where(parts <= .04045, parts/12.92, ((parts + .055)/1.055)**2.4)
        return parts @ [.2126, .7152, .0722]
    low, high = sorted((luminance(a), luminance(b)))
    return (high + .05)/(low + .05)


def test_outlines_stand_out_on_light_and_dark_pages():
    """WCAG 2.1, 1.4.11 asks 3:1 of graphics, 1.4.3 asks 4.5:1 of text."""
    for rim in drawing.RIM:
        assert contrast(rim, '#ffffff') >= 3 and contrast(rim, '#121212') >= 3
    assert contrast(*drawing.STONE) >= 4.5
    assert contrast(drawing.STONE[0], drawing.CELL) >= 4.5
    for heat in (drawing.POSITIVE, drawing.NEGATIVE):
        assert contrast(heat, drawing.STONE[1]) >= 4.5
