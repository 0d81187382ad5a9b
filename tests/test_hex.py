"""Hex worlds against hand-made boards, a slow reference of the rules, and properties of Hex."""
import hex_reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import stats

from boardlaw import bits, rng
from boardlaw.hex import LABELS, BadAction, BadBoard, Hex

SEEDED = settings(deadline=None, derandomize=True, database=None)
SIZES = [*range(1, 14), 16, 19]


def rows(world, i=0):
    return [''.join(LABELS[x] for x in row) for row in world.board[i].tolist()]


def play(world, *cells, reset=True):
    """Plays GTP-like cells ('a1' is top left) of Black's frame in a world of one game."""
    for cell in cells:
        column, row = ord(cell[0]) - ord('a'), int(cell[1:]) - 1
        if world.seats[0] == 1:
            row, column = column, row
        world, transition = world.step([row*world.boardsize + column], reset=reset)
    return world, transition


def full(boardsize, black):
    """A full board as text; bit k of ``black`` gives Black cell k."""
    cells = ['b' if black >> k & 1 else 'w' for k in range(boardsize**2)]
    return '\n'.join(''.join(cells[r*boardsize:(r + 1)*boardsize]) for r in range(boardsize))


def stones(world, i=0):
    """The stones of a world as the reference keeps them."""
    board = world.board[i].tolist()
    return {(r, c): 0 if LABELS[x] in 'bTB' else 1
            for r, row in enumerate(board) for c, x in enumerate(row) if x}


def assert_same(a, b):
    assert (a.boardsize, a.n_envs) == (b.boardsize, b.n_envs)
    for name in ('bits', 'seats', 'board', 'obs', 'valid', 'winner'):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def assert_agrees(world, games):
    """The world shows what the reference says, game by game."""
    size = world.boardsize
    assert world.seats.tolist() == [g.seat for g in games]
    assert torch.equal(world.obs, torch.tensor([g.obs() for g in games]).view(-1, size, size, 2))
    assert torch.equal(world.valid, torch.tensor([g.valid() for g in games]).view(-1, size**2))
    for i, game in enumerate(games):
        winners = game.winners()
        assert world.winner[i] == (winners[0] if winners else -1)
        if winners:   # on a won board only the colours of the labels are specified
            assert stones(world, i) == game.stones
        else:
            assert rows(world, i) == game.labels()


# Hand-made boards

def test_empty():
    world = Hex.initial(2, 4)
    assert (world.n_envs, world.n_seats, world.n_actions, world.boardsize) == (2, 2, 16, 4)
    assert world.device == torch.device('cpu')
    assert world.seats.tolist() == [0, 0]
    assert world.obs.shape == (2, 4, 4, 2) and not world.obs.any()
    assert world.valid.shape == (2, 16) and world.valid.all()
    assert rows(world) == ['....']*4
    assert (world.obs.dtype, world.valid.dtype, world.board.dtype, world.seats.dtype) == (
        torch.float32, torch.bool, torch.uint8, torch.int64)
    assert Hex.initial(1).boardsize == 11


def test_mover_frame():
    world, transition = Hex.initial(1, 3).step([1])    # Black on row 0, column 1
    assert rows(world) == ['.T.', '...', '...']
    assert world.seats.tolist() == [1]
    assert transition.rewards.tolist() == [[0, 0]] and transition.terminal.tolist() == [False]
    assert transition.rewards.dtype == torch.float32
    # White sees the board transposed: Black's stone is the other's, on row 1, column 0.
    assert torch.nonzero(world.obs[0]).tolist() == [[1, 0, 1]]
    assert torch.nonzero(~world.valid[0]).tolist() == [[3]]
    world, _ = world.step([2])                          # White's row 0, column 2
    assert rows(world) == ['.T.', '...', 'L..']
    assert sorted(torch.nonzero(world.obs[0]).tolist()) == [[0, 1, 0], [2, 0, 1]]
    assert torch.nonzero(~world.valid[0]).tolist() == [[1], [6]]


