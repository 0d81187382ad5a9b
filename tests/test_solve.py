"""The exact solver against brute force, symmetry, known theorems, and the rules of the worlds."""
import itertools
import json
from collections import Counter

import hex_reference
import numpy as np
import pytest
import torch
from numba import njit
from scipy import stats

from boardlaw import arena, rng
from boardlaw.hex import BadBoard, Hex, solve, solver_patterns
from boardlaw.hex.solve import PerfectPlayer, Solver, TooLarge
from boardlaw.hex.solver import Budget


@njit(cache=True)
def fill_to_the_end(size, neighbours, n_neighbours):
    """Brute force: the game is played until the board is full, then Black's chains are followed.

    Positions are numbers in base 3 (0 empty, 1 black, 2 white), so each move makes the number
    larger. Returns, for Black and White to move, whether Black wins each.
    """
    cells = size*size
    powers = 3**np.arange(cells)
    wins = np.zeros((2, 3**cells), np.bool_)
    digits, reached, stack = np.zeros(cells, np.int64), np.zeros(cells, np.bool_), [0]
    for position in range(3**cells - 1, -1, -1):
        rest, empty = position, 0
        for a in range(cells):
            digits[a] = rest % 3
            rest //= 3
            empty += digits[a] == 0
        if empty:
            black, white = False, True
            for a in range(cells):
                if digits[a] == 0:
                    black |= wins[1, position + powers[a]]
                    white &= wins[0, position + 2*powers[a]]
            wins[0, position], wins[1, position] = black, white
            continue
        reached[:] = False
        stack.clear()
        for a in range(size):
            if digits[a] == 1:
                reached[a] = True
                stack.append(a)
        while stack:
            a = stack.pop()
            for k in range(n_neighbours[a]):
                b = neighbours[a, k]
                if digits[b] == 1 and not reached[b]:
                    reached[b] = True
                    stack.append(b)
        wins[:, position] = reached[cells - size:].any()
    return wins


class Brute:
    """Whether Black wins each position of a board, by `fill_to_the_end`."""

    def __init__(self, size):
        near = [[a for a, (r2, c2) in enumerate(np.ndindex(size, size))
                 if (r2 - r, c2 - c) in hex_reference.STEPS] for r, c in np.ndindex(size, size)]
        padded = np.array([x + [0]*(6 - len(x)) for x in near])
        self.wins = fill_to_the_end(size, padded, np.array([len(x) for x in near]))
        self.size, self.powers = size, 3**np.arange(size**2).reshape(size, size)

    def values(self, boards, seats):
        black_wins = self.wins[seats, (boards*self.powers).sum((1, 2))]
        return np.where(black_wins == (seats == 0), 1, -1)

    def winning(self, boards, seats):
        """`[n, S*S]` bool in the mover's frame."""
        out = np.zeros((len(boards), self.size, self.size), bool)
        for r, c in np.ndindex(self.size, self.size):
            free = boards[:, r, c] == 0
            after = boards.copy()
            after[:, r, c] = np.where(free, seats + 1, after[:, r, c])
            wins = free & (self.values(after, 1 - seats) == -1)
            out[seats == 0, r, c] = wins[seats == 0]
            out[seats == 1, c, r] = wins[seats == 1]
        return out.reshape(len(boards), -1)


@pytest.fixture(scope='module')
def brute3():
    return Brute(3)


@pytest.fixture(scope='module')
def brute4():
    return Brute(4)


def is_over(boards):
    games = [hex_reference.Game(len(b), {(r, c): x - 1 for (r, c), x in np.ndenumerate(b) if x})
             for b in boards]
    return np.array([bool(g.winners()) for g in games], bool)


def random_boards(size, n, least, most, seed=0, fair=True):
    """Boards of stones 0, 1, 2 and seats to move; unless fair with any numbers of either colour."""
    generator = np.random.default_rng(seed)
    boards, seats = np.zeros((n, size*size), np.int64), generator.integers(2, size=n)
    for board in boards:
        k = generator.integers(least, most + 1)
        black = (k + generator.integers(2))//2 if fair else generator.integers(k + 1)
        board[generator.permutation(size*size)[:k]] = [1]*black + [2]*(k - black)
    return boards.reshape(n, size, size), seats


