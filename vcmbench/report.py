"""A result as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vcmbench.scores.result import (
    GroupErrors,
    HamiltonianSection,
    PhysicalitySection,
    Result,
    SpectrumSection,
    ThroughputSection,
    TransmissionErrors,
    TransmissionSection,
    Unavailable,
)

Row = tuple[str, str]


def print_result(result: Result, console: Console) -> None:
    """Print the headline figures, the breakdown of the error and the cost of each stage."""
    dataset = result.dataset
    console.print(
        f"{result.model.name} on {dataset.name}@{dataset.version} "
        f"({dataset.part}: {', '.join(dataset.devices)}), score spec {result.score_spec}",
        markup=False,
    )
    table = _table("Scores", "", "value")
    for title, rows in (
        ("Hamiltonian", _section(result.hamiltonian, _hamiltonian_rows)),
        ("Spectrum", _section(result.spectrum, _spectrum_rows)),
        ("Transmission", _section(result.transmission, _transmission_rows)),
        ("Physicality", _section(result.physicality, _physicality_rows)),
        ("Throughput", _section(result.throughput, _throughput_rows)),
    ):
        table.add_row(Text(title, style="bold"), "")
        for name, value in rows:
            table.add_row(f"  {name}", value)
        table.add_section()
    console.print(table)
    if not isinstance(result.hamiltonian, Unavailable):
        console.print(_breakdown(result.hamiltonian))
    console.print(_stages(result))


def _section(section: object, rows: object) -> Iterable[Row]:
    if isinstance(section, Unavailable):
        return [("not available", section.reason)]
    return rows(section)  # type: ignore[operator]


def _hamiltonian_rows(section: HamiltonianSection) -> Iterable[Row]:
    yield "MAE, entries below 8 Å", _mev(section.mae_mev)
    yield "MAE, full 12 Å support", _mev(section.mae_full_mev)
    yield "  after gauge shift", f"{_mev(section.gauge.mae_mev)} (μ* {section.gauge.shift_mev:.3g})"
    yield "99th percentile", _mev(section.p99_mev)
    largest = section.largest
    where = f"{largest.device} {largest.pair}, {largest.distance_ang:.2f} Å"
    yield "largest", f"{_mev(largest.error_mev)} ({where})"
    if section.skill is not None:
        yield "skill over slater-koster", f"{section.skill:.3f}"
    if section.support.missing_blocks or section.support.extra_blocks:
        yield (
            "blocks missing / extra",
            f"{section.support.missing_blocks} / {section.support.extra_blocks}",
        )


def _spectrum_rows(section: SpectrumSection) -> Iterable[Row]:
    low, high = section.window_ev
    yield f"eigenvalue MAE, {low:+g} … {high:+g} eV", _mev(section.mae_mev)
    yield "signed mean", _mev(section.mean_mev)
    yield "density-of-states distance", f"{section.dos_distance:.3f}"


def _transmission_rows(section: TransmissionSection) -> Iterable[Row]:
    mark = "" if section.energy_stride == 1 else f" (quick: 1 of {section.energy_stride} energies)"
    yield from _agreement_rows(section, "DFT contacts" + mark)
    if isinstance(section.all_predicted, Unavailable):
        yield "all predicted", section.all_predicted.reason
    else:
        yield "mean |Δlog10 T|, all predicted", _decades(section.all_predicted.log10_mae)
    for name, floor in section.noise_floor:
        if floor is not None:
            label = name.replace("cutoff_", "H cut at ").replace("_", " ")
            yield f"floor: {label}", f"{_decades(floor.mean)} (max {floor.max:.2g})"
    yield "gates", "passed" if section.gates.passed else "FAILED: see result.json"


def _agreement_rows(errors: TransmissionErrors, title: str) -> Iterable[Row]:
    yield f"mean |Δlog10 T|, {title}", _decades(errors.log10_mae)
    yield "signed mean", _decades(errors.log10_signed_mean)
    yield "95th percentile", _decades(errors.log10_p95)
    yield "∫|ΔT| / ∫T", f"{errors.integrated_difference:.3g}"
    yield "conductance", _decades(errors.conductance_log10_error)
    yield "I(V), 0.05 … 1 V", _decades(errors.current_log10_error)
    yield (
        "after the best shift along E",
        f"{_decades(errors.shifted_log10_mae)} ({errors.shift_ev:+.2g} eV)",
    )
    if errors.wasserstein_ev is not None:
        yield "Wasserstein distance", f"{errors.wasserstein_ev:.3g} eV"


def _physicality_rows(section: PhysicalitySection) -> Iterable[Row]:
    yield "Hermiticity residual", _mev(section.hermiticity.largest_mev)
    if isinstance(section.equivariance, Unavailable):
        yield "equivariance", section.equivariance.reason
    else:
        yield "equivariance residual (relative)", f"{section.equivariance.largest:.2g}"


def _throughput_rows(section: ThroughputSection) -> Iterable[Row]:
    yield "accelerator", f"{section.accelerator_name} ({section.threads} threads)"
    yield "atoms per second", f"{section.atoms_per_s:,.0f}"
    yield "directed edges per second", f"{section.edges_per_s:,.0f}"
    yield "median, 8 Å / 12 Å", f"{section.near.median_s:.3g} s / {section.full.median_s:.3g} s"
    yield "peak memory", _bytes(section.peak_memory_bytes)
    yield "counts", "yes" if section.counts else "no: a gate failed"


def _breakdown(section: HamiltonianSection) -> Table:
    table = _table("MAE by group, meV", "group", "8 Å", "12 Å", "entries")
    for groups in (section.by_site, section.by_ghost, section.by_pair):
        for name, error in groups.items():
            table.add_row(name, *_group(error))
        table.add_section()
    return table


def _group(error: GroupErrors) -> tuple[str, str, str]:
    near, full = (
        "–" if value is None else f"{value:.2f}" for value in (error.mae_mev, error.mae_full_mev)
    )
    return near, full, f"{error.n_entries_full:,}"


def _stages(result: Result) -> Table:
    table = _table("Stages", "stage", "time", "peak memory", "")
    for stage in result.environment.stages:
        cached = "cached" if stage.cached else ""
        table.add_row(stage.name, f"{stage.wall_s:.1f} s", _bytes(stage.peak_memory_bytes), cached)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _mev(value: float) -> str:
    return f"{value:.3f} meV" if abs(value) < 100 else f"{value:.1f} meV"


def _decades(value: float) -> str:
    return f"{value:.2g} decades"


def _bytes(value: int) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
