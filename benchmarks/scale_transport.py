"""How the cost of T grows: a real device repeated along transport, and over its cross-section.

    python benchmarks/scale_transport.py [DATASET [DEVICE]] [--lengths 1 2 4] [--width 2]
        [--accelerator cpu|cuda]

Repeated along x, a device's layers only become more: the time of one (k, E) grows in proportion,
and a layer costs the same. Repeated over y and z it becomes as wide as the published devices:
s11-long of vcm-nano, 3 x 3, has 5,220 sites and 34,488 orbitals. Then T(K) of the wide device is
the sum of the T(k) that its K folds, each from the device itself; the two must agree to 1e-9.

Prints one JSON line. `cpu_seconds` is the processor time of one (k, E) given the leads' surfaces,
which other programs on the machine do not change; memory is the process's largest resident set.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

import vcmbench
from vcmbench.blocks import BlockMatrix
from vcmbench.machine import peak_memory_bytes
from vcmbench.structure import Region
from vcmbench.transport import Lead, TransmissionSolver

TOLERANCE = 1e-9
GIB = 2**30

T = TypeVar("T")


def seconds(
    work: Callable[[], T], clock: Callable[[], float] = time.process_time
) -> tuple[float, T]:
    """Time and result of one call."""
    start = clock()
    result = work()
    return clock() - start, result


def in_series(matrix: BlockMatrix, n: int) -> BlockMatrix:
    """Repeat a device along x; contacts inside become part of the device."""
    longer = matrix.repeated((n, 1, 1))
    structure = longer.pattern.structure
    region = structure.region.reshape(n, -1).copy()
    for end, inside in ((Region.LEFT_CONTACT, slice(1, None)), (Region.RIGHT_CONTACT, slice(-1))):
        region[inside][region[inside] == end] = Region.LEFT_BUFFER
    pattern = replace(longer.pattern, structure=replace(structure, region=region.ravel()))
    return BlockMatrix(pattern, longer.values)


def lengths(device: vcmbench.Device, lead: Lead, counts: list[int], cache: Path) -> list[dict]:
    """Cost of one (k, E) of devices in series."""
    k, rows = device.transport.kpoints[0], []
    for n in counts:
        matrices = [in_series(m, n) for m in (device.hamiltonian, device.overlap)]
        solver = TransmissionSolver(*matrices, lead, cache)
        point = partial(solver.point, k, 0.0)
        point()
        layers = solver.layers_at(k)
        rows.append(
            {
                "orbitals": layers.n_orbitals,
                "layers": layers.n_layers,
                "gflop": round(layers.flops_per_energy / 1e9, 2),
                "cpu_seconds": round(min(seconds(point)[0] for _ in range(3)), 3),
            }
        )
    return rows


def width(
    device: vcmbench.Device, lead: Lead, n: int, energy: float, cache: Path, accelerator: str
) -> dict[str, object]:
    """Cost of one (k, E) of a device n x n times as wide, and T against the sum that it folds."""
    narrow = TransmissionSolver(device.hamiltonian, device.overlap, lead, cache)
    wave_vector = n * device.transport.kpoints[0]
    inside = np.indices((1, n, n)).reshape(3, -1).T
    expected = sum(
        float(narrow.point((wave_vector + cell) / (1, n, n), energy)["transmission"])
        for cell in inside
    )
    n_orbitals, n_sites = device.pattern.n_orbitals * n * n, device.structure.n_sites * n * n
    del narrow
    matrices = [m.repeated((1, n, n)) for m in (device.hamiltonian, device.overlap)]
    solver = TransmissionSolver(*matrices, lead, cache, accelerator=accelerator)
    del matrices
    assembly, green = seconds(lambda: solver.device_at(wave_vector))
    solve, (wall, point) = seconds(
        lambda: seconds(lambda: solver.point(wave_vector, energy), time.perf_counter)
    )
    layers = green.layers
    return {
        "sites": n_sites,
        "orbitals": n_orbitals,
        "layers": layers.n_layers,
        "largest_front": layers.largest_front,
        "tflop": round(layers.flops_per_energy / 1e12, 3),
        "assembly_cpu_seconds": round(assembly, 1),
        "cpu_seconds": round(solve, 1),
        "wall_seconds": round(wall, 1),
        "peak_memory_gib": round(peak_memory_bytes() / GIB, 2),
        "transmission": float(point["transmission"]),
        "channels": float(point["channels"]),
        "meeting_error": float(point["meeting_error"]),
        "relative_difference_to_folded": abs(float(point["transmission"]) / expected - 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="vcm-demo")
    parser.add_argument("device", nargs="?")
    parser.add_argument("--lengths", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--width", type=int, default=2, help="0 for none")
    parser.add_argument("--energy", type=float, default=-0.5)
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu", help="of --width")
    parser.add_argument("--blas-threads", type=int, default=1)
    arguments = parser.parse_args()
    release = vcmbench.load(arguments.dataset)
    device = release.device(arguments.device or next(iter(release.manifest.devices)))
    bulk = release.lead(device.lead)
    lead = Lead(bulk.hamiltonian, bulk.overlap)
    result: dict[str, object] = {"device": f"{release.label}/{device.id}"}
    with threadpool_limits(arguments.blas_threads), tempfile.TemporaryDirectory() as folder:
        if arguments.lengths:
            rows = lengths(device, lead, arguments.lengths, Path(folder))
            result["in_series"] = rows
            per_layer = [row["cpu_seconds"] / row["layers"] for row in rows]
            result["time_per_layer_longest_over_shortest"] = round(per_layer[-1] / per_layer[0], 2)
        if arguments.width:
            wide = width(
                device,
                lead,
                arguments.width,
                arguments.energy,
                Path(folder),
                arguments.accelerator,
            )
            result["wide"] = wide
    print(json.dumps(result))  # noqa: T201
    if arguments.width and not wide["relative_difference_to_folded"] <= TOLERANCE:
        sys.exit("scale_transport: T of the wide device is not that of the device it repeats")


if __name__ == "__main__":
    main()
