"""Partition splits: no leak, nothing twice, nothing lost, halos complete; the bounds refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from release_toys import toy_release
from test_blocks import BASIS
from typer.testing import CliRunner

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.cli import app
from vcmbench.device import Device, Provenance
from vcmbench.documents import write_json
from vcmbench.errors import VcmbenchError
from vcmbench.partition import (
    UNLABELLED,
    block_parts,
    inside_one_slab,
    overlaps,
    site_parts,
    slabs,
)
from vcmbench.release import PartitionSplit, Release
from vcmbench.release.record import Download, write_download
from vcmbench.store import write_device
from vcmbench.structure import Structure
from vcmbench.supervision import supervision

CUTOFF = 5.0


def make_split(period, guard, **parts) -> PartitionSplit:
    return PartitionSplit(
        schema_version=1,
        kind="partition",
        name="partition",
        version=1,
        release={"name": "toy", "version": "1.0.0", "digest": "0"},
        device="long",
        period_ang=period,
        guard_ang=guard,
        parts=parts,
    )


def long_structure(seed: int, period: float, n_sites: int = 90) -> Structure:
    """Sites of a long cell, oblique across x and shorter than the cutoff there, in any image."""
    rng = np.random.default_rng(seed)
    cell = np.array([[period, 1.5, -0.7], [0, 4.6, 0.4], [0, 0.3, 6.1]])
    numbers = rng.choice([8, 72], n_sites)
    ghost = (numbers == 8) & (rng.random(n_sites) < 0.2)
    fractional = rng.random((n_sites, 3)) + rng.integers(-1, 2, (n_sites, 3))
    return Structure.create(numbers, fractional @ cell, cell, is_ghost=ghost)


@st.composite
def partitions(draw) -> tuple[PartitionSplit, BlockPattern]:
    """A random device and three to five ranges with guards between them, one through x = 0."""
    widths = draw(st.lists(st.floats(1.0, 20.0), min_size=3, max_size=5))
    gaps = draw(st.lists(st.floats(CUTOFF, CUTOFF + 4), min_size=len(widths), max_size=len(widths)))
    period = sum(widths) + sum(gaps)
    start = draw(st.floats(0, period))
    parts: dict[str, list[tuple[float, float]]] = {"train": [], "validation": [], "test": []}
    names = ["train", "validation", "test", "train", "test"]
    for name, width, gap in zip(names, widths, gaps, strict=False):
        at = start % period
        parts[name].append((at, at + width))
        start += width + gap
    structure = long_structure(draw(st.integers(0, 2**16)), period)
    # The sum of widths and gaps may round to a guard shorter by 1e-14.
    split = make_split(period, CUTOFF - 1e-9, **parts)
    return split, BlockPattern.from_structure(structure, BASIS, CUTOFF)


@pytest.fixture(params=["device-a", "device-b"])
def real(request, demo) -> tuple[PartitionSplit, BlockPattern]:
    """A bundled device with two parts: three do not fit between guards of 12 Å."""
    pattern = demo.device(request.param).pattern
    period = float(pattern.structure.cell[0, 0])
    split = make_split(period, 12.0, train=[(14.0, 26.0)], test=[(38.5, period + 1.5)])
    return split, pattern


def samples_inside(split: PartitionSplit, pattern: BlockPattern) -> dict[str, np.ndarray]:
    """Which blocks stay within one range, by looking at points all along their vectors."""
    x = pattern.structure.positions[pattern.pair[:, 0], 0]
    along = x[:, None] + np.linspace(0, 1, 61) * pattern.vector[:, :1]
    found = {}
    for part, ranges in split.parts.items():
        inside = np.zeros(pattern.n_blocks, dtype=bool)
        for start, stop in ranges:
            wrapped = (along - start) % split.period_ang
            inside |= (wrapped < stop - start).all(axis=1)
        found[part] = inside
    return found


def keys(pattern: BlockPattern, blocks: np.ndarray) -> set[tuple[int, ...]]:
    """Both directions of the selected blocks."""
    rows = np.column_stack([pattern.pair, pattern.shift])[blocks]
    turned = np.column_stack([rows[:, 1], rows[:, 0], -rows[:, 2:]])
    return {tuple(row) for row in np.concatenate([rows, turned]).tolist()}


def check_no_leak(split: PartitionSplit, pattern: BlockPattern) -> None:
    names = list(split.parts)
    labels, sites = block_parts(split, pattern), site_parts(split, pattern.structure)
    for index, part in enumerate(names):
        for other in range(index + 1, len(names)):
            assert not keys(pattern, labels == index) & keys(pattern, labels == other)
        own = sites[pattern.pair[labels == index]]
        assert (own == index).all(), part
    # The pattern holds every pair of sites within the support, images included.
    ends = sites[pattern.pair]
    both = (ends != UNLABELLED).all(axis=1)
    assert (ends[both, 0] == ends[both, 1]).all()


def check_nothing_lost_or_twice(split, pattern, width, reach) -> None:
    labels = block_parts(split, pattern)
    for part, inside in samples_inside(split, pattern).items():
        assert np.array_equal(labels == list(split.parts).index(part), inside)
        pieces = slabs(split, part, pattern, width_ang=width, reach_ang=reach)
        supervised = np.concatenate([piece.blocks for piece in pieces])
        assert np.array_equal(np.sort(supervised), np.flatnonzero(inside))
        assert all(p.stop_ang - p.start_ang <= width + 1e-9 for p in pieces)


def check_halos(split, pattern, width, reach) -> None:
    structure = pattern.structure
    near = BlockPattern.from_structure(structure, pattern.basis, reach)
    for part in split.parts:
        for piece in slabs(split, part, pattern, width_ang=width, reach_ang=reach):
            mask = np.zeros(structure.n_sites, dtype=bool)
            mask[pattern.pair[piece.blocks]] = True
            ends = np.flatnonzero(mask)
            touching = np.isin(near.pair, ends).any(axis=1)
            assert set(near.pair[touching].ravel().tolist()) <= set(piece.sites.tolist())


@settings(max_examples=40, deadline=None)
@given(partitions(), st.floats(1.0, 12.0), st.floats(1.0, 9.0))
def test_rules_hold_for_random_devices(drawn, width, reach):
    split, pattern = drawn
    check_no_leak(split, pattern)
    check_nothing_lost_or_twice(split, pattern, width, reach)
    check_halos(split, pattern, width, reach)


def test_rules_hold_for_real_devices(real):
    split, pattern = real
    check_no_leak(split, pattern)
    check_nothing_lost_or_twice(split, pattern, width=3.0, reach=8.0)
    check_halos(split, pattern, width=3.0, reach=8.0)


def test_a_block_and_its_transpose_have_one_label(real):
    split, pattern = real
    order = np.random.default_rng(0).permutation(pattern.n_blocks)[:4000]
    half = pattern.subset(np.sort(order))
    turned = BlockPattern.from_unsorted(
        pattern.structure, pattern.basis, half.pair[:, ::-1], -half.shift, directed=True
    )
    back = BlockPattern.from_unsorted(
        pattern.structure, pattern.basis, half.pair, half.shift, directed=True
    )
    label_of = {
        (i, j, *R): label
        for (i, j), R, label in zip(
            back.pair.tolist(), back.shift.tolist(), block_parts(split, back), strict=True
        )
    }
    for (i, j), R, label in zip(
        turned.pair.tolist(), turned.shift.tolist(), block_parts(split, turned), strict=True
    ):
        assert label == label_of[(j, i, *(-r for r in R))]


def test_a_pair_joined_through_the_boundary_is_no_label():
    """Both sites are in the training range, but the image that is near lies the other way."""
    structure = Structure.create([8, 8], [[0.5, 0, 0], [23.5, 0, 0]], np.diag([24.0, 30, 30]))
    pattern = BlockPattern.from_structure(structure, BASIS, 3.0)
    joined = ~pattern.is_onsite
    assert joined.sum() == 1
    split = make_split(24.0, 0.5, train=[(0.2, 23.8)])
    labels = block_parts(split, pattern)
    assert (site_parts(split, structure) == 0).all()
    assert labels[joined].tolist() == [UNLABELLED]
    assert (labels[~joined] == 0).all()
    through = make_split(24.0, 0.5, train=[(12.0, 35.0)])
    assert (block_parts(through, pattern) == 0).all()


def test_published_rule_keeps_a_quarter_and_never_more_than_ours(demo):
    pattern = demo.device("device-a").pattern
    near = pattern.subset(pattern.distance < 8.0)
    period = float(pattern.structure.cell[0, 0])
    split = make_split(period, 1.0, train=[(0.0, period - 1e-3)])
    ours = block_parts(split, near) == 0
    theirs = inside_one_slab(split, "train", near, width_ang=3.0)
    assert not (theirs & ~ours).any()
    assert 0.2 < theirs.sum() / ours.sum() < 0.35
    wider = inside_one_slab(split, "train", near, width_ang=12.0)
    assert theirs.sum() < wider.sum() < ours.sum()


def test_overlap_of_receptive_fields():
    x = np.arange(0.5, 60.0, 1.0)
    structure = Structure.create(
        np.full(60, 8), np.stack([x, 0 * x, 0 * x], 1), np.diag([60.0, 20, 20])
    )
    split = make_split(60.0, 12.0, train=[(0.0, 12.0)], validation=[(24.0, 34.0)], test=[(46, 48)])
    short = {o.part: o for o in overlaps(split, structure, reach_ang=5.0)}
    assert short["validation"].guard_ang == short["test"].guard_ang == 12.0
    assert short["test"].overlap_ang == 0
    assert short["validation"].seen_sites == 0
    long = {o.part: o for o in overlaps(split, structure, reach_ang=16.0)}
    assert long["test"].overlap_ang == 20.0
    assert (long["test"].seen_sites, long["test"].sites) == (2, 2)
    assert (long["validation"].seen_sites, long["validation"].sites) == (4, 10)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": [(0, 20)], "test": [(30, 40)]}, "found 10 Å from train to test at x = 20 Å"),
        ({"train": [(0, 20)], "test": [(40, 50)]}, "found 10 Å from test to train at x = 50 Å"),
        ({"train": [(0, 20)], "test": [(0, 10)]}, "found -10 Å|found -20 Å"),
        ({"train": [(0, 20), (20, 30)]}, "found 0 Å from train to train .* one range where two"),
        ({"train": [(0, 60)]}, "one range where two touch"),
        ({"train": [(-1, 20)]}, r"train: found range \[-1, 20\] Å, expected 0 <= start < 60"),
        ({"train": []}, "Tuple should have at least 1 item"),
        ({"train": [(5, 5)]}, r"found range \[5, 5\]"),
        ({"train": [(10, 75)]}, r"found range \[10, 75\].*at most one period"),
        ({"train": [(50, 70)], "test": [(20, 30)]}, "found 10 Å from train to test at x = 70 Å"),
    ],
)
def test_leaky_bounds_are_refused(parts, message):
    with pytest.raises(ValidationError, match=message):
        make_split(60.0, 12.0, **parts)


@pytest.fixture(scope="module")
def long_release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long") / "long"
    for name, seed in (("long", 5), ("other", 6)):
        pattern = BlockPattern.from_structure(long_structure(seed, 60.0), BASIS, CUTOFF)
        values = np.random.default_rng(seed).normal(size=pattern.n_entries)
        matrix = BlockMatrix(pattern, values).symmetrise()[0]
        device = Device(name, "bulk", matrix, matrix * 0.1, Provenance(code="random"))
        write_device(folder / f"devices/{name}.zarr.zip", device)
    cut = {
        "version": 3,
        "device": "long",
        "parts": {"train": [(55.0, 85.0)], "validation": [(30.5, 36.0)], "test": [(42.0, 49.5)]},
    }
    return toy_release(
        folder, {"train": ("other",)}, support_ang=CUTOFF, partitions={"partition": cut}
    )


def test_release_with_a_partition(long_release):
    split = long_release.partition()
    assert (split.period_ang, split.guard_ang, split.version) == (60.0, CUTOFF, 3)
    assert split.release.digest == long_release.manifest.digest
    card = (long_release.folder / "README.md").read_text()
    assert "| `partition` | train | `long`, x in 55–85 Å |" in card
    assert long_release.split_names == ["device", "partition"]
    pattern = long_release.device(split.device).pattern
    check_no_leak(split, pattern)
    with pytest.raises(VcmbenchError, match=r"found a partition of device 'long', expected a sp"):
        long_release.device_ids("partition:train")
    with pytest.raises(VcmbenchError, match=r"'device' of toy.* found a split of whole devices"):
        long_release.partition("device")
    with pytest.raises(VcmbenchError, match=r"unknown part of split 'partition' 'tset'"):
        split.ranges("tset")
    other = long_release.device("other").structure
    stretched = Structure.create(other.numbers, other.positions, other.cell * 1.01)
    with pytest.raises(VcmbenchError, match=r"period_ang: found 60.0, expected 60.6"):
        site_parts(split, stretched)
    turned = Structure.create(other.numbers, other.positions, other.cell[::-1])
    with pytest.raises(VcmbenchError, match=r"long: cell: .*expected periodic along x"):
        site_parts(split, turned)


def test_narrow_guard_in_a_recipe_is_refused(long_release, tmp_path):
    shutil.copytree(long_release.folder / "devices", tmp_path / "x/devices")
    cut = {"version": 1, "device": "long", "parts": {"train": [(0, 30)], "test": [(34, 50)]}}
    with pytest.raises(VcmbenchError, match=r"split 'p': .*found 4 Å from train to test"):
        toy_release(
            tmp_path / "x",
            {"train": ("long", "other")},
            support_ang=CUTOFF,
            partitions={"p": cut},
        )
    cut["device"] = "lnog"
    with pytest.raises(VcmbenchError, match=r"split 'p': device: found lnog, expected \['long'"):
        toy_release(
            tmp_path / "x",
            {"train": ("long", "other")},
            support_ang=CUTOFF,
            partitions={"p": cut},
        )


def test_a_file_with_a_guard_below_the_support_is_refused(long_release, tmp_path):
    folder = tmp_path / "narrow"
    shutil.copytree(long_release.folder, folder)
    path = folder / "splits/partition.json"
    write_json(path, long_release.partition().model_copy(update={"guard_ang": 1.0}))
    with pytest.raises(VcmbenchError, match=r"guard_ang: found 1\.0, expected at least the supp"):
        Release.open(folder).partition()


def test_supervision_adds_up(long_release):
    split = long_release.partition()
    pattern = long_release.device("long").pattern
    parts = supervision(long_release, split)
    assert [part.part for part in parts] == ["train", "validation", "test", "guards"]
    assert sum(part.whole.blocks for part in parts) == pattern.n_blocks
    assert sum(part.whole.entries for part in parts) == pattern.n_entries
    assert sum(part.sites for part in parts) == pattern.structure.n_sites
    assert sum(part.share for part in parts) == pytest.approx(1)
    ghosts = pattern.structure.is_ghost[pattern.pair].any(axis=1)
    assert sum(part.whole.ghost_blocks for part in parts) == ghosts.sum()


def test_device_that_a_download_left_out_is_not_counted(long_release, tmp_path):
    folder = tmp_path / "partial"
    shutil.copytree(long_release.folder, folder)
    (folder / "devices/long.zarr.zip").unlink()
    write_download(
        folder, Download(label=long_release.label, repo="me/it", revision="0", devices=("other",))
    )
    release = Release.open(folder)
    for part in supervision(release, release.partition()):
        assert (part.devices, part.left_out, part.whole.entries) == (0, 1, 0)
    (part,) = supervision(release, release.split())
    assert (part.devices, part.left_out) == (1, 0)
    shown = CliRunner().invoke(app, ["data", "splits", str(folder)])
    assert shown.exit_code == 0


def test_splits_command(long_release):
    runner = CliRunner()
    arguments = ["data", "splits", str(long_release.folder)]
    device, partition = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert device["parts"] == {"train": ["other"]}
    assert device["supervision"][0]["sites"] == 90
    report = partition["partition"]
    assert 0 < report["both_ends_inside_blocks"] < report["supervised_blocks"]
    assert {row["part"] for row in report["overlaps"]} == {"validation", "test"}
    shown = runner.invoke(app, [*arguments, "--split", "partition", "--slab-width", "30"]).stdout
    assert "guards" in shown
    assert "(100.0%)" in shown
    wrong = runner.invoke(app, [*arguments, "--split", "partitoin"])
    assert "did you mean 'partition'" in str(wrong.exception)
