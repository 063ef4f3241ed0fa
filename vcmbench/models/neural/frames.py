"""Bond frames in torch: harmonics of directions, and the Wigner matrices that carry z onto a bond.

Harmonics are those of `vcmbench.harmonics`, entry by entry. The rotation onto a bond is a turn by θ
about y, then by φ about z. For each degree the first is a trigonometric polynomial in θ, whose
matrices are tabulated; the second mixes only m with −m. No angle is computed, and none of its
inverse functions: only cos and sin of multiples, which the poles leave well defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, pi, sqrt

import numpy as np
import torch
from torch import Tensor

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.harmonics import wigner_d


def real_harmonics(l_max: int, vectors: Tensor) -> Tensor:
    """Real spherical harmonics of all degrees up to `l_max`, scaled so that |Y_l|² = 2l + 1.

    Parameters
    ----------
    l_max : int
        Highest degree.
    vectors : (n, 3) float
        Directions, not zero.

    Returns
    -------
    (n, (l_max + 1)²) float
        √(4π) times those of `vcmbench.harmonics.real_harmonics`, degree after degree.
    """
    x, y, z = (vectors / vectors.norm(dim=1, keepdim=True)).unbind(1)
    columns: dict[tuple[int, int], Tensor] = {}
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    for m in range(l_max + 1):
        for l, polar in enumerate(_polar_parts(m, l_max, z), m):
            if m == 0:
                columns[l, 0] = polar
            else:
                columns[l, m] = sqrt(2) * polar * cosine
                columns[l, -m] = sqrt(2) * polar * sine
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return torch.stack([columns[l, m] for l in range(l_max + 1) for m in range(-l, l + 1)], 1)


def _polar_parts(m: int, l_max: int, z: Tensor) -> list[Tensor]:
    """√(4π) times the normalised P_l^m(z) / sin^m of degrees m … l_max, without (−1)^m."""
    values = [torch.full_like(z, factorial(2 * m) / 2**m / factorial(m))]
    for l in range(m + 1, l_max + 1):
        before = values[-2] if len(values) > 1 else torch.zeros_like(z)
        values.append(((2 * l - 1) * z * values[-1] - (l + m - 1) * before) / (l - m))
    norms = [sqrt((2 * l + 1) * factorial(l - m) / factorial(l + m)) for l in range(m, l_max + 1)]
    return [norm * value for norm, value in zip(norms, values, strict=True)]


class Turns:
    """Rotations of bonds, of all degrees, and larger matrices composed of them.

    Parameters
    ----------
    flat : (n, n_entries + 1) float
        Entries of the matrices of each degree, and a zero.
    """

    def __init__(self, flat: Tensor) -> None:
        self._flat = flat

    @classmethod
    def of(cls, by_degree: Sequence[Tensor]) -> Turns:
        """From the (n, 2l + 1, 2l + 1) matrices of each degree."""
        zero = by_degree[0].new_zeros(len(by_degree[0]), 1)
        return cls(torch.cat([*(matrix.flatten(1) for matrix in by_degree), zero], 1))

    def __getitem__(self, bonds: slice | Tensor) -> Turns:
        return Turns(self._flat[bonds])

    def compose(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, …) matrices of the entries at `places`, made by `turn_places`."""
        chosen = self._flat.to(dtype).index_select(1, places.flatten())
        return chosen.unflatten(1, places.shape)


def turn_places(l_max: int, entries: np.ndarray) -> Tensor:
    """Where the entries of a composed matrix stand among `Turns` up to a degree.

    Parameters
    ----------
    l_max : int
        Highest degree of the turns.
    entries : (n_rows, n_columns, 3) int
        Degree, row and column in that degree's matrix; a negative degree stands for zero.

    Returns
    -------
    (n_rows, n_columns) int
    """
    starts = np.cumsum([0] + [(2 * l + 1) ** 2 for l in range(l_max + 1)])
    l, row, column = np.moveaxis(entries, 2, 0)
    places = np.where(l < 0, starts[-1], starts[l] + row * (2 * l + 1) + column)
    return torch.from_numpy(places)