def random_worlds(size, n, moves, seed=0):
    """Unfinished games after a given number of random moves or fewer."""
    world, out = Hex.initial(n, size), []
    for move in range(moves + 1):
        out.append(world[move::moves + 1])
        world, transition = world.step(world.random_actions(rng.keys(seed, n, move)), reset=False)
        keep = ~transition.terminal
        world = Hex.cat([world[keep], Hex.initial(int((~keep).sum()), size)])
    return Hex.cat(out)


def mirrored(boards):
    """The transposed boards with colours swapped."""
    return np.array([0, 2, 1])[boards.transpose(0, 2, 1)]


def assert_is_truth(brute, boards, seats):
    values, winning = solve.solve(boards, seats)
    assert (values.numpy() == brute.values(boards, seats)).all()
    assert (values == solve.values(boards, seats)).all()
    over = is_over(boards)
    assert not winning[torch.as_tensor(over)].any()
    assert (winning.numpy() == brute.winning(boards, seats))[~over].all()


# ---------------------------------------------------------------------------- against brute force

def test_brute_force_knows_small_boards():
    for size in (1, 2):
        assert Brute(size).wins[0, 0]
    # By hand: on 2x2 the first move wins on the short diagonal only
    assert Brute(2).winning(np.zeros((1, 2, 2), int), np.array([0])).tolist() == [
        [False, True, True, False]]


@pytest.mark.parametrize('size', [1, 2])
def test_all_positions_of_tiny_boards(size):
    boards = np.array(list(itertools.product(range(3), repeat=size**2))).reshape(-1, size, size)
    for seat in (0, 1):
        assert_is_truth(Brute(size), boards, np.full(len(boards), seat))


def test_all_positions_of_3x3(brute3):
    """Every board with any number of stones of either colour, either side to move."""
    boards = np.array(list(itertools.product(range(3), repeat=9))).reshape(-1, 3, 3)
    for seat in (0, 1):
        assert_is_truth(brute3, boards, np.full(len(boards), seat))


@pytest.mark.parametrize('fair', [True, False])
def test_4x4(brute4, fair):
    assert_is_truth(brute4, *random_boards(4, 1500, 0, 16, fair=fair))


def test_5x5_late():
    """Late 5x5 positions by minimax with memory, on the reference's rules."""
    known = {}

    def wins(game):
        key = (tuple(sorted(game.stones.items())), game.seat)
        if key not in known:
            free = [cell for cell in game.cells() if cell not in game.stones]
            won = game.winners()
            known[key] = won[0] == game.seat if won else any(
                not wins(hex_reference.Game(5, {**game.stones, cell: game.seat}, 1 - game.seat))
                for cell in free)
        return known[key]

    boards, seats = random_boards(5, 60, 18, 25, seed=1)
    for board, seat in zip(boards, seats):
        stones = {cell: x - 1 for cell, x in np.ndenumerate(board) if x}
        value = 1 if wins(hex_reference.Game(5, stones, int(seat))) else -1
        assert solve.values(board, seat) == value


def test_carriers(brute4):
    """The winner wins inside its carrier although the loser gets all cells outside."""
    solver = Solver(4)
    boards, seats = random_boards(4, 1500, 0, 14, seed=2, fair=False)
    bits = 1 << np.arange(16)
    for board, seat in zip(boards, seats):
        black, white = (int(((board.ravel() == k)*bits).sum()) for k in (1, 2))
        value, carrier = solver.prove(black, white, seat, Budget(4))
        assert not carrier & (black | white)
        winner = seat if value == 1 else 1 - seat
        given = (board == 0) & (carrier & bits == 0).reshape(4, 4)
        filled = np.where(given, 2 - winner, board)
        assert brute4.values(filled[None], np.array([seat])) == value


