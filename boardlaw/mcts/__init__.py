"""Regularised policy search (Grill et al. 2020), batched over games.

Explained in the chapters book/search.ipynb and book/speed.ipynb.
"""
from .agent import Decisions, MCTSAgent
from .search import C_PUCT, BadSearch, Search, search

__all__ = ['C_PUCT', 'BadSearch', 'Decisions', 'MCTSAgent', 'Search', 'search']
