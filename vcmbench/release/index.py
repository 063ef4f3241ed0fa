"""``index.parquet``: one row per device, for ``datasets.load_dataset`` and for filtering."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vcmbench.errors import VcmbenchError
from vcmbench.facts import DeviceFacts, device_facts
from vcmbench.release.families import families
from vcmbench.release.manifest import Manifest
from vcmbench.release.opened import Release

INDEX = "index.parquet"


class IndexRow(DeviceFacts):
    """A device of a release: what it is, which part it serves and where it lies."""

    part: str | None
    """Part of the device split; null where it is in none."""
    family: str
    """First of the devices with the same sites, vacancies aside."""
    store: str
    """Zarr v3 store, relative to the release."""
    store_bytes: int
    """Size of the store."""
    sha256: str
    """Checksum of the store."""
    digest: str
    """Checksum of the store's content, independent of chunks and compression."""


def index_rows(release: Release) -> list[IndexRow]:
    """Measure every device of a release anew, without the index (or pyarrow)."""
    facts, structures = {}, {}
    for name in release.manifest.devices:
        device = release.device(name)
        facts[name], structures[name] = device_facts(device), device.structure
    part_of = release.device_parts.part_of
    return rows_of(facts, families(structures), part_of, release.manifest)


def rows_of(
    facts: Mapping[str, DeviceFacts],
    family: Mapping[str, str],
    part_of: Mapping[str, str],
    manifest: Manifest,
) -> list[IndexRow]:
    """Put together what is known of each device.

    Parameters
    ----------
    facts : mapping of str to DeviceFacts
        Facts by device id.
    family : mapping of str to str
        Family of each device.
    part_of : mapping of str to str
        Part of each device that is in one.
    manifest : Manifest
        Stores and their checksums.
    """
    return [
        IndexRow(
            **facts[name].model_dump(),
            part=part_of.get(name),
            family=family[name],
            store=entry.path,
            store_bytes=manifest.files[entry.path].size,
            sha256=manifest.files[entry.path].sha256,
            digest=entry.digest,
        )
        for name, entry in manifest.devices.items()
    ]


class Column(NamedTuple):
    """A column of the index."""

    name: str
    type: type
    description: str


def columns(rows: Sequence[IndexRow]) -> list[Column]:
    """List the columns; atoms have one per element, such as ``n_hf``."""
    found = []
    for name, field in IndexRow.model_fields.items():
        if name == "atoms":
            found += [
                Column(_atoms(symbol), int, f"Atoms of {symbol}, ghosts not counted.")
                for symbol in sorted({symbol for row in rows for symbol in row.atoms})
            ]
        else:
            found.append(Column(name, _scalar(field.annotation), field.description or ""))
    return found


def records(rows: Sequence[IndexRow]) -> list[dict[str, Any]]:
    """Rows as flat mappings with the names of `columns`."""
    names = [column.name for column in columns(rows)]
    return [_flat(row, names) for row in rows]


def _flat(row: IndexRow, names: Sequence[str]) -> dict[str, Any]:
    flat = row.model_dump(exclude={"atoms"})
    flat |= {_atoms(symbol): n for symbol, n in row.atoms.items()}
    return {name: flat.get(name, 0 if name.startswith("n_") else None) for name in names}


def _atoms(symbol: str) -> str:
    return f"n_{symbol.lower()}"


def _scalar(annotation: Any) -> type:
    """Return the plain type of a field: of ``float | None`` float, of a choice of names str."""
    for plain in (bool, int, float):
        if annotation is plain or plain in getattr(annotation, "__args__", ()):
            return plain
    return str


def index_bytes(rows: Sequence[IndexRow]) -> bytes:
    """Write the rows as Parquet.

    Raises
    ------
    VcmbenchError
        If pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise VcmbenchError(
            "a release's index needs pyarrow: pip install 'vcmbench[release]'"
        ) from None
    arrow = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    schema = pa.schema(
        [
            pa.field(c.name, arrow[c.type], metadata={"description": c.description})
            for c in columns(rows)
        ]
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records(rows), schema=schema), buffer)
    return buffer.getvalue()
