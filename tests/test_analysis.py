import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import hex_reference
import numpy as np
import pytest
import torch
from PIL import Image

from boardlaw import analysis
from boardlaw.arena import RandomAgent
from boardlaw.hex import Hex
from boardlaw.mcts import MCTSAgent
from boardlaw.networks import Network


class Lowest:
    """Takes the first free cell of its frame and says nothing else."""

    def __call__(self, world, seed=0, move=0, games=None):
        return type('Decisions', (), {'actions': world.valid.long().argmax(1)})


@pytest.fixture(scope='module')
def agent():
    torch.manual_seed(0)
    return MCTSAgent(Network(3, 4, 1), n_nodes=8)


def replay(rollout, env):
    """Checks one environment against the reference rules and yields its game after each move."""
    game = hex_reference.Game(rollout.boards.shape[-1])
    for t in range(rollout.n_steps):
        text = [''.join('.bwTBLR'[x] for x in row) for row in rollout.boards[t, env]]
        assert text == game.labels() and rollout.seats[t, env] == game.seat
        assert game.valid()[rollout.actions[t, env]]
        after, _, _ = game.step(rollout.actions[t, env], reset=False)
        game, rewards, terminal = game.step(rollout.actions[t, env])
        assert rollout.rewards[t, env].tolist() == rewards
        assert rollout.terminal[t, env] == terminal
        yield after


# Rollouts

@pytest.mark.parametrize('size', [1, 2, 3, 5])
def test_rollout_follows_the_rules(size):
    worlds = Hex.initial(6, size)
    rollout = analysis.rollout(worlds, RandomAgent(), n_steps=40, seed=1)
    assert rollout.n_steps == 40 and rollout.n_envs == 6
    for env in range(6):
        for _ in replay(rollout, env):
            pass
    assert not worlds.board.any(), 'the worlds given are not changed'


def test_shapes_and_kinds(agent):
    rollout = analysis.rollout(Hex.initial(2, 3), [agent, Lowest()], n_steps=5)
    kinds = {f.name: (getattr(rollout, f.name).shape, getattr(rollout, f.name).dtype.name)
             for f in dataclasses.fields(rollout)}
    assert kinds == {
        'boards': ((5, 2, 3, 3), 'uint8'), 'seats': ((5, 2), 'int64'),
        'actions': ((5, 2), 'int64'), 'rewards': ((5, 2, 2), 'float32'),
        'terminal': ((5, 2), 'bool'), 'logits': ((5, 2, 9), 'float32'),
        'v': ((5, 2, 2), 'float32')}


def test_each_seat_has_its_own_agent(agent):
    # From positions with either side to move, so that both agents decide in one step.
    worlds = Hex.cat([Hex.initial(2, 3), Hex.parse('b../.../...'.replace('/', '\n')),
                      Hex.initial(2, 3)])
    rollout = analysis.rollout(worlds, [agent, Lowest()], n_steps=30)
    white = rollout.seats == 1
    assert white[0].tolist() == [False, False, True, False, False]
    for t, env in np.argwhere(white):
        board = rollout.boards[t, env].T.ravel()   # White's frame
        assert rollout.actions[t, env] == np.flatnonzero(board == 0)[0]
    # Only the searching agent states a policy and a value: its own, of the valid cells.
    assert np.isnan(rollout.logits[white]).all() and np.isnan(rollout.v[white]).all()
    np.testing.assert_allclose(np.exp(rollout.logits[~white]).sum(-1), 1, atol=1e-4)
    taken = rollout.boards[~white].reshape(-1, 9) > 0
    assert (np.exp(rollout.logits[~white])[taken] == 0).all()
    np.testing.assert_allclose(rollout.v[~white].sum(-1), 0, atol=1e-5)


def test_n_trajs_ends_with_the_first_finished_games():
    rollout = analysis.rollout(Hex.initial(4, 3), RandomAgent(), n_trajs=7)
    assert rollout.terminal.sum() >= 7 > rollout.terminal[:-1].sum()


def test_n_reps_waits_for_every_environment():
    rollout = analysis.rollout(Hex.initial(4, 3), RandomAgent(), n_reps=3)
    assert rollout.terminal.sum(0).min() == 3 > rollout.terminal[:-1].sum(0).min()


def test_games_are_cut_at_their_ends():
    rollout = analysis.rollout(Hex.initial(4, 3), RandomAgent(), n_reps=3)
    games = rollout.games()
    assert len(games) == rollout.terminal.sum()
    for env, start, stop in games:
        assert not rollout.boards[start, env].any() and rollout.seats[start, env] == 0
        assert rollout.terminal[start:stop, env].tolist() == [False]*(stop - start - 1) + [True]
    assert [stop for _, _, stop in games] == sorted(stop for _, _, stop in games)


