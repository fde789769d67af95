"""Made-up procedures and runs, in every state and at every kind of gate, and how acts change them."""

from __future__ import annotations

from typing import Any, Literal

from engine.api import wire
from engine.errors import Conflict, NotFound

Effect = Literal["none", "idempotent", "once"]
ENDED = ("done", "failed", "rolled_back", "aborted")
OUTPUT = "".join(f"{i:>4} of 8000 rows scored, batch digest 9f3c{i:04x}\n" for i in range(1, 181))


def step(id: str, title: str, state: wire.StepState = "planned", **more: Any) -> wire.StepView:
    fields: dict[str, Any] = {"attempt": 0 if state == "planned" else 1, "exit_code": None,
                              "stdout": "", "result": None, "by": None, "started": None,
                              "ended": None, "kind": "action"}
    return wire.StepView(id=id, title=title, state=state, **{**fields, **more})


def done(id: str, title: str, at: float, took: float, **more: Any) -> wire.StepView:
    return step(id, title, "done", started=at - took, ended=at, exit_code=0, by="oncall1", **more)


def run(id: str, procedure: str, title: str, state: wire.RunState, steps: list[wire.StepView],
        at: float, *, service: str | None = None, by: str = "oncall1", ended: float | None = None,
        next: str | None = None, **more: Any) -> wire.RunView:
    return wire.RunView(id=id, procedure=procedure, state=state, steps=steps, title=title, by=by,
                        started=more.pop("started", at - 147), ended=ended, at=at,
                        params=more.pop("params", {"service": service} if service else {}),
                        service=service, revision=7, unisolated=False, review=None, next=next,
                        document_sha256="6c1f" * 16, **more)


def runs(at: float) -> list[wire.RunView]:
    """One run for each state and each kind of gate, newest first."""
    return [_typed(at), _output(at), _approval(at), _answer(at), _settle(at), _failed(at),
            _confirm(at), *_ended(at)]


def _typed(at: float) -> wire.RunView:
    gate = wire.Gate("typed", "a41f09c2d3e4b5f6", "Send all traffic of flights to the champion?",
                     expected="flights", since=at - 91)
    return run("184", "rollback-model", "Roll a service back to the version before", "waiting", [
        done("look", "Read the current weights", at - 146, 0.1, effect="none",
             command="traffic.read flights", stdout="champion=95 challenger=5\n",
             result={"weights": {"champion": 95, "challenger": 5}}),
        done("notify", "Tell the model's owner", at - 145, 0.4,
             command="notify https://hooks.example/ml", stdout="200 OK from hooks.example 380 ms\n"),
        step("drain", "Send all traffic to the champion", "waiting", effect="idempotent",
             command="traffic.shift flights champion=100 challenger=0", undo="restores 95/5",
             gate=gate, preview=wire.Preview("champion 95 %, challenger 5 %",
                                             "champion 100 %, challenger 0 %", at - 1,
                                             {"champion": 95, "challenger": 5})),
        step("watch", "Watch p99 for two minutes", kind="manual", effect="none"),
        step("verify", "p99 < 150 ms for 60 s", effect="none"),
    ], at, service="flights", next="type flights to run drain",
        params={"service": "flights", "reason": "incident: canary p99 212 ms"})


def _output(at: float) -> wire.RunView:
    return run("183", "demo-setup", "Set up the demo", "running", [
        done("data", "Read the flights of 2013", at - 60, 2.1, effect="idempotent", kind="shell"),
        done("train", "Train on January to March", at - 42, 9.4, effect="idempotent", kind="shell"),
        step("register", "Log and register in MLflow", "intent", started=at - 42, by="oncall1",
             kind="shell", effect="once", stdout=OUTPUT, output_bytes=len(OUTPUT),
             command="python -m engine.demo.register --home /var/lib/opsdeck --name flights "
                     "--alias champion --from /var/lib/opsdeck/work/model-2f1c.onnx",
             irreversible="a registered version stays registered"),
        step("servers", "Start the model servers"), step("gateway", "Start the gateway"),
        step("traffic", "Start the traffic"),
    ], at, next=None)


