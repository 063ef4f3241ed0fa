"""Train a network on a release and write its model directory."""

from __future__ import annotations

import copy
import csv
import io
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vcmbench.blocks import BlockMatrix
from vcmbench.device import Device
from vcmbench.errors import bad_input
from vcmbench.fitted import require_fermi_gauge, training_record
from vcmbench.models import slater_koster
from vcmbench.models.card import write_card
from vcmbench.models.interface import Cost, ModelCard
from vcmbench.models.neural.model import BASE, load, save
from vcmbench.models.neural.network import BlockNetwork
from vcmbench.models.slater_koster import SlaterKoster
from vcmbench.models.slater_koster_fit import fit_slater_koster
from vcmbench.partition import (
    PartitionSlab,
    block_parts,
    device_slabs,
    inside_one_slab,
    slabs,
)
from vcmbench.processes import ALONE, Team
from vcmbench.release import PartitionSplit, Release
from vcmbench.store.content import atomic_file
from vcmbench.training.config import CONFIG, Optimiser, TrainingConfig
from vcmbench.training.loop import Trainer
from vcmbench.training.scales import set_scales
from vcmbench.training.state import STATE, Row, State, resume, write_state
from vcmbench.training.supervision import Supervised, supervised

LOG: Final = "training.csv"

Progress = Callable[[Row], None]


@dataclass(frozen=True)
class Part:
    """One device and what of it is supervised.

    Parameters
    ----------
    device : Device
        The device.
    blocks : (n_blocks,) bool
        Blocks that are labels.
    split : PartitionSplit or None
        The split that the blocks are a part of; None for a whole device.
    name : str
        Name of that part.
    """

    device: Device
    blocks: NDArray[np.bool_]
    split: PartitionSplit | None
    name: str


def parts(release: Release, split_name: str, part: str) -> list[Part]:
    """Devices, or the one device, of a part of a split."""
    split = release.split(split_name)
    if isinstance(split, PartitionSplit):
        device = release.device(split.device)
        labels = block_parts(split, device.pattern)
        split.ranges(part)
        chosen = labels == list(split.parts).index(part)
        return [Part(device, chosen, split, part)]
    devices = (release.device(device_id) for device_id in split.part(part))
    return [Part(d, np.ones(d.pattern.n_blocks, dtype=bool), None, part) for d in devices]


def train(
    config: TrainingConfig,
    name: str,
    release: Release,
    split: str,
    directory: Path,
    *,
    accelerator: str = "cpu",
    team: Team = ALONE,
    progress: Progress = lambda _row: None,
) -> ModelCard:
    """Train until the last epoch or until validation stops getting better.

    Parameters
    ----------
    config : TrainingConfig
        Network and training.
    name : str
        Name of the model.
    release : Release
        Where the devices are.
    split : str
        Device or partition split; its parts ``train`` and ``validation`` are used.
    directory : Path
        Model directory to write; a run that was interrupted there goes on.
    accelerator : {"cpu", "cuda"}
        Where to compute.
    team : Team
        Processes that share the work.
    progress : callable
        Told of every epoch.

    Returns
    -------
    ModelCard
        As written.

    Raises
    ------
    VcmbenchError
        If the split has no such parts, a device is not in the Fermi gauge, the directory holds
        another run, or a loss is not finite.
    """
    training, validation = parts(release, split, "train"), parts(release, split, "validation")
    for part in [*training, *validation]:
        require_fermi_gauge(part.device)
    digests = {p.device.id: release.manifest.devices[p.device.id].digest for p in training}
    begun = State(config=config, data=digests)
    directory.mkdir(parents=True, exist_ok=True)
    base = _base(training, directory, team)
    torch.manual_seed(config.seed)
    network = config.network.make(base.basis)
    learned = _supervised(training, base, network, config, accelerator)
    checked = _supervised(validation, base, network, config, accelerator)
    set_scales(network, learned)
    network.to(accelerator)
    network.calibrate(learned[0].graph)
    trainer = Trainer(network, copy.deepcopy(network), config.optimiser, config.seed, team)
    state = _epochs(
        trainer, resume(directory, begun, trainer), learned, checked, directory, progress
    )
    card = _card(config, name, release, training, base, state, directory)
    if team.leads:
        write_card(directory, card)
        (directory / STATE).unlink()
    team.wait()
    return card


