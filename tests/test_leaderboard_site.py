"""The site: what it shows, that nothing in it runs, and how it behaves in a browser."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from leaderboard_toys import edit_json, submit, write_hardware
from typer.testing import CliRunner

pytest.importorskip("jinja2")
pytest.importorskip("markdown_it")

from vcmbench.cli import app
from vcmbench.errors import VcmbenchError
from vcmbench.leaderboard.record import (
    HiddenScores,
    Record,
    read_record,
    record_path,
    write_record,
)
from vcmbench.leaderboard.score import Scoring, score
from vcmbench.leaderboard.site.boards import read_contents
from vcmbench.leaderboard.site.build import build_site
from vcmbench.leaderboard.site.cards import card_html
from vcmbench.leaderboard.site.charts import LETTER, WIDTH, Axis, Mark, scatter
from vcmbench.leaderboard.site.figures import digits, hours
from vcmbench.leaderboard.throughput import Rung, VerifiedThroughput
from vcmbench.release import Release

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
MODELS = {
    "loud-net": {"noise_ev": 2e-3, "seed": 1},
    "quiet-net": {"noise_ev": 5e-4, "seed": 2, "parts": ("bulk",)},
    "evil-net": {
        "noise_ev": 1e-3,
        "seed": 3,
        "description": EVIL,
        "authors": [EVIL, "B. <b>old</b>"],
        "references": ["javascript:alert(1)", EVIL],
        "training": {"datasets": [], "extra_data": [EVIL]},
    },
}
SPEEDS = {"loud-net": 5000.0, "quiet-net": 800.0}


@pytest.fixture(scope="module", autouse=True)
def known(wire_release, tmp_path_factory):
    """The release is found by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for module in ("vcmbench.release.find", "vcmbench.leaderboard.validate"):
            patch.setattr(f"{module}.known_releases", lambda: {"wires": wire_release})
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory, wire_release) -> Path:
    """A leaderboard of three models, two of them timed on one machine."""
    folder = tmp_path_factory.mktemp("original")
    write_hardware(folder)
    release = Release.open(wire_release)
    for name, options in MODELS.items():
        entry = submit(folder, name, release, **options)
        work = folder / "results" / name
        score(entry.folder, Scoring(folder, work, predictions=folder / "predictions" / name))
        if name in SPEEDS:
            change_record(folder, name, throughput=verified(SPEEDS[name]))
    return folder


@pytest.fixture
def leaderboard(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "leaderboard"))


@pytest.fixture(scope="module")
def site(original, tmp_path_factory) -> Path:
    return build_site(original, tmp_path_factory.mktemp("site") / "site").index.parent


def change_record(folder: Path, name: str, **changes: object) -> Record:
    path = record_path(folder, name)
    record = read_record(path).model_copy(update=changes)
    write_record(path, record)
    return record


def verified(atoms_per_s: float, hardware: str = "bench-gpu") -> VerifiedThroughput:
    rungs = (
        Rung(n_sites=80, outcome="measured", median_s=0.1, atoms_per_s=800, peak_memory_bytes=1),
        Rung(n_sites=720, outcome="measured", median_s=0.9, atoms_per_s=800, peak_memory_bytes=9),
        Rung(n_sites=6480, outcome="out of memory"),
    )
    return VerifiedThroughput(
        hardware=hardware,
        accelerator_name="Bench 1",
        threads=8,
        device="wire",
        n_sites=80,
        atoms_per_s=atoms_per_s,
        edges_per_s=1e5,
        median_s=80 / atoms_per_s,
        full_median_s=160 / atoms_per_s,
        peak_memory_bytes=1 << 30,
        ladder=rungs,
        slope=1.0,
    )


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def pages(site: Path) -> dict[str, _Page]:
    return {
        path.relative_to(site).as_posix(): _Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }


def test_pages(site):
    assert set(pages(site)) == {
        "index.html",
        "datasets/wires-0.1.0.html",
        "compare/wires-0.1.0-spec-1.html",
        *(f"models/{name}.html" for name in MODELS),
    }


