"""A CUDA accelerator gives what the processor gives: networks, training, transport."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from neural_toys import SMALL_NETWORKS, make_network  # noqa: E402

from vcmbench.models import load_model  # noqa: E402
from vcmbench.models.neural.model import ResidualModel  # noqa: E402
from vcmbench.transport import Lead, TransmissionSolver  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA accelerator"),
]


@pytest.mark.parametrize("name", SMALL_NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_networks_predict_the_same(demo, name, dtype, tolerance):
    """Slater–Koster is in float64 always: what float32 loses is the network's part."""
    device = demo.device("device-b")
    base = load_model("slater-koster").model
    network = make_network(name, basis=device.basis).to(dtype)
    here = ResidualModel(base, network).predict_within(device.structure, 8.0)
    added = np.abs(here.values - base.predict_within(device.structure, 8.0).values).max()
    there = ResidualModel(base, network.to("cuda")).predict_within(device.structure, 8.0)
    assert np.abs(there.values - here.values).max() < tolerance * added


def test_gradients_are_the_same(demo):
    import copy

    from vcmbench.partition import device_slabs
    from vcmbench.processes import ALONE
    from vcmbench.training.config import Optimiser
    from vcmbench.training.loop import Trainer
    from vcmbench.training.scales import set_scales
    from vcmbench.training.supervision import supervised

    device = demo.device("device-b")
    h = device.hamiltonian.truncate(5.0)
    chosen = np.ones(h.pattern.n_blocks, dtype=bool)
    errors = {}
    for accelerator in ("cpu", "cuda"):
        network = make_network(basis=device.basis)
        cut = device_slabs(h.pattern, chosen, width_ang=None, reach_ang=network.reach_ang)
        pieces = supervised("b", h, cut, network, accelerator)
        set_scales(network, pieces)
        network.to(accelerator)
        trainer = Trainer(network, copy.deepcopy(network), Optimiser(epochs=3), 0, ALONE)
        errors[accelerator] = [trainer.train_epoch(pieces, epoch) for epoch in range(2)]
        errors[accelerator].append(trainer.validate(pieces))
    assert errors["cuda"] == pytest.approx(errors["cpu"], rel=1e-6)


def test_transmission_is_the_same(demo):
    device, stored = demo.device("device-b"), demo.lead("lead-tin")
    lead = Lead(stored.hamiltonian, stored.overlap)
    k = np.array([0.0, 0.25, 0.25])
    points = [
        TransmissionSolver(device.hamiltonian, device.overlap, lead, accelerator=accelerator).point(
            k, 0.2
        )
        for accelerator in ("cpu", "cuda")
    ]
    assert points[1]["transmission"] == pytest.approx(points[0]["transmission"], rel=1e-9, abs=0)
    assert points[1]["meeting_error"] < 1e-9


@pytest.mark.parametrize(("cutoff", "copies"), [(8.0, 1), (12.0, 1), (8.0, 3)])
def test_blocks_found_there_are_the_same(demo, cutoff, copies):
    """A cell shorter than twice the cutoff, and one of some cutoffs."""
    from vcmbench.blocks import BlockPattern
    from vcmbench.models.neural.table import BlockTable

    device = demo.device("device-b")
    structure = device.structure.repeated((1, copies, copies))
    pattern = BlockPattern.from_structure(structure, device.basis, cutoff)
    table = BlockTable.within(structure, device.basis, cutoff, torch.device("cuda"))
    np.testing.assert_array_equal(table.pair.cpu(), pattern.pair)
    np.testing.assert_array_equal(table.shift.cpu(), pattern.shift)
    np.testing.assert_allclose(table.vector.cpu(), pattern.vector, atol=1e-12)
    assert table.slabs == pattern.slabs