def _approval(at: float) -> wire.RunView:
    gate = wire.Gate("approval", "b77c09c2d3e4b5f6", "Give search-rank 13 half of the traffic?",
                     approvals_needed=2, approvals=["oncall2"], roles=["approver"],
                     not_initiator=True, since=at - 240, expires=at + 1560, alone=["approver"])
    return run("182", "promote", "Promote a canary", "waiting", [
        done("check", "Look for open alerts", at - 300, 0.2, effect="none"),
        step("shift", "Give the canary 50 %", "waiting", gate=gate, effect="idempotent",
             command="traffic.shift search-rank champion=50 challenger=50",
             undo="restores 75/25", preview=wire.Preview(
                 "champion 75 %, challenger 25 %", "champion 50 %, challenger 50 %", at - 2,
                 {"champion": 75})),
        step("verify", "p99 < 40 ms for 5 min", effect="none"),
    ], at, service="search-rank", by="mlops3", started=at - 300,
        next="1 more approver, not mlops3")


def _answer(at: float) -> wire.RunView:
    gate = wire.Gate("answer", "c11c09c2d3e4b5f6",
                     "Is p99 of pricing back under 35 ms on the dashboard? Say what you see.",
                     since=at - 33)
    return run("181", "error-spike", "Find what the errors are", "waiting", [
        done("errors", "Count errors by type", at - 80, 0.3, effect="none",
             stdout="invalid_input 3.1/s\ntimeout       0.6/s\n"),
        step("watch", "Look at the dashboard", "waiting", kind="manual", gate=gate, effect="none"),
    ], at, service="pricing", next="answer: is p99 of pricing back under 35 ms?")


def _settle(at: float) -> wire.RunView:
    gate = wire.Gate("settle", "d22c09c2d3e4b5f6",
                     "The engine lost the connection while restart ran. Was eta restarted?",
                     since=at - 610)
    return run("180", "restart-server", "Restart a model server", "waiting", [
        done("look", "Is the server alive", at - 640, 0.1, effect="none"),
        step("restart", "Restart eta's champion", "unknown", started=at - 630, by="oncall1",
             command="service.restart eta/champion", gate=gate, effect="once",
             irreversible="a restart cannot be undone", error="the connection was lost after 12 s",
             stdout="stopping pid 2211 …\nstopped\nstarting …\n"),
        step("ready", "Wait until it answers", effect="none"),
    ], at, service="eta", next="say whether restart was done", started=at - 641)


def _failed(at: float) -> wire.RunView:
    gate = wire.Gate("failed", "e33c09c2d3e4b5f6", "evaluate failed with exit code 3.", since=at - 900)
    return run("179", "nightly-train", "Train, evaluate, register", "waiting", [
        done("train", "Train on the last 90 days", at - 1800, 721.0, kind="shell"),
        step("evaluate", "Evaluate on last week", "failed", started=at - 960, ended=at - 900,
             exit_code=3, kind="shell", skippable=True, effect="idempotent", attempt=2,
             command="python -m train.evaluate --since 7d --naïve-baseline",
             error="AUC 0.702 is below 0.75", gate=gate,
             stdout="loading 1,204,113 rows …\nAUC 0.702  (champion 0.761)\nΔ −0.059 ⇒ refused\n"
                    "café au lait is not a service\n"),
        step("register", "Register the model"),
    ], at, service="demand-48h", by="ci", next="retry or skip evaluate", started=at - 2521)


