"""Release recipes, and devices that differ in little enough to be told apart by a release."""

from __future__ import annotations

import datetime
from pathlib import Path

from vcmbench.release import Release, ReleaseRecipe, make_release
from vcmbench.release.card import SECTIONS


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
