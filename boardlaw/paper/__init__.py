"""The paper's figures, tables and claims, from published curves or from your own agents.

    agents = paper.published()
    paper.figures.frontiers(agents)
    paper.tables.claims(agents)

Explained in the chapter book/scaling.ipynb.
"""
from . import comparison, data, figures, fits, tables
from .data import (
    cheapest,
    crossings,
    frontier,
    optimal_model_size,
    params,
    published,
    rated,
    replica,
    train_test,
)
from .fits import (
    ChangePoint,
    bootstrap,
    fit_frontier,
    fit_power_law,
    fit_train_test,
    headline,
    intervals,
    residual_variance,
    winrate,
)

__all__ = [
    'ChangePoint', 'bootstrap', 'cheapest', 'comparison', 'crossings', 'data', 'figures',
    'fit_frontier', 'fit_power_law', 'fit_train_test', 'fits', 'frontier', 'headline',
    'intervals', 'optimal_model_size', 'params', 'published', 'rated', 'replica',
    'residual_variance', 'tables', 'train_test', 'winrate']
