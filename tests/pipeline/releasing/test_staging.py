"""A model is staged on real servers, and what is wrong with it or with them is found there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from engine.errors import ActionFailed, UsageError
from engine.pipeline.stages import staging
from engine.pipeline.stages.contract import Done
from engine.pipeline.stages.staging.asking import Answer
from engine.pipeline.stages.staging.requests import same
from engine.serving import manifest
from tests.pipeline.releasing.built import ROWS, Built, build, predictions, table

SCHEMA = {"type": "object", "required": ["predictions"], "properties": {"predictions": {
    "type": "array", "items": {"type": "object", "required": ["score", "late"], "properties": {
        "score": {"type": "number"}, "late": {"enum": [0, 1]}}}}}}

SENT = 20


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    made = build(tmp_path_factory.mktemp("staged"), staging={
        "downstream": "downstream.json", "requests": 40, "concurrency": 4, "p99_ms": 3000,
        "largest_mb": 0.05})
    (made.folder / "downstream.json").write_text(json.dumps(SCHEMA))
    (made.output("register") / "manifest.json").write_text("{}")
    made.before["register"] = {"version": "4", "name": "late"}
    return made


@pytest.fixture(scope="module")
def staged(built: Built) -> tuple[Done, Path]:
    work = built.work("staging", "good")
    return staging.run(work), work.output


def checks(folder: Path) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads((folder / "checks.json").read_text())}


def changed(built: Built, **change: Any) -> Built:
    project = built.project.model_copy(update={"staging": built.project.staging.model_copy(update=change)})
    return Built(built.root, project, built.before)


def test_a_good_model_passes_every_check_on_every_replica(staged: tuple[Done, Path]) -> None:
    done, folder = staged
    found = checks(folder)
    assert done.passed, done.says
    assert [name for name, check in found.items() if not check["passed"]] == []
    assert {"answers of replica 1", "answers of replica 2", "headers of replica 2",
            "predictions of replica 1", "predictions of replica 2", "latency", "malformed JSON",
            "missing column distance", "unknown column", "wrong type in distance",
            "empty batch", "NaN in distance", "edges of the data", "unseen text in carrier",
            "largest body", "oversized body", "slow client", "good and bad at once", "stop of replica 1",
            "stop of replica 2"} <= set(found)
    assert found["predictions of replica 2"]["seen"] == "40 rows, all equal"
    assert "but for the rounding" in found["predictions of replica 2"]["expected"], "of 60 rows 40 were sent"
    assert done.result["failed"] == 0 and done.result["p99_ms"] > 0
    suite = ElementTree.parse(folder / "junit.xml").getroot()
    assert suite.attrib["failures"] == "0" and int(suite.attrib["tests"]) == done.result["checks"]


def test_what_was_staged_is_a_folder_that_can_be_released_with_its_runs_manifest(
        staged: tuple[Done, Path]) -> None:
    done, folder = staged
    stated = manifest.verify(folder / "model", done.result["model_manifest"])
    assert (stated.name, stated.version) == ("late", "4") and set(stated.files) == {"model.onnx", "run.json"}


@pytest.mark.parametrize("sent", [ROWS, 40])
def test_the_last_bit_counts_where_as_many_rows_were_asked_for_at_once_and_is_rounding_elsewhere(
        built: Built, sent: int) -> None:
    path = built.output("evaluate") / "predictions.npy"
    right = np.load(path)
    wrong = right.copy()
    wrong[17] = np.nextafter(np.float32(wrong[17]), np.float32(np.inf))
    np.save(path, wrong)
    try:
        work = changed(built, replicas=1, requests=sent).work("staging", f"bit-{sent}")
        done = staging.run(work)
    finally:
        np.save(path, right)
    [check] = [one for name, one in checks(work.output).items() if name == "predictions of replica 1"]
    if sent == ROWS:
        assert not done.passed and check["expected"] == "what the evaluation predicted, bit for bit"
        assert "predictions of replica 1: rows 0 to 59: score is off by up to" in done.says
        assert check["seen"].endswith("in row 17")
    else:
        assert done.passed and "which is rounding" in check["seen"], done.says


def rounded() -> bytes:
    """A model of prices about 300,000 in float32, which sums much more than that and takes most away again:
    one row is summed in another order than many."""
    from onnx import TensorProto, helper

    names = ["distance", "temp", "hour"]
    nodes = [helper.make_node("Cast", ["hour"], ["hour_f"], to=TensorProto.FLOAT),
             *(helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_2"])
               for name in ("distance", "temp", "hour_f")),
             helper.make_node("Concat", ["distance_2", "temp_2", "hour_f_2"] * 8, ["row"], axis=1),
             helper.make_node("LinearRegressor", ["row"], ["sums"], domain="ai.onnx.ml", intercepts=[3e5],
                              coefficients=np.random.default_rng(3).normal(0, 30, 24).tolist()),
             helper.make_node("Squeeze", ["sums", "axis"], ["score"])]
    kinds = {"hour": TensorProto.INT64}
    graph = helper.make_graph(
        nodes, "prices", [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), [None])
                          for name in names],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def test_a_model_whose_sums_are_rounded_otherwise_in_a_row_alone_is_sound(tmp_path: Path) -> None:
    built = build(tmp_path, staging={"requests": 40, "concurrency": 2, "p99_ms": 3000, "largest_mb": 0.05,
                                     "replicas": 1})
    content, rows = rounded(), table()
    (built.output("train") / "model.onnx").write_bytes(content)
    expected = predictions(content, rows)
    alone = np.array([predictions(content, rows.slice(at, 1))[0] for at in range(ROWS)])
    assert np.abs(alone - expected).max() > 0, "in float32 the steps of such a price are 0.03"
    np.save(built.output("evaluate") / "predictions.npy", expected)
    built.before["register"] = {"version": "4", "name": "late"}
    done = staging.run(built.work("staging"))
    assert done.passed, done.says


def test_a_model_that_makes_of_a_row_what_stands_beside_it_is_found(built: Built) -> None:
    from onnx import helper

    from tests.serving.onnx_models import linear_model

    made = linear_model(carrier=True)
    [last] = [node for node in made.graph.node if "score" in node.output]
    last.output[0] = "whole"
    made.graph.node.extend([helper.make_node("ReduceMean", ["whole"], ["mean"], keepdims=0),
                            helper.make_node("Sub", ["whole", "mean"], ["score"])])
    model, path = built.output("train") / "model.onnx", built.output("evaluate") / "predictions.npy"
    before = model.read_bytes(), path.read_bytes()
    model.write_bytes(made.SerializeToString())
    np.save(path, predictions(model.read_bytes(), table()))
    try:
        done = staging.run(changed(built, replicas=1, requests=ROWS).work("staging", "beside"))
    finally:
        model.write_bytes(before[0])
        path.write_bytes(before[1])
    assert "predictions of replica 1: row 0 alone: score is off" in done.says and done.result["failed"] == 1


def test_a_refusal_is_told_by_its_message_and_in_whole_words() -> None:
    message = "Ensure that input is a valid JSON formatted string. " + "word " * 40
    refusal = Answer(400, json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode())
    assert refusal.words().startswith("400: Ensure that input is") and refusal.words().endswith(" word …")
    assert Answer(413, b"The body is large.").words() == "413: The body is large."


def test_an_unknown_column_is_held_against_the_same_servers_answer_without_it() -> None:
    with_it, without = (Answer(200, json.dumps({"predictions": [{"score": value}]}).encode())
                        for value in (3.5, 3.25))
    assert same(with_it, with_it) is None
    assert same(with_it, without) == "score is 3.5, and by itself the row has 3.25"
    assert same(with_it, Answer(500, b"broken")) == "by itself the row is answered with 500: broken"


def test_answers_that_the_product_cannot_read_and_slow_ones_are_found(built: Built) -> None:
    strict = json.loads(json.dumps(SCHEMA))
    strict["properties"]["predictions"]["items"]["properties"]["score"] = {"type": "string"}
    (built.folder / "strict.json").write_text(json.dumps(strict))
    work = changed(built, downstream="strict.json", p99_ms=0.0001, replicas=1).work("staging", "strict")
    done = staging.run(work)
    found = checks(work.output)
    assert not done.passed and done.result["failed"] == 2
    assert not found["latency"]["passed"] and "p99 at most 0.0001 ms" in found["latency"]["expected"]
    assert "row 0: $.predictions[0].score" in found["answers of replica 1"]["seen"]
    failures = ElementTree.parse(work.output / "junit.xml").getroot().findall("testcase/failure")
    assert len(failures) == 2


def altered(name: str) -> bytes:
    """The model, which has no number for the warmest flight, which is not sent, or for a carrier that it does
    not know."""
    from onnx import checker, helper

    from tests.serving.onnx_models import linear_model

    model = linear_model(carrier=True)
    nodes = {node.op_type: node for node in model.graph.node}
    if name == "edges of the data":
        bent = [helper.make_node("Sub", ["beyond", "temp"], ["left"]),
                helper.make_node("Sqrt", ["left"], ["root"]),
                helper.make_node("Mul", ["root", "no"], ["none"]),
                helper.make_node("Add", ["plain", "none"], ["bent"])]
        warmest = float(np.max(table()["temp"]))
        assert warmest not in np.asarray(table()["temp"])[:SENT]
        model.graph.initializer.extend([helper.make_tensor("beyond", 1, [], [warmest - 0.01]),
                                        helper.make_tensor("no", 1, [], [0.0])])
        at = list(model.graph.node).index(nodes["LabelEncoder"])
        for node in reversed(bent):
            model.graph.node.insert(at, node)
        [last] = [node for node in model.graph.node if "score" in node.output]
        last.input[0] = "bent"
    else:
        known = nodes["LabelEncoder"].attribute
        del known[:]
        known.extend([helper.make_attribute("keys_strings", ["UA", "AA", "DL"]),
                      helper.make_attribute("values_floats", [100.0, 0.0, 0.0]),
                      helper.make_attribute("default_float", float("nan"))])
    checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", ["edges of the data", "unseen text in carrier"])
def test_a_model_that_has_no_number_for_what_the_product_may_send_is_found(built: Built, name: str) -> None:
    model = built.output("train") / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(altered(name))
    try:
        work = changed(built, replicas=1, requests=SENT).work("staging", name.split()[0])
        done = staging.run(work)
    finally:
        model.write_bytes(content)
    assert not done.passed and done.result["failed"] == 1
    assert "NaN" in checks(work.output)[name]["seen"], done.says


def test_a_schema_that_is_none_and_a_model_that_is_none_are_said(built: Built) -> None:
    (built.folder / "bad.json").write_text('{"type": "no such type"}')
    with pytest.raises(UsageError, match=r"is no JSON schema"):
        staging.run(changed(built, downstream="bad.json").work("staging", "bad-schema"))
    model = built.output("train") / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(b"\xff" * 64)
    try:
        with pytest.raises(UsageError, match=r"This is not an ONNX model"):
            staging.run(built.work("staging", "bad-model"))
        model.unlink()
        (built.output("train") / "model").mkdir()
        with pytest.raises(UsageError, match=r"serve ONNX models"):
            staging.run(built.work("staging", "folder"))
        (built.output("train") / "model").rmdir()
    finally:
        model.write_bytes(content)


def test_a_server_that_does_not_come_up_says_why(built: Built) -> None:
    from onnx import load_model_from_string

    model = built.output("train") / "model.onnx"
    content = model.read_bytes()
    broken = load_model_from_string(content)
    broken.graph.node[1].op_type = "NoSuchOperator"
    model.write_bytes(broken.SerializeToString())
    try:
        with pytest.raises(ActionFailed, match=r"does not come up with this model: .*NoSuchOperator"):
            staging.run(built.work("staging", "broken"))
    finally:
        model.write_bytes(content)


def test_predictions_of_other_rows_are_refused(built: Built) -> None:
    path = built.output("evaluate") / "predictions.npy"
    right = np.load(path)
    np.save(path, right[:-1])
    try:
        with pytest.raises(ActionFailed, match=rf"{ROWS - 1} predictions of {ROWS} held-out rows"):
            staging.run(built.work("staging", "other"))
    finally:
        np.save(path, right)
