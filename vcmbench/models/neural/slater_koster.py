"""A fitted Slater–Koster model in torch: the same blocks, where the networks compute.

The formulas are those of `vcmbench.models.slater_koster`; positions and splines are in float64, the
rest in the precision of the module, float64 unless it is moved to another one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from vcmbench.basis import OrbitalBasis, Species, pair_label
from vcmbench.models.neural.bond_frames import BondFrames
from vcmbench.models.neural.expansion import Expansion
from vcmbench.models.neural.frames import Turns, real_harmonics
from vcmbench.models.neural.network import BondList
from vcmbench.models.neural.radial import decay, splines
from vcmbench.models.neural.so2 import FrameLayout, Orders
from vcmbench.models.slater_koster import BondCoefficients, Settings, SiteCoefficients, SlaterKoster
from vcmbench.models.symmetry import BondTensors, SiteTensors
from vcmbench.structure import FloatArray


class SlaterKosterBlocks(torch.nn.Module):
    """Blocks of a fitted model.

    Parameters
    ----------
    model : SlaterKoster
        The model.
    """

    def __init__(self, model: SlaterKoster) -> None:
        super().__init__()
        self.basis, self.settings = model.basis, model.settings
        self.message_cutoff_ang = model.settings.neighbour_cutoff_ang
        self.block_cutoff_ang = model.settings.cutoff_ang
        basis, degree = model.basis, model.settings.degree
        self.layout = FrameLayout(degree, degree)
        self.frames = BondFrames(basis, self.layout)
        self.sites = torch.nn.ModuleDict(
            {s.label: _Sites(basis.shells_of(s), terms) for s, terms in model.sites.items()}
        )
        self.bonds = torch.nn.ModuleDict(
            {
                pair_label(*pair): _PairTerms(basis, pair, terms, model.settings)
                for pair, terms in model.bonds.items()
            }
        )

    def features(self, graph: Data, *, chunk: int) -> Tensor:
        """(n_sites, (degree + 1)², n_densities) neighbour densities."""
        settings, n_species = self.settings, len(self.basis.species)
        n_sites, n_parts = len(graph.species), (settings.degree + 1) ** 2
        shape = (n_sites * n_species, n_parts, settings.n_neighbour)
        total = torch.zeros(shape, dtype=self.dtype, device=graph.species.device)
        sender, receiver = graph.edge_index
        place = receiver * n_species + graph.species[sender]
        for vector, where in zip(graph.edge_vector.split(chunk), place.split(chunk), strict=True):
            radial = splines(
                vector.norm(dim=1),
                settings.neighbour_cutoff_ang,
                settings.n_neighbour,
                settings.shortest_ang,
            )
            harmonics = real_harmonics(settings.degree, vector).to(self.dtype)
            density = harmonics[:, :, None] * radial.to(self.dtype)[:, None]
            total.index_add_(0, where, density)
        return total.unflatten(0, (n_sites, n_species)).transpose(1, 2).flatten(2)

    def site_blocks(self, species: Species, features: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, n_orbitals, n_orbitals) on-site blocks, eV."""
        blocks: Tensor = self.sites[species.label](features)
        return blocks.to(dtype)

    def bond_blocks(self, features: Tensor, bonds: BondList, dtype: torch.dtype) -> list[Tensor]:
        """(n, n_i, n_j) blocks of each group of bonds, eV."""
        settings, distance = self.settings, bonds.vector.norm(dim=1)
        turns = self.frames.turns(bonds.vector)
        near = torch.nonzero(distance < settings.response_cutoff_ang)[:, 0]
        starts = torch.tensor([group.place.start for group in bonds.groups], device=near.device)
        bounds = [*torch.searchsorted(near, starts).tolist(), len(near)]
        orders = self._orders(features, bonds, turns[near], near)
        straight = self._radial(distance, settings.cutoff_ang, settings.n_two_centre)
        response = self._radial(distance[near], settings.response_cutoff_ang, settings.n_response)
        fall = decay(distance).to(self.dtype)[:, None, None]
        blocks = []
        for group, *bound in zip(bonds.groups, bounds[:-1], bounds[1:], strict=True):
            place, responding = group.place, slice(*bound)
            label = pair_label(*group.pair)
            if label not in self.bonds:
                sizes = [self.basis.n_orbitals(species) for species in group.pair]
                blocks.append(fall.new_zeros(place.stop - place.start, *sizes, dtype=dtype))
                continue
            terms = self.bonds[label]
            framed = terms.two_centre_blocks(straight[place])
            changes = terms.response_blocks(
                response[responding], [order[responding] for order in orders]
            )
            framed.index_add_(0, near[responding] - place.start, changes)
            blocks.append(
                self.frames.turned(turns[place], group.pair, fall[place] * framed).to(dtype)
            )
        return blocks

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which it computes."""
        return next(iter(self.bonds.buffers())).dtype

    def _radial(self, distance: Tensor, cutoff_ang: float, n_functions: int) -> Tensor:
        """(n, n_functions) splines of distances."""
        found = splines(distance, cutoff_ang, n_functions, self.settings.shortest_ang)
        return found.to(self.dtype)

    def _orders(self, features: Tensor, bonds: BondList, turns: Turns, near: Tensor) -> Orders:
        """Densities of both ends of some bonds, in their frames, by order."""
        ends = self.frames.framed(turns, features, bonds.first[near], bonds.second[near])
        return self.layout.split(torch.cat(ends, 2))


class _Sites(torch.nn.Module):
    """On-site blocks of one species."""

    def __init__(self, shells: tuple[int, ...], terms: SiteCoefficients) -> None:
        super().__init__()
        tensors = SiteTensors(shells).by_degree
        self.degrees = list(terms.crystal_field)
        self.expansion = Expansion([tensors[degree] for degree in self.degrees])
        _hold(self, "levels", terms.levels)
        for degree, weights in terms.crystal_field.items():
            _hold(self, f"crystal_field{degree}", weights)

    def forward(self, densities: Tensor) -> Tensor:
        components = [
            densities[:, degree**2 : (degree + 1) ** 2] @ getattr(self, f"crystal_field{degree}")
            for degree in self.degrees
        ]
        components[0] = components[0] + self.levels
        blocks: Tensor = self.expansion(components, densities.dtype)
        return 0.5 * (blocks + blocks.mT)


class _PairTerms(torch.nn.Module):
    """Blocks of bonds of one species pair in their frames, without their decay."""

    def __init__(
        self,
        basis: OrbitalBasis,
        pair: tuple[Species, Species],
        terms: BondCoefficients,
        settings: Settings,
    ) -> None:
        super().__init__()
        self.orders = list(terms.response)
        tensors = BondTensors(*(basis.shells_of(species) for species in pair)).by_order
        self.straight = Expansion([tensors[0]])
        self.expansion = Expansion([tensors[order] for order in self.orders])
        _hold(self, "two_centre", terms.two_centre)
        for order, weights in terms.response.items():
            # From end, degree, density to degree, end, density; splines and channels last.
            n_splines, _, n_channels = weights.shape
            n_degrees = settings.degree + 1 - order
            sorted_ = weights.reshape(n_splines, 2, n_degrees, -1, n_channels)
            flat = sorted_.transpose(2, 1, 3, 0, 4).reshape(-1, n_splines * n_channels)
            _hold(self, f"response{order}", flat)

    def two_centre_blocks(self, radial: Tensor) -> Tensor:
        """(n, n_i, n_j) blocks of the two sites alone, from splines of their distance."""
        blocks: Tensor = self.straight([(radial @ self.two_centre)[:, None]], radial.dtype)
        return blocks

    def response_blocks(self, radial: Tensor, orders: Orders) -> Tensor:
        """(n, n_i, n_j) change of the blocks by the neighbours of both sites."""
        components = []
        for order in self.orders:
            partial = orders[order] @ getattr(self, f"response{order}")
            by_spline = partial.unflatten(2, (radial.shape[1], -1))
            components.append((radial[:, None, None] @ by_spline)[:, :, 0])
        blocks: Tensor = self.expansion(components, radial.dtype)
        return blocks


def _hold(module: torch.nn.Module, name: str, values: FloatArray) -> None:
    """Keep a constant where the module is."""
    array = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    module.register_buffer(name, array, persistent=False)
