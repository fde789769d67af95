"""From a fitted gradient boosting to an ONNX model that takes the flights' columns by name.

The converter gets numbers only. A gradient boosting with *categorical* splits it converts without
an error, but wrongly; so the categories are numbered before (the index in a sorted list, an unknown
one is missing), the same way in training and in the model's first nodes:

    carrier, origin: string [N]   -> LabelEncoder -> Unsqueeze \
    the ten numbers: float  [N]   ->                 Unsqueeze  > Concat [N, 12] -> trees -> Gather
    probability:     float  [N]      of a late arrival

Inputs are one-dimensional because that is what MLflow's own ONNX server feeds from a data frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.demo.flights import CATEGORIES, FEATURES, NUMBERS
from engine.errors import ActionFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
OUTPUT = "probability"
# The trees' leaves are added up in float64 by the source and in float32 by ONNX. With the few
# hundred trees of the demo's models that comes to some 1e-6 in the log-odds, a quarter of it in
# the probability. A single row that takes another branch is off by 1e-3 or more.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Agreement:
    """How far the exported model is from its source, in probability, over `rows` real rows."""

    rows: int
    largest: float
    tolerance: float = TOLERANCE


def convert(model: Any, categories: Mapping[str, Sequence[str]], name: str) -> bytes:
    """A fitted HistGradientBoostingClassifier of FEATURES as ONNX bytes, each time the same."""
    import onnx
    from onnx import TensorProto, compose, helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    trees = to_onnx(model, name=name, options={id(model): {"zipmap": False}},
                    initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
                    target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET})
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    trees.ir_version = IR_VERSION
    # The converter names the least version its nodes want; they mean the same in ours.
    del trees.opset_import[:]
    trees.opset_import.extend(opsets)

    inputs, nodes = [], []
    for column in FEATURES:
        text = column in CATEGORIES
        kind = TensorProto.STRING if text else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(column, kind, [None]))
        if text:
            known = list(categories[column])
            nodes.append(helper.make_node(
                "LabelEncoder", [column], [f"{column}_code"], domain="ai.onnx.ml",
                keys_strings=known, values_floats=[float(code) for code in range(len(known))],
                default_float=float("nan")))
        nodes.append(helper.make_node("Unsqueeze", [f"{column}_code" if text else column, "axis"],
                                      [f"{column}_column"]))
    nodes.append(helper.make_node("Concat", [f"{column}_column" for column in FEATURES],
                                  ["row"], axis=1))
    front = helper.make_model(helper.make_graph(
        nodes, name, inputs,
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, len(FEATURES)])],
        initializer=[helper.make_tensor("axis", TensorProto.INT64, [1], [1])]),
        opset_imports=opsets, ir_version=IR_VERSION)
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


def session(model: bytes) -> Any:
    """An onnxruntime session over the bytes, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feed(rows: NDArray[Any], categories: Mapping[str, Sequence[str]]) -> dict[str, NDArray[Any]]:
    """The model's inputs by name for rows of flights.npy."""
    import numpy as np

    columns: dict[str, NDArray[Any]] = {
        name: np.array(categories[name], dtype=object)[rows[name]] for name in CATEGORIES}
    return {**columns, **{name: rows[name].astype(np.float32) for name in NUMBERS}}


def agreement(model: bytes, expected: NDArray[np.float64],
              inputs: dict[str, NDArray[Any]]) -> Agreement:
    """Compare the exported model with what its source says, `expected`, shape (rows,).

    Raises ActionFailed when they differ by more than TOLERANCE anywhere: such a model must not be
    registered.
    """
    import numpy as np

    got = session(model).run([OUTPUT], inputs)[0]
    found = Agreement(len(expected), float(np.abs(got - expected).max()))
    if not found.largest <= TOLERANCE:
        off = int((np.abs(got - expected) > TOLERANCE).sum())
        raise ActionFailed(
            f"The exported model is not its source: {off:,} of {found.rows:,} real rows differ, by "
            f"up to {found.largest:.3g} in probability; {TOLERANCE:g} is allowed.",
            hint="It was not kept. Look which of the model's features the converter lacks.")
    return found
