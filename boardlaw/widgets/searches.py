"""A search in a notebook: one to walk through, one whose settings are sliders."""
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from html import escape
from types import SimpleNamespace

import numpy as np
import pandas as pd
from torch.nn import Module

from .. import mcts, rng, style
from ..hex.worlds import PLAYERS
from ..mcts import drawing, reference
from ..mcts.tree import NODE
from . import views

#: Simulations that a stored page can be stepped through; more would make it heavy.
MOST_FRAMES = 40

#: What the sliders offer besides the setting that they begin with.
C_PUCTS = [2.**k for k in range(-6, 3)]
N_NODES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


@dataclass(frozen=True)
class Step:
    """What one simulation did, and how the root stands after it.

    Attributes:
        path: a DataFrame, one row a move from the root down to the leaf: seat (who moved), move
            (its cell), pi_bar (the probability with which it was drawn), and visits and q of the
            node it leads to, this simulation counted; q is to who moved.
        leaf: the :class:`~boardlaw.mcts.reference.Node` where it ended.
        root: the :class:`~boardlaw.mcts.reference.Node` of the position, as it is now.
        value: `[n_seats]` what was backed up: the network's value of the leaf, or the game's
            result.
        table: a DataFrame indexed by the root's moves: prior, visits, q (to the mover; nan where
            there are no visits), pi_bar.
    """
    path: pd.DataFrame
    leaf: reference.Node
    root: reference.Node
    value: np.ndarray
    table: pd.DataFrame