def site_places(basis: OrbitalBasis, species: Species, l_max: int) -> Tensor:
    """(n_orbitals, n_orbitals) entries of the rotation of a site's orbitals from the frame.

    Places among `Turns` up to `l_max`, as of `turn_places`.
    """
    slices = basis.shell_slices(species)
    size = slices[-1][1].stop
    entries = np.full((size, size, 3), -1)
    for l, orbitals in slices:
        rows, columns = np.indices((2 * l + 1, 2 * l + 1))
        entries[orbitals, orbitals] = np.stack([np.full_like(rows, l), rows, columns], 2)
    return turn_places(l_max, entries)


class WignerTables(torch.nn.Module):
    """Rotations of harmonics from the bond frame to the laboratory.

    Parameters
    ----------
    l_max : int
        Highest degree.
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        for l in range(l_max + 1):
            self.register_buffer(f"table{l}", torch.from_numpy(_table(l)), persistent=False)

    def forward(self, vectors: Tensor) -> Turns:
        """Matrices of each degree, to compose larger ones of."""
        return Turns.of(self.by_degree(vectors))

    def by_degree(self, vectors: Tensor) -> list[Tensor]:
        """Matrices of each degree.

        Parameters
        ----------
        vectors : (n, 3) float
            Bonds, not zero.

        Returns
        -------
        list of (n, 2l + 1, 2l + 1) float
            D with Y(bond) = D Y(z axis); its transpose goes to the bond's frame. Turning the
            frame about the bond multiplies D from the right; which one is used is arbitrary.
        """
        x, y, z = (vectors / vectors.norm(dim=1, keepdim=True)).unbind(1)
        rho = torch.sqrt(x * x + y * y)
        at_pole = rho == 0
        safe = torch.where(at_pole, torch.ones_like(rho), rho)
        cos_theta, sin_theta = _multiples(z, rho, self.l_max)
        cos_phi, sin_phi = _multiples(
            torch.where(at_pole, torch.ones_like(x), x / safe), y / safe, self.l_max
        )
        matrices = []
        for l in range(self.l_max + 1):
            terms = torch.stack([*cos_theta[: l + 1], *sin_theta[1 : l + 1]], 1)
            about_y = (terms @ getattr(self, f"table{l}").to(terms.dtype)).view(
                -1, 2 * l + 1, 2 * l + 1
            )
            # Rows m and −m of the turn about z: c_m ← cos mφ c_m − sin mφ s_m, s_m likewise.
            cosine = torch.stack([cos_phi[abs(m)] for m in range(-l, l + 1)], 1)
            sine = torch.stack([sin_phi[-m] if m < 0 else -sin_phi[m] for m in range(-l, l + 1)], 1)
            matrices.append(cosine[:, :, None] * about_y + sine[:, :, None] * about_y.flip(1))
        return matrices


def _multiples(cosine: Tensor, sine: Tensor, order: int) -> tuple[list[Tensor], list[Tensor]]:
    """Cos and sin of 0 … order times an angle."""
    cosines, sines = [torch.ones_like(cosine)], [torch.zeros_like(sine)]
    for _ in range(order):
        c, s = cosines[-1], sines[-1]
        cosines.append(c * cosine - s * sine)
        sines.append(s * cosine + c * sine)
    return cosines, sines


def _table(l: int) -> np.ndarray:
    """Coefficients of 1, cos θ … cos lθ, sin θ … sin lθ in D of a turn about y, a row each."""
    angles = 2 * pi * np.arange(2 * l + 1) / (2 * l + 1)
    order = np.arange(l + 1)
    terms = np.concatenate(
        [np.cos(np.outer(angles, order)), np.sin(np.outer(angles, order[1:]))], axis=1
    )
    rotations = np.zeros((len(angles), 3, 3))
    rotations[:, 1, 1] = 1
    rotations[:, 0, 0] = rotations[:, 2, 2] = np.cos(angles)
    rotations[:, 0, 2] = np.sin(angles)
    rotations[:, 2, 0] = -np.sin(angles)
    matrices = wigner_d(l, rotations).reshape(len(angles), -1)
    coefficients = np.linalg.solve(terms, matrices)
    coefficients[np.abs(coefficients) < 1e-13] = 0.0
    return coefficients
