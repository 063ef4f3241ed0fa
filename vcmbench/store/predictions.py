"""Predicted Hamiltonians: one store per device, in the block layout of the dataset.

A store holds ``blocks/{pair, shift, offset, hamiltonian}`` and the root attributes below. The
easiest way to write one from another environment is to copy pair, shift and offset from the
device's own store and to fill `hamiltonian` (float32, float64, or integers with a `scale_factor`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.device import Device, Gauge
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.store.content import Content, read_content, write_content
from vcmbench.store.device import (
    HAMILTONIAN_SCALE_EV,
    check_offsets,
    to_fixed_point,
)

SUFFIXES = (".zarr.zip", ".zarr")


class PredictionAttributes(BaseModel):
    """Root attributes of a predictions store."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    id: str
    """Device the prediction is for."""
    gauge: Gauge
    """Energy zero; there is no default, since a shifted H cannot be told from a wrong one."""
    units: dict[str, str] = {"energy": "eV"}
    directed: bool = False
    """Whether both directions of every pair are held."""
    model: str | None = None
    """Name of the model that made it."""


def write_predictions(
    folder: Path | str,
    device_id: str,
    matrix: BlockMatrix,
    *,
    gauge: Gauge,
    model: str | None = None,
) -> Path:
    """Write the predicted H of one device as ``folder/<device_id>.zarr.zip``.

    Parameters
    ----------
    folder : Path or str
        Predictions folder.
    device_id : str
        Device the prediction is for.
    matrix : BlockMatrix
        Predicted H in eV, half stored or directed; rounded to 1 µeV.
    gauge : {"fermi", "raw"}
        Energy zero of `matrix`.
    model : str, optional
        Name of the model.

    Returns
    -------
    Path
        The store.
    """
    pattern = matrix.pattern
    attributes = PredictionAttributes(
        schema_version=1, id=device_id, gauge=gauge, directed=pattern.directed, model=model
    )
    content = Content(
        arrays={
            "blocks/pair": pattern.pair,
            "blocks/shift": pattern.shift.astype(np.int8),
            "blocks/offset": pattern.offset,
            "blocks/hamiltonian": to_fixed_point(
                matrix.values, HAMILTONIAN_SCALE_EV, f"prediction for {device_id}"
            ),
        },
        attributes={
            "": attributes.model_dump(mode="json"),
            "blocks/hamiltonian": {"scale_factor": HAMILTONIAN_SCALE_EV, "units": "eV"},
        },
    )
    path = Path(folder) / f"{device_id}{SUFFIXES[0]}"
    write_content(path, content)
    return path


def find_predictions(folder: Path, device_id: str) -> Path | None:
    """Store of one device in a predictions folder, if there is one."""
    candidates = [folder / f"{device_id}{suffix}" for suffix in SUFFIXES]
    return next((path for path in candidates if path.exists()), None)


def read_predictions(folder: Path, device: Device) -> BlockMatrix:
    """Read the predicted H of one device.

    Parameters
    ----------
    folder : Path
        Predictions folder.
    device : Device
        Device predicted; its sites and basis give meaning to the blocks.

    Returns
    -------
    BlockMatrix
        Half stored or directed, as written, in eV.

    Raises
    ------
    VcmbenchError
        If the store is missing or damaged, has no declared gauge or another one than the
        device's, or blocks that do not fit the device's sites and orbitals.
    """
    path = find_predictions(folder, device.id)
    if path is None:
        raise VcmbenchError(
            f"{folder}: no predictions for device {device.id!r} (expected {device.id}.zarr.zip)"
        )
    content = read_content(path)
    if "gauge" not in content.attributes.get("", {}):
        raise bad_input(
            path, "gauge", found="undeclared", expected=f"{device.gauge!r} as a root attribute"
        )
    attributes = content.parsed(PredictionAttributes, "")
    if attributes.id != device.id:
        raise bad_input(path, "id", found=repr(attributes.id), expected=repr(device.id))
    if attributes.gauge != device.gauge:
        raise bad_input(path, "gauge", found=attributes.gauge, expected=device.gauge)
    if attributes.units.get("energy") != "eV":
        raise bad_input(path, "units: energy", found=attributes.units.get("energy"), expected="eV")
    blocks = {name: content.array(f"blocks/{name}") for name in ("pair", "shift", "offset")}
    values = content.values("blocks/hamiltonian")
    try:
        pattern = BlockPattern(
            device.structure,
            device.basis,
            blocks["pair"],
            blocks["shift"],
            directed=attributes.directed,
        )
        check_offsets(pattern, blocks["offset"])
        return BlockMatrix(pattern, values)
    except VcmbenchError as error:
        raise VcmbenchError(f"{path}: {error}") from error
