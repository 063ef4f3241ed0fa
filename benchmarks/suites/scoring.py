"""ASV: scores of the bundled device."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from vcmbench.models import load_model
from vcmbench.release import find_release
from vcmbench.scores import hamiltonian, spectrum
from vcmbench.transport import Lead, TransmissionSolver


class Hamiltonian:
    """Hamiltonian score of a prediction, and the spectrum around the Fermi level."""

    def setup(self) -> None:
        self.device = find_release("vcm-demo").device("device-b")
        self.predicted = load_model("slater-koster").model.predict(self.device.structure)

    def time_score(self) -> None:
        device = self.device
        aligned = hamiltonian.align(self.predicted, device.pattern)
        errors = hamiltonian.device_errors(device.id, device.hamiltonian, device.overlap, aligned)
        assert 0 < errors.statistic.mae_mev < 10

    def time_levels(self) -> None:
        device = self.device
        kpoints = device.transport.kpoints[:1]
        (found,) = spectrum.device_levels(device.hamiltonian, device.overlap, kpoints)
        assert np.all(np.diff(found.energies_ev) >= 0)


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
