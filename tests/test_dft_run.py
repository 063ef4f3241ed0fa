"""The runner: whatever CP2K does, nothing unconverged passes and nothing finished is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_cp2k import FakeCp2k

from vcmbench.build.metal import tin_cell
from vcmbench.dft import run as runner
from vcmbench.dft.cp2k_input import RESTART_NAME, Cp2kSettings
from vcmbench.dft.run import LADDER, LOG, RECORD, RunRecord, hopeless, run_scf
from vcmbench.errors import VcmbenchError

FALLING = [1.9, 0.06, 0.2, 0.008, 0.0003, 9e-7]
CONVERGES = {"residuals": FALLING, "end": "converged"}
GIVES_OUT = {"residuals": [1.9, 0.5, 0.4], "end": "not converged"}
DIVERGES = {"residuals": [1.0, 0.01] + [0.5] * 13, "end": "hang", "save_at": 2}
STAGNATES = {"residuals": [1.0, 0.01] + [0.011] * 40, "end": "hang", "save_at": 2}

# Printed by CP2K for three runs that converged: two devices of 294 sites and the TiN cell.
DEVICE_A = [
    1.91, 1.6, 1.89, 1.93, 1.18, 1.38, 1.33, 1.07, 0.629, 0.53, 0.256, 0.259, 0.185, 0.19, 0.164,
    0.113, 0.101, 0.0794, 0.0402, 0.0305, 0.0145, 0.0207, 0.0129, 0.00761, 0.00873, 0.00661,
    0.00292, 0.00227, 0.00113, 0.000992, 0.000892, 0.000614, 0.000311, 0.000241, 0.000217, 9.46e-05,
    5.85e-05, 4.37e-05, 3.2e-05, 2.08e-05, 1.64e-05, 9.58e-06, 6.04e-06, 4.74e-06, 3.06e-06,
    2.64e-06, 2.59e-06, 1.8e-06, 9.2e-07,
]  # fmt: skip
DEVICE_B = [
    1.92, 0.557, 0.65, 0.863, 0.477, 0.27, 0.125, 0.0897, 0.0381, 0.0387, 0.0276, 0.0159, 0.00709,
    0.00692, 0.00456, 0.00177, 0.00172, 0.00116, 0.00114, 0.000856, 0.000543, 0.000241, 0.00016,
    0.000126, 0.000144, 0.000112, 0.000101, 3.92e-05, 3.03e-05, 2.09e-05, 3.17e-05, 2.36e-05,
    1.43e-05, 1e-05, 4.63e-06, 3.08e-06, 2.07e-06, 2.09e-06, 1.42e-06, 9.8e-07,
]  # fmt: skip
LEAD = [
    1.84, 0.0577, 0.198, 0.00756, 0.019, 0.0457, 0.00294, 0.00111, 0.000333, 1.72e-05, 3.4e-05,
    1.39e-06, 7.34e-06, 1.7e-07,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(runner, "_POLL_S", 0.02)
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.5)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run"


def scf(folder, fake, **options) -> RunRecord:
    structure = options.pop("structure", tin_cell())
    settings = options.pop("settings", Cp2kSettings())
    return run_scf(folder, structure, settings, fake.launcher, **options)


def outcomes(record: RunRecord) -> list[str]:
    return [attempt.outcome for attempt in record.attempts]


def saved(folder) -> RunRecord:
    return RunRecord.model_validate_json((folder / RECORD).read_bytes())


def alive(pid: int) -> bool:
    """Whether a process runs (one that only waits to be reaped does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds=10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time allowed"
        time.sleep(0.02)


# Attempts


def test_converges_at_once(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", CONVERGES)
    told = []
    record = scf(folder, fake, progress=lambda *step: told.append(step))
    assert record.converged
    assert saved(folder) == record
    assert outcomes(record) == ["converged"]
    assert (record.steps, record.attempts[0].residual) == (6, 9e-7)
    assert record.attempts[0].mixing == LADDER[0]
    assert record.attempts[0].start == "atomic"
    assert record.peak_memory_mib == 273
    assert told[-1] == (6, 9e-7)
    assert fake.starts == [{"guess": "ATOMIC", "density": None, "alpha": 0.1, "readable": False}]
    assert list(folder.glob("*.csr"))


def test_converged_run_is_not_run_again(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", CONVERGES)
    assert scf(folder, fake) == scf(folder, fake)
    assert len(fake.starts) == 1


def test_deleted_matrices_are_printed_again(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", CONVERGES, {"residuals": [5e-7], "end": "converged"})
    scf(folder, fake)
    for path in folder.glob("*.csr"):
        path.unlink()
    record = scf(folder, fake)
    assert [attempt.start for attempt in record.attempts] == ["atomic", "saved"]
    assert record.steps == 7
    assert list(folder.glob("*.csr"))


def test_starts_from_the_density_it_is_given(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", CONVERGES)
    record = scf(folder, fake, start_density=("sibling", tmp_path / "bin/density.kp"))
    assert record.attempts[0].start == "sibling"
    assert fake.starts[0]["guess"] == "RESTART"
    assert fake.starts[0]["readable"]


@pytest.mark.parametrize(
    ("bad", "outcome", "steps"),
    [
        (GIVES_OUT, "not converged", 3),
        ({**GIVES_OUT, "end": "not converged, 2024"}, "not converged", 3),
        (DIVERGES, "given up", 15),
        (STAGNATES, "given up", 42),
    ],
)
def test_next_mixing_goes_on_from_the_saved_density(folder, tmp_path, bad, outcome, steps):
    fake = FakeCp2k(tmp_path / "bin", bad, CONVERGES)
    told = []
    record = scf(folder, fake, progress=lambda *step: told.append(step))
    assert outcomes(record) == [outcome, "converged"]
    assert [attempt.mixing for attempt in record.attempts] == list(LADDER[:2])
    assert [attempt.start for attempt in record.attempts] == ["atomic", "saved"]
    assert [attempt.steps for attempt in record.attempts] == [steps, 6]
    assert told[-1] == (steps + 6, 9e-7)
    again = {"guess": "RESTART", "density": RESTART_NAME, "alpha": 0.05, "readable": True}
    assert fake.starts[1] == again
    assert (folder / "out-1.log.old").exists()
    assert [path.read_text() for path in folder.glob("*.csr")] == ["matrix of start 2"]


def test_no_mixing_converges(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", GIVES_OUT, DIVERGES, STAGNATES, CONVERGES)
    message = r"found no convergence to 1e-06 with any of 3 mixings \(60 steps\)"
    for _ in range(2):
        with pytest.raises(VcmbenchError, match=message):
            scf(folder, fake)
    assert outcomes(saved(folder)) == ["not converged", "given up", "given up"]
    assert not saved(folder).converged
    assert [start["alpha"] for start in fake.starts] == [0.1, 0.05, 0.02]


def test_crash_is_told_in_cp2ks_words(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", {"end": "abort"}, {"end": "crash"}, CONVERGES)
    words = "An invalid set of cell vectors was specified. The determinant det(h) is too small"
    with pytest.raises(VcmbenchError) as caught:
        scf(folder, fake)
    assert str(caught.value) == f"{folder / LOG}: CP2K failed: {words} qs_scf.F:611"
    with pytest.raises(VcmbenchError, match=r"out\.log: CP2K failed: Segmentation fault: invalid"):
        scf(folder, fake)
    assert outcomes(saved(folder)) == ["failed", "failed"]
    # A crash says nothing about the mixing.
    record = scf(folder, fake)
    assert record.converged
    assert record.attempts[-1].mixing == LADDER[0]


def test_program_that_is_not_there(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", CONVERGES)
    Path(fake.launcher.program).unlink()
    with pytest.raises(VcmbenchError, match=r"CP2K failed: .*not found"):
        scf(folder, fake)


# Interruptions


def interrupt(_steps, _residual):
    raise KeyboardInterrupt


@pytest.mark.parametrize("execs", [True, False])
@pytest.mark.parametrize("deaf", [False, True])
def test_interrupted_run_ends_everywhere_and_goes_on(folder, tmp_path, execs, deaf):
    hanging = {"residuals": FALLING[:3], "end": "hang", "save_at": 2, "deaf": deaf}
    fake = FakeCp2k(tmp_path / "bin", hanging, CONVERGES, execs=execs)

    def interrupt_late(steps, _residual):
        if steps == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scf(folder, fake, progress=interrupt_late)
    wait_until(lambda: not alive(int((folder / "pid").read_text())), 3)
    record = saved(folder)
    assert outcomes(record) == ["interrupted"]
    assert record.steps == 3
    told = []
    record = scf(folder, fake, progress=lambda *step: told.append(step))
    assert outcomes(record) == ["interrupted", "converged"]
    assert [attempt.start for attempt in record.attempts] == ["atomic", "saved"]
    assert [attempt.mixing for attempt in record.attempts] == [LADDER[0]] * 2
    assert record.steps == 9
    assert told[-1][0] == 9


def test_interrupted_before_anything_was_saved(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", {"residuals": [1.9], "end": "hang"}, CONVERGES)
    with pytest.raises(KeyboardInterrupt):
        scf(folder, fake, progress=interrupt)
    record = scf(folder, fake)
    assert [attempt.start for attempt in record.attempts] == ["atomic", "atomic"]


@pytest.mark.parametrize(("earlier", "start"), [(True, "saved"), (False, "atomic")])
def test_density_cut_short_is_not_started_from(folder, tmp_path, earlier, start):
    """CP2K writes it in place, and keeps the one before."""
    torn = {"residuals": [1.9, 0.5], "end": "hang", "save_at": 1, "torn": True}
    fake = FakeCp2k(tmp_path / "bin")
    steps = [{"residuals": [1.9], "end": "hang", "save_at": 1}] if earlier else []
    fake.plan(*steps, torn, CONVERGES)
    for _ in (*steps, torn):
        with pytest.raises(KeyboardInterrupt):
            scf(folder, fake, progress=lambda *_: time.sleep(0.2) or interrupt(0, 0))
    record = scf(folder, fake)
    assert record.converged
    assert record.attempts[-1].start == start
    assert fake.starts[-1]["readable"] == earlier


_CALLER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from vcmbench.build.metal import tin_cell
from vcmbench.dft import run
from vcmbench.dft.cp2k_input import Cp2kSettings
from vcmbench.dft.launcher import Launcher
run._POLL_S = 0.02
launcher = Launcher({program!r}, {mpi!r}, 2, {{}})
run.run_scf(Path({folder!r}), tin_cell(), Cp2kSettings(), launcher)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="children end with their parent on Linux only")
def test_killed_caller_takes_cp2k_with_it_and_the_next_goes_on(folder, tmp_path):
    hanging = {"residuals": FALLING[:3], "end": "hang", "save_at": 2}
    fake = FakeCp2k(tmp_path / "bin", hanging, hanging, CONVERGES)
    code = _CALLER.format(
        tests=str(Path(__file__).parent),
        program=fake.launcher.program,
        mpi=fake.launcher.mpi,
        folder=str(folder),
    )
    for _ in range(2):
        (folder / "pid").unlink(missing_ok=True)
        caller = subprocess.Popen(
            [sys.executable, "-c", code], cwd=Path(runner.__file__).parents[2]
        )
        wait_until(lambda: (folder / "pid").exists() and (folder / LOG).exists(), 30)
        wait_until(lambda: "0.20000000" in (folder / LOG).read_text())
        wait_until(lambda: (folder / RESTART_NAME).exists())
        pid = int((folder / "pid").read_text())
        assert alive(pid)
        caller.send_signal(signal.SIGKILL)
        caller.wait()
        wait_until(lambda pid=pid: not alive(pid))
    record = scf(folder, fake)
    assert outcomes(record) == ["interrupted", "interrupted", "converged"]
    assert [attempt.start for attempt in record.attempts] == ["atomic", "saved", "saved"]
    assert [attempt.steps for attempt in record.attempts] == [3, 3, 6]
    assert {"out-1.log.old", "out-2.log.old", LOG} <= {path.name for path in folder.iterdir()}


# Whose folder it is


def test_second_caller_is_refused(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", CONVERGES)
    refused = []

    def call_again(*_step):
        with pytest.raises(VcmbenchError, match="another process is running here") as caught:
            scf(folder, fake)
        refused.append(caught.value)

    assert scf(folder, fake, progress=call_again).converged
    assert refused
    assert len(fake.starts) == 1


def test_folder_of_another_run_is_refused(folder, tmp_path):
    fake = FakeCp2k(tmp_path / "bin", CONVERGES)
    scf(folder, fake)
    moved = tin_cell().positions.copy()
    moved[0, 0] += 0.01
    with pytest.raises(VcmbenchError, match=r"run\.json: structure_sha256: found .* another run's"):
        scf(folder, fake, structure=tin_cell().moved(moved))
    with pytest.raises(VcmbenchError, match=r"run\.json: settings: found .*cutoff_ry=400\.0"):
        scf(folder, fake, settings=Cp2kSettings(cutoff_ry=300))
    # The ladder decides the mixing, whatever the settings say.
    mixing = LADDER[2]
    assert scf(folder, fake, settings=Cp2kSettings(mixing=mixing)).converged


# When to give up


@pytest.mark.parametrize("residuals", [DEVICE_A, DEVICE_B, LEAD], ids=["a", "b", "lead"])
def test_runs_that_converged_are_never_given_up(residuals):
    assert not any(hopeless(residuals[:step]) for step in range(len(residuals) + 1))


def test_runs_that_lead_nowhere_are_given_up():
    diverging = [1.0, 0.1, 0.01] + [0.3 * 1.2**n for n in range(20)]
    assert not hopeless(diverging[:14])
    assert hopeless(diverging[:15])
    stagnating = [1.0, 0.1, 0.01] + [0.012] * 60
    assert not hopeless(stagnating[:38])
    assert hopeless(stagnating[:39])
    oscillating = DEVICE_A[:30] + [0.002, 0.001, 0.004] * 20
    assert hopeless(oscillating)
    assert not hopeless([])
    # One spike is no divergence.
    assert not hopeless([1.0, 0.001, *[0.5] * 11, 0.002])
