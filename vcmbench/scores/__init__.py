"""Scores of predicted Hamiltonians against the reference (DESIGN.md, scores)."""
