"""The peers' side of the benchmark: pgx and mctx (jax), OpenSpiel (C++), choix.

Runs in an environment of its own, started by bench.py. pgx's Hex works at 11x11 only, though it
takes a size: the subclass here gives its initial state the right shapes.
"""
import os
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context

import numpy as np
import worker

CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def versions():
    found = {}
    for name in ('pgx', 'mctx', 'jax', 'open_spiel', 'choix'):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def hex_of_size(size, swap):
    """pgx's Hex at any size; without ``swap`` the pie rule is never a legal action."""
    import jax.numpy as jnp
    from pgx import hex as pgx_hex
    from pgx._src.games.hex import Game, GameState

    class Sized(Game):
        def init(self):
            return GameState(board=jnp.zeros(size*size, jnp.int32))

        def legal_action_mask(self, state):
            mask = super().legal_action_mask(state)
            return mask if swap else mask.at[-1].set(False)

    class Hex(pgx_hex.Hex):
        def __init__(self):
            super().__init__(size=size)
            self._game = Sized(size=size)

        def _init(self, key):
            state = super()._init(key)
            return state.replace(legal_action_mask=self._game.legal_action_mask(state._x))

    return Hex()


def _played(env, n_envs, n_steps, seed=0):
    """A compiled function that plays random moves with resets; the states, and a sum of what was
    observed on the way, so that no observation is optimised away."""
    import jax
    import jax.numpy as jnp
    from pgx.experimental import auto_reset
    step = jax.vmap(auto_reset(env.step, env.init))

    def one(carry, key):
        states, seen = carry
        choice, reset = jax.random.split(key)
        actions = jax.random.categorical(choice, jnp.where(states.legal_action_mask, 0., -1e9))
        states = step(states, actions, jax.random.split(reset, n_envs))
        return (states, seen + states.observation.astype(jnp.int32)), None

    @jax.jit
    def play(states, key):
        seen = jnp.zeros(states.observation.shape, jnp.int32)
        return jax.lax.scan(one, (states, seen), jax.random.split(key, n_steps))[0]

    states = jax.jit(jax.vmap(env.init))(jax.random.split(jax.random.PRNGKey(seed), n_envs))
    return play, states


def pgx_random(boardsize, n_envs, n_steps):
    import jax
    play, states = _played(hex_of_size(boardsize, swap=True), n_envs, n_steps)
    held = [states, jax.random.PRNGKey(1)]

    def run():
        held[1], key = jax.random.split(held[1])
        held[0], seen = play(held[0], key)
        jax.block_until_ready(seen)
        return n_envs*n_steps

    return run


