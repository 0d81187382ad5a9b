"""MoHex, or another GTP engine, as an agent of the arena, and games against it in the database.

    with MoHexAgent(max_games=1000, n_engines=2) as engine:
        mohex.evaluate(engine, arena.register(run).index, n_games=64)

MoHex 2.0 is the engine against which the paper calibrated its agents:
https://github.com/cgao3/benzene-vanilla-cmake. The Dockerfile shows how to build it. Statements
about its settings come from its source and README, and are not tested.
"""
import secrets
import shlex
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import torch
from tqdm import tqdm

from .. import rng, sql
from . import evaluation, gtp, matches


@dataclass(frozen=True)
class Decisions:
    """What :class:`EngineAgent` returns: ``actions`` `[n_envs]` int64, in the mover's frame."""
    actions: torch.Tensor


class Resigned(gtp.EngineError):
    """The engine gave up a game that was not over.

    What to do: none is needed in a match: the game counts as lost.

    Attributes:
        seat: whose side it played.
        moves: stones on the board by then.
    """

    def __init__(self, engine, seat, moves):
        super().__init__(engine, f'genmove {gtp.COLOURS[seat]}', 'it resigns; a game between '
                         'agents goes on until two edges are joined', 'resign')
        self.seat, self.moves = seat, moves


class EngineAgent:
    """A GTP engine that plays as any agent does: ``agent(world, seed=0, move=0, games=None)``.

    Each move is a position set up and a question, so it does not matter which engine gets which
    game. Engines are started when they are needed, also in place of one that died. The seed is not
    used: an engine's own random numbers are its own. Close it, or use it in a ``with`` block.

    Args:
        command: as for :class:`boardlaw.arena.gtp.Engine`, like ``cwd`` and ``setup``.
        n_engines: processes side by side.
        timeout: seconds for an answer.

    Raises:
        boardlaw.arena.gtp.EngineError: when called, as soon as an engine fails; :class:`Resigned`
            if it resigns.
    """

    def __init__(self, command, n_engines=1, timeout=60., cwd=None, setup=()):
        if n_engines < 1:
            raise ValueError(f'n_engines must be at least 1, got {n_engines}')
        self.command, self.n_engines, self.timeout = command, n_engines, timeout
        self.cwd, self.setup = cwd, tuple(setup)
        self._engines, self._idle, self._lock = [], [], threading.Lock()
        self._free = threading.Semaphore(n_engines)

    def __call__(self, world, seed=0, move=0, games=None):
        with ThreadPoolExecutor(self.n_engines) as pool:
            actions = list(pool.map(self._decide, [world[i] for i in range(world.n_envs)]))
        return Decisions(torch.tensor(actions, dtype=torch.int64).to(world.device))

    def _decide(self, world):
        """The action for a world of one game."""
        seat = int(world.seats[0])
        with self._free:
            engine = self._take(world)
            try:
                engine.set_position(world)
                stones = len(engine.moves)
                cell = engine.genmove(seat)
            finally:
                with self._lock:
                    self._idle.append(engine)
        if cell is None:
            raise Resigned(engine.name, seat, stones)
        return gtp.to_action(cell, seat, world.boardsize)

    def _take(self, world):
        """An idle engine, if possible one that is on its way to this position; else a new one."""
        with self._lock:
            self._idle = [engine for engine in self._idle if not engine.closed]
            if self._idle:
                nearest = max(self._idle, key=lambda e: (e.leads_to(world), len(e.moves)))
                self._idle.remove(nearest)
                return nearest
        engine = gtp.Engine(self._command(), self.cwd, self.timeout, self.setup)
        with self._lock:
            self._engines = [e for e in self._engines if not e.closed] + [engine]
        return engine

    def _command(self):
        """What starts the next engine."""
        return self.command

    def close(self):
        """Ends the engines, also those that are thinking; a later call starts new ones."""
        with self._lock:
            engines = list(self._engines)
        for engine in engines:
            engine.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __repr__(self):
        return f'{type(self).__name__}({self.command!r}, n_engines={self.n_engines})'


