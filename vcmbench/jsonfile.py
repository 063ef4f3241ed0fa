"""JSON documents with a pydantic schema: checked reads, and one way to write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from vcmbench.errors import VcmbenchError
from vcmbench.store.content import atomic_file

T = TypeVar("T")

_PREFIX = "Value error, "


class Document(BaseModel):
    """A file's content: nothing unknown in it, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_json(kind: type[T] | TypeAdapter[T], path: Path) -> T:
    """Read a JSON file as a pydantic type.

    Raises
    ------
    VcmbenchError
        If the file cannot be read or its content is not of that type; it names the first field.
    """
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_json(path.read_bytes())
    except OSError as error:
        raise VcmbenchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise VcmbenchError(f"{path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """Field and message of the first thing that is wrong."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    if first["type"] == "json_invalid":
        where = ["JSON"]
    return ": ".join([*([".".join(where)] if where else []), first["msg"].removeprefix(_PREFIX)])


def json_bytes(model: BaseModel) -> bytes:
    """Return the one way a model is written as JSON; absent values are left out."""
    content = model.model_dump(mode="json", exclude_none=True)
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, model: BaseModel) -> None:
    """Write a model as JSON, all or nothing; equal models give equal bytes."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(json_bytes(model))
