"""Lead surfaces, their unfolding over a cross-section, contact matching and the cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import eigvals
from transport_toys import BASIS, CUTOFF, make_chain, make_lead, orbitals_of, tiled

from vcmbench.blocks import BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Region, Structure
from vcmbench.transport import cache as cache_module
from vcmbench.transport.cache import SurfaceCache
from vcmbench.transport.contacts import BlochContact, match_contact
from vcmbench.transport.lead import ETA_EV, Lead, PrincipalLayer, surfaces

ENERGIES = (-1.0, 0.2, 0.5)
Q = np.array([0.05, 0.15])


@pytest.fixture(scope="module")
def lead() -> Lead:
    return make_lead()


def test_analytic_chain():
    t, overlap = -1.3, 0.1
    layer = PrincipalLayer(*(np.array([[x]], complex) for x in (0.0, t, 1.0, overlap)))
    for energy in (-2.0, 0.3, 2.0):
        hopping = t - energy * overlap
        k = np.arccos(energy / (2 * hopping))
        found = surfaces(layer, energy, 1e-10)
        expected = hopping * np.exp(1j * k)
        assert found.left.sigma[0, 0] == pytest.approx(expected, rel=1e-8)
        assert found.right.sigma[0, 0] == pytest.approx(expected, rel=1e-8)
        assert found.channels == pytest.approx(1, rel=1e-8)
    assert surfaces(layer, 4.0).channels < 1e-12


@pytest.mark.parametrize("energy", ENERGIES)
def test_channels_count_the_propagating_modes(lead, energy):
    """Against the eigenvalues of the transfer matrix: |lambda| = 1, half of them each way."""
    h00, h01, s00, s01 = lead.principal_layer(Q, 2)
    n = len(h00)
    to, on = energy * s01 - h01, energy * s00 - h00
    # (A10 + A00 x + A01 x^2) v = 0 as a pencil for (v, x v); singular couplings give x = 0 and inf.
    zero, one = np.zeros((n, n)), np.eye(n)
    alpha, beta = eigvals(
        np.block([[zero, one], [-to.conj().T, -on]]),
        np.block([[one, zero], [zero, to]]),
        homogeneous_eigvals=True,
    )
    propagating = np.count_nonzero(abs(abs(alpha) - abs(beta)) < 1e-6 * abs(beta))
    found = surfaces(lead.principal_layer(Q, 2), energy)
    assert found.channels == pytest.approx(propagating / 2, rel=1e-6)


@pytest.mark.parametrize("energy", ENERGIES)
def test_both_surfaces_solve_their_dyson_equations(energy):
    h00, h01, s00, s01 = layer = make_chain().left
    eta = 1e-6
    z = energy + 1j * eta
    found = surfaces(layer, energy, eta, 0.0)
    to, back = energy * s01 - h01, (energy * s01 - h01).conj().T
    to_z, back_z = z * s01 - h01, z * s01.conj().T - h01.conj().T
    for sigma, outward, inward, outward_z, inward_z in (
        (found.left.sigma, to, back, to_z, back_z),
        (found.right.sigma, back, to, back_z, to_z),
    ):
        green = np.linalg.solve(inward, sigma) @ np.linalg.inv(outward)
        expected = np.linalg.inv(z * s00 - h00 - inward_z @ green @ outward_z)
        assert abs(green - expected).max() < 1e-9 * abs(green).max()


def test_gamma_is_positive_and_its_small_eigenvalues_do_not_matter():
    """What GAMMA_THRESHOLD drops changes T of a barrier by less than 1e-9."""
    chain = make_chain(n=5, n_barrier=7, height=5.0)
    a = 0.1 * chain.s - chain.h

    def transmission(*threshold: float) -> float:
        left = surfaces(chain.left, 0.1, ETA_EV, *threshold).left
        right = surfaces(chain.right, 0.1, ETA_EV, *threshold).right
        inverse = a.copy()
        inverse[:5, :5] -= left.sigma
        inverse[-5:, -5:] -= right.sigma
        amplitude = left.factor.conj().T @ np.linalg.inv(inverse)[:5, -5:] @ right.factor
        return float(np.vdot(amplitude, amplitude).real)

    assert surfaces(chain.left, 0.1).negative_gamma < 1e-13
    assert transmission() == pytest.approx(transmission(-1.0), rel=1e-9, abs=0)


def test_factor_reproduces_gamma_with_few_columns(lead):
    for energy in ENERGIES:
        found = surfaces(lead.principal_layer(Q, 2), energy)
        for contact in (found.left, found.right):
            gamma = 1j * (contact.sigma - contact.sigma.conj().T)
            assert contact.factor @ contact.factor.conj().T == pytest.approx(gamma, abs=1e-13)
            assert contact.factor.shape[1] < len(gamma)


def explicit_layer(lead: Lead, k: np.ndarray, repeats: tuple[int, int]) -> tuple:
    """Principal layer of the whole cross-section cut out of a shuffled, wrapped supercell.

    Returns the layer, and the contact whose sites it holds in their order and images as stored.
    """
    device = tiled(lead, (4, *repeats), shuffle=4)
    structure = device[0].pattern.structure
    contact = match_contact(structure, Region.LEFT_CONTACT, lead.structure)
    step = structure.positions[None] - structure.positions[contact.site, None]
    step = (step - 2 * lead.structure.cell[0]) @ np.linalg.inv(structure.cell)
    off = abs(step - np.round(step))[..., 1:].max(axis=2) + abs(step[..., 0])
    next_site = off.argmin(axis=1)
    images = np.round(step[np.arange(len(next_site)), next_site])
    pattern = device[0].pattern
    here = orbitals_of(pattern, contact.site)
    there = orbitals_of(pattern, next_site)
    phase = np.repeat(np.exp(2j * np.pi * images @ k), pattern.site_orbitals[next_site])
    h, s = (m.select(m.pattern.shift[:, 0] == 0).to_csr(k).toarray() for m in device)
    layer = PrincipalLayer(
        h[np.ix_(here, here)],
        h[np.ix_(here, there)] * phase,
        s[np.ix_(here, here)],
        s[np.ix_(here, there)] * phase,
    )
    return layer, contact, pattern


@pytest.mark.parametrize("repeats", [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_unfolded_surfaces_equal_those_of_the_explicit_supercell(lead, repeats):
    k = np.array([0.0, 0.12, -0.31])
    layer, contact, pattern = explicit_layer(lead, k, repeats)
    bloch = BlochContact(contact, pattern, lead.hamiltonian.pattern)
    assert np.array_equal(bloch.orbitals, orbitals_of(pattern, contact.site))
    phase = bloch.wrap_phases(k)[:, None]
    for energy in ENERGIES:
        explicit = surfaces(layer, energy)
        by_q = [surfaces(lead.principal_layer(q, 2), energy) for q in bloch.wave_vectors(k)]
        assert sum(found.channels for found in by_q) == pytest.approx(explicit.channels, abs=1e-9)
        for side in ("left", "right"):
            unfolded = bloch.unfold(k, [getattr(found, side) for found in by_q])
            expected = getattr(explicit, side)
            sigma = phase * unfolded.sigma * phase.conj().T
            factor = phase * unfolded.factor
            assert abs(sigma - expected.sigma).max() < 1e-10 * abs(expected.sigma).max()
            assert (
                abs(factor @ factor.conj().T - expected.factor @ expected.factor.conj().T).max()
                < 1e-10 * abs(expected.sigma).max()
            )


def test_lead_with_too_thin_layers_is_refused(lead):
    with pytest.raises(VcmbenchError, match="over 2 cells along x, expected at most the 1"):
        lead.principal_layer(Q, 1)


def displaced(structure: Structure, seed: int, size_ang: float) -> Structure:
    step = np.random.default_rng(seed).normal(size=structure.positions.shape)
    step *= size_ang / np.linalg.norm(step, axis=1, keepdims=True)
    return structure.moved(structure.positions + step)


@pytest.mark.parametrize("region", [Region.LEFT_CONTACT, Region.RIGHT_CONTACT])
def test_contact_is_matched_through_displacements(lead, region):
    structure = tiled(lead, (6, 2, 2), shuffle=7)[0].pattern.structure
    ideal = match_contact(structure, region, lead.structure)
    found = match_contact(displaced(structure, 1, 0.05), region, lead.structure)
    assert ideal.mismatch_ang.max() < 1e-9
    assert 0.04 < found.mismatch_ang.max() < 0.07
    key = [dict(zip(c.site.tolist(), c.lead_site.tolist(), strict=True)) for c in (ideal, found)]
    assert key[0] == key[1]
    order, back = np.argsort(ideal.site), np.argsort(found.site)
    cells = ideal.cell[order] - found.cell[back]
    assert (cells == cells[0]).all()


def test_contact_errors_name_the_fault(lead):
    structure = tiled(lead, (6, 2, 2))[0].pattern.structure
    left = np.flatnonzero(structure.region == Region.LEFT_CONTACT)
    positions = structure.positions.copy()
    positions[left[3], 1] += 0.2
    with pytest.raises(VcmbenchError, match=rf"site {left[3]} lies 0\.19\d Å .* at most 0\.1 Å"):
        match_contact(structure.moved(positions), Region.LEFT_CONTACT, lead.structure)

    numbers = structure.numbers.copy()
    numbers[left[0]] = 72
    other = replace(structure, numbers=numbers)
    with pytest.raises(VcmbenchError, match="does not occur in the lead"):
        match_contact(other, Region.LEFT_CONTACT, lead.structure)

    region = structure.region.copy()
    region[left[0]] = Region.OXIDE
    with pytest.raises(VcmbenchError, match="found 23 sites, expected a positive multiple of 12"):
        match_contact(replace(structure, region=region), Region.LEFT_CONTACT, lead.structure)

    bulk = replace(structure, region=np.full(structure.n_sites, Region.NONE))
    with pytest.raises(VcmbenchError, match="no left-contact sites"):
        match_contact(bulk, Region.LEFT_CONTACT, lead.structure)

    wrapped = structure.positions.copy()
    wrapped[left[:4], 0] += structure.cell[0, 0]
    with pytest.raises(VcmbenchError, match="do not fill 2 x 2 x 2 whole cells"):
        match_contact(structure.moved(wrapped), Region.LEFT_CONTACT, lead.structure)

    with pytest.raises(VcmbenchError, match=r"cross-section .* is no multiple"):
        match_contact(
            replace(structure, cell=structure.cell * [[1], [1.1], [1]]),
            Region.LEFT_CONTACT,
            lead.structure,
        )


@pytest.fixture
def counted(monkeypatch):
    calls = []
    monkeypatch.setattr(
        cache_module,
        "surfaces",
        lambda layer, energy: calls.append(energy) or surfaces(layer, energy),
    )
    return calls


def test_cache_returns_what_was_computed(lead, tmp_path, counted):
    made = SurfaceCache(lead, 2, tmp_path).surfaces(Q, 0.2)
    again = SurfaceCache(lead, 2, tmp_path).surfaces(np.add(Q, [1, -2]), 0.2)
    assert counted == [0.2]
    for first, second in ((made.left, again.left), (made.right, again.right)):
        assert abs(first.sigma - second.sigma).max() < 1e-15 * abs(first.sigma).max()
        assert np.array_equal(first.factor, second.factor)
    assert made[2:] == again[2:]
    assert not list(tmp_path.rglob("*.tmp"))


def test_cache_keeps_leads_energies_and_wave_vectors_apart(lead, tmp_path, counted):
    cache = SurfaceCache(lead, 2, tmp_path)
    cache.surfaces(Q, 0.2)
    cache.surfaces(Q, 0.2 + 1e-6)
    cache.surfaces(Q[::-1], 0.2)
    SurfaceCache(lead, 3, tmp_path).surfaces(Q, 0.2)
    SurfaceCache(make_lead(3), 2, tmp_path).surfaces(Q, 0.2)
    assert len(counted) == 5
    assert SurfaceCache(lead, 2).n_computed == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_damaged_cache_entries_are_computed_again(lead, tmp_path, counted, damage):
    made = SurfaceCache(lead, 2, tmp_path).surfaces(Q, 0.2)
    (entry,) = tmp_path.rglob("*.npz")
    content = bytearray(entry.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 4
    entry.write_bytes(
        {"truncated": content[:-900], "empty": b"", "foreign": b"x" * 500}.get(damage, content)
    )
    again = SurfaceCache(lead, 2, tmp_path).surfaces(Q, 0.2)
    assert len(counted) == 2
    assert np.array_equal(made.left.sigma, again.left.sigma)
    SurfaceCache(lead, 2, tmp_path).surfaces(Q, 0.2)
    assert len(counted) == 2


def test_orbital_counts_must_be_the_leads(lead):
    structure = tiled(lead, (6, 1, 1))[0].pattern.structure
    contact = match_contact(structure, Region.LEFT_CONTACT, lead.structure)
    shells = {species: (*ls, 0) for species, ls in BASIS.shells.items()}
    other = BlockPattern.from_structure(structure, replace(BASIS, shells=shells), CUTOFF)
    with pytest.raises(VcmbenchError, match="orbitals, expected the lead's"):
        BlochContact(contact, other, lead.hamiltonian.pattern)
