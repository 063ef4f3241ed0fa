"""T(k, E) of a device between two ideal leads, with the gates that every value must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from threadpoolctl import threadpool_limits

from vcmbench.blocks import BlockMatrix
from vcmbench.errors import bad_input
from vcmbench.machine import allowed_threads
from vcmbench.structure import FloatArray, IntArray, Region
from vcmbench.transport.arrays import HOST, Arrays, TorchArrays
from vcmbench.transport.bloch import upper_triangle
from vcmbench.transport.cache import Leads, SurfaceCache
from vcmbench.transport.contacts import BlochContact, match_contact
from vcmbench.transport.layers import Layers, cut_layers
from vcmbench.transport.lead import Lead
from vcmbench.transport.negf import Device

if TYPE_CHECKING:
    from distributed import Client

MEETING_TOLERANCE = 1e-9
"""Largest relative difference of T between two meeting windows."""

CHANNEL_TOLERANCE = 1e-6
"""By how much T may exceed the number of open channels: the broadening of the leads."""

GAMMA_TOLERANCE = 1e-11
"""Largest negative eigenvalue of a lead's Gamma, relative to Sigma: rounding."""


class Gates(NamedTuple):
    """Worst value of each check over all (k, E); T(k, E) is trusted where all pass.

    Attributes
    ----------
    lowest_transmission : float
        Smallest T, to be at least 0.
    channel_excess : float
        Largest T minus open channels, to be at most `CHANNEL_TOLERANCE`.
    meeting_error : float
        Largest relative difference of T between two meeting windows, to be at most
        `MEETING_TOLERANCE`.
    negative_gamma : float
        Most negative eigenvalue of a lead's Gamma over the largest entry of Sigma, to be at most
        `GAMMA_TOLERANCE`.
    """

    lowest_transmission: float
    channel_excess: float
    meeting_error: float
    negative_gamma: float

    @property
    def passed(self) -> bool:
        """Whether all checks hold (none does for NaN)."""
        return (
            self.lowest_transmission >= 0
            and self.channel_excess <= CHANNEL_TOLERANCE
            and self.meeting_error <= MEETING_TOLERANCE
            and self.negative_gamma <= GAMMA_TOLERANCE
        )


POINT = np.dtype(
    [(name, np.float64) for name in ("transmission", "channels", "meeting_error", "negative_gamma")]
)
"""Result at one (k, E): T per spin, open channels of the lead over the device's cross-section,
relative difference of T between two meeting windows, relative negative part of Gamma."""

Points = NDArray[np.void]


@dataclass(frozen=True, eq=False)
class Transmission:
    """T of a device on k-points and energies.

    Attributes
    ----------
    energies_ev : (n_energies,) float
        Energies relative to the Fermi level.
    kpoints, weights : (n_k, 3) and (n_k,) float
        Fractional wave vectors and their weights.
    points : (n_k, n_energies) of dtype `POINT`
        Results with their checks.
    mismatch_ang : float
        Largest distance of a contact atom from its ideal lead site.
    """

    energies_ev: FloatArray
    kpoints: FloatArray
    weights: FloatArray
    points: Points
    mismatch_ang: float

    @property
    def by_k(self) -> FloatArray:
        """(n_k, n_energies) T(k, E) per spin."""
        return self.points["transmission"]

    @property
    def mean(self) -> FloatArray:
        """(n_energies,) k-averaged T per spin."""
        return self.weights @ self.by_k

    def joined(self, other: Transmission) -> Transmission:
        """Put two sweeps of one device at different energies together, in order of energy."""
        energies = np.concatenate([self.energies_ev, other.energies_ev])
        order = np.argsort(energies)
        points = np.concatenate([self.points, other.points], axis=1)[:, order]
        return replace(self, energies_ev=energies[order], points=points)

    @property
    def gates(self) -> Gates:
        """Worst value of every check."""
        points = self.points
        return Gates(
            float(points["transmission"].min()),
            float((points["transmission"] - points["channels"]).max()),
            float(points["meeting_error"].max()),
            float(points["negative_gamma"].max()),
        )


