"""The widgets: what is clicked and slid is what is played, searched and rated."""
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from chromium import launch

from boardlaw import analysis, elos, mcts, notebook, play, rng, widgets
from boardlaw.arena import RandomAgent
from boardlaw.hex import BadAction, Hex, drawing
from boardlaw.hex.solve import PerfectPlayer
from boardlaw.mcts import reference
from boardlaw.networks import Network
from boardlaw.widgets import views

VIEW = 'application/vnd.jupyter.widget-view+json'
THREAT = '''. b . b
             . w . .
              b . w w
               w b . .'''
STRENGTHS = {'A': 0, 'B': -100, 'C': -300, 'D': -600}


@pytest.fixture(scope='module')
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Network(4, 8, 2)


def every_view(network):
    """One of each, as functions that make them."""
    agent, world = mcts.MCTSAgent(network, n_nodes=8), Hex.parse(THREAT)
    return {
        'play': lambda **kw: widgets.play(agent, **kw),
        'play without a network': lambda **kw: widgets.play(RandomAgent(), boardsize=4, **kw),
        'play from a position': lambda **kw: widgets.play(agent, world=world, **kw),
        'watch': lambda **kw: widgets.watch(agent, PerfectPlayer(), **kw),
        'search_steps': lambda **kw: widgets.search_steps(agent, world, **kw),
        'policies': lambda **kw: widgets.policies(network, world, **kw),
        'elo': lambda **kw: widgets.elo(STRENGTHS, **kw)}


# The picture and the widget

@pytest.mark.parametrize('name', ['play', 'play without a network', 'play from a position', 'watch',
                                  'search_steps', 'policies', 'elo'])
def test_every_view_leaves_a_picture(network, name, monkeypatch):
    make = every_view(network)[name]
    stored = make()._repr_mimebundle_()     # nobody sits in front of a test
    assert set(stored) == {'text/plain', 'text/html'}
    page = stored['text/html']
    assert '<svg' in page and 'widget' not in page and 'Loading' not in page
    assert not re.search(r'(src|href)="?(https?:)?//', page)    # nothing is fetched
    assert page == make().html() and len(page) < 600_000
    for svg in re.findall(r'<svg.*?</svg>', re.sub('<script.*?</script>', '', page, flags=re.S),
                          re.S):
        assert '<title>' in svg or 'aria-label=' in svg or 'aria-hidden' in svg
    # with somebody, the widget comes along, unless it is not wanted or not there
    monkeypatch.setattr(notebook, 'attended', lambda: True)
    pytest.importorskip('ipywidgets')
    live = make()._repr_mimebundle_()
    assert set(live) == {VIEW, 'text/plain', 'text/html'} and live['text/html'] == page
    assert set(make(live=False)._repr_mimebundle_()) == {'text/plain', 'text/html'}
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    without = make()._repr_mimebundle_()
    assert set(without) == {'text/plain', 'text/html'}
    assert page in without['text/html'] and 'pip install ipywidgets' in without['text/html']
    with pytest.raises(ImportError, match='pip install ipywidgets'):
        make().widget()


def test_a_notebook_is_attended_if_its_client_takes_input(monkeypatch):
    assert not notebook.in_kernel() and not notebook.attended()
    parent = {'content': {'allow_stdin': True}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: parent))
    monkeypatch.setitem(sys.modules, 'IPython', SimpleNamespace(get_ipython=lambda: shell))
    assert notebook.in_kernel() and notebook.attended()
    parent['content']['allow_stdin'] = False
    assert notebook.in_kernel() and not notebook.attended()
    parent['content'] = {'comm_id': 'x'}    # a click on a widget: it says nothing of input
    assert notebook.attended()


def test_a_notebook_run_by_a_program_stores_the_picture_alone():
    pytest.importorskip('ipywidgets')
    nbclient, nbformat = pytest.importorskip('nbclient'), pytest.importorskip('nbformat')
    cell = nbformat.v4.new_code_cell("from boardlaw import widgets\nwidgets.elo({'A': 0, 'B': 9})")
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(book, kernel_name='python3').execute()
    output, = book.cells[0].outputs
    assert set(output.data) == {'text/plain', 'text/html'} and '<svg' in output.data['text/html']
    assert 'widgets' not in book.metadata


# Games

def click(view, row, column):
    view.controls['cells'][row, column].click()


