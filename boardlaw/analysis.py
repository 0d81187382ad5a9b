"""Games looked at closely: rollouts as arrays, and recordings that play in a page.

`rollout` lets agents play and keeps every position, action and reward. `record` keeps the first
finished games of a rollout; they show themselves as a player in a notebook (`.notebook()`) and can
be written as a film (`.mp4`, `.gif`). Cells are named as Hex engines name them, and boards are in
Black's frame, as drawn.

Explained in the chapters book/training.ipynb and book/data2021.ipynb.
"""
import hashlib
import json
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch

from .hex import drawing
from .hex.worlds import PLAYERS


@dataclass(frozen=True)
class Rollout:
    """What happened in `n_envs` environments over `n_steps` steps, as numpy arrays.

    A game that ends is followed by the next one in the same environment; `terminal` says where.

    Attributes:
        boards: `[n_steps, n_envs, S, S]` uint8 labels before the move, in Black's frame.
        seats: `[n_steps, n_envs]` int64, who moves: 0 Black, 1 White.
        actions: `[n_steps, n_envs]` int64, in the mover's frame.
        rewards: `[n_steps, n_envs, 2]` float32, by seat: +1 and -1 on a game's last move, else 0.
        terminal: `[n_steps, n_envs]` bool, whether the move ended the game.
        logits: `[n_steps, n_envs, n_actions]` float32, log of the policy that the action was drawn
            from, in the mover's frame; nan where the agent states none.
        v: `[n_steps, n_envs, 2]` float32, what the agent thought the position worth, by seat; nan
            where it states nothing.
    """
    boards: np.ndarray
    seats: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminal: np.ndarray
    logits: np.ndarray
    v: np.ndarray

    @property
    def n_steps(self):
        """Moves in each environment."""
        return len(self.seats)

    @property
    def n_envs(self):
        """How many environments."""
        return self.seats.shape[1]

    def games(self):
        """The finished games as a list of (environment, first step, step after the last).

        They come in the order in which they ended.
        """
        begun, games = np.zeros(self.n_envs, int), []
        for step, env in np.argwhere(self.terminal).tolist():
            games.append((env, int(begun[env]), step + 1))
            begun[env] = step + 1
        return games


def rollout(worlds, agents, n_steps=None, n_trajs=None, n_reps=None, seed=0) -> Rollout:
    """Lets agents play, and keeps everything.

    Exactly one of the three ends is given. `n_trajs` ends with whichever games are quickest, so it
    favours short ones; `n_reps` does not.

    Args:
        worlds: where to start, such as `Hex.initial(n_envs, boardsize)`. It is not changed.
        agents: one for each seat, Black's first; or a single one that plays both. Called as
            ``agent(world, seed=, move=, games=)``.
        n_steps: moves to play in every environment.
        n_trajs: finished games, over all environments, to wait for.
        n_reps: finished games in each environment to wait for.
        seed: with the environment's number and the step it fixes every random choice.

    Raises:
        ValueError: no end or several are given, or the number of agents does not fit.
    """
    ends = {'n_steps': n_steps, 'n_trajs': n_trajs, 'n_reps': n_reps}
    given = {name: n for name, n in ends.items() if n is not None}
    if len(given) != 1 or min(given.values()) < 1:
        raise ValueError(f'give one of n_steps, n_trajs and n_reps, of at least 1; got {given}')
    if not worlds.n_envs:
        raise ValueError('worlds has no environments: nothing can be played')
    agents = list(agents) if isinstance(agents, (list, tuple)) else [agents]*worlds.n_seats
    if len(agents) != worlds.n_seats:
        raise ValueError(f'{len(agents)} agents for {worlds.n_seats} seats: give one a seat')

    steps, finished = [], np.zeros(worlds.n_envs, int)
    while not (len(steps) == n_steps
               or n_trajs and finished.sum() >= n_trajs
               or n_reps and finished.min() >= n_reps):
        decided = _decide(worlds, agents, seed, len(steps))
        before = worlds
        worlds, transition = before.step(decided['actions'])
        step = {'boards': before.board, 'seats': before.seats, 'rewards': transition.rewards,
                'terminal': transition.terminal, **decided}
        steps.append({name: tensor.cpu().numpy() for name, tensor in step.items()})
        finished += steps[-1]['terminal']
    return Rollout(**{name: np.stack([step[name] for step in steps]) for name in steps[0]})


