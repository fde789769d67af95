"""A small project that is good, written into a folder; a test changes one part of it."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
opsdeck: 1
project: delays
model: delays
task: binary
owner: ml-platform
environment:
  lock: uv.lock
data:
  source: {path: data/rows.csv}
  label: late
  time: at
  group: plane
  key: [id]
  features: [distance, carrier]
  segments: [carrier]
  holdout: {last: 30d}
tests:
  paths: [tests]
train:
  entry: {function: "train:main"}
evaluate:
  metrics: [log_loss]
robustness:
  perturbations:
    - {name: noisy, try: {kind: noise, columns: [distance]}, mean_shift: 0.1}
gates:
  - {kind: non_inferiority, metric: log_loss, margin: 0.005}
staging:
  downstream: contract.json
release:
  service: delays
  folder: models
  process: challenger
triggers:
  cron:
    - {at: "30 2 * * 1", zone: Europe/Berlin}
"""


def project(folder: Path, *changes: tuple[str, str]) -> Path:
    """The folder of a project whose file has each first text replaced by the second."""
    text = GOOD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (folder / "tests").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "opsdeck.pipeline.yaml").write_text(text)
    (folder / "uv.lock").write_text("version = 1\n")
    (folder / "train.py").write_text("def main(inputs, output, params):\n    return None\n")
    (folder / "contract.json").write_text('{"type": "object"}')
    (folder / "data" / "rows.csv").write_text("id,at,plane,carrier,distance,late\n")
    return folder
