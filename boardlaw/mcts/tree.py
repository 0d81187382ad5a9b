"""The search trees of a chunk of games, as flat arrays.

Node 0 is the root and node ``i`` was added by simulation ``i``. The children of a node are a linked
list (``child`` then ``sibling``), because most nodes have few; the prior of an action that has a
child moves from the node's ``prior`` row to the child, so that all actions still without a child,
which share one value, enter the policy as one term.
"""
from typing import NamedTuple

import numpy as np


class Tree(NamedTuple):
    """Arrays over `[n_games, n_nodes]`, and two that also run over actions.

    Values and rewards are those of seat 0; seat 1's are their negatives.
    """
    size: np.ndarray      #: `[n_games]` int32, nodes in use
    leaf: np.ndarray      #: `[n_games]` int32, the node that the running simulation reached
    child: np.ndarray     #: int16, the newest child, -1 if none
    sibling: np.ndarray   #: int16, the parent's next older child, -1 if none
    parent: np.ndarray    #: int16, -1 at the root
    action: np.ndarray    #: int16, the move from the parent, -1 at the root
    seat: np.ndarray      #: int8, who is to move
    terminal: np.ndarray  #: bool, the game is over here
    reward: np.ndarray    #: float32, what the move into this node paid
    p: np.ndarray         #: float32, the prior of this node's move at its parent
    n: np.ndarray         #: int32, visits, the one that added the node included
    q: np.ndarray         #: float32, mean return from the move into the node onward
    v: np.ndarray         #: float32, the network's value of the position, 0 where terminal
    rest: np.ndarray      #: float32, prior mass of the actions without a child
    prior: np.ndarray     #: `[n_games, n_nodes, n_actions]` float32, 0 where invalid or a child
    root: np.ndarray      #: `[n_games, n_actions]` float32, the network's policy at the root


def allocate(n_games, n_nodes, n_actions):
    """Room for ``n_games`` trees of ``n_nodes`` nodes, uninitialised."""
    games, nodes = (n_games,), (n_games, n_nodes)
    i16 = [np.empty(nodes, np.int16) for _ in range(4)]
    f32 = [np.empty(nodes, np.float32) for _ in range(5)]
    reward, p, q, v, rest = f32
    return Tree(np.empty(games, np.int32), np.empty(games, np.int32), *i16,
                np.empty(nodes, np.int8), np.empty(nodes, np.bool_), reward, p,
                np.empty(nodes, np.int32), q, v, rest,
                np.empty((*nodes, n_actions), np.float32),
                np.empty((n_games, n_actions), np.float32))
