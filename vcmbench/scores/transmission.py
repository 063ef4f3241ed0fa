"""Agreement of T(E): pure functions of the reference and of the predicted transmission.

T is averaged over k before its logarithm is taken. Whatever is compared on a logarithmic scale gets
ε = 1e-10 added (in units of G0 for conductances), below which no device is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.scores.result import (
    Bounds,
    DeviceTransmission,
    Floor,
    NoiseFloor,
    TransmissionErrors,
    TransmissionGates,
    TransmissionSection,
    Unavailable,
)
from vcmbench.scores.statistics import bootstrap
from vcmbench.structure import FloatArray
from vcmbench.transport import Gates
from vcmbench.transport.observables import (
    EPSILON,
    conductance_g0,
    cumulated,
    current_a,
    log10_difference,
)
from vcmbench.units import CONDUCTANCE_QUANTUM_S

VOLTAGES_V: Final = np.round(np.arange(1, 21) * 0.05, 2)
"""Voltages of the I(V) curve."""

SHIFT_RANGE_EV: Final = 0.3
"""Largest shift along E that is tried."""


class Curve(NamedTuple):
    """k-averaged transmission on an energy grid.

    Attributes
    ----------
    energies_ev : (n_energies,) float
        Energies relative to the Fermi level, ascending.
    transmission : (n_energies,) float
        T per spin, averaged over k.
    """

    energies_ev: FloatArray
    transmission: FloatArray

    @classmethod
    def averaged(cls, energies_ev: FloatArray, weights: FloatArray, by_k: FloatArray) -> Curve:
        """Average T(k, E).

        Parameters
        ----------
        energies_ev : (n_energies,) float
            Energies relative to the Fermi level.
        weights : (n_k,) float
            Weights of the k-points, summing to one.
        by_k : (n_k, n_energies) float
            T(k, E).
        """
        energies, weight, values = (
            np.asarray(a, dtype=np.float64) for a in (energies_ev, weights, by_k)
        )
        if values.shape != (len(weight), len(energies)):
            raise bad_input(
                "transmission",
                "T(k, E)",
                found=f"shape {values.shape}",
                expected=(len(weight), len(energies)),
            )
        if not np.isfinite(values).all():
            raise bad_input("transmission", "T(k, E)", found="NaN or infinity", expected="numbers")
        # A T that is negative by rounding has no logarithm; the gates report how negative it is.
        return cls(energies, np.maximum(weight @ values, 0.0))


def compare(reference: Curve, predicted: Curve) -> TransmissionErrors:
    """Errors of a predicted transmission.

    Parameters
    ----------
    reference, predicted : Curve
        On the same energies, at least two.

    Returns
    -------
    TransmissionErrors
    """
    energies = reference.energies_ev
    if len(energies) < 2 or not np.array_equal(energies, predicted.energies_ev):
        raise VcmbenchError(
            f"transmission: found {len(predicted.energies_ev)} predicted and {len(energies)} "
            "reference energies, expected at least two, the same for both"
        )
    difference = log10_difference(reference.transmission, predicted.transmission)
    total = trapezoid(reference.transmission, energies)
    smallest = EPSILON * (energies[-1] - energies[0])
    shift_ev, shifted_log10_mae = best_shift(reference, predicted)
    moved = trapezoid(np.abs(predicted.transmission - reference.transmission), energies)
    return TransmissionErrors(
        log10_mae=float(np.abs(difference).mean()),
        log10_signed_mean=float(difference.mean()),
        log10_p95=float(np.percentile(np.abs(difference), 95)),
        integrated_difference=float(moved / max(total, smallest)),
        conductance_log10_error=float(
            abs(_log10_ratio(conductance_g0(*reference), conductance_g0(*predicted)))
        ),
        current_log10_error=float(
            np.abs(_log10_ratio(_conductances(reference), _conductances(predicted))).mean()
        ),
        wasserstein_ev=wasserstein_ev(reference, predicted),
        shift_ev=shift_ev,
        shifted_log10_mae=shifted_log10_mae,
    )


def best_shift(reference: Curve, predicted: Curve) -> tuple[float, float]:
    """Find the shift along E that brings the predicted T(E) closest to the reference.

    A level that is predicted too high by 50 meV moves its resonance by as much: a large error at
    each energy, a small one after the shift.

    Parameters
    ----------
    reference, predicted : Curve
        On the same energies.

    Returns
    -------
    shift_ev : float
        Moves the prediction, in whole steps of the energy grid; the smallest of equally good ones.
    log10_mae : float
        Mean |Δlog10(T + ε)| over the energies that both then have, decades.
    """
    energies = reference.energies_ev
    steps = int(SHIFT_RANGE_EV / np.diff(energies).max() + 1e-9)
    n = len(energies)
    shifts = sorted(range(-min(steps, n - 1), min(steps, n - 1) + 1), key=abs)
    found = []
    for shift in shifts:
        theirs = predicted.transmission[max(0, -shift) : n - max(0, shift)]
        ours = reference.transmission[max(0, shift) : n - max(0, -shift)]
        found.append(float(np.abs(log10_difference(ours, theirs)).mean()))
    best = int(np.argmin(found))
    return shifts[best] * float(energies[1] - energies[0]), found[best]


def _conductances(curve: Curve) -> FloatArray:
    """(n_voltages,) I/V in units of G0."""
    return current_a(*curve, VOLTAGES_V) / (CONDUCTANCE_QUANTUM_S * VOLTAGES_V)


def _log10_ratio(reference: FloatArray | float, predicted: FloatArray | float) -> FloatArray:
    """Difference in decades of conductances in units of G0."""
    return log10_difference(np.asarray(reference), np.asarray(predicted))


def wasserstein_ev(reference: Curve, predicted: Curve) -> float | None:
    """Distance of the normalised cumulative transmissions, ∫|C' − C| dE in eV.

    It is how far in energy transmission has to be moved, on average, to turn one curve into the
    other; None where one of them is zero.
    """
    curves = (reference, predicted)
    if any(trapezoid(c.transmission, c.energies_ev) <= 0 for c in curves):
        return None
    ours, theirs = (cumulated(*c) for c in curves)
    return float(trapezoid(np.abs(theirs - ours), reference.energies_ev))


def floor(difference: FloatArray) -> Floor:
    """Statistics of differences of log10(T + ε), (n_energies,)."""
    size = np.abs(difference)
    return Floor(
        mean=float(size.mean()),
        p95=float(np.percentile(size, 95)),
        max=float(size.max()),
        energies=size.size,
    )


def energy_grid_floor(reference: Curve) -> Floor:
    """Tell what half the energies would lose: the reference against its own interpolation.

    Every second energy is kept, log10(T + ε) is interpolated linearly between them, and compared
    at the energies that were left out.
    """
    logarithm = np.log10(reference.transmission + EPSILON)
    energies = reference.energies_ev
    between = np.interp(energies[1:-1:2], energies[::2], logarithm[::2])
    return floor(between - logarithm[1:-1:2])


def solver_floor(weights: FloatArray, by_k: FloatArray, meeting_error: FloatArray) -> Floor:
    """Tell what the solver itself leaves open: T evaluated at two layers.

    Parameters
    ----------
    weights : (n_k,) float
        Weights of the k-points.
    by_k : (n_k, n_energies) float
        T(k, E).
    meeting_error : (n_k, n_energies) float
        Relative difference of T(k, E) between two layers.
    """
    mean = np.maximum(weights @ by_k, 0.0)
    return floor(log10_difference(mean, mean + weights @ (np.abs(by_k) * meeting_error)))


def noise_floor(
    reference: Curve,
    stored: Mapping[str, Mapping[str, float]],
    *,
    solver: Floor | None = None,
) -> NoiseFloor:
    """Collect the floors of one device.

    Parameters
    ----------
    reference : Curve
        Reference on the energies of the score.
    stored : mapping of str to mapping
        Floors that were computed from the raw run (`TransportReference.floors`).
    solver : Floor, optional
        From `solver_floor`, of a transmission that was solved here.

    Returns
    -------
    NoiseFloor
        With null for floors that are not known.
    """
    known = {name: Floor.model_validate(dict(values)) for name, values in stored.items()}
    grid = energy_grid_floor(reference) if len(reference.energies_ev) > 2 else None
    found = {**known, "energy_grid": grid, "solver": solver or known.get("solver")}
    return NoiseFloor(**{name: found.get(name) for name in NoiseFloor.model_fields})


def gates(checks: Gates) -> TransmissionGates:
    """Return the solver's checks as they are reported."""
    return TransmissionGates(**checks._asdict(), passed=checks.passed)


