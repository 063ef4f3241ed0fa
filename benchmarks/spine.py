"""ASV: what every evaluation does, on the bundled device. Run with `asv run --python=same`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from vcmbench.models import load_model
from vcmbench.release import find_release
from vcmbench.scores import hamiltonian
from vcmbench.store import read_device, write_device
from vcmbench.transport import Lead, TransmissionSolver


class Store:
    """Device store: time and size."""

    def setup(self) -> None:
        release = find_release("vcm-demo")
        self.device = release.device("device-b")
        self.path = release.folder / release.manifest.devices["device-b"].path
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_read(self) -> None:
        read_device(self.path)

    def time_write(self) -> None:
        write_device(Path(self.folder.name) / "device-b.zarr.zip", self.device)

    def track_bytes_per_entry(self) -> float:
        return self.path.stat().st_size / (2 * self.device.pattern.n_entries)

    track_bytes_per_entry.unit = "bytes"


class Score:
    """Prediction of the closed-form baseline and its Hamiltonian score."""

    def setup(self) -> None:
        self.device = find_release("vcm-demo").device("device-b")
        self.model = load_model("slater-koster").model
        self.predicted = self.model.predict(self.device.structure)

    def time_predict_slater_koster(self) -> None:
        self.model.predict(self.device.structure)

    def time_hamiltonian(self) -> None:
        device = self.device
        aligned = hamiltonian.align(self.predicted, device.pattern)
        errors = hamiltonian.device_errors(device.id, device.hamiltonian, device.overlap, aligned)
        assert np.isfinite(errors.statistic.mae_mev)


class Transmission:
    """One (k, E) point of T(E), with the lead's surfaces computed before."""

    def setup(self) -> None:
        release = find_release("vcm-demo")
        device = release.device("device-b")
        lead = release.lead(device.transport.lead)
        self.k = device.transport.kpoints[0]
        self.energy = device.transport.energies_ev[50]
        self.expected = device.transport.transmission[0, 50]
        self.folder = tempfile.TemporaryDirectory()
        self.solver = TransmissionSolver(
            device.hamiltonian,
            device.overlap,
            Lead(lead.hamiltonian, lead.overlap),
            Path(self.folder.name),
        )
        self.solver.point(self.k, self.energy)

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_point(self) -> None:
        found = self.solver.point(self.k, self.energy)["transmission"]
        assert abs(found / self.expected - 1) < 1e-8
