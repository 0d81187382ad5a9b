"""Play in the page: the script against Python, the shipped agents, and what goes into a page."""
import json
import re
import shutil
import subprocess
from importlib.resources import files

import chromium
import numpy as np
import pytest
import torch
from test_mcts import make_network, positions

from boardlaw import arena, play
from boardlaw.hex import Hex
from boardlaw.mcts import MCTSAgent
from boardlaw.networks import Network
from boardlaw.training import train

SCRIPT = files('boardlaw.play').joinpath('search.js').read_text('utf-8')
DRIVER = '''
function drive([agent, cases]) {
  const made = makeAgent(agent);
  return cases.map(({board, seat, n_nodes, seed, game, move}) => {
    const key = makeKey(seed, game, move);
    const found = search(made, board, seat, n_nodes, key);
    return {...found, policy: [...found.policy], prior: [...found.prior],
            action: choose(found.policy, key)};
  });
}
'''
READ = "process.stdout.write(JSON.stringify(drive(JSON.parse(fs.readFileSync(0, 'utf8')))));"


@pytest.fixture(scope='module')
def in_javascript():
    """Calls the script's search: in Node if that is installed, else in Chromium."""
    if shutil.which('node'):
        def call(agent, cases):
            done = subprocess.run(
                ['node', '-e', f"const fs = require('fs');{SCRIPT}{DRIVER}{READ}"], text=True,
                input=json.dumps([agent, cases]), capture_output=True, check=True, timeout=120)
            return json.loads(done.stdout)
        yield call
    else:
        with chromium.launch() as browser:
            page = browser.new_page()
            yield lambda agent, cases: page.evaluate(
                f'data => {{{SCRIPT}{DRIVER} return drive(data)}}', [agent, cases])


def colours(world):
    """`[n_envs, S*S]` as the script has boards: 0 empty, 1 Black, 2 White."""
    return torch.tensor([0, 1, 2, 1, 1, 2, 2])[world.board.flatten(1).long()].tolist()


def compare(agent, world, in_javascript, seed=5, move=7):
    """Policies' and values' differences in every game `[n_envs]`, and which actions are equal."""
    ours = agent(world, seed=seed, move=move)
    cases = [{'board': board, 'seat': int(world.seats[i]), 'n_nodes': agent.n_nodes, 'seed': seed,
              'game': i, 'move': move} for i, board in enumerate(colours(world))]
    theirs = in_javascript(play.export(agent), cases)
    np.testing.assert_allclose([x['prior'] for x in theirs], ours.prior.exp(), atol=2e-6)
    assert [round(sum(x['policy']), 9) for x in theirs] == [1]*len(theirs)
    policy = np.array([x['policy'] for x in theirs]) - ours.logits.exp().numpy()
    value = np.array([x['value'] for x in theirs]) - ours.v[:, 0].numpy()
    actions = np.array([x['action'] for x in theirs]) == ours.actions.numpy()
    return np.abs(policy).max(1), np.abs(value), actions


def check(differences):
    """Equal within 1e-4, but for the odd game: Python computes in float32 and the script in
    float64, so that a draw may fall between two roundings, and the trees part there."""
    policy, value, actions = map(np.concatenate, zip(*differences))
    assert (policy < 1e-4).mean() > .99, np.sort(policy)[-5:]
    assert (value < 1e-4).mean() > .99
    assert actions.mean() > .99
    return policy


@pytest.mark.parametrize('boardsize', play.boardsizes())
def test_the_script_plays_as_python_does(boardsize, in_javascript, monkeypatch):
    """The shipped agents, at every strength of the page, on random positions of both seats."""
    monkeypatch.setenv('BOARDLAW_BFLOAT16', '0')    # which would round the widest one's products
    world = positions(boardsize, 40, 3, most=.9)
    assert set(world.seats.tolist()) == {0, 1}
    check([compare(play.agent(boardsize, n_nodes), world, in_javascript, seed=seed)
           for seed, n_nodes in enumerate(play.STRENGTHS)])


@pytest.mark.parametrize('rule, unvisited', [
    ('corrected', 'parent'), ('corrected', 'worst'), ('2021', 'worst')])
@pytest.mark.parametrize('boardsize, width, depth', [(2, 3, 0), (4, 5, 2), (7, 130, 1)])
def test_other_networks_and_rules(boardsize, width, depth, rule, unvisited, in_javascript,
                                  monkeypatch):
    monkeypatch.setenv('BOARDLAW_BFLOAT16', '0')
    world = positions(boardsize, 20, 4)
    network = play._network(play.export(make_network(boardsize, width, depth)))    # may be rounded
    check([compare(MCTSAgent(network, n_nodes, c_puct, rule, unvisited=unvisited), world,
                   in_javascript, seed=-n_nodes) for n_nodes, c_puct in [(5, .1), (30, 1.)]])


def test_seeds_games_and_moves_matter(in_javascript):
    """Else equal probabilities would say nothing of the random numbers."""
    world, agent = Hex.initial(1, 5), play.export(play.agent(5))
    cases = [{'board': colours(world)[0], 'seat': 0, 'n_nodes': 30, 'seed': s, 'game': g, 'move': m}
             for s, g, m in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]]
    policies = np.array([x['policy'] for x in in_javascript(agent, cases)])
    for i in range(4):
        for j in range(i):
            assert np.abs(policies[i] - policies[j]).max() > 1e-3


