"""Fit a closed-form baseline to devices of a release and write its model directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from vcmbench.blocks import BlockMatrix
from vcmbench.device import Device
from vcmbench.errors import VcmbenchError, unknown_name
from vcmbench.models.card import write_card
from vcmbench.models.interface import ModelCard, Training
from vcmbench.models.slater_koster_fit import fit_slater_koster
from vcmbench.models.species_mean import fit_species_mean
from vcmbench.release import Release
from vcmbench.scores import hamiltonian
from vcmbench.structure import Structure


class ClosedForm(Protocol):
    """A model that a fit returns."""

    @property
    def cutoff_ang(self) -> float:
        """Range, Å."""
        ...

    @property
    def n_parameters(self) -> int:
        """Number of fitted numbers."""
        ...

    def predict(self, structure: Structure) -> BlockMatrix:
        """Predict H."""
        ...

    def save(self, directory: Path) -> None:
        """Write the weights."""
        ...


@dataclass(frozen=True)
class Recipe:
    """A kind of baseline: how it is fitted, loaded and described."""

    fit: Callable[[Sequence[BlockMatrix]], ClosedForm]
    loader: str
    description: str
    references: tuple[str, ...] = ()


RECIPES: Final = {
    "species-mean": Recipe(
        fit_species_mean,
        "vcmbench.models.species_mean:load",
        "Mean on-site levels per species, mean two-centre integrals per species pair and "
        "distance shell.",
    ),
    "slater-koster": Recipe(
        fit_slater_koster,
        "vcmbench.models.slater_koster:load",
        "Closed-form tight binding: two-centre integrals as splines of the distance, responding "
        "linearly to the neighbours of both ends; on-site levels with a crystal field.",
        ("J. C. Slater and G. F. Koster, Phys. Rev. 94, 1498 (1954)",),
    ),
}
"""Baselines that can be fitted, by name."""


def fit(name: str, release: Release, device_ids: Sequence[str], directory: Path) -> ModelCard:
    """Fit a baseline and write its model directory.

    Equal data give equal files on one machine; another BLAS rounds differently.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    release : Release
        Where the devices are.
    device_ids : sequence of str
        Devices to fit to.
    directory : Path
        Model directory to write.

    Returns
    -------
    ModelCard
        As written.

    Raises
    ------
    VcmbenchError
        If the baseline or a device is unknown, or a device is not in the Fermi gauge.
    """
    if name not in RECIPES:
        raise unknown_name("baseline to fit", name, RECIPES)
    recipe = RECIPES[name]
    devices = [_in_fermi_gauge(release.device(device_id)) for device_id in device_ids]
    model = recipe.fit([device.hamiltonian for device in devices])
    errors = hamiltonian.score_devices([_error(model, device) for device in devices])
    card = ModelCard(
        schema_version=1,
        name=name,
        version="1",
        description=recipe.description,
        loader=recipe.loader,
        authors=["The vcmbench developers"],
        license="CC-BY-4.0",
        cutoff_ang=model.cutoff_ang,
        n_parameters=model.n_parameters,
        training=Training(
            dataset=release.manifest.name,
            version=release.manifest.version,
            digest=release.manifest.digest,
            devices={d.id: release.manifest.devices[d.id].digest for d in devices},
            mae_mev=round(errors.mae_mev, 4),
            mae_full_mev=round(errors.mae_full_mev, 4),
        ),
        references=list(recipe.references),
    )
    model.save(directory)
    write_card(directory, card)
    return card


def _in_fermi_gauge(device: Device) -> Device:
    if device.gauge != "fermi":
        raise VcmbenchError(
            f"{device.id}: gauge: found {device.gauge}, expected fermi for training data"
        )
    return device


def _error(model: ClosedForm, device: Device) -> hamiltonian.DeviceErrors:
    predicted = hamiltonian.align(model.predict(device.structure), device.pattern)
    return hamiltonian.device_errors(device.id, device.hamiltonian, device.overlap, predicted)
