"""CP2K input files: the sections, and what an import needs to know of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from ase.data import atomic_numbers
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

from vcmbench.basis import Species
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.structure import FloatArray
from vcmbench.units import BOHR_ANG, HARTREE_EV

_LENGTH_ANG: Final = {"angstrom": 1.0, "bohr": BOHR_ANG}
_ENERGY_RY: Final = {"ry": 1.0, "hartree": 2.0, "ev": 2.0 / HARTREE_EV}
_TRUE: Final = ("", "T", "TRUE", ".TRUE.", "YES", "ON")
_FALSE: Final = ("F", "FALSE", ".FALSE.", "NO", "OFF")
_ENERGY_RUNS: Final = ("ENERGY", "ENERGY_FORCE", "WAVEFUNCTION_OPTIMIZATION", "WFN_OPT")


@dataclass
class Section:
    """One `&NAME parameter … &END` of an input; names are upper case."""

    name: str
    parameter: str = ""
    keywords: dict[str, list[str]] = field(default_factory=dict)
    sections: dict[str, list[Section]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def find(self, *names: str) -> Section | None:
        """Return the first subsection along a path of names."""
        section = self
        for name in names:
            if name not in section.sections:
                return None
            section = section.sections[name][0]
        return section

    def get(self, *path: str) -> str | None:
        """Return the value of a keyword, by the path that ends with it."""
        section = self.find(*path[:-1])
        return None if section is None else section.keywords.get(path[-1], [None])[0]

    def flag(self, *path: str) -> bool:
        """Whether a logical keyword is given and true."""
        value = self.get(*path)
        if value is None:
            return False
        if value.upper() in _TRUE + _FALSE:
            return value.upper() in _TRUE
        raise bad_input("input", "/".join(path), found=value, expected="a logical value")


class Kind(NamedTuple):
    """One &KIND: species and the names of basis set and pseudopotential."""

    species: Species
    basis_set: str
    potential: str | None


class MatrixPrint(NamedTuple):
    """How &KS_CSR_WRITE or &S_CSR_WRITE prints."""

    real_space: bool
    upper_triangle: bool


@dataclass(frozen=True, eq=False)
class RunInput:
    """What an import needs of an input.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        Its content, with included files in place.
    project : str
        Stem of the output files.
    labels : list of str
        Kind of each site.
    positions : (n_sites, 3) float
        Å, as written.
    cell : (3, 3) float
        Å, one vector per row.
    pbc : (3,) bool
        Periodic directions.
    kinds : dict of str to Kind
        By label.
    kpoint_mesh : (3,) int or None
        Monkhorst–Pack mesh; None for a Γ-only run, which prints folded matrices.
    smearing_temperature_k : float or None
        Fermi–Dirac temperature; None without smearing.
    charge : int
        Charge of the cell.
    """

    path: Path
    text: str
    project: str
    labels: list[str]
    positions: FloatArray
    cell: FloatArray
    pbc: NDArray[np.bool_]
    kinds: dict[str, Kind]
    functional: str
    cutoff_ry: float
    rel_cutoff_ry: float
    eps_default: float
    eps_scf: float
    kpoint_mesh: tuple[int, int, int] | None
    smearing_temperature_k: float | None
    charge: int
    prints: dict[str, MatrixPrint]

    @property
    def species(self) -> list[Species]:
        """Species of each site."""
        return [self.kinds[label].species for label in self.labels]

    @property
    def n_electrons(self) -> int | None:
        """Valence electrons by the potentials' names (GTH-PBE-q12); None where they do not say."""
        counts = {}
        for label, kind in self.kinds.items():
            match = re.search(r"-q(\d+)$", kind.potential or "-q0", re.IGNORECASE)
            if match is None:
                return None
            counts[label] = 0 if kind.species.is_ghost else int(match[1])
        return sum(counts[label] for label in self.labels) - self.charge


def find_input(run_dir: Path) -> Path:
    """Return the only `*.inp` of a run's folder."""
    if not run_dir.is_dir():
        raise VcmbenchError(f"{run_dir}: found no such folder, expected the folder of a CP2K run")
    candidates = sorted(run_dir.glob("*.inp"))
    if len(candidates) != 1:
        raise bad_input(
            run_dir,
            "input",
            found=", ".join(path.name for path in candidates) or "no *.inp",
            expected="one *.inp",
        )
    return candidates[0]