def _decide(worlds, agents, seed, move):
    """Actions, logits and values of all environments, each decided by the agent of its mover."""
    n, device = worlds.n_envs, worlds.device
    decided = {'actions': torch.empty(n, dtype=torch.int64, device=device),
               'logits': torch.full((n, worlds.n_actions), torch.nan, device=device),
               'v': torch.full((n, worlds.n_seats), torch.nan, device=device)}
    alike = all(agent is agents[0] for agent in agents)
    for seat, agent in enumerate(agents[:1] if alike else agents):
        games = torch.arange(n, device=device)[(worlds.seats == seat) | alike]
        if len(games):
            decisions = agent(worlds[games], seed=seed, move=move, games=games.cpu().numpy())
            for name, values in decided.items():
                if hasattr(decisions, name):
                    values[games] = getattr(decisions, name).to(values)
    return decided


@dataclass(frozen=True)
class Game:
    """One finished game.

    Attributes:
        start: `[S, S]` uint8 labels before the first move.
        moves: a list of (seat, row, column) in Black's frame.
        winner: the seat that won.
    """
    start: np.ndarray
    moves: list
    winner: int

    def board(self, n_moves=None):
        """`[S, S]` uint8 after some of the moves, by default all; of the labels only the colours
        are meant."""
        board = self.start.copy()
        for seat, row, column in self.moves[:n_moves]:
            board[row, column] = 1 + seat
        return board

    def last(self, n_moves=None):
        """(row, column) of the last of so many moves, None before the first."""
        moves = self.moves[:n_moves]
        return moves[-1][1:] if moves else None

    def __repr__(self):
        size = len(self.start)
        return f'{size}x{size} Hex, {len(self.moves)} moves, {PLAYERS[self.winner]} won'


def record(worlds, agents, n_trajs=1, seed=0) -> 'Recording':
    """Lets agents play until `n_trajs` games have ended and keeps those; see :func:`rollout`."""
    return Recording.of(rollout(worlds, agents, n_trajs=n_trajs, seed=seed), n_trajs)


@dataclass(frozen=True)
class Recording:
    """Finished games: `games` is a list of :class:`Game`."""
    games: list

    @classmethod
    def of(cls, rollout, n_trajs=None):
        """The first `n_trajs` games that ended in a rollout, by default all that did."""
        games = []
        for env, start, stop in rollout.games()[:n_trajs]:
            size = rollout.boards.shape[-1]
            seats, actions = rollout.seats[start:stop, env], rollout.actions[start:stop, env]
            moves = [(int(seat), *drawing.board_cell(action, seat, size))
                     for seat, action in zip(seats, actions)]
            games.append(Game(rollout.boards[start, env], moves,
                              int(rollout.rewards[stop - 1, env].argmax())))
        if not games:
            raise ValueError('no game of this rollout has ended: let it play on')
        return cls(games)

    def notebook(self, rate=2) -> 'Player':
        """A player for a notebook or a page: play, pause, step, slide, from the keyboard too.

        It needs nothing from outside the page. Where scripts are off, it is a drawing of the last
        position.

        Args:
            rate: moves a second at first, .5 to 10.
        """
        return Player(self.games, rate)

    def svg(self, i=0, **kwargs) -> str:
        """The last position of game `i`, the winning move marked.

        Args:
            kwargs: as for :func:`boardlaw.hex.drawing.svg`.
        """
        return drawing.svg(self.games[i].board(), last=self.games[i].last(), **kwargs)

    def gif(self, path, rate=2, size=4, dpi=100):
        """Writes the games, one after the other, as an animated GIF.

        Args:
            path: of the file; replaced only once the film is whole.
            rate: moves a second; a game's last position stays for two seconds.
            size: width in inches, at `dpi` pixels an inch.
        """
        return self._film('pillow', path, rate, size, dpi)

    def mp4(self, path, rate=2, size=4, dpi=100):
        """Writes the games as an MP4 film; needs the program ffmpeg. See :meth:`gif`.

        Raises:
            RuntimeError: ffmpeg is not installed.
        """
        from matplotlib import animation
        if not animation.writers.is_available('ffmpeg'):
            raise RuntimeError('an mp4 needs the program ffmpeg, which is not on the path: install '
                               'it, or write a .gif')
        return self._film('ffmpeg', path, rate, size, dpi)

    def _film(self, encoder, path, rate, size, dpi):
        from matplotlib import animation, figure
        path = Path(path)
        scratch = path.with_name(f'.{os.getpid()}.{path.name}')
        fig = figure.Figure(dpi=dpi, facecolor='white')
        ax = drawing.plot(self.games[0].start, ax=fig.add_axes([0, 0, 1, 1]))
        aspect = abs(np.ptp(ax.get_ylim())/np.ptp(ax.get_xlim()))
        # Encoders want even numbers of pixels.
        fig.set_size_inches(*(2*round(side*dpi/2)/dpi for side in (size, size*aspect)))
        writer = animation.writers[encoder](fps=rate)
        try:
            with writer.saving(fig, str(scratch), dpi):
                for game in self.games:
                    for k in range(len(game.moves) + 1):
                        ax.clear()
                        drawing.plot(game.board(k), ax=ax, last=game.last(k))
                        for _ in range(round(2*rate) if k == len(game.moves) else 1):
                            writer.grab_frame(facecolor='white')
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
        return path