def test_the_ladder_of_sizes_is_on_the_models_page(site):
    text = (site / "models/loud-net.html").read_text(encoding="utf-8")
    assert "Measured by the maintainers on <b>Bench GPU</b>" in text
    assert "Ladder of sizes" in text
    assert text.count('<circle class="dot first"') == 2
    assert '<td colspan="3">out of memory</td>' in text
    assert "Ladder of sizes" not in (site / "models/evil-net.html").read_text(encoding="utf-8")


def test_parts_out_of_distribution_have_a_table_and_do_not_enter_the_order(site, leaderboard):
    index = (site / "index.html").read_text(encoding="utf-8")
    table = index[index.index("<h3>Out of distribution</h3>") :]
    table = table[: table.index("</table>")]
    assert "bulk MAE" in table
    assert re.findall(r'href="models/([\w-]+)\.html#further"', table) == ["quiet-net"]
    mae, transmission = re.findall(r'<td class="number"[^>]*>([^<]*)', table)
    # The mean of |noise| is sqrt(2/pi) of its deviation of 0.5 meV; a bulk cell has no contacts.
    assert float(mae) == pytest.approx(0.5 * 0.798, rel=0.05)
    assert transmission.strip() == "–"
    for name in MODELS:
        page = (site / f"models/{name}.html").read_text(encoding="utf-8")
        assert ('<h2 id="further">' in page) == (name == "quiet-net")
    record = read_record(record_path(leaderboard, "quiet-net"))
    worse = record.further["bulk"].model_copy(update={"mae_mev": 1e3})
    change_record(leaderboard, "quiet-net", further={"bulk": worse})
    assert read_contents(leaderboard).boards[0].models[0].name == "quiet-net"


def test_transmission_out_of_distribution_is_drawn(leaderboard, tmp_path):
    record = read_record(record_path(leaderboard, "quiet-net"))
    curves = {"moved": record.transmission["wire"]}
    part = record.further["bulk"].model_copy(update={"transmission": curves, "log10_mae": 0.1})
    change_record(leaderboard, "quiet-net", further={"bulk": part})
    folder = build_site(leaderboard, tmp_path / "site").index.parent
    page = (folder / "models/quiet-net.html").read_text(encoding="utf-8")
    assert "moved: transmission, k-averaged, per spin" in page
    compare = (folder / "compare/wires-0.1.0-spec-1.html").read_text(encoding="utf-8")
    assert re.findall(r"<figcaption>([\w-]+)</figcaption>", compare) == ["wire", "moved"]
    assert len(re.findall(r'data-model="quiet-net" d=', compare)) == 2
    assert len(re.findall(r'data-model="loud-net" d=', compare)) == 1


def test_every_link_and_file_is_there_and_nothing_is_loaded_from_elsewhere(site):
    for name, page in pages(site).items():
        for tag, attributes in page.tags:
            for kind in ("src", "href"):
                address = attributes.get(kind)
                if address is None:
                    continue
                parts = urlsplit(address)
                if parts.scheme:
                    assert (tag, parts.scheme) == ("a", "https"), (name, address)
                elif parts.path:
                    target = (site / name).parent / parts.path
                    assert target.is_file(), (name, address)
                    if parts.fragment:
                        assert f'id="{parts.fragment}"' in target.read_text(encoding="utf-8")


def test_nothing_of_a_submission_becomes_markup(site):
    for name, page in pages(site).items():
        scripts = [attributes for tag, attributes in page.tags if tag == "script"]
        assert [Path(attributes["src"]).name for attributes in scripts] == ["site.js"], name
        assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)], name
        assert not [a for tag, a in page.tags if tag == "img"], name
        assert not [a for _, a in page.tags if (a.get("href") or "").startswith("javascript")]
    text = (site / "models/evil-net.html").read_text(encoding="utf-8")
    assert "&lt;/script&gt;&lt;script&gt;" in text


def test_default_order_is_that_of_the_test_and_of_the_hidden_test_where_it_is_known(
    leaderboard, tmp_path
):
    def order() -> list[str]:
        (board,) = read_contents(leaderboard).boards
        return [model.name for model in board.models]

    assert order() == ["quiet-net", "evil-net", "loud-net"]
    hidden = HiddenScores(
        n_devices=2, mae_mev=0.1, mae_full_mev=0.1, mae_bounds_mev=None,
        log10_mae=None, log10_mae_bounds=None,
    )  # fmt: skip
    change_record(leaderboard, "loud-net", hidden=hidden)
    assert order() == ["loud-net", "quiet-net", "evil-net"]
    index = build_site(leaderboard, tmp_path / "site").index.read_text(encoding="utf-8")
    assert "Hidden test MAE" in index


