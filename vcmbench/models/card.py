"""Reading and writing of ``model.yml``."""

from __future__ import annotations

import difflib
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.models.interface import CARD, ModelCard
from vcmbench.store.content import atomic_file


def read_card(directory: Path) -> ModelCard:
    """Read the card of a model directory.

    Raises
    ------
    VcmbenchError
        If it is missing, no YAML, or a field is missing, unknown or of the wrong kind.
    """
    path = directory / CARD
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VcmbenchError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VcmbenchError(f"{path}: not a YAML document ({error})") from error
    try:
        return ModelCard.model_validate(document)
    except ValidationError as error:
        raise _explain(path, error.errors()[0]) from error


def write_card(directory: Path, card: ModelCard) -> None:
    """Write the card of a model directory; equal cards give equal bytes."""
    document = card.model_dump(mode="json", exclude_none=True)
    with atomic_file(directory / CARD) as temporary:
        temporary.write_text(
            yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=99),
            encoding="utf-8",
        )


def _explain(path: Path, problem: ErrorDetails) -> VcmbenchError:
    """Name the field, what was found and what was expected."""
    field = ".".join(str(part) for part in problem["loc"]) or "document"
    match problem["type"]:
        case "missing":
            found, expected = "nothing", "a value"
        case "extra_forbidden":
            found = "an unknown field"
            close = difflib.get_close_matches(field, ModelCard.model_fields, n=1)
            expected = f"{close[0]!r}" if close else f"one of {', '.join(ModelCard.model_fields)}"
        case _:
            found, expected = (
                repr(problem["input"]),
                problem["msg"].removeprefix("Input should be "),
            )
    return bad_input(path, field, found=found, expected=expected)
