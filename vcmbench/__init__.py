"""Datasets and scores for machine-learned DFT Hamiltonians of valence change memories.

``vcmbench.load("vcm-demo")`` opens a dataset; the classes below are what a model works with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcmbench.basis import OrbitalBasis, Species
    from vcmbench.blocks import BlockMatrix, BlockPattern
    from vcmbench.device import Device
    from vcmbench.release import Release
    from vcmbench.release import find_release as load
    from vcmbench.store import write_predictions
    from vcmbench.structure import Region, Structure

__all__ = [
    "BlockMatrix",
    "BlockPattern",
    "Device",
    "OrbitalBasis",
    "Region",
    "Release",
    "Species",
    "Structure",
    "load",
    "write_predictions",
]

_HOMES = {
    "BlockMatrix": "blocks",
    "BlockPattern": "blocks",
    "Device": "device",
    "OrbitalBasis": "basis",
    "Region": "structure",
    "Release": "release",
    "Species": "basis",
    "Structure": "structure",
    "load": "release",
    "write_predictions": "store",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line starts without NumPy."""
    if name == "__version__":
        return import_module("importlib.metadata").version("vcmbench")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES[name]}")
    return home.find_release if name == "load" else getattr(home, name)
