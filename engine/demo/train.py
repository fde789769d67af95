"""Step of the set-up: learn a model of late arrivals, export it, and compare the two.

`python -m engine.demo.train --home H --variant champion` writes training/<variant>/model.onnx and
report.json. Three figures tell how well it does in January to March, and they differ for a reason:

    auc_train       on the flights it learned from                                       about 0.83
    auc_holdout     on flights it never saw; but it saw others of the same hours, and
                    the weather of an hour tells it how that hour went                   about 0.79
    auc_new_days    on the last two weeks of March, of which it saw nothing              about 0.73

From April on it is between 0.67 and 0.75 by month, in weather that it has not learned from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.demo import export, flights
from engine.demo.command import guarded
from engine.demo.layout import CHALLENGER, CHAMPION, VARIANTS, Layout, read_json, write_atomically
from engine.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 2013
LAST_MONTH = 3  # it learns from January up to this month
NEW_DAYS = 14  # the last days of March, which it never sees
HOLDOUT = 0.1  # the share of the other days' flights that it never sees
COMPARED = 4000  # real rows of the whole year on which the export is compared with its source
PARAMS: dict[str, dict[str, Any]] = {
    # The library's own choice of trees: follows the winter closely.
    CHAMPION: {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 31,
               "l2_regularization": 0.0, "min_samples_leaf": 20},
    # More and smaller trees, held back more: remembers less of the winter.
    CHALLENGER: {"max_iter": 200, "learning_rate": 0.05, "max_leaf_nodes": 12,
                 "l2_regularization": 5.0, "min_samples_leaf": 100},
}


@dataclass(frozen=True)
class Report:
    """What one training gave; the content of report.json and of the model's entry in MLflow."""

    variant: str
    params: dict[str, Any]
    seed: int
    data_digest: str
    rows_train: int
    rows_holdout: int
    rows_new_days: int
    auc_train: float
    auc_holdout: float
    auc_new_days: float
    auc_by_month: dict[str, float]
    onnx_sha256: str
    compared_rows: int
    compared_largest: float
    seconds: float


def fit(variant: str, inputs: NDArray[Any], late: NDArray[Any]) -> Any:
    """A fitted HistGradientBoostingClassifier; no categorical splits, see `export`."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(**PARAMS[variant], categorical_features=None,
                                           early_stopping=False, random_state=SEED)
    return model.fit(inputs, late)


def split(rows: NDArray[Any], rng: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Which rows of the winter the models learn from, and which flights and days are held out."""

    winter = rows["month"] <= LAST_MONTH
    # New York's days end at 5 h UTC; nothing leaves then.
    day = (rows["depart"] - 5 * 3600) // 86400
    away = winter & (day > day[winter].max() - NEW_DAYS)
    held = winter & ~away & (rng.random(len(rows)) < HOLDOUT)
    return winter & ~away & ~held, held, away


def train(layout: Layout, variant: str) -> Report:
    """Learn, measure, export and compare. Raises UsageError for an unknown variant or without data,
    ActionFailed when the exported model is not its source (then nothing is written)."""
    if variant not in VARIANTS:
        raise UsageError(f"There is no variant {variant}.", hint=f"Known: {', '.join(VARIANTS)}.")
    about, rows = flights.load_about(layout), flights.load(layout)

    import numpy as np
    from sklearn.metrics import roc_auc_score

    begun = time.monotonic()
    inputs, late = flights.features(rows), np.array(rows["late"])
    rng = np.random.default_rng(SEED)
    learned, held, away = split(rows, rng)
    # Every fourth flight tells an AUC to 0.01, in a quarter of the time.
    scored = held | away | (np.arange(len(rows)) % 4 == 0)

    model = fit(variant, inputs[learned], late[learned])
    print(f"learned {PARAMS[variant]['max_iter']} trees from {learned.sum():,} flights of January "
          f"to March in {time.monotonic() - begun:.1f} s", flush=True)
    score = np.full(len(rows), np.nan)
    score[scored] = model.predict_proba(inputs[scored])[:, 1]

    def auc(where: NDArray[Any]) -> float:
        return round(float(roc_auc_score(late[where & scored], score[where & scored])), 4)

    by_month = {f"{month:02d}": auc(rows["month"] == month) for month in range(LAST_MONTH + 1, 13)}
    print(f"AUC January to March: {auc(learned):.2f} on those, {auc(held):.2f} on {held.sum():,} "
          f"held out, {auc(away):.2f} on its last {NEW_DAYS} days", flush=True)
    print("AUC from April on, by month: " + " ".join(f"{x:.2f}" for x in by_month.values()),
          flush=True)

    categories = {"carrier": about.carrier, "origin": about.origin}
    exported = export.convert(model, categories, "flights")
    some = np.sort(rng.choice(np.flatnonzero(scored), COMPARED, replace=False))
    agreed = export.agreement(exported, score[some], export.feed(rows[some], categories))
    print(f"exported to ONNX, {len(exported) / 1024:.0f} KB; on {agreed.rows:,} real flights it is "
          f"at most {agreed.largest:.1e} off its source ({agreed.tolerance:g} is allowed)")

    report = Report(
        variant=variant, params=PARAMS[variant], seed=SEED, data_digest=about.digest,
        rows_train=int(learned.sum()), rows_holdout=int(held.sum()), rows_new_days=int(away.sum()),
        auc_train=auc(learned), auc_holdout=auc(held), auc_new_days=auc(away),
        auc_by_month=by_month,
        onnx_sha256=hashlib.sha256(exported).hexdigest(), compared_rows=agreed.rows,
        compared_largest=agreed.largest, seconds=round(time.monotonic() - begun, 2))
    folder = layout.training(variant)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = folder / ".model.onnx"
    fresh.write_bytes(exported)
    fresh.replace(folder / "model.onnx")
    write_atomically(folder / "report.json", json.dumps(asdict(report), indent=1) + "\n")
    return report


def load_report(layout: Layout, variant: str) -> Report:
    """The report of the last training. Raises UsageError if there is none."""
    hint = f"Train it first: python -m engine.demo.train --variant {variant}"
    path = layout.training(variant) / "report.json"
    try:
        return Report(**read_json(path, f"The report of the {variant}'s training", hint))
    except TypeError as error:
        raise UsageError("The report is one of another version.", where=str(path),
                         hint=hint) from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.demo.train")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    args = parser.parse_args()
    # Champion and challenger are trained side by side: one core each, no contest for them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"loading the libraries that train the {args.variant}", flush=True)
    report = train(Layout(args.home), args.variant)
    print(f"{args.variant}: sha256 {report.onnx_sha256[:16]}, {report.seconds} s")


if __name__ == "__main__":
    guarded(main)
