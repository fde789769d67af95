"""Trains the demo's flights model on every twelfth flight: `python -m tests.reproduce.trainings HOME`.

Then predicts 2,000 real flights with what it exported, and saves model and predictions in HOME/saved.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(home: Path) -> None:
    import numpy as np

    from engine.demo import export, flights, train
    from engine.demo.layout import CHAMPION, Layout

    layout = Layout(home)
    train.PARAMS[CHAMPION]["max_iter"] = 30
    train.train(layout, CHAMPION)
    content = (layout.training(CHAMPION) / "model.onnx").read_bytes()
    about, rows = flights.load_about(layout), flights.load(layout)[::13][:2000]
    fed = export.feed(rows, {"carrier": about.carrier, "origin": about.origin})
    predicted = export.session(content).run(None, fed)[0]
    saved = home / "saved"
    saved.mkdir()
    np.save(saved / "predictions.npy", predicted)
    (saved / "model.onnx").write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
