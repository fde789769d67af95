"""The config read again while the engine runs: all of it holds, or none, and the journal says which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine import home as homes
from engine.api import wire
from engine.api.backend import Backend, Caller
from engine.app import EngineApp, open_engine
from engine.config import Config, Engine
from engine.config_file import of_engine
from engine.daemon.identity import EVERY_ROLE
from engine.errors import DocumentError, JournalUnavailable, NotFound, NotPermitted
from engine.home import Home
from engine.journal.lease import take
from engine.procedures.recorder import Recorder
from engine.reloading import NEEDS_RESTART, change

ADMIN = Caller("root", 0, 1, EVERY_ROLE, "test")
ONE = "services: {flights: {title: Flights}}\n"
TWO = "services: {flights: {title: Flights}, trains: {title: Trains}}\n"
DOCUMENT = """opsdeck: 1
id: two-steps
title: A question, then a step
kind: runbook
owner: tests
reviewed: 2026-11-20
steps:
  - {id: ask, title: Ask, manual: "go?"}
  - {id: act, title: Act, shell: "true", irreversible: test}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = homes.at(tmp_path / "home")
    homes.prepare(home)
    return home


@asynccontextmanager
async def engine_of(home: Home) -> AsyncIterator[EngineApp]:
    with take(home.lock):
        async with open_engine(home, of_engine(home)) as app:
            yield app


async def names(backend: Backend) -> list[str]:
    return [service.name for service in backend.status().services]


async def told(backend: Backend) -> list[wire.Event]:
    return [e for e in await backend.events(50, None) if e.kind.startswith("config.")]


async def until(backend: Backend, run: str, holds: Callable[[wire.RunView], bool]) -> wire.RunView:
    async with asyncio.timeout(20):
        while not holds(view := await backend.run(run)):
            await asyncio.sleep(0.01)
    return view


def test_what_is_built_once_waits_for_a_restart_and_all_else_is_taken() -> None:
    holding = Config(engine=Engine(group="a", window=60))
    written = Config.model_validate({
        "engine": {"group": "b", "window": 30, "output_cap": 2048}, "roles": {"admin": {"users": ["x"]}},
        "services": {"flights": {}}, "alerts": {"repeat": "2h"}})
    found = change(holding, written)
    assert found.restart == ["engine.group", "engine.window"]
    assert found.changed == ["engine.output_cap", "roles.admin", "services.flights", "alerts.repeat"]
    assert (found.config.engine.group, found.config.engine.window) == ("a", 60)
    assert found.config.engine.output_cap == 2048
    assert change(found.config, holding).restart == []
    assert change(holding, holding) == change(holding, holding.model_copy()) and not change(
        holding, holding).changed


def test_every_key_that_waits_is_a_key_of_the_config() -> None:
    assert set(NEEDS_RESTART) < set(Engine.model_fields)


async def test_a_valid_config_holds_at_once_and_is_in_the_journal(home: Home) -> None:
    home.config.write_text(ONE)
    async with engine_of(home) as app:
        heard: list[Config] = []
        app.follow_config(heard.append)
        (home.path / "more").mkdir()
        (home.path / "more" / "two-steps.yaml").write_text(DOCUMENT)
        home.config.write_text(TWO + "engine: {library: [more], window: 30s}\n")
        done = await app.backend.reload(ADMIN)
        assert done.changed == ["engine.library", "services.trains"] and done.restart == ["engine.window"]
        assert await names(app.backend) == ["flights", "trains"]
        assert (await app.backend.history("trains", 60, 6)).service == "trains"
        assert "two-steps" in {p.id for p in await app.backend.library()}
        assert heard[0].services.keys() == {"flights", "trains"} and heard[0].engine.window == 60
        assert app.backend.info(ADMIN).restart == ["engine.window"]
        [event] = await told(app.backend)
        assert (event.kind, event.by, event.origin) == ("config.reloaded", "root", "test")
        assert event.text == done.text and event.data["changed"] == done.changed
        home.config.write_text(ONE)
        assert (await app.backend.reload(ADMIN)).restart == []
        assert app.backend.info(ADMIN).restart == []
        with pytest.raises(NotFound):
            await app.backend.history("trains", 60, 6)


