"""Readings of the board, and of one that refuses some of them."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest
from fake_board import GIB, FakeNvml, fake_torch
from throughput_toys import Honest

from vcmbench.scores.result import Unavailable
from vcmbench.throughput import trial as trials
from vcmbench.throughput.document import Devices, Measured
from vcmbench.throughput.nvml import EnergyMeter, Nvml
from vcmbench.throughput.trial import Trial, run


@pytest.fixture
def machine(monkeypatch):
    """Install torch and NVML of a toy board and say what they were asked."""

    def install(*refused: str) -> SimpleNamespace:
        memory = SimpleNamespace(now=GIB, peak=GIB, reserved=3 * GIB)
        nvml = FakeNvml(time.perf_counter, set(refused))
        torch = fake_torch(memory)
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return SimpleNamespace(memory=memory, nvml=nvml, torch=torch)

    return install


def test_board_is_found_by_what_torch_calls_it(machine):
    def handle(*refused: str):
        found = Nvml.find(machine(*refused).torch)
        return found if isinstance(found, Unavailable) else found._handle

    by_uuid, by_address = "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleByPciBusId"
    assert handle() == "board by uuid"
    assert handle(by_uuid) == "board by address"
    assert handle(by_uuid, by_address) == "board 0"
    several = machine(by_uuid, by_address)
    several.nvml.nvmlDeviceGetCount = lambda: 8
    assert "which of 8 boards" in Nvml.find(several.torch).reason
    assert "Not Supported" in handle("nvmlInit").reason


def test_a_refused_reading_costs_no_other(machine):
    facts = Nvml.find(machine().torch).facts()
    assert (facts.driver, facts.sm_clock_mhz, facts.power_cap_w) == ("580.1", 1980, 700)
    assert (facts.clock_event_reasons, facts.ecc, facts.mig) == ("0x4", True, False)
    fewer = Nvml.find(machine("nvmlDeviceGetMigMode").torch).facts()
    assert fewer.mig == Unavailable(reason="NVMLError: Not Supported")
    assert fewer.model_copy(update={"mig": False}) == facts


@pytest.mark.parametrize("refused", [(), ("nvmlDeviceGetTotalEnergyConsumption",)])
def test_energy_by_counter_or_by_samples(machine, refused):
    meter = EnergyMeter(Nvml.find(machine(*refused).torch))
    assert meter.method == ("sampled power" if refused else "energy counter")
    with meter.window() as window:
        time.sleep(0.3)
    assert window.seconds >= 0.3
    assert window.power_w == pytest.approx(100.0, rel=0.02)


class OnBoard(Honest):
    """Needs 5 GiB of the board and half a second of it for each prediction."""

    machine: SimpleNamespace

    def predict_within(self, structure, cutoff_ang):
        machine = OnBoard.machine
        machine.memory.peak = max(machine.memory.peak, 6 * GIB)
        machine.nvml.used = 8 * GIB
        machine.nvml.busy_s += 0.5
        return super().predict_within(structure, cutoff_ang)


def make(accelerator: str) -> OnBoard:
    return OnBoard()


def make_elsewhere(accelerator: str) -> Honest:
    return Honest()


@pytest.fixture
def trial(wire_release, monkeypatch):
    monkeypatch.setattr(trials, "IDLE_S", 0.1)
    monkeypatch.setattr(trials, "ENERGY_WINDOW_S", 0.2)
    return Trial(
        model="test_throughput_board:make",
        release=str(wire_release),
        devices=["wire"],
        device="wire",
        copies=(2, 1),
        scored_mae_mev=1.0,
        accelerator="cuda",
        threads=1,
        seed=0,
        max_seconds=1.0,
    )


def test_measurement_on_a_board(machine, trial):
    OnBoard.machine = machine()
    found = run(trial)
    assert isinstance(found, Measured)
    board = found.accelerator
    assert (board.name, board.memory_bytes, board.compute_capability) == (
        "Toy board",
        140 * GIB,
        "9.0",
    )
    assert board.used
    assert board.flags["TF32 in matmul"] == "False"
    assert board.flags["CUDA"] == "13.0"
    assert board.flags["cuDNN"].startswith("unavailable: AttributeError")
    assert board.reported == {"back end": "numpy", "compiled": "False"}
    assert board.board.sm_clock_mhz == 1980
    memory = found.memory
    assert (memory.allocator_peak_bytes, memory.allocator_reserved_bytes) == (6 * GIB, 3 * GIB)
    assert (memory.board_idle_bytes, memory.board_used_bytes) == (2 * GIB, 8 * GIB)
    energy = found.energy
    assert energy.idle_power_w == pytest.approx(100.0, rel=0.02)
    assert energy.n_predictions >= found.near.n_repeats
    # Each prediction costs 400 W for half a second above idling.
    assert energy.joules_per_atom == pytest.approx(200.0 / found.n_sites, rel=0.02)
    assert energy.window_s >= 0.2


def test_a_board_without_energy_or_nvml_still_gives_times(machine, trial):
    refused = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    OnBoard.machine = machine(*refused)
    found = run(trial)
    assert "Not Supported" in found.energy.reason
    assert found.memory.board_used_bytes == 8 * GIB
    OnBoard.machine = machine("nvmlInit")
    found = run(trial)
    assert "Not Supported" in found.energy.reason
    assert "Not Supported" in found.accelerator.board.reason
    assert "Not Supported" in found.memory.board_used_bytes.reason
    assert found.memory.allocator_peak_bytes == 6 * GIB
    assert found.near.median_s > 0


def test_a_model_that_leaves_the_board_alone_does_not_count(machine, trial):
    machine()
    alone = trial.model_copy(
        update={
            "model": "test_throughput_board:make_elsewhere",
            "copies": None,
            "scored_mae_mev": None,
        }
    )
    found = run(alone)
    assert isinstance(found, Devices)
    assert found.gates.passed
    assert not found.accelerator.used
    assert not found.counts


@pytest.mark.gpu
def test_readings_of_a_real_board():
    torch = pytest.importorskip("torch")
    pytest.importorskip("pynvml")
    nvml = Nvml.find(torch)
    assert isinstance(nvml, Nvml), nvml
    torch.ones(2**20, device="cuda").sum().item()
    assert nvml.used_bytes() > 0
    assert nvml.facts().driver
    meter = EnergyMeter(nvml)
    with meter.window() as window:
        time.sleep(1.0)
    assert 10 < window.power_w < 1500
