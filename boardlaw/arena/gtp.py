"""A client for Hex engines that speak GTP, the Go Text Protocol, version 2, over a pipe.

    with gtp.Engine(['mohex', '--use-logfile=0']) as engine:
        engine.boardsize(9)
        engine.play(0, (4, 4))              # Black, at e5
        row, column = engine.genmove(1)     # White's answer

Cells are named as HexGui and MoHex name them: a letter for the column, a number for the row, so a1
is row 0, column 0, at the top left of our drawings. No letter is left out (in Go there is no i).
Seat 0, 'black', joins top to bottom, the rows 1 and S; seat 1, 'white', joins left to right, the
columns a and the last. A cell's neighbours are ours: b2 touches b1, c1, a2, c2, a3 and b3.
"""
import os
import re
import shlex
import time
from itertools import zip_longest
from pathlib import Path

from ..hex.worlds import LABELS
from .pipes import Program

#: What the seats are called.
COLOURS = ('black', 'white')

_COMMAND = 4096     # characters of the longest command
_ANSWER = 1 << 20   # and of the longest answer


class EngineError(RuntimeError):
    """An engine that could not be started, died, fell silent, refused, or answered nonsense.

    What to do: see whether the program is installed and can be started by hand; its message is
    quoted. Games that were played before are saved.

    After a refusal ('?' in the protocol) the engine can go on. After anything else it has been
    closed, for what it says next could be the answer to anything.

    Attributes:
        engine: its name.
        command: what it was told.
        said: its answer, as far as there was one.
    """

    def __init__(self, engine, command, problem, said=''):
        super().__init__(f'{engine}: {command!r}: {problem}')
        self.engine, self.command, self.said = engine, command, said


def vertex(cell):
    """A cell's name.

    >>> vertex((0, 2))
    'c1'
    """
    row, column = cell
    return f'{chr(ord("a") + column)}{row + 1}'


def parse(text, boardsize):
    """The (row, column) that a name, ``text``, stands for; ValueError if there is no such cell.

    >>> parse('c1', boardsize=9)
    (0, 2)
    """
    found = re.fullmatch('([a-z])([1-9][0-9]?)', text.lower())
    if not found:
        raise ValueError(f'{text!r} names no cell: a letter and a number do, as in a1')
    cell = int(found[2]) - 1, ord(found[1]) - ord('a')
    if max(cell) >= boardsize:
        raise ValueError(f'{text} is not on the {boardsize}x{boardsize} board')
    return cell


def to_cell(action, seat, boardsize):
    """The (row, column) that an action of ``seat`` stands for, which is in the mover's frame."""
    row, column = divmod(action, boardsize)
    return (row, column) if seat == 0 else (column, row)


def to_action(cell, seat, boardsize):
    """The action of ``seat`` for a cell, (row, column): the inverse of :func:`to_cell`.

    >>> to_action((0, 2), seat=0, boardsize=9), to_action((0, 2), seat=1, boardsize=9)
    (2, 18)
    """
    row, column = cell if seat == 0 else cell[::-1]
    return row*boardsize + column


def stones(world):
    """{(row, column): seat} of a world's first game."""
    rows = world.board[0].tolist()
    return {(r, c): int(LABELS[x] not in 'bTB') for r, row in enumerate(rows)
            for c, x in enumerate(row) if x}


