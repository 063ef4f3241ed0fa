"""Quality of a built device: density, coordination, shortest distances, RDF, and what is rejected.

The geometry is judged with every oxygen site in place, ghosts included, because vacancies are
taken out of a finished structure; numbers of the occupied sites stand beside it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from vcmbench.basis import Species, pair_label
from vcmbench.build.metal import HF, PLANE_ANG, TI, TI_SPACING_ANG, N, O
from vcmbench.build.neighbours import Pairs, neighbours
from vcmbench.build.order import order_correlation
from vcmbench.build.spec import HFO2_MASS_U
from vcmbench.build.vacancies import bridges, oxide_bounds
from vcmbench.errors import VcmbenchError
from vcmbench.structure import FloatArray, IntArray, Region, Structure
from vcmbench.units import U_PER_ANG3_IN_G_PER_CM3

BOND_ANG: Final = 2.7
"""Hf–O pairs closer than this are bonds: the minimum after the first peak of the RDF."""

RDF_RANGE_ANG: Final = 6.0
RDF_BIN_ANG: Final = 0.1

CORE_MARGIN_ANG: Final = 4.0
"""Oxide farther than this from both electrodes counts as its core."""

SHORTEST_ANG: Final = {
    (HF, O): 1.70,
    (O, O): 2.00,
    (HF, HF): 2.80,
    (O, TI): 1.75,
    (TI, HF): 2.40,
    (N, O): 2.20,
    (N, HF): 1.95,
    (N, TI): 1.75,
    (TI, TI): 2.40,
    (N, N): 2.50,
}
"""Shortest distance accepted between two species, Å: about 15 % below crystalline contacts."""

COORDINATION_RANGE: Final = (5.3, 7.3)
"""Accepted mean Hf–O coordination: diffraction on a-HfO2 gives about 7 (Gallington et al.,
Materials 10, 1290 (2017)), thin oxides between electrodes less."""

MAX_ORDER: Final = 0.45
"""Largest accepted order of the Hf sublattice (`order_correlation`): quenched melts are at 0.2–0.4
(faces order what is beside them), thick wide oxides at 0.27, crystallised cells at 0.6–0.9."""

DENSITY_RANGE_G_CM3: Final = (8.5, 11.0)
"""Accepted oxide density: films of 8.5–9.5, monoclinic 10.1, some room for small cells."""


class RadialDistribution(BaseModel):
    """g(r) of pairs of oxide ions, normalised to a uniform slab of the oxide's thickness."""

    model_config = ConfigDict(extra="forbid")

    r_ang: list[float]
    """Centres of the bins."""
    g: dict[str, list[float]]
    """g(r) by pair: Hf-O, O-O, Hf-Hf."""


class Quality(BaseModel):
    """What is measured of a structure."""

    model_config = ConfigDict(extra="forbid")

    n_sites: int
    n_vacancies: int
    composition: dict[str, int]
    """Sites by species; ``O*`` are vacancies."""
    regions: dict[str, int]
    cell_ang: list[float]
    oxide_thickness_ang: float
    """Between the planes midway from the metal atoms to the oxide's nominal faces."""
    oxide_density_g_cm3: float
    core_density_g_cm3: float | None
    """Density away from the interfaces, None where the oxide is too thin to have a core."""
    hf_o_coordination: float
    hf_o_coordination_counts: dict[int, int]
    """Number of Hf by number of O within 2.7 Å."""
    hf_o_coordination_occupied: float
    """The same mean without vacancies' sites."""
    hf_o_bond_ang: float
    hf_order: float
    """Correlation of neighbouring Hf's surroundings: 0.2–0.4 amorphous, above 0.6 crystalline."""
    uncoordinated_oxygens: int
    """Oxygen sites without a Hf or Ti closer than 2.7 Å."""
    shortest_ang: dict[str, float]
    """Shortest distance by pair of elements."""
    filament_bridges: bool
    """Whether an unbroken chain of vacancies joins the electrodes."""
    rdf: RadialDistribution

    def problems(self) -> list[str]:
        """Why the structure should be rejected; empty if it is good."""
        found = []
        for (a, b), limit in SHORTEST_ANG.items():
            name = _pair_name(a, b)
            if self.shortest_ang.get(name, np.inf) < limit:
                found.append(
                    f"shortest {name} distance {self.shortest_ang[name]:.2f} Å, "
                    f"expected at least {limit:.2f} Å"
                )
        for what, value, (low, high), unit in (
            ("mean Hf-O coordination", self.hf_o_coordination, COORDINATION_RANGE, ""),
            ("oxide density", self.oxide_density_g_cm3, DENSITY_RANGE_G_CM3, " g/cm³"),
        ):
            if not low <= value <= high:
                found.append(f"{what} {value:.2f}{unit}, expected {low}–{high}{unit}")
        if self.hf_order > MAX_ORDER:
            found.append(f"crystallised: order {self.hf_order:.2f}, expected at most {MAX_ORDER}")
        if self.uncoordinated_oxygens:
            found.append(f"{self.uncoordinated_oxygens} oxygens without a cation in reach")
        return found


