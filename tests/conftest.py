"""Fixtures that several modules share: the bundled data, and a small real device made from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from release_toys import toy_release
from transport_toys import tiled

from vcmbench.device import SUPPORT_ANG, Device, TransportReference
from vcmbench.release import Release, find_release
from vcmbench.store import write_device
from vcmbench.transport import Lead, transmission

ENERGIES_EV = np.array([-0.5, -0.1, 0.0, 0.3, 0.6])


@pytest.fixture(scope="session")
def demo() -> Release:
    """The bundled release."""
    return find_release("vcm-demo")


@pytest.fixture(scope="session")
def wire(demo) -> Device:
    """Ten cells of ideal TiN, one cell wide, with the DFT blocks of the lead: 80 sites."""
    bulk = demo.lead("lead-tin")
    lead = Lead(bulk.hamiltonian, bulk.overlap)
    h, s = tiled(lead, (10, 1, 1), n_contact=3, cutoff=SUPPORT_ANG)
    kpoints, weights = np.array([[0, 0.25, 0.25], [0, 0.25, -0.25]]), np.array([0.5, 0.5])
    by_k = transmission(h, s, lead, ENERGIES_EV, kpoints, weights).by_k
    provenance = demo.device("device-a").provenance.model_copy(update={"input_text": "tiled"})
    reference = TransportReference("lead-tin", ENERGIES_EV, kpoints, weights, by_k)
    return Device("wire", "device", h, s, provenance, transport=reference)


@pytest.fixture(scope="session")
def wire_release(tmp_path_factory, demo, wire) -> Path:
    """A release of the wire, of a bulk cell and of their lead."""
    folder = tmp_path_factory.mktemp("wires") / "wires"
    bulk = demo.lead("lead-tin")
    write_device(folder / "devices/wire.zarr.zip", wire)
    write_device(folder / "devices/bulk.zarr.zip", replace(bulk, id="bulk"))
    write_device(folder / "leads/lead-tin.zarr.zip", bulk)
    parts: dict[str, tuple[str, ...]] = {"train": (), "test": ("wire",), "bulk": ("bulk",)}
    toy_release(folder, parts, name="wires", version="0.1.0")
    return folder
