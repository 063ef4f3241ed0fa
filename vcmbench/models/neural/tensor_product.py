"""tensor-product: a network of e3nn's tensor products, in the manner of QHNet for extended systems.

Sites exchange messages x_j ⊗ Y(r) weighted by networks of the distance (Thomas et al.,
arXiv:1802.08219; Batzner et al., Nat. Commun. 13, 2453 (2022)). A bond's features are products of
both ends with each other and with the harmonics of the bond (Yu et al., arXiv:2306.04922), coupled
to every irrep that a block holds, those of unnatural parity included; Clebsch–Gordan coefficients
expand them into the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data

from vcmbench.basis import OrbitalBasis, pair_label
from vcmbench.harmonics import E3NN_AXES
from vcmbench.models.neural.e3nn_import import nn, o3
from vcmbench.models.neural.expansion import Expansion
from vcmbench.models.neural.network import BlockNetwork, Bonds
from vcmbench.models.neural.radial import splines
from vcmbench.models.neural.settings import TensorProductSettings
from vcmbench.models.symmetry import CoupledTensors

NEIGHBOURS = 30.0
"""Messages a site gets, about: their sum is divided by the root of it."""


class TensorProduct(BlockNetwork):
    """The network.

    Parameters
    ----------
    basis : OrbitalBasis
        Species it knows and their shells.
    settings : TensorProductSettings
        Shape.
    """

    def __init__(self, basis: OrbitalBasis, settings: TensorProductSettings) -> None:
        super().__init__(
            basis,
            message_cutoff_ang=settings.message_cutoff_ang,
            block_cutoff_ang=settings.block_cutoff_ang,
            reach_ang=settings.layers * settings.message_cutoff_ang,
        )
        self.settings = settings
        n_species, l_max, channels = len(basis.species), settings.l_max, settings.channels
        self.harmonics = o3.SphericalHarmonics(
            list(range(l_max + 1)), normalize=True, normalization="component"
        )
        irreps = o3.Irreps([(channels, (l, (-1) ** l)) for l in range(l_max + 1)])
        self.kind = torch.nn.Embedding(n_species, channels)
        self.message_kind = torch.nn.Embedding(n_species**2, settings.kind_channels)
        self.bond_kind = torch.nn.Embedding(len(self.pairs), settings.kind_channels)
        scalars = o3.Irreps([(channels, (0, 1))])
        self.layers = torch.nn.ModuleList(
            _Layer(irreps if k else scalars, self.harmonics.irreps_out, irreps, settings)
            for k in range(settings.layers)
        )
        self.site_heads = torch.nn.ModuleDict(
            {s.label: _SiteHead(irreps, basis.shells_of(s)) for s in basis.species}
        )
        tensors = {p: CoupledTensors(*(basis.shells_of(s) for s in p)) for p in self.pairs}
        held = sorted({irrep for t in tensors.values() for irrep in t.by_irrep})
        self.bond = _Bond(irreps, self.harmonics.irreps_out, held, settings)
        self.outputs = torch.nn.ModuleDict(
            {pair_label(*p): _Blocks(t, self.bond.irreps) for p, t in tensors.items()}
        )

        for head in self.site_heads.values():
            _start_from_zero(head.output)
        for output in self.outputs.values():
            _start_from_zero(output)

    def features(self, graph: Data, *, chunk: int) -> Tensor:
        """(n_sites, Σ channels (2l + 1)) features in e3nn's order."""
        n_species = len(self.basis.species)
        sender, receiver = graph.edge_index
        kind = n_species * graph.species[receiver] + graph.species[sender]
        bonds = [
            _Bonds(*parts)
            for parts in zip(
                sender.split(chunk),
                receiver.split(chunk),
                kind.split(chunk),
                graph.edge_vector.split(chunk),
                strict=True,
            )
        ]
        sites: Tensor = self.kind(graph.species)
        for layer in self.layers:
            gathered: Tensor | float = 0.0
            for part in bonds:
                arriving = checkpoint(self._message, layer, sites, part, use_reentrant=False)
                empty = sites.new_zeros(len(sites), arriving.shape[1])
                gathered = gathered + empty.index_add(0, part.receiver, arriving)
            sites = layer.update(sites, gathered)
        return sites

    def _message(self, layer: _Layer, sites: Tensor, bonds: _Bonds) -> Tensor:
        settings, dtype = self.settings, sites.dtype
        distance = bonds.vector.norm(dim=1)
        radial = splines(distance, settings.message_cutoff_ang, settings.n_splines).to(dtype)
        harmonics = self.harmonics(bonds.vector[:, E3NN_AXES].to(dtype))
        return layer.message(
            sites.index_select(0, bonds.sender), harmonics, radial, self.message_kind(bonds.kind)
        )

    def raw_bond_blocks(self, features: Tensor, bonds: Bonds, dtype: torch.dtype) -> list[Tensor]:
        """(n, n_i, n_j) blocks of each group of bonds."""
        blocks = self._one_way(features, bonds, dtype)
        alike = [k for k, group in enumerate(bonds.groups) if group.is_alike]
        if alike:
            back = self._one_way(features, bonds.reversed([bonds.groups[k] for k in alike]), dtype)
            for k, reverse in zip(alike, back, strict=True):
                blocks[k] = 0.5 * (blocks[k] + reverse.mT)
        return blocks

    def _one_way(self, features: Tensor, bonds: Bonds, dtype: torch.dtype) -> list[Tensor]:
        settings = self.settings
        distance = bonds.vector.norm(dim=1)
        radial = splines(distance, settings.block_cutoff_ang, settings.n_splines)
        sizes = [group.place.stop - group.place.start for group in bonds.groups]
        kind = self.bond_kind.weight[[self.pairs.index(group.pair) for group in bonds.groups]]
        edges = self.bond(
            features.index_select(0, bonds.first),
            features.index_select(0, bonds.second),
            self.harmonics(bonds.vector[:, E3NN_AXES].to(features.dtype)),
            radial.to(features.dtype),
            torch.cat([row.expand(size, -1) for row, size in zip(kind, sizes, strict=True)]),
        )
        return [
            self.outputs[pair_label(*group.pair)](edges[group.place], dtype)
            for group in bonds.groups
        ]


