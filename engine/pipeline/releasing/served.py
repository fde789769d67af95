"""What a trained ONNX model takes and gives, as a registry's signature and a served directory name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import UsageError
from engine.pipeline.project.model import Project

# MLflow's names of the types; a number may be missing where its tensor can hold NaN.
COLUMNS = {"BOOL": "boolean", "INT32": "integer", "INT64": "long", "FLOAT": "double", "DOUBLE": "double",
           "STRING": "string"}
OUTPUTS = {**COLUMNS, "FLOAT": "float"}
# How far apart, of their size, numbers of each kind may come out where the same sums are added in another
# order, as they are for another number of rows: a linear model of unscaled columns in float32 is off by 64
# steps of its result, for what is added is larger than the sum.
ROUNDING = {"BFLOAT16": 2.0 ** -5, "FLOAT16": 2.0 ** -8, "FLOAT": 2.0 ** -16, "DOUBLE": 2.0 ** -45}
WEIGHT = "sample_weight"


@dataclass(frozen=True)
class Signature:
    """`inputs` and `outputs`: [{"name", "type"}], the columns in the order of the model's inputs. `matrix`:
    the model has one input of all columns side by side. `rounding`: the largest of ROUNDING that its numbers
    have, of what it takes and gives."""

    inputs: list[dict[str, str]]
    outputs: list[dict[str, str]]
    matrix: bool
    rounding: float


def signature(content: bytes, features: Sequence[str], where: str) -> Signature:
    """Of an ONNX model. `features` are the columns in order, for one whose input is a matrix. Raises
    UsageError for an input that no column can be."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load_model_from_string(content).graph
    except DecodeError as error:
        raise UsageError("This is not an ONNX model.", where=where,
                         hint="Training must write model.onnx.") from error
    weights = {one.name for one in graph.initializer}
    given = [(one.name, _kind(one), len(one.type.tensor_type.shape.dim)) for one in graph.input
             if one.name not in weights]
    outputs = [{"name": one.name, "type": OUTPUTS.get(_kind(one), "double")} for one in graph.output]
    names = [name for name, _, _ in given]
    rounding = max((ROUNDING.get(kind, 0.0) for kind in (
        *(kind for _, kind, _ in given), *(_kind(one) for one in graph.output))), default=0.0)
    if len(given) == 1 and list(features) != names and names[0] not in features:
        return Signature([{"name": name, "type": _column(given[0][1], names[0], where)} for name in features],
                         outputs, True, rounding)
    return Signature([{"name": name, "type": _column(kind, name, where)} for name, kind, _ in given],
                     outputs, False, rounding)


def features(project: Project, columns: Sequence[str]) -> list[str]:
    """What the model sees of a table with these columns: those the project names, or all that it does not
    name otherwise."""
    data = project.data
    if data.features:
        return list(data.features)
    others = {data.label, data.time, data.group, *data.key, *data.segments, WEIGHT}
    return [name for name in columns if name not in others]


def _kind(value: Any) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type))


def _column(kind: str, name: str, where: str) -> str:
    if kind not in COLUMNS:
        raise UsageError(f"The model's input {name} has type {kind.lower()}, which no column can have.",
                         where=where, hint=f"The types are: {', '.join(sorted(COLUMNS)).lower()}.")
    return COLUMNS[kind]
