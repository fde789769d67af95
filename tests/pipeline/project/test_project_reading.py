"""A project file says everything that is wrong with it at once, each with its place and what to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.errors import DocumentError
from engine.pipeline.project import reading
from tests.pipeline.project.written import GOOD, project


def test_a_good_project_is_read_whole(tmp_path: Path) -> None:
    found = reading.read(project(tmp_path / "p"))
    assert found.project == "delays" and found.data.holdout.last == 30 * 86400
    assert reading.problems(tmp_path / "p") == []
    assert reading.read(tmp_path / "p" / "opsdeck.pipeline.yaml") == found


# What is changed in the good file, the line and a part of what is said, and a part of the hint.
WRONG = [
    (("task: binary", "task: binray"), 4, "not \"binray\"", "did you mean `binary`?"),
    (("label: late", "lable: late"), 10, "unknown key `lable`", "did you mean `label`?"),
    (("  label: late\n", ""), 8, "`label` is missing in `data`", "write label: the column"),
    (("owner: ml-platform\n", ""), 1, "`owner` is missing", "write owner: ml-platform"),
    (("project: delays", "project: My Delays"), 2, "lower-case letters, digits and dashes", None),
    (("metric: log_loss, margin", "metric: logloss, margin"), 27,
     "no metric logloss of a binary task", "`log_loss`"),
    (("metrics: [log_loss]", "metrics: [rmse]"), 22, "no metric rmse of a binary task", "known:"),
    (("features: [distance, carrier]", "features: [distance, carrier, late]"), 14,
     "the label late is among the features", "remove it"),
    (("features: [distance, carrier]", "features: [distance, at]"), 14, "the time at is among", "hour"),
    (("features: [distance, carrier]", "features: [distance, id]"), 14, "the key id is among", "remove it"),
    (("features: [distance, carrier]", "features: [distance, distance]"), 14, "named twice", "remove one"),
    (("segments: [carrier]", "segments: [late]"), 15, "the label late is among the segments", "before"),
    (("segments: [carrier]", "segments: [at]"), 15, "the time at is among the segments", "month"),
    (("time: at", "time: late"), 11, "late is both the label and the time", "one of these"),
    (("group: plane", "group: at"), 12, "at is both the time and the group", "one of these"),
    (("  time: at\n", ""), 8, "wants `time`", None),
    (("holdout: {last: 30d}", "holdout: {last: 30d, share: 0.2}"), 16, "exactly one of", None),
    (("holdout: {last: 30d}", "holdout: {column: split}"), 16, "which value of the column", "is: test"),
    (("holdout: {last: 30d}", "holdout: {share: 0.2, is: test}"), 16, "`is` goes with `column`", "column"),
    (("holdout: {last: 30d}", "holdout: {column: carrier, is: AA}"), 16, "carrier is a feature too", "same"),
    (("task: binary", "task: ranking"), 27, "no metric log_loss of a ranking task", "ndcg"),
    (("lock: uv.lock", "lock: uv.lok"), 7, "there is no file uv.lok", "did you mean `uv.lock`?"),
    (("paths: [tests]", "paths: [test]"), 18, "there is no test in", "did you mean `tests`?"),
    (("train:main", "trian:main"), 20, "there is no trian.py", "did you mean `train.py`?"),
    (("train:main", "train:mian"), 20, "train.py has no function mian", "did you mean `main`?"),
    (("{function: \"train:main\"}", "{command: [python, fit.py]}"), 20, "there is no fit.py", "folder"),
    (("{function: \"train:main\"}", "{}"), 20, "give exactly one of `command` and `function`", None),
    (("downstream: contract.json", "downstream: answers.json"), 29, "no file answers.json", "JSON schema"),
    (("downstream: contract.json", "downstream: train.py"), 29, "train.py is not JSON", "JSON schema"),
    (("downstream: contract.json", "downstream: ../contract.json"), 29, "leaves the project's folder", None),
    (("function: \"train:main\"}", "function: \"train:main\"}\n  runs_on: sagemaker"), 19,
     "wants `sagemaker`", None),
    (("30 2 * * 1", "70 2 * * 1"), 36, "no cron expression: bad minute", "30 2 * * 1"),
    (("30 2 * * 1", "30 2 * *"), 36, "no cron expression", "minute, hour"),
    (("30 2 * * 1", "0 0 30 2 *"), 36, "no cron expression: bad day-of-month", None),
    (("Europe/Berlin", "Europe/Berlon"), 36, "no time zone Europe/Berlon", "did you mean `Europe/Berlin`?"),
    (("process: challenger", "process: challenger\n  params: {service: x}"), 34,
     "given by `release.service`", "remove this"),
    (("process: challenger", "process: challenger\n  params: {weight: 5}"), 34,
     "start-rollout has no parameter weight", "remove this"),
    (("staging:\n", "staging:\n  largest_mb: 68\n"), 29,
     "at most 67 MB (64 MiB), not of 68", "largest_mb: 10"),
    (("columns: [distance]", "columns: [distanse]"), 25, "distanse, which is no feature", "`distance`"),
    (("gates:\n", "gates:\n  - {kind: non_inferiority, metric: log_loss, margin: 0.005}\n"), 28,
     "is there twice", "item 1"),
    (("gates:\n", "gates:\n  - {kind: latancy, at_most_ms: 5}\n"), 27, "no `latancy`", "`latency`"),
]


@pytest.mark.parametrize(("change", "line", "said", "hint"), WRONG, ids=lambda one: str(one)[:40])
def test_each_mistake_is_named_at_its_line(tmp_path: Path, change: tuple[str, str], line: int,
                                           said: str, hint: str | None) -> None:
    folder = project(tmp_path / "p", change)
    found = [one for one in reading.problems(folder) if said in one.message]
    assert line in [one.line for one in found], [str(one) for one in reading.problems(folder)]
    found = [one for one in found if one.line == line]
    assert hint is None or hint in (found[0].hint or ""), found[0].hint
    with pytest.raises(DocumentError) as error:
        reading.read(folder)
    assert any(one.startswith(f"{folder / reading.FILE}:{line}:") and said in one
               for one in error.value.problems)


def test_a_ranking_task_wants_the_query_of_a_row(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ("task: binary", "task: ranking"), ("  group: plane\n", ""))
    assert any("wants `group`" in one.message for one in reading.problems(folder))


def test_a_gate_on_segments_wants_segments(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ("  segments: [carrier]\n", ""),
                     ("gates:\n", "gates:\n  - {kind: segments, metric: log_loss, margin: 0.1}\n"))
    assert any("wants `segments` in `data`" in one.message for one in reading.problems(folder))


def test_every_problem_is_told_at_once_with_column(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ("train:main", "trian:main"), ("30 2", "99 2"),
                     ("metrics: [log_loss]", "metrics: [f2]"))
    with pytest.raises(DocumentError) as error:
        reading.read(folder)
    assert len(error.value.problems) == 3 and "3 problems" in error.value.message
    assert [one.split(": ")[0].rpartition("/")[2] for one in error.value.problems] == [
        f"{reading.FILE}:20:21", f"{reading.FILE}:22:13", f"{reading.FILE}:36:12"]


def test_a_variable_that_the_pipeline_sets_is_no_credential(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ('function: "train:main"}',
                                      'function: "train:main"}\n  credentials: {TOKEN: secret}'))
    said = " ".join(one.message for one in reading.problems(folder))
    assert "where the secret is" in said
    folder = project(tmp_path / "q", ('function: "train:main"}',
                                      'function: "train:main"}\n  credentials: {HOME: "env:X"}'))
    assert ["HOME" in one.message for one in reading.problems(folder)] == [True]


def test_data_that_is_not_there_yet_is_a_warning_and_the_project_is_read(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ("data/rows.csv", "data/row.csv"))
    (found,) = reading.problems(folder)
    assert found.level == "warning" and found.hint == "did you mean `rows.csv`?"
    assert reading.read(folder).data.source.path == "data/row.csv"


def test_a_module_that_is_not_python_is_named_with_its_line(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    (folder / "train.py").write_text("import os\ndef main(:\n")
    (found,) = reading.problems(folder)
    assert "train.py:2 is not Python" in found.message


def test_a_function_may_come_from_a_package_and_by_import(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ("train:main", "flights.fit:main"))
    (folder / "flights" / "fit").mkdir(parents=True)
    (folder / "flights" / "fit" / "__init__.py").write_text("from .inner import main\n")
    assert reading.problems(folder) == []


def test_a_folder_without_a_project_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as error:
        reading.read(tmp_path)
    assert "there is no such file" in error.value.problems[0] and "init" in (error.value.hint or "")


def test_a_file_that_a_link_takes_from_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the key of somebody else\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / reading.FILE).symlink_to(tmp_path / "key")
    (found,) = reading.problems(tmp_path / "p")
    assert found.message == "this is a link that leads out of the project's folder"
    folder = project(tmp_path / "q")
    (folder / reading.FILE).rename(folder / "other.yaml")
    (folder / reading.FILE).symlink_to("other.yaml")
    assert reading.problems(folder) == []


@pytest.mark.parametrize(("change", "said"), [
    (("owner: ml-platform", 'owner: x\ncode: ["**.py"]'), None),
    (("paths: [tests]", f"paths: [{'a' * 5000}]"), "name too long"),
    (("owner: ml-platform", 'owner: x\ncode: ["../*.py"]'), "leaves the project's folder"),
    (("owner: ml-platform", 'owner: x\ncode: ["[a.py"]'), "no file matches"),
])
def test_whatever_a_path_says_the_answer_is_a_sentence(tmp_path: Path, change: tuple[str, str],
                                                       said: str | None) -> None:
    found = [one.message for one in reading.problems(project(tmp_path / "p", change))]
    assert found == [] if said is None else any(said in one for one in found)


def test_a_lock_that_is_none_is_named_at_its_own_line(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ("lock: uv.lock", "lock: requirements.lock"))
    (folder / "requirements.lock").write_text("# made by hand\nnumpy>=2\n")
    (found,) = reading.problems(folder)
    assert (Path(found.file).name, found.line) == ("requirements.lock", 2)
    assert found.message == "The lock does not pin numpy>=2 to one version."


def test_code_that_is_nested_too_deep_is_a_problem_of_the_project(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    (folder / "train.py").write_text("x = " + "-" * 200_000 + "1\n")
    (found,) = reading.problems(folder)
    assert "is nested too deep to be read" in found.message


@pytest.mark.parametrize("text", ["", "- a\n", "opsdeck: 1\nopsdeck: 1\n", "a: [\n", "\x00"])
def test_what_is_no_project_at_all_is_refused_with_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / reading.FILE).write_text(text)
    with pytest.raises(DocumentError) as error:
        reading.read(tmp_path)
    assert error.value.problems and all(reading.FILE in one for one in error.value.problems)


def test_a_text_is_read_without_its_folder() -> None:
    assert reading.parse(GOOD.encode()).model == "delays"
    with pytest.raises(DocumentError) as error:
        reading.parse(GOOD.replace("metric: log_loss", "metric: nope"), "version 2")
    assert error.value.problems[0].startswith("version 2:27:") and error.value.hint is None


def test_the_schema_is_current() -> None:
    assert reading.SCHEMA.read_text() == reading.schema(), (
        "write it again: engine/pipeline/project/schema.json comes from reading.schema()")


def test_the_good_project_satisfies_the_schema() -> None:
    import jsonschema
    import yaml

    jsonschema.validate(yaml.safe_load(GOOD), json.loads(reading.SCHEMA.read_text()))


def test_check_takes_a_project_its_file_or_a_folder_above(tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path / "all" / "p")
    (folder / "expectations.yaml").write_text("not: a procedure\n")
    for path in (folder, folder / reading.FILE, tmp_path / "all"):
        assert main(["check", str(path)]) == 0
        assert "1 project checked: no problems" in (said := capsys.readouterr().out)
        assert "the data was not read: `opsdeck run train-and-release -p project=" in said
    bad = project(tmp_path / "all" / "q", ("task: binary", "task: binray"))
    assert main(["check", "--json", str(tmp_path / "all")]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["projects"] == 2 and said["procedures"] == 0 and said["errors"] == 1
    assert said["problems"][0]["file"] == str(bad / reading.FILE) and said["problems"][0]["line"] == 4


def test_files_that_the_code_names_and_does_not_list_are_warned_of_with_the_line(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", ("owner: ml-platform", "owner: ml-platform\ncode: [train.py, pkg/a.py]"))
    for name in ("config.json", "helper.py", "pkg/b.py", "pkg/words.txt", "tests/rows.csv", "notes.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "train.py").write_text(
        "import helper, json, numpy\nfrom tests import rows\n\n\ndef main(inputs, output, params):\n"
        "    return open('config.json'), open('data/rows.csv'), 'see notes.md', open('missing.json')\n")
    (folder / "pkg" / "a.py").write_text("from .b import x\nWORDS = 'words.txt'\n")
    (folder / "tests" / "test_it.py").write_text("import train\nROWS = 'rows.csv', 'notes.md'\n")
    found = reading.problems(folder)
    assert {one.level for one in found} == {"warning"} and {one.line for one in found} == {6}
    assert [one.message.split(", which")[0] for one in found] == [
        "pkg/a.py:1 names pkg/b.py", "pkg/a.py:2 names pkg/words.txt", "tests/test_it.py:2 names notes.md",
        "train.py:1 names helper.py", "train.py:6 names config.json"]
    assert all(one.hint == "add it to `code:`, if the stage reads it" for one in found)
    assert reading.read(folder).code == ["train.py", "pkg/a.py"]
