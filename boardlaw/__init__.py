"""boardlaw: scaling laws of board games, from an empty Hex board to the fitted frontier."""
