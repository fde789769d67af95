"""Starting a run: which document, with which parameters, and whether it may begin now."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from engine.api import wire
from engine.api.backend import Caller
from engine.errors import NotPermitted, UsageError
from engine.home import Mode
from engine.journal.events import Event
from engine.procedures import expressions, readiness, rendering
from engine.procedures.document import Document
from engine.procedures.dry_run import dry_run
from engine.procedures.executor import Executor
from engine.procedures.folding import begin
from engine.procedures.library import Library, parameters, review
from engine.procedures.run import RunProgress
from engine.procedures.verbs import actor_of
from engine.procedures.views import run_view


class Starter:
    """Starts runs of the library's documents, and of an admin's own."""

    def __init__(self, executor: Executor, library: Library, *, mode: Mode,
                 startable: Callable[[RunProgress], Awaitable[None]]) -> None:
        """`startable` raises OpsdeckError for what cannot begin, for reasons beyond the document."""
        self._startable = startable
        self._executor = executor
        self._library = library
        self._mode = mode

    async def start(self, caller: Caller, request: wire.StartRun, id: str | None = None,
                    cause: Mapping[str, Any] | None = None) -> wire.RunView:
        """The run that has begun, or what a dry run found. `id`: one that the journal gave out before, for
        a run that is made once however often that is tried. `cause`: what began it, for its record.

        Raises NotPermitted, NotFound, DocumentError, UsageError or JournalError; then nothing runs.
        """
        if not caller.roles & {"operator", "admin"}:
            raise NotPermitted(f"{caller.user} may not start a run", hint="wanted: operator")
        document, text, name = await self._document(caller, request)
        variables = self._executor.config.engine.operators_variables(self._mode)
        params = parameters(document, request.params, trusted="admin" in caller.roles, variables=variables)
        data = self._created(document, text, name, params, request)
        if cause is not None:
            data["cause"] = dict(cause)
        draft = begin(_draft(data, caller, self._executor.clock()), document)
        self._preconditions(draft)
        await self._startable(draft)
        if cause is None:  # what begins by itself is recorded with its cause, and fails on record
            await readiness.check(self._executor, draft)
        if request.dry_run:
            return await dry_run(self._executor, draft, probe=request.probe)
        recorder = self._executor.recorder
        if id is None:
            id = await recorder.call(recorder.journal.new_run_id)
        live = await self._executor.create(id, document, actor_of(caller), data)
        return await run_view(self._executor, live.progress, live)

    async def _document(self, caller: Caller, request: wire.StartRun) -> tuple[Document, str, str]:
        if request.document is None:
            entry = await asyncio.to_thread(self._library.get, request.procedure)
            return entry.document, entry.text, str(entry.path)
        if "admin" not in caller.roles:
            raise NotPermitted(f"{caller.user} may not run a document by its path",
                               hint="the engine runs the library's procedures; a path needs the "
                                    "role admin, or run it with --embedded")
        from engine.procedures.check import parse

        return (parse(request.document, request.procedure, self._executor.registry),
                request.document, request.procedure)

    def _created(self, document: Document, text: str, name: str, params: dict[str, Any],
                 request: wire.StartRun) -> dict[str, Any]:
        today = dt.datetime.fromtimestamp(self._executor.clock(), dt.UTC).date()
        service = params.get("service")
        return {"procedure": document.id, "title": document.title, "document": text,
                "document_sha256": hashlib.sha256(text.encode()).hexdigest(), "path": name,
                "params": params, "service": service if isinstance(service, str) else None,
                "unisolated": self._mode == "single-user",
                "review": review(document, today), "steps": len(document.steps),
                "yes": request.yes, "confirm": request.confirm}

    def _preconditions(self, run: RunProgress) -> None:
        names = rendering.context(run, self._executor.home)
        for wanted in run.document.preconditions:
            where = f"{run.document.id}: precondition {wanted.check}"
            if not expressions.truth(wanted.check, names, where):
                message = expressions.render(wanted.message, names, where)
                raise UsageError(f"{run.document.id} cannot start: {message}",
                                 hint=f"it wants {wanted.check}")


def _draft(data: dict[str, Any], caller: Caller, now: float) -> Event:
    """The event `run.created` would be, for what must be known before there is a run."""
    return Event(seq=0, run="draft", n=0, at=now, kind="run.created", actor=actor_of(caller),
                 step=None, attempt=None, data=data, prev="", hash="")