class SearchSteps(views.View):
    """A search, one simulation after the other, by the plain search of
    :mod:`boardlaw.mcts.reference`.

    In a stored page its first simulations can be stepped through without a kernel.

    Args:
        agent, world, seed, n_nodes, live: as for :func:`search_steps`.

    Attributes:
        n_nodes: simulations of the whole search.
    """

    def __init__(self, agent, world, seed=0, n_nodes=None, live=True):
        super().__init__(live)
        views.check_one(world)
        agent = agent if hasattr(agent, 'network') else mcts.MCTSAgent(agent)
        self.n_nodes = agent.n_nodes if n_nodes is None else n_nodes
        self._settings = (agent.c_puct, agent.rule, agent.unvisited)
        try:
            mcts.search(world, agent.network, self.n_nodes, *self._settings[:2])  # its errors
        except AttributeError as error:
            raise ValueError(f'{agent.network!r} is no network that a search could ask: give an '
                             'MCTSAgent or a network') from error
        self.world, key = world.to('cpu'), rng.keys(seed, 1, 0)[0]
        network = agent.network
        if isinstance(network, Module) and world.device.type != 'cpu':
            network = deepcopy(network).cpu()  # the plain search runs there
        # A search of k nodes is the beginning of a longer one: its draws are numbered.
        self._root = lru_cache(None)(lambda k: reference.search(
            self.world, network, k, *self._settings, key))

    def at(self, simulation) -> Step:
        """One simulation, numbered from 1.

        Args:
            simulation: 1, which asks the network about the root itself, to `n_nodes`.

        Raises:
            ValueError: there is no such simulation.
        """
        if not 1 <= simulation <= self.n_nodes:
            raise ValueError(f'simulation {simulation}: choose one from 1 to {self.n_nodes}')
        root, rows = self._root(simulation), []
        before, leaf = self._root(simulation - 1), root
        scale = reference.stretch(before, self._settings[1])
        old = before
        while child := self._visited(old, leaf):
            action, new = child
            pi_bar = self._policy(old, scale)[action]
            rows.append((PLAYERS[leaf.seat], self._name(action, leaf.seat), pi_bar, new.n,
                         new.q[leaf.seat]))
            old, leaf = old.children.get(action), new
        path = pd.DataFrame(rows, columns=['seat', 'move', 'pi_bar', 'visits', 'q'])
        return Step(path, leaf, root, root.total - before.total, self._table(root))

    def tree(self, simulation) -> style.Figure:
        """The tree after a simulation, drawn by :func:`boardlaw.mcts.drawing.plot`.

        Args:
            simulation: as for :meth:`at`.
        """
        nodes, parents = [], [(-1, -1, self._root(simulation))]
        while parents:
            parent, action, node = parents.pop(0)
            parents += [(len(nodes), a, child) for a, child in node.children.items()]
            nodes.append((parent, action, node))
        array = np.zeros(len(nodes), NODE)
        for row, (parent, action, node) in zip(array, nodes):
            row['parent'], row['action'], row['n'] = parent, action, node.n
            row['q'], row['seat'], row['terminal'] = node.q[0], node.seat, node.terminal
        tree = SimpleNamespace(nodes=array[None], size=[len(array)])
        return drawing.plot(SimpleNamespace(tree=tree), world=self.world, min_visits=1)

    def words(self, simulation) -> str:
        """What a simulation did, in a sentence or two."""
        step = self.at(simulation)
        seat = int(self.world.seats[0])
        line = ', '.join(step.path['move'])
        ends = (f'{PLAYERS[int(step.leaf.reward.argmax())]} has won there' if step.leaf.terminal
                else 'the network judges the leaf')
        where = f'Down: {line}' if line else 'At the root'
        return (f'Simulation {simulation} of {self.n_nodes}. {where}; {ends}. Backed up: '
                f'{step.value[seat]:+.2f} to {PLAYERS[seat]}.')

    def picture(self, simulation) -> str:
        """A simulation as HTML: the root's policy, the leaf, and the root's numbers."""
        step = self.at(simulation)
        root = views.policy_board(self.world, self._policy(step.root), size=230)
        last = None
        if len(step.path):
            name = step.path['move'].iloc[-1]
            last = int(name[1:]) - 1, ord(name[0]) - ord('a')
        leaf = views.drawing.svg(step.leaf.world, last=last, size=230)
        changed = step.path['move'].iloc[0] if len(step.path) else None
        table = step.table.copy()
        table.index = [f'▸ {name}' if name == changed else name for name in table.index]
        figures = [(root, 'the root and its pi_bar, in %'), (leaf, 'the leaf'),
                   (views.table(table, 3), 'the moves at the root')]
        if len(step.path):
            path = step.path.set_index('move')[['seat', 'pi_bar', 'visits', 'q']]
            figures.append((views.table(path.rename_axis(None), 3), 'the way down'))
        return f'<p>{escape(self.words(simulation))}</p>{views.side_by_side(*figures)}'

    def html(self) -> str:
        """The first simulations, to step through in a page."""
        steps = range(1, min(self.n_nodes, MOST_FRAMES) + 1)
        return views.frames([self.picture(k) for k in steps],
                            [f'Simulation {k}' for k in steps], 'Simulation')

    def __repr__(self):
        return f'SearchSteps of {self.n_nodes} simulations. {self.words(self.n_nodes)}'

    def _visited(self, old, new):
        """(action, node) of the child that the latest simulation went through, None at its end."""
        for action, child in new.children.items():
            was = old.children.get(action) if old is not None else None
            if child.n > (was.n if was is not None else 0):
                return action, child

    def _policy(self, node, scale=None):
        scale = reference.stretch(node, self._settings[1]) if scale is None else scale
        c_puct, rule, unvisited = self._settings
        return node.policy(c_puct, rule, 'worst' if rule == '2021' else unvisited, scale)

    def _table(self, root):
        seat, prior, pi_bar = root.seat, root.prior, self._policy(root)
        rows = {}
        for action in np.flatnonzero(prior):
            child = root.children.get(action)
            rows[self._name(action, seat)] = (prior[action], child.n if child else 0,
                                              child.q[seat] if child else np.nan, pi_bar[action])
        return pd.DataFrame.from_dict(rows, orient='index',
                                      columns=['prior', 'visits', 'q', 'pi_bar'])

    def _name(self, action, seat):
        return views.move_name(action, seat, self.world.boardsize)

    def _make(self, ipywidgets):
        page, tree = ipywidgets.HTML(), ipywidgets.HTML()
        place = ipywidgets.IntSlider(1, 1, self.n_nodes, description='Simulation',
                                     continuous_update=False,
                                     style={'description_width': 'initial'})
        run = ipywidgets.Play(value=1, min=1, max=self.n_nodes, interval=1500)
        drawn = ipywidgets.Checkbox(False, description='Draw the tree', indent=False)
        ipywidgets.jslink((run, 'value'), (place, 'value'))

        def show(_=None):
            page.value = views.attempt(lambda: self.picture(place.value))
            tree.value = style.show(self.tree(place.value)).html if drawn.value else ''

        place.observe(show, 'value')
        drawn.observe(show, 'value')
        show()
        self.controls = {'simulation': place, 'tree': drawn, 'page': page, 'drawing': tree}
        row = ipywidgets.HBox([run, place, drawn], layout={'flex_flow': 'row wrap'})
        return ipywidgets.VBox([row, page, tree])