class MoHexAgent(EngineAgent):
    """MoHex 2.0 as an agent.

    Args:
        command: how it is started.
        max_time: seconds of search for a move; MoHex's default is 10. Its search may take a second
            however small this is: for quicker moves limit the games instead.
        max_games: playouts of a search; MoHex's default is no limit that matters. The fewer, the
            weaker: below its ``expand_threshold``, 10, the search has no tree and the move is
            random.
        seed: of MoHex's random numbers: engine n of this agent gets one made of ``seed`` and n. By
            default it comes from the system. (MoHex's own default is the time in seconds, the same
            for engines that start together.)
        settings: further parameters of its command ``param_mohex`` by name: num_threads,
            max_memory (bytes for each engine, by default 2 GB), expand_threshold,
            perform_pre_search, reuse_subtree, use_parallel_solver and others, which the command
            lists. True and False are sent as 1 and 0.
        timeout: seconds for an answer; by default a minute beyond three times ``max_time``.
        n_engines, cwd: as for :class:`EngineAgent`.
    """

    def __init__(self, command=('mohex', '--use-logfile=0'), max_time=None, max_games=None,
                 n_engines=1, timeout=None, seed=None, cwd=None, **settings):
        command = shlex.split(command) if isinstance(command, str) else list(command)
        self.seed, self._started = secrets.randbits(31) if seed is None else seed, 0
        settings = {'max_time': max_time, 'max_games': max_games, **settings}
        self.settings = {k: v for k, v in settings.items() if v is not None}
        setup = [f'param_mohex {k} {int(v) if isinstance(v, bool) else v}'
                 for k, v in self.settings.items()]
        timeout = 60 + 3*(10 if max_time is None else max_time) if timeout is None else timeout
        # It knows the swap rule, which its games here must not use; that is its default, too.
        super().__init__(command, n_engines, timeout, cwd, [*setup, 'param_game allow_swap 0'])

    def _command(self):
        with self._lock:
            self._started += 1
            return [*self.command, '--seed', str(rng.fold(self.seed, self._started) % 2**31)]

    def __repr__(self):
        settings = ''.join(f', {k}={v!r}' for k, v in self.settings.items())
        return (f'MoHexAgent({self.command!r}{settings}, n_engines={self.n_engines}, '
                f'seed={self.seed})')


def evaluate(engine, agents, n_games=32, seed=0, progress=True):
    """Plays the games against MoHex that the database in use lacks, and saves each as it ends.

    Games that are in the database are not played again. After an interruption, or an error of the
    engine, call it once more: games that had ended are kept. The table mohex_trials has no field
    for the settings of MoHex, so keep one database for each.

    Args:
        engine: a :class:`MoHexAgent`; as many games are played at once as it has engines.
        agents: {id: agent} as :func:`boardlaw.arena.load` returns them, or ids.
        n_games: games of each agent in each colour.
        seed: of the agents' choices; MoHex's own are not seeded.

    Returns:
        How many games were played.

    Raises:
        boardlaw.arena.gtp.EngineError: the engine failed; the games that others were playing were
            ended and saved.
    """
    agents = agents if isinstance(agents, dict) else evaluation.load(agents)
    played = sql.query('select coalesce(black_agent, white_agent) as agent, '
                       'case when black_agent is null then 1 else 0 end as seat, '
                       'sum(black_wins + white_wins) as games from mohex_trials group by 1, 2')
    played = {(row.agent, row.seat): int(row.games) for row in played.itertuples()}
    # A seed of its own for each game, also for those that an interruption left out and that are
    # made up for later, beside others of the same number.
    todo = [(k, i, seat, rng.fold(seed, i, seat, done, k)) for i in agents for seat in (0, 1)
            for done in [played.get((i, seat), 0)] for k in range(n_games - done)]
    todo.sort(key=lambda game: game[0])
    lock, stop = threading.Lock(), threading.Event()
    with ThreadPoolExecutor(engine.n_engines) as pool:
        games = [pool.submit(_play_and_save, engine, agents[i], i, seat, game_seed, lock, stop)
                 for _, i, seat, game_seed in todo]
        try:
            for game in tqdm(as_completed(games), 'games', len(games), disable=not progress):
                game.result()
        except BaseException as e:
            pool.shutdown(wait=False, cancel_futures=True)   # games that have begun go on
            if not isinstance(e, Exception):                 # unless the user wants to leave
                stop.set()
                engine.close()
            raise
    return len(todo)


def _play_and_save(engine, agent, i, seat, seed, lock, stop):
    """One game of agent ``i`` as ``seat``."""
    def ours(world, **which):
        with lock:      # an agent need not be able to think in two threads
            return agent(world, **which)

    def until_stopped(player):
        def decide(world, **which):
            if stop.is_set():
                raise CancelledError
            return player(world, **which)
        return decide

    began = time.perf_counter()
    players = (ours, engine) if seat == 0 else (engine, ours)
    try:
        result = matches.play(*map(until_stopped, players), 1, agent.network.boardsize, seed)
        wins, moves = (result.black_wins, result.white_wins), result.moves
    except Resigned as e:
        wins, moves = (int(e.seat == 1), int(e.seat == 0)), e.moves
    sql.save_mohex_trials([{
        'black_agent': i if seat == 0 else None, 'white_agent': i if seat == 1 else None,
        'black_wins': wins[0], 'white_wins': wins[1], 'moves': moves,
        'times': time.perf_counter() - began}])
