"""Games in a notebook: one to play against an agent, one between two agents to look at."""
from html import escape

import numpy as np

from .. import analysis
from .. import play as boards
from ..hex import BadAction, Hex, drawing
from ..hex.worlds import PLAYERS
from ..networks import Network
from . import views


class Play(views.View):
    """A game of the reader's against an agent.

    Its buttons call the methods below, which a program may call too. Where nobody sits in front of
    the notebook, and in a stored page, it is the board of :func:`boardlaw.play.page` with the
    agent's network in it, playable without a kernel; for an agent that has none, a recording of
    the agent against itself.

    Args:
        agent, world, seat, seed, live: as for :func:`play`.

    Attributes:
        agent: the opponent.
        seat: the reader's colour.
        seed: of the agent's choices in this game; every new game has the next one.
        worlds: the positions so far, the first one the start.
        actions: what led from one to the next, in the mover's frame.
    """

    def __init__(self, agent, world, seat=0, seed=0, live=True):
        super().__init__(live)
        views.check_one(world)
        if seat not in (0, 1):
            raise ValueError(f'seat must be 0 (Black) or 1 (White), got {seat!r}')
        self.agent, self.seat, self.seed = agent, seat, seed
        self.worlds, self.actions = [world], []
        self._hint, self._shown = False, lambda status=None: None
        self._reply()

    @property
    def world(self):
        """The position now, a world of one game."""
        return self.worlds[-1]

    @property
    def winner(self):
        """The seat that has won, None while the game is open."""
        winner = int(self.world.winner[0])
        return None if winner < 0 else winner

    def choose(self, row, column):
        """Places the reader's stone and lets the agent reply.

        Args:
            row, column: of the cell in Black's frame, from 0.

        Raises:
            BadAction: the cell is taken or off the board, or the game is over. Nothing is changed
                then, nor if the agent fails.
        """
        size = self.world.boardsize
        if not (0 <= row < size and 0 <= column < size):
            raise BadAction(f'row {row}, column {column}: the board has rows and columns 0 to '
                            f'{size - 1}')
        if self.winner is not None:
            raise BadAction(f'the game is over, {PLAYERS[self.winner]} has won: start a new one')
        before = len(self.actions)
        self._step(column*size + row if self.seat else row*size + column)
        try:
            self._reply()
        except Exception:
            self._back_to(before)
            raise
        self._shown()

    def undo(self):
        """Takes back the reader's last move and the agent's reply, if there was one."""
        turns = [k for k in range(len(self.actions)) if int(self.worlds[k].seats[0]) == self.seat]
        if turns:
            self._back_to(turns[-1])
        self._shown()

    def new(self, seat=None):
        """Starts again.

        Args:
            seat: the reader's colour, by default the same.
        """
        self.seat = self.seat if seat is None else seat
        self.seed += 1
        self._back_to(0)
        self._reply()
        self._shown()

    def advice(self):
        """What the agent thinks of the reader's turn: its decision, None if the game is over."""
        return None if self.winner is not None else self._decide()

    def status(self) -> str:
        """Whose turn it is or who has won, and the last move, in words."""
        if self.winner is not None:
            return (f'{PLAYERS[self.winner]} has won: '
                    f'{"you" if self.winner == self.seat else "the agent"}.')
        last = self._last()
        moved = f'{drawing.cell_name(*last)} was played. ' if last else ''
        return f'{moved}Your turn, {PLAYERS[self.seat]}.'

    def html(self) -> str:
        """The game as a page keeps it: a board with the agent's network, or a recording."""
        if not self.worlds[0].board.any():
            try:
                return boards.page(self.agent).html()
            except ValueError:
                pass  # its weights cannot go into a page
        return analysis.record(self.worlds[0], self.agent, seed=self.seed).notebook().html()

    def __repr__(self):
        return f'Play({self.agent!r}): {self.status()}'

    def _decide(self):
        return self.agent(self.world, seed=self.seed, move=len(self.actions))

    def _step(self, action):
        world, _ = self.world.step([action], reset=False)
        self.worlds.append(world)
        self.actions.append(int(action))

    def _reply(self):
        while self.winner is None and int(self.world.seats[0]) != self.seat:
            self._shown('The agent is thinking.')
            self._step(int(self._decide().actions[0]))

    def _back_to(self, n):
        del self.actions[n:], self.worlds[n + 1:]

    def _last(self):
        if self.actions:
            return drawing.board_cell(self.actions[-1], int(self.worlds[-2].seats[0]),
                                      self.world.boardsize)

    def _drawn(self):
        """How to draw the position, with the hint if it is wanted; and the words of the hint."""
        drawn, words = {'last': self._last()}, ''
        decision = self.advice() if self._hint else None
        if hasattr(decision, 'logits'):
            policy = decision.logits[0].exp().cpu().numpy()
            drawn['heat'] = drawing.to_board_frame(policy, self.seat)
            words = f'The agent would play {views.policy_words(self.world, policy, 3)}. '
        if hasattr(decision, 'v'):
            words += f'Your chance to win, it thinks: {views.share(decision.v[0, self.seat])}.'
        return drawn, words or ('This agent says no more than its moves.' if decision else '')

    def _make(self, ipywidgets):
        board = views.Board(ipywidgets, self.world.boardsize,
                            lambda row, column: act(lambda: self.choose(row, column)))
        line, hint = ipywidgets.HTML(), ipywidgets.ToggleButton(
            description='Hint', tooltip='Show what the agent thinks')
        colour = ipywidgets.ToggleButtons(options=[('Play Black', 0), ('Play White', 1)],
                                          value=self.seat, tooltips=['joins top to bottom',
                                                                     'joins left to right'])
        new, undo = (ipywidgets.Button(description=text, tooltip=tip) for text, tip in [
            ('New game', 'Start again'), ('Undo', 'Take back your last move')])

        def show(status=None):
            thinking = status is not None
            drawn, words = ({'last': self._last()}, '') if thinking else self._drawn()
            board.show(self.world, open=not thinking and self.winner is None, **drawn)
            line.value = views.status(status or f'{self.status()} {words}')
            undo.disabled = not self.actions

        def act(change):
            try:
                change()
            except Exception as error:  # a callback's exception would be shown nowhere
                show()
                line.value = views.status(f'{type(error).__name__}: {error}')

        def set_hint(change):
            self._hint = change['new']
            show()

        new.on_click(lambda _: act(self.new))
        undo.on_click(lambda _: act(self.undo))
        colour.observe(lambda change: act(lambda: self.new(change['new'])), 'value')
        hint.observe(lambda change: act(lambda: set_hint(change)), 'value')
        self._shown = show
        show()
        self.controls = {'new': new, 'undo': undo, 'hint': hint, 'colour': colour, 'status': line,
                         'cells': board.buttons}
        row = ipywidgets.HBox([new, undo, hint], layout={'flex_flow': 'row wrap'})
        return ipywidgets.VBox([colour, board.widget, line, row])


