"""Engines over real pipes: a plain one with rules of its own, and ours."""
import gc
import io
import os
import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hex_reference import Game

from boardlaw import arena, main, pavlov, sql
from boardlaw.arena import common, gtp, gtp_server, mohex, pipes
from boardlaw.arena.gtp import Engine, EngineError
from boardlaw.hex import Hex
from boardlaw.hex.solve import openings
from boardlaw.mcts import MCTSAgent
from boardlaw.networks import Network
from boardlaw.pavlov import runs, storage

pytestmark = pytest.mark.usefixtures('clean', 'one_thread')

# An engine that knows nothing of boardlaw: rules from hex_reference, random moves. From its n-th
# genmove on, counted over all processes that share a file, it does what its fault says.
PLAIN = '''
import random, subprocess, sys, time
sys.path.insert(0, {tests!r})
from hex_reference import Game

fault, n, counter = sys.argv[1], int(sys.argv[2]), sys.argv[3]
choose, told, moves, size = random.Random(fault), [], [], 11

def point(name):
    return int(name[1:]) - 1, 'abcdefghijklmnopqrs'.index(name[0])

def faulty():
    with open(counter, 'a') as f:
        f.write('x')
    return len(open(counter).read()) >= n

def answer(name, args):
    global moves, size
    stones = {{cell: seat for seat, cell in moves}}
    if name == 'name':
        if fault == 'spawn':
            child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
            return str(child.pid)
        return 'plain'
    if name == 'known_command':
        return 'true' if args[0] in ('play', 'genmove') else 'false'
    if name == 'boardsize':
        size, moves = int(args[0]), []
    elif name == 'clear_board':
        moves = []
    elif name == 'play':
        cell = point(args[1])
        if cell in stones:
            raise ValueError('occupied')
        moves.append(('bw'.index(args[0][0]), cell))
    elif name == 'undo':
        moves.pop()
    elif name == 'genmove':
        if fault != 'none' and faulty():
            if fault == 'hang':
                time.sleep(60)
            elif fault == 'slow':
                time.sleep(.3)
            elif fault == 'crash':
                raise SystemExit('boom, and this is why')
            elif fault == 'crash once':
                if len(open(counter).read()) == n:
                    sys.exit(3)
            elif fault == 'half':
                print('= a', end='', flush=True)
                sys.exit()
            elif fault == 'nonsense':
                print('hello there', flush=True)
            elif fault == 'twice':
                print('= a1\\n', flush=True)
            elif fault == 'flood':
                while True:
                    print('= ' + 'spam '*1000, flush=True)
            elif fault == 'blank':
                while True:
                    print(flush=True)
            elif fault == 'stderr':
                sys.stderr.write('chatter\\n'*200_000)
            elif fault in ('resign', 'swap-pieces', 'z9', 'd1', 'pass', ''):
                return fault
            elif fault == 'taken':
                return 'abc'[moves[-1][1][1]] + str(moves[-1][1][0] + 1)
        free = [cell for cell in Game(size).cells() if cell not in stones]
        cell = choose.choice(free)
        moves.append(('bw'.index(args[0][0]), cell))
        return 'abcdefghijklmnopqrs'[cell[1]] + str(cell[0] + 1)
    elif name == 'final_score':
        won = Game(size, stones).winners()
        return 'BW'[won[0]] + '+' if won else 'cannot score'
    elif name == 'stones':
        return '\\n' + '\\n'.join(''.join('.bw'[stones.get((r, c), -1) + 1] for c in range(size))
                                for r in range(size))
    elif name.startswith('param_'):
        told.append(' '.join([name, *args]))
    elif name == 'told':
        return '\\n'.join(told)
    elif name == 'stubborn':
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif name not in ('version', 'quit'):
        raise ValueError('unknown command')
    return ''

for line in sys.stdin:
    name, *args = line.split()
    if name == 'quit' and fault == 'stubborn':
        time.sleep(60)
    try:
        print('= ' + answer(name, args) + '\\n', flush=True)
    except ValueError as e:
        print('? ' + str(e) + '\\n', flush=True)
    if name == 'quit':
        break
'''