class Player:
    """Recorded games as HTML that plays by itself; what a notebook shows for `.notebook()`.

    Args:
        games: a list of :class:`Game`.
        rate: moves a second at first, .5 to 10.
    """

    def __init__(self, games, rate=2):
        if not .5 <= rate <= 10:
            raise ValueError(f'rate {rate}: moves a second must be from .5 to 10')
        self.games, self.rate = games, rate

    def html(self) -> str:
        """The player as a fragment of HTML; equal games give equal text."""
        shown = [self._one(game) for game in self.games]
        figures = ''.join(figure for figure, _ in shown)
        data = json.dumps([data for _, data in shown], separators=(',', ':'))
        name = hashlib.sha256(f'{figures}{data}{self.rate}'.encode()).hexdigest()[:12]
        script = (_SCRIPT.replace('NAME', name).replace('DATA', data)
                  .replace('COLOURS', json.dumps(drawing.STONE)))
        return (f'<div class="boardlaw-record" data-record="{name}"><style>{_STYLE}</style>'
                f'{figures}<script>{script}</script></div>')

    def _one(self, game):
        """The figure of a game, and what the script must know of it."""
        size, end = len(game.start), len(game.moves)
        names = [drawing.cell_name(row, column) for _, row, column in game.moves]
        spoken = ', '.join(f'{PLAYERS[seat]} {name}'
                           for (seat, _, _), name in zip(game.moves, names))
        # The drawing lists the stones of a colour by row and column.
        board = game.board()
        order = [sorted((r, c) for r, c in np.argwhere(board).tolist()
                        if board[r, c] in ((1, 3, 4), (2, 5, 6))[seat]) for seat in (0, 1)]
        moves = [[seat, order[seat].index((row, column)), name]
                 for (seat, row, column), name in zip(game.moves, names)]
        result = f'{PLAYERS[game.winner]} wins after {end} moves'
        figure = _FIGURE.format(
            label=escape(f'Recorded game, {size}x{size} Hex. Arrow keys step, space plays.'),
            board=drawing.svg(board, last=game.last()), end=end, result=result, rate=self.rate,
            spoken=escape(spoken))
        return figure, {'moves': moves, 'size': size, 'result': result}

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {'text/html': self.html(), 'text/plain': repr(self)}

    def __repr__(self):
        return '\n'.join(f'Player of {game}' for game in self.games)