class Engine:
    """A running engine; close it with :meth:`close`, or use it in a ``with`` block.

    Args:
        command: the program and its arguments, a list, or a string as a shell would split it.
        cwd: the folder that it runs in.
        timeout: seconds that it has for an answer, where a call names no other.
        setup: commands that it is told once it has started.

    Attributes:
        name, version: what it calls itself.
        size: cells along an edge of its board, None before :meth:`boardsize`.
        moves: the ``(seat, cell)`` on its board, in order.

    Raises:
        EngineError: from here, and from every method that talks to the engine.
    """

    def __init__(self, command, cwd=None, timeout=60., setup=()):
        self.command = (shlex.split(command) if isinstance(command, str)
                        else [os.fspath(x) for x in command])
        self.name, self.version, self.timeout = Path(self.command[0]).name, '', timeout
        self.size, self.moves, self._problem = None, [], 'it was closed'
        try:
            self._program = Program(self.command, cwd, farewell='quit')
        except OSError as e:
            raise EngineError(self.name, shlex.join(self.command), 'the engine cannot be started: '
                              f'{e}. Is it installed, and is its path right?') from e
        try:
            for field in ('name', 'version'):
                setattr(self, field, self.send(field))
            for line in setup:
                self.send(line)
        except BaseException:
            self.close()
            raise

    def send(self, command, timeout=None):
        """The engine's answer to a command, without the '='; lines are joined by newlines."""
        if not command.strip() or set(command) & set('\r\n#') or len(command) > _COMMAND:
            raise ValueError(f'{command[:80]!r} is not a command: it must be one line of up to '
                             f'{_COMMAND} characters, without #')
        if self.closed:
            raise EngineError(self.name, command, f'the engine is not running: {self._problem}')
        if said := self._program.unread():
            raise self._broken(command, 'something that nothing had asked for came before', said)
        self._program.write(command)
        answer = self._answer(command, self.timeout if timeout is None else timeout)
        text = '\n'.join(line.rstrip() for line in answer[1:].removeprefix(' ').splitlines())
        text = text.strip('\n') if '\n' in text else text.strip()
        if answer[0] == '?':
            raise EngineError(self.name, command, f'it refuses: {text or "no reason given"}', text)
        return text

    def _answer(self, command, timeout):
        """The lines up to an empty one; the first begins with '=' or '?'."""
        deadline, said = time.monotonic() + timeout, ''
        while len(said) < _ANSWER:
            try:
                line = self._program.read(deadline)
            except TimeoutError:
                raise self._broken(command, f'no whole answer within {timeout:g} s', said) from None
            if line == '':
                raise self._broken(command, 'the engine ended before its answer did', said)
            if said and not line.strip('\r\n'):
                return said
            if said or line.strip():
                said += line
                if said[0] not in '=?':
                    raise self._broken(command, "an answer begins with '=' or '?'", said)
        raise self._broken(command, f'the answer has more than {_ANSWER} characters', said)

    def _broken(self, command, problem, said):
        """Ends an engine that is out of step; the error to raise."""
        if (status := self._program.status) is not None:
            problem += f' (exit status {status})'
        self._program.kill()
        self._problem = f'at {command!r}, {problem}'
        problem += f'; it said {said.strip()[:200]!r}' if said else ''
        if errors := self._program.errors:
            problem += f'; its error output ends with:\n{errors}'
        return EngineError(self.name, command, problem, said)

    def knows(self, command):
        """Whether the engine has a command of this name."""
        return self.send(f'known_command {command}').lower() == 'true'

    def boardsize(self, size):
        """Starts a game on a board of ``size`` cells along an edge."""
        self.send(f'boardsize {size}')
        self.size = int(size)
        self.clear_board()

    def clear_board(self):
        """Starts a new game on a board of the same size."""
        self.send('clear_board')
        self.moves = []

    def play(self, seat, cell):
        """Places a stone of ``seat`` (0 Black, 1 White) at ``cell``, a (row, column)."""
        self.send(f'play {COLOURS[seat]} {vertex(cell)}')
        self.moves.append((seat, tuple(cell)))

    def genmove(self, seat, timeout=None):
        """Has the engine choose and place a stone of ``seat``: its (row, column), or None if it
        resigns."""
        if self.size is None:
            raise ValueError('the engine has no board to move on: call boardsize first')
        command = f'genmove {COLOURS[seat]}'
        said = self.send(command, timeout)
        if said.lower() == 'resign':
            return None
        try:
            cell = parse(said, self.size)
            if cell in self.stones:
                raise ValueError(f'{said} holds a stone')
        except ValueError as e:
            swap = ' (there is no swap rule here)' if said.lower().startswith('swap') else ''
            raise self._broken(command, f'not a legal move{swap}: {e}', said) from e
        self.moves.append((seat, cell))
        return cell

    def undo(self):
        """Takes the last stone back."""
        self.send('undo')
        self.moves.pop()

    def showboard(self):
        """The engine's own drawing of its board."""
        return self.send('showboard')

    def final_score(self):
        """Who has won by the engine's rules: MoHex says 'B+', 'W+' or 'cannot score'."""
        return self.send('final_score')

    @property
    def stones(self):
        """{(row, column): seat} of its board."""
        return {cell: seat for seat, cell in self.moves}

    def leads_to(self, world):
        """Whether adding stones to the engine's board can give the first game of ``world``."""
        return self.size == world.boardsize and self.stones.items() <= stones(world).items()

    def set_position(self, world):
        """Brings the engine's board to the first game of ``world``, from where it is if it can.

        A world does not know the order of its moves, so the missing stones are placed in turns.
        """
        if self.size != world.boardsize:
            self.boardsize(world.boardsize)
        elif not self.leads_to(world):
            self.clear_board()
        missing = stones(world).items() - self.stones.items()
        by_seat = [sorted(cell for cell, seat in missing if seat == wanted) for wanted in (0, 1)]
        for cells in zip_longest(*by_seat):
            for seat, cell in enumerate(cells):
                if cell is not None:
                    self.play(seat, cell)

    @property
    def closed(self):
        """Whether the engine has ended, or was ended."""
        return self._program.closed

    def close(self):
        """Ends the engine: by 'quit', then by the system's request, then by force."""
        self._program.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __repr__(self):
        state = ', closed' if self.closed else ''
        return f'Engine({shlex.join(self.command)!r}: {self.name} {self.version}{state})'