@pytest.fixture
def plain(tmp_path):
    """A function that gives the command of a plain engine with a fault."""
    path = tmp_path / 'plain.py'
    path.write_text(PLAIN.format(tests=str(Path(__file__).parent)))

    def command(fault='none', n=1):
        return [sys.executable, '-S', str(path), fault, str(n), str(tmp_path / f'count {fault}')]
    return command


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pipes, 'PATIENCE', (.2, .2))


def gone(pid):
    """Whether a process has ended, soon."""
    for _ in range(100):
        try:
            if Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z':
                return True
        except OSError:
            return True
        time.sleep(.02)
    return False


linux = pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='looks into /proc')


# Coordinates

#: What MoHex 2.0 says: chains of Black on 3x3, and whether they win.
CHAINS = [(('b1', 'b2', 'b3'), True), (('c1', 'b2', 'a3'), True), (('a1', 'b2', 'c3'), False)]


def test_names_of_cells():
    assert [gtp.vertex(x) for x in ((0, 0), (0, 2), (2, 0), (18, 18))] == ['a1', 'c1', 'a3', 's19']
    assert gtp.vertex((0, 8)) == 'i1', 'no letter is left out'
    for size in (1, 9, 19):
        cells = list(np.ndindex(size, size))
        assert [gtp.parse(gtp.vertex(cell), size) for cell in cells] == cells
    assert gtp.parse('C2', 3) == (1, 2)
    for wrong in ('d1', 'a4', 'a0', 'a01', '1a', 'a', '', 'a1 b2', 'swap-pieces', 'a-1', 'á1'):
        with pytest.raises(ValueError, match='names no cell|not on the 3x3 board'):
            gtp.parse(wrong, 3)


@pytest.mark.parametrize('seat', [0, 1])
def test_actions_are_the_cells_that_worlds_mean(seat):
    for action in range(9):
        world = Hex.parse('...\n...\n...', seat=seat)
        after, _ = world.step(torch.tensor([action]))
        [(cell, mover)] = gtp.stones(after).items()
        assert mover == seat and gtp.to_cell(action, seat, 3) == cell
        assert gtp.to_action(cell, seat, 3) == action


@pytest.mark.parametrize('chain, wins', CHAINS)
def test_chains_win_as_in_mohex(chain, wins):
    world, server = Hex.initial(1, 3), gtp_server.Server(gtp_server.player('random')[0])
    cells = [gtp.parse(name, 3) for name in chain]
    others = [cell for cell in ((0, 0), (2, 2), (1, 0), (1, 2)) if cell not in cells]
    for black, white in zip(cells, others):
        for seat, cell in enumerate((black, white)):
            if world.winner[0] < 0:
                world, _ = world.step(torch.tensor([gtp.to_action(cell, seat, 3)]), reset=False)
                assert server.answer(f'play {gtp.COLOURS[seat]} {gtp.vertex(cell)}') == '= \n\n'
    assert int(world.winner[0]) == (0 if wins else -1)
    assert server.answer('final_score') == ('= B+\n\n' if wins else '= cannot score\n\n')


def test_games_of_an_engine_replayed_by_our_rules(plain):
    winners = set()
    with Engine(plain()) as engine:
        for size in (1, 2, 3, 4, 5, 4, 3):
            engine.boardsize(size)
            world = Hex.initial(1, size)
            while world.winner[0] < 0:
                seat = int(world.seats[0])
                action = gtp.to_action(engine.genmove(seat), seat, size)
                world, _ = world.step(torch.tensor([action]), reset=False)
                score = {-1: 'cannot score', 0: 'B+', 1: 'W+'}[int(world.winner[0])]
                assert engine.final_score() == score
            winners.add(int(world.winner[0]))
            assert engine.stones == gtp.stones(world)
        engine.undo()
        assert engine.final_score() == 'cannot score' and len(engine.moves) == len(
            gtp.stones(world)) - 1
    assert winners == {0, 1}, 'both sides have won a game'


def test_positions_are_set_up_as_they_are(plain):
    def board(world):
        return re.sub('[TB]', 'b', re.sub('[LR]', 'w', world.text())).replace(' ', '')

    with Engine(plain()) as engine:
        told, send = [], engine.send
        engine.send = lambda command, *args: told.append(command) or send(command, *args)
        worlds = Hex.initial(3, 5)
        for move in range(8):
            for i in range(3):
                engine.set_position(worlds[i])
                assert engine.send('stones') == board(worlds[i])
            worlds, _ = worlds.step(worlds.random_actions(np.arange(3, dtype=np.uint64) + 9*move))
        told.clear()
        engine.set_position(worlds[2])
        assert sorted(x.split()[0] for x in told) == ['play'], 'one move on: one stone to place'
        engine.set_position(Hex.parse('. . .\n b b .\n b . .', seat=0))
        assert engine.send('stones') == '...\nbb.\nb..'


