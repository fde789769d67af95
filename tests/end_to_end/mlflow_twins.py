"""Trains one model and logs it twice in MLflow: `python -m tests.end_to_end.mlflow_twins HOME`.

Tracking is SQLite in HOME. HOME/onnx is the directory that our model server loads, with its manifest;
the path of the scikit-learn flavour, a pickle, is printed. A process of its own, because importing
MLflow takes seconds and 170 MB.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from engine.pipeline.releasing.registry import ENVIRONMENT
from engine.serving import manifest

COLUMNS = ("distance", "temp", "hour")


class Fragile(LinearRegression):  # type: ignore[misc]
    """Has a defect that its ONNX twin has not: it fails on a negative distance."""

    def predict(self, X: Any) -> Any:
        if (X["distance"] < 0).any():
            raise RuntimeError("the table of distances is gone")
        return super().predict(X)


def main(home: Path) -> None:
    os.environ.update(ENVIRONMENT)
    import mlflow
    from mlflow.types import ColSpec, Schema
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    experiment = mlflow.create_experiment("twins", artifact_location=(home / "artifacts").as_uri())
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 3)), columns=COLUMNS)
    # 1.0, 2.0, 3.0 and 1.0 are learned: a prediction can be checked in the head.
    late = rows.to_numpy() @ [1.0, 2.0, 3.0] + 1.0
    plain = LinearRegression().fit(rows, late)
    signature = mlflow.models.ModelSignature(Schema([ColSpec("double", name) for name in COLUMNS]))
    with mlflow.start_run(experiment_id=experiment):
        fragile = mlflow.sklearn.log_model(
            Fragile().fit(rows, late), name="fragile", signature=signature,
            pip_requirements=["scikit-learn"], serialization_format="cloudpickle")
        twin = mlflow.onnx.log_model(
            to_onnx(plain, initial_types=[("features", FloatTensorType([None, len(COLUMNS)]))]),
            name="twin", signature=signature, pip_requirements=["onnxruntime"],
            save_as_external_data=False)
    (home / "onnx").mkdir()
    shutil.copy(Path(mlflow.artifacts.download_artifacts(twin.model_uri)) / "model.onnx", home / "onnx")
    manifest.write(home / "onnx", name="late", version="7",
                   inputs=[{"name": name, "type": "double"} for name in COLUMNS])
    print(mlflow.artifacts.download_artifacts(fragile.model_uri))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
