"""The throughput protocol with models that take a known time and make known errors."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from score_toys import BASIS, make_device, make_pattern
from threadpoolctl import threadpool_info, threadpool_limits

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.scores import timing
from vcmbench.scores.hamiltonian import align, device_errors
from vcmbench.scores.result import Equivariance, Residual, Unavailable
from vcmbench.scores.throughput import measure, near_mae_mev
from vcmbench.scores.timing import Delivered, Timed, deliver, is_stable, repeat, warm_up


@pytest.fixture(scope="module")
def device():
    return make_device(make_pattern(n_sites=12))


def residuals(largest: float) -> Equivariance:
    one = Residual(largest=largest, mean=largest / 2)
    return Equivariance(
        rotation=one,
        inversion=one,
        permutation=one,
        translation=one,
        reimaging=one,
        n_sites=12,
        device="toy",
        seed=0,
    )


EXACT = residuals(1e-9)


class Oracle:
    """Knows the answer, adds an error, and records what it was asked."""

    def __init__(self, device, *, error_ev: float = 0.01, sleep_s: float = 0.0) -> None:
        self.matrix = device.hamiltonian
        self.matrix = self.matrix.with_values(self.matrix.values + error_ev)
        self.sleep_s = sleep_s
        self.asked: list = []
        self.threads: set[int] = set()

    def predict(self, structure) -> BlockMatrix:
        time.sleep(self.sleep_s)
        self.asked.append(structure)
        self.threads |= {pool["num_threads"] for pool in threadpool_info()}
        pattern = self.matrix.pattern
        moved = BlockPattern(structure, BASIS, pattern.pair, pattern.shift)
        return BlockMatrix(moved, self.matrix.values)


def test_figures_follow_from_the_median_time(device):
    model = Oracle(device, sleep_s=0.02)
    found = measure(
        model,
        device.id,
        device.hamiltonian,
        scored_mae_mev=10.0,
        equivariance=EXACT,
        repeats=3,
        threads=1,
    )
    both = device.hamiltonian.directed()
    pattern = both.pattern
    near = pattern.distance < 8.0
    assert found.n_sites == 12
    assert found.n_edges == (near & ~pattern.is_onsite).sum()
    assert found.n_nonzeros == np.count_nonzero(both.values[pattern.entry_mask(near)])
    assert 0.02 <= found.near.fastest_s <= found.near.median_s < 0.5
    assert found.near.atoms_per_s == pytest.approx(12 / found.near.median_s)
    assert found.atoms_per_s == found.near.atoms_per_s
    assert found.edges_per_s == pytest.approx(found.n_edges / found.near.median_s)
    assert found.nonzeros_per_s == pytest.approx(found.n_nonzeros / found.near.median_s)
    assert found.full.edges_per_s == pytest.approx((~pattern.is_onsite).sum() / found.full.median_s)
    assert found.near.n_repeats == 3
    assert found.cold_start_s >= 0.02
    assert found.stages_s is None
    assert found.counts
    assert found.accelerator == "cpu"
    assert found.peak_memory_kind == "resident increment"


def test_every_prediction_has_other_positions_but_the_one_that_is_checked(device):
    model = Oracle(device)
    found = measure(
        model,
        device.id,
        device.hamiltonian,
        scored_mae_mev=10.0,
        equivariance=EXACT,
        repeats=3,
        seed=5,
    )
    positions = [structure.positions.tobytes() for structure in model.asked]
    assert len(set(positions)) == len(positions)
    assert len(positions) == found.near.n_warmup + found.full.n_warmup + 2 * 3 + 1
    assert positions[-1] == device.structure.positions.tobytes()
    away = np.array([s.positions - device.structure.positions for s in model.asked[:-1]])
    assert away.std() == pytest.approx(timing.JITTER_ANG, rel=0.2)
    again = Oracle(device)
    measure(
        again,
        device.id,
        device.hamiltonian,
        scored_mae_mev=10.0,
        equivariance=EXACT,
        repeats=3,
        seed=5,
    )
    assert again.asked[0].positions.tobytes() == positions[0]


def test_threads_are_pinned_and_given_back(device):
    def timed(**options):
        return measure(
            model,
            device.id,
            device.hamiltonian,
            scored_mae_mev=10.0,
            equivariance=EXACT,
            repeats=1,
            **options,
        )

    before = [pool["num_threads"] for pool in threadpool_info()]
    model = Oracle(device)
    assert timed(threads=1).threads == 1
    assert model.threads == {1}
    assert [pool["num_threads"] for pool in threadpool_info()] == before
    assert timed().threads == max(before)
    with threadpool_limits(1):
        assert timed().threads == 1


def peak_can_be_reset() -> bool:
    try:
        return Path("/proc/self/clear_refs").write_text("5") == 1
    except OSError:
        return False


@pytest.mark.skipif(not peak_can_be_reset(), reason="the system keeps no peak that can be reset")
def test_peak_memory_is_what_the_model_needed(device):
    class Greedy(Oracle):
        def predict(self, structure):
            np.ones(8 * 2**20).sum()
            return super().predict(structure)

    assert (
        measure(
            Oracle(device),
            device.id,
            device.hamiltonian,
            scored_mae_mev=10.0,
            equivariance=EXACT,
            repeats=1,
        ).peak_memory_bytes
        < 48 * 2**20
    )
    found = measure(
        Greedy(device),
        device.id,
        device.hamiltonian,
        scored_mae_mev=10.0,
        equivariance=EXACT,
        repeats=1,
    )
    assert 60 * 2**20 < found.peak_memory_bytes < 160 * 2**20


def test_gates(device):
    def gates(scored_mae_mev, equivariance, error_ev=0.01):
        model = Oracle(device, error_ev=error_ev)
        return measure(
            model,
            device.id,
            device.hamiltonian,
            scored_mae_mev=scored_mae_mev,
            equivariance=equivariance,
            repeats=1,
        )

    good = gates(10.05, EXACT)
    assert good.gates.mae_mev == pytest.approx(10, rel=1e-4)
    assert good.counts
    other_weights = gates(10.2, EXACT)
    assert not other_weights.gates.accuracy
    assert not other_weights.counts
    turned = gates(10.0, residuals(2e-4))
    assert turned.gates.equivariance_residual == 2e-4
    assert not turned.gates.equivariance
    assert not turned.counts
    unknown = gates(10.0, Unavailable(reason="not asked for"))
    assert unknown.gates.equivariance_residual is None
    assert not unknown.counts
    assert gates(0.0, EXACT, error_ev=0.0).gates.accuracy  # float32 is no other accuracy


def test_delivered_layout(device):
    model = Oracle(device)
    pattern = device.pattern
    near = device.hamiltonian.truncate(8.0)
    found = deliver(model, device.structure, 8.0)
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.pair, near.pattern.pair)
    np.testing.assert_array_equal(found.shift, near.pattern.shift)
    np.testing.assert_allclose(found.values, near.values + 0.01, rtol=1e-5, atol=1e-6)
    assert len(deliver(model, device.structure, 12.0).pair) == pattern.n_blocks
    directed = SimpleNamespace(predict=lambda s: model.predict(s).directed())
    np.testing.assert_array_equal(deliver(directed, device.structure, 8.0).pair, found.pair)


def test_models_that_can_leave_out_far_blocks_are_timed_so_and_report_stages(device):
    class Stepwise(Oracle):
        cutoffs: tuple[float, ...] = ()

        def predict_within(self, structure, cutoff_ang):
            self.cutoffs = (*self.cutoffs, cutoff_ang)
            return self.predict(structure).truncate(cutoff_ang)

        def stage_seconds(self):
            return {"neighbour list": 0.25, "forward": float(len(self.cutoffs))}

    model = Stepwise(device)
    found = measure(
        model, device.id, device.hamiltonian, scored_mae_mev=10.0, equivariance=EXACT, repeats=3
    )
    assert set(model.cutoffs) == {8.0, 12.0}
    stages = dict(found.stages_s)
    assert 0 < stages.pop("delivery") < found.near.median_s
    assert stages == {
        "neighbour list": 0.25,
        "forward": found.near.n_warmup + 2,  # the median of three
    }


def test_models_may_deliver_the_layout_themselves(device):
    class Direct(Oracle):
        def deliver(self, structure, cutoff_ang):
            near = self.predict(structure).truncate(cutoff_ang)
            return near.pattern.pair, near.pattern.shift, near.values.astype(np.float32)

    found = deliver(Direct(device), device.structure, 8.0)
    expected = deliver(Oracle(device), device.structure, 8.0)
    assert isinstance(found, Delivered)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    matrix = found.matrix(device.structure, device.basis)
    assert near_mae_mev(device.hamiltonian, matrix) == pytest.approx(10.0, rel=1e-4)
    backwards = Delivered(found.pair[::-1], found.shift[::-1], found.values)
    with pytest.raises(VcmbenchError, match="out of order"):
        backwards.matrix(device.structure, device.basis)


def test_mae_is_that_of_the_score(device):
    rng = np.random.default_rng(0)
    values = device.hamiltonian.values + rng.normal(scale=0.02, size=device.pattern.n_entries)
    predicted = BlockMatrix(device.pattern, values).truncate(7.0)
    scored = device_errors(
        device.id, device.hamiltonian, device.overlap, align(predicted, device.pattern)
    )
    found = near_mae_mev(device.hamiltonian, predicted)
    assert found == pytest.approx(scored.statistic.mae_mev, rel=1e-12)


def test_warm_up_lasts_until_times_are_stable(device, monkeypatch):
    assert not is_stable([1.0, 1.0, 1.0])
    assert is_stable([1.0, 1.0, 1.0, 1.0])
    assert is_stable([9.0, 1.0, 1.0, 1.0])
    assert not is_stable([9.0, 3.0, 2.0, 1.0])
    assert is_stable([9.0, 5.0, 1.0, 1.0, 1.02, 1.01])

    def run(*times_s, max_warmup=8):
        script = iter([*times_s, *[1.0] * 100])
        monkeypatch.setattr(timing.Stopwatch, "time", lambda *_: Timed(next(script), None))
        options = {"scored_mae_mev": 10.0, "equivariance": EXACT, "repeats": 3}
        model = Oracle(device)
        found = measure(model, device.id, device.hamiltonian, max_warmup=max_warmup, **options)
        return found.cold_start_s, found.near.n_warmup, found.near.stable, found.near.median_s

    assert run(9.0, 8.0, 4.0, 2.0) == (9.0, 7, True, 1.0)
    assert run(9.0, 8.0, 4.0, 2.0, 7.0, 8.0, 9.0, max_warmup=4) == (9.0, 4, False, 8.0)


def test_time_that_is_up_ends_warm_up_and_repetitions():
    def once() -> Timed:
        return Timed(2.0, None)

    assert warm_up(once, budget_s=3.0) == [2.0, 2.0, 2.0]
    assert len(warm_up(once, budget_s=0.0)) == 1
    assert len(repeat(once, fewest=2, most=50, budget_s=9.0)) == 5
    assert len(repeat(once, fewest=2, most=50, budget_s=-1.0)) == 2
    assert len(repeat(once, fewest=2, most=4)) == 4


def test_cuda_needs_a_board(device, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(VcmbenchError, match="no CUDA board"):
        measure(
            Oracle(device),
            device.id,
            device.hamiltonian,
            scored_mae_mev=10.0,
            equivariance=EXACT,
            accelerator="cuda",
        )


def test_cuda_is_synchronised_around_every_prediction(device, monkeypatch):
    log: list[str] = []
    cuda = SimpleNamespace(
        is_available=lambda: True,
        get_device_name=lambda: "Toy board",
        synchronize=lambda: log.append("synchronise"),
        reset_peak_memory_stats=lambda: log.append("reset"),
        max_memory_allocated=lambda: 12345,
    )
    torch = SimpleNamespace(cuda=cuda, get_num_threads=lambda: 3, set_num_threads=log.append)
    monkeypatch.setitem(sys.modules, "torch", torch)

    class Logging(Oracle):
        def predict(self, structure):
            log.append("predict")
            return super().predict(structure)

    found = measure(
        Logging(device),
        device.id,
        device.hamiltonian,
        scored_mae_mev=10.0,
        equivariance=EXACT,
        accelerator="cuda",
        repeats=2,
        threads=2,
    )
    assert (found.accelerator, found.accelerator_name) == ("cuda", "Toy board")
    assert (found.peak_memory_bytes, found.peak_memory_kind) == (12345, "cuda allocator")
    assert log[0] == 2
    assert log[-1] == 3
    assert log[1] == "reset"
    timed = log[2:-2]
    assert timed == ["synchronise", "predict", "synchronise"] * (len(timed) // 3)
