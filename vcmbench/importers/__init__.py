"""Importers: finished runs and published data sets to checked devices."""

from vcmbench.importers.cp2k import import_cp2k
from vcmbench.importers.run import ImportedRun

__all__ = ["ImportedRun", "import_cp2k"]
