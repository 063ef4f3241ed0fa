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
from vcmbench.scores.throughput import near_mae_mev
from vcmbench.scores.timing import deliver

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
    """Prediction of the closed-form baselines, complete H, and its delivery as it is timed."""

    params = ("species-mean", "slater-koster")
    param_names = ("model",)

    def setup(self, name: str) -> None:
        self.reference = find_release("vcm-demo").device("device-b").hamiltonian
        self.structure = self.reference.pattern.structure
        self.model = load_model(name).model
        self.found = self.model.predict(self.structure)

    def teardown(self, name: str) -> None:
        """Check what was timed last against DFT."""
        assert (
            near_mae_mev(self.reference, self.found) < {"species-mean": 7, "slater-koster": 1}[name]
        )

    def time_predict(self, name: str) -> None:
        self.found = self.model.predict(self.structure)

    def peakmem_predict(self, name: str) -> None:
        self.found = self.model.predict(self.structure)

    def time_deliver(self, name: str) -> None:
        delivered = deliver(self.model, self.structure, CUTOFF_ANG)
        assert delivered.values.dtype == np.float32


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
        found = self._features()
        assert len(found) == self.pattern.structure.n_sites
        assert bool(found.isfinite().all())

    def time_blocks(self, name: str, accelerator: str) -> None:
        features = self.features
        table = _torch_part("table").BlockTable.of(self.pattern, features.device)
        everything = self.torch.arange(self.pattern.n_blocks, device=features.device)
        with self.torch.inference_mode():
            steps = self.assembly.predicted_blocks(self.network, features, table, everything)
            count = sum(len(piece.rows) for step in steps for piece in step.pieces)
            if self.features.is_cuda:
                self.torch.cuda.synchronize()
        assert count == self.pattern.n_blocks

    def peakmem_predict(self, name: str, accelerator: str) -> None:
        self._predicted(accelerator)

    def _predicted(self, accelerator: str) -> np.ndarray:
        network, structure = self.network, self.pattern.structure
        clock = _torch_part("clock").StageClock(self.torch.device(accelerator))
        table = _torch_part("table").BlockTable.within(
            structure, network.basis, CUTOFF_ANG, clock.accelerator
        )
        with self.torch.inference_mode():
            found = self.assembly.predicted_values((network,), table, table, structure, clock)
        return found.cpu().numpy()


class NetworkOnBoard(Network):
    """Memory of the board; the times are those of `Network`."""

    params = (("so2-local", "tensor-product", "mace"), ("cuda",))

    def track_board_memory(self, name: str, accelerator: str) -> int:
        self.torch.cuda.reset_peak_memory_stats()
        assert np.isfinite(self._predicted(accelerator)).all()
        return int(self.torch.cuda.max_memory_allocated())

    track_board_memory.unit = "bytes"
    time_features = time_blocks = peakmem_predict = None


def _torch_part(name: str) -> object:
    """Return a module of the networks, or skip the benchmark."""
    if importlib.util.find_spec("torch_geometric") is None:
        raise NotImplementedError("torch and torch-geometric are not installed")
    return importlib.import_module(f"vcmbench.models.neural.{name}")