@pytest.mark.parametrize('seat', [0, 1])
def test_a_game_by_clicks_is_a_game_of_hex_against_the_agent(network, seat):
    pytest.importorskip('ipywidgets')
    agent = mcts.MCTSAgent(network, n_nodes=8)
    view = widgets.play(agent, seat=seat, seed=5)
    view.widget()
    cells, clicked = view.controls['cells'], np.random.default_rng(0)
    world, move = Hex.initial(1, 4), 0
    while int(world.winner[0]) < 0:
        assert torch.equal(world.board, view.world.board) or int(world.seats[0]) != seat
        if int(world.seats[0]) == seat:
            board = world.board[0].numpy()
            free = {cell for cell, button in cells.items() if not button.disabled}
            assert free == {tuple(cell) for cell in np.argwhere(board == 0).tolist()}
            row, column = sorted(free)[clicked.integers(len(free))]
            assert cells[row, column].description == drawing.cell_name(row, column)
            click(view, row, column)
            action = [row*4 + column, column*4 + row][seat]     # White sees the board transposed
        else:
            action = int(agent(world, seed=5, move=move).actions[0])
        assert view.actions[move] == action
        world, _ = world.step([action], reset=False)
        move += 1
    assert len(view.actions) == move and view.winner == int(world.winner[0])
    assert all(button.disabled for button in cells.values())
    assert ('you' if view.winner == seat else 'the agent') in view.controls['status'].value
    with pytest.raises(BadAction, match='the game is over'):
        view.choose(0, 0)


def test_undo_new_game_and_colour(network):
    pytest.importorskip('ipywidgets')
    view = widgets.play(mcts.MCTSAgent(network, n_nodes=4), seat=1)
    view.widget()
    assert len(view.actions) == 1   # Black moves first
    view.controls['undo'].click()   # there is no move of the reader's yet
    assert len(view.actions) == 1
    free = [cell for cell, button in view.controls['cells'].items() if not button.disabled]
    click(view, *free[0])
    played = list(view.actions)
    view.controls['undo'].click()
    assert view.actions == played[:1] and len(view.worlds) == 2
    click(view, *free[0])
    assert view.actions == played   # the same position, the same reply
    view.controls['colour'].value = 0
    assert view.seat == 0 and view.actions == [] and view.seed == 1
    view.controls['new'].click()
    assert view.actions == [] and view.seed == 2 and not view.world.board.any()


def test_a_hint_is_what_the_agent_thinks(network):
    pytest.importorskip('ipywidgets')
    agent = mcts.MCTSAgent(network, n_nodes=8)
    view = widgets.play(agent, world=Hex.parse(THREAT), seed=3)
    view.widget()
    view.controls['hint'].value = True
    decision = agent(Hex.parse(THREAT), seed=3, move=0)
    best = int(decision.logits[0].argmax())
    said = view.controls['status'].value
    assert f'would play {drawing.cell_name(*divmod(best, 4))} ' in said
    assert f'{50*(1 + float(decision.v[0, 0])):.0f} %' in said
    for other, words in [(PerfectPlayer(), 'it thinks: 100 %'), (RandomAgent(), 'no more than')]:
        view = widgets.play(other, world=Hex.parse(THREAT))
        view.widget()
        view.controls['hint'].value = True
        assert words in view.controls['status'].value


def test_what_goes_wrong_is_said_and_changes_nothing(network):
    view = widgets.play(mcts.MCTSAgent(network, n_nodes=4))
    for cell, words in [((4, 0), 'rows and columns 0 to 3'), ((0, -1), 'rows and columns')]:
        with pytest.raises(BadAction, match=words):
            view.choose(*cell)
    view.choose(1, 1)
    before = list(view.actions)
    with pytest.raises(BadAction, match='already holds a stone'):
        view.choose(1, 1)
    assert view.actions == before
    pytest.importorskip('ipywidgets')
    view.widget()

    def broken(world, seed=0, move=0):
        raise RuntimeError('out of <memory>')
    view.agent = broken
    free = next(cell for cell, b in view.controls['cells'].items() if not b.disabled)
    click(view, *free)
    assert view.actions == before and 'out of &lt;memory&gt;' in view.controls['status'].value
    assert not view.controls['cells'][free].disabled


def test_whom_and_where(network):
    agent = mcts.MCTSAgent(network)
    assert widgets.play().world.boardsize == play.boardsizes()[-1]
    assert widgets.play(boardsize=3).agent.network.boardsize == 3
    with pytest.raises(ValueError, match='pass boardsize'):
        widgets.play(RandomAgent())
    with pytest.raises(ValueError, match=r'sizes \[4, 5\]'):
        widgets.play(agent, boardsize=5)
    with pytest.raises(ValueError, match='must agree'):
        widgets.watch(agent, play.agent(3))
    with pytest.raises(ValueError, match='seat must be'):
        widgets.play(agent, seat=2)
    with pytest.raises(mcts.BadSearch, match='choose one'):
        widgets.play(agent, world=Hex.initial(2, 4))


