"""A stranger's prediction store, looked at before anything of it is read.

Only the directory of the archive, the Zarr metadata and the headers of the compressed chunks are
looked at. What passes holds the four arrays of a prediction and nothing else, of the sizes that the
device needs, and decompresses to exactly what its metadata says.
"""

from __future__ import annotations

import itertools
import json
import math
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from vcmbench.blocks import BlockPattern
from vcmbench.leaderboard.problems import Problem, schema_problems, shown

MAX_METADATA_BYTES: Final = 100_000
MAX_CHUNKS: Final = 10_000
MAX_CHUNK_BYTES: Final = 1 << 28
SLACK: Final = 4
"""How many times the blocks of the support may be held: twice for both directions, twice for blocks
beyond it."""

_GROUPS: Final = ("zarr.json", "blocks/zarr.json")
_INTEGERS = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_CRC_BYTES: Final = 4
_COMPRESSORS: Final = ("blosc", "zstd")
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class Limits(NamedTuple):
    """Largest numbers of blocks and entries that a prediction may hold."""

    blocks: int
    entries: int

    @classmethod
    def of(cls, pattern: BlockPattern) -> Limits:
        """Limits for the device that a pattern belongs to."""
        return cls(SLACK * pattern.n_blocks, SLACK * pattern.n_entries)


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Group(_Metadata):
    """``zarr.json`` of a group; consolidated metadata would stand beside the arrays' own."""

    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: dict[str, Any] = {}


class _ChunkShape(_Metadata):
    chunk_shape: list[PositiveInt]


class _ChunkGrid(_Metadata):
    name: Literal["regular"]
    configuration: _ChunkShape


class _Separator(_Metadata):
    separator: Literal["/"] = "/"


class _ChunkKeys(_Metadata):
    name: Literal["default"]
    configuration: _Separator = _Separator()


class _Codec(_Metadata):
    name: str
    configuration: dict[str, Any] = {}


class _Array(_Metadata):
    """``zarr.json`` of an array."""

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: list[int] = Field(max_length=2)
    data_type: str
    chunk_grid: _ChunkGrid
    chunk_key_encoding: _ChunkKeys
    fill_value: float
    codecs: list[_Codec]
    attributes: dict[str, Any] = {}
    storage_transformers: list[Any] = Field(default=[], max_length=0)
    dimension_names: list[str | None] | None = None


class _Indices(_Array):
    data_type: _INTEGERS


class _Entries(_Array):
    data_type: Literal["float32", "float64", "int16", "int32", "int64"]


_ARRAYS: Final[dict[str, type[_Array]]] = {
    "blocks/pair": _Indices,
    "blocks/shift": _Indices,
    "blocks/offset": _Indices,
    "blocks/hamiltonian": _Entries,
}


@dataclass(frozen=True)
class _Unsound(Exception):  # noqa: N818 (caught here, never shown as an error)
    """Ends the inspection: what follows depends on what is wrong."""

    problems: list[Problem]


def inspect_prediction(path: Path, limits: Limits) -> list[Problem]:
    """Find what forbids to read a prediction.

    Parameters
    ----------
    path : Path
        Zipped Zarr store, perhaps hostile.
    limits : Limits
        What the device needs.

    Returns
    -------
    list of Problem
        Empty if it may be read.
    """
    if path.is_symlink() or not path.is_file():
        return [Problem(path.name, "file", "none, or a link", "a zipped Zarr store")]
    try:
        with zipfile.ZipFile(path) as archive:
            return _Inspection(path.name, archive, limits).problems()
    except _Unsound as unsound:
        return unsound.problems
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        return [Problem(path.name, "archive", f"a damaged one ({error})", "a zipped Zarr store")]


