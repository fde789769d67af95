"""Small real ONNX models for the serving tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.serving import manifest

INPUTS = [{"name": "distance", "type": "double"}, {"name": "temp", "type": "float"},
          {"name": "hour", "type": "long"}]
CARRIER = {"name": "carrier", "type": "string"}


def linear_model(*, carrier: bool = False) -> Any:
    """score = distance * 0.001 + temp * 0.1 + hour, in float32; late = score > 10 (int64).

    With `carrier`, a text input adds 100 to the score of UA and 0 to that of any other.
    """
    from onnx import TensorProto, checker, helper

    def constant(name: str, value: float) -> Any:
        return helper.make_tensor(name, TensorProto.FLOAT, [], [value])

    nodes = [
        helper.make_node("Cast", ["hour"], ["hour_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["distance", "a"], ["x"]),
        helper.make_node("Mul", ["temp", "b"], ["y"]),
        helper.make_node("Add", ["x", "y"], ["xy"]),
        helper.make_node("Add", ["xy", "hour_f"], ["plain"]),
    ]
    inputs = [helper.make_tensor_value_info("distance", TensorProto.FLOAT, [None]),
              helper.make_tensor_value_info("temp", TensorProto.FLOAT, [None]),
              helper.make_tensor_value_info("hour", TensorProto.INT64, [None])]
    opsets = [helper.make_opsetid("", 18)]
    if carrier:
        inputs.append(helper.make_tensor_value_info("carrier", TensorProto.STRING, [None]))
        opsets.append(helper.make_opsetid("ai.onnx.ml", 3))
        nodes += [helper.make_node("LabelEncoder", ["carrier"], ["code"], domain="ai.onnx.ml",
                                   keys_strings=["UA"], values_floats=[100.0], default_float=0.0),
                  helper.make_node("Add", ["plain", "code"], ["score"])]
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["score"]))
    nodes += [helper.make_node("Greater", ["score", "limit"], ["is_late"]),
              helper.make_node("Cast", ["is_late"], ["late"], to=TensorProto.INT64)]
    graph = helper.make_graph(
        nodes, "linear", inputs,
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None]),
         helper.make_tensor_value_info("late", TensorProto.INT64, [None])],
        [constant("a", 0.001), constant("b", 0.1), constant("limit", 10.0)])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    checker.check_model(model)
    return model


def write_model(directory: Path, *, version: str = "3") -> Path:
    """A served directory with the linear model and its manifest, without MLflow's files."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(linear_model().SerializeToString())
    manifest.write(directory, name="late", version=version, inputs=INPUTS,
                   output={"name": "score", "type": "float"})
    return directory
