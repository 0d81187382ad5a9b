"""Our side of the benchmark, and the floors under it. Runs in boardlaw's environment.

A floor is the least that the work can take on this machine, by the part of it that no cleverness
removes: the network's matrix products at the rate that torch multiplies them, one thread a core,
or the bytes of the observations at the rate that memory takes them.
"""
import platform
from importlib import metadata
from time import perf_counter

import numpy as np
import pandas as pd
import torch
import worker
from numba import njit

from boardlaw import arena, elos, rng, threads
from boardlaw.hex import Hex
from boardlaw.hex import kernels as rules
from boardlaw.hex.worlds import neighbours
from boardlaw.mcts import MCTSAgent, batched, evaluation, fused, kernels
from boardlaw.mcts import search as search_games
from boardlaw.mcts.search import _settings
from boardlaw.mcts.tree import allocate
from boardlaw.networks import Network
from boardlaw.selfplay import Config, Trainer


def versions():
    packages = ('boardlaw', 'torch', 'numba', 'numpy', 'scipy')
    return {'python': platform.python_version(), **{p: metadata.version(p) for p in packages}}


def network(boardsize, width, depth):
    """A network with random weights, every layer at work (a new one's α are 0)."""
    torch.manual_seed(0)
    net = Network(boardsize, width, depth)
    with torch.no_grad():
        for layer in net.body[1:]:
            layer.α.fill_(1)
    return net


