"""T(E) and I(V) of devices with and without a filament, by DFT and by models.

    python benchmarks/plot_devices.py [DATASET] [--models slater-koster] [--step 0.01]

The DFT curves are those of the release. Models predict the pristine devices and the filament, with
the contacts of DFT; points of T(E) are kept under `results/` and not computed again. Writes
`docs/figures/transport_devices.png` and `docs/transport_devices.csv`: conductance and currents of
every device, and of every model where it was computed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import vcmbench
from vcmbench.device import Device
from vcmbench.scores.transmission import Curve
from vcmbench.transmit import Request, transmit
from vcmbench.transport.observables import conductance_g0, current_a

VOLTAGES_V = np.round(np.linspace(0.0, 1.0, 101), 2)
TABLE_V = (0.1, 0.5, 1.0)
COLOURS = {"pristine": "#0072b2", "vacancies": "#b0b0b0", "filament": "#d55e00"}
STYLES = ("--", ":", "-.")


def kind(device: Device, filament: str) -> str:
    """Name what a device shows."""
    if device.id == filament:
        return "filament"
    return "vacancies" if device.structure.n_ghosts else "pristine"


def figure(
    curves: dict[tuple[str, str], Curve], kinds: dict[str, str], models: list[str], path: Path
) -> None:
    """T(E) on the left, I(V) on the right; a colour per kind of device, a style per method."""
    drawing = Figure(figsize=(10.5, 4.4), layout="constrained")
    FigureCanvasAgg(drawing)
    left, right = drawing.subplots(1, 2)
    style = {"DFT": "-", **dict(zip(models, STYLES, strict=False))}
    order = ("vacancies", "pristine", "filament")
    labelled = set()
    for (name, method), curve in sorted(
        curves.items(), key=lambda item: order.index(kinds[item[0][0]])
    ):
        label = f"{kinds[name]}, {method}"
        options = {
            "color": COLOURS[kinds[name]],
            "linestyle": style[method],
            "linewidth": 0.8 if kinds[name] == "vacancies" else 1.4,
            "label": None if label in labelled else label,
        }
        labelled.add(label)
        left.semilogy(*curve, **options)
        right.semilogy(VOLTAGES_V[1:], current_a(*curve, VOLTAGES_V[1:]), **options)
    left.axvline(0.0, color="#999999", linewidth=0.8, linestyle=":")
    left.set(xlabel="E − E$_F$ (eV)", ylabel="T(E), k-averaged")
    right.set(xlabel="V (V)", ylabel="I (A)")
    for axes in (left, right):
        axes.margins(x=0)
        axes.grid(True, which="major", alpha=0.3)
    left.legend(frameon=False, fontsize=8)
    drawing.savefig(path, dpi=130)


def write_table(
    curves: dict[tuple[str, str], Curve], devices: list[Device], kinds: dict[str, str], path: Path
) -> None:
    """G and currents of each curve, and their ratio to the geometric mean of the pristine ones."""
    values = {
        key: [conductance_g0(*curve), *current_a(*curve, np.array(TABLE_V)).tolist()]
        for key, curve in curves.items()
    }
    names = ("G (2e2/h)", *(f"I at {voltage:g} V (A)" for voltage in TABLE_V))
    ghosts = {device.id: device.structure.n_ghosts for device in devices}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        ratios = (f"over pristine, {name.rpartition(' ')[0]}" for name in names)
        writer.writerow(("device", "kind", "vacancies", "method", *names, *ratios))
        for (name, method), row in values.items():
            off = [v for (other, m), v in values.items() if m == method and not ghosts[other]]
            ratio = np.array(row) / np.exp(np.log(off).mean(axis=0))
            numbers = (f"{value:.4g}" for value in (*row, *ratio))
            writer.writerow((name, kinds[name], ghosts[name], method, *numbers))


def main() -> None:
    """Collect the curves, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="vcm-nano")
    parser.add_argument("--filament", default="s09-filament")
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument(
        "--predicted", nargs="*", help="devices that models predict [pristine and filament]"
    )
    parser.add_argument("--step", type=float, default=0.01, help="of the models' T(E), eV")
    parser.add_argument("--sites", type=int, default=358, help="only devices of this size")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    release = vcmbench.load(arguments.dataset)
    devices = [release.device(name) for name in release.manifest.devices]
    devices = [device for device in devices if device.structure.n_sites == arguments.sites]
    kinds = {device.id: kind(device, arguments.filament) for device in devices}
    curves = {(d.id, "DFT"): Curve(d.transport.energies_ev, d.transport.mean) for d in devices}
    for model in arguments.models:
        for name in arguments.predicted or [n for n, k in kinds.items() if k != "vacancies"]:
            request = Request(name, arguments.dataset, model, step_ev=arguments.step)
            found = transmit(request).transmission
            curves[name, model] = Curve(found.energies_ev, found.mean)
            print(f"{name}: {model}", flush=True)  # noqa: T201
    write_table(curves, devices, kinds, arguments.output / "transport_devices.csv")
    path = arguments.output / "figures" / "transport_devices.png"
    figure(curves, kinds, arguments.models, path)


if __name__ == "__main__":
    main()