def test_large_networks_are_rounded_and_the_script_reads_the_same(in_javascript, monkeypatch):
    monkeypatch.setenv('BOARDLAW_BFLOAT16', '0')
    network = make_network(6, 100, 1)
    for value in (1e-9, -3e-8, 5.9e-5, -6.2e-5, 1.):     # 0, two below the normal range, two in it
        with torch.no_grad():
            network.body[0].bias[0] = value
            data = play.export(network)
            assert data['dtype'] == 'float16'
            rounded = play._network(data)
            for name, x in network.state_dict().items():
                assert torch.equal(x.half().float(), rounded.state_dict()[name])
            assert play.export(rounded) == data
        check([compare(MCTSAgent(rounded, 5), positions(6, 20, 1), in_javascript)])
    assert play.export(make_network(6, 10, 1))['dtype'] == 'float32'
    with torch.no_grad():
        network.body[0].bias[0] = 7e4
    assert play.export(network)['dtype'] == 'float32', 'halves end at 65504'


# The shipped agents

@pytest.mark.parametrize('boardsize', play.boardsizes())
def test_shipped_agents_are_small_and_play_well(boardsize):
    path = play.AGENTS/f'{boardsize}x{boardsize}.json'
    # 100,000 parameters in half precision, as base64; on 9x9 330,000.
    assert path.stat().st_size < (900e3 if boardsize == 9 else 270e3)
    data = json.loads(path.read_text('utf-8'))
    assert {'run', 'samples', 'train_flops'} <= data.keys()
    assert arena.winrate(play.agent(boardsize), arena.RandomAgent(), 200, boardsize) >= .9


def test_no_agent_for_that_board():
    with pytest.raises(ValueError, match='no agent for 2x2 .* there are agents for 3x3'):
        play.agent(2)


def test_settings_of_a_shipped_agent():
    agent = play.agent(3, n_nodes=7, argmax=True)
    assert (agent.n_nodes, agent.argmax, agent.rule, agent.noise_eps) == (7, True, 'corrected', 0)
    assert play.agent().network.boardsize == play.boardsizes()[-1]


def test_the_agent_of_a_run_is_shipped_and_comes_back(output, tmp_path, monkeypatch):
    run = train(3, 4, 1, samples=2048, n_envs=64, progress=False)
    monkeypatch.setattr(play, 'AGENTS', tmp_path/'agents')
    path = play.export_run(run)
    play._shipped.cache_clear()
    try:
        assert path.name == '3x3.json' and play.boardsizes() == [3]
        trained, shipped = arena.common.agent(run), play.agent(3)
        data = json.loads(path.read_text('utf-8'))
    finally:
        play._shipped.cache_clear()
    assert data['run'] == run and data['samples'] >= 2048
    assert (shipped.n_nodes, shipped.c_puct, shipped.rule) == (
        trained.n_nodes, trained.c_puct, trained.rule)
    for name, x in trained.network.state_dict().items():
        assert torch.equal(x, shipped.network.state_dict()[name]), name


# What goes into a page

def test_what_cannot_go_into_a_page():
    with pytest.raises(ValueError, match='no boardlaw network'):
        play.page(arena.RandomAgent())
    with pytest.raises(ValueError, match='two of the agents play 3x3'):
        play.page(play.agent(3), Network(3, 2, 1))
    broken = Network(3, 2, 1)
    with torch.no_grad():
        broken.body[0].bias[0] = torch.nan
    with pytest.raises(ValueError, match='nan'):
        play.page(broken)


def test_a_page_of_ones_own(tmp_path):
    page = play.page(MCTSAgent(make_network(4, 5, 1), n_nodes=10), Network(2, 3, 0))
    assert [a['boardsize'] for a in page.agents] == [2, 4]
    assert page.html() == page.html() == page._repr_mimebundle_()['text/html']
    data = embedded(page.html())
    assert data['strengths'] == [1, 4, 10, 16, 64, 256] and set(data['boards']) == {'2', '4'}
    assert page.save(tmp_path/'hex.html').read_text('utf-8').startswith('<!doctype html>')


def embedded(html):
    found, = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)
    return json.loads(found)


def test_pages_ask_for_nothing_from_elsewhere():
    html = play.page().html()
    assert set(re.findall(r'https?://[\w./-]+', html)) == {'http://www.w3.org/2000/svg'}
    assert len(html) < 1.5e6    # the 9x9 agent has more than half of it


def test_without_scripts_there_is_a_recorded_game():
    stage, = re.findall(r'<div class="stage">(.*?)</div>', play.page().html(), re.S)
    assert '<title>' in stage and '<script' not in stage
    size, n_moves, winner, moves = re.search(
        r'(\d+)x\d+ Hex, (\d+) moves, (\w+) won, ([a-z0-9 ]+)\.', stage).groups()
    world, transition = Hex.initial(1, int(size)), None
    assert len(moves.split()) == int(n_moves)
    for name in moves.split():
        assert transition is None or not transition.terminal
        world, transition = world.step(torch.tensor([action(name, world)]), reset=False)
    assert transition.rewards[0].tolist() == ([1, -1] if winner == 'Black' else [-1, 1])


def action(name, world):
    """The action of the player to move that is a cell's name."""
    r, c = int(name[1:]) - 1, ord(name[0]) - ord('a')
    r, c = (c, r) if world.seats[0] else (r, c)
    return r*world.boardsize + c
