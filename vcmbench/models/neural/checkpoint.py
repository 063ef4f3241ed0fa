"""Tensors in safetensors files: weights of a network, and the state of a training run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from safetensors.torch import save
from torch import Tensor

from vcmbench.errors import bad_input
from vcmbench.models.weights import METADATA_KEY, read_file
from vcmbench.store.content import atomic_file

ModelT = TypeVar("ModelT", bound=BaseModel)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: BaseModel) -> None:
    """Write tensors and metadata, all or nothing; equal content gives equal bytes."""
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    document = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(contiguous, metadata={METADATA_KEY: document}))


def read_tensors(path: Path, kind: type[ModelT]) -> tuple[dict[str, Tensor], ModelT]:
    """Read what `write_tensors` wrote.

    Raises
    ------
    VcmbenchError
        If the file is missing or damaged, or its metadata is not of `kind`.
    """
    return read_file(path, "pt", kind)


def take(
    source: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Pick the tensors that a module expects, by name, shape and dtype, and finite.

    Parameters
    ----------
    source : Path
        File named in errors.
    tensors : mapping of str to Tensor
        What was read.
    expected : mapping of str to Tensor
        ``module.state_dict()``.
    prefix : str
        What stands before the names in `tensors`.

    Raises
    ------
    VcmbenchError
        If one is missing, of another shape or dtype, or not finite.
    """
    found = {}
    for name, like in expected.items():
        tensor = tensors.get(prefix + name)
        wanted = f"{like.dtype} of shape {tuple(like.shape)}"
        if tensor is None:
            raise bad_input(source, prefix + name, found="no such tensor", expected=wanted)
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            shape = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise bad_input(source, prefix + name, found=shape, expected=wanted)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise bad_input(source, prefix + name, found="NaN or infinity", expected="numbers")
        found[name] = tensor
    return found