def score_devices(
    devices: Mapping[str, DeviceTransmission | Unavailable], *, energy_stride: int = 1
) -> TransmissionSection | Unavailable:
    """Average over devices.

    Parameters
    ----------
    devices : mapping of str to DeviceTransmission or Unavailable
        Scores by device id; bulk cells have none.
    energy_stride : int
        Every how many energies of the release were evaluated.

    Returns
    -------
    TransmissionSection or Unavailable
        Unavailable where no device has a score.
    """
    scored = [score for score in devices.values() if isinstance(score, DeviceTransmission)]
    if not scored:
        reasons = {d.reason for d in devices.values() if isinstance(d, Unavailable)}
        return Unavailable(reason="; ".join(sorted(reasons)) or "no devices")
    interval = bootstrap([score.log10_mae for score in scored])
    return TransmissionSection(
        **_mean_errors(scored).model_dump(),
        all_predicted=_mean_all_predicted([score.all_predicted for score in scored]),
        noise_floor=_mean_floors([score.noise_floor for score in scored]),
        gates=_worst_gates([score.gates for score in scored]),
        log10_mae_bounds=None if interval is None else Bounds(low=interval.low, high=interval.high),
        energy_stride=energy_stride,
        devices=dict(devices),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that there are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_errors(scores: Sequence[TransmissionErrors]) -> TransmissionErrors:
    names = TransmissionErrors.model_fields
    return TransmissionErrors.model_validate(
        {name: _mean(getattr(score, name) for score in scores) for name in names}
    )


def _mean_all_predicted(
    scores: Sequence[TransmissionErrors | Unavailable],
) -> TransmissionErrors | Unavailable:
    missing = [score for score in scores if isinstance(score, Unavailable)]
    if missing:
        return missing[0]
    return _mean_errors([score for score in scores if isinstance(score, TransmissionErrors)])


def _mean_floors(floors: Sequence[NoiseFloor]) -> NoiseFloor:
    def mean(name: str) -> Floor | None:
        known = [f for f in (getattr(one, name) for one in floors) if f is not None]
        if not known:
            return None
        return Floor(
            mean=float(np.mean([f.mean for f in known])),
            p95=float(np.mean([f.p95 for f in known])),
            max=max(f.max for f in known),
            energies=min(f.energies for f in known),
        )

    return NoiseFloor(**{name: mean(name) for name in NoiseFloor.model_fields})


def _worst_gates(checks: Sequence[TransmissionGates]) -> TransmissionGates:
    return TransmissionGates(
        lowest_transmission=min(c.lowest_transmission for c in checks),
        channel_excess=max(c.channel_excess for c in checks),
        meeting_error=max(c.meeting_error for c in checks),
        negative_gamma=max(c.negative_gamma for c in checks),
        passed=all(c.passed for c in checks),
    )
