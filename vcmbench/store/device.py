"""A device as a Zarr v3 store (DESIGN.md, dataset release)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from vcmbench.basis import ORBITAL_ORDER, OrbitalBasis
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.device import Device, Gauge, Kind, Provenance, TransportReference
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.store.content import Content, read_content, write_content
from vcmbench.structure import FloatArray, Structure

SCHEMA_VERSION: Literal[1] = 1
HAMILTONIAN_SCALE_EV = 1e-6
"""H is stored as int32 multiples of 1 µeV."""
OVERLAP_SCALE = 1e-8
"""S is stored as int32 multiples of 1e-8."""

_STRUCTURE = ("numbers", "positions", "cell", "pbc", "is_ghost", "region")
_TRANSPORT = {
    "energies": "energies_ev",
    "kpoints": "kpoints",
    "weights": "weights",
    "transmission": "transmission",
}


class RootAttributes(BaseModel):
    """Attributes of a device store."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    id: str
    kind: Kind
    gauge: Gauge
    folded: bool
    units: dict[str, str]
    provenance: Provenance


class BasisAttributes(BaseModel):
    """Attributes of the group ``basis``."""

    model_config = ConfigDict(extra="forbid")

    name: str
    orbital_order: Literal[
        "shells as declared, m = -l ... +l, real spherical harmonics, CP2K phases"
    ]
    shells: dict[str, list[int]]


def to_fixed_point(values: FloatArray, scale: float, name: str) -> NDArray[np.int32]:
    """Round to int32 multiples of `scale`.

    Raises
    ------
    VcmbenchError
        If a value is out of the range of int32.
    """
    scaled = np.rint(values / scale)
    if scaled.size and np.abs(scaled).max() > np.iinfo(np.int32).max:
        raise bad_input(
            name,
            "largest entry",
            found=np.abs(values).max(),
            expected=f"at most {scale * 2**31:.4g}",
        )
    return scaled.astype(np.int32)


def encode(device: Device) -> Content:
    """Turn a device into the arrays and attributes that are stored."""
    structure, pattern = device.structure, device.pattern
    arrays: dict[str, NDArray[Any]] = {
        f"structure/{name}": getattr(structure, name) for name in _STRUCTURE
    }
    arrays["blocks/pair"] = pattern.pair
    arrays["blocks/shift"] = pattern.shift.astype(np.int8)
    arrays["blocks/offset"] = pattern.offset
    arrays["blocks/hamiltonian"] = to_fixed_point(
        device.hamiltonian.values, HAMILTONIAN_SCALE_EV, f"{device.id}: hamiltonian"
    )
    arrays["blocks/overlap"] = to_fixed_point(
        device.overlap.values, OVERLAP_SCALE, f"{device.id}: overlap"
    )
    attributes: dict[str, Mapping[str, Any]] = {
        "": RootAttributes(
            schema_version=SCHEMA_VERSION,
            id=device.id,
            kind=device.kind,
            gauge=device.gauge,
            folded=device.folded,
            units={"length": "angstrom", "energy": "eV"},
            provenance=device.provenance,
        ).model_dump(mode="json"),
        "basis": BasisAttributes(
            name=device.basis.name, orbital_order=ORBITAL_ORDER, shells=device.basis.as_labels()
        ).model_dump(mode="json"),
        "blocks/hamiltonian": {"scale_factor": HAMILTONIAN_SCALE_EV, "units": "eV"},
        "blocks/overlap": {"scale_factor": OVERLAP_SCALE, "units": "1"},
    }
    if device.transport is not None:
        for name, attribute in _TRANSPORT.items():
            arrays[f"transport/{name}"] = getattr(device.transport, attribute)
        attributes["transport"] = {"lead": device.transport.lead}
        attributes["transport/floors"] = {k: dict(v) for k, v in device.transport.floors.items()}
    return Content(arrays, {name: value for name, value in attributes.items() if value})


def decode(content: Content) -> Device:
    """Inverse of `encode`."""
    root = content.parsed(RootAttributes, "")
    basis = content.parsed(BasisAttributes, "basis")
    arrays = {name: content.array(f"structure/{name}") for name in _STRUCTURE}
    blocks = {name: content.array(f"blocks/{name}") for name in ("pair", "shift", "offset")}
    values = {name: content.values(f"blocks/{name}") for name in ("hamiltonian", "overlap")}
    try:
        structure = Structure(**arrays)
        pattern = BlockPattern(
            structure,
            OrbitalBasis.from_labels(basis.name, basis.shells),
            blocks["pair"],
            blocks["shift"],
        )
        check_offsets(pattern, blocks["offset"])
        return Device(
            id=root.id,
            kind=root.kind,
            gauge=root.gauge,
            folded=root.folded,
            provenance=root.provenance,
            hamiltonian=BlockMatrix(pattern, values["hamiltonian"]),
            overlap=BlockMatrix(pattern, values["overlap"]),
            transport=_decode_transport(content),
        )
    except VcmbenchError as error:
        raise VcmbenchError(f"{content.source}: {error}") from error


def _decode_transport(content: Content) -> TransportReference | None:
    if "transport" not in content.attributes:
        return None
    return TransportReference(
        lead=str(content.attributes["transport"]["lead"]),
        floors=content.attributes.get("transport/floors", {}),
        **{key: content.array(f"transport/{name}") for name, key in _TRANSPORT.items()},
    )


def check_offsets(pattern: BlockPattern, offset: NDArray[np.integer]) -> None:
    """Raise where stored offsets contradict the basis: a wrong orbital count."""
    if np.array_equal(offset, pattern.offset):
        return
    if offset.shape != pattern.offset.shape:
        raise bad_input(
            "blocks", "offset", found=f"shape {offset.shape}", expected=pattern.offset.shape
        )
    block = int((np.diff(offset) != np.diff(pattern.offset)).argmax())
    i, j = pattern.pair[block]
    n_i, n_j = pattern.site_orbitals[[i, j]]
    raise bad_input(
        "blocks",
        f"offset: entries of block {block} (sites {i}, {j})",
        found=int(np.diff(offset)[block]),
        expected=f"{n_i} x {n_j} orbitals",
    )


def write_device(path: Path, device: Device) -> str:
    """Write a device store atomically.

    Parameters
    ----------
    path : Path
        Target, by convention ``<id>.zarr.zip``.
    device : Device
        What to write; H and S are rounded to fixed point.

    Returns
    -------
    str
        Content digest.
    """
    content = encode(device)
    write_content(path, content)
    return content.digest()


def read_device(path: Path) -> Device:
    """Read a device store.

    Raises
    ------
    VcmbenchError
        If the store is missing, damaged or not a device of this schema.
    """
    return decode(read_content(path))


def content_digest(device: Device) -> str:
    """SHA-256 of what a device's store holds, independent of chunks and compression."""
    return encode(device).digest()
