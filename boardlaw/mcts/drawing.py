"""A picture of one game's search tree, from left to right, its likeliest line along the top.

Nodes are boards (of Hex) and discs, their areas in proportion to their visits (but for the smallest
discs); so are the widths of the lines that lead to them. The colour is q, the mean return, *to the
player who made that move*: green where it does well for its maker, purple where it does badly.
"""
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib import colors, patches
from matplotlib.path import Path

from .. import style
from ..hex import Hex
from ..hex import drawing as boards
from ..hex.worlds import PLAYERS

# Inches:
BOARD, LEAST_BOARD = 1.25, .42   # width of the root's board; narrower ones are drawn as discs
DISC, LEAST_DISC = 1., .09       # the same of discs
LINE = .2                        # width of a line that carries every visit
GAP, INDENT = .08, .45           # between siblings; between columns
LETTER = .076                    # width of a letter of a name

_RAMP = colors.LinearSegmentedColormap.from_list('q', [boards.NEGATIVE, '#c9c9c4', boards.POSITIVE])


@dataclass
class _Node:
    """A node to be drawn; sizes and places are in inches."""
    name: str
    visits: int
    q: float              # to the player who moved here
    terminal: bool
    world: object
    last: tuple | None
    children: list = field(default_factory=list)
    width: float = 0.
    height: float = 0.
    is_board: bool = False
    x: float = 0.
    y: float = 0.


def plot(search, game=0, world=None, max_depth=3, min_visits=2):
    """Draws the tree of one game.

    Args:
        search: a :class:`boardlaw.mcts.Search` made with ``keep_tree=True``.
        game: which of its games.
        world: the world that was searched; if it is Hex, nodes are drawn as boards and moves get
            the names of cells. Otherwise nodes are discs and moves are numbers, as #3.
        max_depth: how many moves deep to draw.
        min_visits: how many visits a node must have to be drawn; the lines of those that are left
            out are missing from what leaves their parent.

    Returns:
        A :class:`boardlaw.style.Figure` with its alternative text.

    Raises:
        ValueError: the search kept no trees, or no such game.
    """
    if search.tree is None:
        raise ValueError('this search kept no trees: ask for them with keep_tree=True')
    if not 0 <= game < len(search.tree.nodes):
        raise ValueError(f'game {game} of a search of {len(search.tree.nodes)}')
    tree = search.tree.nodes[game, :search.tree.size[game]]
    root = _collect(tree, world[game] if isinstance(world, Hex) else None, max_depth, min_visits)
    columns = _columns(root)
    up, down = _place(root)
    return style.describe(_draw(root, columns, up, down, tree['seat'][0]), _words(root, tree))


def _collect(tree, world, max_depth, min_visits):
    """The nodes to draw, as a tree of :class:`_Node`, the most visited children first."""
    nodes = {0: _Node('', int(tree['n'][0]), 0., False, world, None)}
    depths = {0: 0}
    for i in range(1, len(tree)):
        move, parent = tree[i], int(tree['parent'][i])
        if parent not in nodes or depths[parent] == max_depth or move['n'] < min_visits:
            continue
        seat = int(tree['seat'][parent])
        action, above = int(move['action']), nodes[parent].world
        name, last, here = f'#{action}', None, None
        if above is not None:
            here, _ = above.step(torch.tensor([action]), reset=False)
            last = boards.board_cell(action, seat, here.boardsize)
            name = boards.cell_name(*last)
        q = float(move['q'])*(1 - 2*seat)
        nodes[i] = _Node(name, int(move['n']), q, bool(move['terminal']), here, last)
        nodes[parent].children.append(nodes[i])
        depths[i] = depths[parent] + 1
    for node in nodes.values():
        node.children.sort(key=lambda child: -child.visits)
        size = (node.visits/nodes[0].visits)**.5
        node.is_board = node.world is not None and BOARD*size >= LEAST_BOARD
        if node.is_board:
            (left, top), (right, bottom) = boards._extent(node.world.boardsize)
            node.width = BOARD*size
            node.height = node.width*(bottom - top)/(right - left)
        else:
            node.width = node.height = max(LEAST_DISC, DISC*size)
    return nodes[0]


def _columns(root):
    """Gives every node its x; returns each column's left edge and width."""
    columns, level, x = [], [root], 0.
    while level:
        width = max(node.width + (0 if node.is_board else _label_width(node)) for node in level)
        columns.append((x, width))
        for node in level:
            node.x = x + node.width/2
        level = [child for node in level for child in node.children]
        x += width + INDENT
    return columns


def _label(node):
    if node.name:
        return f'{node.name}  {node.visits}'
    return f'{node.visits} visit' + 's'*(node.visits != 1)


def _label_width(node):
    return .05 + LETTER*len(_label(node))


