"""Release recipes, and devices that differ in little enough to be told apart by a release."""

from __future__ import annotations

import datetime
from pathlib import Path

from vcmbench.dft.cp2k_input import Cp2kSettings
from vcmbench.dft.run import LADDER, Attempt, RunRecord
from vcmbench.production_record import ProductionRecord
from vcmbench.release import Release, ReleaseRecipe, make_release
from vcmbench.release.card import SECTIONS
from vcmbench.store.content import read_content


def make_recipe(card: Path, parts: dict[str, tuple[str, ...]], **changes: object) -> ReleaseRecipe:
    fields: dict[str, object] = {
        "name": "toy",
        "version": "1.0.0",
        "date": datetime.date(2026, 11, 24),
        "license": "CC-BY-4.0",
        "description": "Toys.",
        "authors": ["Somebody"],
        "card": card,
        "devices": {"version": 1, "parts": parts},
    }
    return ReleaseRecipe.model_validate(fields | changes)


def toy_release(folder: Path, parts: dict[str, tuple[str, ...]], **changes: object) -> Release:
    """Make a release of a folder of stores, with a card beside it that has every section."""
    card = folder.parent / f"{folder.name}.md"
    markers = [f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in SECTIONS]
    card.write_text("\n".join([*markers, "Prose."]))
    return make_release(folder, make_recipe(card, parts, **changes))


def record_of(store: Path, **changes: object) -> ProductionRecord:
    attempt = Attempt(mixing=LADDER[0], start="atomic", steps=23, seconds=600, outcome="converged")
    fields: dict[str, object] = {
        "id": store.name.removesuffix(".zarr.zip"),
        "settings": Cp2kSettings(),
        "run": RunRecord(structure_sha256="0", settings=Cp2kSettings(), attempts=(attempt,)),
        "n_sites": 3,
        "n_orbitals": 9,
        "checks": {},
        "import_seconds": 1.0,
        "content_digest": read_content(store).digest(),
        "store_bytes": store.stat().st_size,
    }
    return ProductionRecord.model_validate(fields | changes)
