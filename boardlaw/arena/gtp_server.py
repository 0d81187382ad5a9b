"""Our players as a GTP engine: `python -m boardlaw gtp`, for HexGui and whatever speaks GTP.

Cells, seats and colours are those of :mod:`boardlaw.arena.gtp`. Commands are those that HexGui and
MoHex's own scripts use. There is no swap rule, and a game ends when two edges are joined.
"""
import inspect
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from ..hex import Hex
from ..hex.solve import PerfectPlayer
from ..hex.worlds import BOARDSIZES, PLAYERS
from . import common, gtp
from .matches import RandomAgent

#: The largest boards that the solver plays on: as hard as it can in lost positions, and at all.
RESISTS, SOLVES = 5, 6


class Refusal(ValueError):
    """What the answer is that begins with '?'.

    What to do: send a command that `list_commands` has, with the arguments that the message asks
    for.
    """


class Server:
    """Answers GTP commands, one game at a time.

    Args:
        player: called with a board size, gives the agent that plays there; ValueError if there is
            none.
        name: what the engine calls itself.
        boardsize: the board that it starts with.
        seed: with the number of the game and of the move it determines the agent's choices.
    """

    def __init__(self, player, name='boardlaw', boardsize=3, seed=0):
        self.player, self.engine_name, self.seed = player, name, seed
        self.quitting, self.game = False, -1
        self.commands = {x.removeprefix('do_'): getattr(self, x) for x in dir(self)
                         if x.startswith('do_')}
        self.commands['hexgui-analyze_commands'] = lambda: ''
        self.do_boardsize(boardsize)

    def answer(self, line):
        """The answer to a line; None for a comment or an empty line."""
        line = ''.join(x for x in line.replace('\t', ' ') if x >= ' ').partition('#')[0]
        number, words = re.fullmatch(r'\s*(\d*)(.*)', line).groups()
        name, *arguments = words.split() or ['']
        if not name:
            return None
        try:
            status, text = '=', self._run(name, arguments)
        except (ValueError, RuntimeError) as e:
            status, text = '?', str(e)
        # An empty line ends an answer, so it holds none; HexGui wants the space after the '='.
        text = re.sub(r'\n(?=\n)', '\n ', text.rstrip('\n'))
        return f'{status}{number} {text}\n\n'

    def _run(self, name, arguments):
        if name not in self.commands:
            raise Refusal('unknown command')
        command = self.commands[name]
        try:
            inspect.signature(command).bind(*arguments)
        except TypeError as e:
            raise Refusal(f'{name}: {e}') from e
        return command(*arguments) or ''

    def serve(self, lines, out):
        """Writes the answer to each of ``lines`` to ``out``, until 'quit' or the end."""
        for line in lines:
            if (text := self.answer(line)) is not None:
                out.write(text)
                out.flush()
            if self.quitting:
                break

    def do_protocol_version(self):
        return '2'

    def do_name(self):
        return self.engine_name

    def do_version(self):
        try:
            return version('boardlaw')
        except PackageNotFoundError:    # a checkout that nobody installed
            return 'unknown'

    def do_list_commands(self):
        return '\n'.join(sorted(self.commands))

    def do_known_command(self, name):
        return 'true' if name in self.commands else 'false'

    def do_quit(self):
        self.quitting = True

    def do_boardsize(self, width, height=None):
        size, other = (self._size(x) for x in (width, width if height is None else height))
        if size != other:
            raise Refusal(f'unacceptable size: {size}x{other} is not square')
        try:
            self.agent = self.player(size)
        except ValueError as e:
            raise Refusal(f'unacceptable size: {e}') from e
        self.size = size
        self.do_clear_board()

    @staticmethod
    def _size(text):
        if not str(text).isdecimal() or int(text) not in BOARDSIZES:
            raise Refusal(f'unacceptable size: {text} is not a whole number from {BOARDSIZES[0]} '
                          f'to {BOARDSIZES[-1]}')
        return int(text)

    def do_clear_board(self):
        self.moves, self.game = [], self.game + 1

    def do_play(self, colour, vertex):
        seat = self._seat(colour)
        self._open()
        try:
            cell = gtp.parse(vertex, self.size)
        except ValueError as e:
            raise Refusal(f'illegal move: {e}') from e
        if cell in dict(self.moves):
            raise Refusal(f'illegal move: {vertex} holds a stone')
        self.moves.append((cell, seat))

    def do_genmove(self, colour):
        move = self.do_reg_genmove(colour)
        self.do_play(colour, move)
        return move

    def do_reg_genmove(self, colour):
        self._open()
        world = self._world(self._seat(colour))
        action = self.agent(world, seed=self.seed, move=len(self.moves), games=[self.game]).actions
        return gtp.vertex(gtp.to_cell(int(action[0]), int(world.seats[0]), self.size))

    def do_undo(self):
        if not self.moves:
            raise Refusal('cannot undo: the board is empty')
        self.moves.pop()

    def do_showboard(self):
        letters = ' '.join(gtp.vertex((0, c))[0] for c in range(self.size))
        rows = [f'{" "*r}{r + 1:2d} {line.strip()} {r + 1}' for r, line in
                enumerate(self._text().splitlines())]
        return '\n'.join(['', f'   {letters}', *rows, f'{" "*self.size}   {letters}',
                          'b joins top to bottom, w left to right'])

    def do_final_score(self):
        return {0: 'B+', 1: 'W+', -1: 'cannot score'}[self._winner()]

    def do_all_legal_moves(self):
        cells = [(r, c) for r in range(self.size) for c in range(self.size)]
        taken = cells if self._winner() >= 0 else dict(self.moves)
        return ' '.join(gtp.vertex(cell) for cell in cells if cell not in taken)

    def _seat(self, colour):
        for seat, name in enumerate(gtp.COLOURS):
            if colour.lower() in (name, name[0]):
                return seat
        raise Refusal(f'{colour} is no colour: say black or white')

    def _text(self):
        stones = dict(self.moves)
        return '\n'.join(' '*r + ' '.join('.bw'[stones.get((r, c), -1) + 1]
                                          for c in range(self.size)) for r in range(self.size))

    def _world(self, seat):
        return Hex.parse(self._text(), seat)

    def _winner(self):
        return int(self._world(0).winner[0])

    def _open(self):
        if (winner := self._winner()) >= 0:
            raise Refusal(f'the game is over: {PLAYERS[winner]} has won')


