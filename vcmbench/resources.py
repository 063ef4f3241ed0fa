"""Where releases and baselines travel: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).parent


def resource_folders(kind: Literal["baselines", "releases"]) -> dict[str, Path]:
    """Folders of the given kind by name; a checkout's own come before the wheel's."""
    found: dict[str, Path] = {}
    for root in (_PACKAGE.parent / kind, _PACKAGE / "_bundled" / kind):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if folder.is_dir():
                    found.setdefault(folder.name, folder)
    return found
