"""The solver as a whole: proofs within a budget, and the table of positions that they share."""
import threading
import time

import numpy as np

from . import solver_kernels as kernels
from .solver_patterns import MAX_SIZE, finished, geometry, settle

#: The largest board that is solved without a limit on the work: above, a position may take hours.
UNLIMITED = 6

#: Most bytes of a solver's table of positions. A smaller one costs time, never an answer.
MEMORY = 64*2**20

_SLICE = 20_000   # nodes between two looks at the clock, about a tenth of a second


class TooLarge(ValueError):
    """A board too large to be solved, or too large to be solved without a limit.

    What to do: give a limit of positions, or take a smaller board.
    """


class Budget:
    """What a position may cost.

    Args:
        boardsize: S; above 6 one of the limits is needed.
        max_nodes: most positions that the search may visit.
        seconds: most wall time.

    Raises:
        TooLarge: there is no limit, and the board is above 6x6.
    """

    def __init__(self, boardsize, max_nodes=None, seconds=None):
        for name, limit in (('max_nodes', max_nodes), ('seconds', seconds)):
            if limit is not None and not limit > 0:
                raise ValueError(f'{name} must be more than 0, or None for no limit; got {limit!r}')
        if boardsize > UNLIMITED and max_nodes is None and seconds is None:
            raise TooLarge(f'a {boardsize}x{boardsize} position can take hours: pass max_nodes= or '
                           'seconds= to get what is proved within that')
        self.nodes = float('inf') if max_nodes is None else max_nodes
        self.deadline = float('inf') if seconds is None else time.monotonic() + seconds

    def slice(self):
        """How many nodes to search before asking again; 0 if the budget is spent."""
        return max(0, int(min(self.nodes, _SLICE))) if time.monotonic() < self.deadline else 0


class Solver:
    """Proofs on one board size, and the table of positions that they share.

    The functions of :mod:`boardlaw.hex.solve` use one solver a board size; make your own to choose
    its memory or to start from nothing. One thread at a time uses it, the others wait. Sets of
    cells are whole numbers here: bit ``r*S + c`` is cell (r, c) as Black sees the board.

    Args:
        boardsize: S, up to 7.
        memory: most bytes of the table, which takes memory only as it fills.

    Attributes:
        nodes: positions visited so far.
    """

    def __init__(self, boardsize, memory=MEMORY):
        if not 1 <= boardsize <= MAX_SIZE:
            raise TooLarge(f'the solver takes boards up to {MAX_SIZE}x{MAX_SIZE}, got boardsize '
                           f'{boardsize}: larger ones are for an engine')
        slots = int(memory)//(8*kernels.N_COLUMNS)
        if slots < kernels.N_PROBES:
            raise ValueError(f'memory of {memory} bytes holds only {slots} positions')
        self.boardsize, self.nodes = boardsize, 0
        self._geometry = geometry(boardsize)
        self._table = np.zeros((1 << slots.bit_length() - 1, kernels.N_COLUMNS), np.uint64)
        self._path = kernels.new_path()
        self._lock = threading.Lock()

    def prove(self, black, white, seat, budget):
        """Who wins a position, and by which cells.

        Args:
            black, white: the stones.
            seat: whose turn it is.
            budget: a :class:`Budget`, which is drawn on.

        Returns:
            +1 if the mover wins, -1 if it loses, 0 if the budget is spent; and the winner's
            carrier: empty cells inside which it wins, whatever the loser owns elsewhere.
        """
        with self._lock:
            frames, _, limits = self._path
            frames[0, kernels.BLACK] = settle(np.uint64(black), np.uint64(white), self._geometry)
            frames[0, kernels.WHITE] = white
            limits[0, :2] = kernels.INFINITY
            nodes = depth = 0
            while depth >= 0:
                share = budget.slice()
                if not share:   # limits of zero end the path's frames, each saving what it knows
                    limits[:depth + 1, :2] = 0
                    share = 1
                before = nodes
                outcome, carrier, nodes, depth = kernels.search(
                    self._table, self._path, depth, seat == 0, nodes, nodes + share, self._geometry)
                budget.nodes -= nodes - before
            self.nodes += nodes
        return outcome, int(carrier)

    def outcomes(self, black, white, seat, order, budget):
        """Which moves of an unfinished position win: yields (move, as :meth:`prove` for the mover).

        Moves come in the order of ``order``, cells; those that are known to lose by then are left
        out.
        """
        # If the mover could pass and still win, every move wins; if not, only moves inside the
        # opponent's carrier can.
        passed, region = self.prove(black, white, 1 - seat, budget)
        for cell in order:
            move = 1 << int(cell)
            if passed == -1:
                yield move, 1
            elif passed == 0 or region & move:
                reply, carrier = self.prove(black | move*(seat == 0), white | move*(seat == 1),
                                            1 - seat, budget)
                if reply == 1:
                    region, passed = (region & carrier if passed == 1 else carrier), 1
                yield move, -reply

    def moves(self, black, white, seat, budget):
        """The position's value for its mover, as :meth:`prove`, and its winning moves, a set."""
        over = finished(np.uint64(black), np.uint64(white), self._geometry)
        if over:
            return over if seat == 0 else -over, 0
        empty = [a for a in range(self.boardsize**2) if not (black | white) >> a & 1]
        outcomes = list(self.outcomes(black, white, seat, empty, budget))
        winning = sum(move for move, outcome in outcomes if outcome == 1)
        unknown = any(outcome == 0 for _, outcome in outcomes)
        return (1 if winning else 0 if unknown else -1), winning
