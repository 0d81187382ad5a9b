"""A Hex board to play on, against a trained agent, in any page: no server, no framework.

    from boardlaw import play
    play.page()         # the agents that come with the package, on every board they know
    play.page(agent)    # one of your own

The page holds the agents' weights and two plain scripts. search.js computes what the network and
the search of this package compute, with the same random numbers; board.js draws.

The shipped agents stand in boardlaw/data/agents, one a board size. `python -m boardlaw.play RUN`
puts the agent of a run there, in place of that board's earlier one.

Explained in the chapter book/index.ipynb.
"""
import base64
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from .. import analysis
from ..arena import common
from ..hex import Hex, drawing
from ..mcts import MCTSAgent
from ..networks import Network, count_params, from_state_dict
from ..pavlov import runs, storage
from ..sweep.shipping import EXACT

__all__ = ['Page', 'agent', 'boardsizes', 'export', 'export_run', 'page']

AGENTS = Path(__file__).parents[1]/'data'/'agents'

#: How numpy knows the kinds of weights that a page may hold.
DTYPES = {'float32': '<f4', 'float16': '<f2'}

#: Search nodes that the page offers.
STRENGTHS = (1, 4, 16, 64, 256)


def boardsizes() -> list:
    """The board sizes for which an agent comes with the package."""
    return sorted(int(re.match(r'\d+', path.name)[0]) for path in AGENTS.glob('*x*.json'))


def agent(boardsize=None, n_nodes=None, **settings) -> MCTSAgent:
    """The agent that comes with the package for a board size, by default for the largest.

    Args:
        boardsize: one of :func:`boardsizes`.
        n_nodes: of its search, by default what it was trained with.
        settings: what else :class:`~boardlaw.mcts.MCTSAgent` takes.

    Raises:
        ValueError: there is none for this board size.
    """
    known = boardsizes()
    boardsize = known[-1] if boardsize is None else boardsize
    if boardsize not in known:
        raise ValueError(f'no agent for {boardsize}x{boardsize} comes with the package: there are '
                         f'agents for {", ".join(f"{s}x{s}" for s in known)}')
    data = _shipped(boardsize)
    made = {'n_nodes': data['n_nodes'] if n_nodes is None else n_nodes, 'c_puct': data['c_puct'],
            'rule': data['rule'], 'unvisited': data['unvisited'], **settings}
    return MCTSAgent(_network(data), **made)


def export(agent, **about) -> dict:
    """An agent as plain values, which JSON can hold and the page understands.

    Args:
        agent: a :class:`~boardlaw.mcts.MCTSAgent`, or a :class:`~boardlaw.networks.Network`, which
            is given the default search. Noise is left out: it is for training.
        about: what else is to be kept with it, such as `run` and `samples`.

    Returns:
        A dict of boardsize, width, depth, params (their number), n_nodes, c_puct, rule, unvisited,
        what `about` says, and weights: little-endian, in base64, each matrix `[outputs, inputs]` by
        rows: first layer and its bias; weight, bias and α of each residual layer; weight and bias
        of the policy, then of the value. Their dtype is float32, and float16 from
        :data:`boardlaw.sweep.shipping.EXACT` parameters up, which halves the page.
    """
    if isinstance(agent, Network):
        agent = MCTSAgent(agent)
    network = getattr(agent, 'network', None)
    if not isinstance(network, Network):
        raise ValueError(f'{agent!r} has no boardlaw network, so its weights cannot go into a page')
    state = network.state_dict()
    values = torch.cat([state[name].detach().cpu().float().flatten()
                        for name in _names(network.depth)]).numpy()
    if not np.isfinite(values).all():
        raise ValueError('the network has weights that are nan or infinite')
    size = (network.boardsize, network.width, network.depth)
    exact = len(values) <= EXACT or np.abs(values).max() > np.finfo('f2').max
    dtype = 'float32' if exact else 'float16'
    return {**dict(zip(('boardsize', 'width', 'depth'), size)), 'params': count_params(*size),
            'n_nodes': agent.n_nodes, 'c_puct': float(agent.c_puct), 'rule': agent.rule,
            'unvisited': agent.unvisited, **about,
            'dtype': dtype, 'weights': base64.b64encode(values.astype(DTYPES[dtype])).decode()}


def export_run(run=-1, snapshot=None) -> Path:
    """Ships the agent of a run: writes it into the package, in place of its board's earlier one.

    Args:
        run, snapshot: as for :func:`boardlaw.arena.common.agent`.

    Returns:
        The file, boardlaw/data/agents/SxS.json.
    """
    run = runs.resolve(run)
    state = storage.load_latest(run) if snapshot is None else storage.load_snapshot(run, snapshot)
    data = export(common.agent(run, snapshot), run=run, samples=int(state['n_samples']),
                  train_flops=int(state['n_flops']))
    AGENTS.mkdir(exist_ok=True)
    path = AGENTS/f'{data["boardsize"]}x{data["boardsize"]}.json'
    path.write_text(json.dumps(data, indent=1) + '\n', 'utf-8')
    _shipped.cache_clear()
    return path


