"""The ladder as a plot: time and memory over the number of sites."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vcmbench.plots import COLOURS, REFERENCE, new_figure, save_figure
from vcmbench.scores.result import Unavailable
from vcmbench.throughput.document import Failed, Ladder, Measured


def plot_ladder(path: Path, title: str, ladder: Ladder) -> None:
    """Draw the median time of a prediction over the number of sites on log axes.

    Parameters
    ----------
    path : Path
        PNG file.
    title : str
        Name of the model.
    ladder : Ladder
        Its sizes. Those that ran out of memory are marked.
    """
    found = [(r.n_sites, r.result) for r in ladder.rungs if isinstance(r.result, Measured)]
    figure = new_figure(f"{title}: {_accelerator(ladder)}")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    if found:
        n_sites = np.array([n for n, _ in found], dtype=float)
        median = np.array([m.near.median_s for _, m in found])
        for index, (stage, times) in enumerate(_stages([m for _, m in found]).items()):
            axes.plot(
                n_sites,
                times,
                color=COLOURS[index % len(COLOURS)],
                linestyle=("--", ":")[index // len(COLOURS) % 2],
                linewidth=1.0,
                label=stage,
            )
        spread = np.array([m.near.iqr_s / 2 for _, m in found])
        axes.errorbar(
            n_sites,
            median,
            yerr=np.minimum(spread, 0.9 * median),
            color=REFERENCE,
            marker="o",
            capsize=3,
            linewidth=1.8,
            label=f"complete H within 8 Å{_slope(ladder)}",
        )
        axes.plot(
            n_sites,
            median[-1] * n_sites / n_sites[-1],
            color="#999999",
            linewidth=0.8,
            label="linear",
        )
    for rung in ladder.rungs:
        if isinstance(rung.result, Failed) and rung.result.outcome != "skipped":
            axes.axvline(rung.n_sites, color=COLOURS[1], linewidth=0.8, linestyle="-.")
            axes.annotate(
                rung.result.outcome,
                (rung.n_sites, 0.98),
                xycoords=("data", "axes fraction"),
                rotation=90,
                va="top",
                ha="right",
                fontsize=8,
            )
    axes.set_xlabel("sites")
    axes.set_ylabel("time (s)")
    axes.grid(True, which="major", alpha=0.3)
    if found:
        axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _stages(measured: list[Measured]) -> dict[str, list[float]]:
    """Time of each stage by size, for the stages that every size reports."""
    names = dict.fromkeys(name for m in measured for name in m.stages_s or {})
    return {
        name: [max((m.stages_s or {})[name], 1e-6) for m in measured]
        for name in names
        if all(name in (m.stages_s or {}) for m in measured)
    }


def _slope(ladder: Ladder) -> str:
    found = ladder.slope_large if not isinstance(ladder.slope_large, Unavailable) else ladder.slope
    if isinstance(found, Unavailable):
        return ""
    error = "" if found.standard_error is None else f" ± {found.standard_error:.2f}"
    return f", slope {found.slope:.2f}{error} from {found.sizes[0]:,} sites on"


def _accelerator(ladder: Ladder) -> str:
    for rung in ladder.rungs:
        if isinstance(rung.result, Measured):
            return rung.result.accelerator.name
    return "nothing measured"
