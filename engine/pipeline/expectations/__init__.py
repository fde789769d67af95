"""What data must look like: learned from data that was good, reviewed as YAML, and checked before training.

    expectations = learn("history.parquet")            # from files or Arrow tables
    Path("expectations.yaml").write_text(dumps(expectations)) findings =
    check(loads(Path("expectations.yaml")), "new.parquet", now=now) print("\\n".join(beside(findings[0])))
    # old and new side by side expectations = accept(expectations, findings[0], by="anna", reason="new
    airport", at="2026-11-24T03:14:07Z")
"""

from __future__ import annotations

from engine.pipeline.expectations.accepting import accept
from engine.pipeline.expectations.beside import beside
from engine.pipeline.expectations.checking import check
from engine.pipeline.expectations.learning import learn
from engine.pipeline.expectations.model import Expectations, Finding, Severity
from engine.pipeline.expectations.relearning import relearn
from engine.pipeline.expectations.writing import dumps, loads

__all__ = [
    "Expectations",
    "Finding",
    "Severity",
    "accept",
    "beside",
    "check",
    "dumps",
    "learn",
    "loads",
    "relearn",
]