# Controls stay hidden until the script has taken them up. Colours are the page's own, so that they
# read on a light and on a dark one.
_STYLE = '''
.boardlaw-record { display: flex; flex-wrap: wrap; gap: 1.5em }
.boardlaw-record figure { margin: 0; max-width: 100%; min-width: 15em }
.boardlaw-record figcaption { width: 0; min-width: 100% }
.boardlaw-record figure:focus-visible { outline: 2px solid currentColor; outline-offset: 4px }
.boardlaw-record [hidden] { display: none }
.boardlaw-record .controls { display: flex; flex-wrap: wrap; gap: .5em; align-items: center }
.boardlaw-record button { font: inherit; color: inherit; background: none; cursor: pointer;
  border: 1px solid currentColor; border-radius: .3em; padding: .1em .6em; min-width: 4em }
.boardlaw-record input { accent-color: currentColor; vertical-align: middle }
.boardlaw-record .place { flex: 1 1 100% }
.boardlaw-record .rate { width: 6em }
'''

_FIGURE = '''
<figure tabindex="0" role="group" aria-label="{label}">{board}
<figcaption><div class="controls" hidden>
<input class="place" type="range" min="0" max="{end}" value="{end}" aria-label="Move number">
<button type="button" class="back" aria-label="Step back">Back</button>
<button type="button" class="play">Play</button>
<button type="button" class="on" aria-label="Step forward">Next</button>
<label>Speed <input class="rate" type="range" min="0.5" max="10" step="0.5" value="{rate}"
title="moves a second"></label>
</div><div class="status" role="status">{result}</div>
<noscript>Scripts are off: this is the last position. The moves: {spoken}.</noscript>
</figcaption></figure>'''

_SCRIPT = '''
(() => {
const games = DATA, players = ['Black', 'White'], colours = COLOURS;
for (const root of document.querySelectorAll('[data-record="NAME"]:not([data-ready])')) {
  root.dataset.ready = '';
  root.querySelectorAll('figure').forEach((figure, i) => {
    const {moves, size, result} = games[i], end = moves.length;
    const get = selector => figure.querySelector(selector);
    const groups = [get('g.stone.black'), get('g.stone.white')];
    const stones = moves.map(([seat, order]) => groups[seat].children[order]);
    const last = get('g.last'), path = get('path.path'), title = get('svg title');
    const place = get('.place'), play = get('.play'), rate = get('.rate'), status = get('.status');
    const all = get('svg desc').textContent;
    let at = end, timer = null;

    const show = k => {
      at = Math.max(0, Math.min(end, k));
      stones.forEach((stone, n) => stone.style.display = n < at ? '' : 'none');
      path.style.display = at === end ? '' : 'none';
      last.style.display = at > 0 ? '' : 'none';
      if (at > 0) {
        for (const name of ['cx', 'cy'])
          last.firstElementChild.setAttribute(name, stones[at - 1].getAttribute(name));
        for (const name of ['fill', 'stroke'])
          last.setAttribute(name, colours[1 - moves[at - 1][0]]);
      }
      const text = at === end ? result : at === 0 ? `Before the first of ${end} moves`
        : `Move ${at} of ${end}: ${players[moves[at - 1][0]]} ${moves[at - 1][2]}`;
      place.value = at;
      place.setAttribute('aria-valuetext', text);
      status.textContent = text;
      title.textContent = `Hex board, ${size}x${size}. ${text}.`;
      get('svg desc').textContent = at === end ? all : '';
    };
    const pause = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = 'Play';
      status.setAttribute('aria-live', 'polite');
    };
    const start = () => {
      clearInterval(timer);
      if (at === end) show(0);
      play.textContent = 'Pause';
      status.setAttribute('aria-live', 'off');
      timer = setInterval(() => {
        show(at + 1);
        if (at === end) pause();
      }, 1000 / rate.value);
    };
    const toggle = () => timer === null ? start() : pause();
    const jump = k => { pause(); show(k); };

    play.onclick = toggle;
    get('.back').onclick = () => jump(at - 1);
    get('.on').onclick = () => jump(at + 1);
    place.oninput = () => jump(Number(place.value));
    rate.oninput = () => { if (timer !== null) start(); };
    figure.onkeydown = event => {
      const act = {ArrowLeft: () => jump(at - 1), ArrowRight: () => jump(at + 1),
                   Home: () => jump(0), End: () => jump(end), ' ': toggle}[event.key];
      // A slider or button that has the focus answers its own keys.
      if (event.target !== figure || !act || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      act();
    };
    get('.controls').hidden = false;
    show(end);
  });
}
})();
'''
