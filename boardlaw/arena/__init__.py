"""The arena: agents meet, and the results are kept."""
from .matches import RandomAgent, Result, match, play, winrate

__all__ = ['RandomAgent', 'Result', 'match', 'play', 'winrate']
