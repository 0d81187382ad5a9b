"""Predictions for larger boards from agents of smaller ones, written down before they are trained
on.

    made = prediction.predict(paper.replica(), [10, 11])
    path = prediction.save(made, 'predictions')     # commit it, and only then train
    prediction.outcome(prediction.load(path), paper.replica(target=database))

The law is fitted to the frontiers of the boards that have agents. Its prediction for a larger board
is the compute that reaches some levels of Elo. The interval covers two errors. One is the choice of
runs, by the bootstrap over runs. The other is that no board lies exactly on the law: the distances
of the boards seen (in the logarithm of compute) say how far the next may be, as the residuals of a
straight line do in regression. On simulated agents whose law is known, the 90 % intervals hold 91
to 96 % of the time, but 81 % for perfect play two boards further where the boards hardly differ:
the intervals leave out the error in the rating of a board's best agent, which is its 0.

Explained in the chapter book/scaling.ipynb.
"""
import json
from dataclasses import asdict, astuple, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd

from . import data, fits

#: Levels of Elo, as shares of a board's way from perfect back to random play; and perfect play.
SHARES = (.75, .5, .25)


@dataclass(frozen=True)
class Prediction:
    """A prediction and all that it rests on.

    Attributes:
        date: when it was made (UTC).
        source: which agents, 'replica' or 'published'.
        boards: board sizes that it was made from.
        n_runs: how many runs they have.
        law: the five parameters of the :class:`boardlaw.paper.fits.ChangePoint`.
        scatter: standard deviation of log10 compute between boards and the law.
        level: of the intervals.
        table: boardsize, elo, train_flops, low, high: the compute that reaches so much Elo below
            the board's best agent.
    """
    date: str
    source: str
    boards: list
    n_runs: int
    law: dict
    scatter: float
    level: float
    table: pd.DataFrame


def predict(agents, boardsizes, level=.9, n_resamples=200, seed=0):
    """The compute that larger boards will take, with intervals.

    Args:
        agents: boardsize, run, train_flops, elo; three boards at least. Elo is counted from each
            board's best, as the paper counts it.
        boardsizes: the larger boards.
        level: of the intervals.
        seed: of the resamples.

    Returns:
        A :class:`Prediction`.
    """
    columns = 'boardsize', 'run', 'train_flops', 'elo'
    agents = data.best_at_zero(data.train_agents(agents, *columns))
    boards = sorted(map(int, agents.boardsize.unique()))
    if len(boards) < 3:
        raise ValueError(f'there are agents on {len(boards)} board sizes: three are needed to see '
                         'how far boards lie from the law')
    if near := [int(b) for b in boardsizes if b <= boards[-1]]:
        raise ValueError(f'board sizes {near} are not larger than those that the agents play on, '
                         f'{boards}')
    fronts = data.frontier(agents)
    law = fits.fit_frontier(fronts)
    off = distances(fronts, law)
    scatter = float(np.sqrt((off**2).sum()/(len(off) - 2)))
    drawn = fits.bootstrap(agents, lambda a: pd.Series(
        astuple(fits.fit_frontier(data.frontier(a)))), n_resamples, seed)
    laws = [fits.ChangePoint(*row) for row in drawn.to_numpy()]
    t = np.random.default_rng(seed).standard_t(len(off) - 2, (100, 1))   # with each resample
    rows = []
    for b in map(int, boardsizes):
        own = scatter*np.sqrt(1 + leverage(off.index, b))*t
        for elo in levels(law, b):
            found = float(np.log10(law.compute(b, elo)))
            # The basic bootstrap's reflection, see fits.intervals; the boards' part is symmetric.
            ends = np.array([2*found - np.log10(other.compute(b, elo)) for other in laws]) + own
            low, high = np.quantile(ends, [(1 - level)/2, (1 + level)/2])
            rows.append((b, elo, *(float(f'{10**x:.4g}') for x in (found, low, high))))
    table = pd.DataFrame(rows, columns=['boardsize', 'elo', 'train_flops', 'low', 'high'])
    now = datetime.now(timezone.utc).isoformat(timespec='seconds')
    return Prediction(now, agents.attrs.get('source', ''), boards, int(agents.run.nunique()),
                      asdict(law), scatter, level, table)


def levels(law, boardsize):
    """The levels of Elo at which a board's frontier is predicted: three on the law's way from
    random to perfect play, rounded to 10, and perfect play."""
    return [round(float(share*law.plateau(boardsize)), -1) for share in SHARES] + [data.PERFECT]