def test_the_played_page_holds_the_agent(network):
    agent = mcts.MCTSAgent(network)
    assert widgets.play(agent).html() == play.page(agent).html()
    assert 'boardlaw-record' in widgets.play(PerfectPlayer(), boardsize=3).html()


def test_watching_shows_the_recorded_game_and_its_thoughts(network):
    pytest.importorskip('ipywidgets')
    black, white = mcts.MCTSAgent(network, n_nodes=8), PerfectPlayer()
    view = widgets.watch(black, white, seed=2)
    view.widget()
    rolled = analysis.rollout(Hex.initial(1, 4), [black, white], n_trajs=1, seed=2)
    game, = analysis.Recording.of(rolled).games
    place, board = view.controls['move'], view.controls['board']
    assert place.max == len(game.moves)
    for k in (0, 3, len(game.moves)):
        place.value = k
        heat = (drawing.to_board_frame(np.exp(rolled.logits[k, 0]), 0) if k == 0 else None)
        if k % 2 or k == 0:   # White, who is perfect, states no policy
            assert board.value == drawing.svg(game.board(k), last=game.last(k), heat=heat)
    assert 'has won' in view.controls['status'].value
    place.value = 0
    assert (f'{50*(1 + rolled.v[0, 0, 0]):.0f} %' in view.controls['status'].value)
    view.controls['next'].click()
    assert view.seed == 3 and place.value == 0 and place.max == len(view.game.moves)
    assert view.html() == analysis.Recording([view.game]).notebook().html()


# Searches

