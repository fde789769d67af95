"""The fitted gradient boosting as an ONNX model that takes a flight's columns by name.

The converter gets numbers only. A gradient boosting with *categorical* splits it converts without an error,
but wrongly; so categories are numbered before, the same way in training and in the model's first nodes:

    carrier, origin: string [N]   -> LabelEncoder -> Unsqueeze \\
    the ten numbers: float  [N]   ->                 Unsqueeze  > Concat [N, 12] -> trees -> Gather
    probability:     float  [N]      of a late arrival
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

from columns import CATEGORIES, FEATURES

OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
OUTPUT = "probability"
# The trees' leaves are added up in float64 by the source and in float32 by ONNX: some 1e-6 in the log-odds
# for a few hundred trees. A row that takes another branch is off by 1e-3 or more.
TOLERANCE = 1e-5


def convert(model: Any, categories: Mapping[str, Sequence[str]], name: str) -> bytes:
    """A fitted HistGradientBoostingClassifier of FEATURES as ONNX bytes, each time the same."""
    trees = to_onnx(model, name=name, options={id(model): {"zipmap": False}},
                    initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
                    target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET})
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    trees.ir_version = IR_VERSION
    # The converter names the least version its nodes want; they mean the same in ours.
    del trees.opset_import[:]
    trees.opset_import.extend(opsets)
    front = _front(categories, name, opsets)
    back = helper.make_model(helper.make_graph(
        [helper.make_node("Gather", ["both", "late"], [OUTPUT], axis=1)], name,
        [helper.make_tensor_value_info("both", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None])],
        initializer=[helper.make_tensor("late", TensorProto.INT64, [], [1])]),
        opset_imports=opsets, ir_version=IR_VERSION)
    whole = compose.merge_models(front, trees, [("row", "features")])
    whole = compose.merge_models(whole, back, [("probabilities", "both")], outputs=[OUTPUT])
    whole.graph.name = name
    onnx.checker.check_model(whole, full_check=True)
    return bytes(whole.SerializeToString(deterministic=True))


def _front(categories: Mapping[str, Sequence[str]], name: str, opsets: list[Any]) -> Any:
    """From the columns to one row of numbers each."""
    inputs, nodes = [], []
    for column in FEATURES:
        text = column in CATEGORIES
        inputs.append(helper.make_tensor_value_info(
            column, TensorProto.STRING if text else TensorProto.FLOAT, [None]))
        if text:
            known = list(categories[column])
            nodes.append(helper.make_node(
                "LabelEncoder", [column], [f"{column}_code"], domain="ai.onnx.ml",
                keys_strings=known, values_floats=[float(code) for code in range(len(known))],
                default_float=float("nan")))
        nodes.append(helper.make_node("Unsqueeze", [f"{column}_code" if text else column, "axis"],
                                      [f"{column}_column"]))
    nodes.append(helper.make_node("Concat", [f"{column}_column" for column in FEATURES], ["row"], axis=1))
    return helper.make_model(helper.make_graph(
        nodes, name, inputs,
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, len(FEATURES)])],
        initializer=[helper.make_tensor("axis", TensorProto.INT64, [1], [1])]),
        opset_imports=opsets, ir_version=IR_VERSION)


def run(model: bytes, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The exported model's probabilities (rows,), on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT], dict(inputs))[0])


def check(model: bytes, expected: NDArray[np.float64], inputs: Mapping[str, NDArray[Any]]) -> float:
    """How far the exported model is from its source at most, which says `expected` (rows,).

    Raises ValueError when it is more than TOLERANCE anywhere: such a model must not be kept.
    """
    off = np.abs(run(model, inputs) - expected)
    if not off.max() <= TOLERANCE:
        raise ValueError(
            f"the exported model is not its source: {int((off > TOLERANCE).sum()):,} of {len(off):,} rows "
            f"differ, by up to {off.max():.3g} in probability; {TOLERANCE:g} is allowed")
    return float(off.max())