def _start_from_zero(blocks: _Blocks) -> None:
    for parameter in blocks.outputs.parameters():
        torch.nn.init.zeros_(parameter)


class _Bonds(NamedTuple):
    """Messages worked on at once."""

    sender: Tensor
    receiver: Tensor
    kind: Tensor
    vector: Tensor


class _Weights(torch.nn.Module):
    """Weights of a product, from the distance and the species; they vanish at the cutoff."""

    def __init__(self, n_weights: int, settings: TensorProductSettings) -> None:
        super().__init__()
        n_inputs = settings.n_splines * settings.kind_channels
        self.network = nn.FullyConnectedNet(
            [n_inputs, settings.radial_hidden, n_weights], torch.nn.functional.silu
        )

    def forward(self, radial: Tensor, kind: Tensor) -> Tensor:
        """(n_edges, n_weights) weights."""
        inputs = (radial[:, :, None] * kind[:, None]).flatten(1)
        weights: Tensor = self.network(inputs * inputs.shape[1] ** 0.5)
        return weights * radial.sum(1, keepdim=True)


def _product(first: o3.Irreps, second: o3.Irreps, wanted: set, mode: str) -> o3.TensorProduct:
    """Product of all paths to the wanted irreps, each with weights of its own, given per edge."""
    out: list[tuple[int, o3.Irrep]] = []
    instructions = []
    for i, (n_i, ir_i) in enumerate(first):
        for j, (_, ir_j) in enumerate(second):
            for ir in ir_i * ir_j:
                if (ir.l, ir.p) in wanted:
                    instructions.append((i, j, len(out), mode, True))
                    out.append((n_i, ir))
    order = sorted(range(len(out)), key=lambda k: (out[k][1].l, out[k][1].p))
    place = {k: position for position, k in enumerate(order)}
    return o3.TensorProduct(
        first,
        second,
        o3.Irreps([out[k] for k in order]),
        [(i, j, place[k], m, t) for i, j, k, m, t in instructions],
        internal_weights=False,
        shared_weights=False,
    )


class _Layer(torch.nn.Module):
    """One round of messages."""

    def __init__(
        self,
        before: o3.Irreps,
        harmonics: o3.Irreps,
        after: o3.Irreps,
        settings: TensorProductSettings,
    ) -> None:
        super().__init__()
        self.up = o3.Linear(before, before)
        self.product = _product(before, harmonics, {(ir.l, ir.p) for _, ir in after}, "uvu")
        self.weights = _Weights(self.product.weight_numel, settings)
        gated = o3.Irreps([(n, ir) for n, ir in after if ir.l > 0])
        scalars = o3.Irreps([(n, ir) for n, ir in after if ir.l == 0])
        gates = o3.Irreps([(gated.num_irreps, (0, 1))])
        self.gate = nn.Gate(scalars, [torch.nn.functional.silu], gates, [torch.sigmoid], gated)
        self.down = o3.Linear(self.product.irreps_out.simplify(), self.gate.irreps_in)
        self.own = o3.Linear(before, after)

    def message(self, sender: Tensor, harmonics: Tensor, radial: Tensor, kind: Tensor) -> Tensor:
        """Form what each neighbour sends."""
        message: Tensor = self.product(self.up(sender), harmonics, self.weights(radial, kind))
        return message

    def update(self, sites: Tensor, gathered: Tensor) -> Tensor:
        """Features after the round."""
        updated: Tensor = self.own(sites) + self.gate(self.down(gathered / NEIGHBOURS**0.5))
        return updated


