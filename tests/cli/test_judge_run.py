"""`opsdeck judge run`: a file of counts in, the evidence and the verdict out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

THREE = {"alpha": 0.05, "tolerated_ratio": 1,
         "ticks": [{"canary": {"n": 500, "y": 10}, "baseline": {"n": 4500, "y": 45}}] * 3}


def judge(given: str | bytes, *options: str) -> subprocess.CompletedProcess[str]:
    text = given if isinstance(given, str) else given.decode("latin-1")
    return subprocess.run([sys.executable, "-m", "engine.cli.main", "judge", "run", *options], input=text,
                          capture_output=True, text=True, encoding="latin-1", timeout=30)


def test_it_prints_the_evidence_after_each_tick_and_when_it_decided():
    done = judge(json.dumps(THREE), "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["ln_e"] == pytest.approx([0.878834, 2.258345, 3.735789], abs=5e-7)
    assert (found["verdict"], found["decided_at"]) == ("bad", 3)


def test_undecided_has_no_tick():
    done = judge(json.dumps(THREE | {"alpha": 0.01}), "--json")
    found = json.loads(done.stdout)
    assert (found["verdict"], found["decided_at"]) == ("undecided", None)


def test_it_says_the_verdict_in_a_sentence_and_reads_a_file(tmp_path):
    (tmp_path / "counts.json").write_text(json.dumps(THREE))
    done = judge("", str(tmp_path / "counts.json"))
    assert done.stdout == "bad: ln E reached 3.74 of 3.00 (alpha 0.05) at tick 3 of 3\n"


def test_no_ticks_are_undecided():
    assert judge('{"alpha": 0.01, "ticks": []}').stdout == "undecided: there are no ticks\n"


@pytest.mark.parametrize("given, said", [
    ("", "not JSON"), ("{", "not JSON"), (b"\xff\xfe", "not JSON"), ("[" * 100_000, "not a file of counts"),
    ("[]", "Expected `object`"),
    ('{"alpha": 0.01}', "`ticks`"),
    ('{"alpha": 0.01, "ticks": [], "ratio": 2}', "unknown field `ratio`"),
    ('{"alpha": 1.5, "ticks": []}', "alpha is 1.5"),
    ('{"alpha": 0.01, "tolerated_ratio": 0, "ticks": []}', "tolerated_ratio is 0"),
    (json.dumps(THREE).replace('"y": 10', '"y": 501'), "ticks[0].canary: 501 of 500"),
    (json.dumps(THREE).replace('"y": 45', '"y": 4.5'), "$.ticks[0].baseline.y"),
    (json.dumps(THREE).replace('"n": 4500', '"n": ' + "9" * 400), "$.ticks[0].baseline.n"),
])
def test_what_cannot_be_judged_is_refused_with_the_place(given, said):
    done = judge(given)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