def test_tracks(leaderboard):
    (board,) = read_contents(leaderboard).boards
    tracks = {model.name: model.submission.track for model in board.models}
    assert tracks["evil-net"] == "extra data"
    assert tracks["quiet-net"] == "release only"


def test_specifications_and_dataset_versions_have_tables_of_their_own(leaderboard):
    record = read_record(record_path(leaderboard, "loud-net"))
    other = record.result.dataset.model_copy(update={"version": "0.2.0"})
    result = record.result.model_copy(update={"dataset": other})
    change_record(leaderboard, "loud-net", result=result)
    boards = read_contents(leaderboard).boards
    assert [(b.label, len(b.models)) for b in boards] == [("wires@0.2.0", 1), ("wires@0.1.0", 2)]


def test_hardware_is_never_mixed_and_unverified_figures_are_in_no_plot(leaderboard):
    def races() -> dict[str, list[tuple[str, bool]]]:
        contents = read_contents(leaderboard)
        found = contents.races(contents.boards[0])
        return {r.machine.label: [(s.model.name, s.on_front) for s in r.speeds] for r in found}

    # evil-net has no verified figure: it is not there.
    assert races() == {"Bench GPU": [("quiet-net", True), ("loud-net", True)]}
    change_record(leaderboard, "evil-net", throughput=verified(100.0, "bench-cpu"))
    assert races() == {
        "Bench GPU": [("quiet-net", True), ("loud-net", True)],
        "Bench CPU": [("evil-net", True)],
    }
    change_record(leaderboard, "evil-net", throughput=verified(100.0))
    assert ("evil-net", False) in races()["Bench GPU"]


def test_a_record_of_another_state_counts_as_none(leaderboard, tmp_path):
    path = leaderboard / "submissions/loud-net/submission.yml"
    path.write_text(path.read_text().replace("version: '1'", "version: '2'"))
    contents = read_contents(leaderboard)
    assert [submission.name for submission in contents.waiting] == ["loud-net"]
    assert len(contents.boards[0].models) == 2
    index = build_site(leaderboard, tmp_path / "site").index.read_text(encoding="utf-8")
    assert "Waiting to be scored" in index


def test_a_damaged_submission_hides_no_other(leaderboard, tmp_path):
    (leaderboard / "submissions/loud-net/result.json").write_text("{")
    result = CliRunner().invoke(
        app,
        [
            "leaderboard",
            "build",
            "--leaderboard",
            str(leaderboard),
            "--output",
            str(tmp_path / "s"),
        ],
    )
    assert result.exit_code == 0
    assert "loud-net is not shown: result.json" in result.stderr
    assert (tmp_path / "s/models/quiet-net.html").is_file()
    assert not (tmp_path / "s/models/loud-net.html").exists()


def test_an_empty_leaderboard_has_a_site(tmp_path):
    write_hardware(tmp_path / "empty")
    (tmp_path / "empty/submissions").mkdir()
    index = build_site(tmp_path / "empty", tmp_path / "site").index
    assert "No model has been scored yet" in index.read_text(encoding="utf-8")