def _confirm(at: float) -> wire.RunView:
    gate = wire.Gate("confirm", "f44c09c2d3e4b5f6", "Take the challenger of eta out?", since=at - 12)
    return run("178", "drain-variant", "Drain a variant", "waiting", [
        step("drain", "Take the challenger out", "waiting", gate=gate, effect="idempotent",
             command="traffic.shift eta champion=100", undo="restores 90/10",
             preview=wire.Preview("champion 90 %, challenger 10 %", "champion 100 %", at - 1,
                                  {"champion": 90})),
    ], at, service="eta", next="say yes to drain", started=at - 14)


def _ended(at: float) -> list[wire.RunView]:
    def small(id: str, state: wire.RunState, last: wire.StepState, **more: Any) -> wire.RunView:
        started = at - 3600.0 * (179 - int(id))
        steps = [done("look", "Read the current weights", started + 1, 0.2, effect="none"),
                 step("act", "Restart the champion", last, started=started + 2, ended=started + 9,
                      kind="shell", exit_code=1 if last == "failed" else 0,
                      command="systemctl restart model@champion",
                      error="exit code 1: unit not found" if last == "failed" else None)]
        return run(id, "restart-server", "Restart a model server", state, steps, at,
                   service="churn", started=started, ended=started + 9, **more)

    paused = run("177", "high-latency", "Find and fix high latency", "paused", [
        done("look", "Read the current weights", at - 400, 0.2, effect="none"),
        step("drain", "Take half of the traffic off"),
    ], at, service="chat-intent", by="oncall2", next="resume it", started=at - 420)
    return [paused, small("176", "done", "done"), small("175", "failed", "failed",
                                                        reason="act failed: exit code 1"),
            small("174", "rolled_back", "undone", reason="act failed: exit code 1"),
            small("173", "aborted", "skipped", reason="oncall2 aborted it"),
            small("172", "done", "done", dry_run=True)]


def summary(view: wire.RunView) -> wire.RunSummary:
    waiting = next((s.id for s in view.steps if s.gate is not None), None)
    return wire.RunSummary(
        id=view.id, procedure=view.procedure, title=view.title, state=view.state, by=view.by,
        started=view.started, ended=view.ended, service=view.service,
        steps_done=sum(s.state in ("done", "skipped", "undone") for s in view.steps),
        steps_total=len(view.steps), next=view.next, step=waiting, dry_run=view.dry_run)


def waiting(views: dict[str, wire.RunView]) -> list[wire.Waiting]:
    return [wire.Waiting(view.id, view.procedure, s.id, view.service, s.gate.kind, s.gate.prompt,
                         s.gate.since or view.started,
                         may=not (s.gate.not_initiator and view.by == "oncall1"),
                         expires=s.gate.expires)
            for view in views.values() for s in view.steps if s.gate is not None]


def advance(views: dict[str, wire.RunView], at: float) -> None:
    for view in views.values():
        if view.state not in ENDED:
            view.at = at


def act(views: dict[str, wire.RunView], id: str, verb: str, body: wire.Act, at: float) -> wire.RunView:
    """Change a run as an engine would. Raises NotFound, and Conflict when the digest is another."""
    view = views.get(id)
    if view is None:
        raise NotFound(f"there is no run {id}", hint="see `:runs`")
    view.revision += 1
    view.at = at
    if verb == "abort":
        view.state, view.ended, view.next = "rolled_back" if body.rollback else "aborted", at, None
        for s in view.steps:
            s.gate = None
        return view
    if verb in ("pause", "resume"):
        view.state = "paused" if verb == "pause" else "running"
        return view
    if verb in ("promote", "promote-full"):
        for s in view.steps:
            if s.state == "intent" or (verb == "promote-full" and s.id.startswith(("watch", "bake"))):
                s.state, s.ended, s.by = "done", at, "oncall1"
        return view
    current = next((s for s in view.steps if s.id == body.step and s.gate is not None), None)
    if current is None or current.gate is None:
        raise Conflict(f"step {body.step} of run {id} waits for nothing now")
    if current.gate.digest != body.digest:
        raise Conflict(f"step {body.step} is not what was shown any more")
    if verb == "reject":
        current.state, view.state, view.ended = "failed", "failed", at
        current.error = view.reason = f"oncall1 rejected it: {body.reason or ''}"
    else:
        current.state = "skipped" if verb == "skip" else "done"
        current.started, current.ended, current.by, current.reason = at - 0.3, at, "oncall1", body.reason
        view.state = "running"
    current.gate, view.next = None, None
    if all(s.state in ("done", "skipped") for s in view.steps):
        view.state, view.ended = "done", at
    return view


