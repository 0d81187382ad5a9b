"""Hex: the rules, many games at once, and drawings of them.

Explained in the chapter book/hex.ipynb.
"""
from .worlds import BOARDSIZES, LABELS, BadAction, BadBoard, Hex, Transition

__all__ = ['BOARDSIZES', 'LABELS', 'BadAction', 'BadBoard', 'Hex', 'Transition']