# Engines that do not behave

@pytest.mark.parametrize('fault, says', [
    ('hang', "no whole answer within 0.5 s"),
    ('crash', r'ended before its answer did \(exit status 1\).*ends with:\nboom, and this is why'),
    ('half', r"ended before its answer did \(exit status 0\); it said '= a'"),
    ('nonsense', "begins with '=' or '\\?'; it said 'hello there'"),
    ('flood', 'the answer has more than 1048576 characters; it said .= spam'),
    ('blank', "no whole answer within 0.5 s"),
    ('z9', "not a legal move: z9 is not on the 3x3 board; it said 'z9'"),
    ('d1', "not a legal move: d1 is not on the 3x3 board"),
    ('', "not a legal move: '' names no cell"),
    ('taken', 'not a legal move: [abc][123] holds a stone'),
    ('pass', "not a legal move: 'pass' names no cell"),
    ('swap-pieces', r"not a legal move \(there is no swap rule here\)")])
def test_what_an_engine_may_do_wrong(plain, quick, fault, says):
    engine = Engine(plain(fault, 2))
    engine.boardsize(3)
    engine.genmove(0)
    with pytest.raises(EngineError, match='(?s)' + says) as e:
        engine.genmove(1, timeout=.5 if fault in ('hang', 'blank') else 30)
    assert str(e.value).startswith("plain: 'genmove white': ")
    assert (e.value.engine, e.value.command) == ('plain', 'genmove white')
    assert engine.closed and engine._program.status is not None
    with pytest.raises(EngineError, match="not running: at 'genmove white', "):
        engine.play(0, (0, 0))
    engine.close()


def test_a_refusal_is_an_error_and_no_end(plain):
    with Engine(plain()) as engine:
        engine.boardsize(3)
        engine.play(0, (1, 1))
        with pytest.raises(EngineError, match="plain: 'play white b2': it refuses: occupied") as e:
            engine.play(1, (1, 1))
        assert e.value.said == 'occupied'
        assert engine.moves == [(0, (1, 1))] and not engine.closed
        with pytest.raises(EngineError, match='unknown command'):
            engine.showboard()
        assert engine.knows('play') and not engine.knows('showboard')
        assert engine.genmove(1) in [cell for cell in np.ndindex(3, 3) if cell != (1, 1)]


def test_an_answer_too_many_is_not_taken_for_the_next(plain):
    with Engine(plain('twice', 1)) as engine:
        engine.boardsize(3)
        assert engine.genmove(0) == (0, 0)
        time.sleep(.2)
        with pytest.raises(EngineError, match='nothing had asked for'):
            engine.send('version')


def test_slow_and_talkative_engines_are_waited_for(plain):
    for fault in ('slow', 'stderr'):
        with Engine(plain(fault), timeout=30) as engine:
            engine.boardsize(3)
            for seat in (0, 1, 0):
                assert engine.genmove(seat)
            assert not engine.closed


def test_an_engine_that_is_not_there(tmp_path):
    with pytest.raises(EngineError, match='no-such-engine.*cannot be started: .*Is it installed'):
        Engine('no-such-engine --x')
    with pytest.raises(EngineError, match='cannot be started'):
        Engine([sys.executable], cwd=tmp_path / 'missing')
    with pytest.raises(EngineError, match="'name': the engine ended"):
        Engine([sys.executable, '-c', ''])


def test_misuse_is_told_before_it_reaches_the_engine(plain):
    with Engine(plain()) as engine:
        for wrong in ('', '  ', 'name\nquit', 'name # x', 'x'*5000):
            with pytest.raises(ValueError, match='is not a command'):
                engine.send(wrong)
        with pytest.raises(ValueError, match='call boardsize first'):
            engine.genmove(0)
        assert engine.name == 'plain' and engine.version == ''
        assert 'plain.py' in repr(engine) and 'closed' not in repr(engine)
    assert 'closed' in repr(engine)
    with pytest.raises(EngineError, match='not running: it was closed'):
        engine.send('name')


