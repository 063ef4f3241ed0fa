"""CP2K's restart file: every block where CP2K looks for it, and no damaged file taken for whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.io import FortranFile

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.dft.restart_file import is_complete, read_restart, write_restart
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Structure

CELL = np.array([5.0, 4.0, 4.5])
N_ORBITALS = 4 + 9 + 4 + 9 + 4


@pytest.fixture(scope="module")
def density() -> BlockMatrix:
    """Random blocks of five sites in all corners of a cell: several wrap, species alternate."""
    positions = [
        [0.4, 0.5, 0.6],
        [4.1, 0.3, 2.0],
        [2.4, 3.6, 4.2],
        [2.6, 2.1, 0.2],
        [4.8, 3.9, 4.4],
    ]
    structure = Structure.create(
        [8, 72, 8, 72, 8], positions, np.diag(CELL), is_ghost=[False, False, True, False, False]
    )
    shells = {Species(8, False): (0, 1), Species(8, True): (0, 1), Species(72, False): (0, 1, 2)}
    pattern = BlockPattern.from_structure(structure, OrbitalBasis("toy", shells), 6.0)
    values = np.random.default_rng(0).standard_normal(pattern.n_entries)
    matrix = BlockMatrix(pattern, values)
    # Hermitian on site.
    directed = matrix.directed()
    onsite = matrix.pattern.entry_mask(matrix.pattern.is_onsite)
    turned = directed.reversed().values[directed.pattern.entry_mask(directed.pattern.is_onsite)]
    values[onsite] = (values[onsite] + turned) / 2
    return BlockMatrix(pattern, values)


def read(path) -> tuple[list[np.ndarray], dict[tuple[int, ...], np.ndarray]]:
    """Header records and images by cell, with SciPy's reader of Fortran records."""
    with FortranFile(path) as file:
        header = [file.read_ints("<i4") for _ in range(6)]
        n_orbitals, n_images = header[1][1], header[5][2]
        images = {}
        for number in range(n_images):
            index, *cell = file.read_ints("<i4").tolist()
            assert index == number + 1
            columns = [file.read_reals("<f8") for _ in range(n_orbitals)]
            images[tuple(cell)] = np.stack(columns, axis=1)
        assert not path.read_bytes()[file._fp.tell() :]
    assert len(images) == n_images
    return header, images


@pytest.fixture(scope="module")
def path(tmp_path_factory, density):
    path = tmp_path_factory.mktemp("restart") / "vcm-RESTART.kp"
    write_restart(path, density)
    return path


def test_header_describes_sites_and_shells(path):
    header, _ = read(path)
    assert header[0].tolist() == [1]
    assert header[1].tolist() == [5, N_ORBITALS, 1, 3]
    assert header[2].tolist() == [1] * 5
    assert header[3].tolist() == [2, 3, 2, 3, 2]
    assert header[4].reshape(5, 3).tolist() == [[1, 3, 0], [1, 3, 5]] * 2 + [[1, 3, 0]]
    assert header[5][:2].tolist() == [1, 1]


def expected_images(density) -> dict[tuple[int, ...], np.ndarray]:
    """Every directed block (i, j, R) put where DBCSR's checkerboard has it, one at a time."""
    directed = density.directed()
    pattern = directed.pattern
    # An image is what takes the wrapped site j to where the block's vector ends.
    wrapped = pattern.structure.positions - CELL * np.floor(
        pattern.structure.positions / CELL + 0.5
    )
    starts = pattern.orbital_offset
    images: dict[tuple[int, ...], np.ndarray] = {}
    for block, (i, j) in enumerate(pattern.pair.tolist()):
        gap = pattern.vector[block] - (wrapped[j] - wrapped[i])
        cell = np.rint(gap / CELL).astype(int)
        np.testing.assert_allclose(cell * CELL, gap, atol=1e-9)
        lower_first = i <= j
        if i != j and lower_first != ((i + j) % 2 == 0):
            continue
        size = pattern.site_orbitals[i], pattern.site_orbitals[j]
        values = directed.values[pattern.offset[block] : pattern.offset[block + 1]].reshape(size)
        image = images.setdefault(tuple(cell.tolist()), np.full((N_ORBITALS, N_ORBITALS), np.nan))
        rows = slice(starts[i], starts[i + 1])
        columns = slice(starts[j], starts[j + 1])
        assert np.isnan(image[rows, columns]).all()
        image[rows, columns] = values
        if i != j:
            image[columns, rows] = values.T
    return {cell: np.nan_to_num(image) for cell, image in images.items()}


def test_every_block_stands_where_cp2k_looks_for_it(path, density):
    _, images = read(path)
    expected = expected_images(density)
    assert images.keys() == expected.keys()
    for cell, image in images.items():
        np.testing.assert_array_equal(image, expected[cell], err_msg=str(cell))


def test_images_repeat_pairs_across_the_diagonal_and_own_images_in_both_cells(path, density):
    _, images = read(path)
    starts = density.pattern.orbital_offset
    own = np.zeros((N_ORBITALS, N_ORBITALS), bool)
    for first, last in itertools.pairwise(starts):
        own[first:last, first:last] = True
    for cell, image in images.items():
        np.testing.assert_array_equal(image[~own], image.T[~own])
        if image[own].any():
            opposite = images[tuple(-c for c in cell)]
            np.testing.assert_array_equal(image[own], opposite.T[own])


def test_reading_is_the_inverse_of_writing(path, density):
    np.testing.assert_array_equal(read_restart(path, density.pattern).values, density.values)
    near = density.truncate(4.0)
    np.testing.assert_array_equal(read_restart(path, near.pattern).values, near.values)


def test_blocks_that_a_file_lacks_are_zero(tmp_path, density):
    near = density.truncate(4.0)
    write_restart(tmp_path / "near.kp", near)
    found = read_restart(tmp_path / "near.kp", density.pattern)
    np.testing.assert_array_equal(found.values, near.align(density.pattern).values)


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.9, -4, -1])
def test_truncated_file_is_refused(path, density, tmp_path, kept):
    whole = path.read_bytes()
    assert is_complete(path)
    cut = tmp_path / "cut.kp"
    cut.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert not is_complete(cut)
    with pytest.raises(VcmbenchError, match=r"cut\.kp: .*cut short"):
        read_restart(cut, density.pattern)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"&GLOBAL\n" * 50, b"\xff" * 200, bytes(400)]
)
def test_foreign_file_is_refused(tmp_path, density, content):
    source = tmp_path / "foreign.kp"
    source.write_bytes(content)
    assert not is_complete(source)
    with pytest.raises(VcmbenchError, match=r"foreign\.kp: no restart file"):
        read_restart(source, density.pattern)


def test_file_of_another_size_is_refused(path, density):
    structure = density.pattern.structure.permuted(np.arange(density.pattern.structure.n_sites - 1))
    other = BlockPattern.from_structure(structure, density.pattern.basis, 4.0)
    expected = rf"orbitals: found {N_ORBITALS}, expected {other.n_orbitals}"
    with pytest.raises(VcmbenchError, match=expected):
        read_restart(path, other)
