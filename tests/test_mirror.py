"""Games of agents with themselves: what they say of perfect play, against the exact solver."""
import numpy as np
import pytest
import torch

from boardlaw import arena, rng
from boardlaw.arena import mirror
from boardlaw.hex import solve


class Erring:
    """Perfect but that it gives a won position away with probability `often`, where it can."""

    def __init__(self, often):
        self.often, self.perfect = often, solve.PerfectPlayer('random')

    def __call__(self, world, seed=0, move=0, games=None):
        decisions = self.perfect(world, seed, move, games)
        value, winning = solve.solve(world)
        losing = world.valid & ~winning
        draw = torch.Generator().manual_seed(rng.fold(seed, move) % 2**62)
        slips = (torch.rand(world.n_envs, generator=draw) < self.often) & (value == 1)
        slips &= losing.any(1)
        if slips.any():
            wrong = torch.multinomial(losing[slips].double(), 1, generator=draw)[:, 0]
            decisions.actions[slips] = wrong
        return decisions


@pytest.mark.parametrize('often', [.01, .04, .1])
def test_games_with_itself_foretell_games_with_perfect_play(often):
    n, agent = 3000, Erring(often)
    own = arena.play(agent, agent, n, 3, seed=1)
    against = arena.play(agent, solve.PerfectPlayer('random'), n, 3, seed=2).black_wins/n
    said = mirror.elo([own.black_wins], [n]).iloc[0]
    spread = np.hypot(np.sqrt(said.rate*(1 - said.rate)/n)/said.as_black,
                      np.sqrt(against*(1 - against)/n))
    print(said.as_black, against, spread)
    assert abs(said.as_black - against) < 3*spread
    assert against + 3*spread < (1 + said.rate)/2, 'it is told from the rate of its own games'
