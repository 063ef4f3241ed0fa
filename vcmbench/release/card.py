"""The dataset card: prose by hand, every number between markers from the stores.

A card holds pairs of markers, ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; what stands
between them is written anew from the data. So is the YAML front matter, which points
``datasets.load_dataset`` at the index.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import yaml

from vcmbench.build.quality import Quality, RadialDistribution
from vcmbench.build.rdf_plot import rdf_png
from vcmbench.errors import VcmbenchError, unknown_name
from vcmbench.production_record import ProductionRecord
from vcmbench.release.index import INDEX, IndexRow, columns
from vcmbench.release.manifest import ReleaseInfo
from vcmbench.release.splits import PartitionSplit, Split

CARD = "README.md"
RDF_PLOT = "rdf.png"
INDEX_SPLIT = "devices"
"""Name under which ``datasets`` gives the index: all devices, whichever part they serve."""

_BEGIN = re.compile(r"<!-- begin ([\w-]+) -->")
_MARKED = re.compile(r"<!-- begin ([\w-]+) -->.*?<!-- end \1 -->", re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)
_SIZES: Final = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K"}


@dataclass(frozen=True)
class CardData:
    """What the tables of a card are made of.

    Parameters
    ----------
    info : ReleaseInfo
        Name, version, description, …
    rows : sequence of IndexRow
        Devices.
    leads : mapping of str to int
        Sites of each lead.
    quality : mapping of str to Quality
        Measured structure of each device that has an oxide.
    floors : mapping of str to mapping
        Noise floors of T(E) of each device that has a reference.
    splits : sequence of Split
        Splits of the release.
    records : mapping of str to ProductionRecord
        How devices and leads came about, where it is recorded.
    """

    info: ReleaseInfo
    rows: Sequence[IndexRow]
    leads: Mapping[str, int]
    quality: Mapping[str, Quality]
    floors: Mapping[str, Mapping[str, Mapping[str, float]]]
    splits: Sequence[Split]
    records: Mapping[str, ProductionRecord]


def fill_card(text: str, data: CardData, source: str) -> str:
    """Write front matter and everything between markers anew.

    Parameters
    ----------
    text : str
        A card, filled before or not.
    data : CardData
        What to fill in.
    source : str
        File of the card, named in errors.

    Returns
    -------
    str
        The complete card.

    Raises
    ------
    VcmbenchError
        If a marker has an unknown name or no end.
    """
    body = _FRONT_MATTER.sub("", text)

    def section(match: re.Match[str]) -> str:
        name = match[1]
        if name not in SECTIONS:
            raise unknown_name(f"section of card {source}", name, SECTIONS)
        content = SECTIONS[name](data) or "None."
        return f"<!-- begin {name} -->\n{content}\n<!-- end {name} -->"

    filled = _MARKED.sub(section, body)
    if open_ended := set(_BEGIN.findall(body)) - {m[1] for m in _MARKED.finditer(body)}:
        raise VcmbenchError(
            f"{source}: <!-- begin {min(open_ended)} -->: found no end, "
            f"expected <!-- end {min(open_ended)} -->"
        )
    return _front_matter(data) + filled


def _front_matter(data: CardData) -> str:
    info, n = data.info, len(data.rows)
    content = {
        "license": info.license.lower(),
        "pretty_name": info.name,
        "tags": list(info.tags),
        "size_categories": [next((s for limit, s in _SIZES.items() if n < limit), "n>100K")],
        "configs": [
            {
                "config_name": "devices",
                "data_files": [{"split": INDEX_SPLIT, "path": INDEX}],
            }
        ],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n\n"


def _title(data: CardData) -> str:
    info = data.info
    return f"# {info.name} {info.version}\n\n{info.description}"


def _devices(data: CardData) -> str:
    return _table(
        {
            "id": f"`{row.id}`",
            "part": row.part,
            "family": f"`{row.family}`",
            "sites": row.n_sites,
            "vacancies": row.n_vacancies,
            "oxide (Å)": _rounded(row.oxide_thickness_ang, 1),
            "cell (Å)": " × ".join(
                f"{side:.2f}" for side in (row.cell_x_ang, row.cell_y_ang, row.cell_z_ang)
            ),
            "lead": row.lead and f"`{row.lead}`",
            "Hamiltonian": "withheld" if row.withheld else "stored",
        }
        for row in data.rows
    )


def _structure(data: CardData) -> str:
    """One row per family: siblings differ in nothing that is measured with ghosts in place."""
    heads = {row.family for row in data.rows} & set(data.quality)
    return _table(
        {
            "family": f"`{name}`",
            "density (g/cm³)": _rounded(q.oxide_density_g_cm3, 2),
            "in the core": _rounded(q.core_density_g_cm3, 2),
            "O around Hf": _rounded(q.hf_o_coordination, 2),
            "Hf–O bond (Å)": _rounded(q.hf_o_bond_ang, 2),
            "order of Hf": _rounded(q.hf_order, 2),
            **{
                f"shortest {pair} (Å)": _rounded(q.shortest_ang.get(pair), 2)
                for pair in ("Hf-O", "O-O", "Hf-Hf")
            },
            "the builder's limits": "; ".join(q.problems()) or "kept",
        }
        for name, q in sorted((name, data.quality[name]) for name in heads)
    )


def mean_rdf(data: CardData) -> RadialDistribution | None:
    """Mean over families of g(r) of the oxide."""
    heads = sorted({row.family for row in data.rows} & set(data.quality))
    if not heads:
        return None
    curves = [data.quality[name].rdf for name in heads]
    mean = {pair: np.mean([c.g[pair] for c in curves], axis=0).tolist() for pair in curves[0].g}
    return RadialDistribution(r_ang=curves[0].r_ang, g=mean)


def card_plots(text: str, data: CardData) -> dict[str, bytes]:
    """Files of the plots that a card asks for."""
    rdf = mean_rdf(data)
    return {RDF_PLOT: rdf_png(rdf)} if rdf and "rdf-plot" in _BEGIN.findall(text) else {}


def _rdf(data: CardData) -> str:
    rdf = mean_rdf(data)
    if rdf is None:
        return ""
    table = _table(
        {"r (Å)": f"{r:.2f}", **{pair: f"{g[n]:.2f}" for pair, g in rdf.g.items()}}
        for n, r in enumerate(rdf.r_ang)
        if r > 1.5
    )
    return f"<details>\n<summary>Table</summary>\n\n{table}\n\n</details>"


def _rdf_plot(data: CardData) -> str:
    return f"![g(r) of the oxides]({RDF_PLOT})" if mean_rdf(data) else ""


def _settings(data: CardData) -> str:
    """List the settings of the DFT runs; where devices differ, each value with their number."""
    rows = []
    for name, attribute in _SETTINGS.items():
        counts = Counter(_text(getattr(row, attribute)) for row in data.rows)
        several = ", ".join(f"{value} ({n})" for value, n in counts.items())
        rows.append({"setting": name, "value": several if len(counts) > 1 else next(iter(counts))})
    return _table(rows)


_SETTINGS: Final = {
    "code": "code",
    "version": "code_version",
    "functional": "functional",
    "basis": "basis",
    "cutoff (Ry)": "cutoff_ry",
    "relative cutoff (Ry)": "rel_cutoff_ry",
    "k-point mesh": "kpoint_mesh",
    "smearing (K)": "smearing_temperature_k",
    "SCF threshold": "eps_scf",
}


def _scf(data: CardData) -> str:
    return _table(
        {
            "id": f"`{row.id}`",
            "electrons": row.n_electrons,
            "SCF steps": row.scf_steps,
            "last residual": row.scf_residual,
            "threshold": row.eps_scf,
            "E_F (eV)": _rounded(row.fermi_energy_ev, 4),
        }
        for row in data.rows
    )


def _runs(data: CardData) -> str:
    return _table(
        {
            "id": f"`{name}`",
            "sites": record.n_sites,
            "SCF started from": record.run.attempts[0].start,
            "attempts": len(record.run.attempts),
            "SCF steps": record.run.steps,
            "SCF (min)": f"{record.run.seconds / 60:.1f}",
            "T(E) (min)": _rounded(
                record.transmission_seconds and record.transmission_seconds / 60, 1
            ),
            "memory per rank (GiB)": _rounded(
                record.run.peak_memory_mib and record.run.peak_memory_mib / 1024, 1
            ),
            "oxides rejected before": len(record.rejected_oxides),
        }
        for name, record in data.records.items()
    )


def _sizes(data: CardData) -> str:
    stored = [row for row in data.rows if not row.withheld]
    rows = [_size(f"`{row.id}`", [row]) for row in data.rows]
    return _table([*rows, _size("all with H", stored)] if stored else rows)


def _size(name: str, rows: Sequence[IndexRow]) -> dict[str, object]:
    n_bytes, n_entries = (
        sum(getattr(r, key) for r in rows) for key in ("store_bytes", "n_entries")
    )
    whole = not any(row.withheld for row in rows)
    return {
        "id": name,
        "orbitals": sum(row.n_orbitals for row in rows),
        "blocks": sum(row.n_blocks for row in rows),
        "entries": n_entries,
        "store (MB)": f"{n_bytes / 1e6:.2f}",
        "bytes per entry of H and S": f"{n_bytes / (2 * n_entries):.2f}" if whole else None,
    }


def _floors(data: CardData) -> str:
    causes = dict.fromkeys(cause for floors in data.floors.values() for cause in floors)
    return _table(
        {
            "id": f"`{name}`",
            **{
                cause.replace("_", " "): f"{floors[cause]['mean']:.1e} ({floors[cause]['max']:.1e})"
                if cause in floors
                else None
                for cause in causes
            },
        }
        for name, floors in data.floors.items()
    )


def _splits(data: CardData) -> str:
    rows: list[dict[str, object]] = []
    for split in data.splits:
        for part, content in split.parts.items():
            if isinstance(split, PartitionSplit):
                ranges = ", ".join(f"{start:g}–{stop:g} Å" for start, stop in split.ranges(part))
                what = f"`{split.device}`, x in {ranges}"
            else:
                what = f"{len(content)} device{'' if len(content) == 1 else 's'}"
            rows.append({"split": f"`{split.name}`", "part": part, "what": what})
    return _table(rows)


def _leads(data: CardData) -> str:
    return _table({"lead": f"`{name}`", "sites": n} for name, n in data.leads.items())


def _columns(data: CardData) -> str:
    return _table(
        {"column": f"`{column.name}`", "meaning": column.description}
        for column in columns(data.rows)
    )


SECTIONS: Final[dict[str, Callable[[CardData], str]]] = {
    "title": _title,
    "devices": _devices,
    "leads": _leads,
    "structure": _structure,
    "rdf": _rdf,
    "rdf-plot": _rdf_plot,
    "settings": _settings,
    "scf": _scf,
    "runs": _runs,
    "sizes": _sizes,
    "floors": _floors,
    "splits": _splits,
    "columns": _columns,
}
"""What a card can have written, by the name of its markers."""


def _table(rows: Any) -> str:
    """Markdown table of rows that share their keys."""
    rows = list(rows)
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_text(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _rounded(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else str(value)
