"""The other side of `child`: a process that holds a model, started, asked and ended."""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.pipeline.project.model import Limits
from engine.pipeline.scoring.child import LENGTHS
from engine.pipeline.scoring.scores import ModelFailed

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats

CHILD = Path(__file__).with_name("child.py")
MB = 10**6
START_WITHIN = 600.0  # a model's libraries may take long to load; seconds
END_WITHIN = 5.0
TAIL = 2000  # bytes of the log that are read for its last line


class ModelProcess:
    """`function` is `module:name`, found in `root`, and gets `model`. It runs under `limits` with
    `environment` alone; what it prints goes to `log`. `where` is what errors name. One that died is started
    again by the next `scores`, so that one input that kills it is a finding and not the end.

    Everything blocks, and raises ModelFailed when the model does not answer.
    """

    def __init__(self, python: Path, function: str, model: Path, root: Path, environment: Mapping[str, str],
                 limits: Limits, log: Path, where: str) -> None:
        self._command = [str(python), str(CHILD)]
        self._arguments = [function, str(model), str(root), json.dumps(_limits(limits))]
        self._root, self._environment, self._timeout = root, dict(environment), limits.timeout
        self._log, self.where = log, where
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self.columns: tuple[str, ...] | None = None
        self.idle_mb = 0.0
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def scores(self, rows: Any) -> Floats:
        """Of a table: (n, columns of scores), unchecked."""
        import numpy as np

        if self._process is None:
            self._start()
        answer = self._ask({"do": "score"}, rows)[1]
        if answer is None or not answer.num_columns:
            raise ModelFailed("the model gave no scores", where=self.where)
        return np.column_stack([column.to_numpy() for column in answer.columns])

    def hold(self, rows: Any) -> None:
        """Keep the rows that `measure` cuts its batches from."""
        self._ask({"do": "hold"}, rows.combine_chunks())

    def measure(self, batch: int, calls: int, start: int, seconds: float) -> Floats:
        """Milliseconds of each of at most `calls` calls; those that fit into `seconds`, at least one."""
        import numpy as np

        asked = {"do": "measure", "batch": batch, "calls": calls, "start": start, "seconds": seconds}
        return np.asarray(self._ask(asked)[0]["ns"], dtype=np.float64) / 1e6

    def peak_mb(self) -> float:
        """The most memory that the process has had resident, in MB (10^6 bytes)."""
        return float(self._ask({"do": "memory"})[0]["kib"]) * 1024 / 1e6

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()  # it sees that nobody asks any more
        if self._process is not None:
            try:
                self._process.wait(END_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._channel = self._process = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    [*self._command, str(theirs.fileno()), *self._arguments], cwd=self._root,
                    env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    pass_fds=[theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ModelFailed(f"the interpreter {self._command[0]} cannot be started: {error.strerror}",
                                  where=self.where) from error
        self._channel = ours
        header, _ = self._answer(START_WITHIN)
        if not header["ok"]:
            self.close()
            raise self._said(header)
        self.columns = None if header["columns"] is None else tuple(header["columns"])
        self.idle_mb = float(header["before"]) * 1024 / 1e6

    def _ask(self, header: dict[str, Any], table: Any = None) -> tuple[dict[str, Any], Any]:
        import pyarrow as pa

        if self._channel is None:
            raise ModelFailed("the model's process has ended", where=self.where)
        head, body = json.dumps(header).encode(), b""
        if table is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            body = sink.getvalue()
        self._channel.settimeout(self._timeout)
        try:
            self._channel.sendall(LENGTHS.pack(len(head), len(body)) + head)
            self._channel.sendall(body)
        except TimeoutError:
            raise self._late(self._timeout) from None
        except OSError:
            raise self._died() from None
        answer, found = self._answer(self._timeout)
        if not answer["ok"]:
            raise self._said(answer)
        return answer, found

    def _answer(self, within: float) -> tuple[dict[str, Any], Any]:
        import pyarrow as pa

        assert self._channel is not None
        self._channel.settimeout(within)
        try:
            head, body = LENGTHS.unpack(self._exactly(LENGTHS.size))
            header = json.loads(self._exactly(head))
            content = self._exactly(body)
        except TimeoutError:
            raise self._late(within) from None
        except OSError:
            raise self._died() from None
        if not body:
            return header, None
        with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
            return header, reader.read_all()

    def _exactly(self, size: int) -> bytearray:
        """Raises ConnectionError when the process ends before."""
        assert self._channel is not None
        found = bytearray(size)
        view, at = memoryview(found), 0
        while at < size:
            got = self._channel.recv_into(view[at:])
            if not got:
                raise ConnectionError
            at += got
        return found

    def _said(self, header: Mapping[str, Any]) -> ModelFailed:
        told = str(header["message"]) or "nothing more was said"
        message = told
        if not header["plain"]:
            at = f" ({header['at']})" if header["at"] else ""
            message = f"the model failed: {header['type']}: {told}{at}"
        return ModelFailed(message, where=self.where,
                           hint="`evaluate.limits.memory_mb` is what it may have"
                           if header["type"] == "MemoryError" else None)

    def _late(self, within: float) -> ModelFailed:
        assert self._process is not None
        self._process.kill()
        self.close()
        return ModelFailed(f"the model did not answer within {within:g} s", where=self.where,
                           hint="`evaluate.limits.timeout` is how long one answer may take")

    def _died(self) -> ModelFailed:
        assert self._process is not None
        try:
            code = self._process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self.close()
        why, hint = f"exit code {code}", None
        if code < 0:
            why = signal.Signals(-code).name
            hint = {signal.SIGKILL: "the system kills a process when memory runs out: give it fewer rows or "
                                    "more memory",
                    signal.SIGXCPU: "`evaluate.limits.cpu` is how many seconds it may compute"}.get(
                        signal.Signals(-code))
        return ModelFailed(f"the model's process ended without an answer ({why})", where=self.where,
                           hint=hint or self._last_line())

    def _last_line(self) -> str | None:
        try:
            lines = self._log.read_bytes()[-TAIL:].decode(errors="replace").split("\n")
        except OSError:
            return None
        last = next((line.strip() for line in reversed(lines) if line.strip()), None)
        return None if last is None else f"its last line: {last[:200]}"


def _limits(limits: Limits) -> dict[str, int]:
    """As the child sets them for itself: bytes and seconds."""
    given = {"memory": limits.memory_mb and limits.memory_mb * MB,
             "cpu": limits.cpu and math.ceil(limits.cpu), "file": limits.file_mb and limits.file_mb * MB}
    return {name: int(value) for name, value in given.items() if value}