def player(name, snapshot=None, n_nodes=None, argmax=False):
    """What :class:`Server` plays with: 'solver', 'random', or the agent of a run.

    Args:
        name: one of the two, or what :func:`boardlaw.arena.common.agent` takes for a run.
        snapshot, n_nodes, argmax: of a run's agent.

    Returns:
        A function from board sizes to agents, the name to show, and the board size to start with.
    """
    if name in ('random', 'solver'):
        if snapshot is not None or n_nodes is not None or argmax:
            raise ValueError(f"a snapshot, nodes and argmax are a run's, not the {name} player's")
        return {'random': _random, 'solver': _solver}[name], f'boardlaw {name}', 3
    agent = common.agent(name, snapshot, n_nodes=n_nodes, argmax=argmax)

    def on(boardsize):
        if boardsize != agent.network.boardsize:
            raise ValueError(f'this agent plays {agent.network.boardsize}x'
                             f'{agent.network.boardsize} only')
        return agent

    shown = f'boardlaw {name}' + ('' if snapshot is None else f' {snapshot}')
    return on, shown, agent.network.boardsize


def _random(boardsize):
    return RandomAgent()


def _solver(boardsize):
    if boardsize > SOLVES:
        raise ValueError(f'the solver plays up to {SOLVES}x{SOLVES}')
    return PerfectPlayer('resist' if boardsize <= RESISTS else 'random')


def main(name, boardsize=None, seed=0, **options):
    """Serves on this process's standard input and output; all other printing goes to standard
    error.

    Args:
        name, options: as for :func:`player`.
        boardsize, seed: as for :class:`Server`; by default the player's own board.
    """
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        make, shown, default = player(name, **options)
        Server(make, shown, default if boardsize is None else boardsize, seed).serve(sys.stdin, out)
    except BrokenPipeError:     # who asked has gone; nothing is left to be written at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    finally:
        sys.stdout = out
