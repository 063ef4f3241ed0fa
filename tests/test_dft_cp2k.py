"""CP2K itself as the oracle: it writes the density that we compute, and starts from our file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.io import FortranFile

from vcmbench.blocks import BlockMatrix
from vcmbench.build.metal import tin_cell
from vcmbench.dft.cp2k_input import RESTART_NAME, Cp2kSettings, n_electrons, placed_in_cell
from vcmbench.dft.density import density_matrix
from vcmbench.dft.launcher import Launcher
from vcmbench.dft.restart_file import is_complete, write_restart
from vcmbench.dft.run import RunRecord, run_scf
from vcmbench.errors import VcmbenchError
from vcmbench.importers import ImportedRun, import_cp2k

pytestmark = pytest.mark.slow

MESH = (2, 1, 2)
SETTINGS = Cp2kSettings(cutoff_ry=120, rel_cutoff_ry=30, eps_default=1e-10, kpoint_mesh=MESH)


@dataclass(frozen=True)
class Oracle:
    folder: Path
    record: RunRecord
    imported: ImportedRun
    density: BlockMatrix


@pytest.fixture(scope="module")
def launcher() -> Launcher:
    try:
        return Launcher.find()
    except VcmbenchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def oracle(tmp_path_factory, launcher) -> Oracle:
    """The 8-atom TiN cell, converged from free atoms, and the density of its H and S."""
    folder = tmp_path_factory.mktemp("tin")
    structure = placed_in_cell(tin_cell())
    record = run_scf(folder, structure, SETTINGS, launcher)
    imported = import_cp2k(folder, kind="bulk")
    density = density_matrix(
        imported.raw_hamiltonian,
        imported.raw_overlap,
        n_electrons=n_electrons(structure),
        kpoint_mesh=MESH,
        temperature_k=SETTINGS.smearing_temperature_k,
    )
    return Oracle(folder, record, imported, density)


def images(path: Path) -> dict[tuple[int, ...], np.ndarray]:
    with FortranFile(path) as file:
        header = [file.read_ints("<i4") for _ in range(6)]
        result = {}
        for _ in range(header[5][2]):
            cell = tuple(file.read_ints("<i4")[1:].tolist())
            result[cell] = np.stack([file.read_reals() for _ in range(header[1][1])], axis=1)
        return result


def test_our_file_holds_what_cp2k_saved(oracle, tmp_path):
    assert oracle.record.converged
    theirs = oracle.folder / RESTART_NAME
    assert is_complete(theirs)
    write_restart(tmp_path / RESTART_NAME, oracle.density)
    found, expected = images(tmp_path / RESTART_NAME), images(theirs)
    assert set(found) <= set(expected)
    largest = max(np.abs(image).max() for image in expected.values())
    assert largest > 1
    for cell, image in found.items():
        np.testing.assert_allclose(image, expected[cell], atol=2e-6, err_msg=str(cell))


def test_cp2k_starts_from_our_file_where_it_had_ended(oracle, launcher, tmp_path):
    source = tmp_path / "model" / RESTART_NAME
    write_restart(source, oracle.density)
    structure = oracle.imported.device.structure
    record = run_scf(
        tmp_path / "again", structure, SETTINGS, launcher, start_density=("model", source)
    )
    assert record.converged
    assert [attempt.start for attempt in record.attempts] == ["model"]
    assert record.steps <= oracle.record.steps // 2
    again = import_cp2k(tmp_path / "again", kind="bulk")
    assert again.device.provenance.fermi_energy_ev == pytest.approx(
        oracle.imported.device.provenance.fermi_energy_ev, abs=1e-4
    )
    np.testing.assert_allclose(
        again.device.hamiltonian.values, oracle.imported.device.hamiltonian.values, atol=1e-3
    )