def test_labels():
    world = Hex.parse('''. b w . .
                         b . . w .
                         . . b . w
                         w . b . .
                         . b . . .''', seat=0)
    assert rows(world) == ['.Tw..', 'T..w.', '..B.R', 'L.B..', '.B...']


@pytest.mark.parametrize('cells, wins', [
    (('b1', 'b2', 'b3'), True), (('c1', 'b2', 'a3'), True), (('a1', 'b2', 'c3'), False),
    (('c1', 'c2', 'b3'), True), (('a1', 'b1', 'c1'), False)])
def test_which_lines_of_black_win(cells, wins):
    board = [['.']*3 for _ in range(3)]
    for cell in cells:
        board[int(cell[1]) - 1]['abc'.index(cell[0])] = 'b'
    world = Hex.parse('\n'.join(map(''.join, board)), seat=1)
    assert world.winner.tolist() == [0 if wins else -1]


@pytest.mark.parametrize('order', [('a2', 'b2', 'c2'), ('c2', 'a2', 'b2'), ('b2', 'c2', 'a2')])
def test_white_wins_left_to_right(order):
    moves = [x for pair in zip(('a1', 'b1', 'a3'), order) for x in pair]
    before, _ = play(Hex.initial(1, 3), *moves[:-1])
    world, transition = play(before, moves[-1], reset=False)
    assert transition.rewards.tolist() == [[-1, 1]] and transition.terminal.tolist() == [True]
    assert world.winner.tolist() == [1] and world.seats.tolist() == [0]
    assert stones(world) == {(0, 0): 0, (0, 1): 0, (2, 0): 0, (1, 0): 1, (1, 1): 1, (1, 2): 1}
    world, transition = play(before, moves[-1])
    assert transition.rewards.tolist() == [[-1, 1]] and transition.terminal.tolist() == [True]
    assert_same(world, Hex.initial(1, 3))


def test_one_cell():
    world, transition = Hex.initial(3, 1).step([0, 0, 0])
    assert transition.rewards.tolist() == [[1, -1]]*3 and transition.terminal.all()
    assert_same(world, Hex.initial(3, 1))


def test_a_won_board_gives_no_more_rewards():
    world = Hex.parse('b.w\nb.w\nb..')
    assert world.winner.tolist() == [0] and world.seats.tolist() == [1]
    world, _ = world.step([8], reset=False)
    world, transition = world.step([4], reset=False)    # Black joins its winning chain again
    assert not transition.rewards.any() and not transition.terminal.any()
    assert world.winner.tolist() == [0] and len(stones(world)) == 7
    with pytest.raises(BadAction, match='environment 0: the game is over, Black has won'):
        world.step([3])


# Against the reference

@pytest.mark.parametrize('cells, winners', [
    ([(0, 1), (1, 1), (2, 1)], [0]), ([(0, 2), (1, 1), (2, 0)], [0]),
    ([(0, 0), (1, 1), (2, 2)], []), ([(0, 0), (0, 1), (0, 2)], [])])
def test_the_reference_knows_the_facts(cells, winners):
    black = hex_reference.Game(3, {cell: 0 for cell in cells})
    white = hex_reference.Game(3, {(c, r): 1 for r, c in cells})
    assert black.winners() == winners and white.winners() == [1 - seat for seat in winners]
    one = hex_reference.Game(3, {(0, 2): 0}, seat=1)
    assert one.labels() == ['..T', '...', '...']
    assert one.obs() == [[[0, 0]]*3, [[0, 0]]*3, [[0, 1], [0, 0], [0, 0]]]
    assert one.valid() == [True]*6 + [False, True, True]


