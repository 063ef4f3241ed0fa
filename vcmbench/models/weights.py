"""Weights of the closed-form baselines: named arrays and JSON metadata in a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vcmbench.basis import OrbitalBasis
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.store.content import atomic_file
from vcmbench.structure import FloatArray

WEIGHTS: Final = "weights.safetensors"
"""Name of the weights within a model directory."""

METADATA_KEY: Final = "vcmbench"
"""Of the JSON document in the file's metadata."""

ModelT = TypeVar("ModelT", bound=BaseModel)


class BasisRecord(BaseModel):
    """An orbital basis as written beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name of the basis set."""
    shells: dict[str, list[int]]
    """Angular momenta of the shells of each species, by label."""

    @classmethod
    def of(cls, basis: OrbitalBasis) -> BasisRecord:
        """Record of `basis`."""
        return cls(name=basis.name, shells=basis.as_labels())

    def to_basis(self) -> OrbitalBasis:
        """Return the basis."""
        return OrbitalBasis.from_labels(self.name, self.shells)


class Arrays:
    """Named arrays of a weights file; every request says which shape is expected."""

    def __init__(self, source: Path, arrays: Mapping[str, FloatArray]) -> None:
        self.source = source
        self._arrays = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def take(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Return the array `name`, which must have the given shape and finite entries."""
        if name not in self._arrays:
            raise bad_input(self.source, name, found="no such array", expected=f"shape {shape}")
        array = self._arrays[name]
        if array.shape != shape or array.dtype != np.float64:
            found = f"{array.dtype} of shape {array.shape}"
            raise bad_input(self.source, name, found=found, expected=f"float64 of shape {shape}")
        if not np.isfinite(array).all():
            raise bad_input(self.source, name, found="NaN or infinity", expected="finite numbers")
        return array


def write_weights(path: Path, arrays: Mapping[str, FloatArray], metadata: BaseModel) -> None:
    """Write arrays and metadata; equal content gives equal bytes."""
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    document = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(contiguous, metadata={METADATA_KEY: document}))


def read_weights(path: Path, metadata_model: type[ModelT]) -> tuple[Arrays, ModelT]:
    """Read what `write_weights` wrote.

    Raises
    ------
    VcmbenchError
        If the file is missing or damaged, or its metadata is not of `metadata_model`.
    """
    arrays, metadata = read_file(path, "numpy", metadata_model)
    return Arrays(path, arrays), metadata


def read_file(
    path: Path, framework: Literal["numpy", "pt"], metadata_model: type[ModelT]
) -> tuple[dict[str, Any], ModelT]:
    """Read a safetensors file as the arrays of a framework, and its metadata.

    Raises
    ------
    VcmbenchError
        If the file is missing or damaged, or its metadata is not of `metadata_model`.
    """
    if not path.is_file():
        raise VcmbenchError(f"{path}: no such file: expected the model's weights")
    try:
        with safe_open(path, framework=framework) as handle:
            document = (handle.metadata() or {}).get(METADATA_KEY)
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise VcmbenchError(f"{path}: corrupt or truncated weights ({error})") from error
    if document is None:
        raise bad_input(path, f"metadata: {METADATA_KEY}", found="none", expected="a JSON document")
    try:
        return arrays, metadata_model.model_validate_json(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise bad_input(
            path, f"metadata: {where}", found=first["input"], expected=first["msg"]
        ) from error
