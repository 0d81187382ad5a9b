"""Games small enough to solve by hand or by brute force, as worlds that the search can step.

A game is a dict {state: (seat, {action: (next state, payoff)})}. The next state None ends the game;
payoffs are seat 0's, and with two seats seat 1 is paid their negatives.
"""
from types import SimpleNamespace

import torch

from boardlaw.networks import Output


class World:
    """A batch of positions of one game."""

    def __init__(self, game, states, n_seats):
        self.game, self.states, self.n_seats = game, list(states), n_seats
        self.n_envs = len(self.states)
        self.n_actions = 1 + max(a for _, moves in game.values() for a in moves)
        self.device = torch.device('cpu')

    @property
    def seats(self):
        return torch.tensor([0 if s is None else self.game[s][0] for s in self.states]).long()

    @property
    def valid(self):
        valid = torch.zeros(self.n_envs, self.n_actions, dtype=torch.bool)
        for i, state in enumerate(self.states):
            valid[i, [] if state is None else list(self.game[state][1])] = True
        return valid

    def step(self, actions, reset=True):
        assert not reset
        after = [self.game[s][1][a] for s, a in zip(self.states, actions.tolist(), strict=True)]
        payoffs = torch.tensor([float(payoff) for _, payoff in after])
        rewards = torch.stack([payoffs, -payoffs][:self.n_seats], 1)
        terminal = torch.tensor([state is None for state, _ in after], dtype=torch.bool)
        return (World(self.game, [state for state, _ in after], self.n_seats),
                SimpleNamespace(rewards=rewards, terminal=terminal))

    def __getitem__(self, index):
        kept = torch.arange(self.n_envs)[index].reshape(-1).tolist()
        return World(self.game, [self.states[i] for i in kept], self.n_seats)

    @classmethod
    def cat(cls, worlds):
        return cls(worlds[0].game, [s for w in worlds for s in w.states], worlds[0].n_seats)


def start(game, n_envs=1, n_seats=2, state='start'):
    return World(game, [state]*n_envs, n_seats)


def uniform(world):
    """A network that knows nothing."""
    return Output(torch.zeros(world.n_envs, world.n_actions),
                  torch.zeros(world.n_envs, world.n_seats))


def table(**logits):
    """A network of values 0 whose logits are given by state."""
    def network(world):
        return Output(torch.tensor([logits[s] for s in world.states]), uniform(world).v)
    return network


def bandit(*payoffs, seat=0):
    """One move, and the game is over."""
    return {'start': (seat, {a: (None, payoff) for a, payoff in enumerate(payoffs)})}


def corridor(length):
    """Action 1 walks on and is paid 1 at the end; action 0 gives up."""
    places = ['start', *range(1, length), None]
    return {place: (0, {0: (None, 0), 1: (following, float(following is None))})
            for place, following in zip(places, places[1:])}


def nim(most=2, size=12):
    """Take 1 to ``most`` stones; who takes the last one wins. States are (stones, seat)."""
    game = {}
    for stones in range(1, size + 1):
        for seat in (0, 1):
            moves = {}
            for a in range(min(most, stones)):
                left = stones - a - 1
                moves[a] = ((left, 1 - seat), 0) if left else (None, 1 - 2*seat)
            game[stones, seat] = seat, moves
    return game


#: The first move looks as good as the second until seat 1's best reply to it is found.
TRAP = {'start': (0, {0: ('trapped', 0), 1: ('safe', 0)}),
        'trapped': (1, {0: (None, 1), 1: (None, 1), 2: (None, -1)}),
        'safe': (1, {0: (None, 0), 1: (None, 0), 2: (None, 0)})}

#: Payoffs on the way: what is paid at once by move 0 is more than lost afterwards.
TOLL = {'start': (0, {0: ('bad', .5), 1: ('good', -.2)}),
        'bad': (0, {0: (None, -.8), 1: (None, -.9)}), 'good': (0, {0: (None, .6), 1: (None, .1)})}


def random_tree(random, depth=3, n_actions=3):
    """A full tree of alternating moves whose last ones pay -1 or 1."""
    game = {}

    def grow(name, level):
        moves = {a: (None, random.choice([-1, 1])) if level == depth - 1 else (f'{name}{a}', 0)
                 for a in range(n_actions)}
        game[name or 'start'] = level % 2, moves
        if level < depth - 1:
            for a in moves:
                grow(f'{name}{a}', level + 1)
    grow('', 0)
    return game


def solve(game, state='start'):
    """Minimax: (seat 0's value of a state, the actions that reach it)."""
    seat, moves = game[state]
    sign = 1 - 2*seat
    values = {a: payoff + (solve(game, after)[0] if after is not None else 0)
              for a, (after, payoff) in moves.items()}
    best = max(sign*v for v in values.values())
    return sign*best, {a for a, v in values.items() if sign*v == best}