@pytest.mark.parametrize('boardsize', SIZES)
def test_random_games_agree_with_the_reference(boardsize):
    n_envs = 5 if boardsize < 9 else 2 if boardsize < 14 else 1
    random = np.random.default_rng(boardsize)
    world, games = Hex.initial(n_envs, boardsize), [hex_reference.Game(boardsize)]*n_envs
    finished = 0
    for _ in range(4*boardsize + boardsize**2):
        assert_agrees(world, games)
        actions = [random.choice(np.flatnonzero(g.valid())) for g in games]
        world, transition = world.step(np.array(actions))
        games, rewards, terminal = zip(*[g.step(int(a)) for g, a in zip(games, actions)])
        assert transition.rewards.tolist() == list(rewards)
        assert transition.terminal.tolist() == list(terminal)
        finished += sum(terminal)
    assert finished >= n_envs    # the board cannot hold more moves: every game ended and restarted


@pytest.mark.parametrize('boardsize', [2, 4, 8])
def test_games_played_on_without_reset_agree_with_the_reference(boardsize):
    random = np.random.default_rng(boardsize)
    world, games = Hex.initial(3, boardsize), [hex_reference.Game(boardsize)]*3
    for _ in range(boardsize**2):
        actions = [int(random.choice(np.flatnonzero(g.valid()))) for g in games]
        world, transition = world.step(actions, reset=False)
        games, rewards, terminal = zip(*[g.step(a, reset=False) for g, a in zip(games, actions)])
        assert transition.rewards.tolist() == list(rewards)
        assert transition.terminal.tolist() == list(terminal)
        assert_agrees(world, games)
    assert not world.valid.any()


def test_every_position_of_3x3():
    """All positions that games reach, and every move from each, move number by move number."""
    level, world, n_positions, n_won = [hex_reference.Game(3)], Hex.initial(1, 3), [], [0, 0]
    while level:
        n_positions.append(len(level))
        assert_agrees(world, level)
        moves = [(i, a) for i, g in enumerate(level) for a in np.flatnonzero(g.valid())]
        index, actions = torch.tensor(moves).T
        world, transition = world[index].step(actions, reset=False)
        level, rewards, terminal = zip(*[level[i].step(int(a), reset=False) for i, a in moves])
        assert transition.rewards.tolist() == list(rewards)
        assert transition.terminal.tolist() == list(terminal)
        won = world[transition.terminal]
        assert torch.equal(won.winner, 1 - won.seats)
        n_won[1 - level[0].seat] += sum(terminal)
        # One of each position, and only games that go on.
        unique = {tuple(sorted(g.stones.items())): i for i, g in enumerate(level)
                  if not terminal[i]}
        index = list(unique.values())
        level, world = [level[i] for i in index], world[index]
    # Counted by hand: of the C(9, 3) C(6, 2) boards with five stones, Black has won those where its
    # three stones are one of the 8 chains of three, with C(6, 2) places for White's.
    assert n_positions[:6] == [1, 9, 9*8, 36*7, 36*21, 84*15 - 8*15] and min(n_won) > 0


def test_every_full_3x3_board_has_one_winner():
    worlds = Hex.cat([Hex.parse(full(3, k), seat=0) for k in range(2**9)])
    for i, winner in enumerate(worlds.winner.tolist()):
        assert hex_reference.Game(3, stones(worlds, i)).winners() == [winner]


# Properties

@pytest.mark.parametrize('boardsize', [*range(1, 10), 13])
def test_every_full_board_has_one_winner(boardsize):
    @settings(SEEDED, max_examples=30)
    @given(st.integers(0, 2**boardsize**2 - 1))
    def check(black):
        world = Hex.parse(full(boardsize, black), seat=0)
        assert hex_reference.Game(boardsize, stones(world)).winners() == world.winner.tolist()
        assert not world.valid.any()
    check()


