"""Training: every block supervised once, the same however it is cut, interrupted or shared."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from neural_toys import SMALL_NETWORK, SMALL_NETWORKS  # noqa: E402
from release_toys import toy_release  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transport_toys import tiled  # noqa: E402

from vcmbench.device import SUPPORT_ANG  # noqa: E402
from vcmbench.errors import VcmbenchError  # noqa: E402
from vcmbench.evaluate import Request  # noqa: E402
from vcmbench.evaluate import run as evaluate  # noqa: E402
from vcmbench.excerpt import excerpt  # noqa: E402
from vcmbench.models import load_model, slater_koster  # noqa: E402
from vcmbench.models.slater_koster import Settings  # noqa: E402
from vcmbench.models.slater_koster_fit import fit_slater_koster  # noqa: E402
from vcmbench.partition import block_parts, device_slabs  # noqa: E402
from vcmbench.store import write_device  # noqa: E402
from vcmbench.training import run as training  # noqa: E402
from vcmbench.training.config import Optimiser, TrainingConfig  # noqa: E402
from vcmbench.training.loop import Trainer  # noqa: E402
from vcmbench.training.run import LOG, train  # noqa: E402
from vcmbench.training.state import STATE  # noqa: E402
from vcmbench.training.supervision import epoch_batches  # noqa: E402
from vcmbench.transport import Lead  # noqa: E402

OPTIMISER = Optimiser(epochs=4, blocks_per_step=700, validate_every=2, averaging=0.5)
SMALL_BASE = Settings(n_two_centre=6, n_response=1, n_neighbour=1, degree=1)
CONFIG = TrainingConfig(
    description="toy", network=SMALL_NETWORKS["so2-local"], optimiser=OPTIMISER, slab_ang=15.0
)


@pytest.fixture(scope="module")
def release(tmp_path_factory, demo, wire):
    """Two wires, one of them shorter, and a partition of the first."""
    folder = tmp_path_factory.mktemp("training") / "wires"
    bulk = demo.lead("lead-tin")
    lead = Lead(bulk.hamiltonian, bulk.overlap)
    h, s = tiled(lead, (9, 1, 1), n_contact=3, cutoff=SUPPORT_ANG)
    write_device(folder / "devices/wire.zarr.zip", wire)
    write_device(
        folder / "devices/other.zarr.zip", replace(wire, id="other", hamiltonian=h, overlap=s)
    )
    write_device(folder / "leads/lead-tin.zarr.zip", bulk)
    ranges = {"train": [(0.0, 10.0)], "validation": [(22.0, 30.4)]}
    return toy_release(
        folder,
        {"train": ("wire",), "validation": ("other",)},
        partitions={"partition": {"version": 1, "device": "wire", "parts": ranges}},
    )


@pytest.fixture(autouse=True)
def _quick_fit(monkeypatch):
    """A small closed-form fit in place of the large one: it is not what is tested."""
    monkeypatch.setattr(training, "fit_slater_koster", small_fit)


def small_fit(hamiltonians):
    return fit_slater_koster(hamiltonians, SMALL_BASE)


def trained(release, folder, config=CONFIG, split="device", **options):
    return train(config, "toy", release, split, folder, **options)


def log_of(folder):
    with (folder / LOG).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(release, tmp_path_factory):
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit_slater_koster", small_fit)
        return folder, trained(release, folder)


def pieces_of(release, config=CONFIG, split="device", part="train"):
    parts = training.parts(release, split, part)
    base = small_fit([p.device.hamiltonian.select(p.blocks) for p in parts])
    torch.manual_seed(0)
    network = config.network.make(base.basis)
    return training._supervised(parts, base, network, config, "cpu"), network


def test_every_block_is_supervised_once_an_epoch(release):
    pieces, _ = pieces_of(release)
    assert len(pieces) == 3
    device = release.device("wire")
    near = (device.pattern.distance < SMALL_NETWORK.block_cutoff_ang).sum()
    assert sum(piece.n_blocks for piece in pieces) == near
    batches = epoch_batches(pieces, 700, (0, 1))
    for piece in pieces:
        blocks = [batch.blocks for batch in batches if batch.piece is piece]
        assert max(len(b) for b in blocks) <= 700
        np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(piece.n_blocks))
    other = epoch_batches(pieces, 700, (0, 2))
    assert not all(np.array_equal(a.blocks, b.blocks) for a, b in zip(batches, other, strict=True))


def test_a_run_leaves_a_model_that_is_better_than_its_base(release, whole):
    folder, card = whole
    rows = log_of(folder)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [bool(row["validation_mev"]) for row in rows] == [False, True, False, True]
    assert float(rows[-1]["train_mev"]) < float(rows[0]["train_mev"])
    assert not (folder / STATE).exists()
    assert list(card.training.devices) == ["wire"]
    model = load_model(str(folder)).model
    device = release.device("wire")

    def error(matrix) -> float:
        pattern = device.pattern
        near = pattern.entry_mask(pattern.distance < 8)
        weight = np.repeat(pattern.weight, np.diff(pattern.offset))[near]
        off = np.abs(matrix.align(pattern).values - device.hamiltonian.values)[near]
        return 1e3 * float(weight @ off / weight.sum())

    base = slater_koster.load(folder / "slater-koster")
    assert error(model.predict(device.structure)) == pytest.approx(card.training.mae_mev, abs=1e-3)
    assert card.training.mae_mev < error(base.predict(device.structure))


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(release, whole, tmp_path):
    def stop(row):
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(release, tmp_path, progress=stop)
    assert (tmp_path / STATE).exists()
    trained(release, tmp_path)
    for found, expected in zip(log_of(tmp_path), log_of(whole[0]), strict=True):
        assert {**found, "seconds": ""} == {**expected, "seconds": ""}
    for name in ("weights.safetensors", "slater-koster/weights.safetensors"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()


def test_another_runs_folder_is_refused(release, tmp_path):
    def stop(_row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(release, tmp_path, progress=stop)
    other = CONFIG.model_copy(update={"seed": 7})
    with pytest.raises(VcmbenchError, match=r"state\.safetensors: config: found .*seed=0"):
        trained(release, tmp_path, other)


def test_a_loss_that_is_no_number_names_its_batch(release):
    pieces, network = pieces_of(release)
    pieces = [replace(piece, target=piece.target * np.nan) for piece in pieces]
    trainer = Trainer(network, network, OPTIMISER, 0, training.ALONE)
    with pytest.raises(VcmbenchError, match=r"step 0: wire, x = .* Å: found loss nan"):
        trainer.train_epoch(pieces, 0)


def test_a_partition_trains_on_its_own_blocks_only(release):
    split = release.partition()
    pieces, _ = pieces_of(release, split="partition")
    pattern = release.device("wire").pattern
    near = pattern.distance < SMALL_NETWORK.block_cutoff_ang
    mine = block_parts(split, pattern) == list(split.parts).index("train")
    assert sum(piece.n_blocks for piece in pieces) == (near & mine).sum() > 0
    narrow = CONFIG.model_copy(update={"slab_ang": 3.0, "labels": "published"})
    published, _ = pieces_of(release, narrow, split="partition")
    assert 0 < sum(p.n_blocks for p in published) < 0.7 * (near & mine).sum()
    # What is validated does not depend on the rule of the labels.
    checked, _ = pieces_of(release, narrow, split="partition", part="validation")
    theirs = block_parts(split, pattern) == list(split.parts).index("validation")
    assert sum(piece.n_blocks for piece in checked) == (near & theirs).sum() > 0


def test_a_part_of_a_partition_is_scored_on_its_own_blocks(release, whole, tmp_path):
    """What the model was not trained on: only the Hamiltonian has a score there."""
    request = Request(
        str(whole[0]), str(release.folder), "partition:validation", output=tmp_path / "result"
    )
    result = evaluate(request).result
    assert (result.dataset.split, result.dataset.part) == ("partition", "validation")
    device = release.device("wire")
    split = release.partition()
    mine = block_parts(split, device.pattern) == list(split.parts).index("validation")
    near = device.pattern.entry_mask(mine & (device.pattern.distance < 8))
    weight = np.repeat(device.pattern.weight, np.diff(device.pattern.offset))[near]
    predicted = load_model(str(whole[0])).model.predict(device.structure).align(device.pattern)
    error = np.abs(predicted.values - device.hamiltonian.values)[near]
    expected = 1e3 * float(weight @ error / weight.sum())
    assert result.hamiltonian.mae_mev == pytest.approx(expected, rel=1e-3)
    for section in (result.spectrum, result.transmission, result.throughput):
        assert "a part of one device" in section.reason
    with pytest.raises(VcmbenchError, match="unknown part of split 'partition' 'tset'"):
        evaluate(Request(str(whole[0]), str(release.folder), "partition:tset", output=tmp_path))


def test_published_labels_need_a_partition(release, tmp_path):
    config = CONFIG.model_copy(update={"labels": "published"})
    with pytest.raises(VcmbenchError, match=r"train\.yml: labels: found published, expected all"):
        trained(release, tmp_path, config)


def test_slabs_predict_what_the_whole_device_gives(release, whole):
    model = load_model(str(whole[0])).model
    model = replace(model, network=model.network.double())
    expected = model.predict(release.device("wire").structure)
    found = np.full(expected.pattern.n_entries, np.nan)
    everything = np.ones(expected.pattern.n_blocks, dtype=bool)
    for slab in device_slabs(
        expected.pattern, everything, width_ang=9.0, reach_ang=model.reach_ang
    ):
        part = excerpt(expected.pattern, slab.blocks, slab.sites)
        assert part.structure.n_sites < expected.pattern.structure.n_sites
        found[expected.pattern.entry_index(slab.blocks)] = model.predict_blocks(part).values
    np.testing.assert_allclose(found, expected.values, atol=1e-13)
    base = model.base.predict(release.device("wire").structure)
    assert np.abs(expected.values - base.values).max() > 1e-3


_WORKER = """
import sys
from pathlib import Path
from vcmbench.models.slater_koster import Settings
from vcmbench.models.slater_koster_fit import fit_slater_koster
from vcmbench.release import Release
from vcmbench.training import run
from vcmbench.training.config import TrainingConfig
from vcmbench.processes import team

small = Settings(n_two_centre=6, n_response=1, n_neighbour=1, degree=1)
run.fit_slater_koster = lambda h: fit_slater_koster(h, small)
config = TrainingConfig.model_validate_json(sys.argv[1])
with team("cpu") as processes:
    assert processes.size == 2
    run.train(config, "toy", Release.open(Path(sys.argv[2])), "device", Path(sys.argv[3]),
              team=processes)
"""


def test_two_processes_train_as_one(release, tmp_path):
    update = {"batches_per_step": 2, "epochs": 1, "validate_every": 1}
    config = CONFIG.model_copy(update={"optimiser": OPTIMISER.model_copy(update=update)})
    trained(release, tmp_path / "one", config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    arguments = [config.model_dump_json(), str(release.folder), str(tmp_path / "two")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    one, two = (log_of(tmp_path / name)[0] for name in ("one", "two"))
    for name in ("steps", "train_mev", "validation_mev"):
        assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-4)
    weights = [load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)
