"""A made-up pipeline that trains: its steps, what they say, and the curves of the training."""

from __future__ import annotations

import math

from console.fake_runs import done, run, step
from engine.api import wire
from engine.api.backend import Point

ROUNDS = 64  # of 100 boosting rounds


def training(at: float) -> tuple[wire.RunView, dict[tuple[str, str], list[Point]]]:
    """Run 190 in its training, and its curves by (run, step)."""
    points = [Point(name, float(at), value) for at in range(1, ROUNDS + 1)
              for name, value in (("log_loss", _loss(at, 0.41)), ("val_log_loss", _loss(at, 0.455)))]
    told = "".join(f"round {at:>3}  log_loss {_loss(at, 0.41):.4f}\n" for at in range(1, ROUNDS + 1))
    view = run("190", "train-and-release", "From data to a release", "running", [
        done("tests", "The project's own tests", at - 96, 21.4, effect="idempotent",
             command="pipeline.tests flights", stdout="14 tests passed\n"),
        done("data", "The data against what is expected", at - 74, 6.2, effect="idempotent",
             command="pipeline.data flights",
             stdout="81,204 rows: nothing hard, nothing suspicious\n"),
        step("review", "Suspicious findings", "skipped", kind="manual", reason="nothing is suspicious"),
        step("train", "Training", "intent", started=at - 68, by="mlops3", effect="idempotent",
             command="pipeline.train flights", stdout=told, output_bytes=len(told)),
        step("evaluate", "Evaluation on held-out rows"),
        step("robustness", "Hard cases and disturbances"),
        step("compare", "Comparison with production"),
        step("register", "Registration"), step("staging", "Staging and smoke tests"),
        step("page", "The page of evidence"),
        step("release", "Roll it out", undo="the rollout's own way back"),
    ], at, by="mlops3", started=at - 118, params={"project": "flights"})
    return view, {("190", "train"): points}


def _loss(at: int, floor: float) -> float:
    return floor + (0.693 - floor) * math.exp(-at / 22) + 0.004 * math.sin(at * 1.7) * math.exp(-at / 40)


def releasing(at: float) -> tuple[wire.RunView, wire.Page]:
    """Run 191, which waits for the approval of its release, and its page."""
    gate = wire.Gate("approval", "c0ffee09c2d3e4b5", "Release flights-late version 9 to flights?",
                     approvals_needed=1, approvals=[], roles=["approver"], not_initiator=True, since=at - 240,
                     expires=at + 6 * 86400, alone=["approver"], authors=["mlops2", "mlops3"],
                     written="written by Mia Lopes <mia@example.org> (mlops2), 3 commits, the newest "
                             "4be1c0ffee09; mlops3 <m3@example.org> (mlops3), commit 9d0c2f3a8b71")
    took = {"tests": 21.4, "data": 6.2, "train": 96.0, "evaluate": 6.7, "robustness": 1.6, "compare": 11.5,
            "register": 4.9, "staging": 3.1, "page": 1.3}
    titles = {"tests": "The project's own tests", "data": "The data against what is expected",
              "train": "Training", "evaluate": "Evaluation on held-out rows",
              "robustness": "Hard cases and disturbances", "compare": "Comparison with production",
              "register": "Registration", "staging": "Staging and smoke tests",
              "page": "The page of evidence"}
    said = {"evaluate": "log_loss 0.3644, between 0.3463 and 0.3845\n", "compare": "all 5 gates are passed\n",
            "register": "registered as flights-late version 9\n", "page": f"{VERDICT}\n"}
    steps, end = [], at - 240 - sum(took.values())
    for name, title in titles.items():
        end += took[name]
        steps.append(done(name, title, end, took[name], effect="idempotent",
                          command=f"pipeline.{name} flights", stdout=said.get(name, "")))
    steps.append(step(
        "release", "Release it to production", "waiting", gate=gate, effect="idempotent",
        command="pipeline.release flights version 9 to flights, manifest cb888761c4be",
        undo="the rollout that it starts goes back by itself when the new version is worse, or by an abort",
        preview=wire.Preview("champion 100 %; challenger is version 7",
                             "challenger is version 9; start-rollout moves the traffic to it, with its own "
                             "approvals; then it is the champion", at - 1, {"champion": 100})))
    view = run("191", "train-and-release", "From data to a release", "waiting", steps, at, by="mlops3",
               started=at - 420, params={"project": "flights"}, next="1 approver, not mlops3")
    return view, wire.Page(run="191", at=at - 240, verdict=VERDICT, text=PAGE,
                           html="/var/lib/opsdeck/pipelines/flights/evidence.html")


VERDICT = "flights-late version 9 may be released: every check that was made has passed."
PAGE = f"""# Evidence for Late arrivals of flights out of New York, run 191

**✔ {VERDICT}**

To be known:

- The hard case gale-jfk is known to fail: Scores are at least 0.15: not so in 29 of 29 rows.
- Too small to conclude from: carrier=AS, carrier=F9, carrier=HA.

## What changed

| What | Which |
|---|---|
| Commit | 4f1c2a9b8d7e |
| Uncommitted | nothing |
| Data | derived:flights, 67315b83e5a9 |

| Parameter | Champion | This one |
|---|---|---|
| max\\_iter | 100 | 200 |
| learning\\_rate | 0.1 | 0.05 |

## How good it is

On 12,836 held-out rows in 18 segments: log\\_loss 0.3644, between 0.3463 and 0.3845 (95%).

| Metric | Better | This one | Interval | Champion | Gain | Interval of the gain |
|---|---|---:|---:|---:|---:|---:|
| log\\_loss | lower | 0.3644 | 0.3463 to 0.3845 | 0.3703 | +0.0059 | +0.0021 to +0.0111 |
| roc\\_auc | higher | 0.7279 | 0.7055 to 0.7497 | 0.7259 | +0.0019 | -0.0051 to +0.0101 |
| brier | lower | 0.1093 | 0.1027 to 0.1172 | 0.1118 | +0.0025 | +0.0011 to +0.0044 |

## Against the model in production

✔ The challenger passes all 5 gates against the champion on the same 12,836 rows.

| Gate | Verdict | Why |
|---|---|---|
| log\\_loss not worse by 0.005 | passed | Shown: better by 0.0059, at least by 0.0021. |
| latency p99 | passed | The challenger's p99 is 0.92 ms over 2,000 requests; 50 ms are allowed. |

## What a release does

It lays version 9 out for the challenger of flights and starts start-rollout, which moves the traffic in steps
and goes back by itself when the new version is worse.
"""