# Ends

def test_an_engine_is_told_to_leave(plain):
    engine = Engine(plain())
    engine.close()
    assert engine._program.status == 0 and engine.closed
    engine.close()


@linux
def test_nothing_is_left_behind(plain, quick):
    def open_files():
        return len(os.listdir('/proc/self/fd'))

    gc.collect()    # what earlier tests left may go meanwhile, but nothing may come
    files, threads, pids = open_files(), set(threading.enumerate()), []
    for fault in ('none', 'crash', 'hang', 'flood', 'none'):
        engine = Engine(plain(fault))
        pids.append(engine._program._process.pid)
        engine.boardsize(2)
        if fault != 'none':
            with pytest.raises(EngineError):
                engine.genmove(0, timeout=.2)
        engine.close()
        assert engine._program.status is not None, 'no zombie'
    assert open_files() <= files and not set(threading.enumerate()) - threads
    assert all(map(gone, pids))


def test_closing_an_engine_ends_the_wait_for_its_answer(plain, quick):
    engine, errors = Engine(plain('hang'), timeout=1000), []
    engine.boardsize(2)

    def ask():
        try:
            engine.genmove(0)
        except EngineError as e:
            errors.append(str(e))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(.2)
    engine.close()
    thread.join(60)
    assert len(errors) == 1 and 'ended before its answer did' in errors[0]


@linux
def test_a_stubborn_engine_is_killed(plain, quick):
    engine = Engine(plain('stubborn'))
    engine.send('stubborn')     # from here on it ignores what the system asks
    engine.close()
    assert engine._program.status < 0


@linux
def test_what_an_engine_started_ends_with_it(plain, quick):
    with Engine(plain('spawn')) as engine:
        child = int(engine.name)
        assert not Path(f'/proc/{child}/stat').read_text().rpartition(')')[2].startswith(' Z')
    assert gone(child)


@linux
def test_a_forgotten_engine_ends(plain):
    engine = Engine(plain())
    pid = engine._program._process.pid
    del engine
    gc.collect()
    assert gone(pid)


# Our players as an engine

def server(name='random', boardsize=3, **options):
    return gtp_server.Server(gtp_server.player(name)[0], boardsize=boardsize, **options)


def test_the_protocol():
    s = server()
    assert s.answer('protocol_version') == '= 2\n\n'
    assert s.answer('  12\tname \r\n') == '=12 boardlaw\n\n', 'numbers come back, tabs are spaces'
    assert s.answer('3 nonsense') == '?3 unknown command\n\n'
    assert s.answer('') is s.answer('# a comment') is s.answer(' \t\n') is None
    assert s.answer('known_command play # or not') == '= true\n\n'
    assert s.answer('known_command swim') == '= false\n\n'
    assert s.answer('hexgui-analyze_commands') == '= \n\n'
    listed = s.answer('list_commands')[2:].split()
    assert set(listed) >= set(
        'protocol_version name version list_commands known_command boardsize clear_board play '
        'genmove reg_genmove undo showboard final_score quit hexgui-analyze_commands'.split())
    assert all(s.answer(f'known_command {name}') == '= true\n\n' for name in listed)
    for line in ('play', 'play b', 'play b a1 a2', 'genmove', 'name x', 'boardsize'):
        assert re.match(r'\? .*argument', s.answer(line)), line


