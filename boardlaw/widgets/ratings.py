"""Elo in a notebook: players of known strength, their games, ratings, and the next match."""
from html import escape
from itertools import combinations

import numpy as np
import pandas as pd

from .. import elos, style
from . import views


class Elo(views.View):
    """Players whose strengths are sliders, matches between them, and what ratings make of them.

    The results come from the model's own win rates. The random numbers belong to the matches, so
    a strength that is moved changes the games that it decides and no others. In a stored page it
    is the picture before a reader changes anything.

    Args:
        strengths, games, seed, live: as for :func:`elo`.

    Attributes:
        strengths: true Elo by player, a Series; the first is whom all others are measured from.
        games: of a match, half in each colour.
        matches: (player, opponent, games) in the order played.
    """

    def __init__(self, strengths, games=32, seed=0, live=True):
        super().__init__(live)
        self.strengths = pd.Series(strengths, dtype=float).copy()
        if len(self.strengths) < 2 or not self.strengths.index.is_unique:
            raise ValueError('strengths must name at least two players, each once')
        if not np.isfinite(self.strengths).all():
            raise ValueError(f'strengths must be numbers, got {self.strengths.to_dict()}')
        if games < 2 or games % 2:
            raise ValueError(f'games {games}: choose an even number, half for each colour')
        self.games, self.seed, self.matches = int(games), seed, []

    def play(self, player, opponent, games=None):
        """A match between two players.

        Args:
            player, opponent: labels of `strengths`.
            games: by default `games`.
        """
        for name in (player, opponent):
            if name not in self.strengths.index:
                raise ValueError(f'{name!r} is none of {self.strengths.index.to_list()}')
        self.matches.append((player, opponent, self.games if games is None else games))

    def round_robin(self):
        """A match between each two players."""
        for pair in combinations(self.strengths.index, 2):
            self.play(*pair)

    def play_suggested(self):
        """The match that :func:`boardlaw.elos.suggest` would play next."""
        self.play(*self.suggested())

    def trials(self) -> pd.DataFrame:
        """The results: black_agent, white_agent, black_wins, white_wins, two rows a match."""
        rows = []
        for k, (a, b, games) in enumerate(self.matches):
            draws = np.random.default_rng([self.seed, k]).random((2, games//2))
            for (black, white), u in zip([(a, b), (b, a)], draws):
                gap = (self.strengths[black] - self.strengths[white])/elos.to_elo
                wins = int((u < elos.winrate(gap)).sum())
                rows.append((black, white, wins, len(u) - wins))
        return pd.DataFrame(rows, columns=elos.games.TRIAL_COLUMNS)

    def ratings(self) -> pd.DataFrame:
        """Per player, in Elo from the first: truth, solve (:func:`boardlaw.elos.solve`), elo with
        lower and upper (:func:`boardlaw.elos.intervals`), and games.

        nan for players whom no chain of games connects with the first.
        """
        first, players = self.strengths.index[0], self.strengths.index
        ws, gs = self._counts()
        solved = elos.solve(ws, gs, islands='each')*elos.to_elo
        table = elos.intervals(ws, gs, islands='each', reference=first)*elos.to_elo
        table = pd.DataFrame({'truth': self.strengths - self.strengths[first],
                              'solve': solved - solved[first], 'elo': table['elo'],
                              'lower': table['lower'], 'upper': table['upper']}, players)
        islands = elos.find_islands(ws, gs)
        table.loc[islands != islands[first], ['solve', 'elo', 'lower', 'upper']] = np.nan
        return table.assign(games=gs.sum(axis=1).astype(int))

    def suggested(self) -> tuple:
        """(player, opponent) of the match that would tell the most."""
        row = elos.suggest(*self._counts(), games=self.games,
                           reference=self.strengths.index[0]).iloc[0]
        return row['agent'], row['opponent']

    def words(self) -> str:
        """How many games, how many intervals hold the truth, and which match is next."""
        table, (a, b) = self.ratings(), self.suggested()
        others = table.iloc[1:].dropna()
        inside = int(others['truth'].between(others['lower'], others['upper']).sum())
        known = (f'{inside} of {len(others)} intervals (95 %) hold the truth; the widest is '
                 f'±{((others["upper"] - others["lower"])/2).max():.0f} Elo.' if len(others) else
                 'Nobody has a rating yet.')
        missing = len(table) - 1 - len(others)
        apart = (f' {missing} player{"s" * (missing > 1)} cannot be compared with '
                 f'{table.index[0]}: no chain of games leads there.' if missing else '')
        return f'{table["games"].sum()//2} games. {known}{apart} Suggested next: {a} against {b}.'

    def figure(self) -> style.Figure:
        """The ratings with their intervals, and the true strengths."""
        table = self.ratings()
        fig, ax = style.subplots(height=.9 + .32*len(table))
        place = np.arange(len(table))
        ax.hlines(place, table['lower'], table['upper'], color='#c4cad1', lw=6)
        ax.plot(table['elo'], place, 'o', color=style.INK, ms=5)
        ax.plot(table['truth'], place, '|', color='#d21164', ms=15, mew=2)
        ax.set(xlabel=f'Elo relative to {table.index[0]}', yticks=place, yticklabels=table.index)
        ax.margins(y=.12)
        ax.invert_yaxis()
        shown = '; '.join(f'{name} {row.elo:.0f} ({row.lower:.0f} to {row.upper:.0f}), truth '
                          f'{row.truth:.0f}' for name, row in table.dropna().iterrows())
        return style.describe(fig, f'Ratings with 95 % intervals, and the true strengths: '
                                   f'{shown or "none yet"}.',
                              'Dots and bars: ratings with 95 % intervals. Red: the truth.')

    def picture(self) -> str:
        """Figure, words and table as HTML."""
        return views.side_by_side(
            (style.show(self.figure()).html, ''), (views.table(self.ratings(), 0), 'in Elo')
        ) + f'<p>{escape(self.words())}</p>'

    def html(self) -> str:
        """What a stored page shows: the picture as it is now."""
        return self.picture()

    def __repr__(self):
        return f'Elo of {", ".join(map(str, self.strengths.index))}: {self.words()}'

    def _counts(self):
        return elos.symmetrize(self.trials(), agents=self.strengths.index)

    def _make(self, ipywidgets):
        page = ipywidgets.HTML()
        low, high = self.strengths.min() - 500, self.strengths.max() + 500
        sliders = {name: ipywidgets.IntSlider(round(x), round(low), round(high), 10,
                                              description=str(name), continuous_update=False)
                   for name, x in self.strengths.items()}
        games = ipywidgets.SelectionSlider(options=sorted({2, 8, 32, 128, 512, self.games}),
                                           value=self.games, description='Games',
                                           tooltip='games of a match, half in each colour')

        def show():
            self.games = games.value
            page.value = views.attempt(self.picture)

        def move(change, name):
            self.strengths[name] = change['new']
            show()

        def button(text, tip, change):
            made = ipywidgets.Button(description=text, tooltip=tip, layout={'width': 'auto'})
            made.on_click(lambda _: (change(), show()))
            return made

        buttons = {'suggested': button('Play the suggested match', 'The one that tells the most',
                                       self.play_suggested),
                   'round_robin': button('Round robin', 'A match between each two players',
                                         self.round_robin),
                   'clear': button('Start again', 'Forget all games', self.matches.clear)}
        for name, slider in sliders.items():
            slider.observe(lambda change, name=name: move(change, name), 'value')
        games.observe(lambda _: show(), 'value')
        show()
        self.controls = {'strengths': sliders, 'games': games, 'page': page, **buttons}
        rows = [ipywidgets.HBox(list(part), layout={'flex_flow': 'row wrap'})
                for part in (sliders.values(), [games, *buttons.values()])]
        return ipywidgets.VBox([ipywidgets.HTML('True strengths, in Elo'), *rows, page])


def elo(strengths, games=32, rounds=1, seed=0, live=True) -> Elo:
    """Players of known strength, their ratings and the match to play next; the value of a cell.

    Args:
        strengths: true Elo by player, a dict or a Series; all are measured from the first.
        games: of a match, an even number, half in each colour.
        rounds: round robins to begin with.
        live: False for the picture alone, which a stored page shows.

    Raises:
        ValueError: fewer than two players, a strength that is no number, or odd `games`.

    >>> view = elo({'A': 0, 'B': -200}, games=64, live=False)
    >>> int(view.ratings().loc['B', 'games'])
    64
    """
    view = Elo(strengths, games, seed, live)
    for _ in range(rounds):
        view.round_robin()
    return view
