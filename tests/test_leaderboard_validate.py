"""Submissions: every problem is named, nothing hostile gets through."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from leaderboard_toys import edit_json, submit
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.errors import VcmbenchError
from vcmbench.leaderboard.strict_yaml import read_strict_yaml
from vcmbench.leaderboard.validate import check_submission, read_entry
from vcmbench.release import Release


@pytest.fixture(scope="module")
def release(wire_release) -> Release:
    return Release.open(wire_release)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, release) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMBENCH_CACHE", str(folder / "cache"))
        return submit(folder, "noisy", release).folder


@pytest.fixture
def submission(packed, tmp_path) -> Path:
    """A submission to spoil."""
    return Path(shutil.copytree(packed, tmp_path / "noisy"))


def problems(folder: Path, release: Release) -> list[str]:
    return [str(problem) for problem in check_submission(folder, release)[1]]


def edit_yaml(folder: Path, **changes: object) -> None:
    path = folder / "submission.yml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, **changes}))


def test_a_packed_submission_is_in_good_order(submission, release):
    entry = read_entry(submission, release)
    assert entry.submission.track == "release only"
    assert set(entry.predictions.files) == {"wire"}
    assert {path.name for path in submission.iterdir()} == {
        "submission.yml",
        "result.json",
        "predictions.json",
    }


def test_every_problem_is_named_at_once_with_the_closest_value(submission, release):
    document = yaml.safe_load((submission / "submission.yml").read_text())
    document["desciption"] = document.pop("description")
    document |= {"code_license": "Apache 2", "cutoff_ang": -1, "name": "Not a name"}
    (submission / "submission.yml").write_text(yaml.safe_dump(document))
    edit_json(submission / "predictions.json", {"hosting.kind": "ulr", "dataset.version": "latest"})
    found = problems(submission, release)
    for expected in (
        "submission.yml: description: found nothing",
        "submission.yml: desciption: found an unknown field, expected one of",
        "did you mean 'description'?",
        "submission.yml: code_license: found 'Apache 2'",
        "did you mean 'Apache-2.0'?",
        "submission.yml: cutoff_ang: found -1",
        "submission.yml: name: found 'Not a name'",
        "predictions.json: hosting: found 'ulr', expected one of baseline, hub, url "
        "(did you mean 'url'?)",
        "predictions.json: dataset.version: found 'latest'",
    ):
        assert any(expected in line for line in found), (expected, found)


def test_the_command_names_them_all_and_ends_with_2(submission, release):
    edit_yaml(submission, cutoff_ang=-1, n_parameters="many")
    arguments = ["leaderboard", "validate", str(submission), "--release", str(release.folder)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    fields = [p["field"] for p in json.loads(result.stdout)["problems"]]
    assert fields == ["cutoff_ang", "n_parameters"]
    assert isinstance(result.exception, VcmbenchError)
    assert str(result.exception).count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: [*x, *x]\n", "the anchor &x"),
        ("a: *x\n", "the alias *x"),
        ("a: !!python/object/apply:os.system ['true']\n", "the tag"),
        ("a: !!str 1\n", "the tag"),
        ("a: 1\na: 2\n", "key 'a' stands twice"),
        ("? [a]\n: 1\n", "not a plain YAML document"),
        ("[" * 5000, "deeper nesting"),
        ("a: {", "not a plain YAML document"),
        ("a: \x00", "not a plain YAML document"),
        ("a: '" + "x" * 200_000 + "'", "size"),
    ],
)
def test_yaml_that_is_not_plain_is_refused(tmp_path, text, message):
    path = tmp_path / "submission.yml"
    path.write_text(text)
    with pytest.raises(VcmbenchError, match=r"submission\.yml") as error:
        read_strict_yaml(path)
    assert message in str(error.value)


def test_a_billion_laughs_are_refused_within_the_whole(submission, release):
    laughs = ["a0: &a0 [lol]"] + [
        f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, 12)
    ]
    (submission / "submission.yml").write_text("\n".join(laughs))
    assert "the anchor &a0" in problems(submission, release)[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../etc"),
        ("name", "<script>"),
        ("code", "javascript:alert(1)"),
        ("code", "https://example.org/\"onmouseover=alert(1)//'>"[:21] + " x"),
        ("code", "https://127.0.0.1/x"),
        ("code", "http://example.org/"),
        ("authors", ["a\u202eb"]),
        ("description", "one\x1b[31mred"),
        ("description", "x" * 3000),
        ("version", "1 <b>"),
        ("authors", []),
        ("n_parameters", 0),
    ],
)
def test_hostile_values_are_refused(submission, release, field, value):
    edit_yaml(submission, **{field: value})
    found = problems(submission, release)
    assert any(line.startswith(f"submission.yml: {field}") for line in found), found
    assert not any(ord(character) < 32 for line in found for character in line)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hosting.base": "http://example.org/"}, "hosting.url.base"),
        ({"hosting.base": "https://localhost/"}, "hosting.url.base"),
        ({"hosting.base": "https://10.0.0.1/"}, "hosting.url.base"),
        ({"hosting.base": "https://example.org/x"}, "hosting.url.base"),
        ({"hosting.base": "file:///etc/"}, "hosting.url.base"),
        ({"hosting": {"kind": "hub", "repo": "me/x", "revision": "main"}}, "revision"),
        ({"hosting": {"kind": "hub", "repo": "../x", "revision": 40 * "a"}}, "repo"),
        ({"files.wire.sha256": "0"}, "files.wire.sha256"),
        ({"files.wire.size": 0}, "files.wire.size"),
        ({"files": {}}, "files.wire: found nothing"),
        ({"files.../../x": {"size": 1, "sha256": 64 * "0"}}, "files."),
        ({"dataset.digest": 64 * "0"}, "dataset.digest"),
        ({"dataset.version": "0.2.0"}, "dataset.version: found '0.2.0', expected '0.1.0'"),
    ],
)
def test_a_wrong_manifest_is_refused(submission, release, change, message):
    if "files.../../x" in change:
        document = json.loads((submission / "predictions.json").read_text())
        document["files"]["../../x"] = change["files.../../x"]
        (submission / "predictions.json").write_text(json.dumps(document))
    else:
        edit_json(submission / "predictions.json", change)
    found = problems(submission, release)
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset.digest": 64 * "0"}, "result.json: dataset.digest"),
        ({"dataset.version": "0.0.9"}, "result.json: dataset.version"),
        ({"dataset.devices": ["bulk"]}, "the test part of wires@0.1.0: wire"),
        ({"transmission.energy_stride": 4}, "without --quick"),
        ({"transmission.gates.passed": False}, "transmission.gates.passed"),
        ({"hamiltonian": {"reason": "none"}}, "hamiltonian: found unavailable"),
        ({"score_spec": 0}, "score_spec"),
        ({"hamiltonian.mae_mev": "small"}, "hamiltonian.HamiltonianSection.mae_mev"),
    ],
)
def test_a_result_of_something_else_is_refused(submission, release, change, message):
    edit_json(submission / "result.json", change)
    found = problems(submission, release)
    assert any(message in line for line in found), found


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_claim_that_is_no_number_is_refused(submission, release, value):
    path = submission / "result.json"
    text = path.read_text()
    mark = '"mae_mev": '
    start = text.index(mark) + len(mark)
    path.write_text(text[:start] + value + text[text.index(",", start) :])
    assert any(line.startswith("result.json") for line in problems(submission, release))


def test_foreign_files_links_and_large_files_are_refused(submission, release, tmp_path):
    (submission / "model.py").write_text("print('no')")
    assert any("a foreign file" in line for line in problems(submission, release))
    (submission / "model.py").unlink()
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (submission / "result.json").unlink()
    (submission / "result.json").symlink_to(secret)
    assert problems(submission, release) == [
        "result.json: file: found a link or folder, expected a file"
    ]
    (submission / "result.json").unlink()
    (submission / "result.json").write_text(" " * 5_000_001)
    assert "at most 5000000" in problems(submission, release)[0]
    (submission / "result.json").unlink()
    assert problems(submission, release) == ["result.json: file: found none, expected one"]
    for number in range(30):
        (submission / f"result-{number}.json").write_text("{}")
    assert [line.partition(": ")[2] for line in problems(submission, release)] == [
        "files: found 32, expected at most 20"
    ]


def test_deeply_nested_json_is_refused(submission, release):
    (submission / "result.json").write_text("[" * 200_000)
    assert any(line.startswith("result.json: content") for line in problems(submission, release))


def test_only_a_baseline_may_go_without_hosted_predictions(submission, release):
    hosting = {"kind": "baseline", "baseline": "slater-kostr", "model_digest": 64 * "0"}
    edit_json(submission / "predictions.json", {"hosting": hosting, "files": {}})
    found = problems(submission, release)
    assert any("did you mean 'slater-koster'?" in line for line in found)
    assert any("result.json: model.digest" in line for line in found)


def test_an_older_specification_is_accepted_once_it_has_been_scored(
    submission, release, monkeypatch
):
    accepted = read_entry(submission, release).digest
    monkeypatch.setattr("vcmbench.leaderboard.validate.SCORE_SPEC", 2)
    assert read_entry(submission, release, accepted=accepted).claimed is None
    edit_yaml(submission, version="2")
    monkeypatch.setattr("vcmbench.scores.result.SCORE_SPEC", 2)
    assert check_submission(submission, release, accepted=accepted)[0].claimed is not None
