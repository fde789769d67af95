"""ONNX, a function and a command of the project answer the same rows alike, and fail in sentences."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import UsageError
from engine.pipeline.robustness.behaviour import answer
from engine.pipeline.scoring import asking, measuring
from engine.pipeline.scoring.asking import Shown, opened
from engine.pipeline.scoring.scores import ModelFailed
from tests.pipeline.stages.kit import FEATURES, Made, onnx_model, project, table

ROWS = table(300, 5)
SHOWN = Shown(ROWS.select(list(FEATURES)).schema, "binary", ("0", "1"))
SCORE = """
import json, sys
import pyarrow.compute as pc

print("loading", file=sys.stdout)

def load(model):
    assert model.read_bytes()[:1]
    def scores(rows):
        print("scoring")
        heat, wind = rows["heat"], rows["wind"]
        place = pc.index_in(rows["city"], value_set=__import__("pyarrow").array(["Bern", "Oslo", "Rome"]))
        margin = pc.add(pc.subtract(heat, pc.multiply(wind, 0.5)), pc.multiply(place.cast("float64"), 0.3))
        return pc.divide(1.0, pc.add(1.0, pc.exp(pc.negate(margin))))
    return scores

def moody(model):
    def scores(rows):
        mood = rows["heat"][0].as_py()
        if mood == 101:
            return {"a": 1}["b"]
        if mood == 102:
            return [0.5] * (rows.num_rows - 1)
        if mood == 103:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        return [0.5] * rows.num_rows
    return scores

def slow(model):
    import pathlib, time
    def scores(rows):
        pathlib.Path("began").touch()
        time.sleep(60)
    return scores

def huge(model):
    def scores(rows):
        held = bytearray(3 << 30)
        return [0.5] * rows.num_rows
    return scores
"""
BULK = """
import os, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
import score
inputs, output = Path(os.environ["OPSDECK_INPUTS"]), Path(os.environ["OPSDECK_OUTPUT"])
found = score.load(inputs / "model")(pq.read_table(inputs / "rows.parquet"))
if "--nothing" not in sys.argv:
    pq.write_table(pa.table({"probability": found}), output / "predictions.parquet")