@pytest.mark.parametrize('settings', [{}, {'rule': '2021'}, {'unvisited': 'worst', 'c_puct': 1.}])
def test_the_walk_is_the_plain_search(network, settings):
    agent = mcts.MCTSAgent(network, n_nodes=16, **settings)
    world, _ = Hex.initial(1, 4).step([5])      # White to move: the other frame
    view = widgets.search_steps(agent, world, seed=7)
    key, = rng.keys(7, 1, 0)
    unvisited = 'worst' if agent.rule == '2021' else agent.unvisited
    visits, policies = np.zeros(16), []
    for k in range(1, 17):
        root = reference.search(world, network, k, agent.c_puct, agent.rule, agent.unvisited, key)
        step = view.at(k)
        scale = reference.stretch(root, agent.rule)
        pi_bar = root.policy(agent.c_puct, agent.rule, unvisited, scale)
        assert step.table['pi_bar'].to_numpy() == pytest.approx(pi_bar[pi_bar > 0])
        names = {drawing.cell_name(a % 4, a//4): a for a in np.flatnonzero(root.prior)}
        assert list(step.table.index) == list(names)
        for name, row in step.table.iterrows():
            child = root.children.get(names[name])
            assert row['visits'] == (child.n if child else 0)
            assert np.isnan(row['q']) if child is None else row['q'] == child.q[1]
        if k == 1:
            assert step.path.empty and step.leaf.n == 1
            assert step.value == pytest.approx(root.total)
        else:      # one visit more, on the path's first move
            now = np.array([root.children[a].n if a in root.children else 0 for a in range(16)])
            moved, = np.flatnonzero(now - visits)
            assert names[step.path['move'].iloc[0]] == moved and now.sum() == visits.sum() + 1
            assert step.path['pi_bar'].iloc[0] == pytest.approx(policies[-1][moved])
            assert list(step.path['seat']) == (['White', 'Black']*12)[:len(step.path)]
            assert step.leaf.terminal or step.leaf.n == 1
            assert step.leaf.terminal or step.value == pytest.approx(
                network(step.leaf.world).v[0].tolist(), abs=1e-6)
            visits = now
        policies.append(pi_bar)
    compiled = mcts.search(world, network, 16, agent.c_puct, agent.rule, seed=7,
                           unvisited=agent.unvisited)
    if compiled.visits[0].tolist() == visits.tolist():     # see the chapter: nearly always
        assert np.allclose(compiled.policy[0], pi_bar, atol=1e-4)
    for wrong in (0, 17):
        with pytest.raises(ValueError, match='from 1 to 16'):
            view.at(wrong)


def test_the_walks_slider_and_tree(network):
    pytest.importorskip('ipywidgets')
    view = widgets.search_steps(mcts.MCTSAgent(network, n_nodes=16), Hex.parse(THREAT))
    view.widget()
    simulation, page = view.controls['simulation'], view.controls['page']
    assert page.value == view.picture(1) and view.controls['drawing'].value == ''
    simulation.value = 12
    assert page.value == view.picture(12) and 'Simulation 12 of 16' in page.value
    for number in view.at(12).table['pi_bar']:
        assert f'{number:.3f}' in page.value
    view.controls['tree'].value = True
    assert 'A search tree of' in view.controls['drawing'].value
    fig, root = view.tree(12), view._root(12)
    assert fig.alt.startswith(f'A search tree of {sum(1 for _ in root.walk())} nodes and 12 visits')
    most = max(root.children.values(), key=lambda child: child.n)
    assert f'{most.n} visits, q {most.q[0]:+.2f}' in fig.alt
    assert page.value in view.html() and view.html().count('class="frame"') == 16


def test_only_a_search_can_be_walked_through(network):
    with pytest.raises(ValueError, match='give an MCTSAgent or a network'):
        widgets.search_steps(PerfectPlayer(), Hex.initial(1, 3))
    with pytest.raises(mcts.BadSearch, match='n_nodes'):
        widgets.search_steps(network, Hex.initial(1, 4), n_nodes=0)
    won = Hex.parse('b w w\nb w .\nb . .', seat=1)
    for make in (widgets.search_steps, widgets.policies, widgets.play):
        with pytest.raises(mcts.BadSearch, match='over'):
            make(mcts.MCTSAgent(Network(3, 2, 1)), world=won)
    assert widgets.search_steps(network, Hex.initial(1, 4)).n_nodes == 64


def test_sliders_change_the_search(network):
    pytest.importorskip('ipywidgets')
    world = Hex.parse(THREAT)
    view = widgets.policies(network, world, seed=4)
    view.widget()
    sliders, page = view.controls, view.controls['page']

    def expect(**settings):
        found = mcts.search(world, network, seed=4, **settings)
        heat = found.policy[0].view(4, 4).numpy()
        labels = np.array([[f'{100*p:.0f}' if p >= .005 else '' for p in row] for row in heat])
        assert drawing.svg(world, heat=heat, labels=labels, size=280) in page.value
        assert f'{50*(1 + float(found.value[0, 0])):.0f} %' in page.value
        n = found.visits[0].sum().item()
        return found.visits[0].numpy(), n

    _, n = expect(n_nodes=64, c_puct=1/4)
    assert f'is {n**.5/4/(n + 16):.4f}' in page.value       # lambda, by the formula
    sliders['n_nodes'].value = 16
    expect(n_nodes=16, c_puct=1/4)
    sliders['c_puct'].value = 2.
    expect(n_nodes=16, c_puct=2.)
    sliders['rule'].value = '2021'
    visits, n = expect(n_nodes=16, c_puct=2., rule='2021')  # a constant that was chosen stays
    n = 2*n + (visits == 0).sum()
    assert f'is {2*n/(n + 16):.4f}' in page.value
    sliders['c_puct'].value = 1/16
    sliders['rule'].value = 'corrected'                     # the rule's own is followed
    assert sliders['c_puct'].value == 1/4
    expect(n_nodes=16, c_puct=1/4)
    assert view.settings == dict(c_puct=1/4, n_nodes=16, rule='corrected', unvisited='parent')


def test_the_picture_of_the_policies_is_a_table_of_searches(network):
    world = Hex.parse(THREAT)
    page = widgets.policies(network, world).html()
    assert page.count('<td>') == 24
    for rule, c in [('corrected', 1.), ('2021', 1/64)]:
        policy = mcts.search(world, network, 512, c, rule).policy[0]
        assert views.policy_board(world, policy, size=150, coords=False) in page
    with pytest.raises(mcts.BadSearch, match='rule'):
        widgets.policies(network, world, rule='2022')


# Ratings

def test_the_explorer_rates_as_elos_does():
    pytest.importorskip('ipywidgets')
    view = widgets.elo(STRENGTHS, games=64, seed=3)
    view.widget()

    def check():
        ws, gs = elos.symmetrize(view.trials())
        solved, table = elos.solve(ws, gs)*elos.to_elo, view.ratings()
        bounds = elos.intervals(ws, gs, reference='A')*elos.to_elo
        np.testing.assert_allclose(table['solve'], solved - solved['A'], atol=1e-6)
        for name in ('elo', 'lower', 'upper'):
            np.testing.assert_allclose(table[name], bounds[name], atol=1e-6)
        agent, opponent, _ = elos.suggest(ws, gs, games=view.games, reference='A').iloc[0]
        assert view.suggested() == (agent, opponent)
        assert f'Suggested next: {agent} against {opponent}' in view.controls['page'].value
        assert f'<td>{table["elo"]["C"]:.0f}</td>' in view.controls['page'].value
        return agent, opponent

    played = view.trials()
    assert len(played) == 12 and played[['black_wins', 'white_wins']].sum().sum() == 6*64
    nearest = check()
    view.controls['suggested'].click()
    assert view.matches[-1] == (*nearest, 64)
    check()
    view.controls['games'].value = 8
    view.controls['round_robin'].click()
    assert view.matches[-1] == ('C', 'D', 8) and len(view.matches) == 13
    check()


def test_a_strength_that_is_moved_changes_its_own_games_only():
    pytest.importorskip('ipywidgets')
    view = widgets.elo(STRENGTHS, games=512)
    view.widget()
    before, rated = view.trials(), view.ratings()
    view.controls['strengths']['D'].value = -200
    after = view.trials()
    of_d = (before[['black_agent', 'white_agent']] == 'D').any(axis=1)
    pd.testing.assert_frame_equal(before[~of_d], after[~of_d])
    as_black = before['black_agent'] == 'D'
    assert (after['black_wins'] > before['black_wins'])[as_black].all()
    assert view.ratings().loc['D', 'truth'] == -200
    assert view.ratings().loc['D', 'elo'] > rated.loc['D', 'elo'] + 200
    assert 'truth -200' in view.controls['page'].value


def test_the_explorers_results_are_of_the_model():
    """Wins of 40,000 games are within four standard errors of the model's rate."""
    view = widgets.elo({'A': 0, 'B': -191}, games=40_000)      # three to one
    rate = view.trials()['black_wins']/20_000
    rates = elos.winrate(np.array([191, -191])/elos.to_elo)
    assert np.abs(rate - rates).max() < 4*(.1875/20_000)**.5
    row = view.ratings().loc['B']
    assert row['lower'] < -191 < row['upper']


def test_the_explorer_without_games():
    pytest.importorskip('ipywidgets')
    view = widgets.elo(STRENGTHS, rounds=0)
    view.widget()
    assert view.ratings()['elo'].isna().all() and 'Nobody has a rating yet' in view.words()
    view.play('C', 'D')         # an island
    assert view.ratings()['elo'].isna().all() and '3 players cannot be compared' in view.words()
    view.play('A', 'B')
    assert view.ratings()['elo'].notna().to_list() == [True, True, False, False]
    assert set(view.suggested()) & {'A', 'B'} and set(view.suggested()) & {'C', 'D'}
    view.controls['clear'].click()
    assert view.matches == [] and '0 games' in view.controls['page'].value
    for wrong, words in [({'A': 0}, 'two players'), ({'A': 0, 'B': np.nan}, 'numbers')]:
        with pytest.raises(ValueError, match=words):
            widgets.elo(wrong)
    with pytest.raises(ValueError, match='even'):
        widgets.elo(STRENGTHS, games=3)
    with pytest.raises(ValueError, match="'X' is none of"):
        view.play('A', 'X')


# In a page

def test_the_stored_pages_work_without_a_kernel(network, tmp_path):
    """Frames step; a page whose scripts are off shows the last one; nothing leaves the page."""
    walk = widgets.search_steps(mcts.MCTSAgent(network, n_nodes=5), Hex.parse(THREAT))
    page = tmp_path/'page.html'
    page.write_text(f'<!doctype html><html lang="en"><body>{walk.html()}</body></html>', 'utf-8')
    with launch() as browser:
        for scripts in (True, False):
            tab = browser.new_context(java_script_enabled=scripts).new_page()
            asked, errors = [], []
            tab.on('request', lambda request, asked=asked: asked.append(request.url))
            tab.on('pageerror', lambda error, errors=errors: errors.append(error))
            tab.goto(page.as_uri())
            shown = tab.locator('.frame:visible')
            assert shown.count() == 1
            assert f'Simulation {1 if scripts else 5} of 5' in shown.inner_text()
            if scripts:
                tab.get_by_role('button', name='Next').click()
                assert 'Simulation 2 of 5' in shown.inner_text()
                tab.get_by_role('slider', name='Simulation').press('End')
                assert 'Simulation 5 of 5' in shown.inner_text()
                assert tab.get_by_role('slider').get_attribute('aria-valuetext') == 'Simulation 5'
            assert asked == [page.as_uri()] and not errors