def test_a_game_on_the_server():
    s = server()
    for wrong, says in {'play b d1': 'd1 is not on the 3x3 board', 'play x a1': 'no colour',
                        'play b swap-pieces': 'names no cell', 'undo': 'board is empty',
                        'boardsize 20': 'unacceptable size', 'boardsize 0': 'unacceptable size',
                        'boardsize 3 4': 'not square', 'boardsize x': 'unacceptable'}.items():
        assert s.answer(wrong).startswith('? ') and says in s.answer(wrong), wrong
    for line in ('play black B1', 'play w a2', 'play b b2', 'play WHITE a3'):
        assert s.answer(line) == '= \n\n'
    assert 'b1 holds a stone' in s.answer('play w b1')
    assert s.answer('all_legal_moves') == '= a1 c1 c2 b3 c3\n\n'
    drawing = s.answer('showboard')
    assert drawing.startswith('= \n') and drawing.index('\n\n') == len(drawing) - 2
    rows = [line.split()[1:-1] for line in drawing.splitlines()[2:5]]
    assert rows == [['.', 'b', '.'], ['w', 'b', '.'], ['w', '.', '.']]
    assert s.answer('final_score') == '= cannot score\n\n'
    assert s.answer('play b b3') == '= \n\n' and s.answer('final_score') == '= B+\n\n'
    for line in ('play w c3', 'genmove w', 'reg_genmove w'):
        assert s.answer(line) == '? the game is over: Black has won\n\n'
    assert s.answer('all_legal_moves') == '= \n\n'
    assert s.answer('undo') == '= \n\n' and s.answer('play w b3') == '= \n\n'
    assert s.answer('play w c1') == '= \n\n', 'set-ups go out of turn'
    assert s.answer('boardsize 4 4') == '= \n\n' and len(s.answer('all_legal_moves').split()) == 17


def test_moves_come_from_the_seed_and_the_game():
    def games(seed):
        s = server(boardsize=5, seed=seed)
        return [[s.answer(f'genmove {"bw"[k % 2]}') for k in range(6)]
                for _ in range(2) if s.answer('clear_board')]

    first, second = games(1)
    assert first != second and games(1) == [first, second] and games(2)[0] != first
    s = server()
    assert s.answer('reg_genmove b') == s.answer('reg_genmove b') == s.answer('genmove b')
    assert len(s.moves) == 1


def test_only_answers_reach_the_output(monkeypatch, capsys):
    class Chatty(arena.RandomAgent):
        def __call__(self, *args, **kwargs):
            print('let me think')
            return super().__call__(*args, **kwargs)

    monkeypatch.setattr(gtp_server, 'player', lambda name: (lambda size: Chatty(), 'chatty', 2))
    monkeypatch.setattr(sys, 'stdin', io.StringIO('name\ngenmove b\nquit\nname\n'))
    gtp_server.main('chatty')
    said = capsys.readouterr()
    assert re.fullmatch('= chatty\n\n= [ab][12]\n\n= \n\n', said.out)
    assert said.err == 'let me think\n'


def test_players_that_do_not_exist(capsys):
    for options, says in {('--player', 'nobody'): 'nobody', ('--boardsize', '7'): 'up to 6x6',
                          ('--player', 'random', '--argmax'): "a run's",
                          ('--n-nodes', '3'): "a run's", ('--player', '-1'): '-1'}.items():
        with pytest.raises(SystemExit) as e:
            main.main(['gtp', *options])
        assert says in str(e.value), options


# The exact solver over a pipe, in MoHex's place

STAND_IN = '''
import sys
from boardlaw.arena import gtp_server

class MoHex(gtp_server.Server):
    """Our solver, which takes MoHex's settings too."""
    told = []

    def do_param_mohex(self, name, value):
        self.told.append(f'{name}={value}')

    def do_param_game(self, name, value):
        self.told.append(f'{name}={value}')

    def do_told(self):
        return ' '.join(self.told)

MoHex(*gtp_server.player('solver')).serve(sys.stdin, sys.stdout)
'''


@pytest.fixture(scope='module')
def stand_in():
    """MoHex's stand-in, running."""
    with (pytest.MonkeyPatch.context() as patch,
          mohex.MoHexAgent([sys.executable, '-c', STAND_IN], max_time=2, max_games=100,
                           use_parallel_solver=True) as agent):
        yield agent
        patch.setattr(pipes, 'PATIENCE', (0, 1))    # to leave torch takes a while


def test_settings_reach_the_engine(stand_in):
    stand_in(Hex.initial(1, 3))
    [engine] = stand_in._engines
    assert engine.name == 'boardlaw solver' and re.match(r'\d+\.', engine.version)
    assert engine.send('told').split() == ['max_time=2', 'max_games=100', 'use_parallel_solver=1',
                                           'allow_swap=0']
    assert stand_in.timeout == 66 and 'max_games=100' in repr(stand_in)


