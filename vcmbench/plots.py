"""Plots of a result: transmission and error against distance, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vcmbench.store.content import atomic_file
from vcmbench.structure import FloatArray

Curve = tuple[FloatArray, FloatArray]
"""Energies relative to the Fermi level (eV) and k-averaged T."""

REFERENCE = "#1a1a1a"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe–Ito colours: told apart by colour-blind readers."""


def plot_transmission(
    path: Path, title: str, reference: Curve | None, predictions: Mapping[str, Curve]
) -> None:
    """Draw T(E) of the reference and of predictions on a log axis.

    Parameters
    ----------
    path : Path
        PNG file.
    title : str
        Title of the plot.
    reference : Curve or None
        k-averaged DFT transmission.
    predictions : mapping of str to Curve
        k-averaged transmission by label.
    """
    figure = _figure(title)
    axes = figure.add_subplot()
    if reference is not None:
        axes.semilogy(*reference, color=REFERENCE, linewidth=1.8, label="DFT")
    for (label, curve), colour in zip(predictions.items(), COLOURS, strict=False):
        axes.semilogy(*curve, color=colour, linewidth=1.2, label=label)
    axes.axvline(0.0, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("E − E$_F$ (eV)")
    axes.set_ylabel("T(E), k-averaged")
    axes.margins(x=0)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def plot_error_by_distance(
    path: Path, title: str, shells: Sequence[tuple[float, float, float | None]]
) -> None:
    """Draw the MAE of each distance shell on a log axis.

    Parameters
    ----------
    path : Path
        PNG file.
    title : str
        Title of the plot.
    shells : sequence of (low, high, mae)
        Boundaries in Å and MAE in meV, None where the shell holds no block.
    """
    figure = _figure(title)
    axes = figure.add_subplot()
    known = [(low, max(high - low, 0.5), mae) for low, high, mae in shells if mae]
    lows, widths, values = zip(*known, strict=True) if known else ((), (), ())
    axes.bar(lows, values, width=widths, align="edge", color=COLOURS[0], edgecolor="white")
    axes.set_yscale("log")
    axes.set_xlabel("distance between sites (Å); the first bar is on-site")
    axes.set_ylabel("MAE of H entries (meV)")
    axes.grid(True, axis="y", which="major", alpha=0.3)
    _save(figure, path)


def _figure(title: str) -> Figure:
    matplotlib.rcParams["font.size"] = 10
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
