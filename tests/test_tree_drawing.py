"""Drawn search trees: what is on the paper is what is in the tree."""
import io
import re

import numpy as np
import pytest
import tiny_games
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, PathPatch

from boardlaw import mcts, style
from boardlaw.hex import Hex
from boardlaw.mcts import drawing
from boardlaw.networks import Network

THREAT = '''. b . b
             . w . .
              b . w w
               w b . .'''


@pytest.fixture(scope='module')
def found():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(4, 4, 1)
    world = Hex.cat([Hex.initial(1, 4).step([5])[0], Hex.parse(THREAT)])
    return world, mcts.search(world, network, 64, keep_tree=True)


def texts(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def test_every_node_is_named_with_its_visits(found):
    world, search = found
    fig = drawing.plot(search, 1, world, max_depth=1, min_visits=1)
    visits = search.visits[1].view(4, 4)
    named = [re.fullmatch(r'([a-d])([1-4])  (\d+)', text) for text in texts(fig)]
    shown = {('abcd'.index(m[1]), int(m[2]) - 1): int(m[3]) for m in named if m}
    assert shown == {(c, r): int(visits[r, c]) for r in range(4) for c in range(4) if visits[r, c]}
    assert '64 visits' in texts(fig) and 'Black moves' in texts(fig)
    best = max(shown.values())
    assert f'{best} visits, q ' in fig.alt and fig.alt.startswith('A search tree of')


def test_whites_moves_are_named_as_they_stand_on_the_board(found):
    """Actions are in the mover's frame: White's are transposed."""
    world, search = found
    fig = drawing.plot(search, 0, world, max_depth=1, min_visits=1)
    assert 'White moves' in texts(fig) and 'Black moves' not in texts(fig)
    for action, n in enumerate(search.visits[0].tolist()):
        row, column = action % 4, action//4
        assert (f'{"abcd"[column]}{row + 1}  {n}' in texts(fig)) == (n > 0)


def test_limits(found):
    world, search = found
    n_drawn = [len(drawing.plot(search, 1, world, *limits).axes[0].patches)
               for limits in [(1, 1), (2, 1), (9, 1), (9, 2), (9, 65)]]
    assert n_drawn[0] < n_drawn[1] < n_drawn[2] > n_drawn[3] > n_drawn[4]
    tree = search.tree.nodes[1, :search.tree.size[1]]
    fig = drawing.plot(search, 1, world, 99, 1)
    assert sum('  ' in text for text in texts(fig)) == len(tree) - 1
    rings = [p for p in fig.axes[0].patches if isinstance(p, Circle) and p.get_linewidth() > 0]
    small = drawing.BOARD*(tree['n']/64)**.5 < drawing.LEAST_BOARD    # boards show who has won
    assert len(rings) == (tree['terminal'] & small).sum() > 0


def test_lines_are_as_wide_as_their_visits(found):
    world, search = found
    fig = drawing.plot(search, 1, world, max_depth=1, min_visits=1)
    widths = sorted(p.get_linewidth() for p in fig.axes[0].patches if isinstance(p, PathPatch))
    visits = np.sort(search.visits[1][search.visits[1] > 0].numpy())
    np.testing.assert_allclose(widths, np.maximum(.7, 72*drawing.LINE*visits/64))


def test_any_game_and_its_colours():
    """Discs and numbers; q is shown to the one who moved, so a lost reply is purple."""
    search = mcts.search(tiny_games.start(tiny_games.TRAP), tiny_games.uniform, 64, keep_tree=True)
    fig = drawing.plot(search, max_depth=9, min_visits=1)
    discs = [p for p in fig.axes[0].patches if isinstance(p, Circle)]
    assert len(discs) == search.tree.size[0]
    assert {'move 1', 'move 2', '64 visits'} <= set(texts(fig))
    green, purple = drawing.color(1), drawing.color(-1)
    shown = {to_hex(p.get_facecolor()) for p in discs}
    assert {green, purple} <= shown and drawing.color(7) == green != drawing.color(.5)


def test_pictures_are_whole(found):
    world, search = found
    svg = style.svg(drawing.plot(search, 1, world))
    assert svg.count('<svg') == 1 and 'aria-label="A search tree' in svg and len(svg) < 400_000
    drawing.plot(search, 0, world).savefig(io.BytesIO(), format='png')
    one = mcts.search(Hex.initial(1, 3), Network(3, 2, 0), 1, keep_tree=True)
    assert '1 visit' in texts(drawing.plot(one))


def test_errors(found):
    world, search = found
    with pytest.raises(ValueError, match='keep_tree=True'):
        drawing.plot(mcts.search(Hex.initial(1, 3), Network(3, 2, 0), 1))
    with pytest.raises(ValueError, match='game 2 of a search of 2'):
        drawing.plot(search, 2, world)