def test_each_engine_has_its_own_seed():
    first, again, other = (mohex.MoHexAgent(seed=s) for s in (1, 1, 2))
    seeds = [[agent._command()[-1] for _ in range(3)] for agent in (first, again, other)]
    assert seeds[0] == seeds[1] and len({*seeds[0], *seeds[2]}) == 6
    assert all(0 <= int(x) < 2**31 for x in seeds[0] + seeds[2]), 'MoHex reads 32 bits, signed'
    assert first._command()[:3] == ['mohex', '--use-logfile=0', '--seed']
    assert mohex.MoHexAgent().seed != mohex.MoHexAgent().seed


@pytest.mark.parametrize('boardsize', [3, 4])
def test_the_solver_wins_what_is_won(stand_in, boardsize):
    # The first player wins the empty board; after an opening that loses, White does. A solver whose
    # moves were turned or mirrored on the way would lose some games even to a random player.
    result = arena.play(stand_in, arena.RandomAgent(), 6, boardsize, seed=1)
    assert (result.black_wins, result.white_wins) == (6, 0)
    lost = [Hex.initial(1, boardsize).step(torch.tensor([a]))[0]
            for a in np.flatnonzero(openings(boardsize)).tolist()]
    result = arena.play(arena.RandomAgent(), stand_in, None, boardsize, 2, world=Hex.cat(lost))
    assert len(lost) >= 2 and result.white_wins == len(lost)


def test_the_server_and_the_plain_rules_agree_on_a_game(stand_in):
    [engine] = stand_in._engines
    engine.boardsize(4)
    game = Game(4)
    while not game.winners():
        cell = engine.genmove(game.seat)
        assert cell not in game.stones
        game = Game(4, game.stones | {cell: game.seat}, 1 - game.seat)
        assert engine.final_score() == ('B+' if game.winners() == [0] else 'cannot score')
    rows = [re.findall('[.bw]', line) for line in engine.showboard().splitlines()[1:5]]
    assert {(r, c): 'bw'.index(x) for r, row in enumerate(rows)
            for c, x in enumerate(row) if x in 'bw'} == game.stones
    with pytest.raises(EngineError, match='it refuses: the game is over: Black has won'):
        engine.genmove(1)


def test_an_agent_over_the_pipe_plays_as_it_does_here(quick, output):
    torch.manual_seed(0)
    network = Network(3, 8, 1)
    run = runs.new_run('bee/3', {'boardsize': 3, 'width': 8, 'depth': 1, 'nodes': 16,
                                 'c_puct': .5, 'rule': 'corrected'})
    state = {f'network.{name}': x for name, x in network.state_dict().items()}
    storage.save_snapshot(run, 0, {'agent': state, 'n_flops': 1, 'n_samples': 1, 'runtime': 1.})
    agent, world = common.agent(run, 0, n_nodes=8), Hex.initial(1, 3)
    command = [sys.executable, '-m', 'boardlaw', 'gtp', '--player', '-1', '--snapshot', '0',
               '--n-nodes', '8', '--seed', '5']
    os.environ['BOARDLAW_OUTPUT'] = str(pavlov.root())      # restored by the fixture `clean`
    with Engine(command) as engine:
        assert engine.name == 'boardlaw -1 0'
        with pytest.raises(EngineError, match='unacceptable size: this agent plays 3x3 only'):
            engine.boardsize(4)
        engine.boardsize(3)
        move = 0
        while world.winner[0] < 0:
            # Its game 2: the board that it began with was 0, those of boardsize and clear_board 1
            # and 2.
            expected = agent(world, seed=5, move=move, games=[2]).actions
            seat = int(world.seats[0])
            assert gtp.to_action(engine.genmove(seat), seat, 3) == int(expected)
            world, _ = world.step(expected, reset=False)
            move += 1
        assert engine.final_score() == 'BW'[int(world.winner[0])] + '+'


# Games against MoHex in the database

@pytest.fixture
def ids(output):
    """Two agents of a database in use: players of 3x3 and 2x2."""
    with sql.use(sql.create(output / 'games.sqlite')):
        agents = {}
        for size in (3, 2):
            run = sql.add_run(f'run {size}', f'bee/{size}', size, 4, 1, 4)
            agent = sql.add_agent(sql.add_snap(run, 0, 1, 1))
            agents[agent] = MCTSAgent(Network(size, 4, 1), 2)
        yield agents


def rows(size):
    found = sql.mohex_trial_query(size)
    assert (found.black_wins + found.white_wins == 1).all() and (found.times > 0).all()
    assert (found.black_agent.isna() != found.white_agent.isna()).all()
    return found.black_agent.notna().sum(), found.white_agent.notna().sum()