def test_dead_cells():
    """A cell is dead exactly if no filling of its neighbours gives a colour two arcs of them."""
    def beyond(r, c, size):
        return 1 if r < 0 or r >= size else 2

    ring = [(-1, 0), (-1, 1), (0, 1), (1, 0), (1, -1), (0, -1)]
    boards, _ = random_boards(5, 60, 0, 25, seed=3, fair=False)
    for board in boards:
        black, white = (np.uint64(sum(1 << i for i, x in enumerate(board.ravel()) if x == k))
                        for k in (1, 2))
        dead, _ = solver_patterns.local(black, white, True, solver_patterns.geometry(5))
        for i, (r, c) in enumerate(np.ndindex(5, 5)):
            around = [board[r + dr, c + dc] if 0 <= r + dr < 5 and 0 <= c + dc < 5
                      else beyond(r + dr, c + dc, 5) for dr, dc in ring]
            fillings = itertools.product(*[[x] if x else [1, 2] for x in around])
            changes = [sum(f[k] != f[k - 1] for k in range(6)) for f in fillings]
            assert (int(dead) >> i & 1) == (max(changes) < 4), (board, r, c)


# ---------------------------------------------------------------------------- symmetry, theorems

@pytest.mark.parametrize('size, n, least', [(4, 200, 0), (5, 150, 3), (6, 25, 12)])
def test_symmetry(size, n, least):
    boards, seats = random_boards(size, n, least, size**2 - 4, seed=4)
    values, winning = solve.solve(boards, seats)
    turned = solve.solve(boards[:, ::-1, ::-1].copy(), seats)
    assert (turned.values == values).all() and (turned.winning.flip(1) == winning).all()
    # In the mover's frame a position and its mirror image are the same
    other = solve.solve(mirrored(boards), 1 - seats, solver=Solver(size))
    assert (other.values == values).all() and (other.winning == winning).all()


@pytest.mark.parametrize('size', [2, 3, 4, 5, 6])
def test_openings(size):
    winners = solve.openings(size)
    assert winners.shape == (size, size)
    assert (winners == winners[::-1, ::-1]).all()
    assert not np.fliplr(winners).diagonal().any(), 'the short diagonal wins'
    assert solve.winner(np.zeros((size, size), int), 0) == 0, 'the first player wins (Nash)'
    # Beck 1969: the acute corner loses, and so does its neighbour along Black's own edge
    assert winners[0, 0] == 1
    if size > 2:
        assert winners[0, 1] == 1


def test_openings_of_3x3_and_4x4(brute3, brute4):
    for brute in (brute3, brute4):
        size = brute.size
        wins = brute.winning(np.zeros((1, size, size), int), np.array([0]))
        assert (solve.openings(size) == 1 - wins.reshape(size, size)).all()


def test_stored_table():
    """What is shipped for 6x6 hangs together, and parts of it are worked out anew."""
    stored = json.loads(solve._file(6).read_text())
    winners, replies = np.array(stored['winners']), stored['winning_replies']
    assert (winners == solve.openings(6)).all()
    assert (winners.ravel() == [1 if cells else 0 for cells in replies]).all()
    for a, cells in enumerate(replies):
        assert sorted(35 - cell for cell in replies[35 - a]) == cells and a not in cells
    solver = Solver(6)
    for r, c in ((2, 3), (1, 4), (0, 3), (0, 1)):
        assert solver.prove(1 << 6*r + c, 0, 1, Budget(6))[0] == (1 if winners[r, c] else -1)
    board = np.zeros((1, 6, 6), int)
    board[0, 1, 0] = 1
    assert solve.solve(board, 1).winning[0].view(6, 6).T.flatten().nonzero().flatten().tolist() \
        == replies[6]
    child = board.copy()
    child.ravel()[replies[6][0]] = 2
    assert solve.winner(child[0], 0, solver=solver) == 1


# ---------------------------------------------------------------------------- worlds and labels

def test_worlds_agree_with_the_solver():
    """A move wins exactly if the opponent is lost after it, by the worlds' own rules and frames."""
    world = random_worlds(4, 60, 10)
    assert set(world.seats.tolist()) == {0, 1}
    values, winning = solve.solve(world)
    assert values.dtype == torch.int64 and winning.dtype == torch.bool
    assert (values == torch.where(winning.any(1), 1, -1)).all()
    assert not (winning & ~world.valid).any()
    env, action = world.valid.nonzero(as_tuple=True)
    after, transition = world[env].step(action, reset=False)
    assert (solve.values(after) == torch.where(winning[env, action], -1, 1)).all()
    assert winning[env, action][transition.terminal].all()
    labels = solve.solve(world.board.numpy(), world.seats.numpy())
    assert (labels.values == values).all() and (labels.winning == winning).all()
    for i in range(5):
        winner = solve.winner(world[i])
        assert (winner == world.seats[i]) == (values[i] == 1)
        assert winner == solve.winner(world.board[i], int(world.seats[i]))


