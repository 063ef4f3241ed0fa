"""A throughput report as tables on the terminal."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vcmbench.scores.result import Unavailable
from vcmbench.throughput.document import (
    Devices,
    Energy,
    Failed,
    Ladder,
    Latency,
    Measured,
    Slope,
    Throughput,
)

WIDTH: Final = 110
"""Columns that the tables need."""


def print_throughput(report: Throughput, console: Console) -> None:
    """Print what computed, latency and offline throughput, the ladder, and what does not count."""
    dataset, devices = report.dataset, report.devices
    console.print(f"{dataset.name}@{dataset.version}, score spec {report.score_spec}")
    if isinstance(devices, Failed):
        console.print(f"devices: {devices.outcome}: {devices.error}", soft_wrap=True)
    else:
        console.print(_accelerator(devices), soft_wrap=True)
        _print_wide(console, _devices(devices))
    _print_wide(console, _ladder(report.ladder))
    for name, found in (("all", report.ladder.slope), ("large", report.ladder.slope_large)):
        console.print(f"time over sites, {name} sizes: {_slope(found)}", soft_wrap=True)
    for line in _remarks(report):
        console.print(line, soft_wrap=True)


def _print_wide(console: Console, table: Table) -> None:
    """Print a table that a narrow terminal or a log wraps rather than cuts off."""
    width = console.width
    console.width = max(width, WIDTH)
    try:
        console.print(table)
    finally:
        console.width = width


def _accelerator(found: Measured) -> str:
    accelerator = found.accelerator
    flags = ", ".join(f"{name}: {value}" for name, value in accelerator.flags.items())
    return f"{accelerator.name}, {accelerator.threads} threads" + (f"; {flags}" if flags else "")


def _devices(found: Devices) -> Table:
    table = _table(
        f"Latency of {found.device} ({found.n_sites} sites), and the test set back to back",
        "",
        "p50",
        "p90",
        "min",
        "cold",
        "n",
        "sites/s",
        "edges/s",
    )
    for name, latency in (
        ("within 8 Å", found.near),
        ("whole support", found.full),
        (f"offline, {len(found.offline_devices)} device(s)", found.offline),
    ):
        table.add_row(
            name,
            _seconds(latency.median_s),
            _seconds(latency.p90_s),
            _seconds(latency.fastest_s),
            _seconds(latency.cold_s),
            _repeats(latency),
            _count(latency.atoms_per_s),
            _count(latency.edges_per_s),
        )
    return table


def _ladder(ladder: Ladder) -> Table:
    measured = [r.result for r in ladder.rungs if isinstance(r.result, Measured)]
    has_energy = any(isinstance(found.energy, Energy) for found in measured)
    columns = ["sites", "edges", "median", "IQR", "min", "n", "sites/s", "edges/s", "memory"]
    table = _table(
        f"Ladder: {ladder.device} repeated in y and z, H within 8 Å"
        + ("; energy of the board" if has_energy else ""),
        *columns,
        *(["energy/site"] if has_energy else []),
        "counts",
    )
    for rung in ladder.rungs:
        found = rung.result
        if isinstance(found, Failed):
            table.add_row(f"{rung.n_sites:,}", "–", found.outcome)
            continue
        energy, latency = found.energy, found.near
        joules = (
            "–" if isinstance(energy, Unavailable) else f"{1e3 * energy.joules_per_atom:.3g} mJ"
        )
        table.add_row(
            f"{found.n_sites:,}",
            _count(found.n_edges),
            _seconds(latency.median_s),
            _seconds(latency.iqr_s),
            _seconds(latency.fastest_s),
            _repeats(latency),
            _count(latency.atoms_per_s),
            _count(latency.edges_per_s),
            _bytes(_peak(found)),
            *([joules] if has_energy else []),
            "yes" if found.counts else "no",
        )
    return table


def _remarks(report: Throughput) -> list[str]:
    """Why something has no figures or does not count."""
    found: list[str] = []
    results: list[tuple[str, Measured | Failed]] = [("devices", report.devices)]
    results += [(f"{r.n_sites:,} sites", r.result) for r in report.ladder.rungs]
    for name, result in results:
        if isinstance(result, Failed):
            found.append(f"{name}: {result.outcome}: {result.error}")
            continue
        gates, reasons = result.gates, []
        if not result.accelerator.used:
            reasons.append("the accelerator was not used")
        if not gates.accuracy:
            reasons.append(f"MAE {gates.mae_mev:.4g} meV, scored {gates.scored_mae_mev:.4g} meV")
        if not gates.equivariance:
            reasons.append(f"equivariance residual {gates.equivariance_residual:.2g}")
        if not gates.copies:
            reasons.append(f"copies differ by {gates.copies_residual}")
        if reasons:
            found.append(f"{name} does not count: {'; '.join(reasons)}")
    return found


def _slope(found: Slope | Unavailable) -> str:
    if isinstance(found, Unavailable):
        return found.reason
    error = "" if found.standard_error is None else f" ± {found.standard_error:.3f}"
    return f"slope {found.slope:.3f}{error}"


def _peak(found: Measured) -> int:
    peak = found.memory.allocator_peak_bytes
    return found.memory.host_peak_bytes if isinstance(peak, Unavailable) else peak


def _repeats(latency: Latency) -> str:
    """Count the timed predictions, marked where times were not stable before."""
    return str(latency.n_repeats) + ("" if latency.stable else "*")


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.caption = "* warm-up ended before the times were stable"
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _seconds(value: float) -> str:
    return (
        f"{value:.3g}\N{NO-BREAK SPACE}s"
        if value >= 1
        else f"{1e3 * value:.3g}\N{NO-BREAK SPACE}ms"
    )


def _count(value: float) -> str:
    """Three digits and a decimal prefix."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}\N{NO-BREAK SPACE}{prefix}"
    return f"{value:.3g}"


def _bytes(value: int) -> str:
    size, unit = (value / 2**30, "GiB") if value >= 2**30 else (value / 2**20, "MiB")
    return f"{size:.3g}\N{NO-BREAK SPACE}{unit}"
