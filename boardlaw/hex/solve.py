"""Exact truth on small boards: who wins a position, and by which moves.

The search is a depth-first proof-number search with must-play regions, virtual connections and dead
cells (:mod:`boardlaw.hex.solver_kernels`). Its table of positions is kept between calls, so that
many positions of one board size cost little more than a few.

`python -m boardlaw.hex.solve --openings 6` prints who wins after each first move; with `--write` it
makes the table that the package ships, boardlaw/data/openings6.json.

Explained in the chapter book/calibration.ipynb.
"""
import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numba
import numpy as np
import torch

from .. import rng
from .solver import Budget, Solver, TooLarge
from .solver_patterns import MAX_SIZE
from .worlds import LABELS, BadBoard

__all__ = ['Decisions', 'PerfectPlayer', 'Solution', 'Solver', 'TooLarge', 'openings', 'solve',
           'values', 'winner']

_shared = cache(Solver)


class Solution(NamedTuple):
    """The truth about a batch of positions.

    Attributes:
        values: `[n_envs]` int64, +1 if the mover wins, -1 if it loses, 0 if a limit came first. On
            a finished board the mover has won or lost already.
        winning: `[n_envs, S*S]` bool in the mover's frame: True for every move that wins (under a
            limit: that was proved to). All False on a finished board.
    """
    values: torch.Tensor
    winning: torch.Tensor


def winner(board, mover=None, max_nodes=None, seconds=None, solver=None):
    """Who wins a position if both sides play perfectly: 0 Black, 1 White, None if not known.

    Args:
        board: `[S, S]` labels (0 empty; 1, 3, 4 black; 2, 5, 6 white), or a world of one game.
        mover: whose turn it is, 0 Black or 1 White; a world knows.
        max_nodes, seconds, solver: as for :func:`values`, whose errors it raises too.
    """
    _, positions, swapped = _positions(board, mover)
    if len(positions) != 1:
        raise BadBoard(f'winner takes one board, got {len(positions)}: use values for several')
    value = int(values(board, mover, max_nodes, seconds, solver))
    seat = positions[0][2] ^ swapped[0]
    return None if value == 0 else seat if value == 1 else 1 - seat


def values(world, seats=None, max_nodes=None, seconds=None, solver=None):
    """Whether each position's mover wins: `[n_envs]` int64, +1 or -1, 0 if a limit came first.

    On a finished board the mover has won or lost already.

    Args:
        world: a :class:`~boardlaw.hex.Hex` world, or `[n_envs, S, S]` labels (0 empty; 1, 3, 4
            black; 2, 5, 6 white).
        seats: `[n_envs]` ints, or one for all, whose turn it is: 0 Black, 1 White; a world knows.
        max_nodes, seconds: limits on the work for each position; boards above 6x6 need one.
        solver: a :class:`Solver`; by default the one that all calls share.

    Raises:
        BadBoard: the labels, their shape or the seats make no position.
        TooLarge: the board is above 7x7, or above 6x6 and nothing limits the work.
    """
    boardsize, positions, _ = _positions(world, seats)
    found = _each(boardsize, positions, max_nodes, seconds, solver, Solver.prove)
    return torch.tensor([value for value, _ in found], dtype=torch.int64).to(_device(world))


def solve(world, seats=None, max_nodes=None, seconds=None, solver=None):
    """The value of each position and all its winning moves, which costs more than the value alone.

    Takes and raises what :func:`values` does.

    Returns:
        A :class:`Solution`: ``values, winning = solve(world)``.
    """
    boardsize, positions, _ = _positions(world, seats)
    found = _each(boardsize, positions, max_nodes, seconds, solver, Solver.moves)
    sets = np.array([winning for _, winning in found], np.uint64)
    cells = np.arange(boardsize**2, dtype=np.uint64)
    winning = (sets[:, None] >> cells & np.uint64(1)).astype(bool)
    grid = winning.reshape(len(sets), boardsize, boardsize)
    white = np.array([seat == 1 for _, _, seat in positions], bool)
    grid[white] = grid[white].transpose(0, 2, 1)
    result = torch.tensor([value for value, _ in found], dtype=torch.int64)
    return Solution(result.to(_device(world)), torch.as_tensor(winning).to(_device(world)))


def _each(boardsize, positions, max_nodes, seconds, solver, method):
    """``method`` of the solver for each position, worked out once if positions repeat."""
    Budget(boardsize, max_nodes, seconds)   # its errors come before any work, and with no position
    known = _stored(boardsize) if solver is None else {}
    solver = _solver(boardsize, solver)
    found = {p: known.get(p) or method(solver, *p, Budget(boardsize, max_nodes, seconds))
             for p in dict.fromkeys(positions)}
    return [found[p] for p in positions]


def _solver(boardsize, solver):
    if solver is not None and solver.boardsize != boardsize:
        raise BadBoard(f'a solver for {solver.boardsize}x{solver.boardsize} got a board of '
                       f'{boardsize}x{boardsize}')
    return solver or _shared(boardsize)