def test_finished_boards():
    world = Hex.parse('b.w\nb.w\nb..', seat=1)
    assert solve.winner(world) == 0 and world.winner == 0
    values, winning = solve.solve(world)
    assert values.tolist() == [-1] and not winning.any()
    assert solve.values(world.board, 0).tolist() == [1]


def test_repeated_and_no_positions():
    boards, seats = random_boards(4, 3, 4, 8)
    once, twice = solve.solve(boards, seats), solve.solve(boards[[0, 1, 2, 0]], seats[[0, 1, 2, 0]])
    assert twice.values.tolist() == [*once.values.tolist(), once.values[0]]
    values, winning = solve.solve(Hex.initial(0, 4))
    assert values.shape == (0,) and winning.shape == (0, 16)


# ---------------------------------------------------------------------------- memory and limits

def test_a_full_table_forgets_but_ends():
    """Four positions of memory: much is worked out again, and the answers are the same."""
    tiny, small = Solver(4, memory=4*48), Solver(5, memory=64*48)
    assert len(tiny._table) == 4 and len(small._table) == 64
    assert (solve.openings(4, solver=tiny) == solve.openings(4)).all()
    assert (solve.openings(5, solver=small) == solve.openings(5, solver=Solver(5))).all()
    assert (small._table[:, -1] > 0).all(), 'the table was full'


def test_limits():
    empty = np.zeros((6, 6), int)
    solver = Solver(6)
    assert solve.winner(empty, 0, max_nodes=100, solver=solver) is None
    assert solver.nodes <= 101
    values, winning = solve.solve(empty, 0, max_nodes=100, solver=Solver(6))
    assert values.tolist() == [0] and not winning.any()
    assert solve.values(empty, 0, seconds=1e-9, solver=Solver(6)).tolist() == [0]
    winners = solve.openings(6, max_nodes=50, solver=Solver(6))
    known = winners >= 0
    assert not known.all() and (winners == solve.openings(6))[known].all()
    # What was found within a limit is kept: tries add up
    tries = 1
    while solve.winner(empty, 0, max_nodes=2000, solver=solver) is None:
        tries += 1
        assert tries < 500
    assert tries > 2 and solve.winner(empty, 0, solver=solver) == 0


def test_7x7_within_a_limit():
    board = np.zeros((7, 7), int)
    board[:, 3] = [1, 1, 0, 1, 1, 1, 0]
    assert solve.winner(board, 1, max_nodes=1000) == 0
    assert solve.winner(np.zeros((7, 7), int), 0, max_nodes=1000) is None


@pytest.mark.parametrize('error, call, words', [
    (TooLarge, lambda: solve.values(Hex.initial(1, 8)), '7x7, got 8x8'),
    (TooLarge, lambda: solve.openings(9, max_nodes=1), 'up to 7x7'),
    (TooLarge, lambda: solve.values(Hex.initial(1, 7)), 'max_nodes='),
    (TooLarge, lambda: solve.openings(7), 'max_nodes='),
    (TooLarge, lambda: PerfectPlayer()(Hex.initial(1, 7)), 'hours'),
    (BadBoard, lambda: solve.values(np.zeros((3, 3), int)), 'pass the seat'),
    (BadBoard, lambda: solve.values(np.full((2, 3, 3), 7), 0), 'board 0, row 0, column 0'),
    (BadBoard, lambda: solve.values(np.zeros((3, 4), int), 0), r'\[1, 3, 4\]'),
    (BadBoard, lambda: solve.values(np.zeros((3, 3)), 0), 'float64'),
    (BadBoard, lambda: solve.values(np.zeros((3, 3), int), 2), '0 .Black. or 1 .White.'),
    (BadBoard, lambda: solve.values(np.zeros((2, 3, 3), int), [0, 1, 0]), '2 boards'),
    (BadBoard, lambda: solve.winner(Hex.initial(2, 3)), 'one board, got 2'),
    (ValueError, lambda: solve.values(Hex.initial(1, 3), max_nodes=0), 'more than 0'),
    (ValueError, lambda: solve.values(Hex.initial(1, 3), seconds=-1.), 'more than 0'),
    (ValueError, lambda: Solver(3, memory=100), '100 bytes'),
    (BadBoard, lambda: solve.values(Hex.initial(1, 3), solver=Solver(4)), '4x4'),
    (ValueError, lambda: PerfectPlayer('never'), "'resist' or 'random'")])
