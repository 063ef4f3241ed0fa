"""Dataset releases: a folder of device stores with manifest, index, card and splits."""

from vcmbench.release.find import find_release, known_releases
from vcmbench.release.make import make_release
from vcmbench.release.manifest import MANIFEST, Manifest
from vcmbench.release.opened import DEFAULT_SPLIT, Release
from vcmbench.release.recipe import ReleaseRecipe, read_recipe
from vcmbench.release.splits import DeviceSplit, PartitionSplit, Split
from vcmbench.release.verify import verify_release

__all__ = [
    "DEFAULT_SPLIT",
    "MANIFEST",
    "DeviceSplit",
    "Manifest",
    "PartitionSplit",
    "Release",
    "ReleaseRecipe",
    "Split",
    "find_release",
    "known_releases",
    "make_release",
    "read_recipe",
    "verify_release",
]
