"""Starting CP2K: with the MPI it is linked with, and a BLAS that knows the CPU."""

from __future__ import annotations

import pytest

from vcmbench.dft import launcher
from vcmbench.dft.launcher import Launcher
from vcmbench.errors import VcmbenchError

OPEN_MPI = "mpirun (Open MPI) 4.1.4"
DEBIAN_OPEN_MPI = "mpirun.openmpi (OpenRTE) 4.1.4"
MPICH = "HYDRA build details:\\n    Version: 4.2.0"
LINKED_WITH_OPEN_MPI = "\tlibmpi.so.40 => /lib/libmpi.so.40 (0x1)\n"
AVX512 = "fpu avx2 fma avx512f avx512dq avx512bw avx512vl"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Folders on PATH with programs that name their version, and what CP2K is linked with."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv("PATH", ":".join(map(str, folders)))

    def install(libraries=LINKED_WITH_OPEN_MPI, **programs: str) -> None:
        monkeypatch.setattr(launcher, "_libraries", lambda _program: libraries)
        for place, version in programs.items():
            folder, name = place.split("__")
            path = tmp_path / folder / name.replace("_", ".")
            path.write_text(f'#!/bin/sh\necho "{version}"\n')
            path.chmod(0o755)

    return install


def test_open_mpi_of_debian(machine, tmp_path):
    machine(
        first__cp2k_psmp="CP2K",
        first__mpirun=MPICH,
        second__mpirun_openmpi=DEBIAN_OPEN_MPI,
    )
    found = Launcher.find(3)
    assert found.mpi == str(tmp_path / "second/mpirun.openmpi")
    options = ["-np", "3", "--bind-to", "none", "--allow-run-as-root", "--oversubscribe"]
    assert found.command == [found.mpi, *options, str(tmp_path / "first/cp2k.psmp")]
    assert found.environment["OMP_NUM_THREADS"] == "1"


def test_mpi_that_another_one_hides(machine, tmp_path):
    machine(first__cp2k_psmp="CP2K", first__mpirun=MPICH, second__mpirun=OPEN_MPI)
    assert Launcher.find(2).mpi == str(tmp_path / "second/mpirun")


@pytest.mark.parametrize("library", ["libmpich.so.12", "libmpi.so.12"])
def test_mpich(machine, tmp_path, library):
    machine(
        f"\t{library} => /lib/{library} (0x1)\n",
        first__cp2k_popt="CP2K",
        first__mpiexec=OPEN_MPI,
        second__mpiexec=MPICH,
    )
    found = Launcher.find(2)
    assert found.mpi == str(tmp_path / "second/mpiexec")
    assert found.command == [found.mpi, "-np", "2", str(tmp_path / "first/cp2k.popt")]


def test_another_mpi_would_start_separate_runs(machine):
    machine(first__cp2k="CP2K", first__mpirun=MPICH)
    with pytest.raises(VcmbenchError, match=r"^MPI: found no mpirun.openmpi .* of the Open MPI"):
        Launcher.find()


def test_no_cp2k(machine):
    machine(first__mpirun=OPEN_MPI)
    with pytest.raises(VcmbenchError, match=r"^CP2K: found none of cp2k.psmp, .* apt-get install"):
        Launcher.find()


def test_ranks_are_the_cores_by_default(machine, monkeypatch):
    machine(first__cp2k="CP2K", first__mpirun=OPEN_MPI)
    monkeypatch.setattr(launcher, "available_cpus", lambda: 7)
    assert Launcher.find().ranks == 7


class _OpenBlas:
    def __init__(self, core: str) -> None:
        def corename() -> bytes:
            return core.encode()

        self.openblas_get_corename = corename


@pytest.mark.parametrize(
    ("core", "flags", "expected"),
    [
        ("Prescott", AVX512, {"OPENBLAS_CORETYPE": "SKYLAKEX"}),
        ("Prescott", "sse2 avx2 fma avx512f", {"OPENBLAS_CORETYPE": "HASWELL"}),
        ("generic", "avx2", {}),
        ("Zen", AVX512, {}),
        ("SkylakeX", AVX512, {}),
    ],
)
def test_kernel_is_named_only_where_openblas_does_not_know_the_cpu(
    monkeypatch, core, flags, expected
):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(launcher.ctypes, "CDLL", lambda path: _OpenBlas(core))
    monkeypatch.setattr(launcher, "_cpu_flags", lambda: flags)
    libraries = "\tlibopenblas.so.0 => /lib/libopenblas.so.0 (0x1)\n"
    assert launcher._blas_kernel(libraries) == expected
    assert launcher._blas_kernel("\tlibblas.so.3 => /lib/libblas.so.3 (0x1)\n") == {}
    monkeypatch.setenv("OPENBLAS_CORETYPE", "ZEN")
    assert launcher._blas_kernel(libraries) == {}
