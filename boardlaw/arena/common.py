"""Agents and worlds from runs on disk, this package's and those of 2021."""
import warnings

from ..hex import BadBoard, Hex
from ..mcts import C_PUCT, MCTSAgent
from ..networks import from_state_dict
from ..pavlov import runs, storage

#: What the published agents searched with where their files do not say.
NODES_2021 = 64


class Rule2021(UserWarning):
    """A run that names no rule for lambda was trained in 2021 and plays by that rule.

    What to do: none is needed; pass rule='corrected' or rule='2021' to say which is meant.
    """


def agent(run=-1, snapshot=None, device='cpu', n_nodes=None, c_puct=None, rule=None, **settings):
    """The agent that a run had at a snapshot, searching as it was trained.

    Args:
        run: a run's name or part of it, or a number counted from the oldest (-1: the newest).
        snapshot: which snapshot; by default the run's latest savepoint.
        n_nodes, c_puct, rule: override what the run was trained with. A run that names no rule is
            one of 2021: it plays by rule '2021', at c_puct 1/16 unless its files say otherwise, and
            a :class:`Rule2021` warning says so.
        settings: further arguments of :class:`~boardlaw.mcts.MCTSAgent`, such as ``argmax``.

    Returns:
        An :class:`~boardlaw.mcts.MCTSAgent`.

    Raises:
        boardlaw.pavlov.NotFound: there is no such run or snapshot here.
        boardlaw.pavlov.CorruptFile: the file is not a whole saved state.
        ValueError: the weights are not those of a network for the run's board, or there is no such
            rule.
    """
    run = runs.resolve(run)
    params = runs.info(run)['params']
    loaded = (storage.load_latest(run, device) if snapshot is None
              else storage.load_snapshot(run, snapshot, device))
    where = f'run "{run}", ' + ('latest' if snapshot is None else f'snapshot {snapshot}')
    if 'agent' not in loaded:
        raise ValueError(f'{where}: the file holds {sorted(loaded)}, but no agent')
    state = loaded['agent']
    try:
        network = from_state_dict(state, params.get('boardsize')).to(device)
    except ValueError as e:
        raise ValueError(f'{where}: {e}') from e
    stored = {name: state.get(f'kwargs.{key}', params.get(param))
              for name, key, param in [('n_nodes', 'n_nodes', 'nodes'),
                                       ('c_puct', 'c_puct', 'c_puct')]}
    trained = params.get('rule', '2021')
    if rule is None:
        rule = trained
        if 'rule' not in params:
            warnings.warn(f'{where} names no rule for lambda, so it is of 2021 and plays by rule '
                          "'2021'; pass rule= to choose", Rule2021, stacklevel=2)
    if rule not in C_PUCT:
        raise ValueError(f'rule {rule!r}: choose one of {", ".join(map(repr, C_PUCT))}')
    if c_puct is None and rule == trained and stored['c_puct'] is not None:
        c_puct = float(stored['c_puct'])
    if n_nodes is None:
        n_nodes = int(NODES_2021 if stored['n_nodes'] is None else stored['n_nodes'])
    return MCTSAgent(network, n_nodes, C_PUCT[rule] if c_puct is None else c_puct, rule, **settings)


def worlds(run=-1, n_envs=1, device='cpu'):
    """Empty boards of the size that a run plays on: a :class:`~boardlaw.hex.Hex` of `[n_envs]`."""
    run = runs.resolve(run)
    try:
        return Hex.initial(n_envs, runs.info(run)['params'].get('boardsize'), device)
    except BadBoard as e:
        raise BadBoard(f'run "{run}": {e}') from e
