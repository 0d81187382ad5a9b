"""Games between agents, many at once, both colours, every game played to its end."""
import time
from dataclasses import dataclass

import numpy as np
import torch

from .. import rng
from ..hex import Hex


@dataclass(frozen=True)
class Result:
    """How the games of one colour order ended.

    Attributes:
        black_wins, white_wins: games won by either side.
        moves: moves played in all of them together.
        seconds: wall time.
    """
    black_wins: int
    white_wins: int
    moves: int
    seconds: float

    @property
    def games(self):
        """The number of games played."""
        return self.black_wins + self.white_wins


class RandomAgent:
    """Plays uniformly among the free cells.

    An agent, called as ``agent(world, seed=0, move=0, games=None)``: with the numbers of the games
    (by default 0 to n_envs - 1) and of the move the seed fixes every choice. Gives
    :class:`RandomDecisions`.
    """

    def __call__(self, world, seed=0, move=0, games=None):
        keys = rng.keys(seed, world.n_envs if games is None else games, move)
        return RandomDecisions(world.random_actions(keys))

    def __repr__(self):
        return 'RandomAgent()'


@dataclass(frozen=True)
class RandomDecisions:
    """What :class:`RandomAgent` returns: ``actions`` `[n_envs]` int64."""
    actions: torch.Tensor


def play(black, white, n_games, boardsize, seed=0, device='cpu', world=None):
    """Plays ``n_games`` games between two agents, all at once.

    Both sides sample their moves, so the games differ. A game that ends leaves the batch and the
    others go on: none is cut off, which would favour whoever wins quickly.

    Args:
        black, white: agents, called as ``agent(world, seed=, move=, games=)``.
        seed: with the game's number and the move it fixes every random choice.
        world: starting positions, one for each game, all with the same side to move; by default
            empty boards.

    Returns:
        A :class:`Result`.

    Raises:
        ValueError: the positions of `world` differ in whose turn it is.
    """
    began = time.perf_counter()
    world = Hex.initial(n_games, boardsize, device) if world is None else world
    if world.n_envs and (world.seats != world.seats[0]).any():
        raise ValueError('the starting positions must all have the same side to move: play those '
                         'of Black and those of White apart')
    games = np.arange(world.n_envs)
    wins, moves, move = np.zeros(2, np.int64), 0, 0
    while len(games):
        seat = int(world.seats[0])
        decisions = (black, white)[seat](world, seed=seed, move=move, games=games)
        world, transition = world.step(decisions.actions, reset=False)
        moves, move = moves + len(games), move + 1
        going = ~transition.terminal
        wins[seat] += int(transition.terminal.sum())
        games, world = games[going.cpu().numpy()], world[going]
    return Result(int(wins[0]), int(wins[1]), moves, time.perf_counter() - began)


def match(first, second, n_games, boardsize, seed=0, device='cpu'):
    """Plays half of ``n_games`` with each colour order.

    Returns:
        Two :class:`Result`: ``first`` as Black, then ``second`` as Black.
    """
    if n_games < 2 or n_games % 2:
        raise ValueError(f'n_games {n_games}: choose an even number, half for each colour order')
    half = n_games//2
    return (play(first, second, half, boardsize, 2*seed, device),
            play(second, first, half, boardsize, 2*seed + 1, device))


def winrate(first, second, n_games, boardsize, seed=0, device='cpu'):
    """The share of games that ``first`` wins against ``second``, half with each colour.

    >>> winrate(RandomAgent(), RandomAgent(), n_games=1000, boardsize=3)
    0.523
    """
    a, b = match(first, second, n_games, boardsize, seed, device)
    return (a.black_wins + b.white_wins)/(a.games + b.games)
