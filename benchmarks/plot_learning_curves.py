"""Draw the learning curves of the trained baselines: docs/figures/learning-curves.png.

    python benchmarks/plot_learning_curves.py

From the log beside each baseline's weights. The dashed line is Slater–Koster's error on the
validation device, which every curve starts from.
"""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

import vcmbench
from vcmbench.models import load_model
from vcmbench.scores.throughput import near_mae_mev

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "docs" / "figures" / "learning-curves.png"


def base_mev() -> float:
    """MAE of Slater–Koster on the validation device, meV."""
    release = vcmbench.load("vcm-nano")
    (device_id,) = release.split("device").part("validation")
    device = release.device(device_id)
    return near_mae_mev(device.hamiltonian, load_model("slater-koster").predict(device))


def main() -> None:
    """Read the logs and draw."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for index, path in enumerate(sorted(ROOT.glob("baselines/*/training.csv"))):
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        checked = [row for row in rows if row["validation_mev"]]
        color = f"C{index}"
        axes.plot(
            [int(r["epoch"]) for r in rows],
            [float(r["train_mev"]) for r in rows],
            color=color,
            linestyle=":",
        )
        axes.plot(
            [int(r["epoch"]) for r in checked],
            [float(r["validation_mev"]) for r in checked],
            color=color,
            label=path.parent.name,
        )
    axes.axhline(base_mev(), color="black", linestyle="--", linewidth=1, label="slater-koster")
    axes.set(xlabel="epoch", ylabel="MAE below 8 Å (meV)", yscale="log")
    axes.set_title("validation (lines) and training (dots)", fontsize=10)
    axes.legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=130)


if __name__ == "__main__":
    main()
