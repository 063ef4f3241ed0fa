"""Datasets and scores for machine-learned DFT Hamiltonians of valence change memories."""

from importlib.metadata import version

__version__ = version("vcmbench")
__all__ = ["__version__"]