def measure(structure: Structure) -> Quality:
    """Measure a device with regions.

    Parameters
    ----------
    structure : Structure
        A device as the builder makes it: orthorhombic cell, transport along x.

    Returns
    -------
    Quality
        Its measures.

    Raises
    ------
    VcmbenchError
        If the structure has no electrodes or no oxide.
    """
    oxide = structure.in_region(Region.OXIDE)
    if not (oxide & (structure.numbers == HF)).any():
        raise VcmbenchError("structure: found no Hf in the oxide, expected a device with regions")
    pairs = neighbours(structure.positions, structure.cell, RDF_RANGE_ANG)
    first, second = structure.numbers[pairs.first], structure.numbers[pairs.second]
    hafnium = np.flatnonzero(structure.numbers == HF)
    bonds = (first == HF) & (second == O) & (pairs.distance_ang < BOND_ANG)
    per_hafnium = np.bincount(pairs.first[bonds], minlength=structure.n_sites)[hafnium]
    occupied = bonds & ~structure.is_ghost[pairs.second]
    to_cation = (first == O) & np.isin(second, [HF, TI]) & (pairs.distance_ang < BOND_ANG)
    has_cation = np.isin(np.flatnonzero(oxide & (structure.numbers == O)), pairs.first[to_cation])
    thickness, density, core = _densities(structure)
    labels = [species.label for species in structure.species_list]
    counts = np.bincount(structure.species_index)
    coordinations, n_hafnium = np.unique(per_hafnium, return_counts=True)
    return Quality(
        n_sites=structure.n_sites,
        n_vacancies=structure.n_ghosts,
        composition=dict(zip(labels, counts.tolist(), strict=True)),
        regions={
            region.label: int(n) for region in Region if (n := structure.in_region(region).sum())
        },
        cell_ang=np.diag(structure.cell).tolist(),
        oxide_thickness_ang=thickness,
        oxide_density_g_cm3=density,
        core_density_g_cm3=core,
        hf_o_coordination=float(per_hafnium.mean()),
        hf_o_coordination_counts=dict(zip(coordinations.tolist(), n_hafnium.tolist(), strict=True)),
        hf_o_coordination_occupied=float(occupied.sum() / len(hafnium)),
        hf_o_bond_ang=float(pairs.distance_ang[bonds].mean()) if bonds.any() else float("nan"),
        hf_order=_hf_order(structure, hafnium),
        uncoordinated_oxygens=int((~has_cation).sum()),
        shortest_ang=_shortest(structure, pairs),
        filament_bridges=bridges(structure),
        rdf=_radial_distribution(structure, pairs),
    )


def _densities(structure: Structure) -> tuple[float, float, float | None]:
    """Thickness (Å), density and core density (g/cm³, None if there is no core)."""
    left, right = oxide_faces(structure)
    area = structure.cell[1, 1] * structure.cell[2, 2]
    oxide = structure.in_region(Region.OXIDE)
    x = structure.positions[oxide, 0]
    # Hf and O in the ratio 1:2 everywhere on average: count ions, not masses, so that a layer
    # one Hf richer does not read as a density fluctuation.
    mass = HFO2_MASS_U / 3 * U_PER_ANG3_IN_G_PER_CM3
    thickness = right - left
    density = float(oxide.sum() * mass / (area * thickness))
    low, high = left + CORE_MARGIN_ANG, right - CORE_MARGIN_ANG
    if high - low < CORE_MARGIN_ANG:
        return thickness, density, None
    core = float(((x >= low) & (x < high)).sum() * mass / (area * (high - low)))
    return thickness, density, core


def oxide_faces(structure: Structure) -> tuple[float, float]:
    """X of the oxide's nominal faces, half a metal layer away from the metal planes (Å)."""
    left, right = oxide_bounds(structure)
    return left + PLANE_ANG / 2, right - TI_SPACING_ANG / 2


def _hf_order(structure: Structure, hafnium: IntArray) -> float:
    positions = structure.positions[hafnium]
    faces = (float(positions[:, 0].min()), float(positions[:, 0].max()))
    return order_correlation(positions, structure.cell, faces)


def _shortest(structure: Structure, pairs: Pairs) -> dict[str, float]:
    first, second = structure.numbers[pairs.first], structure.numbers[pairs.second]
    shortest = {}
    for a, b in SHORTEST_ANG:
        distance = pairs.distance_ang[(first == a) & (second == b)]
        if len(distance):
            shortest[_pair_name(a, b)] = float(distance.min())
    return shortest


def _radial_distribution(structure: Structure, pairs: Pairs) -> RadialDistribution:
    left, right = oxide_faces(structure)
    oxide = structure.in_region(Region.OXIDE)
    area = structure.cell[1, 1] * structure.cell[2, 2]
    edges = np.linspace(0, RDF_RANGE_ANG, round(RDF_RANGE_ANG / RDF_BIN_ANG) + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    within = oxide[pairs.first] & oxide[pairs.second]
    curves = {}
    for a, b in ((HF, O), (O, O), (HF, HF)):
        chosen = (
            within & (structure.numbers[pairs.first] == a) & (structure.numbers[pairs.second] == b)
        )
        counts, _ = np.histogram(pairs.distance_ang[chosen], edges)
        x = structure.positions[oxide & (structure.numbers == a), 0]
        n_b = (oxide & (structure.numbers == b)).sum()
        density = n_b / (area * (right - left))
        expected = density * shells * _fraction_in_slab(x, left, right, centres).sum(axis=0)
        curves[_pair_name(a, b)] = (counts / expected).round(4).tolist()
    return RadialDistribution(r_ang=centres.round(4).tolist(), g=curves)


def _fraction_in_slab(x: FloatArray, left: float, right: float, r: FloatArray) -> FloatArray:
    """(n, n_r) fraction of the sphere of radius r around each height that lies in the slab."""
    up = np.clip(right - x[:, None], 0, r)
    down = np.clip(x[:, None] - left, 0, r)
    return (up + down) / (2 * r)


def _pair_name(a: int, b: int) -> str:
    return pair_label(Species(a, False), Species(b, False))