class Watch(views.View):
    """A game between two agents, to step through, with what the mover thought.

    In a stored page it is the recording of :meth:`boardlaw.analysis.Recording.notebook`, which
    plays without a kernel.

    Args:
        black, white, world, seed, live: as for :func:`watch`.

    Attributes:
        seed: of the game that is shown.
        rollout: that game as arrays, a :class:`~boardlaw.analysis.Rollout`.
    """

    def __init__(self, black, white, world, seed=0, live=True):
        super().__init__(live)
        views.check_one(world)
        self.agents, self.start = [black, white], world
        self.next(seed)

    def next(self, seed=None):
        """Lets the agents play a game.

        Args:
            seed: by default the one after that of the last game.
        """
        self.seed = self.seed + 1 if seed is None else seed
        self.rollout = analysis.rollout(self.start, self.agents, n_trajs=1, seed=self.seed)
        self.game, = analysis.Recording.of(self.rollout).games

    def at(self, n_moves) -> tuple:
        """(drawing, words) of the position after `n_moves`, and of what was thought there."""
        n_moves, end = int(n_moves), len(self.game.moves)
        drawn, words = {'last': self.game.last(n_moves)}, ''
        if n_moves < end:
            seat, row, column = self.game.moves[n_moves]
            words = f'{PLAYERS[seat]} to move, and will play {drawing.cell_name(row, column)}.'
            logits, v = self.rollout.logits[n_moves, 0], self.rollout.v[n_moves, 0]
            if not np.isnan(logits).all():
                drawn['heat'] = drawing.to_board_frame(np.exp(logits), seat)
            if not np.isnan(v).any():
                words += f' It thinks its chance to win is {views.share(v[seat])}.'
        else:
            words = f'{PLAYERS[self.game.winner]} has won after {end} moves.'
        return drawing.svg(self.game.board(n_moves), **drawn), words

    def html(self) -> str:
        """The recorded game, which plays in any page."""
        return analysis.Recording([self.game]).notebook().html()

    def __repr__(self):
        return f'Watch({self.game!r}: {self.agents[0]!r} as Black, {self.agents[1]!r} as White)'

    def _make(self, ipywidgets):
        board, line = ipywidgets.HTML(), ipywidgets.HTML()
        place = ipywidgets.IntSlider(description='Move', max=len(self.game.moves))
        run = ipywidgets.Play(interval=800, max=place.max, description='Play')
        again = ipywidgets.Button(description='Next game', tooltip='Let the agents play again')
        ipywidgets.jslink((run, 'value'), (place, 'value'))

        def show(_=None):
            picture, words = self.at(place.value)
            board.value, line.value = picture, views.status(words)

        def new_game(_):
            again.disabled, again.description = True, 'Playing'
            try:
                self.next()
                place.max = run.max = len(self.game.moves)
                place.value = run.value = 0
                show()
            except Exception as error:  # a callback's exception would be shown nowhere
                line.value = views.status(f'{type(error).__name__}: {error}')
            again.disabled, again.description = False, 'Next game'

        place.observe(show, 'value')
        again.on_click(new_game)
        show()
        self.controls = {'move': place, 'next': again, 'board': board, 'status': line}
        row = ipywidgets.HBox([run, place, again], layout={'flex_flow': 'row wrap'})
        names = [f'{name}: {escape(repr(agent))}' for name, agent in zip(PLAYERS, self.agents)]
        title = ipywidgets.HTML(f'<div style="line-height:1.4">{"<br>".join(names)}</div>')
        return ipywidgets.VBox([title, row, board, line])


