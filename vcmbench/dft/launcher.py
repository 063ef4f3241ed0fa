"""How CP2K starts on this machine: program, matching MPI, ranks, and a BLAS that uses the CPU."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from vcmbench.errors import VcmbenchError
from vcmbench.machine import available_cpus

_PROGRAMS: Final = ("cp2k.psmp", "cp2k.popt", "cp2k")
_OPEN_MPI: Final = ("mpirun.openmpi", "mpirun", "mpiexec")
_MPICH: Final = ("mpiexec.mpich", "mpiexec.hydra", "mpiexec")
_GENERIC_KERNELS: Final = ("PRESCOTT", "GENERIC", "CORE2")
_KERNEL_VARIABLE: Final = "OPENBLAS_CORETYPE"


@dataclass(frozen=True)
class Launcher:
    """A way to run CP2K.

    Parameters
    ----------
    program : str
        CP2K's executable.
    mpi : str
        ``mpirun`` of the MPI that CP2K is linked with: another one starts `ranks` separate runs.
    ranks : int
        MPI processes, one thread each.
    environment : dict of str to str
        Variables set beside the current ones.
    """

    program: str
    mpi: str
    ranks: int
    environment: dict[str, str]

    @classmethod
    def find(cls, ranks: int | None = None) -> Launcher:
        """Find CP2K and its MPI.

        Parameters
        ----------
        ranks : int, optional
            MPI processes; as many as cores this process may use by default.

        Raises
        ------
        VcmbenchError
            If either is missing.
        """
        program = next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
        if program is None:
            raise VcmbenchError(
                f"CP2K: found none of {', '.join(_PROGRAMS)} on PATH, expected one "
                "(Debian: apt-get install cp2k cp2k-data openmpi-bin libopenblas0-openmp)"
            )
        libraries = _libraries(program)
        candidates = _MPICH if "libmpich" in libraries else _OPEN_MPI
        mpi = next((path for name in candidates if (path := shutil.which(name))), None)
        if mpi is None:
            raise VcmbenchError(f"MPI: found none of {', '.join(candidates)} on PATH for {program}")
        environment = {"OMP_NUM_THREADS": "1", **_blas_kernel(libraries)}
        return cls(program, mpi, ranks or available_cpus(), environment)

    @property
    def command(self) -> list[str]:
        """Command that takes CP2K's own options."""
        options = ["-np", str(self.ranks)]
        if self._is_open_mpi:
            options += ["--bind-to", "none", "--allow-run-as-root", "--oversubscribe"]
        return [self.mpi, *options, self.program]

    @property
    def _is_open_mpi(self) -> bool:
        answer = subprocess.run([self.mpi, "--version"], capture_output=True, text=True)
        return "Open MPI" in answer.stdout


@cache
def _libraries(program: str) -> str:
    return subprocess.run(["ldd", program], capture_output=True, text=True).stdout


def _blas_kernel(libraries: str) -> dict[str, str]:
    """Name the kernel where OpenBLAS does not know the CPU and falls back to a generic one.

    An OpenBLAS older than the CPU runs SSE3 code: a fifth of the speed with AVX-512.
    """
    path = re.search(r"libopenblas\S* => (\S+)", libraries)
    if path is None or _KERNEL_VARIABLE in os.environ:
        return {}
    library = ctypes.CDLL(path[1])
    library.openblas_get_corename.restype = ctypes.c_char_p
    if library.openblas_get_corename().decode().upper() not in _GENERIC_KERNELS:
        return {}
    flags = set(re.findall(r"\w+", _cpu_flags()))
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        return {_KERNEL_VARIABLE: "SKYLAKEX"}
    return {_KERNEL_VARIABLE: "HASWELL"} if {"avx2", "fma"} <= flags else {}


def _cpu_flags() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return found[1] if found else ""
