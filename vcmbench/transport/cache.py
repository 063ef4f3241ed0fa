"""Lead surfaces kept on disk: one file per lead, wave vector and energy."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from vcmbench.structure import FloatArray
from vcmbench.transport.arrays import ComplexArray
from vcmbench.transport.lead import (
    ETA_EV,
    GAMMA_THRESHOLD,
    Lead,
    LeadSurfaces,
    PrincipalLayer,
    surfaces,
)
from vcmbench.transport.negf import Contact

_FORMAT = "surfaces-1"


class SurfaceCache:
    """Surfaces of one lead with principal layers of a given thickness.

    A principal layer of the bulk cell, not of the device's cross-section, is what is kept: the
    Hermitian half of Sigma and the factor of Gamma, about 1 MB per file for TiN. Files are
    written atomically; an unreadable one is computed again.

    Parameters
    ----------
    lead : Lead
        The lead.
    n_cells : int
        Cells along x per principal layer.
    folder : Path, optional
        Where files are kept; without it every surface is computed.
    """

    def __init__(self, lead: Lead, n_cells: int, folder: Path | None = None) -> None:
        self.lead = lead
        self.n_cells = n_cells
        settings = f"{_FORMAT} {lead.digest} {n_cells} {ETA_EV} {GAMMA_THRESHOLD}"
        name = hashlib.sha256(settings.encode()).hexdigest()[:16]
        self._folder = folder / name if folder is not None else None
        self._layers: dict[bytes, PrincipalLayer] = {}
        self.n_computed = 0

    def surfaces(self, q: FloatArray, energy_ev: float) -> LeadSurfaces:
        """Surfaces at the in-plane wave vector q (2,), fractional, and an energy."""
        key, path = self._place(q, energy_ev)
        if path is not None and (found := _read(path, key)) is not None:
            return found
        wave_vector = key[:2].tobytes()
        if wave_vector not in self._layers:
            self._layers[wave_vector] = self.lead.principal_layer(q, self.n_cells)
        made = surfaces(self._layers[wave_vector], energy_ev)
        self.n_computed += 1
        if path is not None:
            _write(path, key, made)
        return made

    def holds(self, q: FloatArray, energy_ev: float) -> bool:
        """Whether a surface is kept on disk."""
        _, path = self._place(q, energy_ev)
        return path is not None and path.exists()

    def _place(self, q: FloatArray, energy_ev: float) -> tuple[FloatArray, Path | None]:
        """Return what a surface depends on, rounded, and its file."""
        key = np.append(np.round(q % 1.0, 12) % 1.0, round(energy_ev, 12)) + 0.0
        if self._folder is None:
            return key, None
        return key, self._folder / f"{hashlib.sha256(key.tobytes()).hexdigest()[:24]}.npz"


def _write(path: Path, key: FloatArray, made: LeadSurfaces) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as handle:
        try:
            np.savez(
                handle,
                key=key,
                left=_pack(made.left.sigma),
                left_factor=made.left.factor,
                right=_pack(made.right.sigma),
                right_factor=made.right.factor,
                scalars=np.array([made.channels, made.negative_gamma]),
            )
            handle.close()
            Path(handle.name).replace(path)
        except BaseException:
            Path(handle.name).unlink(missing_ok=True)
            raise


def _read(path: Path, key: FloatArray) -> LeadSurfaces | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not np.array_equal(stored["key"], key):
                return None
            channels, negative_gamma = stored["scalars"]
            left = _unpack(stored["left"], stored["left_factor"])
            right = _unpack(stored["right"], stored["right_factor"])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    return LeadSurfaces(left, right, float(channels), float(negative_gamma))


def _pack(sigma: ComplexArray) -> ComplexArray:
    """Lower triangle of the Hermitian part."""
    return (0.5 * (sigma + sigma.conj().T))[np.tril_indices(len(sigma))]


def _unpack(packed: ComplexArray, factor: ComplexArray) -> Contact:
    """Inverse of `_pack`; the rest of sigma is -i/2 W W^dagger."""
    n = len(factor)
    lower = np.zeros((n, n), dtype=np.complex128)
    lower[np.tril_indices(n)] = packed
    hermitian = lower + np.tril(lower, -1).conj().T
    return Contact(hermitian - 0.5j * factor @ factor.conj().T, factor)
