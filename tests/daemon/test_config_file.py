"""`opsdeck.yaml`: every problem at once, each at its line; the example is whole and valid."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine import config_file, located
from engine import home as homes
from engine.config import Config
from engine.config_doubts import doubts
from engine.config_file import EXAMPLE, SCHEMA, check, load, of_engine, settings
from engine.errors import DocumentError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "opsdeck.yaml"
    path.write_text(text)
    return path


def test_the_example_is_valid_and_names_every_key_there_is() -> None:
    config, problems = check(EXAMPLE)
    assert problems == []
    assert config is not None
    text = EXAMPLE.read_text()
    schema = json.loads(SCHEMA.read_text())
    keys = [key for part in (schema, *schema["$defs"].values()) for key in part["properties"]]
    assert [key for key in keys if f"{key}:" not in text] == []
    assert config.services["flights"].limits["p99_ms"].hold == 60.0


def test_the_shipped_schema_is_the_models() -> None:
    assert SCHEMA.read_text() == config_file.schema(), (
        "write it again: opsdeck config schema comes from engine/config_schema.json")
    assert set(json.loads(SCHEMA.read_text())["properties"]) == {
        "engine", "roles", "people", "policy", "services", "alerts", "pipelines", "drift", "triggers",
        "audiences"}


def test_every_problem_is_told_at_once_with_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([
        "engine:", "  windo: 60s", "  history: 7 days", "rols: {}", "services:", "  flights:",
        "    scrape: [ftp://x]", "    limits:", "      p98_ms: {above: 1}",
        "      p99_ms: {level: page}"]))
    config, problems = check(path)
    assert config is None
    text = "\n".join(str(p) for p in problems)
    assert f"{path}:2: unknown key `windo`" in text
    assert "did you mean `window`?" in text
    assert f"{path}:3:" in text
    assert f"{path}:4: unknown key `rols`" in text
    assert "did you mean `roles`?" in text
    assert "`p98_ms` cannot be a key here" in text
    with pytest.raises(DocumentError) as refused:
        load(path)
    assert refused.value.problems == [str(p) for p in problems]
    assert refused.value.exit_code == 2


def test_what_the_types_cannot_say_is_checked_too(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([
        "engine: {window: 0s}", "services:", "  flights:", "    scrape: [ftp://x]", "    limits:",
        "      p99_ms: {level: page}", "      rps: {above: 1, below: 2}"]))
    text = "\n".join(str(p) for p in check(path)[1])
    assert f"{path}:4: 'ftp://x' is not an HTTP address" in text
    assert f"{path}:6: the limit on p99_ms wants one of" in text
    assert f"{path}:7: the limit on rps wants one of" in text
    assert "`window` must be more than zero" in text


@pytest.mark.parametrize("text", ["", "# nothing\n\n  # yet\n", "roles:\nservices:\n"])
def test_a_file_that_says_nothing_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)) == Config()
    assert load(tmp_path / "missing.yaml") == Config()


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "engine: {\n", "a: 1\n---\nb: 2\n",
                                  "engine: !!python/object:os.system {}\n"])
def test_what_is_no_config_is_a_problem_and_never_an_exception(tmp_path: Path, text: str) -> None:
    config, problems = check(written(tmp_path, text))
    assert config is None
    assert problems


@pytest.mark.parametrize("data", [b"\xff\xfe" + "roles: {}".encode("utf-16-le"), b"\x89PNG\r\n\x1a\n\xe2",
                                  b"\x7fELF\x02\x01\xc0\xff", b"# notes\n\xff\xff\n"])
def test_what_is_not_text_is_refused_rather_than_taken_for_the_defaults(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "opsdeck.yaml"
    path.write_bytes(data)
    with pytest.raises(DocumentError) as refused:
        load(path)
    assert "UTF-8" in "".join(refused.value.problems)


def test_an_address_that_is_not_one_is_told_wherever_it_stands(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([
        "services:", "  flights:", "    gateway: {admin: /run/a.sock, url: zzz}", "    processes:",
        "      champion: {command: [x], ready: foo}", "alerts: {webhooks: {page: 'ftp://x'}}"]))
    lines = [(problem.line, problem.message) for problem in check(path)[1]]
    assert lines == [(3, "'zzz' is not an HTTP address"), (5, "'foo' is not an HTTP address"),
                     (6, "'ftp://x' is not an HTTP address")]


def test_names_that_nothing_here_has_are_warned_of_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([
        "roles: {admin: {users: [root, no-such-user-xyz], groups: [root, no-such-group]}}", "policy:",
        "  rules:", "    - {action: traffic.shfit}", "    - {action: 'traffic.*', service: flihgts}",
        "    - {action: '*', service: 'fl*'}", "engine: {library: [missing, .]}", "services:",
        "  flights: {limits: {p99_ms: {above: 1, runbooks: [high-latency, nope]}}}"]))
    config, problems = check(path)
    assert config is not None and not problems
    found = doubts(config, located.load(path), actions=["traffic.shift", "shell"],
                   procedures=["high-latency"])
    assert [(each.line, each.level) for each in found] == [
        (1, "warning"), (1, "warning"), (4, "warning"), (5, "warning"), (7, "warning"), (9, "warning")]
    text = "\n".join(map(str, found))
    for told in ("no user `no-such-user-xyz`", "no group `no-such-group`", "did you mean `traffic.shift`?",
                 "did you mean `flights`?", f"no directory {tmp_path / 'missing'}", "no procedure `nope`"):
        assert told in text


def test_relative_paths_are_meant_from_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([
        "engine: {library: [books, /abs]}", "services:", "  a:", "    gateway: {admin: gw.sock}",
        "    processes: {m: {command: [x], cwd: models}}"]))
    config = load(path)
    assert config.engine.library == [tmp_path / "books", Path("/abs")]
    gateway = config.services["a"].gateway
    assert gateway is not None
    assert gateway.admin == tmp_path / "gw.sock"
    assert config.services["a"].processes["m"].cwd == tmp_path / "models"


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    path = written(tmp_path, "engine:\n  window: 30s\nservices:\n  a:\n    owner: me\n")
    found = {s.key: s for s in settings(path, load(path))}
    assert (found["engine.window"].value, found["engine.window"].source) == (30.0, f"{path}:2")
    assert found["engine.history"].source == "default"
    assert found["services.a.owner"].source == f"{path}:5"
    assert found["services.a.champion"].source == "default"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a config to another user")
def test_a_system_engine_trusts_only_a_config_that_nobody_else_can_change(tmp_path: Path) -> None:
    home = homes.at(tmp_path, "system")
    with pytest.raises(DocumentError, match="has no config"):
        of_engine(home)
    written(tmp_path, "engine: {}\n")
    assert of_engine(home) == Config()
    home.config.chmod(0o666)
    with pytest.raises(DocumentError) as refused:
        of_engine(home)
    assert "others may write it" in refused.value.problems[0]
    home.config.chmod(0o644)
    os.chown(home.config, 1, 1)
    with pytest.raises(DocumentError) as refused:
        of_engine(home)
    assert "belongs to uid 1" in refused.value.problems[0]


def test_mistakes_in_pipelines_are_told_at_their_lines_and_folders_are_the_files_own(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([
        "pipelines:", "  projects: {flights: models/flights, fares: /srv/fares}"]))
    assert load(path).pipelines.projects == {"flights": tmp_path / "models/flights",
                                             "fares": Path("/srv/fares")}
    wrong = written(tmp_path, "\n".join([
        "pipelines:", "  ingest:", "    listen: 0.0.0.0:8770",
        "    senders:", "      forge: {key: plain-text}"]))
    told = "\n".join(str(problem) for problem in check(wrong)[1])
    assert f"{wrong}:3:" in told
    assert "listen on 127.0.0.1 and put a reverse proxy with TLS before it" in told
    assert f"{wrong}:5:" in told
    wrong = written(tmp_path, "\n".join([
        "pipelines:", "  projects:", "    flights: models", "    fares: models", "  ingest:",
        "    listen: 127.0.0.1:8770", "    senders:", "      forge: {key: env:KEY, projects: [flight]}"]))
    told = "\n".join(str(problem) for problem in check(wrong)[1])
    assert f"{wrong}:4: `fares` and `flights` are the same folder" in told
    assert f"{wrong}:8: there is no project `flight`" in told
    assert "did you mean `flights`?" in told
