"""Self-energies of a real lead by decimation and by its modes: time, accuracy, open channels.

    python benchmarks/compare_leads.py [DATASET [DEVICE]] [--energies 21]

For every wave vector that the device's first k-point folds and for energies within 1 eV of the
Fermi level both surfaces are solved in turn, in processor time. `sigma_difference` is the largest
entry of the difference over that of Sigma, median and largest over all (q, E), for decimations of
three broadenings: it falls with the broadening until the decimation loses digits. `t_difference`
compares T of the device. Prints one JSON line; fails if the open channels differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np

import vcmbench
from vcmbench.transport import Lead, TransmissionSolver
from vcmbench.transport.lead import ETA_EV, LeadSurfaces, surfaces
from vcmbench.transport.modes import mode_surfaces

BROADENINGS_EV = (ETA_EV, 1e-10, 1e-11)


def difference(found: LeadSurfaces, other: LeadSurfaces) -> float:
    """Largest relative difference of both self-energies."""
    return max(
        float(abs(a.sigma - b.sigma).max() / abs(b.sigma).max())
        for a, b in ((found.left, other.left), (found.right, other.right))
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="vcm-demo")
    parser.add_argument("device", nargs="?")
    parser.add_argument("--energies", type=int, default=21)
    arguments = parser.parse_args()
    release = vcmbench.load(arguments.dataset)
    device = release.device(arguments.device or next(iter(release.manifest.devices)))
    bulk = release.lead(device.lead)
    lead = Lead(bulk.hamiltonian, bulk.overlap)
    k, energies = device.transport.kpoints[0], np.linspace(-1, 1, arguments.energies)
    solvers = [
        TransmissionSolver(device.hamiltonian, device.overlap, lead, leads=method)
        for method in ("decimation", "modes")
    ]
    n_cells = solvers[0].contacts[0].repeats[0]
    layers = [lead.principal_layer(q, n_cells) for q in solvers[0].wave_vectors(k)]

    def timed(solve: Callable[..., LeadSurfaces], *place: object) -> tuple[float, LeadSurfaces]:
        start = time.process_time()
        found = solve(*place)
        return time.process_time() - start, found

    timed(mode_surfaces, layers[0], 0.005)
    seconds, excess = [], []
    differences: dict[float, list[float]] = {eta: [] for eta in BROADENINGS_EV}
    for energy in energies:
        for layer in layers:
            by_modes, found = timed(mode_surfaces, layer, energy)
            by_decimation, other = timed(surfaces, layer, energy)
            seconds.append((by_decimation, by_modes))
            excess.append(abs(found.channels - other.channels))
            for eta, values in differences.items():
                values.append(difference(found, surfaces(layer, energy, eta)))
    ratios = [decimation / modes for decimation, modes in seconds]
    t = np.array([[s.point(k, e)["transmission"] for s in solvers] for e in energies])
    t_difference = abs(t[:, 1] / t[:, 0] - 1)
    print(  # noqa: T201
        json.dumps(
            {
                "device": f"{release.label}/{device.id}",
                "surfaces": len(seconds),
                "cpu_seconds": dict(
                    zip(
                        ("decimation", "modes"),
                        np.median(seconds, axis=0).round(4).tolist(),
                        strict=True,
                    )
                ),
                "speedup": round(float(np.median(ratios)), 2),
                "speedup_in_total": round(float(np.divide(*np.sum(seconds, axis=0))), 2),
                "sigma_difference": {
                    f"{eta:g} eV": [float(f"{f(v):.1e}") for f in (np.median, np.max)]
                    for eta, v in differences.items()
                },
                "t_difference": [float(f"{f(t_difference):.1e}") for f in (np.median, np.max)],
                "largest_channel_difference": float(f"{max(excess):.1e}"),
            }
        )
    )
    if max(excess) > 1e-3:
        sys.exit("compare_leads: the open channels differ")


if __name__ == "__main__":
    main()