class Policies(views.View):
    """The root's policy under settings of the search that are sliders.

    In a stored page it is a table of pictures, one a setting.

    Args:
        network, world, seed, live: as for :func:`policies`.
        settings: c_puct, n_nodes, rule and unvisited to begin with.

    Attributes:
        settings: those now.
    """

    def __init__(self, network, world, seed=0, live=True, **settings):
        super().__init__(live)
        views.check_one(world)
        self.network, self.world, self.seed = network, world, seed
        self.settings = settings
        self.found()

    def found(self, **settings) -> mcts.Search:
        """The search under the settings now, or under others.

        Args:
            settings: what is to differ: c_puct, n_nodes, rule, unvisited.
        """
        settings = {**self.settings, **settings}
        return mcts.search(self.world, self.network, seed=self.seed, **settings)

    def words(self) -> str:
        """lambda at the root, the search's value and the likeliest moves, in words."""
        found = self.found()
        seat = int(self.world.seats[0])
        weight = root_lambda(found.visits[0].cpu().numpy(), self.settings['c_puct'],
                             self.settings['rule'])
        return (f'λ at the root is {weight:.4f}. {PLAYERS[seat]} has a chance of '
                f'{views.share(found.value[0, seat])} by the search and of '
                f'{views.share(found.root_value[0, seat])} by the network alone. Likeliest moves: '
                f'{views.policy_words(self.world, found.policy[0])}.')

    def picture(self) -> str:
        """Prior and policy under the settings now, as HTML."""
        found = self.found()
        boards = views.side_by_side(*[
            (views.policy_board(self.world, policy[0], size=280), f'{name}, in %')
            for policy, name in [(found.prior, 'prior of the network'),
                                 (found.policy, 'policy of the search')]])
        return f'{boards}<p>{escape(self.words())}</p>'

    def html(self) -> str:
        """What the sliders show, as a table of pictures: each rule, constants by node counts."""
        nodes = (1, 16, 64, 512)
        parts = [self.picture()]
        for rule, c in mcts.C_PUCT.items():
            rows = ''
            for c_puct in (c/4, c, 4*c):
                found = [self.found(n_nodes=n, c_puct=c_puct, rule=rule) for n in nodes]
                cells = [views.policy_board(self.world, x.policy[0], size=150, coords=False)
                         for x in found]
                rows += (f'<tr><th scope="row">{fraction(c_puct)}</th>'
                         + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>')
            head = ''.join(  # on a phone the table scrolls, and is legible
                '<th scope="col" style="min-width:150px;text-align:center">'
                f'{n} node{"s" * (n > 1)}</th>' for n in nodes)
            parts.append('<table style="width:auto">'
                         '<caption style="caption-side:top;padding-top:1em;text-align:left">'
                         f'Rule {rule}: policies in %</caption><thead><tr>'
                         '<th scope="col" style="padding-right:1.5em">c_puct</th>'
                         f'{head}</tr></thead><tbody>{rows}</tbody></table>')
        return ''.join(parts)

    def __repr__(self):
        said = ', '.join(f'{k}={v!r}' for k, v in self.settings.items())
        return f'Policies({said}): {self.words()}'

    def _make(self, ipywidgets):
        page, now = ipywidgets.HTML(), self.settings
        wide = {'description_width': 'initial'}
        c_puct = ipywidgets.SelectionSlider(
            options=[(fraction(c), c) for c in sorted({*C_PUCTS, now['c_puct']})],
            value=now['c_puct'], description='c_puct', style=wide)
        n_nodes = ipywidgets.SelectionSlider(options=sorted({*N_NODES, now['n_nodes']}),
                                             value=now['n_nodes'], description='Nodes', style=wide)
        rule = ipywidgets.ToggleButtons(
            options=[('λ = c √N/(N + A)', 'corrected'), ("λ = c N'/(N' + A), 2021", '2021')],
            value=now['rule'], description='Rule', style=wide,
            tooltips=['as in Grill et al.', 'as the published agents were trained'])
        rule.style.button_width = 'auto'

        def show(_=None):
            self.settings = {**now, 'c_puct': c_puct.value, 'n_nodes': n_nodes.value,
                             'rule': rule.value}
            page.value = views.attempt(self.picture)

        def change_rule(change):
            # A constant that nobody has touched follows its rule.
            if c_puct.value == mcts.C_PUCT[change['old']] != mcts.C_PUCT[change['new']]:
                c_puct.value = mcts.C_PUCT[change['new']]
            show()

        c_puct.observe(show, 'value')
        n_nodes.observe(show, 'value')
        rule.observe(change_rule, 'value')
        show()
        self.controls = {'c_puct': c_puct, 'n_nodes': n_nodes, 'rule': rule, 'page': page}
        return ipywidgets.VBox([rule, c_puct, n_nodes, page])


def root_lambda(visits, c_puct, rule):
    """lambda of a root's `visits` `[n_actions]`, by the formulas of :mod:`boardlaw.mcts.search`."""
    N, A = visits.sum(), len(visits)
    if rule == '2021':
        N = 2*N + (visits == 0).sum()
        return c_puct*N/(N + A)
    return c_puct*np.sqrt(N)/(N + A)


def fraction(x) -> str:
    """A constant as '1/4' where it is a power of two, else as '0.3'."""
    exact = Fraction(x)
    return str(exact) if exact.denominator <= 1024 else f'{x:g}'


def search_steps(agent, world, seed=0, n_nodes=None, live=True) -> SearchSteps:
    """A search to walk through: which nodes, which q, which pi_bar; the value of a cell.

    Args:
        agent: an :class:`~boardlaw.mcts.MCTSAgent`, or a network, which is given the default
            search. Noise is left out.
        world: one game of :class:`~boardlaw.hex.Hex`, not over.
        n_nodes: simulations, by default the agent's.
        live: False for the pictures alone, which a stored page shows.

    Raises:
        BadSearch: the world is not one open game, or a setting is out of range.
    """
    return SearchSteps(agent, world, seed, n_nodes, live)


def policies(network, world, c_puct=None, n_nodes=64, rule='corrected', unvisited='parent', seed=0,
             live=True) -> Policies:
    """The root's policy under sliders for c_puct, the nodes and lambda's rule; for a cell.

    Args:
        world: one game of :class:`~boardlaw.hex.Hex`, not over.
        c_puct, n_nodes, rule, unvisited: what the sliders begin with, as for
            :func:`boardlaw.mcts.search`.
        live: False for the pictures alone, which a stored page shows.

    Raises:
        BadSearch: the world is not one open game, or a setting is out of range.

    >>> from boardlaw.hex import Hex
    >>> from boardlaw.networks import Network
    >>> view = policies(Network(3, 4, 1), Hex.initial(1, 3), live=False)
    >>> view.found(n_nodes=8).visits.sum().item()
    7
    """
    if rule not in mcts.C_PUCT:
        raise mcts.BadSearch(f'rule {rule!r}: choose one of {sorted(mcts.C_PUCT)}')
    c_puct = mcts.C_PUCT[rule] if c_puct is None else c_puct
    return Policies(network, world, seed, live, c_puct=c_puct, n_nodes=n_nodes, rule=rule,
                    unvisited=unvisited)
