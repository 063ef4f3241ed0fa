"""Transport on the bundled CP2K data: the lead by itself, and the devices between it."""

from __future__ import annotations

import numpy as np
import pytest
from transport_toys import dense_transmission, orbitals_of, tiled

from vcmbench.device import SUPPORT_ANG, Device
from vcmbench.release import find_release
from vcmbench.transport import Lead, TransmissionSolver, transmission
from vcmbench.transport.contacts import ContactSites
from vcmbench.transport.lead import PrincipalLayer, surfaces
from vcmbench.transport.negf import Contact

K = np.array([0.0, 0.25, 0.25])


@pytest.fixture(scope="module")
def lead() -> Lead:
    release = find_release("vcm-demo")
    (lead_id,) = release.manifest.leads
    stored = release.lead(lead_id)
    return Lead(stored.hamiltonian, stored.overlap)


@pytest.fixture(scope="module", params=["train", "test"])
def device(request) -> Device:
    release = find_release("vcm-demo")
    return release.device(release.device_ids(request.param)[0])


@pytest.mark.parametrize(("leads", "error"), [("decimation", 1e-6), ("modes", 1e-10)])
def test_ideal_lead_transmits_every_open_channel(lead, leads, error):
    matrices = tiled(lead, (10, 2, 2), n_contact=3, cutoff=SUPPORT_ANG)
    energies = np.array([-0.63, 0.8])
    result = transmission(*matrices, lead, energies, K[None], np.ones(1), leads=leads)
    assert result.by_k == pytest.approx(np.round(result.by_k), abs=error)
    assert result.points["channels"] == pytest.approx(np.round(result.by_k), abs=error)
    assert result.by_k.min() >= 4
    assert result.gates.passed


@pytest.mark.parametrize("leads", ["decimation", "modes"])
def test_stored_reference_is_reproduced(lead, device, leads):
    stored = device.transport
    chosen = [3, 100]
    result = transmission(
        device.hamiltonian,
        device.overlap,
        lead,
        stored.energies_ev[chosen],
        stored.kpoints,
        stored.weights,
        leads=leads,
    )
    # Twice the error that the broadening of the leads makes at an unlucky energy.
    assert result.by_k == pytest.approx(stored.transmission[:, chosen], rel=1e-6, abs=0)
    assert result.gates.passed
    assert result.gates.meeting_error < 1e-11
    assert result.mismatch_ang < 0.1


def test_accelerator_gives_the_same(lead, device):
    pytest.importorskip("torch")
    by_k = transmission(
        device.hamiltonian,
        device.overlap,
        lead,
        np.array([0.2, 0.25]),
        K[None],
        np.ones(1),
        accelerator="cpu:0",  # In two threads.
    ).by_k
    points = [
        TransmissionSolver(device.hamiltonian, device.overlap, lead, accelerator=accelerator).point(
            K, 0.2
        )
        for accelerator in ("cpu", "cpu:0")  # The second is torch's.
    ]
    assert points[1]["transmission"] == pytest.approx(points[0]["transmission"], rel=1e-9, abs=0)
    assert points[1]["meeting_error"] < 1e-11
    assert by_k[0, 0] == pytest.approx(points[0]["transmission"], rel=1e-9, abs=0)


def explicit_contacts(
    lead: Lead, contacts: list[ContactSites], energy: float
) -> tuple[Contact, Contact]:
    """Self-energies of the lead repeated over the cross-section, without Bloch's theorem."""
    matrices = tiled(lead, (6, 2, 2), n_contact=3, cutoff=SUPPORT_ANG)
    pattern = matrices[0].pattern
    h, s = (m.select(m.pattern.shift[:, 0] == 0).to_csr(K).toarray() for m in matrices)
    n = len(h) // 2
    ends = surfaces(PrincipalLayer(h[:n, :n], h[:n, n:], s[:n, :n], s[:n, n:]), energy)
    found = []
    for contact, end in zip(contacts, (ends.left, ends.right), strict=True):
        inside = contact.cell[:, 1:] % 2
        cell = (2 * contact.cell[:, 0] + inside[:, 0]) * 2 + inside[:, 1]
        site = lead.structure.n_sites * cell + contact.lead_site
        orbitals = orbitals_of(pattern, site)
        images = np.repeat(contact.cell[:, 1:] // 2, pattern.site_orbitals[site], axis=0)
        phase = np.exp(2j * np.pi * (images @ K[1:]))[:, None]
        sigma = phase * end.sigma[np.ix_(orbitals, orbitals)] * phase.conj().T
        found.append(Contact(sigma, phase * end.factor[orbitals]))
    return found[0], found[1]


@pytest.mark.slow
@pytest.mark.parametrize("energy", [0.0, 0.47])
def test_agrees_with_the_dense_inverse_and_an_explicit_lead(lead, device, energy):
    solver = TransmissionSolver(device.hamiltonian, device.overlap, lead)
    left, right = explicit_contacts(lead, solver.contacts, energy)
    first, last = (orbitals_of(device.pattern, contact.site) for contact in solver.contacts)
    between = np.setdiff1d(np.arange(device.pattern.n_orbitals), np.concatenate([first, last]))
    order = np.concatenate([first, between, last])
    inside = device.pattern.shift[:, 0] == 0
    h, s = (
        m.select(inside).to_csr(K).toarray()[np.ix_(order, order)]
        for m in (device.hamiltonian, device.overlap)
    )
    expected = dense_transmission(h, s, energy, left, right)
    assert solver.point(K, energy)["transmission"] == pytest.approx(expected, rel=1e-9, abs=0)
