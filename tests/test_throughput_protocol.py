"""The protocol: what is measured in a process of its own, and what stands there when it fails."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rich.console import Console
from throughput_toys import Remembering

from vcmbench.cli import main
from vcmbench.documents import read_json
from vcmbench.errors import VcmbenchError
from vcmbench.scores.result import Unavailable
from vcmbench.throughput import run as protocol
from vcmbench.throughput import trial as trials
from vcmbench.throughput.document import Devices, Failed, Measured, Throughput
from vcmbench.throughput.failure import describe, describe_exit
from vcmbench.throughput.run import PLOT, REPORT, Request, parse_sizes, run, run_trial
from vcmbench.throughput.tables import print_throughput
from vcmbench.throughput.trial import Trial


@pytest.fixture
def here(monkeypatch):
    """Let the processes find the toys."""
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture
def in_this_process(monkeypatch):
    """Measure without new processes; return the names of what was measured."""
    started: list[str] = []

    def run_here(trial, folder, name, tell):
        started.append(name)
        done: list[int] = []

        def count() -> None:
            done.append(1)
            tell(len(done))

        return trials.run(trial, count)

    monkeypatch.setattr(protocol, "run_trial", run_here)
    return started


@pytest.fixture
def make_trial(wire_release):
    def make(model: str, **changes: object) -> Trial:
        fields: dict[str, object] = {
            "model": model if ":" not in model else f"throughput_toys{model}",
            "release": str(wire_release),
            "devices": ["wire"],
            "device": "wire",
            "copies": (2, 2),
            "scored_mae_mev": None,
            "accelerator": "cpu",
            "threads": 1,
            "seed": 0,
            "max_seconds": 0.2,
        }
        return Trial.model_validate(fields | changes)

    return make


def test_a_device_and_a_test_set(make_trial, wire):
    told: list[int] = []
    found = trials.run(make_trial("species-mean", copies=None), lambda: told.append(1))
    assert isinstance(found, Devices)
    assert found.model.name == "species-mean"
    assert found.counts
    assert found.n_sites == found.offline.atoms_per_s * found.offline.median_s == 80
    assert found.near.fastest_s <= found.near.median_s <= found.near.p90_s
    assert found.full.cutoff_ang == 12.0
    assert found.gates.accuracy
    assert found.gates.mae_mev == pytest.approx(found.gates.scored_mae_mev, rel=1e-4)
    assert found.mae_mev_by_device == {"wire": found.gates.mae_mev}
    series = (found.near, found.full, found.offline)
    assert len(told) == sum(latency.n_warmup + latency.n_repeats for latency in series)
    assert found.energy == Unavailable(reason="the CPU has no board")
    assert found.accelerator.threads == 1


def test_a_size_of_the_ladder(make_trial):
    alone = trials.run(make_trial(":Honest", copies=None))
    scored = alone.gates.scored_mae_mev
    found = trials.run(make_trial(":Honest", scored_mae_mev=scored))
    assert isinstance(found, Measured)
    assert found.counts
    assert (found.n_sites, found.n_edges) == (4 * alone.n_sites, 4 * alone.n_edges)
    assert found.n_nonzeros == 4 * alone.n_nonzeros
    assert found.gates.copies_residual < 1e-6
    assert set(found.stages_s) == {"forward", "delivery"}
    assert found.accelerator.reported == {"back end": "numpy", "compiled": "False"}
    other = trials.run(make_trial(":Honest", scored_mae_mev=1.02 * scored))
    assert not other.gates.accuracy
    assert not other.counts
    unknown = trials.run(make_trial(":Honest"))
    assert unknown.gates.scored_mae_mev == scored


def test_jitter_defeats_a_memory_of_positions(make_trial, monkeypatch):
    made: list[Remembering] = []

    class Watched(Remembering):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr("throughput_toys.Remembering", Watched)
    found = trials.run(make_trial(":Remembering", copies=None))
    assert isinstance(found, Devices)
    # What it knows again are the structures of the checks, which are not timed.
    assert made[0].hits <= 2
    n_timed = sum(s.n_warmup + s.n_repeats for s in (found.near, found.full, found.offline))
    assert len(made[0].known) >= n_timed


@pytest.mark.parametrize(
    ("cheat", "gate"), [("Stale", "equivariance"), ("Rough", "accuracy"), ("Lazy", "copies")]
)
def test_cheats_do_not_count(make_trial, cheat, gate):
    honest = trials.run(make_trial(":Honest", copies=None))
    scored = honest.gates.scored_mae_mev
    found = trials.run(make_trial(f":{cheat}", scored_mae_mev=scored))
    assert isinstance(found, Measured)
    assert not getattr(found.gates, gate)
    assert not found.counts


def test_refusals_are_told_apart_from_failures(make_trial):
    refused = trials.run(make_trial("slater-costar"))
    assert refused.outcome == "refused"
    assert "did you mean 'slater-koster'" in refused.error
    crashed = trials.run(make_trial(":OnLarge"))
    assert (crashed.outcome, crashed.error) == ("crashed", "ValueError: no such thing")


@pytest.mark.parametrize("greedy", ["Greedy", "GreedyInside"])
def test_memory_that_runs_out_is_a_result(make_trial, greedy):
    found = trials.run(make_trial(f":{greedy}"))
    assert (found.outcome, found.memory) == ("out of memory", "host")


def test_memory_of_torch_and_of_a_board(make_trial):
    torch = pytest.importorskip("torch")
    found = trials.run(make_trial(":GreedyTorch"))
    assert (found.outcome, found.memory) == ("out of memory", "host")
    board = describe(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
    assert (board.outcome, board.memory) == ("out of memory", "board")
    inside = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
    assert describe(inside).memory == "board"


def test_ends_of_processes():
    assert describe_exit(-signal.SIGKILL, "").memory == "host"
    aborted = describe_exit(-signal.SIGABRT, "terminate called\nwhat(): std::bad_alloc\n")
    assert (aborted.outcome, aborted.memory) == ("out of memory", "host")
    crashed = describe_exit(-signal.SIGSEGV, "a\nb\nc\nd\n")
    assert (crashed.outcome, crashed.error) == ("crashed", "SIGSEGV: b | c | d")
    assert describe_exit(3, "").error == "exit status 3: nothing on standard error"


def test_a_new_process_measures_the_same(make_trial, here, tmp_path):
    told: list[int] = []
    trial = make_trial(":Honest")
    found = run_trial(trial, tmp_path, "new", told.append)
    assert isinstance(found, Measured)
    assert found.counts
    assert found.accelerator.threads == 1
    assert len(found.accelerator.cpus) == 1
    assert found.accelerator.variables["OMP_NUM_THREADS"] == "1"
    # The predictions of the series, and that of the check of the copies.
    assert told == list(range(1, found.near.n_warmup + found.near.n_repeats + 2))
    ours = trials.run(trial)
    assert (found.n_edges, found.n_nonzeros) == (ours.n_edges, ours.n_nonzeros)
    assert found.gates.mae_mev == pytest.approx(ours.gates.mae_mev, rel=1e-6)
    assert not (tmp_path / "logs/new.json").exists()


def test_a_process_that_dies_leaves_a_result(make_trial, here, tmp_path):
    died = run_trial(make_trial(":Dying"), tmp_path, "dying")
    assert died.outcome == "crashed"
    assert died.error.startswith("SIGSEGV")
    assert (tmp_path / "logs/dying.log").exists()


def test_a_process_that_hangs_is_ended(make_trial, here, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "START_S", 20.0)
    hung = run_trial(make_trial(":Hanging"), tmp_path, "hanging")
    assert hung.outcome == "timed out"
    assert "--max-seconds-per-size" in hung.error


def test_report_resumes_and_goes_on_after_failures(
    wire_release, in_this_process, tmp_path, monkeypatch
):
    started = in_this_process
    real = protocol.run_trial
    request = Request(
        model="species-mean",
        dataset=str(wire_release),
        threads=1,
        sizes=(80, 160),
        max_seconds=0.2,
        output=tmp_path,
    )
    texts: list[str] = []
    report, folder = run(request, texts.append)
    assert started == ["devices", "80-sites", "160-sites"]
    assert report == read_json(Throughput, folder / REPORT)
    assert [r.result.counts for r in report.ladder.rungs] == [True, True]
    assert report.ladder.largest_that_fits == 160
    assert report.ladder.smallest_that_does_not is None
    assert report.ladder.slope.sizes == [80, 160]
    assert (folder / PLOT).stat().st_size > 10_000
    assert any(text.startswith("160 sites (size 2 of 2), ") for text in texts)
    assert run(request).report == report
    assert len(started) == 3

    # Another size is all that is measured; what died is tried again, larger sizes after all.
    def fail(trial, folder, name, tell):
        n_copies = 1 if trial.copies is None else trial.copies[0] * trial.copies[1]
        if n_copies < 4:
            return real(trial, folder, name, tell)
        started.append(name)
        if n_copies == 4:
            return Failed(outcome="crashed", error="SIGSEGV")
        return Failed(outcome="out of memory", memory="host", error="MemoryError")

    monkeypatch.setattr(protocol, "run_trial", fail)
    more = Request(
        model="species-mean",
        dataset=str(wire_release),
        threads=1,
        sizes=(80, 160, 320, 500, 1000),
        max_seconds=0.2,
        output=tmp_path,
    )
    ladder = run(more).report.ladder
    outcomes = [r.result.outcome for r in ladder.rungs]
    assert outcomes == ["measured", "measured", "crashed", "out of memory", "skipped"]
    assert ladder.rungs[-1].result.error == f"{ladder.rungs[3].n_sites} sites: out of memory"
    assert (ladder.largest_that_fits, ladder.smallest_that_does_not) == (
        160,
        ladder.rungs[3].n_sites,
    )
    assert started[3:] == ["320-sites", f"{ladder.rungs[3].n_sites}-sites"]
    run(more)
    assert started[5:] == ["320-sites"]
    text = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_throughput(run(more).report, text)
    shown = text.export_text()
    for expected in ("crashed", "out of memory", "skipped", "slope", "offline, 1 device"):
        assert expected in shown


def test_bad_requests(wire_release, tmp_path):
    for text in ("", "300,,1000", "abc", "0", "-5", "3e3"):
        with pytest.raises(VcmbenchError, match="--sizes"):
            parse_sizes(text)
    assert parse_sizes("300, 1000") == (300, 1000)
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    with pytest.raises(VcmbenchError, match="cannot be timed"):
        run(Request(model=str(predictions), dataset=str(wire_release), output=tmp_path))
    with pytest.raises(VcmbenchError, match="did you mean 'slater-koster'"):
        run(Request(model="slater-costar", dataset=str(wire_release), output=tmp_path / "out"))
    assert not (tmp_path / "out" / REPORT).exists()


def test_command_line(wire_release, in_this_process, tmp_path, monkeypatch, capsys):
    def call(*arguments: str) -> str:
        output = ("--dataset", str(wire_release), "--output", str(tmp_path))
        monkeypatch.setattr("sys.argv", ["vcmbench", "throughput", *arguments, *output])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None), capsys.readouterr().err
        return capsys.readouterr().out

    options = ("--threads", "1", "--sizes", "80,160", "--max-seconds-per-size", "0.2")
    shown = call("species-mean", *options)
    assert "Ladder: wire" in shown
    assert "slope" in shown
    report = Throughput.model_validate_json(call("species-mean", *options, "--json"))
    assert report == read_json(Throughput, tmp_path / REPORT)
    assert in_this_process == ["devices", "80-sites", "160-sites"]
    monkeypatch.setattr("sys.argv", ["vcmbench", "throughput", "species-mean", "--sizes", "1,x"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--sizes: found 'x'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slater-koster", "so2-local"])
def test_baselines_count(make_trial, name):
    if name == "so2-local":
        pytest.importorskip("torch_geometric")
    found = trials.run(make_trial(name, copies=None))
    assert isinstance(found, Devices), found
    assert found.counts, found.gates
    size = trials.run(make_trial(name, scored_mae_mev=found.gates.scored_mae_mev))
    assert size.counts, size.gates
    assert sum(size.stages_s.values()) == pytest.approx(size.near.median_s, rel=0.2)


@pytest.mark.gpu
def test_a_network_on_a_board(make_trial):
    torch = pytest.importorskip("torch")
    found = trials.run(make_trial("so2-local", accelerator="cuda", max_seconds=2.0))
    assert isinstance(found, Measured), found
    assert found.counts, found.gates
    assert found.accelerator.name == torch.cuda.get_device_name()
    assert found.memory.allocator_peak_bytes > 0