def midgame(n_envs, boardsize):
    """Positions about a third full, from random moves with resets."""
    keys = rng.keys(0, n_envs, 0)
    return Hex.initial(n_envs, boardsize).random_steps(boardsize**2//3, keys)[0]


# Random play

def random_steps(boardsize, n_envs, n_steps):
    """One compiled call: moves, resets and observations."""
    held = [Hex.initial(n_envs, boardsize), 0]

    def run():
        held[1] += 1
        held[0], _ = held[0].random_steps(n_steps, rng.keys(0, n_envs, held[1]))
        return n_envs*n_steps

    return run


def random_loop(boardsize, n_envs, n_steps):
    """The loop that a user writes: choose, step, look."""
    held = [Hex.initial(n_envs, boardsize), 0]

    def run():
        for _ in range(n_steps):
            held[1] += 1
            world = held[0]
            held[0], _ = world.step(world.random_actions(rng.keys(0, n_envs, held[1])))
            held[0].obs  # noqa: B018  (made when first asked for)
        return n_envs*n_steps

    return run


@njit(nogil=True)
def _blind_steps(bits, seats, keys, n_steps, boardsize, neighbours, start, stop):
    stack = np.empty(boardsize**2, np.int64)
    for e in range(start, stop):
        game, seat = bits[e], seats[e]
        for t in range(n_steps):
            free = rules.n_empty(game, boardsize**2)
            n = (rng.draw(keys[e], t) >> np.uint64(32))*np.uint64(free) >> np.uint64(32)
            a = rules.nth_empty(game, seat, n, boardsize**2)
            seat, _ = rules._advance(game, seat, a, True, boardsize, neighbours, stack)
        seats[e] = seat


def random_blind(boardsize, n_envs, n_steps):
    """The compiled call's moves and resets, and no observations."""
    world, calls = Hex.initial(n_envs, boardsize), [0]
    bits, seats = world._bits.copy(), world._seats.copy()

    def run():
        calls[0] += 1
        keys = rng.keys(0, n_envs, calls[0])
        threads.split(lambda i, j: _blind_steps(bits, seats, keys, n_steps, boardsize,
                                                neighbours(boardsize), i, j), n_envs, 256)
        return n_envs*n_steps

    return run


@njit(nogil=True)
def _write_rows(obs, n_steps, start, stop):
    for e in range(start, stop):
        for t in range(n_steps):
            for a in range(obs.shape[1]):
                obs[e, a] = np.float32(t)


@njit(nogil=True)
def _write_all(obs, t, start, stop):
    for e in range(start, stop):
        for a in range(obs.shape[1]):
            obs[e, a] = np.float32(t)


def writing(boardsize, n_envs, n_steps, fresh):
    """Floor of random play: observations written, and nothing worked out.

    Args:
        fresh: into new memory at every step, as the loop over worlds has it; else every game into
            its own row again and again, as the compiled call has it.
    """
    obs = np.empty((n_envs, 2*boardsize**2), np.float32)

    def run():
        if fresh:
            for t in range(n_steps):
                new = torch.empty(n_envs, 2*boardsize**2).numpy()
                threads.split(lambda i, j, new=new, t=t: _write_all(new, t, i, j), n_envs, 256)
        else:
            threads.split(lambda i, j: _write_rows(obs, n_steps, i, j), n_envs, 256)
        return {'amount': n_envs*n_steps, 'bytes': obs.nbytes*n_steps}

    return run


# The search

def search(boardsize, width, depth, n_envs, n_nodes=64):
    net, world, calls = network(boardsize, width, depth), midgame(n_envs, boardsize), [0]

    def run():
        calls[0] += 1
        search_games(world, net, n_nodes, seed=calls[0])
        return n_envs*n_nodes

    return run


@njit(nogil=True)
def _evaluate_all(bits, seats, n_times, net, outs):
    """All layers, a group of positions at a time, as the compiled pass has it."""
    rows = np.empty(len(net.first), np.int64)
    x = np.empty((evaluation.GROUP, len(net.first_bias)), np.float32)
    y = np.empty_like(x)
    for first in range(0, len(seats), evaluation.GROUP):
        for _ in range(n_times):
            for i in range(evaluation.GROUP):
                e = min(first + i, len(seats) - 1)
                evaluation.show(bits[e], seats[e], net, rows, x, i)
            evaluation.evaluate(net, x, y, outs)


def _room(n_games, n_nodes, world):
    """Trees and the states of their nodes."""
    return (allocate(n_games, n_nodes, world.boardsize**2),
            np.empty((n_games, n_nodes, *world._bits.shape[1:]), np.uint64))


def evaluations(boardsize, width, depth, n_envs, n_nodes=64):
    """The network's part of a search alone: as many evaluations, in the same chunks."""
    net = evaluation.padded(evaluation.weights(network(boardsize, width, depth)))
    world = midgame(n_envs, boardsize)
    bits, seats, inline = world._bits, world._seats, fused.is_inline(width)

    @torch.no_grad()
    def part(start, stop):
        if inline:
            outs = np.empty((evaluation.GROUP, len(net.heads_bias)), np.float32)
            _evaluate_all(bits[start:stop], seats[start:stop], n_nodes, net, outs)
            return
        chunk = min(fused.BATCHED_CHUNK, stop - start)
        tree, states = _room(chunk, 1, world)
        evaluate = batched.evaluator(net, chunk)
        for first in range(start, stop, chunk):
            games = slice(first, min(first + chunk, stop))
            fused._begin(tree, states, bits[games], seats[games])
            for _ in range(n_nodes):
                evaluate(tree, states, games.stop - first)

    def run():
        threads.split(part, n_envs, 8 if inline else 32)
        return n_envs*n_nodes

    return run


def products(boardsize, width, depth, n_envs=2048, n_times=64):
    """Floor of whatever evaluates a network: its matrix products, no bias, no relu, no copy.

    They are torch's, of as many rows and in such numbers as it is fastest with.
    """
    net = evaluation.weights(network(boardsize, width, depth))
    kind, batch = (torch.bfloat16, 1024) if batched.is_tiled(width) else (torch.float32, 256)
    first, heads, *body = (torch.from_numpy(w).to(kind) for w in (net.first, net.heads, *net.body))

    @torch.no_grad()
    def part(start, stop):
        obs, x = torch.rand(batch, len(first)).to(kind), torch.empty(batch, width, dtype=kind)
        y, z = torch.rand(2, batch, width).to(kind)
        out = torch.empty(batch, heads.shape[1], dtype=kind)
        for _ in range(n_times*(stop - start)//batch):
            torch.mm(obs, first, out=x)
            for w in body:
                torch.mm(y, w, out=z)
            torch.mm(x, heads, out=out)

    def run():
        threads.split(part, n_envs, batch)
        return n_envs*n_times

    return run


# Training and matches

def training(boardsize, width, depth, n_envs, n_steps):
    trainer = Trainer(Config(boardsize, width, depth, n_envs=n_envs))
    while not trainer.buffer.full:
        trainer.advance()

    def run():
        for _ in range(n_steps):
            trainer.advance()
        return n_envs*n_steps

    return run


def matches(boardsize, width, depth, n_games):
    agent, calls = MCTSAgent(network(boardsize, width, depth)), [0]

    def run():
        calls[0] += 1
        result = arena.play(agent, agent, n_games, boardsize, seed=calls[0])
        return {'amount': n_games, 'moves': result.moves/n_games}

    return run


# Elo

def _games(games):
    """The frames that `symmetrize` gives, or `pairs`, from the games in a file."""
    games = np.load(games)
    if 'wins' in games:
        wins = games['wins'].astype(float)
        return pd.DataFrame(wins), pd.DataFrame(wins + wins.T)
    return (pd.DataFrame({'agent': games['i'], 'opponent': games['j'], 'wins': games['won'],
                          'games': games['won'] + games['lost']}),)


def elo(games):
    """The paper's ratings."""
    games = _games(games)
    return lambda: {'amount': 1, 'elo': elos.solve(*games).tolist()}


def elo_covariance(games):
    """Ratings and their covariance."""
    games = _games(games)

    def run():
        elos.posterior(*games)
        return 1

    return run


def cholesky(n_agents, covariance):
    """Floor of a dense fit: its one factor of n^3/3 operations, with the inverse n^3, at the rate
    of a matrix product in double precision."""
    a, b, out = *torch.rand(2, n_agents, n_agents, dtype=torch.float64), torch.empty(
        n_agents, n_agents, dtype=torch.float64)
    share = (1 if covariance else 1/3)/2   # of the product's 2 n^3

    def run():
        torch.mm(a, b, out=out)
        return 1/share

    return run


def reading(n_pairs):
    """Floor of a sparse fit: each pair's five numbers read once."""
    numbers = np.random.rand(5, n_pairs)

    def run():
        numbers.sum()
        return 1

    return run


# Where the time of a search goes

@njit(nogil=True)
def _replay_rules(tree, states, boardsize, neighbours):
    """Makes every node's position again from its parent's."""
    stack = np.empty(boardsize**2, np.int64)
    game = np.empty_like(states[0, 0])
    for g in range(len(states)):
        for i in range(1, tree.size[g]):
            node = tree.nodes[g, i]
            fused._copy(states[g, np.int64(node.parent)], game)
            rules.place(game, np.int64(1 - node.seat), np.int64(node.action), boardsize,
                        neighbours, stack)


@njit(nogil=True)
def _replay_expand(tree, states, outs, root, keys):
    """Turns outputs into priors again. The trees are not used afterwards."""
    noise = np.empty(root.shape[1], np.float64)
    for g in range(len(root)):
        for i in range(tree.size[g]):
            if not tree.nodes[g, i].terminal:
                fused._expand(tree.nodes[g], tree.prior[g], root[g], i, states[g], outs[g],
                              keys[g], 0., 1., noise)


@njit(nogil=True)
def _replay_backup(tree, n_games):
    for g in range(n_games):
        for i in range(tree.size[g]):
            kernels.back_up(tree.nodes[g], i)


@torch.no_grad()
def profile(boardsize, width, depth, n_envs=256, n_nodes=64):
    """Seconds of each part of a search on one core.

    The whole is timed; then its finished trees are gone through again, one kind of work at a time,
    with the same compiled functions. What is left of the whole is the choosing: pi_bar at every
    node on the way down, and the draw from it.
    """
    torch.set_num_threads(1)
    module, world = network(boardsize, width, depth), midgame(n_envs, boardsize)
    net, table = evaluation.padded(evaluation.weights(module)), neighbours(boardsize)
    inline = fused.is_inline(width)
    chunk = fused.INLINE_CHUNK if inline else fused.BATCHED_CHUNK
    settings = _settings(n_nodes, 1/4, 'corrected', 0., None, 'parent', boardsize**2)
    tree, states = _room(chunk, n_nodes, world)
    evaluate = None if inline else batched.evaluator(net, chunk)
    outs = np.zeros((chunk, len(net.heads_bias)), np.float32) if inline else evaluate.out.copy()
    roots = np.empty((chunk, boardsize**2), np.float32)
    keys = rng.keys(0, n_envs, 1)
    arguments, seconds = (), dict.fromkeys(('whole', 'network', 'rules', 'priors', 'backup'), 0.)

    def timed(part, function, *arguments):
        began = perf_counter()
        function(*arguments)
        seconds[part] += perf_counter() - began

    def evaluations():
        for _ in range(n_nodes):
            evaluate(tree, states, chunk)

    def run():
        nonlocal arguments
        seconds.update(dict.fromkeys(seconds, 0.))
        solved = 0
        for first in range(0, n_envs, chunk):
            games = slice(first, first + chunk)
            arguments = tree, states, world._bits[games], world._seats[games], keys[games], n_nodes
            if inline:
                timed('whole', fused._search_inline, *arguments, *settings, net, boardsize, table)
                timed('network', _evaluate_all, *arguments[2:4], n_nodes, net,
                      outs[:evaluation.GROUP])
            else:
                timed('whole', fused._search_batched, *arguments, settings, evaluate, boardsize)
                timed('network', evaluations)
                outs[:] = evaluate.out
            inner = (np.arange(n_nodes) < tree.size[:, None]) & ~tree.nodes['terminal']
            solved += int((tree.nodes['n'] - 1)[inner].sum())
            timed('rules', _replay_rules, tree, states, boardsize, table)
            timed('priors', _replay_expand, tree, states, outs, roots, keys[games])
            timed('backup', _replay_backup, tree, chunk)
        parts = dict(seconds)
        whole = parts.pop('whole')
        return {'amount': n_envs*n_nodes, 'parts': parts | {
            'choosing': whole - sum(parts.values())}, 'whole': whole, 'policies': solved}

    return run


if __name__ == '__main__':
    worker.serve({f.__name__: f for f in (
        versions, random_steps, random_loop, random_blind, writing, search, evaluations, products,
        training, matches, elo, elo_covariance, cholesky, reading, profile)})