def page(*agents) -> 'Page':
    """A board to play on; a notebook shows it, and `.save` writes it as a page of its own.

    Args:
        agents: whom to play against, one a board size: anything that :func:`export` takes. By
            default those that come with the package.

    Raises:
        ValueError: an agent cannot go into a page, or two are for the same board.
    """
    if not agents:
        return Page([_shipped(size) for size in boardsizes()])
    data = sorted(map(export, agents), key=lambda x: x['boardsize'])
    for one, other in zip(data, data[1:]):
        if one['boardsize'] == other['boardsize']:
            raise ValueError(f'two of the agents play {one["boardsize"]}x{one["boardsize"]}: give '
                             'one for each board size')
    return Page(data)


class Page:
    """A playable board as HTML; where scripts are off, it shows a game that the agent played.

    Attributes:
        agents: what :func:`export` gave, one a board size in rising order.
    """

    def __init__(self, agents):
        self.agents = agents

    def html(self) -> str:
        """The board as a fragment of HTML with all it needs; equal agents give equal text."""
        data = {
            'agents': self.agents,
            'boards': {a['boardsize']: drawing.svg(Hex.initial(1, a['boardsize']))
                       for a in self.agents},
            'strengths': sorted({*STRENGTHS, self.agents[-1]['n_nodes']}),
            'colours': {'stone': drawing.STONE, 'rim': drawing.RIM, 'cell': drawing.CELL,
                        'grid': drawing.GRID, 'heat': drawing.POSITIVE}}
        # '</' would end the script element wherever it stands.
        data = json.dumps(data, separators=(',', ':')).replace('</', '<\\/')
        style, search, board = (files(__package__).joinpath(name).read_text('utf-8')
                                for name in ('play.css', 'search.js', 'board.js'))
        return (f'<div class="boardlaw-play"><style>{style}</style>'
                f'<div class="stage">{_recorded(self.agents[-1])}</div>'
                f'<script type="application/json">{data}</script>'
                f'<script>(() => {{\n{search}\n{board}}})();</script></div>')

    def save(self, path) -> Path:
        """Writes a page to a `path`, one that any browser opens, from a disk as well."""
        path = Path(path)
        path.write_text(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Hex</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<style>:root { color-scheme: light dark; font-family: system-ui, sans-serif }</style>'
            f'</head>\n<body>{self.html()}</body></html>\n', 'utf-8')
        return path

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {'text/html': self.html(), 'text/plain': repr(self)}

    def __repr__(self):
        sizes = ', '.join(f'{a["boardsize"]}x{a["boardsize"]}' for a in self.agents)
        return f'A Hex board to play on: {sizes}. A notebook shows it; .save(path) writes a page.'


def _recorded(data):
    """A game of an agent against itself: its last position, each stone with its move's number."""
    player = MCTSAgent(_network(data), 64, data['c_puct'], data['rule'],
                       unvisited=data['unvisited'])
    game, = analysis.record(Hex.initial(1, data['boardsize']), player).games
    numbers = np.full(game.start.shape, '', object)
    for k, (_, row, column) in enumerate(game.moves, 1):
        numbers[row, column] = k
    moves = ' '.join(drawing.cell_name(row, column) for _, row, column in game.moves)
    picture = drawing.svg(game.board(), labels=numbers, size=420)
    return (f'<figure>{picture}<figcaption>With scripts on, this is a board to play on. Here the '
            f'agent played itself: {escape(repr(game))}, {moves}.</figcaption></figure>')


@cache
def _shipped(boardsize):
    return json.loads((AGENTS/f'{boardsize}x{boardsize}.json').read_text('utf-8'))


def _names(depth):
    """The parameters in the order in which `weights` holds them."""
    body = ['body.0.weight', 'body.0.bias']
    for layer in range(1, depth + 1):
        body += [f'body.{layer}.{part}' for part in ('weight', 'bias', 'α')]
    return body + [f'{head}.core.{part}' for head in ('policy', 'value')
                   for part in ('weight', 'bias')]


def _network(data):
    """The network that `export` was given."""
    shapes = {name: x.shape for name, x in Network(
        data['boardsize'], data['width'], data['depth']).state_dict().items()}
    weights = np.frombuffer(base64.b64decode(data['weights']), DTYPES[data['dtype']])
    values = torch.from_numpy(weights.astype('f4'))
    names = _names(data['depth'])
    parts = values.split([shapes[name].numel() for name in names])
    return from_state_dict({name: part.view(shapes[name]) for name, part in zip(names, parts)},
                           data['boardsize'])
