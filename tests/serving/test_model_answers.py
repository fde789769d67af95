"""The model server answers as MLflow's own server does, and better where that one fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.serving import manifest
from engine.serving.http_messages import Request, Response
from engine.serving.manifest import ManifestError
from engine.serving.model_server import Model, handler
from tests.serving.onnx_models import CARRIER, INPUTS, linear_model

JSON, CSV = "application/json", "text/csv"
COLUMNS = ["distance", "temp", "hour"]
RECORD = {"distance": 1.5, "temp": 2.5, "hour": 3}


def split(*rows: list[Any], columns: list[str] = COLUMNS, **more: Any) -> str:
    return json.dumps({"dataframe_split": {"columns": columns, "data": rows, **more}})


def form(name: str, value: Any) -> str:
    return json.dumps({name: value})


SAME = [
    (JSON, split([1400.0, 39.5, 7], [200.1, 70.3, 23])), (JSON, split([1400, 39, 7])),
    (JSON, split(["1400", "39.5", "7"])), (JSON, split([None, 39.5, 7])),
    (JSON, split([1.0, None, 7])), (JSON, split([1.0, 2.0, None])), (JSON, split([1.0, 2.0, 7.9])),
    (JSON, split([1.0, 2.0, "7.9"])), (JSON, split([True, False, True])),
    (JSON, split(["abc", 2.0, 7])), (JSON, split()), (JSON, split([float("nan"), float("inf"), 3])),
    (JSON, split([1e300, 1e38, 3])), (JSON, split([1.0, 1.0, 2**70])),
    (JSON, split([1.0, [1.0], 2])), (JSON, split([1.0, {"a": 1}, 2])),
    (JSON, split([1.0, 2.0, 3, "q"], columns=[*COLUMNS, "extra"])),
    (JSON, split([1.0, 3], columns=["distance", "hour"])),
    (JSON, split([1, 2.0, 3.0], columns=["hour", "temp", "distance"])), (JSON, split([1.0, 2.0])),
    (JSON, split([1, 2, 3], index=[5])), (JSON, split([1, 2, 3], index=[5], x=1)),
    (JSON, form("dataframe_split", {"data": [[1, 2, 3]]})),
    (JSON, form("dataframe_split", {"columns": COLUMNS})), (JSON, form("dataframe_split", [1])),
    (JSON, form("dataframe_records", [RECORD, {**RECORD, "hour": 4}])),
    (JSON, form("dataframe_records", [RECORD, {"temp": 2.5, "hour": 4}])),
    (JSON, form("dataframe_records", [RECORD, {"distance": 1, "temp": 2.5}])),
    (JSON, form("dataframe_records", [])), (JSON, form("dataframe_records", {"distance": [1]})),
    (JSON, form("instances", [RECORD, {"distance": 1, "temp": 2, "hour": 4}])),
    (JSON, form("instances", [RECORD, {"distance": 1, "temp": 2}])),
    (JSON, form("instances", [[1.5, 2.5, 3]])), (JSON, form("instances", [])),
    (JSON, form("instances", [1, 2])),
    (JSON, form("inputs", {"distance": [1.5, 2], "temp": [2.5, 3], "hour": [3, 4]})),
    (JSON, form("inputs", RECORD)),
    (JSON, form("inputs", {"distance": [1.5, 2], "temp": [2.5], "hour": [3, 4]})),
    (JSON, form("inputs", {"distance": [1.5, 2], "temp": 2.5, "hour": [3, 4]})),
    (JSON, form("inputs", [RECORD])), (JSON, form("inputs", [[1, 2, 3]])),
    (JSON, form("inputs", {"distance": [[1.5]], "temp": [[2.5]], "hour": [[3]]})),
    (JSON, "[1]"), (JSON, "nonsense"), (JSON, ""), (JSON, "3"), (JSON, form("a", 1)),
    (JSON, '{"inputs": {}, "instances": []}'),
    (JSON, '{"inputs": {"distance": 1, "temp": 2, "hour": 3}, "params": {"a": 1}}'),
    (JSON, '{"inputs": {"distance": 1, "temp": 2, "hour": 3}, "other": {"a": 1}}'),
    (f"{JSON}; charset=utf-8", split([1, 2, 3])), (f"{JSON}; charset=latin-1", split([1, 2, 3])),
    (f"{JSON}; x=y", split([1, 2, 3])), ("application/xml", "<a/>"),
    (CSV, "distance,temp,hour\n1.5,2.5,3\n4,5,6\n"), (CSV, "distance,temp,hour\n1.5,,3\n"),
    (CSV, "distance,temp,hour\n1.5,2.5,\n"), (CSV, "distance,temp,hour\nNA,x,3\n"),
    (CSV, ",distance,temp,hour\n0,1.5,2.5,3\n"), (CSV, "distance,temp\n1,2\n"), (CSV, ""),
    (CSV, "distance,temp,hour\n"), (CSV, "distance,temp,hour\n1,2\n"),
    (CSV, 'distance,temp,hour\n"1.5",2.5,3\n'), (CSV, "distance,temp,hour\n1.5,2.5,3.0\n"),
    (CSV, "distance,temp,hour\r\n 1.5,0.1234567890123456789, 3\r\n"),
]


async def ask(model: Model, content_type: str, body: str | bytes) -> Response:
    content = body.encode() if isinstance(body, str) else body
    answer = await handler(model)(Request("POST", "/invocations", {"content-type": content_type},
                                          content))
    assert answer is not None
    return answer


@pytest.mark.slow
async def test_every_answer_equals_mlflows_own_byte_for_byte(tmp_path: Path) -> None:
    logged = tmp_path / "late"
    shown = subprocess.run(
        [sys.executable, "-m", "tests.serving.mlflow_answers", str(logged)],
        input=json.dumps(SAME), capture_output=True, text=True, check=True)
    theirs = json.loads(shown.stdout.splitlines()[-1])
    manifest.write(logged, name="late", version="3", inputs=INPUTS)
    model = Model(logged, manifest.verify(logged))
    assert sum(status == 200 for status, _ in theirs) > 20
    for (content_type, body), (status, answer) in zip(SAME, theirs, strict=True):
        ours = await ask(model, content_type, body)
        assert ours.status == status, body
        if status == 200:
            assert ours.body.decode() == answer, body
        elif status == 400:
            assert set(json.loads(ours.body)) == {"error_code", "message"}


@pytest.fixture(scope="module")
def model(model_dir: Path) -> Model:
    return Model(model_dir, manifest.verify(model_dir))


@pytest.mark.parametrize(("content_type", "body", "says"), [
    (JSON, split([1.0, 3, 5], columns=["distance", "hour", "tmp"]),
     "Model is missing inputs ['temp']. Note that there were extra inputs: ['tmp']."),
    (JSON, split([1.0, 2.0, 3], ["x", 2.0, 3]),
     'column distance has a value that is not a double, in row 2: "x"'),
    (JSON, split([1.0, 2.0, None]), "column hour has a value that is not a long, in row 1: null"),
    (JSON, split([1.0, 2.0]), "Row 1 of 'data' must be a list of 3 values"),
    (JSON, form("instances", [RECORD, {"distance": 1, "temp": 2}]), "has no value for hour"),
    (JSON, form("inputs", {**RECORD, "temp": [1, 2], "distance": [1]}), "different numbers"),
    (JSON, b"\xff\xfe", "valid JSON"), (JSON, "[" * 100_000, "valid JSON"),
    (CSV, "distance,temp,hour\n1,2,3,4\n", "Row 1 has 4 fields for 3 columns"),
    (CSV, "distance,temp,hour\n1,2,3.5\n", "column hour has a value that is not a long"),
    (CSV, b"\xff", "UTF-8"), (JSON, split([1, 2, 3], columns=["hour", "hour", "temp"]), "twice"),
])
async def test_bad_input_is_named_in_mlflows_error_form(model: Model, content_type: str,
                                                        body: str | bytes, says: str) -> None:
    answer = await ask(model, content_type, body)
    assert answer.status == 400 and says in json.loads(answer.body)["message"]
    assert json.loads(answer.body)["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")


async def test_text_columns_work_and_take_nothing_but_text(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_model(carrier=True).SerializeToString())
    manifest.write(tmp_path, name="late", version="1", inputs=[*INPUTS, CARRIER])
    model = Model(tmp_path, manifest.verify(tmp_path))
    answer = await ask(model, JSON, split([1, 2, 3, "UA"], [1, 2, 3, "ü"],
                                          columns=[*COLUMNS, "carrier"]))
    assert [row["late"] for row in json.loads(answer.body)["predictions"]] == [1, 0]
    for wrong in (5, None, True):
        answer = await ask(model, JSON, split([1, 2, 3, wrong], columns=[*COLUMNS, "carrier"]))
        assert answer.status == 400 and "column carrier" in json.loads(answer.body)["message"]


async def test_a_scikit_learn_export_with_one_matrix_and_two_outputs_is_served(
        tmp_path: Path) -> None:
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)).astype(np.float32)
    fitted = LogisticRegression().fit(rows, rows[:, 0] > 0)
    exported = to_onnx(fitted, rows[:1], options={"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(exported.SerializeToString())
    manifest.write(tmp_path, name="late", version="1",
                   inputs=[{"name": name, "type": "float"} for name in "abc"])
    model = Model(tmp_path, manifest.verify(tmp_path))
    answer = await ask(model, JSON, split(*rows[:5].tolist(), columns=["a", "b", "c"]))
    served = [row["probabilities"] for row in json.loads(answer.body)["predictions"]]
    assert np.allclose(served, fitted.predict_proba(rows[:5]), atol=1e-5)


async def test_a_large_batch_is_scored_beside_the_event_loop_with_the_same_answer(
        model: Model) -> None:
    rows = [[float(i), 1.0, i % 24] for i in range(2000)]
    answer = await ask(model, JSON, split(*rows))
    one_by_one = [json.loads((await ask(model, JSON, split(row))).body)["predictions"][0]
                  for row in rows[::400]]
    assert json.loads(answer.body)["predictions"][::400] == one_by_one


def test_a_model_that_is_not_onnx_or_has_other_inputs_is_refused(tmp_path: Path,
                                                                 model_dir: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    manifest.write(tmp_path, name="late", version="1", inputs=INPUTS)
    with pytest.raises(ManifestError, match="onnxruntime cannot load"):
        Model(tmp_path, manifest.verify(tmp_path))
    (tmp_path / "model.onnx").write_bytes((model_dir / "model.onnx").read_bytes())
    manifest.write(tmp_path, name="late", version="1", inputs=[*INPUTS, CARRIER])
    with pytest.raises(ManifestError, match="not those of the manifest"):
        Model(tmp_path, manifest.verify(tmp_path))


def test_onnxruntime_is_not_even_imported_for_a_model_that_does_not_verify(
        tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((model_dir / "manifest.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"tampered")
    code = ("import sys; from engine.serving.model_server import main; "
            f"status = main(['--model', {str(tmp_path)!r}, '--port', '0']); "
            "print(status, 'onnxruntime' in sys.modules)")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.split() == ["2", "False"]
    assert "model.onnx does not have the SHA-256" in shown.stderr and "Trace" not in shown.stderr