def read_input(path: Path) -> RunInput:
    """Read and check the input of a run.

    Raises
    ------
    VcmbenchError
        If it is no CP2K input, or one whose sites or matrices cannot be told from it.
    """
    text = _expand(path, path)
    root = parse(text, str(path))
    force_eval = root.find("FORCE_EVAL")
    if force_eval is None or force_eval.find("DFT") is None:
        raise bad_input(path, "sections", found="no &FORCE_EVAL/&DFT", expected="a CP2K DFT input")
    run_type = (root.get("GLOBAL", "RUN_TYPE") or "ENERGY_FORCE").upper()
    if run_type not in _ENERGY_RUNS:
        raise bad_input(path, "RUN_TYPE", found=run_type, expected=" or ".join(_ENERGY_RUNS[:2]))
    dft, subsys = force_eval.find("DFT"), force_eval.find("SUBSYS")
    if dft is None or subsys is None:
        raise bad_input(path, "sections", found="no &SUBSYS", expected="&SUBSYS with &COORD")
    if any(dft.flag(name) for name in ("UKS", "LSD", "UNRESTRICTED_KOHN_SHAM", "SPIN_POLARIZED")):
        raise bad_input(path, "UKS", found="two spins", expected="a spin-restricted run")
    source = str(path)
    cell, pbc = _cell(subsys, source)
    labels, positions = _coordinates(subsys, cell, source)
    return RunInput(
        path=path,
        text=text,
        project=root.get("GLOBAL", "PROJECT") or root.get("GLOBAL", "PROJECT_NAME") or "PROJECT",
        labels=labels,
        positions=positions,
        cell=cell,
        pbc=pbc,
        kinds=_kinds(subsys, sorted(set(labels)), source),
        functional=_functional(dft, source),
        cutoff_ry=_quantity(dft.get("MGRID", "CUTOFF") or "280", _ENERGY_RY, "ry", source),
        rel_cutoff_ry=_quantity(dft.get("MGRID", "REL_CUTOFF") or "40", _ENERGY_RY, "ry", source),
        eps_default=_float(dft.get("QS", "EPS_DEFAULT") or "1e-10", source),
        eps_scf=_float(dft.get("SCF", "EPS_SCF") or "1e-5", source),
        kpoint_mesh=_mesh(dft, source),
        smearing_temperature_k=_temperature(dft, source),
        charge=int(dft.get("CHARGE") or 0),
        prints={name: _matrix_print(dft, name, source) for name in ("KS", "S")},
    )


def parse(text: str, source: str) -> Section:
    """Return the tree of sections of an input (after the preprocessor)."""
    root = Section("")
    stack = [root]
    for number, line in enumerate(text.splitlines(), 1):
        content = re.split(r"[!#]", line)[0].strip()
        if not content:
            continue
        if content[0] != "&":
            name, _, value = content.partition(" ")
            stack[-1].keywords.setdefault(name.upper(), []).append(value.strip())
            stack[-1].lines.append(content)
            continue
        name, _, parameter = content[1:].strip().partition(" ")
        if name.upper() != "END":
            section = Section(name.upper(), parameter.strip())
            stack[-1].sections.setdefault(section.name, []).append(section)
            stack.append(section)
            continue
        closed = stack.pop()
        if not stack or parameter.strip().upper() not in ("", closed.name):
            raise bad_input(source, f"line {number}", found=content, expected=f"&END {closed.name}")
    if len(stack) > 1:
        raise bad_input(source, "end of file", found="nothing", expected=f"&END {stack[-1].name}")
    return root


def _expand(path: Path, source: Path) -> str:
    """Text of an input with @INCLUDE and @SET carried out."""
    variables: dict[str, str] = {}
    return "\n".join(_expanded_lines(path, source, variables)) + "\n"