def library() -> list[wire.Procedure]:
    """Six runbooks and two others; one review is overdue, one document has a problem."""
    service = wire.Param("service", "string", True, None, "Service to look after", "^[a-z0-9-]+$")
    weight = wire.Param("weight", "integer", False, 10, "Percent for the challenger", None, 0, 100)
    reason = wire.Param("reason", "string", False, "", "What it is for; the journal keeps it")
    entries: tuple[tuple[str, str, list[str], list[wire.Param]], ...] = (
        ("high-latency", "Find and fix high latency", ["p99_ms", "p95_ms"], [service, reason]),
        ("rollback-model", "Roll a service back to the version before", ["p99_ms"],
         [service, weight, reason]),
        ("error-spike", "Find what the errors are", ["error_ratio"], [service]),
        ("restart-server", "Restart a model server", [], [
            service, wire.Param("variant", "string", True, None, "Which one", None, None, None,
                                ["champion", "challenger"])]),
        ("drain-variant", "Drain a variant", [], [service]),
        ("gateway-down", "Bring the gateway back", ["age_s"], [
            wire.Param("force", "boolean", False, False, "Kill it first if it does not answer"),
            wire.Param("token", "secret", False, None, "Reference such as env:GATEWAY_TOKEN")]),
        ("demo-setup", "Set up the demo", [], []),
        ("nightly-train", "Train, evaluate, register", [], [service]))
    return [_procedure(id, title, alerts, params) for id, title, alerts, params in entries]


def _procedure(id: str, title: str, alerts: list[str], params: list[wire.Param]) -> wire.Procedure:
    pipeline = id in ("demo-setup", "nightly-train")
    return wire.Procedure(
        id=id, title=title, kind="pipeline" if pipeline else "runbook", owner="ml-platform",
        contacts=[{"name": "ML platform on call", "via": "pagerduty:ml-platform"},
                  {"name": "Flights team", "via": "chat:#flights-ml"}],
        reviewed="2026-05-02" if id == "gateway-down" else "2026-11-20",
        review="last reviewed 2026-05-02, 116 d overdue" if id == "gateway-down" else None,
        use_when="p99 of a service is over its limit and the champion was well before the canary.",
        good_after="p99 is back under its limit for ten minutes, and no request was lost.",
        for_alerts=alerts, params=params, sha256="6c1f" * 16, steps=[
            wire.StepOutline("look", "Read the current weights", "action",
                             "traffic.read ${{ params.service }}", "none", "none", 0, None),
            wire.StepOutline("drain", "Send all traffic to the champion", "action",
                             "traffic.shift ${{ params.service }} champion=100", "idempotent",
                             "typed", 0, "restores the weights before"),
            wire.StepOutline("watch", "Watch p99 for two minutes", "manual",
                             "Is p99 back under its limit?", "none", "none", 0, None)])


def rollout_library() -> list[wire.Procedure]:
    """The way back from a promotion, and a rollout."""
    params = [wire.Param("service", "string", True, None, "Service to look after", "^[a-z0-9-]+$"),
              wire.Param("to", "string", True, None, "The variant that gets the traffic"),
              wire.Param("reason", "string", False, "", "What it is for; the journal keeps it")]
    return [_procedure(id, title, [], params) for id, title in (
        ("rollback-after-promotion", "Go back to the version before a promotion"),
        ("rollout-flights", "Roll out a new version of flights"))]
