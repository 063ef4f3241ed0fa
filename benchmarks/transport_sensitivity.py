"""How far errors of H move T(E): independent noise, real model errors, a shift of the oxide.

    python benchmarks/transport_sensitivity.py [DATASET] [--devices s06-v2 s10-thick]
                                               [--models slater-koster] [--stride 10]

H of each device is perturbed, T(E) is computed with the contacts of DFT, as in the headline score,
and compared with the stored reference on every `stride`-th energy. The MAE is the headline's, over
all entries closer than 8 Å, contacts included. Perturbations:

- `all 8 Å`, `on-site`, `off-site 8 Å`, `oxide 8 Å`, `8-12 Å`: Gaussian noise, Hermitian, of one
  mean size on these entries (`oxide`: blocks of two oxide sites).
- `relative`: Gaussian noise proportional to each entry.
- a model's name: H + a (H_model - H), its errors scaled down.
- `MODEL, random signs`: the same with a random sign at each entry. Every entry is as wrong as
  before, so that MAE and all of its breakdowns are equal; only what errors have in common is gone.
- `oxide levels`: the oxide's levels are shifted rigidly, by (mu_i + mu_j) / 2 times S.

Rows are appended to `docs/transport_sensitivity.csv` as they are finished, and not computed again;
the figure is drawn from all of them.
"""

from __future__ import annotations

import argparse
import csv
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import vcmbench
from vcmbench.blocks import BlockMatrix
from vcmbench.device import HEADLINE_CUTOFF_ANG, Device, contact_blocks
from vcmbench.resources import cache_folder
from vcmbench.scores.result import TransmissionErrors
from vcmbench.scores.transmission import Curve, compare
from vcmbench.structure import Region
from vcmbench.transmit import hamiltonian_of
from vcmbench.transport import Lead, transmission
from vcmbench.units import MEV_PER_EV

SEEDS = (0,)
NOISE_MEV = {
    "all 8 Å": (0.1, 1.0, 3.4, 10.0),
    "off-site 8 Å": (0.1, 1.0, 10.0),
    "on-site": (1.0, 10.0, 100.0),
    "oxide 8 Å": (1.0, 10.0, 30.0),
    "8-12 Å": (0.01, 0.1, 1.0),
}
"""Mean size of the noise on the entries that it is put on."""
RELATIVE = (1e-3, 1e-2, 1e-1)
SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)
SHIFTS_MEV = (-100.0, -10.0, 1.0, 10.0, 30.0, 100.0)

IDENTITY = ("device", "energies", "perturbation", "amplitude", "seed")
FIELDS = (
    *IDENTITY,
    "mae_8a_mev",
    "mae_12a_mev",
    "mae_onsite_mev",
    *TransmissionErrors.model_fields,
)
COLOURS = ("#0072b2", "#56b4e9", "#cc79a7", "#009e73", "#999999", "#f0e442", "#1a1a1a")
MODEL_COLOURS = ("#d55e00", "#e69f00", "#7a3b00", "#5e3c99")


class Case(NamedTuple):
    """One perturbation; `amplitude` is in meV for noise and shifts, a factor otherwise."""

    perturbation: str
    amplitude: float
    seed: int


def cases(models: list[str]) -> Iterator[Case]:
    """All perturbations of a device."""
    for model in models:
        for scale in SCALES:
            yield Case(model, scale, 0)
            yield Case(f"{model}, random signs", scale, 0)
    for kind, sizes in NOISE_MEV.items():
        for size in sizes:
            yield from (Case(kind, size, seed) for seed in SEEDS)
    for size in RELATIVE:
        yield from (Case("relative", size, seed) for seed in SEEDS)
    yield from (Case("oxide levels", shift, 0) for shift in SHIFTS_MEV)


