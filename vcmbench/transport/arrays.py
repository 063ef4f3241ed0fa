"""Dense complex matrices where they are worked on: host memory with LAPACK, or a torch device.

Both do the same operations in double precision, so T agrees to rounding. Matrix products, slices
and ``.conj().T`` are written alike for both; here is the rest.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, lapack

from vcmbench.errors import VcmbenchError, bad_input

ComplexArray = NDArray[np.complex128]
Matrix = Any
"""A `ComplexArray` or a complex128 tensor."""


class Arrays(Protocol):
    """What the solver needs beyond products and slices."""

    def matrix(self, sparse: scipy.sparse.csr_array) -> Matrix:
        """Dense copy of a sparse matrix."""

    def array(self, dense: ComplexArray) -> Matrix:
        """Bring a matrix here."""

    def copy(self, matrix: Matrix) -> Matrix:
        """Contiguous copy."""

    def zeros(self, n_rows: int, n_columns: int) -> Matrix:
        """Matrix of zeros."""

    def solve(self, a: Matrix, b: Matrix) -> Matrix:
        """Return X with a X = b; both may be overwritten.

        Raises
        ------
        LinAlgError
            If `a` is singular.
        """

    def mirrored(self, matrix: Matrix) -> Matrix:
        """Transpose with rows and columns in reverse order."""

    def turned(self, matrix: Matrix) -> Matrix:
        """Transpose of the matrix with its columns in reverse order."""

    def sum_of_squares(self, matrix: Matrix) -> float:
        """Squared Frobenius norm."""


class HostArrays:
    """NumPy arrays and LAPACK; other threads run meanwhile."""

    def matrix(self, sparse: scipy.sparse.csr_array) -> Matrix:
        """Dense copy of a sparse matrix."""
        return np.asfortranarray(sparse.toarray().astype(np.complex128))

    def array(self, dense: ComplexArray) -> Matrix:
        """Bring a matrix here."""
        return dense

    def copy(self, matrix: Matrix) -> Matrix:
        """Contiguous copy."""
        return np.array(matrix, order="F")

    def zeros(self, n_rows: int, n_columns: int) -> Matrix:
        """Matrix of zeros."""
        return np.zeros((n_rows, n_columns), dtype=np.complex128, order="F")

    def solve(self, a: Matrix, b: Matrix) -> Matrix:
        """Return X with a X = b; both may be overwritten."""
        lu, pivots, info = lapack.zgetrf(a, overwrite_a=True)
        if info > 0:
            raise LinAlgError("a layer is singular at this energy")
        return lapack.zgetrs(lu, pivots, b, overwrite_b=True)[0]

    def mirrored(self, matrix: Matrix) -> Matrix:
        """Transpose with rows and columns in reverse order."""
        return matrix[::-1, ::-1].T

    def turned(self, matrix: Matrix) -> Matrix:
        """Transpose of the matrix with its columns in reverse order."""
        return matrix[:, ::-1].T

    def sum_of_squares(self, matrix: Matrix) -> float:
        """Squared Frobenius norm."""
        return float(np.vdot(matrix, matrix).real)


class TorchArrays:
    """Tensors on a torch device.

    Parameters
    ----------
    device : str
        ``"cuda"``, ``"cuda:1"`` or ``"cpu"``.

    Raises
    ------
    VcmbenchError
        If torch is not installed or finds no such device.
    """

    def __init__(self, device: str) -> None:
        try:
            import torch
        except ModuleNotFoundError as error:
            raise VcmbenchError(
                f"accelerator: {device}: torch is not installed: pip install 'vcmbench[torch]'"
            ) from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise bad_input("transmission", "accelerator", found="no CUDA device", expected="one")
        self._torch, self._device = torch, torch.device(device)
        # Torch loads its CUDA linear algebra at the first use, and fails if two threads are first.
        self.solve(self.array(np.ones((1, 1), dtype=np.complex128)), self.zeros(1, 1))

    def __reduce__(self) -> tuple[type[TorchArrays], tuple[str]]:
        """Another process has a device of its own."""
        return TorchArrays, (str(self._device),)

    def matrix(self, sparse: scipy.sparse.csr_array) -> Matrix:
        """Dense copy of a sparse matrix."""
        return self.array(sparse.toarray())

    def array(self, dense: ComplexArray) -> Matrix:
        """Bring a matrix here."""
        host = np.array(dense, dtype=np.complex128, order="C")
        return self._torch.from_numpy(host).to(self._device)

    def copy(self, matrix: Matrix) -> Matrix:
        """Contiguous copy."""
        return matrix.resolve_conj().clone(memory_format=self._torch.contiguous_format)

    def zeros(self, n_rows: int, n_columns: int) -> Matrix:
        """Matrix of zeros."""
        kind = self._torch.complex128
        return self._torch.zeros((n_rows, n_columns), dtype=kind, device=self._device)

    def solve(self, a: Matrix, b: Matrix) -> Matrix:
        """Return X with a X = b."""
        lu, pivots, info = self._torch.linalg.lu_factor_ex(a)
        if int(info) > 0:
            raise LinAlgError("a layer is singular at this energy")
        return self._torch.linalg.lu_solve(lu, pivots, b)

    def mirrored(self, matrix: Matrix) -> Matrix:
        """Transpose with rows and columns in reverse order."""
        return matrix.flip(0, 1).T

    def turned(self, matrix: Matrix) -> Matrix:
        """Transpose of the matrix with its columns in reverse order."""
        return matrix.flip(1).T

    def sum_of_squares(self, matrix: Matrix) -> float:
        """Squared Frobenius norm."""
        return float(self._torch.view_as_real(matrix.resolve_conj()).square().sum())


HOST = HostArrays()
