"""The arena: agents meet, and the results are kept.

Explained in the chapter book/arena.ipynb.
"""
from .evaluation import evaluate, load, register, register_perfect
from .matches import RandomAgent, Result, match, play, winrate

__all__ = ['RandomAgent', 'Result', 'evaluate', 'load', 'match', 'play', 'register',
           'register_perfect', 'winrate']