class _Inspection:
    """One archive under inspection."""

    def __init__(self, name: str, archive: zipfile.ZipFile, limits: Limits) -> None:
        self.name = name
        self.archive = archive
        self.limits = limits

    def problems(self) -> list[Problem]:
        self._require(self._members())
        self._require([p for name in _GROUPS for p in self._parsed(name, _Group)[1]])
        arrays: dict[str, _Array] = {}
        problems: list[Problem] = []
        for name, kind in _ARRAYS.items():
            array, found = self._parsed(f"{name}/zarr.json", kind)
            problems += found
            if array is not None:
                arrays[name] = array
        self._require(problems)
        self._require([p for name, array in arrays.items() for p in self._layout(name, array)])
        self._require(self._sizes(arrays))
        self._require(self._names(arrays))
        return [p for name, array in arrays.items() for p in self._chunks(name, array)]

    def _require(self, problems: list[Problem]) -> None:
        if problems:
            raise _Unsound(problems)

    def _problem(self, field: str, found: str, expected: str) -> Problem:
        return Problem(self.name, field, found, expected)

    # --- the archive --------------------------------------------------------------------------

    def _members(self) -> list[Problem]:
        """Look at names, kinds and sizes of the members."""
        members = self.archive.infolist()
        problems = []
        if len(members) > MAX_CHUNKS:
            self._require([self._problem("members", str(len(members)), f"at most {MAX_CHUNKS}")])
        seen: set[str] = set()
        for member in members:
            field = f"member {shown(member.filename)}"
            if member.filename in seen:
                problems.append(self._problem(field, "it twice", "it once"))
            seen.add(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                problems.append(self._problem(field, "a link", "a file"))
            if member.flag_bits & 1:
                problems.append(self._problem(field, "encryption", "none"))
            if not _is_expected(member.filename):
                problems.append(
                    self._problem(field, "a foreign name", f"{', '.join(_ARRAYS)} and their groups")
                )
            largest = MAX_CHUNK_BYTES
            if member.filename.endswith("zarr.json"):
                largest = MAX_METADATA_BYTES
            if member.file_size > largest:
                problems.append(
                    self._problem(field, f"{member.file_size} bytes", f"at most {largest}")
                )
        # Stored entries times eight bytes each, and their indices, whatever the compression.
        total, allowed = sum(m.file_size for m in members), self._allowed_bytes()
        if total > allowed:
            problems.append(self._problem("members", f"{total} bytes", f"at most {allowed}"))
        missing = {*_GROUPS, *(f"{name}/zarr.json" for name in _ARRAYS)} - seen
        problems += [self._problem(name, "nothing", "a member") for name in sorted(missing)]
        return problems

    def _allowed_bytes(self) -> int:
        return 8 * (self.limits.entries + 6 * self.limits.blocks) + MAX_METADATA_BYTES

    def _parsed(self, name: str, kind: type[_Metadata]) -> tuple[Any, list[Problem]]:
        source = f"{self.name}: {name}"
        try:
            return kind.model_validate(json.loads(self.archive.read(name))), []
        except ValidationError as error:
            return None, schema_problems(source, kind, error)
        except (ValueError, RecursionError) as error:
            return None, [self._problem(name, f"no JSON ({shown(str(error))})", "Zarr v3 metadata")]

    # --- the arrays ---------------------------------------------------------------------------

    def _layout(self, name: str, array: _Array) -> list[Problem]:
        """Look at dimensions, chunks and codecs of one array."""
        problems = []
        shape, chunk = array.shape, array.chunk_grid.configuration.chunk_shape
        wanted = {"blocks/pair": 2, "blocks/shift": 3}.get(name)
        fits = len(shape) == 1 if wanted is None else len(shape) == 2 and shape[1] == wanted
        if not fits or min(shape, default=-1) < 0:
            expected = "(n,)" if wanted is None else f"(n, {wanted})"
            problems.append(self._problem(f"{name}: shape", str(shape), expected))
        if len(chunk) != len(shape):
            problems.append(
                self._problem(f"{name}: chunk_shape", str(chunk), f"{len(shape)} dimensions")
            )
        elif (size := _chunk_bytes(array)) > MAX_CHUNK_BYTES:
            problems.append(
                self._problem(f"{name}: chunk", f"{size} bytes", f"at most {MAX_CHUNK_BYTES}")
            )
        elif (count := math.prod(_grid(array))) > MAX_CHUNKS:
            problems.append(self._problem(f"{name}: chunks", str(count), f"at most {MAX_CHUNKS}"))
        names = [codec.name for codec in array.codecs]
        if not _is_known_chain(names):
            problems.append(
                self._problem(
                    f"{name}: codecs",
                    shown(names),
                    f"bytes, then one of {', '.join(_COMPRESSORS)} or none, then crc32c or none",
                )
            )
        return problems

    def _sizes(self, arrays: dict[str, _Array]) -> list[Problem]:
        """Compare the sizes of the arrays with one another and with the device's."""
        n_blocks = arrays["blocks/pair"].shape[0]
        problems = []
        if n_blocks > self.limits.blocks:
            problems.append(
                self._problem("blocks/pair: shape", f"{n_blocks} blocks", self._at_most(0))
            )
        n_entries = arrays["blocks/hamiltonian"].shape[0]
        if n_entries > self.limits.entries:
            problems.append(
                self._problem("blocks/hamiltonian: shape", f"{n_entries} entries", self._at_most(1))
            )
        for name, expected in (("blocks/shift", n_blocks), ("blocks/offset", n_blocks + 1)):
            if (found := arrays[name].shape[0]) != expected:
                problems.append(self._problem(f"{name}: shape", f"length {found}", str(expected)))
        return problems

    def _at_most(self, which: int) -> str:
        return f"at most {self.limits[which]}, {SLACK} times the device's support"

    def _names(self, arrays: dict[str, _Array]) -> list[Problem]:
        """Compare the chunks that are there with those of the grids."""
        chunks = {key for name, array in arrays.items() for key in _chunk_names(name, array)}
        found = {name for name in self.archive.namelist() if not name.endswith("zarr.json")}
        problems = []
        if missing := sorted(chunks - found):
            problems.append(
                self._problem("chunks", f"{len(missing)} missing ({missing[0]})", "all of the grid")
            )
        if foreign := sorted(found - chunks):
            problems.append(
                self._problem(
                    "chunks", f"{len(foreign)} outside the grid ({foreign[0]})", "those of the grid"
                )
            )
        return problems

    def _chunks(self, name: str, array: _Array) -> list[Problem]:
        """Compare what each chunk says it decompresses to with what the metadata say."""
        names = [codec.name for codec in array.codecs]
        compressor = next((name for name in names if name in _COMPRESSORS), None)
        expected = _chunk_bytes(array)
        problems = []
        for key in _chunk_names(name, array):
            size = self.archive.getinfo(key).file_size
            with self.archive.open(key) as handle:
                head = handle.read(32)
            found: int | None
            if compressor is None:
                found = size - _CRC_BYTES * ("crc32c" in names)
            else:
                found = _blosc_size(head) if compressor == "blosc" else _zstd_size(head)
            if found != expected:
                problems.append(
                    self._problem(
                        key,
                        "an undeclared size" if found is None else f"{found} bytes decompressed",
                        str(expected),
                    )
                )
        return problems


def _is_expected(name: str) -> bool:
    """Whether a member's name is one that a prediction has; ``..`` and ``/`` are not."""
    if name in _GROUPS:
        return True
    parts = name.split("/")
    if "/".join(parts[:2]) not in _ARRAYS:
        return False
    if parts[2:] == ["zarr.json"]:
        return True
    indices = parts[3:]
    return parts[2:3] == ["c"] and 0 < len(indices) < 3 and all(_is_index(p) for p in indices)


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


def _is_known_chain(names: list[str]) -> bool:
    rest = names[1:]
    if rest[:1] and rest[0] in _COMPRESSORS:
        rest = rest[1:]
    return names[:1] == ["bytes"] and rest in ([], ["crc32c"])


def _chunk_bytes(array: _Array) -> int:
    itemsize = np.dtype(array.data_type).itemsize
    return itemsize * math.prod(array.chunk_grid.configuration.chunk_shape)


def _grid(array: _Array) -> list[int]:
    """Return the number of chunks along each dimension."""
    chunk = array.chunk_grid.configuration.chunk_shape
    return [-(-size // width) for size, width in zip(array.shape, chunk, strict=True)]


def _chunk_names(name: str, array: _Array) -> list[str]:
    indices = itertools.product(*(range(count) for count in _grid(array)))
    return [f"{name}/c/{'/'.join(map(str, index))}" for index in indices]


def _blosc_size(head: bytes) -> int | None:
    """Bytes that a Blosc chunk decompresses to: the second word of its header."""
    return struct.unpack_from("<I", head, 4)[0] if len(head) >= 16 else None


def _zstd_size(head: bytes) -> int | None:
    """Content size in the header of a Zstandard frame (RFC 8878, 3.1.1.1), None if it has none."""
    if len(head) < 5 or head[:4] != _ZSTD_MAGIC:
        return None
    descriptor = head[4]
    single_segment = descriptor >> 5 & 1
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    field = head[start : start + width]
    if width == 0 or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)