def _device(world):
    return getattr(world, 'device', 'cpu')


def openings(boardsize, max_nodes=None, seconds=None, solver=None):
    """The winner after each first move of Black: `[S, S]` ints, 0 Black, 1 White, -1 not known.

    The 6x6 table is read from the package's data unless a solver is given.

    Args:
        max_nodes, seconds: limits for each opening; boards above 6x6 need one.
        solver: as for :func:`values`.

    >>> openings(3)
    array([[1, 1, 0],
           [0, 0, 0],
           [0, 1, 1]])
    """
    if solver is None and (stored := _stored(boardsize)):
        winning = stored[0, 0, 0][1]
        return 1 - (winning >> np.arange(boardsize**2) & 1).reshape(boardsize, boardsize)
    solver = _solver(boardsize, solver)
    winners = np.full((boardsize, boardsize), -1)
    # The short diagonal first: its proofs are quick, and help with the others
    for r, c in sorted(np.ndindex(winners.shape), key=lambda rc: abs(sum(rc) - boardsize + 1)):
        budget = Budget(boardsize, max_nodes, seconds)
        outcome, _ = solver.prove(1 << r*boardsize + c, 0, 1, budget)
        winners[r, c] = {1: 1, -1: 0, 0: -1}[outcome]
    return winners


def _positions(world, seats):
    """(boardsize, one (black, white, seat) a board, whether each was swapped).

    Each board is turned so that Black has at least as many stones as White, and is to move if they
    have equally many: where it is not so, the board is transposed and the colours are swapped. A
    game's positions then meet in one table, whoever made its first move.
    """
    if seats is None and not hasattr(world, 'seats'):
        raise BadBoard('labels alone do not say whose turn it is: pass the seat, 0 for Black or 1 '
                       'for White')
    boards = np.asarray(torch.as_tensor(getattr(world, 'board', world)).cpu())
    seats = np.asarray(torch.as_tensor(world.seats if seats is None else seats).cpu())
    boards = boards[None] if boards.ndim == 2 else boards
    if boards.ndim != 3 or boards.shape[1] != boards.shape[2] or boards.dtype.kind not in 'iu':
        raise BadBoard('boards must be labels, whole numbers of shape [n_envs, S, S] or [S, S]; '
                       f'got {list(boards.shape)} {boards.dtype}')
    if (wrong := (boards < 0) | (boards >= len(LABELS))).any():
        e, r, c = np.argwhere(wrong)[0]
        raise BadBoard(f'board {e}, row {r}, column {c}: labels are 0 to {len(LABELS) - 1}, got '
                       f'{boards[e, r, c]}')
    if seats.shape not in ((), boards.shape[:1]) or not np.isin(seats, (0, 1)).all():
        raise BadBoard(f'seats must be 0 (Black) or 1 (White), one for each of {len(boards)} '
                       f'boards or one for all; got {seats.tolist()}')
    if boards.shape[1] > MAX_SIZE:
        raise TooLarge(f'the solver takes boards up to {MAX_SIZE}x{MAX_SIZE}, got '
                       f'{boards.shape[1]}x{boards.shape[1]}: larger ones are for an engine')
    seats = np.broadcast_to(seats, len(boards)).astype(bool)
    colours = np.array([0, 1, 2, 1, 1, 2, 2])[boards]
    lead = (colours == 1).sum((1, 2)) - (colours == 2).sum((1, 2))
    swapped = (lead < 0) | (lead == 0) & seats
    colours[swapped] = np.array([0, 2, 1])[colours[swapped].transpose(0, 2, 1)]
    bits = 1 << np.arange(boards.shape[1]**2)
    colours = colours.reshape(len(boards), len(bits))
    black, white = (((colours == k)*bits).sum(1).tolist() for k in (1, 2))
    return (boards.shape[1], list(zip(black, white, (seats ^ swapped).astype(int).tolist())),
            swapped.tolist())


@dataclass(frozen=True)
class Decisions:
    """What :class:`PerfectPlayer` chose, and the truth.

    Attributes:
        actions: `[n_envs]` int64, in the mover's frame.
        v: `[n_envs, n_seats]` float32, the exact value for each seat: +1 or -1.
    """
    actions: torch.Tensor
    v: torch.Tensor


