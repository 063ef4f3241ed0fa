"""mace: the backbone of MACE with readouts for blocks.

The backbone is mace-torch's (Batatia et al., arXiv:2206.07697): its layers give features of sites
with many-body terms. Those of all layers go into the heads of `so2-local`. The backbone's own
readouts and energies are not used.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from vcmbench.basis import OrbitalBasis
from vcmbench.errors import VcmbenchError
from vcmbench.harmonics import E3NN_AXES
from vcmbench.models.neural.e3nn_import import o3
from vcmbench.models.neural.heads import BondHead, SiteHead, start_from_zero
from vcmbench.models.neural.network import BlockNetwork, BondList
from vcmbench.models.neural.settings import MaceSettings

try:
    from mace.modules import (
        MACE,
        RealAgnosticInteractionBlock,
        RealAgnosticResidualInteractionBlock,
    )
except ImportError as error:
    raise VcmbenchError(
        f"this network needs mace-torch ({error}): pip install 'vcmbench[models]'"
    ) from None


class Mace(BlockNetwork):
    """The network.

    Parameters
    ----------
    basis : OrbitalBasis
        Species it knows and their shells.
    settings : MaceSettings
        Shape.
    """

    def __init__(self, basis: OrbitalBasis, settings: MaceSettings) -> None:
        super().__init__(
            basis,
            message_cutoff_ang=settings.message_cutoff_ang,
            block_cutoff_ang=settings.block_cutoff_ang,
            reach_ang=settings.layers * settings.message_cutoff_ang,
        )
        self.settings = settings
        l_max, channels = settings.l_max, settings.channels
        n_species = len(basis.species)
        backbone = MACE(
            r_max=settings.message_cutoff_ang,
            num_bessel=settings.n_bessel,
            num_polynomial_cutoff=5,
            max_ell=settings.l_max_edge,
            interaction_cls=RealAgnosticResidualInteractionBlock,
            interaction_cls_first=RealAgnosticInteractionBlock,
            num_interactions=settings.layers,
            num_elements=n_species,
            hidden_irreps=o3.Irreps([(channels, (l, (-1) ** l)) for l in range(l_max + 1)]),
            MLP_irreps=o3.Irreps("1x0e"),
            atomic_energies=np.zeros(n_species),
            avg_num_neighbors=30.0,
            # Ghosts have no number of their own: species are counted.
            atomic_numbers=list(range(1, n_species + 1)),
            correlation=settings.correlation,
            gate=torch.nn.functional.silu,
            radial_MLP=[32, 32],
            keep_last_layer_irreps=True,
        )
        self.embedding, self.radial = backbone.node_embedding, backbone.radial_embedding
        self.harmonics = backbone.spherical_harmonics
        self.interactions, self.products = backbone.interactions, backbone.products
        self.register_buffer("number", backbone.atomic_numbers, persistent=False)
        self.register_buffer("feature_scale", torch.ones(settings.layers, l_max + 1))
        width = channels * settings.layers
        self.site_heads = torch.nn.ModuleDict(
            {s.label: SiteHead(basis.shells_of(s), l_max, width) for s in basis.species}
        )
        self.bond_head = BondHead(
            basis, l_max, width, settings.hidden, settings.n_splines, settings.block_cutoff_ang
        )
        start_from_zero(self)

    def features(self, graph: Data, *, chunk: int) -> Tensor:
        """(n_sites, (l_max + 1)², layers · channels) features.

        The backbone takes all edges at once, whatever `chunk` says: slabs bound its memory.
        """
        del chunk
        collected = [self._components_first(sites) for sites in self._rounds(graph)]
        return torch.cat(collected, 2)

    def calibrate(self, graph: Data) -> None:
        """Scale each degree of each layer to one, root mean square, layer after layer."""
        with torch.no_grad():
            for layer in range(self.settings.layers):
                self.feature_scale[layer] = 1.0
                features = self._components_first(list(self._rounds(graph, layer + 1))[layer])
                sizes = [2 * l + 1 for l in range(self.settings.l_max + 1)]
                for degree, part in enumerate(features.split(sizes, 1)):
                    self.feature_scale[layer, degree] = 1 / part.square().mean().sqrt()

    def _rounds(self, graph: Data, layers: int | None = None) -> Iterator[Tensor]:
        """(n, Σ channels (2l + 1)) features after each layer, in e3nn's order."""
        dtype = self.bond_head.radial.dtype
        kinds = torch.nn.functional.one_hot(graph.species, len(self.basis.species)).to(dtype)
        vector = graph.edge_vector.to(dtype)
        harmonics = self.harmonics(vector[:, E3NN_AXES])
        radial, cutoff = self.radial(
            vector.norm(dim=1, keepdim=True), kinds, graph.edge_index, self.number
        )
        channels = self.settings.channels
        repeats = torch.tensor(
            [channels * (2 * l + 1) for l in range(self.settings.l_max + 1)], device=vector.device
        )
        sites = self.embedding(kinds)
        for layer in range(layers or self.settings.layers):
            sites, own = self.interactions[layer](
                node_attrs=kinds,
                node_feats=sites,
                edge_attrs=harmonics,
                edge_feats=radial,
                edge_index=graph.edge_index,
                cutoff=cutoff,
                first_layer=layer == 0,
            )
            sites = self.products[layer](node_feats=sites, sc=own, node_attrs=kinds)
            sites = sites * self.feature_scale[layer].repeat_interleave(repeats)
            yield sites

    def _components_first(self, features: Tensor) -> Tensor:
        """(n, (l_max + 1)², channels) features from e3nn's (n, Σ channels (2l + 1))."""
        sizes = [2 * l + 1 for l in range(self.settings.l_max + 1)]
        parts = features.split([self.settings.channels * size for size in sizes], 1)
        return torch.cat(
            [part.unflatten(1, (-1, size)).mT for part, size in zip(parts, sizes, strict=True)], 1
        )

    def raw_bond_blocks(
        self, features: Tensor, bonds: BondList, dtype: torch.dtype
    ) -> list[Tensor]:
        """(n, n_i, n_j) blocks of each group of bonds."""
        blocks: list[Tensor] = self.bond_head(features, bonds, dtype)
        return blocks