class TransmissionSolver:
    """A device between two leads, ready to be solved at any k-point and energy.

    Blocks that cross the device's boundary along x are left out; the lead takes their place and
    acts on the device's own contact blocks.

    Parameters
    ----------
    hamiltonian, overlap : BlockMatrix
        H (eV, Fermi gauge) and S of the device, with contacts marked as regions.
    lead : Lead
        The lead of both contacts.
    cache : Path, optional
        Folder for lead surfaces.
    accelerator : str
        Where devices are solved: ``"cpu"`` by LAPACK, ``"cuda"`` by torch. Leads are solved on
        the CPU.
    leads : {"decimation", "modes"}
        How leads are solved; scores are defined with the first.

    Raises
    ------
    VcmbenchError
        If a contact is missing or does not match the lead, or the contacts touch.
    """

    def __init__(
        self,
        hamiltonian: BlockMatrix,
        overlap: BlockMatrix,
        lead: Lead,
        cache: Path | None = None,
        accelerator: str = "cpu",
        leads: Leads = "decimation",
    ) -> None:
        pattern, structure = hamiltonian.pattern, hamiltonian.pattern.structure
        pattern.require_same_sites(overlap.pattern)
        self._matrices = [m.select(m.pattern.shift[:, 0] == 0) for m in (hamiltonian, overlap)]
        self.contacts = [
            match_contact(structure, region, lead.structure)
            for region in (Region.LEFT_CONTACT, Region.RIGHT_CONTACT)
        ]
        if len({contact.repeats for contact in self.contacts}) > 1:
            raise bad_input(
                "structure",
                "contacts",
                found=" and ".join(f"{c.repeats[0]} lead cells thick" for c in self.contacts),
                expected="equal contacts",
            )
        self._left, self._right = (
            BlochContact(contact, pattern, lead.hamiltonian.pattern) for contact in self.contacts
        )
        self._order = _transport_order(hamiltonian, self._left.orbitals, self._right.orbitals)
        self.cache = SurfaceCache(lead, self._left.n_cells_x, cache, leads)
        self._device: tuple[bytes, Device] | None = None
        self._arrays: Arrays = HOST if accelerator == "cpu" else TorchArrays(accelerator)

    def __getstate__(self) -> dict[str, Any]:
        """Another process assembles the device itself."""
        return {**self.__dict__, "_device": None}

    @property
    def mismatch_ang(self) -> float:
        """Largest distance of a contact atom from its ideal lead site."""
        return float(max(contact.mismatch_ang.max() for contact in self.contacts))

    @property
    def n_entries(self) -> int:
        """Stored entries of H, and as many of S."""
        return max(matrix.pattern.n_entries for matrix in self._matrices)

    def wave_vectors(self, k: FloatArray) -> FloatArray:
        """(r_y r_z, 2) wave vectors of the lead's cell that the device's k (3,) holds."""
        return self._left.wave_vectors(k)

    def device_at(self, k: FloatArray) -> Device:
        """Assemble the device at k (3,), fractional; the last one is kept."""
        key = np.asarray(k, dtype=np.float64).tobytes()
        if self._device is None or self._device[0] != key:
            self._device = None  # Its matrices are freed before those of the next are made.
            self._device = key, self._assemble(k)
        return self._device[1]

    def layers_at(self, k: FloatArray) -> Layers:
        """Layers at k (3,), fractional, without the dense matrices of `device_at`."""
        return self._ordered(k)[2]

    def _assemble(self, k: FloatArray) -> Device:
        return Device(*self._ordered(k), arrays=self._arrays)

    def _ordered(
        self, k: FloatArray
    ) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, Layers]:
        """Upper triangles of H and S at k, orbitals in transport order, and their layers."""
        n_left, n_right = len(self._left.orbitals), len(self._right.orbitals)
        gauge = np.ones(len(self._order), dtype=np.complex128)
        gauge[:n_left] = self._left.wrap_phases(k)
        gauge[-n_right:] = self._right.wrap_phases(k)
        h, s = (upper_triangle(m, k, self._order, gauge) for m in self._matrices)
        couplings = h.astype(bool) + s.astype(bool)
        if couplings[:n_left, -n_right:].nnz:
            raise bad_input(
                "structure",
                "contacts",
                found="couplings between the left and the right contact",
                expected="a device longer than its contacts and the interaction range",
            )
        return h, s, cut_layers(couplings, n_left, n_right)

    def point(self, k: FloatArray, energy_ev: float) -> np.void:
        """Solve one (k, E): a record of dtype `POINT`.

        Where the device itself has a state at exactly this energy, uncoupled from both leads (as
        at E = 0 for an H of zeros), T is taken 1 neV higher.
        """
        device = self.device_at(k)
        surfaces = [self.cache.surfaces(q, energy_ev) for q in self.wave_vectors(k)]
        left = self._left.unfold(k, [surface.left for surface in surfaces])
        right = self._right.unfold(k, [surface.right for surface in surfaces])
        try:
            values = device.transmission(energy_ev, left, right)
        except LinAlgError:
            values = device.transmission(energy_ev + 1e-9, left, right)
        result = np.zeros(1, dtype=POINT)
        result[0] = (
            values[0],
            sum(surface.channels for surface in surfaces),
            np.ptp(values) / max(values.max(), np.finfo(float).tiny),
            max(surface.negative_gamma for surface in surfaces),
        )
        return result[0]


