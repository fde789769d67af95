"""Answers of MLflow's own scoring server code: `python mlflow_answers.py MODEL_DIR < requests.json`.

Logs the linear model to MODEL_DIR with mlflow.onnx, reads [[content type, body], …] and prints
[[status, body], …]. A process of its own, because importing mlflow takes seconds and 170 MB.
"""

from __future__ import annotations

import json
import logging
import sys

import mlflow.onnx
import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, Schema

from tests.serving.onnx_models import INPUTS, linear_model


def main() -> None:
    logging.disable(logging.CRITICAL)
    signature = ModelSignature(Schema([ColSpec(one["type"], one["name"]) for one in INPUTS]))
    mlflow.onnx.save_model(linear_model(), sys.argv[1], signature=signature,
                           pip_requirements=["onnxruntime"])
    model = mlflow.pyfunc.load_model(sys.argv[1])
    schema = model.metadata.get_input_schema()
    answers = []
    for content_type, body in json.load(sys.stdin):
        try:
            answer = scoring_server.invocations(body.encode(), content_type, model, schema)
            answers.append([answer.status, answer.response])
        except MlflowException as error:
            answers.append([error.get_http_status_code(), error.serialize_as_json()])
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