def _place(node):
    """Places a subtree, the node at y = 0; returns how far it reaches above and below that.

    The first child lies level with its parent, so that the likeliest line is straight.
    """
    label = .15 if node.is_board else 0
    up, down = node.height/2, node.height/2 + label
    y = 0.
    for i, child in enumerate(node.children):
        above, below = _place(child)
        y = 0. if i == 0 else y + above + GAP
        _shift(child, -y)
        up, down = max(up, above - y), max(down, y + below)
        y += below
    return up, down


def _shift(node, y):
    node.y += y
    for child in node.children:
        _shift(child, y)


def _walk(node):
    yield node
    for child in node.children:
        yield from _walk(child)


def color(q):
    """'#rrggbb' of a mean return `q` from -1, purple, over 0, grey, to 1, green."""
    return colors.to_hex(_RAMP((1 + q)/2))


@style.drawn
def _draw(root, columns, up, down, seat):
    nodes = list(_walk(root))
    width = max(columns[-1][0] + columns[-1][1], columns[-1][0] + .95, 3.6) + .1
    head, foot = .34, .5
    height = head + up + down + foot
    fig, ax = style.subplots(width=width, height=height)
    fig.set_layout_engine('none')
    ax.set_position([0, 0, 1, 1])
    ax.set(xlim=(-.05, width - .05), ylim=(-down - foot, up + head))
    ax.set_axis_off()
    for node in nodes:
        _links(ax, node, root.visits)
    for node in nodes:
        if node.is_board:
            inset = ax.inset_axes([node.x - node.width/2, node.y - node.height/2, node.width,
                                   node.height], transform=ax.transData)
            boards.plot(node.world, ax=inset, coords=False, last=node.last)
        else:
            ax.add_patch(patches.Circle((node.x, node.y), node.width/2, zorder=3, ec=style.INK,
                                        lw=1.5 if node.terminal else 0,
                                        fc=style.MUTED if node is root else color(node.q)))
        _name(ax, node)
    for depth, (x, _) in enumerate(columns):
        text = 'root' if depth == 0 else (
            f'{PLAYERS[(seat + depth - 1) % 2]} moves' if root.world is not None else
            f'move {depth}')
        ax.text(x, up + head - .05, text, size=10, color=style.MUTED, va='top')
    _legend(ax, -down - foot, any(node.terminal and not node.is_board for node in nodes))
    return fig


def _links(ax, node, n):
    """Lines to the children, as wide as their shares of the visits, side by side where they leave.
    """
    x0 = node.x + (.3*node.width if node.is_board else node.width/2 + _label_width(node) + .02)
    widths = [LINE*child.visits/n for child in node.children]
    y0 = node.y + sum(widths)/2
    for child, width in zip(node.children, widths):
        y0 -= width/2
        x1 = child.x - (.3*child.width if child.is_board else 0)     # boards and discs hide it
        middle = (x0 + x1)/2
        path = Path([(x0, y0), (middle, y0), (middle, child.y), (x1, child.y)],
                    [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        ax.add_patch(patches.PathPatch(path, fc='none', ec=color(child.q), capstyle='butt',
                                       zorder=1, lw=max(.7, 72*width)))
        y0 -= width/2


def _name(ax, node):
    if node.is_board:
        ax.text(node.x, node.y - node.height/2 - .01, _label(node), size=10, ha='center',
                va='top', zorder=4)
    else:
        ax.text(node.x + node.width/2 + .04, node.y, _label(node), size=10, ha='left',
                va='center_baseline', zorder=4)


def _legend(ax, bottom, rings):
    """What the colours mean, and the rings if there are any."""
    x, y, length = .05, bottom + .17, 1.3
    for i, q in enumerate(np.linspace(-1, 1, 41)):
        ax.add_patch(patches.Rectangle((x + i*length/41, y - .06), length/41 + .003, .12, lw=0,
                                       fc=color(q)))
    for q, at in ((-1, 0), (0, .5), (1, 1)):
        ax.text(x + at*length, y + .08, f'{q:+d}' if q else '0', size=10, ha='center', va='bottom')
    ax.text(x + length + .1, y, 'q, for who made the move' + '; ringed: game over'*rings, size=10,
            va='center')


def _words(root, tree):
    """The picture in words: the size of the tree, and its likeliest line."""
    line, node = [], root
    while node.children:
        node = node.children[0]
        line.append(f'{node.name} ({node.visits} visits, q {node.q:+.2f})')
    shown = sum(1 for _ in _walk(root))
    first = ', '.join(f'{child.name} {child.visits}' for child in root.children[:5])
    return (f'A search tree of {len(tree)} nodes and {root.visits} visits, of which {shown} nodes '
            f'are drawn. Visits of the first moves: {first}. Likeliest line: {", ".join(line)}.')