def from_below(frontiers, law):
    """Frontiers with the first Elo of each put where the law has random play.

    Args:
        frontiers: as for :func:`boardlaw.paper.fits.fit_frontier`.
        law: a :class:`boardlaw.paper.fits.ChangePoint`.
    """
    first = frontiers.groupby('boardsize').elo.transform('first')
    return frontiers.assign(elo=frontiers.elo - first + law.plateau(frontiers.boardsize))


def distances(frontiers, law):
    """How far each board lies from the law: the root of its mean squared distance in log10 compute
    at the :func:`levels` that its frontier crosses. A Series indexed by boardsize.

    Args:
        frontiers: as for :func:`boardlaw.paper.fits.fit_frontier`.
        law: a :class:`boardlaw.paper.fits.ChangePoint`.
    """
    found = {}
    for b, front in frontiers.groupby('boardsize'):
        off = [np.log10(data.crossings(front, elo)[b]/law.compute(b, elo))
               for elo in levels(law, b) if front.elo.iloc[0] < elo]
        found[b] = np.sqrt(np.nanmean(np.square(off))) if np.isfinite(off).any() else np.nan
    return pd.Series(found, dtype=float).dropna()


def leverage(seen, boardsize):
    """By how much more than the scatter alone a line through the boards `seen` misses another:
    1/n + (b - mean)^2/sum of squares, of simple regression."""
    seen = np.asarray(seen, float)
    return 1/len(seen) + (boardsize - seen.mean())**2/((seen - seen.mean())**2).sum()


def outcome(prediction, agents, below=False):
    """Whether a prediction held.

    A level that the board's agents never reach has not held if they were trained for more compute
    than its interval allows, and is open otherwise. The best of the agents counts as perfect: train
    until more compute does not help.

    Args:
        prediction: a :class:`Prediction`.
        agents: boardsize, run, train_flops, elo; of the predicted boards those that there are.
        below: whether to count :func:`from_below`, for boards whose trainings go on. How far a
            frontier's start is from perfect play the law has to foretell as well, so this is the
            rougher reading.

    Returns:
        The prediction's table with `found`, the compute that it took (nan if it was not reached),
        and `verdict`: 'held', 'did not hold' or 'open'.
    """
    columns = 'boardsize', 'run', 'train_flops', 'elo'
    agents = data.best_at_zero(data.train_agents(agents, *columns))
    fronts = data.frontier(agents)
    if below:
        fronts = from_below(fronts, fits.ChangePoint(**prediction.law))
    fronts = dict(list(fronts.groupby('boardsize')))
    table = prediction.table.copy()

    def found(row):
        front = fronts.get(row.boardsize)
        if front is None or front.elo.iloc[0] >= row.elo:   # nobody has seen where it was crossed
            return np.nan
        return data.crossings(front, row.elo).iloc[0]

    def verdict(row):
        if np.isnan(row.found):
            front = fronts.get(row.boardsize)
            reached = front is not None and front.elo.max() >= row.elo
            beyond = front is not None and front.train_flops.max() > row.high
            return 'did not hold' if beyond and not reached else 'open'
        return 'held' if row.low <= row.found <= row.high else 'did not hold'

    table['found'] = table.apply(found, axis=1)
    table['verdict'] = table.apply(verdict, axis=1)
    return table


def save(prediction, folder):
    """Writes a prediction to a file named after its date and boards, and returns the path.

    Args:
        prediction: a :class:`Prediction`.
        folder: where to; made if it is not there.

    Raises:
        FileExistsError: there is one of that name: a prediction is not replaced.
    """
    boards = '-'.join(map(str, prediction.table.boardsize.unique()))
    path = Path(folder)/f'{prediction.date[:10]}-boards-{boards}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    content = vars(prediction) | {'table': prediction.table.to_dict('records')}
    with path.open('x') as f:
        f.write(json.dumps(content, indent=1) + '\n')
    return path


def load(path):
    """A :class:`Prediction` from its file.

    Args:
        path: as :func:`save` returned it.

    Raises:
        ValueError: the file holds no prediction.
    """
    content = json.loads(Path(path).read_text())
    try:
        return Prediction(**content | {'table': pd.DataFrame(content['table'])})
    except (TypeError, KeyError) as e:
        raise ValueError(f'"{path}" holds no prediction: {e}') from e
