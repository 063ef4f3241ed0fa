"""The pair potential: forces, cutoff, electrostatics, and the table that LAMMPS reads."""

import numpy as np
import pytest
from scipy.special import erfc

from vcmbench.build.neighbours import neighbours
from vcmbench.build.potential import (
    CHARGE,
    COULOMB_EV_ANG,
    CUTOFF_ANG,
    DAMPING_PER_ANG,
    INNER_ANG,
    SHORT_RANGE,
    oxide_pairs,
    pair_energy,
    write_tables,
)


@pytest.mark.parametrize(("first", "second"), oxide_pairs())
def test_energy_and_force_vanish_at_the_cutoff(first, second):
    r = np.array([CUTOFF_ANG - 1e-3, CUTOFF_ANG, CUTOFF_ANG + 1])
    energy = pair_energy(first, second, r)
    # What is left of O–O dispersion and of the walls at 8 Å is 0.1 meV.
    np.testing.assert_allclose(energy, 0, atol=1e-4)
    assert pair_energy(first, second, r[:1]) == pair_energy(second, first, r[:1])


@pytest.mark.parametrize(("first", "second"), oxide_pairs())
def test_ions_cannot_fall_into_each_other(first, second):
    r = np.linspace(INNER_ANG, 1.4, 200)
    energy = pair_energy(first, second, r)
    assert (np.diff(energy) < 0).all()


def test_charges_are_neutral_and_metal_is_inert():
    assert CHARGE["Hf"] + 2 * CHARGE["O"] == 0
    assert CHARGE["Ti"] == CHARGE["N"] == 0
    assert ("Ti", "N") not in oxide_pairs()
    assert ("Ti", "Ti") not in oxide_pairs()


def test_madelung_energy_of_fluorite():
    """Damped shifted sums give the crystal's Madelung energy, 2.51939 |z₊z₋| e²/d per unit."""
    a = 5.08
    hafnium = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]]) / 4
    oxygen = np.stack(np.meshgrid(*[[1, 3]] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 4
    positions = np.concatenate([hafnium, oxygen]) * a
    charges = np.array([CHARGE["Hf"]] * 4 + [CHARGE["O"]] * 8)
    symbols = np.array(["Hf"] * 4 + ["O"] * 8)
    pairs = neighbours(positions, np.eye(3) * a, CUTOFF_ANG)
    energy = 0.0
    for first in ("Hf", "O"):
        for second in ("Hf", "O"):
            chosen = (symbols[pairs.first] == first) & (symbols[pairs.second] == second)
            r = pairs.distance_ang[chosen]
            energy += (pair_energy(first, second, r) - _short_range(first, second, r)).sum() / 2
    # Self energy of the damped shifted sum (Fennell and Gezelter, eq. 5).
    end = DAMPING_PER_ANG * CUTOFF_ANG
    self_term = (
        erfc(end) / (2 * CUTOFF_ANG)
        + DAMPING_PER_ANG / np.sqrt(np.pi)
        + (erfc(end) / CUTOFF_ANG + 2 * DAMPING_PER_ANG / np.sqrt(np.pi) * np.exp(-(end**2))) / 2
    )
    energy -= COULOMB_EV_ANG * self_term * (charges**2).sum()
    nearest = np.sqrt(3) / 4 * a
    madelung = 4 * 2.51939 * COULOMB_EV_ANG * CHARGE["Hf"] * CHARGE["O"] / nearest
    assert energy == pytest.approx(madelung, rel=0.02)


def _short_range(first, second, r):
    term = SHORT_RANGE.get(tuple(sorted((first, second))))
    return np.zeros_like(r) if term is None else term.energy(r)


def test_tables_hold_minus_the_gradient(tmp_path):
    path = tmp_path / "pairs.table"
    write_tables(path)
    tables: dict[str, list[list[float]]] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 1:
            tables[words[0]] = []
        elif len(words) == 4:
            tables[list(tables)[-1]].append([float(word) for word in words])
    assert list(tables) == [f"{a}-{b}" for a, b in oxide_pairs()]
    for name, table in tables.items():
        rows = np.array(table)
        _, r, energy, force = rows.T
        first, second = name.split("-")
        np.testing.assert_allclose(energy, pair_energy(first, second, r), rtol=1e-9, atol=1e-9)
        middle = (r[1:] + r[:-1]) / 2
        work = -np.diff(energy) / np.diff(r)
        mean = np.interp(middle, r, force)
        smooth = (middle > 1.2) & (np.abs(middle - 6) > 0.1)
        np.testing.assert_allclose(work[smooth], mean[smooth], rtol=5e-3, atol=5e-3)
