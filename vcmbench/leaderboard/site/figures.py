"""Figures of the tables: what each is called, where it stands in a record, how it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from vcmbench.leaderboard.record import Record
from vcmbench.scores.result import (
    Bounds,
    HamiltonianSection,
    SpectrumSection,
    TransmissionSection,
    Unavailable,
)


class Value(NamedTuple):
    """A figure and its interval, None where there is none."""

    number: float | None
    bounds: Bounds | None = None

    @property
    def text(self) -> str:
        """The figure to three digits, a dash where there is none."""
        return "–" if self.number is None else digits(self.number)

    @property
    def interval(self) -> str | None:
        """Both ends of the interval."""
        if self.bounds is None:
            return None
        return f"{digits(self.bounds.low)} to {digits(self.bounds.high)}"


class Figure(NamedTuple):
    """A column of the leaderboard, smaller being better.

    Attributes
    ----------
    key, label, unit, description : str
        Name, heading, unit, and what it is in a sentence.
    value : callable
        Takes it from a record.
    """

    key: str
    label: str
    unit: str
    description: str
    value: Callable[[Record], Value]


def digits(number: float) -> str:
    """Three significant digits, without an exponent where it can be read."""
    if number == 0:
        return "0"
    text = f"{number:.3g}"
    if "e" in text and 1e-4 <= abs(number) < 1e7:
        text = f"{float(text):,.0f}" if abs(number) >= 1 else f"{float(text):f}".rstrip("0")
    elif "e" not in text and abs(number) < 100:
        text = f"{number:#.3g}".rstrip(".")
    return text.replace("-", "−")


def hamiltonian(record: Record) -> HamiltonianSection:
    """Errors of H, which every record has."""
    section = record.result.hamiltonian
    assert not isinstance(section, Unavailable)
    return section


def spectrum(record: Record) -> SpectrumSection | None:
    """Errors of the spectrum, if there are any."""
    section = record.result.spectrum
    return None if isinstance(section, Unavailable) else section


def transmission(record: Record) -> TransmissionSection | None:
    """Agreement of T, if there is any."""
    section = record.result.transmission
    return None if isinstance(section, Unavailable) else section


def ranking(record: Record) -> float:
    """Return what the default order goes by: the hidden test where it is known, else the test."""
    return record.mae_mev if record.hidden is None else record.hidden.mae_mev


def _group(groups: str, name: str) -> Callable[[Record], Value]:
    def value(record: Record) -> Value:
        group = getattr(hamiltonian(record), groups).get(name)
        return Value(group.mae_mev if group else None)

    return value


def _of_transmission(name: str, bounds: str | None = None) -> Callable[[Record], Value]:
    def value(record: Record) -> Value:
        section = transmission(record)
        if section is None:
            return Value(None)
        return Value(getattr(section, name), getattr(section, bounds) if bounds else None)

    return value


def _all_predicted(record: Record) -> Value:
    section = transmission(record)
    if section is None or isinstance(section.all_predicted, Unavailable):
        return Value(None)
    return Value(section.all_predicted.log10_mae)


def _hidden(record: Record) -> Value:
    if record.hidden is None:
        return Value(None)
    return Value(record.hidden.mae_mev, record.hidden.mae_bounds_mev)


def _spectrum(record: Record) -> Value:
    section = spectrum(record)
    return Value(None) if section is None else Value(section.mae_mev, section.bounds_mev)


def of_part(part: str) -> tuple[Figure, Figure]:
    """Columns of a part out of distribution."""

    def mae(record: Record) -> Value:
        found = record.further.get(part)
        return Value(found.mae_mev, found.mae_bounds_mev) if found else Value(None)

    def log10_mae(record: Record) -> Value:
        found = record.further.get(part)
        return Value(found.log10_mae, found.log10_mae_bounds) if found else Value(None)

    return (
        Figure(
            f"{part}-mae",
            f"{part} MAE",
            "meV",
            f"Mean error of the entries of H closer than 8 Å on {part}.",
            mae,
        ),
        Figure(
            f"{part}-transmission",
            f"{part} |⁠Δlog T|",
            "decades",
            f"Mean error of log T(E) on {part}, contacts from DFT.",
            log10_mae,
        ),
    )


HIDDEN: Final = Figure(
    "hidden-mae",
    "Hidden test MAE",
    "meV",
    "Mean error of the entries of H closer than 8 Å on devices whose Hamiltonian is not public.",
    _hidden,
)
FIGURES: Final = (
    Figure(
        "mae",
        "Test MAE",
        "meV",
        "Mean error of the entries of H closer than 8 Å, with a 95 % interval over devices.",
        lambda r: Value(r.mae_mev, hamiltonian(r).mae_bounds_mev),
    ),
    Figure(
        "mae-full",
        "MAE, 12 Å",
        "meV",
        "Mean error of the entries of H over the whole support.",
        lambda r: Value(hamiltonian(r).mae_full_mev),
    ),
    Figure(
        "mae-onsite",
        "On‑site",
        "meV",
        "Mean error of the on-site blocks of H.",
        _group("by_site", "on-site"),
    ),
    Figure(
        "mae-oxide",
        "Oxide",
        "meV",
        "Mean error of the entries of H within the oxide, closer than 8 Å.",
        _group("by_region", "oxide"),
    ),
    Figure(
        "eigenvalues",
        "Eigenvalues",
        "meV",
        "Mean error of the eigenvalues within 2 eV of the Fermi level.",
        _spectrum,
    ),
    Figure(
        "transmission",
        "|⁠Δlog T|",
        "decades",
        "Mean error of log T(E), contacts from DFT, with a 95 % interval over devices.",
        _of_transmission("log10_mae", "log10_mae_bounds"),
    ),
    Figure(
        "transmission-p95",
        "|⁠Δlog T|, p95",
        "decades",
        "95th percentile over energies of the error of log T(E).",
        _of_transmission("log10_p95"),
    ),
    Figure(
        "transmission-all",
        "|⁠Δlog T|, all predicted",
        "decades",
        "Mean error of log T(E) with everything predicted but the lead.",
        _all_predicted,
    ),
    Figure(
        "conductance",
        "Conductance",
        "decades",
        "Error of the logarithm of the conductance at 300 K.",
        _of_transmission("conductance_log10_error"),
    ),
    Figure(
        "current",
        "I(V)",
        "decades",
        "Mean error of the logarithm of the current from 0.05 to 1 V.",
        _of_transmission("current_log10_error"),
    ),
)