def test_a_folder_that_is_no_leaderboard_is_named(tmp_path):
    with pytest.raises(VcmbenchError, match=r"nothing: hardware\.yml: found no such file"):
        build_site(tmp_path / "nothing", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_folder_with_other_content_is_not_replaced(leaderboard, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.tex").write_text("x")
    with pytest.raises(VcmbenchError, match="found one with other content"):
        build_site(leaderboard, target)
    assert [path.name for path in target.iterdir()] == ["thesis.tex"]


def test_building_twice_gives_the_same_bytes(leaderboard, site, tmp_path):
    first = build_site(leaderboard, tmp_path / "first").index.parent
    second = build_site(leaderboard, tmp_path / "first").index.parent
    for path in second.rglob("*.html"):
        name = path.relative_to(second)
        assert path.read_bytes() == (site / name).read_bytes()
    assert first == second


def test_html_in_a_card_is_shown_as_text(tmp_path, wire_release):
    copy = Path(shutil.copytree(wire_release, tmp_path / "wires"))
    (copy / "README.md").write_text(
        "---\nlicense: x\n---\n<!-- begin title -->\n# Wires\n\n<script>alert(1)</script>\n\n"
        "[a](javascript:alert(1)) ![b](../../etc/passwd) ![c](http://elsewhere/x.png)\n\n"
        "| a |\n| --- |\n| 1 |\n"
    )
    text = card_html(Release.open(copy), tmp_path / "images", "images")
    assert "<script" not in text
    assert "javascript:" not in re.sub(r">[^<]*<", "><", text)
    assert re.findall(r'src="([^"]*)"', text) == ["", ""]
    assert '<div class="scroll" tabindex="0" role="region"' in text
    assert "license" not in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.3994, "0.399"),
        (0.4, "0.400"),
        (4.83, "4.83"),
        (14.8123, "14.8"),
        (131.2, "131"),
        (20000.0, "20,000"),
        (1234567.0, "1,230,000"),
        (-0.2, "−0.200"),
        (0.00012, "0.000120"),
        (3.4e-6, "3.4e−06"),
        (0, "0"),
        (100.0, "100"),
    ],
)
def test_three_digits(number, text):
    assert digits(number) == text


def test_short_times_are_in_minutes():
    assert (hours(0.086), hours(1.0), hours(26.0)) == ("5.16 min", "1.00 h", "26.0 h")


def test_axes():
    axis = Axis.over("T", [1e-15, 3e-4, 0.5], logarithmic=True, lowest=1e-10)
    assert (axis.low, axis.high) == (pytest.approx(1e-10), pytest.approx(1.0))
    assert axis.ticks()[0][1] == "10⁻¹⁰"
    assert axis.fraction(1e-5) == pytest.approx(0.5)
    assert axis.fraction(0.0) == 0
    plain = Axis.over("E", [-1.0, 1.0])
    assert (plain.low, plain.high) == (-1, 1)
    assert "0" in [text for _, text in plain.ticks()]


@pytest.mark.parametrize(
    ("values", "low", "high", "ticks"),
    [
        ([0.4, 1.6], 0.2, 2, ["0.2", "0.5", "1", "2"]),
        ([1.0, 10.0], 0.5, 20, ["0.5", "1", "2", "5", "10", "20"]),
        ([3.0], 2, 5, ["2", "5"]),
        ([950.0], 500, 1000, ["500", "1000"]),
        ([1e-3, 2.0], 1e-3, 10, ["10⁻³", "10⁻²", "10⁻¹", "10⁰", "10¹"]),
    ],
)
def test_logarithmic_axes(values, low, high, ticks):
    axis = Axis.over("x", values, logarithmic=True)
    assert (axis.low, axis.high) == (pytest.approx(low), pytest.approx(high))
    assert [text for _, text in axis.ticks()] == ticks


def test_labels_of_marks_neither_meet_nor_leave_the_chart():
    names = ["tensor-product", "so2-local", "mace", "slater-koster", "species-mean"]
    marks = [Mark(name, 5000.0 + 40 * i, 4.9 - 0.05 * i, True) for i, name in enumerate(names)]
    axes = (
        Axis.over("x", [100.0, 5200.0], logarithmic=True),
        Axis.over("y", [0.3, 4.9], logarithmic=True),
    )
    text = str(scatter("t", *axes, marks))
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([a-z0-9-]+)<', text)
    boxes = []
    for x, y, anchor, label in found:
        if label in names:
            start = float(x) - (0 if anchor == "start" else LETTER * len(label))
            boxes.append((start, start + LETTER * len(label), float(y)))
    assert len(boxes) == len(names)
    for index, (left, right, base) in enumerate(boxes):
        assert left > 0
        assert right <= WIDTH
        assert base > 10
        for other in boxes[:index]:
            assert right <= other[0] or other[1] <= left or abs(base - other[2]) >= 13


def test_results_of_other_scores_cannot_be_a_record(leaderboard):
    edit_json(record_path(leaderboard, "loud-net"), {"result.score_spec": 2})
    contents = read_contents(leaderboard)
    assert any("loud-net is not shown" in remark for remark in contents.remarks)