class PerfectPlayer:
    """Never gives a won position away; called as ``agent(world, seed=0, move=0, games=None)``.

    It plays uniformly at random among all winning moves. A lost position has none: it then plays,
    again uniformly, among the moves that leave the opponent the fewest winning replies
    (``lost='resist'``), or among all free cells (``lost='random'``).

    Args:
        lost: 'resist' or 'random'. To resist it finds all winning replies to each of its moves: up
            to 5x5 that takes milliseconds, on 6x6 a minute or more for the first moves of a game.
    """

    def __init__(self, lost='resist'):
        if lost not in ('resist', 'random'):
            raise ValueError(f"lost must be 'resist' or 'random', got {lost!r}")
        self.lost = lost

    def __call__(self, world, seed=0, move=0, games=None):
        boardsize, positions, _ = _positions(world, None)
        Budget(boardsize)   # no board on which it could not be perfect
        keys = rng.keys(seed, world.n_envs if games is None else games, move)
        # The first winning move in random order is uniform among them, and few others are tried
        orders = np.argsort([rng.uniforms(keys, k) for k in range(world.n_actions)], axis=0).T
        actions = [_first_win(boardsize, *p, order) for p, order in zip(positions, orders)]
        lost = np.array([a is None for a in actions], bool)
        if lost.any():
            choices = self._when_lost(world[torch.as_tensor(lost)]).cpu().numpy()
            for i, allowed in zip(np.flatnonzero(lost), choices):
                actions[i] = next(a for a in orders[i] if allowed[a])
        black_wins = torch.as_tensor(lost) == (world.seats.cpu() == 1)
        v = torch.where(black_wins[:, None], torch.tensor([1., -1.]), torch.tensor([-1., 1.]))
        return Decisions(torch.tensor(actions, dtype=torch.int64).to(world.device),
                         v.to(world.device))

    def _when_lost(self, world):
        """`[n_envs, n_actions]` bool: the moves to choose from in lost positions."""
        valid = world.valid
        if self.lost == 'random':
            return valid
        env, action = valid.nonzero(as_tuple=True)
        after, _ = world[env].step(action, reset=False)
        replies = torch.full(valid.shape, world.n_actions + 1, device=world.device)
        replies[valid] = solve(after).winning.sum(1)
        return replies == replies.min(1, keepdim=True).values

    def __repr__(self):
        return f'PerfectPlayer(lost={self.lost!r})'


def _first_win(boardsize, black, white, seat, order):
    """The first of the actions ``order`` (all of them) that wins, or None."""
    cells = order if seat == 0 else order % boardsize*boardsize + order//boardsize
    stored = _stored(boardsize).get((black, white, seat))
    if stored:
        return next((a for a, cell in zip(order, cells) if stored[1] >> int(cell) & 1), None)
    action = {1 << int(cell): a for a, cell in zip(order, cells)}
    free = [cell for cell in cells if not (black | white) >> int(cell) & 1]
    outcomes = _shared(boardsize).outcomes(black, white, seat, free, Budget(boardsize))
    return next((action[move] for move, outcome in outcomes if outcome == 1), None)


def _file(boardsize):
    return files('boardlaw')/'data'/f'openings{boardsize}.json'


@cache
def _stored(boardsize):
    """{(black, white, seat): (value, winning moves)} of the empty board and of all first moves, for
    the board sizes whose table the package ships."""
    if not _file(boardsize).is_file():
        return {}
    replies = json.loads(_file(boardsize).read_text())['winning_replies']
    known = {(1 << a, 0, 1): (1 if cells else -1, sum(1 << c for c in cells))
             for a, cells in enumerate(replies)}
    return known | {(0, 0, 0): (1, sum(1 << a for a, cells in enumerate(replies) if not cells))}


def make_table(boardsize):
    """The content of the shipped table, computed anew, with where it came from.

    `winners` is that of :func:`openings`; `winning_replies` has for each first move, in row-major
    order, the cells of all White's winning replies (``r*S + c``, as Black sees the board).
    """
    began, solver = time.process_time(), Solver(boardsize)
    winners = openings(boardsize, solver=solver)
    replies = [solver.moves(1 << a, 0, 1, Budget(boardsize))[1] for a in range(boardsize**2)]
    return {
        'boardsize': boardsize,
        'winners': winners.tolist(),
        'winning_replies': [[a for a in range(boardsize**2) if x >> a & 1] for x in replies],
        'provenance': {
            'by': f'python -m boardlaw.hex.solve --openings {boardsize} --write',
            'date': time.strftime('%Y-%m-%d', time.gmtime()),
            'nodes': solver.nodes,
            'cpu_seconds': round(time.process_time() - began, 1),
            'machine': f'{platform.machine()}, one core',
            'python': platform.python_version(),
            'numba': numba.__version__}}


def main(arguments=None):
    """`python -m boardlaw.hex.solve`."""
    parser = argparse.ArgumentParser(prog='python -m boardlaw.hex.solve', description='Who wins '
                                     'after each first move of Hex, computed anew.')
    parser.add_argument('--openings', type=int, required=True, metavar='S', help='the board size')
    parser.add_argument('--max-nodes', type=int, help='limit for each opening; 7x7 needs one')
    parser.add_argument('--write', action='store_true', help='find the winning replies as well, '
                        "and write all to the package's data")
    options = parser.parse_args(arguments)
    size = options.openings
    try:
        if options.write:
            content = make_table(size)
            _file(size).write_text(json.dumps(content) + '\n')
            winners = content['winners']
        else:
            winners = openings(size, options.max_nodes, solver=Solver(size))
    except ValueError as e:
        sys.exit(f'boardlaw: {e}')
    for r, row in enumerate(winners):
        print(' '*r + ' '.join('bw?'[x] for x in row))


if __name__ == '__main__':
    main()