@st.composite
def games(draw, sizes=SIZES):
    """A board size and a legal game on it as actions, which may stop early."""
    boardsize = draw(st.sampled_from(sizes))
    random = draw(st.randoms(use_true_random=False))
    game, actions = hex_reference.Game(boardsize), []
    for _ in range(draw(st.integers(0, min(40, boardsize**2)))):
        actions.append(random.choice([a for a, free in enumerate(game.valid()) if free]))
        game, _, terminal = game.step(actions[-1])
        if terminal:
            break
    return boardsize, actions


@settings(SEEDED, max_examples=60)
@given(games(sizes=range(1, 10)))
def test_transposing_with_colours_swapped_maps_games_to_games(game):
    boardsize, actions = game
    empty = '\n'.join(['.'*boardsize]*boardsize)
    ours, theirs = Hex.parse(empty, seat=0), Hex.parse(empty, seat=1)
    swap = torch.tensor([LABELS.index(x) for x in '.wbLRTB'], dtype=torch.uint8)
    for a in actions:
        assert torch.equal(ours.obs, theirs.obs) and torch.equal(ours.valid, theirs.valid)
        (ours, ours_gave), (theirs, theirs_gave) = (w.step([a], reset=False)
                                                    for w in (ours, theirs))
        assert torch.equal(ours_gave.rewards, theirs_gave.rewards.flip(1))
        assert torch.equal(ours_gave.terminal, theirs_gave.terminal)
        assert torch.equal(theirs.seats, 1 - ours.seats)
        if not ours_gave.terminal:
            assert torch.equal(theirs.board, swap[ours.board.long()].transpose(1, 2))


@settings(SEEDED, max_examples=60)
@given(games())
def test_text_is_read_back(game):
    boardsize, actions = game
    world = Hex.initial(1, boardsize)
    for a in actions:
        world, _ = world.step([a])
    again = Hex.parse(world.text())
    assert_same(again, world)
    assert again.text() == world.text()


@settings(SEEDED, max_examples=60)
@given(games(), st.integers(-2**40, 2**40))
def test_a_step_leaves_the_old_world_untouched(game, wrong):
    boardsize, actions = game
    world = Hex.initial(1, boardsize)
    for a in [*actions, wrong]:
        old, obs = world.clone(), world.obs.clone()
        try:
            after, _ = world.step([a])
        except BadAction:
            assert not 0 <= a < boardsize**2 or not world.valid[0, a]
            after = world
        else:
            assert world.valid[0, a]
        assert torch.equal(world.obs, obs)
        assert_same(Hex(world.bits, world.seats, boardsize), old)
        world = after


@st.composite
def batches(draw):
    """Games of one board size, their actions for a step, right or not, and a dtype for these."""
    boardsize = draw(st.integers(1, 13))
    random = draw(st.randoms(use_true_random=False))
    dtype = draw(st.sampled_from([torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]))
    most = torch.iinfo(dtype).max
    worlds, games, actions = [Hex.initial(0, boardsize)], [], []
    wrong = draw(st.booleans())
    for _ in range(draw(st.sampled_from([0, 1, 2, 5, 9]))):
        world, game = Hex.initial(1, boardsize), hex_reference.Game(boardsize)
        free = [True]
        for _ in range(random.randrange(min(30, boardsize**2))):
            free = game.valid()
            action = random.choice([a for a, f in enumerate(free) if f])
            after, _, terminal = game.step(action)
            if terminal:
                break
            world, game = world.step([action])[0], after
        free = [a for a, f in enumerate(game.valid()) if f and a <= most]
        if not free or wrong and random.random() < .3:
            actions.append(random.randrange(max(-most, -999) if dtype != torch.uint8 else 0,
                                            min(most, 999)))
        else:
            actions.append(random.choice(free))
        worlds.append(world), games.append(game)
    return Hex.cat(worlds), games, torch.tensor(actions, dtype=dtype)


