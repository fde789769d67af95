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


SAMPLES = {"metrics": [
    {"name": "errors", "direction": "increase", "group": "faults",
     "canary": [0, 1, 2, 1, 0, 0], "baseline": [0, 0, 0, 0, 0, None, 0]},
    {"name": "latency", "direction": "increase", "canary": [5, 6, 7, 8, 9, 9.5, 6.5],
     "baseline": [5, 6, 7, 8, 9, 9.6, 6.4]}], "weights": {"faults": 60}}


def test_the_mann_whitney_judges_are_chosen_by_name_and_score_the_metrics():
    plain, strict = (json.loads(judge(json.dumps(SAMPLES), "--json", "--judge", name).stdout)
                     for name in ("mann-whitney", "mann-whitney-strict"))
    assert [one["label"] for one in plain["metrics"]] == ["pass", "pass"]
    assert (plain["score"]["summary"], plain["score"]["label"]) == (100, "pass")
    assert [one["label"] for one in strict["metrics"]] == ["high", "pass"]
    assert (strict["score"]["summary"], strict["score"]["label"]) == (40, "fail")
    assert strict["score"]["groups"] == {"faults": 0, "metrics": 100}


def test_they_say_each_metrics_classification_with_its_reason_and_the_score():
    lines = judge(json.dumps(SAMPLES), "--judge", "mann-whitney-strict").stdout.splitlines()
    assert lines[0] == ("errors: high: 3 of 6 samples of the canary are above the usual 0, "
                        "of the baseline 0 of 6 (p 0.034)")
    assert lines[-1] == "score 40 of 100, fail: it passes at 95 and is marginal at 75"


@pytest.mark.parametrize("given, said", [
    ("", "not JSON"), (b"\xff\xfe", "not JSON"), ("[]", "Expected `object`"), ("{}", "`metrics`"),
    (json.dumps(THREE), "unknown field `alpha`"),
    (json.dumps(SAMPLES).replace('"increase"', '"up"', 1), "$.metrics[0].direction"),
    (json.dumps(SAMPLES).replace("9.5", '"9.5"'), "$.metrics[1].canary[5]"),
    (json.dumps(SAMPLES).replace("9.5", "1e999"), "$.metrics[1].canary[5]"),
    (json.dumps(SAMPLES).replace("latency", "errors"), "metrics[1]: there are two metrics named errors"),
    (json.dumps(SAMPLES | {"weights": {"speed": 60}}), "no metric is in the group speed"),
    (json.dumps(SAMPLES | {"weights": {"faults": 160}}), "at most 100 in all"),
    (json.dumps(SAMPLES | {"confidence": 1}), "metrics[0] (errors): confidence is 1"),
    (json.dumps(SAMPLES | {"pass": 50}), "thresholds"),
])
def test_samples_that_cannot_be_judged_are_refused_with_the_place(given, said):
    done = judge(given, "--judge", "mann-whitney")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
