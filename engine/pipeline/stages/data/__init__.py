"""The data stage: fetch the source, look at it, split it, and hold it against what is expected of it.

`looking` is the order of things. Hard findings end the stage before anything is paid for; suspicious ones
pass, and wait for a person.
"""

from __future__ import annotations

from engine.pipeline.stages.contract import Done, Work


def run(work: Work) -> Done:
    """Leaves train.parquet, test.parquet, findings.json, dataset.json and, where nothing was expected yet,
    expectations.yaml. Raises UsageError for data that cannot be read, ActionFailed and NotFound for data
    that cannot be had; each names the file and this stage."""
    import datetime as dt

    from engine.pipeline.stages.data.looking import look

    return look(work, dt.datetime.now(dt.UTC))