@settings(SEEDED, max_examples=80)
@given(batches())
def test_a_batch_of_any_actions(batch):
    world, games, actions = batch
    bad = [i for i, (game, a) in enumerate(zip(games, actions.tolist()))
           if not (0 <= a < world.n_actions and game.valid()[a])]
    if bad:
        before = world.clone()
        with pytest.raises(BadAction, match=f'environment {bad[0]}: '):
            world.step(actions)
        assert_same(world, before)
        return
    after, transition = world.step(actions, reset=False)
    stepped = [game.step(a, reset=False) for game, a in zip(games, actions.tolist())]
    assert_agrees(after, [game for game, _, _ in stepped])
    assert transition.rewards.tolist() == [rewards for _, rewards, _ in stepped]
    assert transition.terminal.tolist() == [terminal for _, _, terminal in stepped]
    nothing = after[torch.zeros(len(after), dtype=torch.bool)]
    assert nothing.n_envs == 0 and nothing.step([])[0].n_envs == 0


# Bad input

@pytest.fixture
def midgame():
    """Three games; in game 1 White is to move and Black holds row 0, column 2."""
    world = Hex.parse('..b\n...\n...')
    return Hex.cat([Hex.initial(1, 3), world, Hex.parse('b..\n.w.\n...')])


@pytest.mark.parametrize('actions, message', [
    ([0, 6, 1], r'environment 1: action 6 of White, cell \(row 0, column 2\) .*already holds'),
    ([0, 0, 4], r'environment 2: action 4 of Black, cell \(row 1, column 1\) .*already holds'),
    ([0, 9, 1], r'environment 1: action 9 of White names no cell of the 3x3 board.*0 to 8'),
    ([-1, 0, 1], r'environment 0: action -1 of Black names no cell'),
    ([2**62, 0, 1], r'environment 0: action 4611686018427387904'),
    ([0, 1], r'shape \[3\].*got \[2\]'),
    ([[0], [1], [2]], r'shape \[3\].*got \[3, 1\]'),
    (0, r'shape \[3\].*got \[\]'),
    ([], r'shape \[3\].*got \[0\]'),
    ([0., 1., 2.], r'whole numbers, got dtype torch.float32'),
    ([True, False, True], r'whole numbers, got dtype torch.bool'),
    ([0, None, 1], r'whole numbers'),
    ('abc', r'whole numbers'),
    (None, r'whole numbers')])
@pytest.mark.parametrize('reset', [True, False])
def test_bad_actions(midgame, actions, message, reset):
    before = midgame.clone()
    with pytest.raises(BadAction, match=message):
        midgame.step(actions, reset=reset)
    assert_same(Hex(midgame.bits, midgame.seats, 3), before)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integer_dtypes_of_actions(midgame, dtype):
    world, _ = midgame.step(torch.tensor([8, 8, 8], dtype=dtype))
    assert_same(world, midgame.step([8, 8, 8])[0])


@pytest.mark.parametrize('boardsize', [0, -1, 20, 3.0, '3', None])
def test_bad_boardsizes(boardsize):
    with pytest.raises(BadBoard, match='1 to 19'):
        Hex.initial(1, boardsize)


@pytest.mark.parametrize('n_envs', [-1, 2.0, None])
def test_bad_n_envs(n_envs):
    with pytest.raises(ValueError, match='n_envs'):
        Hex.initial(n_envs, 3)


@pytest.mark.parametrize('text, seat, message', [
    ('', None, 'got 0'), ('...\n...', None, r'row 0 has 3 cells on a board of 2 rows'),
    ('..\n...', None, r'row 1 has 3 cells'), ('.x\n..', None, r"row 0 holds \['x'\]"),
    ('bb\n..', None, r'2 black and 0 white.*pass seat'), ('w.\n..', None, r'0 black and 1 white'),
    ('..\n..', 2, 'seat must be'), ('\n'.join(['.'*20]*20), None, 'got 20')])
def test_bad_texts(text, seat, message):
    with pytest.raises(BadBoard, match=message):
        Hex.parse(text, seat)