def _expanded_lines(path: Path, source: Path, variables: dict[str, str]) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VcmbenchError(f"{source}: {path}: cannot be read as text ({error})") from error
    for line in lines:
        expanded = re.sub(
            r"\$\{(\w+)\}|\$(\w+)",
            lambda match: _variable(match[1] or match[2], variables, source),
            line,
        )
        if not expanded.lstrip().startswith("@"):
            yield expanded
            continue
        command, *arguments = expanded.split(maxsplit=2)
        if command.upper() == "@SET" and len(arguments) == 2:
            variables[arguments[0].upper()] = arguments[1].strip()
        elif command.upper() == "@INCLUDE" and len(arguments) == 1:
            yield from _expanded_lines(path.parent / arguments[0].strip("'\""), source, variables)
        else:
            raise bad_input(
                source, "preprocessor", found=expanded.strip(), expected="@SET or @INCLUDE only"
            )


def _variable(name: str, variables: dict[str, str], source: Path) -> str:
    if name.upper() not in variables:
        raise bad_input(source, f"${name}", found="no value", expected="an earlier @SET")
    return variables[name.upper()]


def _float(text: str, source: str) -> float:
    try:
        return float(re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", text))
    except ValueError:
        raise bad_input(source, "number", found=repr(text), expected="a number") from None


def _quantity(text: str, units: dict[str, float], default: str, source: str) -> float:
    values = _quantities(text, units, default, source)
    if len(values) != 1:
        raise bad_input(source, "quantity", found=repr(text), expected="one number")
    return float(values[0])


def _quantities(text: str, units: dict[str, float], default: str, source: str) -> FloatArray:
    """Numbers with an optional leading [unit]."""
    match = re.match(r"\[\s*(\w+)\s*\]\s*(.*)", text)
    unit, numbers = (match[1].lower(), match[2]) if match else (default, text)
    if unit not in units:
        raise bad_input(source, "unit", found=unit, expected=" or ".join(units))
    return units[unit] * np.array([_float(word, source) for word in numbers.split()])


def _refuse(section: Section | None, names: tuple[str, ...], source: str, expected: str) -> None:
    for name in names:
        if section is not None and (name in section.keywords or name in section.sections):
            raise bad_input(source, f"&{section.name}/{name}", found="given", expected=expected)


def _cell(subsys: Section, source: str) -> tuple[FloatArray, NDArray[np.bool_]]:
    section = subsys.find("CELL")
    if section is None:
        raise bad_input(source, "&CELL", found="none", expected="ABC or A, B and C")
    _refuse(section, ("CELL_FILE_NAME", "MULTIPLE_UNIT_CELL"), source, "the cell itself")
    if "ABC" in section.keywords:
        lengths = _quantities(section.keywords["ABC"][0], _LENGTH_ANG, "angstrom", source)
        angles = _quantities(
            section.get("ALPHA_BETA_GAMMA") or "90 90 90", {"deg": 1.0}, "deg", source
        )
        if len(lengths) != 3 or len(angles) != 3:
            raise bad_input(source, "ABC", found=len(lengths), expected="3 lengths, 3 angles")
        cell = np.diag(lengths)
        if (angles != 90).any():
            cell = cellpar_to_cell([*lengths, *angles])
    else:
        missing = [name for name in "ABC" if name not in section.keywords]
        if missing:
            raise bad_input(source, "&CELL", found=f"no {missing[0]}", expected="A, B and C")
        cell = np.stack(
            [_quantities(section.keywords[v][0], _LENGTH_ANG, "angstrom", source) for v in "ABC"]
        )
    periodic = (section.get("PERIODIC") or "XYZ").upper()
    return cell, np.array([axis in periodic and periodic != "NONE" for axis in "XYZ"])


def _coordinates(subsys: Section, cell: FloatArray, source: str) -> tuple[list[str], FloatArray]:
    topology = subsys.find("TOPOLOGY")
    _refuse(
        topology,
        ("COORD_FILE_NAME", "MULTIPLE_UNIT_CELL", "CENTER_COORDINATES"),
        source,
        "all sites in &COORD, as they are",
    )
    section = subsys.find("COORD")
    if section is None:
        raise bad_input(source, "&COORD", found="none", expected="the sites")
    rows = [
        line.split() for line in section.lines if line.split()[0].upper() not in ("UNIT", "SCALED")
    ]
    if not rows or any(len(row) < 4 for row in rows):
        raise bad_input(source, "&COORD", found="a short line", expected="kind, x, y, z")
    positions = np.array([[_float(word, source) for word in row[1:4]] for row in rows])
    if section.flag("SCALED"):
        positions = positions @ cell
    else:
        unit = (section.get("UNIT") or "angstrom").lower()
        if unit not in _LENGTH_ANG:
            raise bad_input(source, "&COORD/UNIT", found=unit, expected=" or ".join(_LENGTH_ANG))
        positions = positions * _LENGTH_ANG[unit]
    return [row[0] for row in rows], positions


def _kinds(subsys: Section, labels: list[str], source: str) -> dict[str, Kind]:
    sections = {s.parameter.split()[0].upper(): s for s in subsys.sections.get("KIND", [])}
    kinds = {}
    for label in labels:
        section = sections.get(label.upper(), sections.get("DEFAULT"))
        if section is None:
            raise bad_input(source, f"&KIND {label}", found="none", expected="its basis set")
        element = section.get("ELEMENT") or re.sub(r"[^A-Za-z].*$", "", label)
        number = atomic_numbers.get(element.capitalize())
        if not number:
            raise bad_input(source, f"&KIND {label}", found=element, expected="an ELEMENT")
        ghost = section.flag("GHOST")
        potential = section.get("POTENTIAL")
        kinds[label] = Kind(
            Species(number, ghost),
            _orbital_basis(section, label, source),
            None if ghost or not potential else potential.split()[-1],
        )
    return kinds


def _orbital_basis(kind: Section, label: str, source: str) -> str:
    names = [value.split() for value in kind.keywords.get("BASIS_SET", [])]
    orbital = [words[-1] for words in names if len(words) == 1 or words[0].upper() == "ORB"]
    if len(orbital) != 1:
        raise bad_input(
            source, f"&KIND {label}/BASIS_SET", found=len(orbital), expected="one orbital basis"
        )
    return orbital[0]


def _functional(dft: Section, source: str) -> str:
    section = dft.find("XC", "XC_FUNCTIONAL")
    if section is None:
        raise bad_input(source, "&XC_FUNCTIONAL", found="none", expected="a functional")
    parts = sorted(section.sections)
    return section.parameter.upper() or "+".join(parts) or "NONE"


def _mesh(dft: Section, source: str) -> tuple[int, int, int] | None:
    scheme = (dft.get("KPOINTS", "SCHEME") or "GAMMA").split()
    if dft.find("KPOINTS") is None or scheme[0].upper() in ("GAMMA", "NONE"):
        return None
    if scheme[0].upper() != "MONKHORST-PACK" or len(scheme) != 4:
        raise bad_input(
            source, "&KPOINTS/SCHEME", found=" ".join(scheme), expected="MONKHORST-PACK nx ny nz"
        )
    return int(scheme[1]), int(scheme[2]), int(scheme[3])


def _temperature(dft: Section, source: str) -> float | None:
    smear = dft.find("SCF", "SMEAR")
    if smear is None or smear.parameter.upper() in _FALSE:
        return None
    method = (smear.get("METHOD") or "FERMI_DIRAC").upper()
    if method != "FERMI_DIRAC":
        raise bad_input(source, "&SMEAR/METHOD", found=method, expected="FERMI_DIRAC")
    text = smear.get("ELECTRONIC_TEMPERATURE") or smear.get("ELEC_TEMP") or smear.get("TELEC")
    return _quantity(text or "300", {"k": 1.0}, "k", source)


def _matrix_print(dft: Section, operator: str, source: str) -> MatrixPrint:
    section = dft.find("PRINT", f"{operator}_CSR_WRITE")
    if section is None or section.parameter.upper() in _FALSE:
        raise bad_input(
            source, f"&PRINT/&{operator}_CSR_WRITE", found="none", expected="both matrices printed"
        )
    return MatrixPrint(section.flag("REAL_SPACE"), section.flag("UPPER_TRIANGULAR"))