def test_errors(error, call, words):
    with pytest.raises(error, match=words):
        call()


# ---------------------------------------------------------------------------- the perfect player

@pytest.mark.parametrize('lost', ['resist', 'random'])
@pytest.mark.parametrize('size', [3, 4, 5])
def test_perfect_black_wins_every_game(size, lost):
    player = PerfectPlayer(lost)
    assert arena.play(player, arena.RandomAgent(), 64, size, seed=1).black_wins == 64
    assert arena.play(player, player, 32, size, seed=2).black_wins == 32


def test_never_gives_a_win_away():
    world = random_worlds(5, 80, 12, seed=5)
    values, winning = solve.solve(world)
    decisions = PerfectPlayer('random')(world, seed=3, move=1)
    chosen = winning.gather(1, decisions.actions[:, None])[:, 0]
    assert (chosen == (values == 1)).all() and set(values.tolist()) == {1, -1}
    assert world.valid.gather(1, decisions.actions[:, None]).all()
    mover = decisions.v.gather(1, world.seats[:, None])[:, 0]
    assert (mover == values).all() and (decisions.v.sum(1) == 0).all()


def test_wins_are_chosen_uniformly():
    world = Hex.initial(3000, 3)
    counts = Counter(PerfectPlayer()(world, seed=7).actions.tolist())
    winning = np.flatnonzero(solve.openings(3).ravel() == 0)
    assert sorted(counts) == winning.tolist()
    assert stats.chisquare([counts[a] for a in winning]).pvalue > 1e-3


def test_choice_depends_on_the_game_only():
    world = random_worlds(4, 40, 9, seed=6)
    player, games = PerfectPlayer(), np.arange(100, 100 + world.n_envs)
    together = player(world, seed=1, move=4, games=games)
    for i in (0, 7, 23):
        alone = player(world[i], seed=1, move=4, games=games[i:i + 1])
        assert alone.actions == together.actions[i]
    assert (player(world, seed=1, move=4, games=games).actions == together.actions).all()
    assert (player(world, seed=2, move=4, games=games).actions != together.actions).any()


def test_resists(brute4):
    """In lost positions it leaves the fewest winning replies, counted by brute force."""
    world = random_worlds(4, 120, 8, seed=8)
    world = world[solve.values(world) == -1]
    assert world.n_envs > 10
    env, action = world.valid.nonzero(as_tuple=True)
    after, _ = world[env].step(action, reset=False)
    colours = np.array([0, 1, 2, 1, 1, 2, 2])[after.board.numpy()]
    seats = after.seats.numpy()
    replies = torch.full(world.valid.shape, 99)
    replies[env, action] = torch.as_tensor(brute4.winning(colours, seats).sum(1))
    chosen = PerfectPlayer('resist')(world, seed=1).actions
    assert (replies.gather(1, chosen[:, None])[:, 0] == replies.min(1).values).all()


# ---------------------------------------------------------------------------- the command line

def test_command_line(capsys, monkeypatch, tmp_path):
    solve.main(['--openings', '3'])
    assert capsys.readouterr().out == 'w w b\n b b b\n  b w w\n'
    solve.main(['--openings', '7', '--max-nodes', '1'])
    assert '?' in capsys.readouterr().out
    for arguments in (['--openings', '9'], ['--openings', '7']):
        with pytest.raises(SystemExit, match='boardlaw: '):
            solve.main(arguments)
    monkeypatch.setattr(solve, '_file', lambda size: tmp_path/f'{size}.json')
    solve.main(['--openings', '4', '--write'])
    table = json.loads((tmp_path/'4.json').read_text())
    solve._stored.cache_clear()
    try:
        assert (solve.openings(4) == solve.openings(4, solver=Solver(4))).all()
        assert (solve.solve(Hex.initial(1, 4)).winning[0].int().numpy()
                == 1 - np.ravel(table['winners'])).all()
    finally:
        monkeypatch.undo()
        solve._stored.cache_clear()