def test_bad_keys():
    world = Hex.initial(3, 3)
    for keys in (rng.keys(0, 2, 0), np.zeros(3, np.int64), 0):
        with pytest.raises(ValueError, match='uint64'):
            world.random_actions(keys)
        with pytest.raises(ValueError, match='uint64'):
            world.random_steps(1, keys)


def test_no_free_cell():
    world = Hex.cat([Hex.initial(1, 8), Hex.parse(full(8, 0x0f0f0f0f0f0f0f0f), seat=0)])
    with pytest.raises(BadAction, match='environment 1: the board is full'):
        world.random_actions(rng.keys(0, 2, 0))
    with pytest.raises(BadAction, match='environment 1: the game is over'):
        world.random_steps(1, rng.keys(0, 2, 0))


# Batches

@pytest.mark.parametrize('n_envs', [0, 1, 7])
@pytest.mark.parametrize('boardsize', [1, 8, 11])
def test_batch_sizes(n_envs, boardsize):
    world = Hex.initial(n_envs, boardsize)
    assert len(world) == n_envs
    actions = world.random_actions(rng.keys(0, n_envs, 0))
    world, transition = world.step(actions)
    assert transition.rewards.shape == (n_envs, 2) and transition.terminal.shape == (n_envs,)
    assert world.obs.shape == (n_envs, boardsize, boardsize, 2)
    assert world.valid.shape == (n_envs, boardsize**2)
    assert world.board.shape == (n_envs, boardsize, boardsize)
    assert world.seats.shape == world.winner.shape == (n_envs,)
    world, wins = world.random_steps(5, rng.keys(0, n_envs, 1))
    assert wins.shape == (n_envs, 2)
    assert f'n_envs={n_envs}' in repr(world) and f'boardsize={boardsize}' in repr(world)


@pytest.fixture(scope='module')
def crowd():
    return Hex.initial(1001, 6).random_steps(17, rng.keys(3, 1001, 0))[0]


def test_results_do_not_depend_on_threads(crowd, monkeypatch):
    results = []
    for n_threads in (1, 2, 3):
        monkeypatch.setenv('BOARDLAW_THREADS', str(n_threads))
        world = crowd.clone()
        actions = world.random_actions(rng.keys(0, 1001, 0))
        after, transition = world.step(actions)
        later, wins = world.random_steps(40, rng.keys(1, 1001, 0))
        results.append([world.obs, world.valid, world.board, actions, transition.rewards,
                        transition.terminal, after.bits, later.bits, later.seats, wins])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_games_do_not_depend_on_their_neighbours(crowd):
    after, wins = crowd.random_steps(40, rng.keys(1, 1001, 0))
    some = torch.tensor([5, 999, 5, 0])
    alone, alone_wins = crowd[some].random_steps(40, rng.keys(1, some.numpy(), 0))
    assert_same(alone, after[some])
    assert torch.equal(alone_wins, wins[some])


def test_indexing(crowd):
    world = crowd[:6]
    each = list(world)
    assert [len(w) for w in each] == [1]*6
    assert_same(Hex.cat(each), world)
    even = torch.tensor([True, False]*3)
    for index, same in [(-1, [5]), (np.int64(2), [2]), (torch.tensor(2), [2]),
                        (slice(2, 4), [2, 3]), (slice(None, None, 2), [0, 2, 4]),
                        (slice(None, None, -2), [5, 3, 1]),
                        (even, [0, 2, 4]), (even.numpy(), [0, 2, 4]), (even.tolist(), [0, 2, 4]),
                        (torch.tensor([3, -1, 3]), [3, 5, 3]), (np.array([4, 1]), [4, 1]),
                        (torch.tensor([4, 1], dtype=torch.uint8), [4, 1]), (range(2), [0, 1])]:
        assert_same(world[index], Hex.cat([each[i] for i in same]))
    for nothing in ([], slice(3, 3), torch.zeros(6, dtype=torch.bool), np.array([], int)):
        assert world[nothing].n_envs == 0 and world[nothing].obs.shape == (0, 6, 6, 2)