async def test_an_invalid_config_changes_nothing_and_is_told_until_it_is_mended(home: Home) -> None:
    home.config.write_text(ONE)
    async with engine_of(home) as app:
        home.config.write_text(TWO + "rolls: {}\nengine: {window: soon}\n")
        with pytest.raises(DocumentError, match="2 problems") as refused:
            await app.backend.reload(ADMIN)
        assert f"{home.config}:2: unknown key `rolls`" in refused.value.problems[0]
        assert await names(app.backend) == ["flights"]
        info = app.backend.info(ADMIN)
        assert info.state == "serving" and info.config_problem is not None
        assert "2 problems" in info.config_problem and "the config from before holds" in info.config_problem
        [event] = await told(app.backend)
        assert event.kind == "config.refused" and event.data["problems"] == refused.value.problems
        home.config.write_text(TWO)
        await app.backend.reload(ADMIN)
        assert app.backend.info(ADMIN).config_problem is None
        assert await names(app.backend) == ["flights", "trains"]


async def test_a_config_that_has_gone_is_a_mistake_and_not_the_defaults(home: Home) -> None:
    home.config.write_text(ONE)
    async with engine_of(home) as app:
        home.config.unlink()
        with pytest.raises(DocumentError, match="not there any more"):
            await app.backend.reload(ADMIN)
        assert await names(app.backend) == ["flights"]


async def test_an_engine_that_began_without_services_watches_those_that_come(home: Home) -> None:
    home.config.write_text("engine: {stale_after: 1s}\n")
    async with engine_of(home) as app:
        assert await names(app.backend) == []
        home.config.write_text("services: {flights: {scrape: [http://127.0.0.1:1/metrics]}}\n"
                               "engine: {library: [], stale_after: 1s}\n")
        await app.backend.reload(ADMIN)
        async with asyncio.timeout(20):
            while all(e.kind != "target.lost" for e in await app.backend.events(50, None)):
                await asyncio.sleep(0.05)
        assert await names(app.backend) == ["flights"] and app.backend.info(ADMIN).problem is None


async def test_only_an_admin_may_and_a_refused_caller_leaves_no_trace(home: Home) -> None:
    home.config.write_text(ONE)
    async with engine_of(home) as app:
        home.config.write_text(TWO)
        with pytest.raises(NotPermitted, match="may not reload the config"):
            await app.backend.reload(Caller("ann", 1001, 1, frozenset({"viewer", "operator"}), "test"))
        assert await names(app.backend) == ["flights"] and await told(app.backend) == []


async def test_what_cannot_be_put_in_the_journal_does_not_hold(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(self: Recorder, events: object, row: object = None) -> None:
        raise JournalUnavailable("the disk is full")

    home.config.write_text(ONE)
    async with engine_of(home) as app:
        home.config.write_text(TWO)
        with monkeypatch.context() as patched, pytest.raises(JournalUnavailable):
            patched.setattr(Recorder, "append", full)
            await app.backend.reload(ADMIN)
        assert await names(app.backend) == ["flights"]


async def test_a_run_keeps_the_policy_it_began_with_over_a_reload_and_a_restart(home: Home) -> None:
    home.config.write_text(ONE)
    request = wire.StartRun("two-steps", document=DOCUMENT)
    async with engine_of(home) as app:
        before = (await app.backend.start_run(ADMIN, request)).id
        home.config.write_text(ONE + "policy: {rules: [{action: shell, confirm: 'yes'}]}\n")
        done = await app.backend.reload(ADMIN)
        assert done.runs == [before] and f"run {before} keeps the policy from before" in done.text
        after = (await app.backend.start_run(ADMIN, request)).id
        for run in (before, after):
            gate = (await app.backend.run(run)).steps[0].gate
            assert gate is not None
            await app.backend.act(ADMIN, run, "answer", wire.Act(step="ask", text="y", digest=gate.digest))
        assert (await until(app.backend, before, lambda v: v.ended is not None)).state == "done"
        waiting = await until(app.backend, after, lambda v: v.steps[1].gate is not None)
        assert waiting.state == "waiting"
        home.config.write_text(ONE)
        third = (await app.backend.start_run(ADMIN, request)).id
    async with engine_of(home) as app:
        gate = (await until(app.backend, third, lambda v: v.steps[0].gate is not None)).steps[0].gate
        assert gate is not None
        await app.backend.act(ADMIN, third, "answer", wire.Act(step="ask", text="y", digest=gate.digest))
        assert (await until(app.backend, third, lambda v: v.steps[1].gate is not None)).state == "waiting"
