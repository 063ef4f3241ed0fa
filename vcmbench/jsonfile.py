"""JSON documents with a pydantic schema: checked reads, atomic writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vcmbench.errors import VcmbenchError
from vcmbench.store.content import atomic_file

ModelT = TypeVar("ModelT", bound=BaseModel)


class Document(BaseModel):
    """A document whose fields are all known and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_json(model: type[ModelT], path: Path) -> ModelT:
    """Read a document.

    Raises
    ------
    VcmbenchError
        If it is missing, no JSON, or a field is missing, unknown or of the wrong kind.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise VcmbenchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise VcmbenchError(f"{path}: {where}: {first['msg']}") from error


def write_json(path: Path, document: BaseModel) -> None:
    """Write a document; equal documents give equal bytes."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(document.model_dump(mode="json"), indent=2) + "\n")