def test_evaluate_saves_each_game_and_resumes(plain, ids):
    first, second = ids
    with mohex.EngineAgent(plain('crash once', 12)) as engine:
        with pytest.raises(EngineError, match='exit status 3'):
            mohex.evaluate(engine, ids, 4, progress=False)
        played = [sum(rows(3)), sum(rows(2))]
        assert 2 <= sum(played) < 16, 'what had ended is kept'
        assert mohex.evaluate(engine, ids, 4, progress=False) == 16 - sum(played)
        assert [rows(3), rows(2)] == [(4, 4), (4, 4)]
        assert mohex.evaluate(engine, ids, 4, progress=False) == 0
        assert mohex.evaluate(engine, {first: ids[first]}, 5, progress=False) == 2
        assert [rows(3), rows(2)] == [(5, 5), (4, 4)]
    assert set(sql.mohex_trial_query(2).moves) <= {3, 4}, '2x2 is over after three or four moves'


def test_evaluate_counts_for_whom_a_game_was(stand_in, ids):
    # Nobody beats the solver on an empty board, and it loses to nobody who is random.
    ids = {i: agent for i, agent in ids.items() if agent.network.boardsize == 3}
    assert mohex.evaluate(stand_in, ids, 3, progress=False) == 6
    found = sql.mohex_trial_query(3)
    as_black = found[found.black_agent.isna()]
    assert as_black[['black_wins', 'white_wins']].values.tolist() == [[1, 0]]*3
    assert set(found.moves) <= set(range(5, 10))


def test_a_resignation_is_a_loss(plain, ids):
    ids = {i: agent for i, agent in ids.items() if agent.network.boardsize == 3}
    with mohex.EngineAgent(plain('resign')) as engine:
        assert mohex.evaluate(engine, ids, 2, progress=False) == 4
        found = sql.mohex_trial_query(3)
        assert (found.black_wins == found.black_agent.notna()).all(), 'the agent has won them all'
        assert sorted(found.moves) == [0, 0, 1, 1]
        with pytest.raises(mohex.Resigned, match='resigns'):
            arena.play(engine, arena.RandomAgent(), 2, 3)


@pytest.mark.parametrize('fault', ['none', 'hang'])
def test_several_engines_at_once(plain, quick, ids, fault):
    with mohex.EngineAgent(plain(fault, 40), n_engines=3, timeout=1.5) as engine:
        if fault == 'hang':
            with pytest.raises(EngineError, match='no whole answer within 1.5 s'):
                mohex.evaluate(engine, ids, 20, progress=False)
            assert sum(rows(3) + rows(2)) >= 4
        else:
            assert mohex.evaluate(engine, ids, 4, progress=False) == 16
            assert [rows(3), rows(2)] == [(4, 4), (4, 4)]
            assert 1 <= len(engine._engines) <= 3
            result = arena.play(engine, engine, 10, 3)
            assert result.games == 10
    assert all(e.closed for e in engine._engines)


def test_leaving_in_the_middle_ends_the_engines(plain, quick, ids, monkeypatch):
    def interrupted(games):
        next(iter(games)).result()
        raise KeyboardInterrupt

    monkeypatch.setattr(mohex, 'as_completed', interrupted)
    with mohex.EngineAgent(plain('slow'), n_engines=2) as engine:
        with pytest.raises(KeyboardInterrupt):
            mohex.evaluate(engine, ids, 20, progress=False)
    assert all(e.closed for e in engine._engines)
    assert 1 <= sum(rows(3) + rows(2)) <= 4


def test_bad_settings(plain):
    with pytest.raises(ValueError, match='n_engines'):
        mohex.EngineAgent(plain(), n_engines=0)
    with pytest.raises(EngineError, match="'no_such_command': it refuses: unknown command"):
        mohex.EngineAgent(plain(), setup=['no_such_command'])(Hex.initial(1, 2))
    agent = mohex.MoHexAgent(['no-such-mohex'], max_time=1)
    with pytest.raises(EngineError, match='cannot be started'):
        agent(Hex.initial(1, 3))
    assert SimpleNamespace(**agent.settings) == SimpleNamespace(max_time=1)