class Perturbed:
    """Makes perturbed Hamiltonians of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._errors: dict[str, BlockMatrix] = {}

    def error(self, case: Case) -> BlockMatrix:
        """H of a case minus H of DFT, in eV."""
        h, pattern = self.device.hamiltonian, self.device.pattern
        rng = np.random.default_rng((zlib.crc32(case.perturbation.encode()), case.seed))
        near, onsite = pattern.distance < HEADLINE_CUTOFF_ANG, pattern.is_onsite
        oxide = pattern.structure.in_region(Region.OXIDE)
        inside = oxide[pattern.pair].all(axis=1)
        blocks = {
            "all 8 Å": near,
            "off-site 8 Å": near & ~onsite,
            "on-site": onsite,
            "oxide 8 Å": near & inside,
            "8-12 Å": ~near,
        }
        if case.perturbation == "oxide levels":
            mu = oxide[pattern.pair].mean(axis=1) * case.amplitude / MEV_PER_EV
            s = self.device.overlap
            return s.with_values(s.values * np.repeat(mu, np.diff(pattern.offset)))
        if case.perturbation in blocks or case.perturbation == "relative":
            noise = h.with_values(rng.normal(size=len(h.values))).symmetrise()[0]
            if case.perturbation == "relative":
                return h.with_values(noise.values * h.values * case.amplitude)
            chosen = noise.values * pattern.entry_mask(blocks[case.perturbation])
            size = np.abs(chosen[chosen != 0]).mean()
            return h.with_values(chosen * case.amplitude / MEV_PER_EV / size)
        model, _, signs = case.perturbation.partition(",")
        error = self._model_error(model)
        if signs:
            # Of a symmetrised normal number both directions of an entry have the same sign.
            sign = np.sign(h.with_values(rng.normal(size=len(h.values))).symmetrise()[0].values)
            error = h.with_values(error.values * sign)
        return error * case.amplitude

    def _model_error(self, model: str) -> BlockMatrix:
        if model not in self._errors:
            self._errors[model] = hamiltonian_of(self.device, model)[1] - self.device.hamiltonian
        return self._errors[model]


def mean_errors_mev(error: BlockMatrix) -> dict[str, float]:
    """Mean |dH| over directed entries: closer than 8 Å, of the whole support, on-site."""
    pattern = error.pattern
    size = np.abs(error.values) * MEV_PER_EV
    weight = np.repeat(pattern.weight, np.diff(pattern.offset))
    near = pattern.entry_mask(pattern.distance < HEADLINE_CUTOFF_ANG)
    return {
        "mae_8a_mev": float(np.average(size[near], weights=weight[near])),
        "mae_12a_mev": float(np.average(size, weights=weight)),
        "mae_onsite_mev": float(size[pattern.entry_mask(pattern.is_onsite)].mean()),
    }


def measure(device: Device, lead: Lead, error: BlockMatrix, stride: int) -> dict[str, float]:
    """Errors of H and of T."""
    stored = device.transport
    assert stored is not None
    contacts = contact_blocks(device.pattern)
    h = (device.hamiltonian + error).replaced(device.hamiltonian, contacts)
    energies = stored.energies_ev[::stride]
    found = transmission(
        h,
        device.overlap,
        lead,
        energies,
        stored.kpoints,
        stored.weights,
        cache=cache_folder() / "leads",
    )
    if not found.gates.passed:
        raise SystemExit(f"transport_sensitivity: {device.id}: a check failed: {found.gates}")
    errors = compare(Curve(energies, stored.mean[::stride]), Curve(energies, found.mean))
    return {**mean_errors_mev(error), **errors.model_dump()}


def read(path: Path) -> list[dict[str, str]]:
    """Rows finished so far."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, object]) -> None:
    """Add a row, and the header before the first."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Draw mean |dlog10 T| against the MAE, a panel per device."""
    devices = list(dict.fromkeys(row["device"] for row in rows))
    kinds = list(dict.fromkeys(row["perturbation"] for row in rows))
    noise = [*NOISE_MEV, "relative", "oxide levels"]
    models = [kind for kind in kinds if kind not in noise and "," not in kind]
    colours = dict(zip((*noise, *models), (*COLOURS, *MODEL_COLOURS), strict=False))
    figure = Figure(figsize=(4.2 * len(devices) + 2.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(devices), sharex=True, sharey=True, squeeze=False)[0]
    for panel, device in zip(axes, devices, strict=True):
        for kind in kinds:
            points = sorted(
                (float(row["mae_8a_mev"]), float(row["log10_mae"]))
                for row in rows
                if (row["device"], row["perturbation"]) == (device, kind)
                and float(row["mae_8a_mev"]) > 0
            )
            if not points:
                continue
            panel.loglog(
                *zip(*points, strict=True),
                color=colours[kind.partition(",")[0]],
                marker="o" if kind in noise else "s",
                markersize=4,
                markerfacecolor="none" if "," in kind else None,
                linewidth=2.0 if kind in models else 1.0,
                linestyle="--" if "," in kind else "-",
                label=kind,
            )
        panel.set_title(device, fontsize=10)
        panel.set_xlabel("MAE of H, 8 Å (meV)")
        panel.grid(True, which="major", alpha=0.3)
    axes[0].set_ylabel("mean |Δlog$_{10}$ T| (decades)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="vcm-nano")
    parser.add_argument("--devices", nargs="+", default=["s06-v2", "s10-thick", "s09-filament"])
    parser.add_argument("--models", nargs="*", default=["slater-koster", "species-mean"])
    parser.add_argument("--stride", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    release = vcmbench.load(arguments.dataset)
    table = arguments.output / "transport_sensitivity.csv"
    finished = {tuple(row[name] for name in IDENTITY) for row in read(table)}
    for name in arguments.devices:
        device = release.device(name)
        bulk = release.lead(device.lead)
        lead, perturbed = Lead(bulk.hamiltonian, bulk.overlap), Perturbed(device)
        n_energies = len(device.transport.energies_ev[:: arguments.stride])
        for case in cases(arguments.models):
            row = dict(zip(IDENTITY, (name, n_energies, *case), strict=True))
            identity = tuple(f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values())
            if identity in finished:
                continue
            row |= measure(device, lead, perturbed.error(case), arguments.stride)
            append(table, row)
            print(f"{name}: {case}: {row['log10_mae']:.3g} decades", flush=True)  # noqa: T201
    plot(read(table), arguments.output / "figures" / "transport_sensitivity.png")


if __name__ == "__main__":
    main()
