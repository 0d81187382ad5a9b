"""The solver's table of positions and its search.

Boards, carriers and must-play regions are those of :mod:`boardlaw.hex.solver_patterns`.
"""
import numpy as np
from numba import njit

from ..rng import mix
from .solver_patterns import MAX_SIZE, evaluate, index, local, lowest, replies, settle, union

INFINITY = 1 << 30
MAX_DEPTH = MAX_SIZE**2 + 2

# Columns of the path's frames: the position, its must-play region, the union of the carriers that
# bound the region, the moves that a reply kills, and the move that is being searched.
BLACK, WHITE, REGION, USED, DOOMED, MOVE = range(6)
# The table's first four are the same, but that a solved position's REGION is the carrier; then phi
# and delta in the halves of a word, and the nodes spent on the position, 0 in a free slot.
NUMBERS, WORK = 4, 5
N_COLUMNS = 6
N_PROBES = 4

_0, _1 = np.uint64(0), np.uint64(1)
_2, _4, _8, _16, _32, _64 = (np.uint64(k) for k in (2, 4, 8, 16, 32, 64))
_M1, _M2, _M4 = (np.uint64(k) for k in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
_M8, _M16 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_LOW = np.uint64(0xFFFFFFFF)
_BLACK_MOVES = np.uint64(1 << 63)


@njit(nogil=True, cache=True)
def rotate(x, n_cells):
    """The board turned by 180 degrees: bit i goes to n_cells - 1 - i."""
    x = ((x >> _1) & _M1) | ((x & _M1) << _1)
    x = ((x >> _2) & _M2) | ((x & _M2) << _2)
    x = ((x >> _4) & _M4) | ((x & _M4) << _4)
    x = ((x >> _8) & _M8) | ((x & _M8) << _8)
    x = ((x >> _16) & _M16) | ((x & _M16) << _16)
    return ((x >> _32) | (x << _32)) >> (_64 - n_cells)


@njit(nogil=True, cache=True)
def canonical(black, white, g):
    """The lesser of a position and its turn by 180 degrees, and whether it was turned."""
    turned_black, turned_white = rotate(black, g.n_cells), rotate(white, g.n_cells)
    if turned_black < black or (turned_black == black and turned_white < white):
        return turned_black, turned_white, True
    return black, white, False


@njit(nogil=True, cache=True)
def first_slot(table, black, white):
    return np.int64(mix(mix(black) + white) & np.uint64(table.shape[0] - 1))


@njit(nogil=True, cache=True)
def lookup(table, black, white, black_moves, g):
    """(found, phi, delta, region or carrier, used) of a position.

    An entry holds the whole position, so what is found is never another position's.
    """
    black, white, turned = canonical(black, white, g)
    if black_moves:
        black |= _BLACK_MOVES
    first = first_slot(table, black, white)
    for k in range(N_PROBES):
        row = table[(first + k) & (table.shape[0] - 1)]
        if row[BLACK] == black and row[WHITE] == white and row[WORK]:
            region, used = row[REGION], row[USED]
            if turned:
                region, used = rotate(region, g.n_cells), rotate(used, g.n_cells)
            return True, np.int64(row[NUMBERS] >> _32), np.int64(row[NUMBERS] & _LOW), region, used
    return False, 1, 1, _0, _0


@njit(nogil=True, cache=True)
def store(table, black, white, black_moves, phi, delta, region, used, work, g):
    """Writes a position over its old entry, else over the one of its slots that took least work."""
    black, white, turned = canonical(black, white, g)
    if turned:
        region, used = rotate(region, g.n_cells), rotate(used, g.n_cells)
    if black_moves:
        black |= _BLACK_MOVES
    first = first_slot(table, black, white)
    best = table[first]
    for k in range(N_PROBES):
        row = table[(first + k) & (table.shape[0] - 1)]
        if row[BLACK] == black and row[WHITE] == white and row[WORK]:
            best = row
            work += np.int64(row[WORK])
            break
        if row[WORK] < best[WORK]:
            best = row
    best[BLACK], best[WHITE], best[REGION], best[USED] = black, white, region, used
    best[NUMBERS] = (np.uint64(phi) << _32) | np.uint64(delta)
    best[WORK] = np.uint64(work)


@njit(nogil=True, cache=True)
def place(black, white, black_moves, move, g):
    """The position after a move, its dead cells filled."""
    if black_moves:
        black |= move
    else:
        white |= move
    return settle(black, white, g), white


@njit(nogil=True, cache=True)
def expand(table, black_moves, frame, proof, g):
    """Fills the frame of a position, and `proof` `[2, S*S]` with phi and delta after each move.

    Returns the outcome (+1 the mover wins, -1 it loses, 0 not known yet) and the winner's carrier.
    """
    black, white = frame[BLACK], frame[WHITE]
    found, phi, delta, region, used = lookup(table, black, white, black_moves, g)
    if found:
        if phi == 0:
            return 1, region
        if delta == 0:
            return -1, region
    else:
        outcome, region, used = evaluate(black, white, black_moves, g)
        if outcome != 0:
            return outcome, region
    _, kills = local(black, white, black_moves, g)
    doomed = union(kills)
    todo = region & ~doomed
    while todo:
        move = lowest(todo)
        todo ^= move
        after_black, after_white = place(black, white, black_moves, move, g)
        found, phi, delta, carrier, _ = lookup(table, after_black, after_white, not black_moves, g)
        if found and delta == 0:
            return 1, carrier | move
        if found and phi == 0:
            region &= carrier
            used |= carrier
            todo &= carrier
        proof[0, index(move)], proof[1, index(move)] = phi, delta
    frame[REGION], frame[USED], frame[DOOMED] = region, used, doomed
    return 0, _0


@njit(nogil=True, cache=True)
def lost(black_moves, frame, g):
    """The opponent's carrier once every move of the region is refuted or killed by a reply."""
    killed = frame[REGION]   # a refuted move is outside its own refutation's carrier
    _, kills = local(frame[BLACK], frame[WHITE], black_moves, g)
    return frame[USED] | killed | replies(killed, kills, g)


@njit(nogil=True, cache=True)
def select(frame, proof):
    """(phi, delta, the move to search next, its phi, the second least delta of a move).

    A position's phi is the least delta of its moves, its delta the sum of their phi.
    """
    phi, second, delta, best, best_phi = INFINITY, INFINITY, 0, _0, 0
    todo = frame[REGION] & ~frame[DOOMED]
    while todo:
        move = lowest(todo)
        todo ^= move
        move_phi, move_delta = proof[0, index(move)], proof[1, index(move)]
        delta += move_phi
        if move_delta < phi or (move_delta == phi and move_phi < best_phi):
            phi, second, best, best_phi = move_delta, phi, move, move_phi
        elif move_delta < second:
            second = move_delta
    return phi, min(delta, INFINITY - 1), best, best_phi, second


def new_path():
    """Room for the path from the root, one row a position: `frames` `[MAX_DEPTH, 6]` uint64;
    `proofs` `[MAX_DEPTH, 2, 49]` int64, phi and delta after each move; `limits` `[MAX_DEPTH, 3]`
    int64, of phi and of delta, and the nodes at entry."""
    return (np.zeros((MAX_DEPTH, 6), np.uint64), np.zeros((MAX_DEPTH, 2, MAX_SIZE**2), np.int64),
            np.zeros((MAX_DEPTH, 3), np.int64))


@njit(nogil=True, cache=True)
def search(table, path, depth, black_first, nodes, max_nodes, g):
    """Df-pn (Nagai 2002) over must-play regions, from the position in the path's first frame.

    phi counts the leaves still to be solved, at least, to show that the mover wins, delta those to
    show that it loses. A position is searched until one of them reaches its limit, which lies a
    quarter above what would make another move the better one to search (Pawlewicz and Lew 2007).

    The search ends whatever the table forgets: the numbers of the moves in a frame never fall, and
    each visit to a move raises one of them.

    Args:
        path: as :func:`new_path` makes it.
        depth: 0 to begin, or what a search that stopped returned: it goes on where it was.
        black_first: whether Black is to move in the first frame.
        nodes: positions visited so far.
        max_nodes: stop there.

    Returns:
        The outcome for the first frame's mover (0 if not known), the winner's carrier, the nodes,
        and the depth to go on at, -1 if done.
    """
    frames, proofs, limits = path
    entering = True
    phi, delta, carrier = 1, 1, _0
    while True:
        black_moves = black_first == (depth % 2 == 0)
        frame, proof, limit = frames[depth], proofs[depth], limits[depth]
        outcome = 0
        if entering:
            if nodes >= max_nodes:
                return 0, _0, nodes, depth
            limit[2] = nodes
            nodes += 1
            outcome, carrier = expand(table, black_moves, frame, proof, g)
        elif delta == 0:
            outcome, carrier = 1, carrier | frame[MOVE]
        elif phi == 0:
            frame[REGION] &= carrier
            frame[USED] |= carrier
        else:
            cell = index(frame[MOVE])
            proof[0, cell], proof[1, cell] = max(proof[0, cell], phi), max(proof[1, cell], delta)
        if outcome == 0 and frame[REGION] & ~frame[DOOMED] == _0:
            outcome, carrier = -1, lost(black_moves, frame, g)

        if outcome == 0:
            phi, delta, move, move_phi, second = select(frame, proof)
            if phi < limit[0] and delta < limit[1]:
                frame[MOVE] = move
                below = frames[depth + 1]
                below[BLACK], below[WHITE] = place(frame[BLACK], frame[WHITE], black_moves, move, g)
                limits[depth + 1, 0] = min(limit[1] - delta + move_phi, INFINITY)
                limits[depth + 1, 1] = min(limit[0], second + 1 + second // 4)
                depth += 1
                entering = True
                continue
            region, used = frame[REGION], frame[USED]
        else:
            phi, delta = (0, INFINITY) if outcome == 1 else (INFINITY, 0)
            region, used = carrier, _0
        work = max(nodes - limit[2], 1)
        store(table, frame[BLACK], frame[WHITE], black_moves, phi, delta, region, used, work, g)
        if depth == 0:
            return outcome, carrier, nodes, -1
        depth -= 1
        entering = False