def mctx_search(boardsize, width, depth, n_envs, policy, weights, n_nodes=64):
    """A search over pgx's Hex with the network whose weights bench.py's own side has written."""
    import jax
    import jax.numpy as jnp
    import mctx
    env = hex_of_size(boardsize, swap=False)
    net = {k: jnp.asarray(x) for k, x in np.load(weights).items()}

    def evaluate(net, states):
        x = states.observation[..., :2].reshape(n_envs, -1).astype(jnp.float32)
        x = x @ net['first'] + net['first_bias']
        for w, b in zip(net['body'], net['body_bias']):
            x = x + jax.nn.relu(x) @ w + b
        out = x @ net['heads'] + net['heads_bias']
        logits = jnp.pad(out[:, :-1], ((0, 0), (0, 1)))   # the swap, never legal
        logits = jnp.where(states.legal_action_mask, logits, -1e9)
        return logits, jnp.tanh(out[:, -1])

    def recurrent(net, key, actions, states):
        mover = states.current_player
        states = jax.vmap(env.step)(states, actions)
        logits, value = evaluate(net, states)
        rewards = states.rewards[jnp.arange(n_envs), mover]
        over = states.terminated
        return mctx.RecurrentFnOutput(
            reward=rewards, discount=jnp.where(over, 0., -1.), prior_logits=logits,
            value=jnp.where(over, 0., value)), states

    function = {'gumbel': mctx.gumbel_muzero_policy, 'muzero': mctx.muzero_policy}[policy]

    @jax.jit
    def search(net, key, states):
        logits, value = evaluate(net, states)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=states)
        return function(net, key, root, recurrent, num_simulations=n_nodes,
                        invalid_actions=~states.legal_action_mask).action_weights

    play, states = _played(env, n_envs, boardsize**2//3)
    states, _ = play(states, jax.random.PRNGKey(1))
    states = states.replace(terminated=jnp.zeros(n_envs, bool))
    held = [jax.random.PRNGKey(2)]

    def run():
        held[0], key = jax.random.split(held[0])
        jax.block_until_ready(search(net, key, states))
        return n_envs*n_nodes

    return run


def _spiel_games(boardsize, n_games, seed):
    """Plays games between uniformly random bots; returns the moves."""
    import pyspiel
    game, moves = pyspiel.load_game(f'hex(board_size={boardsize})'), 0
    for i in range(n_games):
        state = game.new_initial_state()
        bots = [pyspiel.make_uniform_random_bot(p, seed + 2*i + p) for p in (0, 1)]
        pyspiel.evaluate_bots(state, bots, seed + i)
        moves += state.move_number()
    return moves


def _spiel_searches(boardsize, n_games, seed, n_nodes):
    """Searches with random rollouts from positions a third full; returns the simulations."""
    import pyspiel
    game, rng = pyspiel.load_game(f'hex(board_size={boardsize})'), np.random.default_rng(seed)
    evaluator = pyspiel.RandomRolloutEvaluator(1, seed)
    for i in range(n_games):
        state = game.new_initial_state()
        for _ in range(boardsize**2//3):
            state.apply_action(int(rng.choice(state.legal_actions())))
            if state.is_terminal():
                state = game.new_initial_state()
        bot = pyspiel.MCTSBot(game, evaluator, 2., n_nodes, 100, False, seed + i, False)
        bot.step(state)
    return n_games*n_nodes


def _on_all_cores(function, boardsize, n_games, *arguments):
    """A run of ``function`` in a process a core, each with its share of the games."""
    import pyspiel  # noqa: F401  (missing: known before the processes start)
    pool = ProcessPoolExecutor(CORES, get_context('spawn'))
    calls = [0]

    def run():
        calls[0] += 1
        jobs = [pool.submit(function, boardsize, n_games//CORES, 1000*calls[0] + 100_000*i,
                            *arguments) for i in range(CORES)]
        return sum(job.result() for job in jobs)

    return run


def openspiel_random(boardsize, n_games):
    return _on_all_cores(_spiel_games, boardsize, n_games)


def openspiel_search(boardsize, n_games, n_nodes=64):
    return _on_all_cores(_spiel_searches, boardsize, n_games, n_nodes)


def choix_dense(games):
    """ILSR on a dense matrix of wins, one pseudo-win each way, as our `solve` has it."""
    import choix
    wins = np.load(games)['wins']
    comparisons = wins + (1 - np.eye(len(wins)))

    def run():
        x = choix.ilsr_pairwise_dense(comparisons)
        return {'amount': 1, 'elo': (x - x.max()).tolist()}

    return run


def choix_sparse(games, max_iter=1):
    """MM on a list of games, the one fit of choix that makes no dense matrix of 10,000 agents.

    Stopped after ``max_iter`` iterations, far from converged: what one costs is all we ask.
    """
    import choix
    games = np.load(games)
    i, j = games['i'], games['j']
    wins = np.stack([games['won'] + 1, games['lost'] + 1])
    data = [pair for winner, loser, n in ((i, j, wins[0]), (j, i, wins[1]))
            for pair in zip(np.repeat(winner, n).tolist(), np.repeat(loser, n).tolist())]

    def run():
        try:
            choix.mm_pairwise(int(games['n']), data, max_iter=max_iter)
        except RuntimeError:   # not converged
            return {'amount': max_iter, 'converged': False}
        return {'amount': 1, 'converged': True}

    return run


if __name__ == '__main__':
    worker.serve({f.__name__: f for f in (
        versions, pgx_random, mctx_search, openspiel_random, openspiel_search, choix_dense,
        choix_sparse)})
