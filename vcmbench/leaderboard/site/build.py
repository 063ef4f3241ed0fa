"""Write the static site: all pages are rendered here, scripts only sort, filter and choose."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vcmbench import __version__
from vcmbench.errors import bad_input
from vcmbench.leaderboard.record import Curves, Record, record_path
from vcmbench.leaderboard.site.boards import Board, Contents, Model, Race, read_contents
from vcmbench.leaderboard.site.cards import card_html
from vcmbench.leaderboard.site.charts import Axis, Mark, Series, bar, curves, scatter
from vcmbench.leaderboard.site.figures import (
    Value,
    digits,
    hamiltonian,
    hours,
    spectrum,
    transmission,
)
from vcmbench.leaderboard.submission import SUBMISSION, HubHosting, UrlHosting
from vcmbench.release import find_release
from vcmbench.scores.result import Equivariance, Floor, GroupErrors, Unavailable
from vcmbench.scores.transmission import VOLTAGES_V
from vcmbench.transport.observables import EPSILON, current_a

INDEX: Final = "index.html"
MARKER: Final = ".vcmbench-site"
"""Marks a folder that may be replaced by a new site."""

_STATIC: Final = Path(__file__).parent / "static"

GROUPS: Final = (
    ("by_site", "On-site and off-site"),
    ("by_ghost", "Ghosts (vacancies)"),
    ("by_region", "Regions"),
    ("by_pair", "Pairs of species; a star marks a ghost"),
    ("by_shell", "Pairs of angular momenta"),
)


FLOORS: Final = {
    "solver": "Solver",
    "energy_grid": "Energy grid",
    "rounding": "Rounding of H and S",
    "support": "Support of 12 Å",
    "cutoff_8A": "H cut at 8 Å",
    "cutoff_10A": "H cut at 10 Å",
    "label_noise": "Label noise",
}


@dataclass(frozen=True)
class Site:
    """A site that was written.

    Attributes
    ----------
    index : Path
        Its first page.
    remarks : tuple of str
        What is not shown, and why.
    """

    index: Path
    remarks: tuple[str, ...]


def build_site(leaderboard: Path, output: Path) -> Site:
    """Write the site of a leaderboard.

    Parameters
    ----------
    leaderboard : Path
        Folder with ``submissions``, ``records`` and ``hardware.yml``.
    output : Path
        Folder to write. One that holds an earlier site is replaced, another is refused.

    Raises
    ------
    VcmbenchError
        If `output` is something else than a site.
    """
    if output.exists() and not (output / MARKER).is_file() and any(output.iterdir()):
        raise bad_input(output, "folder", found="one with other content", expected="a new one")
    contents = read_contents(leaderboard)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        _Pages(contents, leaderboard, temporary).write()
        temporary.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        temporary.replace(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Site(output / INDEX, contents.remarks)


class _Pages:
    """One site in the making."""

    def __init__(self, contents: Contents, leaderboard: Path, folder: Path) -> None:
        self.contents = contents
        self.leaderboard = leaderboard
        self.folder = folder
        self.environment = Environment(
            loader=PackageLoader("vcmbench.leaderboard.site"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals |= {"version": __version__, "boards": contents.boards}
        self.environment.filters["digits"] = digits
        self.environment.filters["hours"] = hours
        self.environment.filters["value"] = Value
        self.environment.tests["unavailable"] = lambda section: isinstance(section, Unavailable)

    def write(self) -> None:
        (self.folder / MARKER).touch()
        shutil.copytree(_STATIC, self.folder / "static")
        races = {board.key: self.contents.races(board) for board in self.contents.boards}
        charts = {key: [_race_chart(race) for race in found] for key, found in races.items()}
        self._page(
            INDEX,
            "index.html",
            title="Leaderboard",
            races=races,
            charts=charts,
            waiting=self.contents.waiting,
        )
        for board in self.contents.boards:
            self._board(board)

    def _board(self, board: Board) -> None:
        release = find_release(board.label)
        folder = Path(board.dataset_page).with_suffix("").name
        self._page(
            board.dataset_page,
            "dataset.html",
            title=board.label,
            board=board,
            card=card_html(release, self.folder / "datasets" / folder, folder),
        )
        self._page(
            board.compare_page,
            "compare.html",
            title=f"Compare two models on {board.label}",
            board=board,
            sections=_comparison(board),
            charts=_comparison_charts(board),
        )
        for model in board.models:
            self._model(board, model)

    def _model(self, board: Board, model: Model) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        shutil.copyfile(
            record_path(self.leaderboard, model.name), self.folder / "data" / f"{model.name}.json"
        )
        shutil.copyfile(model.entry.folder / SUBMISSION, self.folder / "data" / f"{model.name}.yml")
        record = model.record
        self._page(
            model.page,
            "model.html",
            title=model.name,
            board=board,
            model=model,
            submission=model.submission,
            record=record,
            rank=board.models.index(model) + 1,
            hosted=_hosted(model),
            machine=self._machine(record),
            groups=[
                (title, _group_rows(getattr(hamiltonian(record), name))) for name, title in GROUPS
            ],
            hamiltonian=hamiltonian(record),
            spectrum=spectrum(record),
            transmission=transmission(record),
            floors=_floors(record),
            equivariance=_equivariance(model),
            distance_chart=_distance_chart(model),
            ladder_chart=_ladder_chart(model),
            device_charts=_device_charts(record.transmission),
            further_charts=_device_charts(
                {
                    device: found
                    for part in record.further.values()
                    for device, found in part.transmission.items()
                }
            ),
        )

    def _machine(self, record: Record) -> str | None:
        """Name in tables of the machine of a verified throughput."""
        if record.throughput is None:
            return None
        name = record.throughput.hardware
        machine = self.contents.machines.get(name)
        return machine.label if machine else name

    def _page(self, path: str, template: str, **values: Any) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        root = "../" * path.count("/")
        text = self.environment.get_template(template).render(root=root, **values)
        target.write_text(text, encoding="utf-8")


def _hosted(model: Model) -> tuple[str, str | None]:
    """Where the predictions are, in words and as an address."""
    hosting = model.entry.predictions.hosting
    if isinstance(hosting, HubHosting):
        address = f"https://huggingface.co/datasets/{hosting.repo}/tree/{hosting.revision}"
        return f"{hosting.repo} at {hosting.revision[:12]}", address
    if isinstance(hosting, UrlHosting):
        return hosting.base, hosting.base
    return "made from the weights that travel with the code", None


def _equivariance(model: Model) -> tuple[Equivariance | None, bool]:
    """Residuals of the model, and whether the scoring measured them or the submitters did."""
    for result, is_verified in ((model.record.result, True), (model.entry.claimed, False)):
        section = result.physicality if result else None
        if section is None or isinstance(section, Unavailable):
            continue
        if not isinstance(section.equivariance, Unavailable):
            return section.equivariance, is_verified
    return None, True


def _floors(record: Record) -> list[tuple[str, Floor]]:
    """List what bounds the score of T from below, as far as the dataset says."""
    section = transmission(record)
    if section is None:
        return []
    floors = section.noise_floor
    return [(text, floor) for name, text in FLOORS.items() if (floor := getattr(floors, name))]


# --- tables -----------------------------------------------------------------------------------


def _group_rows(groups: dict[str, GroupErrors]) -> list[tuple[str, GroupErrors, Markup]]:
    """Order groups from the largest error on, each with a bar."""
    largest = max((group.mae_mev or 0.0 for group in groups.values()), default=0.0) or 1.0
    ordered = sorted(groups.items(), key=lambda item: -(item[1].mae_mev or 0.0))
    return [(name, group, bar((group.mae_mev or 0.0) / largest)) for name, group in ordered]


def _comparison(board: Board) -> list[tuple[str, list[tuple[str, list[float | None]]]]]:
    """Figures of all models, by section: name of the row, and the value of each model."""
    records = [model.record for model in board.models]
    sections = [
        (
            "Headline figures",
            [
                (f"{figure.label} ({figure.unit})", [figure.value(r).number for r in records])
                for figure in board.figures
            ],
        )
    ]
    if board.further:
        sections.append(
            (
                "Out of distribution",
                [
                    (f"{figure.label} ({figure.unit})", [figure.value(r).number for r in records])
                    for figure in board.further_figures
                ],
            )
        )
    for name, title in GROUPS:
        found = [getattr(hamiltonian(record), name) for record in records]
        rows = [
            (group, [groups[group].mae_mev if group in groups else None for groups in found])
            for group in dict.fromkeys(group for groups in found for group in groups)
        ]
        if rows:
            sections.append((f"{title}: MAE closer than 8 Å (meV)", rows))
    devices = [hamiltonian(record).devices for record in records]
    sections.append(
        (
            "Devices: MAE closer than 8 Å (meV)",
            [(name, [found[name].mae_mev for found in devices]) for name in devices[0]],
        )
    )
    sections.append(
        (
            "Devices: |Δlog T| (decades)",
            [(name, [_device_transmission(r, name) for r in records]) for name in devices[0]],
        )
    )
    return sections


def _device_transmission(record: Record, device: str) -> float | None:
    section = transmission(record)
    found = section.devices.get(device) if section else None
    return None if found is None or isinstance(found, Unavailable) else found.log10_mae


# --- charts -----------------------------------------------------------------------------------


def _race_chart(race: Race) -> Markup:
    speeds = race.speeds
    return scatter(
        f"Mean error of H against throughput on {race.machine.label}",
        Axis.over("atoms per second", (s.atoms_per_s for s in speeds), logarithmic=True),
        Axis.over("MAE (meV)", (s.mae_mev for s in speeds), logarithmic=True),
        [Mark(s.model.name, s.atoms_per_s, s.mae_mev, s.on_front) for s in speeds],
    )


def _device_charts(found: dict[str, Curves]) -> list[tuple[str, Markup, Markup]]:
    """T(E) and I(V) of each device."""
    return [
        (device, _transmission_chart(device, item), _current_chart(device, item))
        for device, item in found.items()
    ]


def _transmission_chart(device: str, found: Curves) -> Markup:
    return curves(
        f"Transmission of {device} against energy: DFT, predicted with the contacts from DFT, "
        "and all predicted",
        *_transmission_axes([found]),
        [
            Series("predicted", "first", _points(found, found.predicted)),
            Series("all predicted", "second", _points(found, found.all_predicted)),
            Series("DFT", "reference", _points(found, found.reference)),
        ],
    )


def _transmission_axes(found: Iterable[Curves]) -> tuple[Axis, Axis]:
    listed = list(found)
    values = [
        value
        for item in listed
        for curve in (item.reference, item.predicted, item.all_predicted)
        for value in curve
    ]
    energies = [energy for item in listed for energy in item.energies_ev]
    return (
        Axis.over(
            Markup('E − E<tspan dy="4" font-size="75%">F</tspan><tspan dy="-4"> (eV)</tspan>'),
            energies,
        ),
        Axis.over("T(E)", values, logarithmic=True, lowest=EPSILON),
    )


def _points(found: Curves, values: Iterable[float]) -> list[tuple[float, float]]:
    return list(zip(found.energies_ev, values, strict=True))


def _current_chart(device: str, found: Curves) -> Markup:
    lines = {
        style: _currents_ua(found, values)
        for style, values in (
            ("first", found.predicted),
            ("second", found.all_predicted),
            ("reference", found.reference),
        )
    }
    labels = {"second": "all predicted", "first": "predicted", "reference": "DFT"}
    return curves(
        f"Current of {device} against voltage: DFT, predicted with the contacts from DFT, "
        "and all predicted",
        Axis.over("V (V)", [0.0, float(VOLTAGES_V[-1])]),
        Axis.over("I (µA)", [i for line in lines.values() for _, i in line], logarithmic=True),
        [Series(labels[style], style, line) for style, line in lines.items()],
    )


def _currents_ua(found: Curves, values: Iterable[float]) -> list[tuple[float, float]]:
    current = current_a(np.array(found.energies_ev), np.array(list(values)), VOLTAGES_V)
    return list(zip(VOLTAGES_V.tolist(), (1e6 * current).tolist(), strict=True))


def _distance_chart(model: Model) -> Markup:
    shells = [
        (0.5 * (shell.low_ang + shell.high_ang), shell.mae_full_mev)
        for shell in hamiltonian(model.record).by_distance
        if shell.mae_full_mev
    ]
    return curves(
        f"Mean error of the entries of H predicted by {model.name} against the distance of sites",
        Axis.over("distance (Å)", [0.0, *(x for x, _ in shells)]),
        Axis.over("MAE (meV)", [y for _, y in shells], logarithmic=True),
        [Series(model.name, "first", shells)],
    )


def _ladder_chart(model: Model) -> Markup | None:
    speed = model.record.throughput
    ladder = speed.ladder if speed else ()
    points = [(float(rung.n_sites), rung.median_s) for rung in ladder if rung.median_s]
    if len(points) < 2:
        return None
    return curves(
        f"Time of a prediction by {model.name} against the number of sites",
        Axis.over("sites", (x for x, _ in points), logarithmic=True),
        Axis.over("time (s)", (y for _, y in points), logarithmic=True),
        [Series(model.name, "first", points, has_dots=True)],
    )


def _comparison_charts(board: Board) -> list[tuple[str, Markup]]:
    """T(E) of every model on each device: a script shows those of the chosen two."""
    charts = []
    curves_of = {model.name: model.record.curves for model in board.models}
    for device in dict.fromkeys(name for known in curves_of.values() for name in known):
        found = {name: known.get(device) for name, known in curves_of.items()}
        known = {name: item for name, item in found.items() if item is not None}
        first = next(iter(known.values()))
        series = [
            Series(name, "model", _points(item, item.predicted), name)
            for name, item in known.items()
        ]
        reference = Series("DFT", "reference", _points(first, first.reference))
        title = f"Transmission of {device} against energy: DFT and the models, contacts from DFT"
        charts.append(
            (device, curves(title, *_transmission_axes(known.values()), [*series, reference]))
        )
    return charts
