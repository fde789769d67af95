"""The commands as people and CI type them, against a real daemon.

`command` is a process of its own; `opsdeck` calls the same entry point in this one, to save time.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from engine import home as homes
from engine.api import wire
from engine.api.light import Client, connect
from engine.cli.main import VERBS, main
from engine.cli.status import lines
from engine.cli.text import plain
from engine.daemon import lifecycle
from tests.daemon.opsdeck_in_memory import PROGRAM

Opsdeck = Callable[..., subprocess.CompletedProcess[str]]


def command(*words: str, home: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **env}
    environ.pop("OPSDECK_HOME", None)
    if home is not None:
        environ["OPSDECK_HOME"] = str(home)
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, env=environ,
                          stdin=subprocess.DEVNULL, timeout=60)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The home of an engine that `opsdeck engine start` started."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "home"
        started = command("engine", "start", home=path)
        assert started.returncode == 0, started.stderr
        yield path
        lifecycle.stop(homes.at(path), timeout=10, force=True)


@pytest.fixture
def client(home: Path) -> Client:
    return connect(homes.at(home))


@pytest.fixture
def opsdeck(home: Path) -> Opsdeck:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--home", str(home), *words])
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return run


def test_the_version_is_told_without_an_engine() -> None:
    assert command("--version").stdout == "opsdeck 0.1.0\n"


def test_help_lists_every_verb_and_each_verb_has_an_example(opsdeck: Opsdeck) -> None:
    listed = opsdeck("help")
    assert listed.returncode == 0
    assert all(f"\n  {verb} " in listed.stdout for verb in VERBS)
    for verb in VERBS:
        for told in (opsdeck("help", verb), opsdeck(verb, "--help")):
            assert told.returncode == 0
            assert f"  opsdeck {verb}" in told.stdout.partition("\nexample")[2]


def test_an_unknown_verb_names_the_nearest() -> None:
    done = command("stauts")
    assert done.returncode == 2
    assert "did you mean `status`?" in done.stderr


@pytest.mark.parametrize("words", [
    ("status", "--jsno"), ("runs", "--state", "asleep"), ("confirm",), ("engine",), ("--home",),
    ("skip", "1", "drain"), ("timeline", "1", "--format", "pdf")])
def test_a_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_without_an_engine_a_command_exits_with_7_and_says_how_to_start_one(tmp_path: Path) -> None:
    for words in (("status",), ("runs", "--json"), ("abort", "3"), ("handover",)):
        done = command(*words, home=tmp_path)
        assert done.returncode == 7
        assert "opsdeck engine start" in done.stderr
        assert done.stdout == ""


def test_engine_status_says_how_it_is_in_words_and_as_json(opsdeck: Opsdeck, home: Path,
                                                           tmp_path: Path) -> None:
    found = json.loads(opsdeck("engine", "status", "--json").stdout)
    assert found == {"pid": found["pid"], "socket": str(home / "engine.sock"), "version": "0.1.0",
                     "state": "serving"}
    assert f"the engine is serving: pid {found['pid']}" in opsdeck("engine", "status").stdout
    away = command("engine", "status", "--json", home=tmp_path)
    assert (away.returncode, json.loads(away.stdout)["state"]) == (7, "stopped")
    again = command("engine", "start", home=home)
    assert (again.returncode, "already runs" in again.stdout) == (0, True)


def test_stop_without_an_engine_is_no_error(tmp_path: Path) -> None:
    done = command("engine", "stop", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "no engine runs in this home\n")


def test_home_may_stand_before_and_after_the_verb(home: Path) -> None:
    for words in (("--home", str(home), "status", "--json"), ("status", "--json", f"--home={home}"),
                  (f"--home={home}", "status", "--json")):
        assert json.loads(command(*words).stdout)["services"][0]["name"] == "flights"


@pytest.mark.parametrize("words", [("engine", "status", "--json", "--home"), ("config", "check", "--home"),
                                   ("audit", "verify", "--json", "--home")])
def test_home_may_stand_after_a_second_word(home: Path, words: tuple[str, ...],
                                            capsys: pytest.CaptureFixture[str]) -> None:
    main([*words, str(home)])
    said = capsys.readouterr()
    assert str(home) in said.out + said.err and "unrecognized" not in said.err


def test_status_is_the_json_that_is_promised(opsdeck: Opsdeck) -> None:
    status = json.loads(opsdeck("status", "--json").stdout)
    assert {"at", "services"} <= set(status)
    service = status["services"][0]
    assert {"name", "age_s", "alerts", "drift", "rollout", "waiting", "variants"} <= set(service)
    assert {"name", "version", "weight", "rps", "p50_ms", "p95_ms", "p99_ms", "errors",
            "stale"} <= set(service["variants"][0])


def test_status_says_what_is_wrong_by_glyph_and_word(opsdeck: Opsdeck) -> None:
    text = opsdeck("status").stdout
    row = next(line for line in text.splitlines() if "flights " in line)
    assert row.startswith("▲")
    assert row.endswith("page")
    assert "7 ▸ 8" in row
    assert "212! " in row
    assert "95/5" in row
    assert "try runbook high-latency" in text


def test_a_signal_over_its_limit_is_marked_before_it_alerts() -> None:
    slow = wire.Service("flights", 0.1, [], None, None, 0, [wire.Variant(
        "champion", "7", 100.0, 48.2, 11.0, 38.0, 212.0, {}, stale=False)], {"p99_ms": 150.0},
        p99_ms=212.0, error_ratio=0.0)
    row = lines(wire.Status(0.0, [slow]), colour=False)[1]
    assert "  212! " in row
    assert row.endswith("over limit")


def test_the_version_is_that_of_the_variants_with_traffic_or_of_all_where_no_weight_is_known() -> None:
    def row(champion: float | None, challenger: float | None) -> str:
        variants = [wire.Variant(name, version, weight, 1.0, 1.0, 1.0, 1.0, {}, stale=False) for
                    name, version, weight in (("champion", "7", champion), ("challenger", "8", challenger))]
        found = wire.Status(0.0, [wire.Service("flights", 0.1, [], None, None, 0, variants)])
        return " ".join(lines(found, colour=False)[1].split()[2:6])

    assert row(100.0, 0.0).startswith("7 100 ")
    assert row(5.0, 95.0) == "8 ▸ 7 95/5"
    assert row(None, None).startswith("7 ▸ 8 -")


def test_status_tells_of_a_rollout_that_runs() -> None:
    found = {"run": "41", "weight": 5.0, "step": 3, "steps": 12, "state": "waiting", "verdict": "undecided",
             "waits": True}
    row = wire.Service("flights", 0.1, [], None, found, 0, [])
    text = "\n".join(lines(wire.Status(0.0, [row]), colour=False))
    assert ("flights: rollout 41 at 5 %, step 3 of 12, undecided, waits for a person; see `opsdeck rollout "
            "flights`") in text
    row.rollout = found | {"weight": None, "waits": False}
    assert "rollout 41 at an unknown weight, step 3 of 12, undecided;" in "\n".join(
        lines(wire.Status(0.0, [row]), colour=False))


def test_lines_from_elsewhere_are_folded_into_one() -> None:
    assert plain("no gateway.\n  Give it one.\x1b[2J") == "no gateway. Give it one.\ufffd[2J"
    assert plain("a\nb", keep="\n") == "a\nb"


def test_nothing_is_coloured_where_no_terminal_is(home: Path) -> None:
    assert "\x1b" not in command("status", home=home, TERM="xterm-256color").stdout


def test_a_run_is_shown_as_text_and_as_the_json_that_is_promised(opsdeck: Opsdeck,
                                                                 client: Client) -> None:
    run = client.start_run(wire.StartRun("ask", {"service": "flights"})).id
    view = json.loads(opsdeck("show", run, "--json").stdout)
    assert {"id", "procedure", "state", "steps"} <= set(view)
    assert {"id", "state", "attempt", "exit_code", "stdout", "result", "by", "started",
            "ended"} <= set(view["steps"][0])
    text = opsdeck("show", run).stdout
    assert "◆ waiting" in text
    assert "trafficctl set champion=100" in text
    assert "undo       trafficctl undo" in text
    assert "with service=flights" in text
    assert f"answer     `opsdeck confirm {run} drain`" in text
    assert text.splitlines()[-1] == "next: step drain waits for you"
    missing = opsdeck("show", "9999")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "there is no run 9999" in missing.stderr


def test_runs_lists_the_newest_first_and_filters(opsdeck: Opsdeck, client: Client) -> None:
    first = client.start_run(wire.StartRun("ask")).id
    second = client.start_run(wire.StartRun("vote")).id
    client.act(first, "abort", wire.Act())
    ids = [r["id"] for r in json.loads(opsdeck("runs", "--json").stdout)["runs"]]
    assert ids.index(second) < ids.index(first)
    aborted = json.loads(opsdeck("runs", "--json", "--state", "aborted").stdout)["runs"]
    assert first in [r["id"] for r in aborted]
    assert second not in [r["id"] for r in aborted]
    assert "■" in opsdeck("runs").stdout


@pytest.mark.parametrize(("kind", "words", "state"), [
    ("ask", ("confirm", "RUN", "drain"), "done"), ("ask", ("confirm", "RUN"), "done"),
    ("type", ("confirm", "RUN", "drain", "flights"), "done"),
    ("type", ("confirm", "RUN", "flights"), "done"),
    ("vote", ("approve", "RUN", "drain"), "done"),
    ("vote", ("approve", "RUN", "drain", "--break-glass", "down"), None),
    ("vote", ("reject", "RUN", "--reason", "wrong service"), "failed"),
    ("say", ("answer", "RUN", "drain", "yes, 212 ms"), "done"),
    ("say", ("answer", "RUN", "yes, 212 ms"), "done"),
    ("lost", ("settle", "RUN", "drain", "not-done"), "done"),
    ("lost", ("settle", "RUN", "done"), "done"), ("broken", ("retry", "RUN", "drain"), "done"),
    ("broken", ("skip", "RUN", "drain", "--reason", "called them"), "done"),
    ("ask", ("pause", "RUN"), "paused"), ("ask", ("resume", "RUN"), "waiting"),
    ("ask", ("abort", "RUN"), "aborted"), ("ask", ("abort", "RUN", "--rollback"), "rolled_back")])
def test_each_verb_on_a_run(opsdeck: Opsdeck, client: Client, kind: str, words: tuple[str, ...],
                            state: str | None) -> None:
    run = client.start_run(wire.StartRun(kind)).id
    done = opsdeck(*(run if word == "RUN" else word for word in words), "--json")
    if state is None:
        assert done.returncode == 8
        assert "break-glass" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == state


@pytest.mark.parametrize(("kind", "verb"), [("ask", "confirm"), ("vote", "approve")])
def test_the_second_of_two_answers_hears_how_the_step_stands(opsdeck: Opsdeck, client: Client, kind: str,
                                                             verb: str) -> None:
    run = client.start_run(wire.StartRun(kind)).id
    assert opsdeck(verb, run, "drain").returncode == 0
    again = opsdeck(verb, run, "drain")
    assert again.returncode == 1
    assert f"step drain of run {run} waits for nothing now: it is done" in again.stderr


def test_no_run_in_a_state_is_not_no_run_at_all(tmp_path: Path) -> None:
    assert command("engine", "start", home=tmp_path).returncode == 0
    try:
        assert command("runs", home=tmp_path).stdout.startswith("no runs yet")
        filtered = command("runs", "--state", "rolled_back", "--state", "waiting", home=tmp_path).stdout
    finally:
        lifecycle.stop(homes.at(tmp_path), timeout=10, force=True)
    assert filtered == "no run is rolled back or waiting\n"


def test_a_verb_shows_what_it_was_bound_to(opsdeck: Opsdeck, client: Client) -> None:
    view = client.start_run(wire.StartRun("vote"))
    gate = view.steps[1].gate
    assert gate is not None
    text = opsdeck("approve", view.id).stdout
    for told in ("trafficctl set champion=100", "champion 95 %", "champion 100 %", "trafficctl undo",
                 gate.digest):
        assert told in text


def test_a_digest_that_was_seen_before_must_still_hold(opsdeck: Opsdeck, client: Client) -> None:
    view = client.start_run(wire.StartRun("ask"))
    gate = view.steps[1].gate
    assert gate is not None
    stale = opsdeck("confirm", view.id, "--digest", "deadbeef")
    assert stale.returncode == 1
    assert "no longer what you saw" in stale.stderr
    assert client.run(view.id).state == "waiting"
    assert opsdeck("confirm", view.id, "--digest", gate.digest[:8]).returncode == 0


@pytest.mark.parametrize(("kind", "words", "code", "says"), [
    ("type", ("confirm", "RUN", "drain"), 2, "wants the text 'flights'"),
    ("ask", ("confirm", "RUN", "drian"), 1, None), ("vote", ("confirm", "RUN"), 1, "no step of run"),
    ("lost", ("settle", "RUN", "drain", "perhaps"), 2, "done or not-done"),
    ("ask", ("approve", "RUN", "drain", "please"), 2, "approve takes RUN STEP"),
    ("vote", ("approve", "RUN", "nil"), 2, "has no step 'nil'")])
def test_a_verb_that_does_not_fit_changes_nothing(opsdeck: Opsdeck, client: Client, kind: str,
                                                  words: tuple[str, ...], code: int,
                                                  says: str | None) -> None:
    run = client.start_run(wire.StartRun(kind)).id
    done = opsdeck(*(run if word == "RUN" else word for word in words))
    if says is not None:
        assert done.returncode == code, done.stdout
        assert says in done.stderr
        assert client.run(run).state == "waiting"


def test_the_output_of_a_step_is_printed_whole(opsdeck: Opsdeck, client: Client) -> None:
    run = client.start_run(wire.StartRun("ask")).id
    assert opsdeck("show", run, "--output", "drain").stdout == ""
    assert opsdeck("show", run, "--output", "drain").returncode == 0


def test_a_timeline_is_markdown_that_nothing_breaks_out_of(opsdeck: Opsdeck,
                                                           client: Client) -> None:
    run = client.start_run(wire.StartRun("ask")).id
    text = opsdeck("timeline", run, "--format", "md").stdout
    assert text.startswith(f"# Run {run}: ")
    assert "started \\| by \\<b\\>hand\\</b\\>" in text
    assert json.loads(opsdeck("timeline", run, "--format", "json").stdout)["events"][0]["kind"] == (
        "run.started")


def test_a_handover_tells_what_fires_and_what_waits(opsdeck: Opsdeck, client: Client) -> None:
    run = client.start_run(wire.StartRun("ask")).id
    text = opsdeck("handover").stdout
    assert "▲ page  flights: p99 212 ms" in text
    assert f"run {run} ask of flights, step drain" in text
    assert "○ fraud" in text
    assert json.loads(opsdeck("handover", "--json").stdout)["stale"] == ["fraud"]


def test_the_library_is_listed_and_told(opsdeck: Opsdeck) -> None:
    assert "Try ask" in opsdeck("library").stdout
    assert json.loads(opsdeck("library", "vote", "--json").stdout)["id"] == "vote"
    assert opsdeck("library", "nil").returncode == 2


def test_the_console_wants_a_terminal_and_says_what_does_not(opsdeck: Opsdeck) -> None:
    done = opsdeck()
    assert done.returncode == 2
    assert "opsdeck status" in done.stderr


def test_an_unexpected_error_is_one_sentence_and_its_traceback_goes_to_the_log(
        tmp_path: Path) -> None:
    code = ("import sys; from engine.cli import main, runs\n"
            "runs.run = lambda args: 1 / 0\n"
            "sys.exit(main.main(['--home', sys.argv[1], 'runs', '--limit', '3']))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True,
                          text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "an error of its own (ZeroDivisionError)" in done.stderr
    log = (tmp_path / "opsdeck.log").read_text()
    assert "ZeroDivisionError: division by zero" in log
    assert str(tmp_path / "opsdeck.log") in done.stderr


def test_output_that_cannot_be_written_is_a_sentence(home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, "--home", str(home), "status"], stdout=full, text=True,
                              stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "the output cannot be written: No space left on device\n"


def test_a_home_that_is_a_file_is_told_apart_from_one_without_an_engine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("status", home=tmp_path / "file")
    assert done.returncode == 2
    assert "is not a directory" in done.stderr


def test_an_option_may_stand_before_the_kind_of_fault(tmp_path: Path) -> None:
    done = command("demo", "fault", "--variant", "champion", "latency", home=tmp_path)
    assert "there is no demo in" in done.stderr


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    done = subprocess.run(["sh", "-c", '"$@" | true', "sh", *PROGRAM, "--home", str(home), "help"],
                          capture_output=True, text=True)
    assert done.stderr == ""


def test_config_example_checks_clean_and_show_says_where_each_value_is_from(tmp_path: Path) -> None:
    example = tmp_path / "opsdeck.yaml"
    example.write_text(command("config", "example").stdout)
    assert command("config", "check", str(example)).returncode == 0
    shown = command("config", "show", home=tmp_path).stdout
    line = next(x for x in shown.splitlines() if x.startswith("engine.window "))
    written = next(n for n, x in enumerate(example.read_text().splitlines(), 1) if "  window:" in x)
    assert line.split()[1:] == [f"{example}:{written}", "60.0"]
    assert json.loads(command("config", "show", "--json", home=tmp_path).stdout)["exists"]
    example.write_text("engin: {}\n")
    bad = command("config", "check", home=tmp_path)
    assert bad.returncode == 2
    assert f"{example}:1: unknown key `engin`" in bad.stderr
    problems = json.loads(command("config", "check", "--json", home=tmp_path).stdout)["problems"]
    assert (problems[0]["line"], problems[0]["level"]) == (1, "error")


def test_a_config_that_is_valid_but_means_nothing_here_is_good_with_warnings(tmp_path: Path) -> None:
    path = tmp_path / "opsdeck.yaml"
    path.write_text("policy: {rules: [{action: traffic.shfit}]}\n")
    done = command("config", "check", str(path))
    assert done.returncode == 0
    assert f"{path}:1: warning: there is no action `traffic.shfit`" in done.stdout
    assert f"{path} is good, but for 1 warning\n" in done.stdout


def test_the_unit_names_the_command_and_holds_together(tmp_path: Path) -> None:
    import shutil

    unit = command("engine", "unit").stdout
    assert "Type=notify" in unit
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit.splitlines()
    assert "@" not in unit.split("ExecStart=")[1].splitlines()[0]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (Debian package systemd) to verify the unit")
    path = tmp_path / "opsdeck.service"
    lines = [f"ExecStart={sys.executable}" if line.startswith("ExecStart=") else line
             for line in unit.splitlines()]
    path.write_text("\n".join(lines).replace("=opsdeck\n", "=root\n"))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)],
                             capture_output=True, text=True)
    assert "opsdeck.service:" not in checked.stderr, checked.stderr
