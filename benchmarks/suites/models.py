"""ASV: what a prediction is made of, and each baseline's forward pass on a device of 294 sites.

Networks have random weights: their speed does not depend on them. Without torch they are skipped;
variants on an accelerator are skipped where there is none.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from vcmbench.blocks import BlockPattern
from vcmbench.models import load_model
from vcmbench.release import find_release

BASELINES = Path(__file__).parents[2] / "baselines"
CUTOFF_ANG = 8.0


class Lists:
    """Neighbour lists and graphs."""

    params = (8.0, 12.0)
    param_names = ("cutoff_ang",)

    def setup(self, cutoff_ang: float) -> None:
        self.device = find_release("vcm-demo").device("device-b")
        self.graph = _torch_part("graph").structure_graph

    def time_pattern(self, cutoff_ang: float) -> None:
        device = self.device
        pattern = BlockPattern.from_structure(device.structure, device.basis, cutoff_ang)
        assert cutoff_ang < 12 or pattern.n_blocks == device.pattern.n_blocks

    def time_graph(self, cutoff_ang: float) -> None:
        data = self.graph(self.device.structure, self.device.basis, cutoff_ang)
        assert data.edge_index.shape[1] > 0


class ClosedForm:
    """Prediction of the closed-form baselines, complete H."""

    params = ("species-mean", "slater-koster")
    param_names = ("model",)

    def setup(self, name: str) -> None:
        self.structure = find_release("vcm-demo").device("device-b").structure
        self.model = load_model(name).model

    def time_predict(self, name: str) -> None:
        assert np.isfinite(self.model.predict(self.structure).values).all()

    def peakmem_predict(self, name: str) -> None:
        self.model.predict(self.structure)


class Network:
    """Features of the sites, and all blocks below 8 Å from them."""

    params = (("so2-local", "tensor-product", "mace"), ("cpu", "cuda"))
    param_names = ("network", "accelerator")
    timeout = 600

    def setup(self, name: str, accelerator: str) -> None:
        assembly, self.graphs = _torch_part("assembly"), _torch_part("graph")
        import torch

        from vcmbench.training.config import TrainingConfig

        if accelerator == "cuda" and not torch.cuda.is_available():
            raise NotImplementedError("no CUDA device")
        if name != "so2-local" and importlib.util.find_spec("e3nn") is None:
            raise NotImplementedError("e3nn is not installed")
        device = find_release("vcm-demo").device("device-b")
        torch.manual_seed(0)
        self.torch, self.assembly = torch, assembly
        network = TrainingConfig.read(BASELINES / name).network.make(device.basis)
        self.network = network.eval().to(accelerator)
        self.pattern = BlockPattern.from_structure(device.structure, device.basis, CUTOFF_ANG)
        self.features = self._features()

    def _features(self) -> object:
        network, structure = self.network, self.pattern.structure
        graph = self.graphs.structure_graph(structure, network.basis, network.message_cutoff_ang)
        accelerator = next(network.parameters()).device
        with self.torch.inference_mode():
            chunk = self.assembly.CHUNK[accelerator.type]
            found = network.features(graph.to(accelerator), chunk=chunk)
        if found.is_cuda:
            self.torch.cuda.synchronize()
        return found

    def time_features(self, name: str, accelerator: str) -> None:
        self._features()

    def time_blocks(self, name: str, accelerator: str) -> None:
        everything = np.arange(self.pattern.n_blocks)
        table = self.assembly.BlockTable.of(self.pattern, self.features.device)
        with self.torch.inference_mode():
            steps = self.assembly.predicted_blocks(self.network, self.features, table, everything)
            count = sum(len(step.blocks) for step in steps)
            if self.features.is_cuda:
                self.torch.cuda.synchronize()
        assert count == self.pattern.n_blocks

    def peakmem_predict(self, name: str, accelerator: str) -> None:
        with self.torch.inference_mode():
            clock = _torch_part("clock").StageClock(self.torch.device(accelerator))
            self.assembly.predicted_values((self.network,), self.pattern, clock)


def _torch_part(name: str) -> object:
    """Return a module of the networks, or skip the benchmark."""
    if importlib.util.find_spec("torch_geometric") is None:
        raise NotImplementedError("torch and torch-geometric are not installed")
    return importlib.import_module(f"vcmbench.models.neural.{name}")