def play(agent=None, boardsize=None, world=None, seat=0, seed=0, live=True) -> Play:
    """A board to play on against an agent; the value of a notebook's cell.

    Args:
        agent: an :class:`~boardlaw.mcts.MCTSAgent`, a
            :class:`~boardlaw.hex.solve.PerfectPlayer`, or anything that is called as
            ``agent(world, seed=, move=)`` and returns ``actions``. By default the one that comes
            with the package for the largest board.
        boardsize: S; by default that of the agent's network.
        world: a position to start from, one game; by default the empty board.
        seat: the reader's colour at first, 0 Black or 1 White.
        live: False for the picture alone, which a stored page shows.

    Raises:
        ValueError: the agent plays on any board, and no board size was given.
        BadSearch: the world is not one open game.

    >>> game = play(seat=0, live=False)
    >>> game.choose(2, 2)                    # the middle of a 5x5 board, and the agent replies
    >>> len(game.actions)
    2
    """
    agent = boards.agent(boardsize) if agent is None else agent
    return Play(agent, _start(world, boardsize, agent), seat, seed, live)


def watch(black, white=None, boardsize=None, world=None, seed=0, live=True) -> Watch:
    """A game between two agents, with what each thought of its moves.

    Args:
        black, white: as `agent` for :func:`play`; one alone plays itself.
        boardsize, world, live: as for :func:`play`.

    Raises:
        ValueError: no agent has a network, and no board size was given.
    """
    white = black if white is None else white
    return Watch(black, white, _start(world, boardsize, black, white), seed, live)


def _start(world, boardsize, *agents):
    """The position to start from."""
    networks = [x.network for x in agents if isinstance(getattr(x, 'network', None), Network)]
    sizes = {x.boardsize for x in [*networks, *([] if world is None else [world])]}
    sizes |= set() if boardsize is None else {boardsize}
    if len(sizes) != 1:
        raise ValueError(f'the agents, boardsize and world are for boards of sizes {sorted(sizes)}:'
                         ' they must agree' if sizes else
                         'the agents play on any board: pass boardsize')
    device = next(networks[0].parameters()).device if networks else 'cpu'
    return Hex.initial(1, *sizes, device) if world is None else world