def _base(training: Sequence[Part], directory: Path, team: Team) -> SlaterKoster:
    """Slater–Koster fitted to the training labels, or what an interrupted run fitted."""
    if team.leads and not (directory / STATE).exists():
        labels = [part.device.hamiltonian.select(part.blocks) for part in training]
        fit_slater_koster(labels).save(directory / BASE)
    team.wait()
    return slater_koster.load(directory / BASE)


def _supervised(
    parts: Sequence[Part],
    base: SlaterKoster,
    network: BlockNetwork,
    config: TrainingConfig,
    accelerator: str,
) -> list[Supervised]:
    """Pieces of all parts, with what Slater–Koster leaves as their targets."""
    pieces = []
    for part in parts:
        h = part.device.hamiltonian.truncate(network.block_cutoff_ang)
        predicted = base.predict_within(part.device.structure, network.block_cutoff_ang)
        target = h - predicted.align(h.pattern)
        chosen = part.blocks[part.device.pattern.distance < network.block_cutoff_ang]
        cut = _slabs(part, h, chosen, network, config)
        pieces += supervised(part.device.id, target, cut, network, accelerator)
    return pieces


def _slabs(
    part: Part,
    h: BlockMatrix,
    chosen: NDArray[np.bool_],
    network: BlockNetwork,
    config: TrainingConfig,
) -> list[PartitionSlab]:
    """Cut the labels of a part into slabs."""
    pattern, reach = h.pattern, network.reach_ang
    if part.split is None:
        if config.labels == "published":
            raise bad_input(
                CONFIG, "labels", found="published", expected="all, for a split of whole devices"
            )
        return device_slabs(pattern, chosen, width_ang=config.slab_ang, reach_ang=reach)
    width = config.slab_ang or part.split.period_ang
    found = slabs(part.split, part.name, pattern, width_ang=width, reach_ang=reach)
    if config.labels == "all" or part.name != "train":
        return found
    kept = inside_one_slab(part.split, part.name, pattern, width_ang=width)
    return [slab._replace(blocks=slab.blocks[kept[slab.blocks]]) for slab in found]


def _epochs(
    trainer: Trainer,
    state: State,
    learned: Sequence[Supervised],
    checked: Sequence[Supervised],
    directory: Path,
    progress: Progress,
) -> State:
    """Train from where the state stands; the best weights so far lie in the directory."""
    settings = trainer.settings
    begin = time.monotonic() - (state.rows[-1].seconds if state.rows else 0.0)
    while state.epochs < settings.epochs and not _is_over(state, settings):
        epoch = state.epochs
        train_mev = trainer.train_epoch(learned, epoch)
        last = epoch + 1 == settings.epochs
        due = last or (epoch + 1) % settings.validate_every == 0
        validation_mev = trainer.validate(checked) if due else None
        row = Row(
            epoch=epoch + 1,
            steps=trainer.step,
            learning_rate=trainer.optimiser.param_groups[0]["lr"],
            train_mev=train_mev,
            validation_mev=validation_mev,
            seconds=round(time.monotonic() - begin, 1),
        )
        state = state.model_copy(update={"rows": (*state.rows, row)})
        if trainer.team.leads:
            if state.best is row:
                save(directory, trainer.average, state.config.network)
            write_log(directory / LOG, state.rows)
            write_state(directory, state, trainer)
        progress(row)
    trainer.team.wait()
    return state


def _is_over(state: State, settings: Optimiser) -> bool:
    best = state.best
    patience = settings.patience * settings.validate_every
    return best is not None and state.epochs - best.epoch >= patience


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """Write the log as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _card(
    config: TrainingConfig,
    name: str,
    release: Release,
    training: Sequence[Part],
    base: SlaterKoster,
    state: State,
    directory: Path,
) -> ModelCard:
    """Card of the model as it lies in the directory, scored on what it was trained on."""
    model = load(directory)
    return ModelCard(
        schema_version=1,
        name=name,
        version="1",
        description=config.description,
        loader="vcmbench.models.neural.model:load",
        authors=["The vcmbench developers"],
        license="CC-BY-4.0",
        cutoff_ang=model.cutoff_ang,
        n_parameters=model.n_parameters,
        training=training_record(model, release, [part.device for part in training]),
        cost=Cost(hardware=_hardware(), hours=max(round(state.rows[-1].seconds / 3600, 3), 0.001)),
        references=list(config.references),
    )


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} × {torch.cuda.device_count()}"
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