class _SiteHead(torch.nn.Module):
    """Symmetric on-site blocks of one species: a square of the features, expanded."""

    def __init__(self, irreps: o3.Irreps, shells: tuple[int, ...]) -> None:
        super().__init__()
        tensors = CoupledTensors(shells, shells)
        held = [irrep for irrep in tensors.by_irrep if irrep[1] == (-1) ** irrep[0]]
        self.left, self.right = o3.Linear(irreps, irreps), o3.Linear(irreps, irreps)
        self.square = _product(irreps, irreps, set(held), "uuu")
        self.weight = torch.nn.Parameter(torch.randn(self.square.weight_numel))
        self.down = o3.Linear(self.square.irreps_out.simplify(), _of(held, irreps))
        self.direct = o3.Linear(irreps, _of(held, irreps))
        self.output = _Blocks(tensors, _of(held, irreps))

    def forward(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, n_orbitals, n_orbitals) blocks."""
        weight = self.weight.expand(len(features), -1)
        squared = self.square(self.left(features), self.right(features), weight)
        blocks: Tensor = self.output(self.down(squared) + self.direct(features), dtype)
        return 0.5 * (blocks + blocks.mT)


def _of(held: Sequence[tuple[int, int]], like: o3.Irreps) -> o3.Irreps:
    """As many channels of each irrep as the features have."""
    return o3.Irreps([(like[0].mul, irrep) for irrep in held])


class _Bond(torch.nn.Module):
    """Features of a bond, of every irrep that a block holds."""

    def __init__(
        self,
        irreps: o3.Irreps,
        harmonics: o3.Irreps,
        held: Sequence[tuple[int, int]],
        settings: TensorProductSettings,
    ) -> None:
        super().__init__()
        self.irreps = _of(held, irreps)
        self.ends = torch.nn.ModuleList(o3.Linear(irreps, irreps) for _ in range(2))
        self.along = _product(irreps, harmonics, set(held), "uvu")
        self.between = _product(irreps, irreps, set(held), "uuu")
        self.along_weights = torch.nn.ModuleList(
            _Weights(self.along.weight_numel, settings) for _ in range(2)
        )
        self.between_weights = _Weights(self.between.weight_numel, settings)
        self.from_along = torch.nn.ModuleList(
            o3.Linear(self.along.irreps_out.simplify(), self.irreps) for _ in range(2)
        )
        self.from_between = o3.Linear(self.between.irreps_out.simplify(), self.irreps)

    def forward(
        self, first: Tensor, second: Tensor, harmonics: Tensor, radial: Tensor, kind: Tensor
    ) -> Tensor:
        """(n_edges, …) features."""
        ends = [linear(end) for linear, end in zip(self.ends, (first, second), strict=True)]
        edges: Tensor = self.from_between(self.between(*ends, self.between_weights(radial, kind)))
        for end, weights, linear in zip(ends, self.along_weights, self.from_along, strict=True):
            edges = edges + linear(self.along(end, harmonics, weights(radial, kind)))
        return edges


class _Blocks(torch.nn.Module):
    """Blocks of a pair of species from features: a linear map for each irrep, and the expansion."""

    def __init__(self, tensors: CoupledTensors, irreps: o3.Irreps) -> None:
        super().__init__()
        held = {
            (ir.l, ir.p): (place, n)
            for place, (n, ir) in zip(irreps.slices(), irreps, strict=True)
            if (ir.l, ir.p) in tensors.by_irrep
        }
        self.places = list(held.values())
        expanded = {irrep: tensors.by_irrep[irrep] for irrep in held}
        self.outputs = torch.nn.ModuleList(
            torch.nn.Linear(n, len(expanded[irrep]), bias=irrep == (0, 1))
            for irrep, (_, n) in held.items()
        )
        self.expansion = Expansion(list(expanded.values()))

    def forward(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, n_i, n_j) blocks."""
        components = [
            output(features[:, place].unflatten(1, (n, -1)).mT)
            for (place, n), output in zip(self.places, self.outputs, strict=True)
        ]
        blocks: Tensor = self.expansion(components, dtype)
        return blocks