@pytest.mark.parametrize('index, error', [
    (6, IndexError), (-7, IndexError), ([0, 6], IndexError), ([.5], IndexError),
    ([[0, 1]], IndexError), ([True, False], IndexError), (True, IndexError), ((0, 1), TypeError),
    (None, TypeError), (..., TypeError), ('all', TypeError)])
def test_bad_indices(crowd, index, error):
    with pytest.raises(error):
        crowd[:6][index]


def test_cat_clone_to(crowd):
    assert_same(Hex.cat([crowd[:3], crowd[3:3], crowd[3:]]), crowd)
    with pytest.raises(BadBoard, match='at least one world'):
        Hex.cat([])
    with pytest.raises(BadBoard, match=r'sizes \[3, 4\]'):
        Hex.cat([Hex.initial(1, 3), Hex.initial(1, 4)])
    copy = crowd.clone()
    copy.bits.zero_()
    copy.seats.fill_(1)
    assert crowd.bits.any() and not crowd.seats.all()
    assert_same(crowd.to('cpu'), crowd)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda(crowd):
    there = crowd.to('cuda')
    assert there.device.type == there.obs.device.type == there.valid.device.type == 'cuda'
    keys = rng.keys(0, len(crowd), 0)
    (a, gave), (b, gave_there) = (w.step(w.random_actions(keys)) for w in (crowd, there))
    assert_same(a, b.to('cpu'))
    assert torch.equal(gave.rewards, gave_there.rewards.cpu())


# Random play

@pytest.mark.parametrize('text', [
    '...\n...\n...', '..bw.\nw....\n.b.b.\n.....\nw...b', '\n'.join(['.'*11]*11), 'bw\nw.'])
def test_random_actions_are_uniform_over_valid_cells(text):
    """Chi-square; the seed is fixed, and a right generator would fail for one seed in 10^4."""
    one = Hex.parse(text, seat=1)
    n = 200*int(one.valid.sum())
    actions = one[[0]*n].random_actions(rng.keys(7, n, 2))
    counts = torch.bincount(actions, minlength=one.n_actions)
    assert not counts[~one.valid[0]].any()
    free = counts[one.valid[0]].numpy()
    if len(free) > 1:
        assert stats.chisquare(free).pvalue > 1e-4


@pytest.mark.parametrize('boardsize', [1, 3, 8, 9, 13])
def test_random_steps_is_a_loop_of_steps(boardsize):
    n_envs, n_steps = 9, 3*boardsize**2
    keys = rng.keys(5, n_envs, 0)
    world = start = Hex.initial(n_envs, boardsize)
    wins = torch.zeros((n_envs, 2), dtype=torch.int64)
    for t in range(n_steps):
        # SplitMix64: draw t of a stream is draw 0 of the stream that starts t strides later.
        later = keys + np.uint64(t*0x9E3779B97F4A7C15 % 2**64)
        world, transition = world.step(world.random_actions(later))
        wins += (transition.rewards > 0).long()
    fast, fast_wins = start.random_steps(n_steps, keys)
    assert_same(fast, world)
    assert torch.equal(fast_wins, wins) and wins.sum() >= n_envs


def test_nth_bit():
    """The machine instruction and what stands in for it, on words of all densities."""
    ways = [njit(lambda x, n: bits.nth_bit(x, n)), njit(bits._nth_bit)]
    words = np.random.default_rng(0).integers(0, 2**64, (200, 4), np.uint64)
    for a, b, c, d in words:
        for x in (a, a & b, a & b & c & d, a | b | c | d):
            for n, where in enumerate(i for i in range(64) if int(x) >> i & 1):
                assert [way(x, np.uint64(n)) for way in ways] == [where, where]