"""


def truth(rows: pa.Table) -> np.ndarray:
    place = np.array([{"Bern": 0, "Oslo": 1, "Rome": 2}[one] for one in rows["city"].to_pylist()])
    margin = rows["heat"].to_numpy() - 0.5 * rows["wind"].to_numpy() + 0.3 * place
    return 1 / (1 + np.exp(-margin))


def ready(root: Path) -> Made:
    made = Made(root, ROWS, onnx_model())
    (made.folder / "score.py").write_text(SCORE)
    (made.folder / "bulk.py").write_text(BULK)
    return made


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return ready(tmp_path)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """One process with the model, for the tests that only ask it."""
    with ask(ready(tmp_path_factory.mktemp("onnx"))) as scorer:
        yield scorer


def ask(made: Made, entry=None, *, limits=None, shown=SHOWN, model=None):
    given = {"entry": entry} if entry else {}
    work = made.work("evaluate", project(evaluate={**given, **({"limits": limits} if limits else {})}))
    return opened(work, "evaluate", model or made.trained / "model.onnx", shown)


@pytest.mark.parametrize("entry", [{"function": "score:load"}, {"command": ["python", "bulk.py"]}],
                         ids=["function", "command"])
def test_each_way_of_asking_gives_the_same_scores(made, onnx, entry):
    assert onnx(ROWS) == pytest.approx(truth(ROWS), abs=1e-6)
    with ask(made, entry) as scorer:
        assert scorer(ROWS) == pytest.approx(onnx(ROWS), abs=1e-6)
        assert scorer(ROWS.slice(7, 2)) == pytest.approx(truth(ROWS)[7:9], abs=1e-6)
        assert scorer.raw.peak_mb() > 20


def test_two_processes_give_the_very_same_bits_and_more_rows_are_sent_in_parts(made, onnx, monkeypatch):
    monkeypatch.setattr(asking, "CHUNK", 128)
    with ask(made) as other:
        assert onnx(ROWS).tobytes() == other(ROWS).tobytes()


def test_a_number_may_be_missing_and_a_text_may_not(onnx):
    heat = pa.array([None if at == 1 else 0.5 for at in range(3)], pa.float64())
    rows = ROWS.slice(0, 3).set_column(0, "heat", heat)
    with pytest.raises(ModelFailed, match="the score of row 1 is not a number"):
        onnx(rows)
    rows = ROWS.slice(0, 3).set_column(2, "city", pa.array(["Bern", "Oslo", None]))
    with pytest.raises(ModelFailed) as caught:
        onnx(rows)
    assert caught.value.message == ("the column city is missing in row 2, and the model wants a text in "
                                    "every row")
    assert caught.value.where == "evaluate: model.onnx"


def test_a_column_that_was_renamed_is_named_with_the_likely_one(onnx):
    with pytest.raises(ModelFailed) as caught:
        onnx(ROWS.rename_columns(["heat_c", "wind", "city", "late"]))
    assert "no column heat" in caught.value.message and "heat_c" in str(caught.value.hint)


def test_a_column_of_another_kind_is_refused_with_both(onnx):
    with pytest.raises(ModelFailed, match="the column heat is string, and the model is shown double"):
        onnx(ROWS.slice(0, 1).set_column(0, "heat", pa.array(["warm"])))


def test_a_model_that_wants_a_column_the_data_lacks_cannot_be_opened(made):
    (made.trained / "model.onnx").write_bytes(onnx_model(names=("heat", "gust", "city")))
    with pytest.raises(ModelFailed, match="the model wants the column gust") as caught, ask(made):
        pass
    assert "heat, wind, city" in caught.value.message


def test_a_matrix_of_all_features_is_one_input(made):
    from onnx import TensorProto, helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["scores"])]
    graph = helper.make_graph(
        nodes, "m", [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.DOUBLE, [None, 1])],
        initializer=[helper.make_tensor("w", TensorProto.DOUBLE, [2, 1], [2.0, -1.0])])
    path = made.trained / "matrix.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)],
                                       ir_version=8).SerializeToString())
    shown = Shown(ROWS.select(["heat", "wind"]).schema, "regression", ())
    with ask(made, shown=shown, model=path) as scorer:
        assert scorer(ROWS) == pytest.approx(2 * ROWS["heat"].to_numpy() - ROWS["wind"].to_numpy())
    shown = Shown(ROWS.select(["heat"]).schema, "regression", ())
    with ask(made, shown=shown, model=path) as scorer, pytest.raises(ModelFailed, match="takes 2 columns"):
        scorer(ROWS)


def test_a_file_that_is_no_model_is_said_to_be_none(made):
    (made.trained / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFailed, match="is not a model that ONNX Runtime can load"), ask(made):
        pass


def test_a_folder_without_a_function_to_load_it_is_told_what_to_do(made):
    folder = made.trained / "model"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"without `evaluate\.entry` a model is one ONNX file"), \
            ask(made, model=folder):
        pass


def test_what_the_projects_code_does_is_told_and_the_next_is_answered(made):
    def mood(value: float) -> pa.Table:
        return ROWS.slice(0, 3).set_column(0, "heat", pa.array([value] * 3))

    with ask(made, {"function": "score:moody"}) as scorer:
        with pytest.raises(ModelFailed, match=r"the model failed: KeyError: 'b' \(score\.py:\d+\)"):
            scorer(mood(101))
        with pytest.raises(ModelFailed, match="the model gave 2 scores for 3 rows"):
            scorer(mood(102))
        assert answer(scorer, mood(103)) == "the model's process ended without an answer (SIGKILL)"
        assert scorer(ROWS).tolist() == [0.5] * 300


def test_a_model_that_does_not_answer_is_ended(made):
    with ask(made, {"function": "score:slow"}, limits={"timeout": 0.3}) as scorer, \
            pytest.raises(ModelFailed, match=r"did not answer within 0.3 s"):
        scorer(ROWS)


def test_memory_has_a_limit(made):
    with ask(made, {"function": "score:huge"}, limits={"memory_mb": 2000}) as scorer, \
            pytest.raises(ModelFailed, match="MemoryError"):
        scorer(ROWS)


def test_a_command_that_writes_nothing_is_told_so(made):
    with ask(made, {"command": [sys.executable, "bulk.py", "--nothing"]}) as scorer, \
            pytest.raises(ModelFailed, match=r"the command wrote no predictions\.parquet"):
        scorer(ROWS)


def test_an_environment_without_pyarrow_is_told_what_it_lacks(made):
    (made.folder / "pyarrow.py").write_text("raise ModuleNotFoundError(name='pyarrow')")
    with pytest.raises(ModelFailed, match="the project's environment has no pyarrow"), \
            ask(made, {"function": "score:load"}):
        pass


def test_a_stage_that_is_killed_leaves_no_model_behind(made, tmp_path):
    """The stage's process goes by SIGKILL while the model computes."""
    holder = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
import pyarrow as pa
from pathlib import Path
from engine.pipeline.project.model import Limits
from engine.pipeline.scoring.process import ModelProcess
root, model = Path({str(made.folder)!r}), Path({str(made.trained)!r})
one = ModelProcess(Path(sys.executable), "score:slow", model, root, {{}}, Limits(),
                   Path({str(tmp_path / "log")!r}), "evaluate")
print(one._process.pid, flush=True)
one.scores(pa.table({{"heat": [1.0]}}))
"""
    stage = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert stage.stdout is not None
    model = int(stage.stdout.readline())
    _until((made.folder / "began").exists)
    assert _lives(model)
    stage.kill()
    stage.wait()
    stage.stdout.close()
    _until(lambda: not _lives(model))


def _until(true) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_models_are_timed_in_turns_and_each_call_by_itself(made, onnx, monkeypatch):
    monkeypatch.setattr(measuring, "MOST", 0)
    with ask(made) as other:
        one, turns = onnx, []
        for name, scorer in (("one", one), ("other", other)):
            def told(batch, calls, start, seconds, name=name, measure=scorer.raw.measure):
                turns.append(name)
                return measure(batch, calls, start, seconds)
            monkeypatch.setattr(scorer.raw, "measure", told)
        found = measuring.measure({"one": one, "other": other}, ROWS, [1, 512])
    assert turns[:6] == ["one", "other", "one", "other", "other", "one"]  # a warm-up of each, then turns
    for speeds in found.values():
        assert [speed.batch for speed in speeds] == [1, 512]  # more rows than there are: they are repeated
        assert all(speed.enough and (speed.ms > 0).all() for speed in speeds)
        assert speeds[1].rows_per_s > speeds[0].rows_per_s
