"""Load time and size of a device store against the same matrices as text and as float64 HDF5.

    python benchmarks/compare_storage.py [DATASET [DEVICE]]

Writes H and S of one device three ways into a temporary folder (on one disk, all files in the
page cache) and times what a user waits for: from the path to the checked arrays in memory.

- store: `vcmbench` device store; structure, basis, H, S, reference T(E), checksums verified.
- text: ``row column value`` lines, 1-based, H in Hartree, one file per operator and lattice image,
  as CP2K prints and the large_atomic_structures data set publishes; read with `numpy.loadtxt`.
- hdf5: the blocks' keys and values, H and S float64, contiguous and uncompressed: the fastest that
  HDF5 can be read; and, beside it, with shuffle and gzip 4.

Prints one JSON line. Every ratio is the median of pairs measured in turn; above 1 is better for
the store.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

import vcmbench
from vcmbench.blocks import BlockMatrix
from vcmbench.store.device import read_device, write_device
from vcmbench.units import HARTREE_EV

REPEATS = 7
TEXT_REPEATS = 1
"""Text takes a minute."""
ARRAYS = ("pair", "shift", "offset")


def write_text(folder: Path, device: vcmbench.Device) -> None:
    """One file per operator and image, upper half of the directed entries."""
    folder.mkdir()
    for name, matrix in (("H", device.hamiltonian * (1 / HARTREE_EV)), ("S", device.overlap)):
        rows, columns = matrix.entry_orbitals()
        image = np.repeat(matrix.pattern.shift, np.diff(matrix.pattern.offset), axis=0)
        cells, index = np.unique(image, axis=0, return_inverse=True)
        for number, cell in enumerate(cells):
            chosen = index.ravel() == number
            table = np.stack([rows[chosen] + 1, columns[chosen] + 1, matrix.values[chosen]], axis=1)
            label = "_".join(map(str, cell.tolist()))
            np.savetxt(folder / f"{name}_{label}.csr", table, fmt=("%d", "%d", "%.12e"))


def read_text(folder: Path) -> list[np.ndarray]:
    """Read every image of both operators."""
    return [np.loadtxt(path, ndmin=2) for path in sorted(folder.glob("*.csr"))]


def write_hdf5(path: Path, device: vcmbench.Device, **compression: object) -> None:
    """Keys and values of the blocks."""
    with h5py.File(path, "w") as file:
        for name in ARRAYS:
            file.create_dataset(name, data=getattr(device.pattern, name), **compression)
        for name, matrix in (("hamiltonian", device.hamiltonian), ("overlap", device.overlap)):
            file.create_dataset(name, data=matrix.values, **compression)


def read_hdf5(path: Path) -> list[np.ndarray]:
    """Read all arrays."""
    with h5py.File(path) as file:
        return [file[name][...] for name in (*ARRAYS, "hamiltonian", "overlap")]


def seconds(read: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    read()
    return time.perf_counter() - start


def speedup(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> float:
    """Median of their time over ours, measured in turn."""
    ours()
    return statistics.median(seconds(theirs) / seconds(ours) for _ in range(repeats))


def size(path: Path) -> int:
    """Bytes of a file or of a folder's files."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def require_same(device: vcmbench.Device, arrays: list[np.ndarray]) -> None:
    """Fail if HDF5 does not hold the device."""
    found = BlockMatrix(device.pattern, arrays[3])
    if not np.array_equal(found.values, device.hamiltonian.values):
        sys.exit("compare_storage: the HDF5 file does not hold the device's Hamiltonian")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="vcm-demo")
    parser.add_argument("device", nargs="?")
    arguments = parser.parse_args()
    release = vcmbench.load(arguments.dataset)
    name = arguments.device or next(iter(release.manifest.devices))
    device = release.device(name)
    with TemporaryDirectory() as scratch:
        store, text, raw, gzip = (
            Path(scratch) / file for file in ("d.zarr.zip", "text", "raw.h5", "gzip.h5")
        )
        write_device(store, device)
        write_text(text, device)
        write_hdf5(raw, device)
        write_hdf5(gzip, device, compression="gzip", compression_opts=4, shuffle=True)
        require_same(device, read_hdf5(gzip))
        entries = 2 * device.pattern.n_entries
        ours = size(store)
        result = {
            "device": f"{release.label}/{name}",
            "entries": entries,
            "bytes_per_entry": round(ours / entries, 3),
            "load_seconds": round(
                statistics.median(seconds(lambda: read_device(store)) for _ in range(REPEATS)), 3
            ),
            "load_speedup_vs_text_csr": speedup(
                lambda: read_device(store), lambda: read_text(text), TEXT_REPEATS
            ),
            "load_speedup_vs_hdf5": speedup(
                lambda: read_device(store), lambda: read_hdf5(raw), REPEATS
            ),
            "load_speedup_vs_hdf5_gzip": speedup(
                lambda: read_device(store), lambda: read_hdf5(gzip), REPEATS
            ),
            "size_ratio_vs_text_csr": size(text) / ours,
            "size_ratio_vs_hdf5": size(raw) / ours,
            "size_ratio_vs_hdf5_gzip": size(gzip) / ours,
        }
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main()
