"""Recipes: defaults, families, and mistakes named by file and field."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vcmbench.errors import VcmbenchError
from vcmbench.recipe import Recipe

RECIPE = """
name: toy
dft: {cutoff_ry: 300}
defaults: {cross_section_ang: 8.48, oxide_units: 26, ti_layers: 2}
devices:
  - {id: s1-v0, structure: {seed: 1}}
  - {id: s2-v1, structure: {seed: 2, vacancies: {kind: random, count: 1}}}
  - {id: s1-v2, structure: {seed: 1, vacancies: {kind: random, count: 2, seed: 3}}}
  - {id: s1-thick, structure: {seed: 1, oxide_units: 30}}
  - {id: s2-f, structure: {seed: 2, vacancies: {kind: filament, radius_ang: 2.0}}}
"""


@pytest.fixture
def read(tmp_path):
    def read(old: str = "", new: str = "", text: str = RECIPE) -> Recipe:
        assert old in text
        (tmp_path / "toy.yml").write_text(text.replace(old, new, 1) if old else text)
        return Recipe.read(tmp_path / "toy.yml")

    return read


def test_defaults_are_merged_field_by_field(read):
    recipe = read()
    first, _, _, thick, _ = recipe.devices
    assert (first.structure.seed, first.structure.ti_layers) == (1, 2)
    assert first.structure.oxide_units == 26
    assert thick.structure.oxide_units == 30
    assert recipe.dft.cutoff_ry == 300
    assert recipe.dft.eps_scf == 1e-6
    assert recipe.lead == "lead-tin"


def test_device_of_nothing_but_defaults(read):
    recipe = read("{id: s1-v0, structure: {seed: 1}}", "{id: s1-v0, structure: }")
    assert recipe.devices[0].structure.seed == 0
    assert recipe.devices[0].structure.oxide_units == 26


def test_families_hold_siblings_in_the_order_of_the_recipe(read):
    families = [[job.id for job in family] for family in read().families()]
    assert families == [["s1-v0", "s1-v2"], ["s2-v1", "s2-f"], ["s1-thick"]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: toy", "nam: toy", "toy.yml: nam: Extra inputs are not permitted"),
        ("name: toy", "", "toy.yml: name: Field required"),
        ("cutoff_ry", "cutof", "toy.yml: dft.cutof: Extra inputs are not permitted"),
        ("{seed: 1}", "{sed: 1}", "toy.yml: devices.0.structure.sed: Extra inputs"),
        ("ti_layers: 2", "ti: 2", "toy.yml: devices.4.structure.ti: Extra inputs"),
        ("seed: 2", "seed: -2", "toy.yml: devices.1.structure.seed: Input should be greater"),
        ("count: 1", "count: 0", "toy.yml: devices.1.structure.vacancies.random.count: Input"),
        (
            "kind: filament",
            "kind: hole",
            "toy.yml: devices.4.structure.vacancies: Input tag 'hole'",
        ),
        ("{id: s1-v0", "{id: S1/v0", "toy.yml: devices.0.id: String should match pattern"),
        (
            "s2-f",
            "s1-v0",
            "toy.yml: Value error, devices: id: found 's1-v0' twice, expected each once",
        ),
        ("s2-f", "lead-tin", "devices: id: found 'lead-tin' twice, expected each once"),
        ("name: toy", "name: toy\nlead: ../x", "toy.yml: lead: String should match pattern"),
        ("8.48", "9", "cross_section_ang: found 9.0, expected a multiple of 4.24"),
        ("structure: {seed: 1}", "structure: none", "toy.yml: devices.0.structure: Input should"),
        (
            "defaults: {cross_section_ang: 8.48, oxide_units: 26, ti_layers: 2}",
            "defaults: 8.48",
            "toy.yml: defaults: Input should be a valid dictionary",
        ),
        ("  - {id: s1-v0, structure: {seed: 1}}", "  - s1-v0", "toy.yml: devices.0: Input should"),
    ],
)
def test_mistakes_are_named_by_file_and_field(read, old, new, message):
    with pytest.raises(VcmbenchError) as caught:
        read(old, new)
    assert message in str(caught.value)


def test_every_mistake_is_named(read):
    with pytest.raises(VcmbenchError) as caught:
        read("name: toy", "nam: toy", text=RECIPE.replace("cutoff_ry", "cutof"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "toy.yml: not a YAML document"),
        ("", "toy.yml: Input should be"),
        ("- a\n- b\n", "toy.yml: Input should be"),
        ("name: x\ndevices: []\n", "toy.yml: devices: Tuple should have at least 1 item"),
        ("name: x\ndevices: {a: b}\n", "toy.yml: devices: Input should be a valid tuple"),
        ("name: x\n", "toy.yml: devices: Field required"),
    ],
)
def test_files_that_hold_no_recipe(read, text, message):
    with pytest.raises(VcmbenchError) as caught:
        read(text=text)
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(VcmbenchError, match=r"no\.yml: cannot be read \(No such file"):
        Recipe.read(tmp_path / "no.yml")
    (tmp_path / "latin.yml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(VcmbenchError, match=r"latin\.yml: not a YAML document"):
        Recipe.read(tmp_path / "latin.yml")


def test_lead_of_a_wider_cross_section_has_the_mesh_of_its_devices():
    def lead_mesh(side: float, **dft):
        device = {"id": "a", "structure": {"cross_section_ang": side, "oxide_units": 150}}
        return Recipe(name="toy", dft=dft, devices=[device]).lead_dft.kpoint_mesh

    assert lead_mesh(8.48) is None  # 6 × 4 × 4, what the TiN cell has by itself
    assert lead_mesh(12.72) == (6, 6, 6)
    assert lead_mesh(16.96) == (6, 4, 8)
    assert lead_mesh(8.48, kpoint_mesh=(1, 4, 4)) == (6, 8, 8)


def test_two_cross_sections_need_two_recipes():
    devices = [
        {"id": name, "structure": {"cross_section_ang": side, "oxide_units": 150}}
        for name, side in (("a", 8.48), ("b", 12.72))
    ]
    with pytest.raises(ValidationError, match=r"found 8\.48 Å, 12\.72 Å, expected one"):
        Recipe(name="toy", devices=devices)