def test_one_seed_one_rollout(agent):
    def arrays(n, seed):
        rollout = analysis.rollout(Hex.initial(n, 3), [agent, RandomAgent()], n_steps=20, seed=seed)
        return dataclasses.asdict(rollout)
    few, many, other = arrays(2, 5), arrays(4, 5), arrays(2, 6)
    for name in few:   # whatever the batch that a game is played in
        np.testing.assert_array_equal(few[name], many[name][:, :2])
    assert (few['actions'] != other['actions']).any()


@pytest.mark.parametrize('ends', [{}, {'n_steps': 3, 'n_reps': 1}, {'n_trajs': 0}])
def test_one_end_must_be_given(ends):
    with pytest.raises(ValueError, match='give one of n_steps, n_trajs and n_reps'):
        analysis.rollout(Hex.initial(1, 3), RandomAgent(), **ends)


def test_bad_calls():
    with pytest.raises(ValueError, match='1 agents for 2 seats'):
        analysis.rollout(Hex.initial(1, 3), [RandomAgent()], n_steps=1)
    with pytest.raises(ValueError, match='no environments'):
        analysis.rollout(Hex.initial(0, 3), RandomAgent(), n_trajs=1)
    unfinished = analysis.rollout(Hex.initial(1, 5), RandomAgent(), n_steps=2)
    with pytest.raises(ValueError, match='no game of this rollout has ended'):
        analysis.Recording.of(unfinished)
    with pytest.raises(ValueError, match='moves a second'):
        analysis.record(Hex.initial(1, 2), RandomAgent()).notebook(rate=0)


# Recordings

def test_recorded_games_are_those_played():
    worlds = Hex.initial(3, 4)
    rollout = analysis.rollout(worlds, RandomAgent(), n_trajs=5, seed=2)
    recording = analysis.record(worlds, RandomAgent(), n_trajs=5, seed=2)
    assert len(recording.games) == 5
    for game, (env, start, stop) in zip(recording.games, rollout.games()):
        after = list(replay(rollout, env))[start:stop]
        for k, reference in enumerate(after, start=1):
            expected = np.zeros((4, 4), int)
            for cell, seat in reference.stones.items():
                expected[cell] = 1 + seat
            np.testing.assert_array_equal(game.board(k), expected)
            assert reference.stones[game.last(k)] == game.moves[k - 1][0]
        assert reference.winners() == [game.winner]
        assert not game.board(0).any() and game.last(0) is None


def test_a_game_from_the_middle():
    world = Hex.parse('''b . .
                          . . .
                           w . .''')
    game = analysis.record(world, RandomAgent()).games[0]
    np.testing.assert_array_equal(game.board(0), world.board[0])
    assert game.moves[0][0] == 0
    html = analysis.Recording([game]).notebook().html()
    assert html.count('<circle') == (game.board() > 0).sum() + 1


def test_the_mover_of_each_drawn_stone():
    """The script finds a move's stone by its colour and its place in the drawing's list."""
    recording = analysis.record(Hex.initial(2, 5), RandomAgent(), n_trajs=2)
    html = recording.notebook().html()
    data = json.loads(re.search(r'const games = (.*), players', html)[1])
    figures = re.findall('<figure.*?</figure>', html, re.S)
    assert len(figures) == len(data) == 2
    for figure, known, game in zip(figures, data, recording.games):
        groups = [re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', re.search(
            f'<g class="stone {colour}".*?</g>', figure)[0]) for colour in ('black', 'white')]
        for (seat, order, name), (mover, row, column) in zip(known['moves'], game.moves):
            assert seat == mover and name == f'{"abcde"[column]}{row + 1}'
            x, y = map(float, groups[seat][order])
            assert (x, y) == (pytest.approx(column + row/2, abs=1e-3),
                              pytest.approx(row*3**.5/2, abs=1e-3))


class Balance(HTMLParser):
    VOID = {'input', 'br', 'meta'}

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [v for k, v in attrs if k == 'id']
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_player_is_self_contained_and_the_same_each_time():
    players = [analysis.record(Hex.initial(2, 3), RandomAgent(), n_trajs=2).notebook()
               for _ in range(2)]
    bundle = players[0]._repr_mimebundle_()
    assert bundle == players[1]._repr_mimebundle_()
    html = bundle['text/html']
    assert 'won' in bundle['text/plain'] and len(html) < 20_000
    parser = Balance()
    parser.feed(html)
    assert parser.open == [] and parser.ids == [], 'no ids that two players on a page could share'
    assert not re.search(r'\b(src|href)=|@import|url\(|fetch\(|XMLHttp|import ', html)
    assert set(re.findall(r'https?://[^"\s]+', html)) == {'http://www.w3.org/2000/svg'}
    assert html.count('<noscript>') == 2 and html.count('class="controls" hidden') == 2
    other = analysis.record(Hex.initial(2, 3), RandomAgent(), n_trajs=2, seed=1).notebook()
    assert other.html() != html


def test_last_position_as_a_drawing():
    svg = analysis.record(Hex.initial(1, 3), RandomAgent()).svg(size=200)
    assert svg.startswith('<svg') and 'has won' in svg and 'class="last"' in svg


CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which(
    'google-chrome')

DRIVER = '''
<pre id="report"></pre><script>(async () => {
const roots = [...document.querySelectorAll('.boardlaw-record')], report = [];
const figure = roots[0].querySelector('figure'), get = s => figure.querySelector(s);
const note = () => report.push([figure.querySelectorAll('.stone circle').length
  - [...figure.querySelectorAll('.stone circle')].filter(c => c.style.display === 'none').length,
  getComputedStyle(get('.path')).display !== 'none', get('.status').textContent,
  get('.play').textContent, Number(get('.place').value),
  get('g.last').style.display === 'none' ? '' : get('g.last').getAttribute('fill')]);
const key = name => figure.dispatchEvent(
  new KeyboardEvent('keydown', {key: name, bubbles: true, cancelable: true}));
note();
get('.back').click(); note();
get('.on').click(); note();
key('Home'); note();
key('ArrowRight'); note();
get('.place').value = 2; get('.place').dispatchEvent(new Event('input')); note();
get('.rate').value = 10; get('.play').click(); note();
await new Promise(r => setTimeout(r, 150)); note();
key(' '); note();
key('End'); get('.play').click();
await new Promise(r => setTimeout(r, 5000)); note();
report.push(roots.map(r => [r.querySelector('.controls').hidden,
                            r.querySelector('.status').textContent]));
document.getElementById('report').textContent = JSON.stringify(report);
})();</script>'''


@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here: the player\'s script is not run')
def test_player_in_a_browser(tmp_path):
    recording = analysis.record(Hex.initial(1, 3), RandomAgent(), seed=3)
    player, game = recording.notebook().html(), recording.games[0]
    page = tmp_path / 'page.html'
    page.write_text(f'<!doctype html><meta charset="utf-8">{player}{player}{DRIVER}')
    done = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking',
         f'--user-data-dir={tmp_path}/profile', '--virtual-time-budget=20000', '--dump-dom',
         page.as_uri()], capture_output=True, text=True, timeout=60)
    report = json.loads(re.search('<pre id="report">(.+?)</pre>', done.stdout)[1])
    *states, roots = report
    end = len(game.moves)
    names = [f'{"abc"[c]}{r + 1}' for _, r, c in game.moves]
    result = f'{("Black", "White")[game.winner]} wins after {end} moves'
    ink = ['#fffaf2', '#14202e']   # the mark stands out from the stone that it is on

    def at(k, play='Play'):
        text = (result if k == end else f'Before the first of {end} moves' if k == 0 else
                f'Move {k} of {end}: {("Black", "White")[game.moves[k - 1][0]]} {names[k - 1]}')
        return [k, k == end, text, play, k, ink[game.moves[k - 1][0]] if k else '']

    assert states[:7] == [at(end), at(end - 1), at(end), at(0), at(1), at(2), at(2, 'Pause')]
    assert states[7] == at(3, 'Pause'), 'a tenth of a second a move'
    assert states[8] == at(3), 'the space bar pauses'
    assert states[9] == at(end), 'played from the start to the end, and stopped'
    assert roots == [[False, result]]*2, 'two players of one game do not disturb each other'


# Films

@pytest.fixture(scope='module')
def short():
    return analysis.record(Hex.initial(1, 2), RandomAgent(), seed=1)


def test_gif(short, tmp_path):
    path = short.gif(tmp_path / 'game.gif', rate=4, size=2, dpi=50)
    assert path == tmp_path / 'game.gif' and list(tmp_path.iterdir()) == [path]
    with Image.open(path) as film:
        width, height = film.size
        assert width == 100 and 50 < height < 100 and height % 2 == 0, 'no more than the board'
        assert film.n_frames >= len(short.games[0].moves) + 1
        assert film.info['duration'] >= 250
        first = film.convert('RGB')
        film.seek(film.n_frames - 1)
        assert film.convert('RGB').tobytes() != first.tobytes()


def test_failed_film_leaves_the_old_file(short, tmp_path, monkeypatch):
    (tmp_path / 'game.gif').write_text('old')
    drawn, plot = [], analysis.drawing.plot

    def fail_late(*args, **kwargs):
        drawn.append(1)
        return plot(*args, **kwargs) if len(drawn) < 4 else 1 / 0
    monkeypatch.setattr(analysis.drawing, 'plot', fail_late)
    with pytest.raises(ZeroDivisionError):
        short.gif(tmp_path / 'game.gif', size=1, dpi=50)
    assert [p.read_text() for p in tmp_path.iterdir()] == ['old']


def test_mp4_without_ffmpeg(short, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', '')
    with pytest.raises(RuntimeError, match='install it, or write a .gif'):
        short.mp4(tmp_path / 'game.mp4')
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which('ffmpeg') is None, reason='no ffmpeg here: no mp4 is written')
def test_mp4(short, tmp_path):
    assert b'ftyp' in short.mp4(tmp_path / 'game.mp4', size=2, dpi=50).read_bytes()[:16]
