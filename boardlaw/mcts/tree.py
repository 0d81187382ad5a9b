"""The search trees of many games, as flat arrays.

Node 0 is the root and the others follow in the order of their making. The children of a node are a
linked list (``child``, then ``sibling``), because most nodes have few; the prior of an action that
has a child moves from the node's row of ``prior`` to the child, so that all actions still without a
child, which share one value, enter the policy as a single term.

Values and rewards are those of seat 0; seat 1's are their negatives.
"""
from typing import NamedTuple

import numpy as np

#: What a node holds.
NODE = np.dtype([
    ('parent', np.int16),     # -1 at the root
    ('action', np.int16),     # the move from the parent, -1 at the root
    ('child', np.int16),      # the newest child, -1 if none
    ('sibling', np.int16),    # the parent's next older child, -1 if none
    ('p', np.float32),        # prior of the move into this node
    ('q', np.float32),        # mean return from the move into this node onward
    ('n', np.int32),          # visits, the one that made the node included
    ('reward', np.float32),   # what the move into this node paid
    ('v', np.float32),        # the network's value of the position, 0 where the game is over
    ('rest', np.float32),     # prior mass of the actions without a child
    ('delta', np.float32),    # solution of the node's policy when it was last visited
    ('seat', np.int8),        # who is to move
    ('terminal', np.bool_),   # whether the game is over here
    ('n_children', np.int16),
], align=True)


class Tree(NamedTuple):
    """Trees of `[n_games]` games.

    Attributes:
        nodes: `[n_games, n_nodes]` of :data:`NODE`.
        prior: `[n_games, n_nodes, n_actions]` float32, 0 where invalid or where there is a child.
        root: `[n_games, n_actions]` float32, the network's policy at the root, before noise.
        size: `[n_games]` int64, nodes in use.
        leaf: `[n_games]` int64, the node that the latest simulation reached.
    """
    nodes: np.ndarray
    prior: np.ndarray
    root: np.ndarray
    size: np.ndarray
    leaf: np.ndarray


def allocate(n_games, n_nodes, n_actions):
    """Room for ``n_games`` trees of ``n_nodes`` nodes with ``n_actions`` actions each."""
    return Tree(np.zeros((n_games, n_nodes), NODE),
                np.empty((n_games, n_nodes, n_actions), np.float32),
                np.empty((n_games, n_actions), np.float32),
                np.zeros(n_games, np.int64), np.zeros(n_games, np.int64))
