"""A project's own code sees the files that are listed and no other, and is told of one that it misses."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, OpsdeckError, UsageError
from engine.pipeline.building import seen
from engine.pipeline.child import entries, views
from engine.pipeline.child.views import View
from engine.pipeline.scoring.asking import Shown, opened
from engine.pipeline.stages import data
from engine.pipeline.stages import tests as tests_stage
from engine.pipeline.stages.contract import Work
from tests.pipeline.child import small_project
from tests.pipeline.child.stage_work import work

ENTRY = {"function": "learn:fit"}


def given(root: Path, files: dict[str, str] | None = None, stage: str = "train", **changes: Any) -> Work:
    return work(small_project.project(root / "project", files, **changes), root, stage)


def files(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if not one.is_dir())


def test_the_copy_holds_what_is_listed_as_it_is_and_nothing_else(tmp_path: Path) -> None:
    one = given(tmp_path, {"config.json": "{}", "prep.sh": "#!/bin/sh\n", "pkg/sub/deep.py": "",
                           "rows.csv": "1", ".secret.py": "", "pkg/__pycache__/deep.pyc": ""},
                code=["**/*.py", "prep.sh", "weights.bin", "shared.py"])
    folder = one.folder
    (folder / "prep.sh").chmod(0o500)
    (folder / "weights.bin").write_bytes(os.urandom(3 << 20))
    (tmp_path / "outside.py").write_text("SHARED = 1\n")
    (folder / "shared.py").symlink_to(tmp_path / "outside.py")
    (folder / "also.py").symlink_to("learn.py")
    with views.of(one, "code") as view:
        listed = ["also.py", "learn.py", "pkg/sub/deep.py", "prep.sh", "shared.py", "weights.bin"]
        assert files(view.folder) == listed == sorted(view.digests)
        assert all(not (view.folder / name).is_symlink() for name in listed)
        assert all((view.folder / name).read_bytes() == (folder / name).read_bytes() for name in listed)
        modes = [(view.folder / name).stat().st_mode & 0o777 for name in ("prep.sh", "learn.py", "")]
        assert modes == [0o755, 0o644, 0o700]
        place = view.folder
        with views.of(one, "code") as other:
            assert other.folder != place and files(other.folder) == listed
    assert not place.exists() and list(place.parent.iterdir()) == [one.output.parent]
    with views.of(one, "code") as again:
        assert again.folder == place, "a model may hold the path of its code"


def test_what_code_does_to_its_copy_reaches_neither_the_project_nor_the_next_stage(tmp_path: Path) -> None:
    one = given(tmp_path)
    before = (one.folder / "learn.py").read_bytes()
    with views.of(one, "code") as view:
        (view.folder / "learn.py").write_text("raise SystemExit\n")
        (view.folder / "more").mkdir()
        (view.folder / "more" / "x").touch()
        (view.folder / "more").chmod(0)
    assert (one.folder / "learn.py").read_bytes() == before and not view.folder.exists()
    with views.of(one, "code") as view:
        assert files(view.folder) == ["learn.py"] and (view.folder / "learn.py").read_bytes() == before


def test_a_copy_is_of_the_very_bytes_whose_digest_is_in_the_key(tmp_path: Path) -> None:
    one = given(tmp_path, {"late.py": ""}, code=["*.py"])
    learn = one.folder / "learn.py"
    planned = {"learn.py": hashlib.sha256(learn.read_bytes()).hexdigest()}
    one = dataclasses.replace(one, digests=planned)
    with views.of(one, "code") as view:
        assert files(view.folder) == ["learn.py"], "what came later is not of this run"
    looked = learn.stat()

    def write() -> None:
        learn.write_text("#" * looked.st_size)
        os.utime(learn, ns=(looked.st_atime_ns, looked.st_mtime_ns))

    for change, says in ((write, "learn.py has changed since"), (learn.unlink, "learn.py is gone since"),
                         (learn.mkdir, "learn.py is no file any more")):
        change()
        with pytest.raises(Conflict, match=says) as refused, views.of(one, "code"):
            raise AssertionError("it was copied")
        assert refused.value.hint and not list(one.output.parent.parent.glob("code.*"))


def test_a_file_outside_the_folder_is_no_part_of_the_copy(tmp_path: Path) -> None:
    (tmp_path / "outside.py").touch()
    one = given(tmp_path)
    one = dataclasses.replace(one, project=one.project.model_copy(update={"code": ["../outside.py"]}))
    with pytest.raises(UsageError, match=r"\.\./outside\.py is not in the project's folder"), \
            views.of(one, "code"):
        raise AssertionError("it was copied")


@pytest.mark.parametrize(("code", "missed"), [
    ("from pathlib import Path\n    (Path(__file__).parent / 'conf/a.json').read_text()", "conf/a.json"),
    ("open(params['from'])", "conf/a.json"),
    ("import helper", "helper.py"), ("from pkg import deep", "pkg/deep.py"),
    ("import subprocess\n    subprocess.run(['./prep.sh'], check=True)", "prep.sh"),
])
def test_an_entry_that_misses_a_file_is_told_which_and_what_to_do(tmp_path: Path, code: str, missed: str
                                                                  ) -> None:
    one = given(tmp_path, {"learn.py": f"def fit(inputs, output, params):\n    {code}\n", "conf/a.json": "{}",
                           "helper.py": "", "pkg/__init__.py": "", "pkg/deep.py": "", "prep.sh": ""},
                code=["learn.py", "pkg/__init__.py"],
                train={"entry": ENTRY, "params": {"from": "conf/a.json"}})
    with pytest.raises(OpsdeckError) as caught, views.of(one, "code") as view:
        called(one, view)
    assert f"{missed} is in the project's folder, but not among the files that `code:`" in str(caught.value)
    assert "`code:`" in str(caught.value.hint) and str(caught.value.where).startswith("learn.py:")
    log = (tmp_path / "log.txt").read_text()
    assert f'File "{one.folder}/learn.py", line' in log and str(view.folder) not in log + str(caught.value)


def called(one: Work, view: View) -> None:
    scratch = one.output.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    train = one.project.train
    entries.run(entries.Call(train.entry, "The training", "train", Path(sys.executable), view.folder,
                             one.output, one.output, scratch, train.params, 1, train.limits,
                             one.folder.parent / "log.txt", view=view), one.say)


@pytest.mark.parametrize(("said", "missed"), [
    ("FileNotFoundError: [Errno 2] No such file or directory: '/gone/code.1/conf/a.json'", "conf/a.json"),
    ("FileNotFoundError: [Errno 2] Failed to open local file 'conf/a.json'. Detail: x", "conf/a.json"),
    ("No such file or directory: '/opt/ml/input/data/code/conf/a.json'", "conf/a.json"),
    ("it exited with 1: cat: conf/a.json: No such file or directory", "conf/a.json"),
    ("ModuleNotFoundError: No module named 'conf'", "conf"),
    ("FileNotFoundError: [Errno 2] No such file or directory: 'rows.csv'", "rows.csv"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/etc/conf/a.json'", None),
    ("FileNotFoundError: [Errno 2] No such file or directory: 'other.json'", None),
    ("FileNotFoundError: [Errno 2] No such file or directory: 'learn.py'", None),
    ("KeyError: 'conf' not found", None), ("ValueError: conf/a.json is not JSON", None),
    ("No module named 'numpy'", None), (f"No such file or directory: '{'x/' * 3000}'", None),
    ("No such file or directory: '../project/conf/a.json'", None), ("", None), ("x" * 15_000, None),
])
def test_a_file_that_is_not_listed_is_known_by_what_was_said(tmp_path: Path, said: str,
                                                             missed: str | None) -> None:
    for name in ("conf/a.json", "rows.csv", "learn.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    view = View(Path("/gone/code.1"), tmp_path, {"learn.py": ""}, data="rows.csv")
    assert view.unlisted(f"before\n{said}\nafter") == missed
    assert ("OPSDECK_INPUTS" in view.remedy("rows.csv")) and "`code:`" in view.remedy("conf/a.json")


def test_tests_see_what_pytest_reads_beside_them_and_are_told_what_they_miss(tmp_path: Path) -> None:
    test = """
        from pathlib import Path
        import learn
        def test_fixture(told): assert told == 1 and Path("tests/deep/rows.txt").read_text() == "1"
        def test_config(): open("conf.json")
    """
    one = given(tmp_path, {"tests/deep/test_it.py": test, "tests/deep/rows.txt": "1", "conf.json": "{}",
                           "tests/conftest.py": "import pytest\n@pytest.fixture\ndef told(): return 1\n",
                           "pytest.ini": "[pytest]\npythonpath = .\n"}, "tests", code=["learn.py"],
                tests={"paths": ["tests/deep"]})
    done = tests_stage.run(one)
    assert done.result["passed"] == 1 and done.result["failed"] == 1 and not done.passed
    assert "conf.json is in the project's folder, but not among the files that `code:` lists" in done.says
    told = "".join((one.output / name).read_text() for name in ("log.txt", "junit.xml"))
    assert "/code." not in told and "rootdir: " + str(one.folder) in told
    assert seen.tests(one.project, one.folder)[:2] == ["tests/deep", "pytest.ini"]


def test_a_command_that_makes_data_sees_its_sources_alone(tmp_path: Path) -> None:
    make = """
        import os
        from pathlib import Path
        there = Path(os.environ["OPSDECK_INPUTS"])
        assert sorted(os.listdir(there)) == ["make.py", "raw.csv"] and Path.cwd() == there
        (Path(os.environ["OPSDECK_OUTPUT"]) / "rows.csv").write_text(Path("raw.csv").read_text())
        open("more.csv")
    """
    source = {"command": ["python", "make.py"], "sources": ["raw.csv"]}
    one = given(tmp_path, {"make.py": make, "raw.csv": "x,y\n1,2\n", "more.csv": ""}, "data",
                data={"source": source, "label": "y", "holdout": {"share": 0.2}})
    with pytest.raises(OpsdeckError, match=r"more\.csv is .* files that `data\.source\.sources:` lists"):
        data.run(one)


def test_a_function_that_scores_sees_what_is_listed_and_is_told_what_it_misses(tmp_path: Path) -> None:
    import pyarrow as pa

    code = "import sys\nprint('at', __file__)\ndef load(model):\n    open('scale.json')\n"
    one = given(tmp_path, {"score.py": code, "scale.json": "{}"}, "evaluate",
                evaluate={"entry": {"function": "score:load"}})
    (tmp_path / "model.bin").touch()
    shown = Shown(pa.schema([("x", pa.float64())]), "regression", ())
    with pytest.raises(OpsdeckError, match=r"scale\.json is in the project's folder") as caught, \
            opened(one, "evaluate", tmp_path / "model.bin", shown):
        raise AssertionError("it was opened")
    assert "score.py:4" in str(caught.value) and "add it to `code:`" in str(caught.value).lower()
    assert f"at {one.folder}/score.py" in (one.output / "scoring.log").read_text()
