"""Things to play with in a notebook: games, searches, ratings.

    from boardlaw import play, widgets
    widgets.play(agent)                        # a board, against any agent
    widgets.watch(agent, other)                # two agents, and what each thinks
    widgets.search_steps(agent, world)         # a search, simulation by simulation
    widgets.policies(agent.network, world)     # sliders for c_puct, the nodes and lambda's rule
    widgets.elo({'A': 0, 'B': -200})           # strengths, games, ratings, the next match

Each is the value of a cell, and is live (ipywidgets) while someone sits in front of the notebook.
In a stored page, and where ipywidgets is missing, it is a picture, or a script that needs no
kernel. What its buttons and sliders do are methods, which a program may call as well; `.widget()`
is the ipywidgets widget itself.

Explained in the chapters book/search.ipynb, book/training.ipynb, book/arena.ipynb and
book/elo.ipynb.
"""
from .games import Play, Watch, play, watch
from .ratings import Elo, elo
from .searches import Policies, SearchSteps, Step, policies, search_steps

__all__ = ['Elo', 'Play', 'Policies', 'SearchSteps', 'Step', 'Watch', 'elo', 'play', 'policies',
           'search_steps', 'watch']
