"""A stand-in for CP2K and its MPI: logs, matrices and restart files as real ones, by a plan."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.dft.launcher import Launcher
from vcmbench.dft.restart_file import write_restart
from vcmbench.structure import Structure

_MPIRUN = """#!/bin/sh
[ "$1" = --version ] && { echo "Fake MPI 1.0"; exit; }
shift 2
%s
"""

_PROGRAM = """#!{python} -IS
import json, os, re, signal, sys, time

assert sys.argv[1::2] == ["-i", "-o"]
with open(sys.argv[2]) as file:
    text = file.read()
with open({plan!r}) as file:
    plan = json.load(file)
step = plan["steps"][plan["next"]] if plan["next"] < len(plan["steps"]) else dict(end="crash")
plan["next"] += 1
with open({plan!r}, "w") as file:
    json.dump(plan, file)
if step.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open("pid", "w") as file:
    file.write(str(os.getpid()))


def value(keyword):
    found = re.search(rf"^ *{{keyword}} +(\\S+)", text, re.MULTILINE)
    return found and found[1]


density = value("WFN_RESTART_FILE_NAME")
with open({starts!r}, "a") as file:
    row = dict(guess=value("SCF_GUESS"), density=density, alpha=float(value("ALPHA")))
    row["readable"] = density is not None and os.path.exists(density)
    file.write(json.dumps(row) + "\\n")

log = open(sys.argv[4], "a")


def say(*lines):
    for line in lines:
        log.write(line + "\\n")
    log.flush()


def save():
    if os.path.exists("vcm-RESTART.kp"):
        os.rename("vcm-RESTART.kp", "vcm-RESTART.kp.bak-1")
    with open({density!r}, "rb") as source, open("vcm-RESTART.kp", "wb") as target:
        content = source.read()
        target.write(content[: len(content) // 2] if step.get("torn") else content)


def box(*words):
    rows = [" *   ___", " *  /   \\\\", " * [ABORT]", " *  \\\\___/   " + words[0]]
    rows += [" *    |      " + word for word in words[1:] or [""]]
    rows += [" *  O/|", " * /| |", " * / \\\\" + "qs_scf.F:611".rjust(60)]
    say("", " " + 79 * "*", *(f"{{row:<79}}*" for row in rows), " " + 79 * "*", "")
    say(" ===== Routine Calling Stack ===== ", "", "            1 CP2K")
    sys.exit(1)


say(" CP2K| version string:                     CP2K version 2023.1", "")
say("  Step     Update method      Time    Convergence         Total energy    Change")
say("  " + 78 * "-")
for number, residual in enumerate(step.get("residuals", []), 1):
    say(
        f"{{number:6d}} Broy./Diag. {{float(value('ALPHA')):.2E}}{{2.6:7.1f}}{{residual:15.8f}}"
        f"{{-272.7160520054:20.10f}} {{1.28e-4:9.2E}}"
    )
    if number == step.get("save_at"):
        save()
if step["end"] == "hang":
    time.sleep(60)
if step["end"] == "crash":
    print("Segmentation fault: invalid memory reference", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGSEGV)
if step["end"] == "abort":
    box("An invalid set of cell vectors was specified. The determinant", "det(h) is too small")
if step["end"] == "converged":
    say("", f"  *** SCF run converged in {{number:5d}} steps ***", "")
elif step["end"] == "not converged":
    say("", " *** WARNING in qs_scf.F:598 :: SCF run NOT converged ***", "")
save()
if step["end"] == "not converged, 2024":
    box("SCF run NOT converged. To continue the calculation regardless,", "please set the keyword")
with open("vcm-KS_SPIN_1_R_1-1_0.csr", "w") as file:
    file.write(f"matrix of start {{plan['next']}}")
say(" MEMORY| Estimated peak process memory [MiB]                                 273")
say("  **** **** ******  **  PROGRAM ENDED AT                 2026-11-22 11:21:29.916")
"""


class FakeCp2k:
    """Executables in a folder, and what they were asked to do.

    Parameters
    ----------
    folder : Path
        Where they go.
    plan : list of dict
        What each start of CP2K does: ``residuals`` are printed; ``end`` is "converged", "not
        converged", "not converged, 2024", "abort", "crash" or "hang"; ``save_at`` is the step
        after which a density is saved (half of one if ``torn``); ``deaf`` ignores SIGTERM.
    execs : bool
        Whether mpirun becomes the program, or waits for it as a child of its own.
    """

    def __init__(self, folder: Path, *plan: dict[str, Any], execs: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._plan = folder / "plan.json"
        self._starts = folder / "starts.jsonl"
        write_restart(folder / "density.kp", _small_density())
        self.plan(*plan)
        program = _PROGRAM.format(
            python=sys.executable,
            plan=str(self._plan),
            starts=str(self._starts),
            density=str(folder / "density.kp"),
        )
        mpirun = _MPIRUN % ('exec "$@"' if execs else '"$@" & wait')
        for name, text in (("mpirun", mpirun), ("cp2k.psmp", program)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.launcher = Launcher(str(folder / "cp2k.psmp"), str(folder / "mpirun"), 2, {})

    def plan(self, *steps: dict[str, Any]) -> None:
        """Say what the next starts do."""
        self._plan.write_text(json.dumps({"steps": steps, "next": 0}))

    @property
    def starts(self) -> list[dict[str, Any]]:
        """Guess, density and α of every start."""
        if not self._starts.exists():
            return []
        return [json.loads(line) for line in self._starts.read_text().splitlines()]


def _small_density() -> BlockMatrix:
    structure = Structure.create([8], [[0.5, 0.5, 0.5]], 3 * np.eye(3))
    basis = OrbitalBasis("toy", {Species(8, False): (0, 1)})
    return BlockMatrix.zeros(BlockPattern.from_structure(structure, basis, 4.0))
