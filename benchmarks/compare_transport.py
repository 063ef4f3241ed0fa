"""T of one real device at one k and energies: ours, ASE's and sisl's solver side by side.

    python benchmarks/compare_transport.py [DATASET [DEVICE]] [--energies 0.0 0.31]

All three get the same device between the same ideal leads, with the same broadening, and must give
the same T; leads are solved anew at every energy by each code's own method.

- ours: layers as thin as the couplings allow, lead unfolded from its 8-atom cell.
- ase: `ase.transport.TransportCalculator`, dense, principal layers of the device's cross-section.
- sisl: `sisl_toolbox.btd.DeviceGreen` on the exported device, its own partition, its own lead
  (`RecursiveSI`, unfolded by its own Bloch expansion).

ASE and sisl couple lead and device at E + i eta; ASE is given the coupling E S - H as one matrix
instead, sisl an eta small enough. Both are asked to converge their leads as far as ours.

Prints one JSON line. Speed-ups are medians over the energies of their time over ours, measured in
turn, with and without the leads. `zgemm_fraction` is the rate of a sweep over layers of 1,000
orbitals against that of zgemm on matrices of 1,000, in turn, on the same threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
import sisl
from ase.transport.calculators import TransportCalculator
from scipy.linalg import blas
from sisl_toolbox.btd import BlochElectrode, DeviceGreen

import vcmbench
from vcmbench.blocks import BlockMatrix
from vcmbench.exporters.sisl_export import to_sisl
from vcmbench.transport import Lead, TransmissionSolver
from vcmbench.transport.layers import cut_layers
from vcmbench.transport.lead import PrincipalLayer, surfaces
from vcmbench.transport.negf import Contact, Device

ETA_EV = 1e-11
"""Small enough that where it is added does not matter at 1e-9."""
TOLERANCE = 1e-9
WIDE = 1000
"""Orbitals of a layer of the sweep that is compared with zgemm."""


@dataclass
class Problem:
    """One device at one k, in the forms that the codes take."""

    device: vcmbench.Device
    lead: Lead

    def __post_init__(self) -> None:
        self.k = self.device.transport.kpoints[0]
        self.solver = TransmissionSolver(self.device.hamiltonian, self.device.overlap, self.lead)
        self.green = self.solver.device_at(self.k)
        self.ends = self.solver._left, self.solver._right
        upper = (m.toarray() for m in self.solver._ordered(self.k)[:2])
        self.h, self.s = (m + np.triu(m, 1).conj().T for m in upper)
        self.n = len(self.ends[0].orbitals)

    # --- ours ---------------------------------------------------------------------------------

    def our_leads(self, energy: float) -> list[Contact]:
        """Self-energies of both contacts."""
        layers = [
            self.lead.principal_layer(q, self.ends[0].n_cells_x)
            for q in self.solver.wave_vectors(self.k)
        ]
        found = [surfaces(layer, energy, ETA_EV) for layer in layers]
        return [
            self.ends[0].unfold(self.k, [f.left for f in found]),
            self.ends[1].unfold(self.k, [f.right for f in found]),
        ]

    def ours(self, energy: float, leads: list[Contact]) -> float:
        """T given the leads."""
        return float(self.green.transmission(energy, *leads)[0])

    # --- ASE ----------------------------------------------------------------------------------

    @cached_property
    def wide_layers(self) -> list[PrincipalLayer]:
        """Principal layers of the device's cross-section in the order of each contact."""
        cells = [
            self.lead.principal_layer(q, self.ends[0].n_cells_x)
            for q in self.solver.wave_vectors(self.k)
        ]
        return [
            PrincipalLayer(
                *(
                    end.unfold(
                        self.k, [Contact(c[part], np.zeros((len(c[part]), 0))) for c in cells]
                    ).sigma.copy()
                    for part in range(4)
                )
            )
            for end in self.ends
        ]

    def ase(self, energy: float) -> TransportCalculator:
        """ASE's calculator, nothing computed yet."""
        left, right = self.wide_layers
        n, n_device = self.n, len(self.h)
        leads, couplings = {}, {}
        for name, layer in (("1", left), ("2", right)):
            next_h, next_s = layer.h01.conj().T, layer.s01.conj().T
            leads[f"h{name}"] = np.block([[layer.h00, layer.h01], [next_h, layer.h00]])
            leads[f"s{name}"] = np.block([[layer.s00, layer.s01], [next_s, layer.s00]])
            couplings |= {f"{m}c{name}": np.zeros((n, n_device), complex) for m in "hs"}
        couplings["hc1"][:, :n] = left.h01 - energy * left.s01
        couplings["hc2"][:, -n:] = (right.h01 - energy * right.s01).conj().T
        calculator = TransportCalculator(
            h=self.h,
            s=self.s,
            energies=[energy],
            eta=1e-300,
            eta1=ETA_EV,
            eta2=ETA_EV,
            **leads,
            **couplings,
        )
        calculator.initialize()
        for self_energy in calculator.selfenergies:
            self_energy.conv = 1e-14
        return calculator

    # --- sisl ---------------------------------------------------------------------------------

    @cached_property
    def sisl(self) -> DeviceGreen:
        """Sisl's solver on the exported device."""
        device = [self._wrapped(m) for m in (self.device.hamiltonian, self.device.overlap)]
        n_x, *r = self.solver.contacts[0].repeats
        cell = to_sisl(self.lead.hamiltonian, self.lead.overlap).tile(n_x, 0)
        electrodes = []
        for name, contact in zip(("-A", "+A"), self.solver.contacts, strict=True):
            inside = contact.cell[:, 1:] % r
            place = (inside[:, 1] * r[0] + inside[:, 0]) * n_x + contact.cell[:, 0]
            order = np.argsort(place * self.lead.structure.n_sites + contact.lead_site)
            bulk = sisl.RecursiveSI(cell, name, eta=ETA_EV)
            electrodes.append((BlochElectrode(bulk, (1, *r), name=name), contact.site[order]))
        return DeviceGreen(to_sisl(*device), electrodes, eta=0.0)

    def _wrapped(self, matrix: BlockMatrix) -> BlockMatrix:
        """Move contact atoms into the image that the lead's cells 0 .. r - 1 fill."""
        image = np.zeros((self.device.structure.n_sites, 3), dtype=int)
        for contact in self.solver.contacts:
            image[contact.site, 1:] = contact.cell[:, 1:] // contact.repeats[1:]
        wrapped = matrix.reimaged(image)
        return wrapped.select(wrapped.pattern.shift[:, 0] == 0)


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """Wall time and result of one call."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(problem: Problem, energy: float) -> dict[str, float]:
    """Measure times and values at one energy."""
    k = problem.k.tolist()
    row: dict[str, object] = {}
    row["our_leads"], leads = seconds(lambda: problem.our_leads(energy))
    row["our_device"], row["ours"] = seconds(lambda: problem.ours(energy, leads))
    calculator = problem.ase(energy)
    row["ase_leads"], _ = seconds(lambda: [s.retarded(energy) for s in calculator.selfenergies])
    # ASE keeps the self-energies of the latest energy.
    row["ase_device"], found = seconds(lambda: calculator.get_transmission())
    row["ase"] = float(found[0])
    green = problem.sisl
    green.clear()
    row["sisl_all"], row["sisl"] = seconds(lambda: green.transmission(energy, "-A", "+A", k=k))
    green.clear()
    green._prepare_se(energy, k, np.complex128)
    row["sisl_device"], _ = seconds(lambda: green.transmission(energy, "-A", "+A", k=k))
    return {name: float(np.real(value)) for name, value in row.items()}


def zgemm_fraction() -> float:
    """Rate of a sweep over wide layers over that of zgemm, both with all threads."""
    rng = np.random.default_rng(0)
    n_layers = 8
    blocks = [rng.normal(size=(WIDE, WIDE)) * 1e-2 for _ in range(2 * n_layers)]
    grid = [[None] * n_layers for _ in range(n_layers)]
    for i in range(n_layers):
        grid[i][i] = blocks[i] + blocks[i].T + i % 2 * np.eye(WIDE)
        if i:
            grid[i - 1][i], grid[i][i - 1] = blocks[-i], blocks[-i].T
    h = scipy.sparse.csr_array(scipy.sparse.block_array(grid))
    s = scipy.sparse.csr_array(scipy.sparse.eye_array(n_layers * WIDE))
    layers = cut_layers(abs(h) + abs(s), WIDE, WIDE, WIDE)
    device = Device(h, s, layers)
    factor = np.asfortranarray(rng.normal(size=(WIDE, 20)) * 0.1 + 0j)
    contact = Contact(-0.5j * factor @ factor.conj().T, factor)
    a = np.asfortranarray(rng.normal(size=(WIDE, WIDE)) + 0j)

    def once() -> float:
        product, _ = seconds(lambda: blas.zgemm(1.0, a, a))
        sweep, _ = seconds(lambda: device.transmission(0.3, contact, contact))
        return layers.flops_per_energy / sweep / (8 * WIDE**3 / product)

    once()
    return statistics.median(once() for _ in range(3))


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="vcm-demo")
    parser.add_argument("device", nargs="?")
    parser.add_argument("--energies", nargs="+", type=float, default=[-0.4, 0.0, 0.31])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    release = vcmbench.load(arguments.dataset)
    name = arguments.device or next(iter(release.manifest.devices))
    device = release.device(name)
    bulk = release.lead(device.lead)
    problem = Problem(device, Lead(bulk.hamiltonian, bulk.overlap))
    measure(problem, arguments.energies[0])
    rows = [measure(problem, energy) for energy in arguments.energies]
    differences = [abs(row[c] / row["ours"] - 1) for row in rows for c in ("ase", "sisl")]
    worst = float(np.max(differences))  # NaN if one is.

    def ratio(theirs: tuple[str, ...], ours: tuple[str, ...]) -> float:
        return statistics.median(sum(r[t] for t in theirs) / sum(r[o] for o in ours) for r in rows)

    whole = ("our_leads", "our_device")
    print(  # noqa: T201
        json.dumps(
            {
                "device": f"{release.label}/{name}",
                "orbitals": len(problem.h),
                "transmission": [row["ours"] for row in rows],
                "speedup_vs_ase": round(ratio(("ase_leads", "ase_device"), whole), 1),
                "speedup_vs_sisl": round(ratio(("sisl_all",), whole), 1),
                "device_speedup_vs_ase": round(ratio(("ase_device",), ("our_device",)), 1),
                "device_speedup_vs_sisl": round(ratio(("sisl_device",), ("our_device",)), 1),
                "seconds_per_energy": round(
                    statistics.median(r["our_leads"] + r["our_device"] for r in rows), 3
                ),
                "zgemm_fraction": round(zgemm_fraction(), 2),
                "max_relative_difference": worst,
            }
        )
    )
    if not worst <= TOLERANCE:
        sys.exit(f"compare_transport: T differs by {worst:.1e} relative, expected {TOLERANCE:g}")


if __name__ == "__main__":
    main()