def transmission(
    hamiltonian: BlockMatrix,
    overlap: BlockMatrix,
    lead: Lead,
    energies_ev: FloatArray,
    kpoints: FloatArray,
    weights: FloatArray,
    *,
    cache: Path | None = None,
    known: Points | None = None,
    progress: Callable[[int, Points], None] | None = None,
    threads: int | None = None,
    accelerator: str = "cpu",
    client: Client | None = None,
    leads: Leads = "decimation",
) -> Transmission:
    """Transmission of a device on all k-points and energies.

    Parameters
    ----------
    hamiltonian, overlap : BlockMatrix
        H (eV, Fermi gauge) and S of the device, with contacts marked as regions.
    lead : Lead
        The lead of both contacts.
    energies_ev : (n_energies,) float
        Energies relative to the Fermi level.
    kpoints, weights : (n_k, 3) and (n_k,) float
        Fractional wave vectors (phase exp(2 pi i k.R)) and their weights.
    cache : Path, optional
        Folder for lead surfaces, which every device and model share.
    known : (n_k, n_energies) of dtype `POINT`, optional
        Earlier results to resume from; points with a NaN transmission are computed.
    progress : callable, optional
        Called after each point with the number of finished points and all points so far.
    threads : int, optional
        Points solved at a time; by default as many as BLAS would take threads, and two on an
        accelerator: the leads of one are made while the other is solved.
    accelerator : str
        ``"cpu"`` or ``"cuda"``, where devices are solved.
    client : distributed.Client, optional
        Points are solved by its workers, one thread each, instead of this process.
    leads : {"decimation", "modes"}
        How leads are solved; scores are defined with the first.

    Returns
    -------
    Transmission

    Raises
    ------
    VcmbenchError
        If a contact is missing or does not match the lead, or the contacts touch.
    """
    energies_ev, kpoints, weights = (
        np.asarray(a, dtype=np.float64) for a in (energies_ev, kpoints, weights)
    )
    solver = TransmissionSolver(hamiltonian, overlap, lead, cache, accelerator, leads)
    points = np.full((len(kpoints), len(energies_ev)), np.nan, dtype=POINT)
    if known is not None:
        points[...] = known
    threads = threads or (allowed_threads() if accelerator == "cpu" else 2)
    with _solving(solver, threads, client) as (pool, handle):
        for k, row in zip(kpoints, points, strict=True):
            if client is None:
                solver.device_at(k)
            missing = np.flatnonzero(np.isnan(row["transmission"]))
            pending = {
                pool.submit(TransmissionSolver.point, handle, k, float(energies_ev[i])): i
                for i in missing
            }
            try:
                for future in as_completed(pending):
                    row[pending[future]] = future.result()
                    if progress is not None:
                        progress(int(np.count_nonzero(~np.isnan(points["transmission"]))), points)
            finally:
                for future in pending:
                    future.cancel()
    return Transmission(energies_ev, kpoints, weights, points, solver.mismatch_ang)


@contextmanager
def _solving(
    solver: TransmissionSolver, threads: int, client: Client | None
) -> Iterator[tuple[Executor, Any]]:
    """Who solves points, and the solver as they know it."""
    if client is None:
        # Matrices of a layer are too small to share out: one core per point, none of them waiting.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            yield pool, solver
    else:
        with client.get_executor() as pool:  # type: ignore[no-untyped-call]
            yield pool, client.scatter(solver, broadcast=True, hash=False)  # type: ignore[no-untyped-call]


def _transport_order(matrix: BlockMatrix, left: IntArray, right: IntArray) -> IntArray:
    """Order orbitals: left contact, the sites between by x, right contact."""
    pattern = matrix.pattern
    x = np.repeat(pattern.structure.positions[:, 0], pattern.site_orbitals)
    between = np.setdiff1d(np.arange(pattern.n_orbitals), np.concatenate([left, right]))
    between = between[np.argsort(x[between], kind="stable")]
    return np.concatenate([left, between, right])
