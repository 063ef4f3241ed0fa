"""A device in other codes: the same matrices at every wave vector."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.errors import VcmbenchError
from vcmbench.exporters.sisl_export import to_sisl, write_sisl
from vcmbench.store import write_predictions

sisl = pytest.importorskip("sisl")

KPOINTS = [(0.0, 0.0, 0.0), (0.13, 0.25, -0.4)]


@pytest.fixture(scope="module", params=["device-b", "lead-tin"])
def entry(demo, request):
    name = request.param
    return demo.lead(name) if name.startswith("lead") else demo.device(name)


@pytest.fixture(scope="module")
def exported(entry):
    return to_sisl(entry.hamiltonian, entry.overlap)


@pytest.mark.parametrize("k", KPOINTS)
def test_same_matrices_at_every_wave_vector(entry, exported, k):
    for ours, theirs in (
        (entry.hamiltonian, exported.Hk(k, gauge="lattice")),
        (entry.overlap, exported.Sk(k, gauge="lattice")),
    ):
        difference = ours.to_csr(k) - theirs
        assert abs(difference).max() < 1e-12
    # Complex matrices: a wrong sign of the phase would be seen.
    assert k == KPOINTS[0] or abs(entry.hamiltonian.to_csr(k).imag).max() > 0.1


def test_sites_and_orbitals(entry, exported):
    structure = entry.structure
    geometry = exported.geometry
    np.testing.assert_array_equal(geometry.xyz, structure.positions)
    np.testing.assert_array_equal(geometry.lattice.cell, structure.cell)
    np.testing.assert_array_equal(geometry.atoms.Z, structure.numbers)
    ghosts = [isinstance(atom, sisl.AtomGhost) for atom in geometry.atoms]
    assert ghosts == structure.is_ghost.tolist()
    np.testing.assert_array_equal(geometry.orbitals, entry.pattern.site_orbitals)
    assert geometry.atoms[0].orbitals[1].tag.split() == [
        str(entry.basis.shells_of(structure.species_list[structure.species_index[0]])[1]),
        str(-entry.basis.shells_of(structure.species_list[structure.species_index[0]])[1]),
    ]


def test_file_is_read_back(entry, exported, tmp_path):
    path = tmp_path / "entry.TSHS"
    write_sisl(path, entry.hamiltonian, entry.overlap)
    assert [p.name for p in tmp_path.iterdir()] == ["entry.TSHS"]
    again = sisl.get_sile(path).read_hamiltonian()
    k = KPOINTS[1]
    found = again.Hk(k, gauge="lattice") - exported.Hk(k, gauge="lattice")
    assert abs(found).max() < 1e-6  # Rydberg and another constant for it
    assert abs(again.Sk(k, gauge="lattice") - exported.Sk(k, gauge="lattice")).max() < 1e-12


def test_command_exports_dft_and_predictions(demo, tmp_path):
    device = demo.device("device-b")
    run = CliRunner().invoke
    result = run(app, ["data", "export", "device-b", str(tmp_path / "dft.TSHS")])
    assert result.exit_code == 0, result.output
    write_predictions(tmp_path / "mine", "device-b", 2 * device.hamiltonian, gauge="fermi")
    options = ["--model", str(tmp_path / "mine")]
    result = run(app, ["data", "export", "device-b", str(tmp_path / "mine.TSHS"), *options])
    assert result.exit_code == 0, result.output
    dft, mine = (
        sisl.get_sile(tmp_path / name).read_hamiltonian().Hk() for name in ("dft.TSHS", "mine.TSHS")
    )
    assert abs(mine - 2 * dft).max() < 1e-6
    result = run(app, ["data", "export", "device-b", str(tmp_path / "x.what")])
    assert isinstance(result.exception, VcmbenchError)
    assert "x.what: suffix: found .what, expected .TSHS" in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dft.TSHS", "mine", "mine.TSHS"]
