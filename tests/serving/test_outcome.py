"""What a variant's answer means to the gateway."""

from __future__ import annotations

import json

import pytest

from engine.serving.outcome import STATUS, Failure, error_body, judge

MEMORY_TRACE = ("Traceback (most recent call last):\n  File \"x.py\", line 1\n"
                "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB")


def mlflow(message: str, stack_trace: str = "") -> bytes:
    return json.dumps({"error_code": "BAD_REQUEST", "message": message,
                       "stack_trace": stack_trace}).encode()


@pytest.mark.parametrize(("status", "body", "error_type"), [
    (200, b"", None), (204, b"out of memory", None),
    (400, mlflow("no"), "invalid_input"), (404, b"", "invalid_input"),
    (415, b"", "invalid_input"), (429, b"", "unavailable"),
    (500, b"", "model_error"), (502, b"<html>", "model_error"), (302, b"", "model_error"),
    (503, b"", "unavailable"), (504, b"", "timeout"), (507, b"", "out_of_memory"),
    (500, b'{"message": "MemoryError"}', "out_of_memory"),
    (500, b"CUDA out of memory. Tried to allocate", "out_of_memory"),
    (500, b"terminate: std::bad_alloc", "out_of_memory"),
    (400, mlflow("x", MEMORY_TRACE), "out_of_memory"),
    (400, mlflow("x", "T\ntorch.cuda.OutOfMemoryError: CUDA"), "out_of_memory"),
    (400, mlflow("x", "T\nMemoryError"), "out_of_memory"),
])
def test_each_answer_has_its_type(status: int, body: bytes, error_type: str | None) -> None:
    failure = judge(status, body)
    assert (None if failure is None else failure.error_type) == error_type


RAISED = ("Encountered an unexpected error while evaluating the model. Verify that the serialized "
          "input Dataframe is compatible with the model for inference.")
TRACE = ('Traceback (most recent call last):\n  File "x.py", line 1, in predict\n    return f(x)\n'
         "           ^^^^\n")
CHAIN = f"{TRACE}KeyError: 7\n\nThe above exception was the direct cause of the following:\n\n{TRACE}"


@pytest.mark.parametrize(("trace", "error_type"), [
    (TRACE + "ValueError: Input X contains NaN.\nLinearRegression does not accept it.\n\nhttps://x",
     "invalid_input"),
    (TRACE + "UnicodeDecodeError: x", "invalid_input"), (TRACE + "KeyError: 'UA'", "invalid_input"),
    (TRACE + "onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument: [ONNXRuntimeError] : 2",
     "invalid_input"),
    (TRACE + "AttributeError: 'Tree' object has no attribute 'missing_go_to_left'", "model_error"),
    (TRACE + "sklearn.exceptions.NotFittedError: fit it first\nindeed", "model_error"),
    (TRACE + "AssertionError", "model_error"), (CHAIN + "lookup.Gone: no table", "model_error"),
    (CHAIN + "numpy._core._exceptions._ArrayMemoryError: no 8 GiB\nleft", "out_of_memory"),
    ("", "invalid_input"), ("no trace at all", "invalid_input"),
])
def test_what_a_model_raises_behind_mlflows_400_tells_a_bad_value_from_a_bad_model(
        trace: str, error_type: str) -> None:
    failure = judge(400, mlflow(RAISED, trace))
    assert failure is not None and failure.error_type == error_type
    assert "x.py" not in failure.message


def test_what_mlflow_cannot_read_is_the_callers_fault_whatever_its_parser_raised() -> None:
    trace = f"{TRACE}pandas.errors.EmptyDataError: No columns to parse from file"
    assert judge(400, mlflow("Failed to parse input as a Pandas DataFrame.", trace)) == Failure(
        "invalid_input", "Failed to parse input as a Pandas DataFrame.")


@pytest.mark.parametrize("body", [
    mlflow("could not convert 'MemoryError: out of memory' to float"), b"out of memory",
    mlflow("x", "T\nValueError: could not convert string to float: 'MemoryError'"),
    mlflow("x", "MemoryError\nValueError: x")])
def test_a_caller_cannot_fake_a_shortage_of_memory_with_what_its_error_repeats(
        body: bytes) -> None:
    failure = judge(400, body)
    assert failure is not None and failure.error_type == "invalid_input"


def test_the_models_own_words_reach_the_caller_but_its_stack_trace_does_not() -> None:
    failure = judge(400, mlflow("Model is missing inputs ['temp'].", "secret/path.py"))
    assert failure is not None
    body = error_body(failure, "champion", "id-1")
    assert json.loads(body) == {
        "error_code": "BAD_REQUEST", "message": "Model is missing inputs ['temp'].",
        "error_type": "invalid_input", "variant": "champion", "correlation_id": "id-1"}


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"message": 3}', b"[" * 100_000,
                                  b'{"message": "' + b"x" * 100_000 + b'"}'])
def test_an_error_that_cannot_be_read_still_gets_a_sentence(body: bytes) -> None:
    assert judge(500, body) == Failure("model_error", "The model answered with status 500.")


def test_every_type_has_its_status() -> None:
    assert STATUS == {"timeout": 504, "out_of_memory": 507, "invalid_input": 400,
                      "model_error": 502, "unavailable": 503}
