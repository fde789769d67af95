"""What a server meets in a day: malformed, missing, wrong, huge, slow and simultaneous requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.pipeline.stages.staging.asking import (
    Answer,
    Slow,
    announced,
    asker,
    once,
    rows_body,
    short,
    strict,
)
from engine.pipeline.stages.staging.checks import Check
from engine.pipeline.stages.staging.requests import Held, same
from engine.pipeline.stages.staging.servers import Server
from engine.serving.http_messages import MAX_BODY_BYTES

BEYOND = MAX_BODY_BYTES + 1
WARM = 5


def latency(ports: Sequence[int], held: Held, requests: int, concurrency: int, p99_ms: float
            ) -> tuple[Check, float]:
    """The p99 (ms) of single rows under `concurrency`, over all replicas."""
    def client(number: int) -> list[tuple[float, bool]]:
        with asker(ports[number % len(ports)]) as one:
            for _ in range(WARM):
                one.ask(held.body([0]))
            mine = range(number, requests, concurrency)
            answers = [one.ask(held.body([at % len(held.rows)])) for at in mine]
            return [(answer.seconds * 1000, _predicts(answer)) for answer in answers]

    with ThreadPoolExecutor(concurrency) as pool:
        seen = [one for part in pool.map(client, range(concurrency)) for one in part]
    ordered = sorted(ms for ms, _ in seen)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    failed = sum(not well for _, well in seen)
    said = f"p99 {p99:.1f} ms over {len(seen):,} requests, {concurrency} at a time; {failed} failed"
    return Check("latency", "smoke", f"p99 at most {p99_ms:g} ms, and none fails", said,
                 p99 <= p99_ms and not failed), p99


def bad_requests(port: int, held: Held) -> Iterator[Check]:
    """Each is refused with a reason, by 400, and never answered as if it were right."""
    row = held.rows[0]
    named = dict(zip(held.columns, row, strict=True))
    first = held.columns[0]
    yield _refused(port, held, "malformed JSON", b'{"dataframe_split": {"columns": [')
    yield _refused(port, held, "no JSON at all", b"\x00\xff not json")
    yield _refused(port, held, f"missing column {first}",
                   _record({name: value for name, value in named.items() if name != first}), first)
    name, value = _wrong(held)
    yield _refused(port, held, f"wrong type in {name}", _record({**named, name: value}), name)
    before, beside = _alone(port, held), once(port, _record({**named, "opsdeck_unknown": 1}))
    problem = same(beside, before)
    yield Check("unknown column", "smoke", "it is ignored: the prediction that the row has without it",
                problem or beside.words(), problem is None)


def unusual_requests(port: int, held: Held, largest_mb: float) -> Iterator[Check]:
    """Those that are no mistake, or that must at least not hurt anybody else."""
    before = _alone(port, held)
    empty = once(port, rows_body(held.columns, []))
    fine = empty.status == 400 or (empty.status == 200 and _valid(empty))
    yield Check("empty batch", "smoke", "a refusal by 400, or an empty answer", empty.words(), fine)
    yield from _missing(port, held)
    yield from _edges(port, held)
    if held.strange is not None:
        yield _unseen(port, held, held.strange)
    body = _as_large_as(held, largest_mb)
    large = once(port, body)
    yield Check("largest body", "smoke", f"{largest_mb:g} MB of rows are answered",
                f"{len(body) / 1e6:.2f} MB: {_told(large)}", _predicts(large))
    beyond = announced(port, BEYOND)
    yield Check("oversized body", "smoke", "a refusal by 413, before the body is read", beyond.words(),
                beyond.status == 413)
    problem = same(_alone(port, held), before)
    yield Check("a request after all these", "smoke", "it is answered as before them",
                problem or "the same prediction", problem is None)


def slow_client(port: int, held: Held) -> Check:
    """One that dawdles keeps nobody else waiting, and gets its answer."""
    expected = "others are answered meanwhile, and it is too"
    slow = Slow(port, held.body([0]))
    begun = time.perf_counter()
    other = once(port, held.body([0]))
    waited = (time.perf_counter() - begun) * 1000
    own = slow.finish()
    return Check("slow client", "smoke", expected, f"others: {_told(other)} after {waited:.0f} ms; "
                 f"it: {_told(own)}", _predicts(other) and _predicts(own) and waited < 5000)


def together(ports: Sequence[int], held: Held, concurrency: int, each: int = 12) -> Check:
    """Good and bad requests at once: each good one has its own prediction, each bad one its refusal."""
    wrong: list[str] = []

    def client(number: int) -> None:
        with asker(ports[number % len(ports)]) as one:
            for turn in range(each):
                at = (number * each + turn) % len(held.rows)
                bad = (number + turn) % 3 == 0
                answer = one.ask(b'{"dataframe_split": 1}' if bad else held.body([at]))
                if bad and answer.status != 400:
                    wrong.append(f"a bad one: {answer.words()}")
                elif not bad and not _predicts(answer):
                    wrong.append(f"row {at}: {_told(answer)}")

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(client, range(concurrency)))
    total = concurrency * each
    return Check("good and bad at once", "smoke", "every good one is answered, every bad one refused",
                 wrong[0] if wrong else f"{total} requests, {concurrency} at a time, all as expected",
                 not wrong)


def graceful_stop(servers: Sequence[Server], held: Held) -> Iterator[Check]:
    """Told to end while requests come: no answer is cut off, and each ends by itself with 0."""
    for number, server in enumerate(servers, 1):
        begun = threading.Event()
        cut: list[str] = []

        def client(port: int = server.port, begun: threading.Event = begun, cut: list[str] = cut) -> None:
            with asker(port) as one:
                while (answer := one.ask(held.body([0]))).status == 200:
                    if not _valid(answer):
                        cut.append("an answer was cut off")
                    begun.set()
                if answer.status is not None:
                    cut.append(answer.words())

        thread = threading.Thread(target=client, daemon=True)
        thread.start()
        begun.wait(10)
        server.terminate()
        code = server.ended()
        thread.join(10)
        seen = f"exit code {code}" if code is not None else "it does not end"
        yield Check(f"stop of replica {number}", "smoke", "exit code 0, and no answer cut off",
                    f"{seen}{'; ' + cut[0] if cut else ''}", code == 0 and not cut and not thread.is_alive())


def _refused(port: int, held: Held, name: str, body: bytes, names: str = "") -> Check:
    """By 400 with a reason (that names the column), and the next on the same connection is answered."""
    expected = "a refusal by 400 " + (f"that names {names}" if names else "with a reason") \
        + ", and the next request is answered"
    with asker(port) as one:
        answer = one.ask(body)
        after = one.ask(held.body([0]))
    fine = answer.status == 400 and _reason(answer, names) and after.status == 200
    return Check(name, "smoke", expected, f"{answer.words()}; then {after.words()}", fine)


def _alone(port: int, held: Held) -> Answer:
    """The first row in a request of its own."""
    return once(port, held.body([0]))


def _missing(port: int, held: Held) -> Iterator[Check]:
    """Where the data lacks numbers, the model predicts without them; elsewhere NaN says that it cannot."""
    numbers = [name for name, kind in zip(held.columns, held.types, strict=True)
               if kind in ("double", "float")]
    if not numbers:
        yield Check("NaN", "smoke", "nothing: no number of the model's may be missing", "nothing", True)
        return
    known = [name for name in numbers if name in held.gaps]
    for name in known or numbers[:1]:
        answer = once(port, rows_body(held.columns, [held.changed(name, None)]))
        expected = f"a prediction: {name} has missing values in the data" if known else \
            "a prediction or NaN, or a refusal by 400"
        yield Check(f"NaN in {name}", "smoke", expected, _told(answer, always=True),
                    _predicts(answer) if known else answer.status in (200, 400))


def _edges(port: int, held: Held) -> Iterator[Check]:
    """The least and the largest of each number in all held-out rows, in a request each."""
    for name, (least, largest) in held.edges.items():
        for what, value in (("smallest", least), ("largest", largest)):
            answer = once(port, rows_body(held.columns, [held.changed(name, value)]))
            if not _predicts(answer):
                yield Check("edges of the data", "smoke", "a finite prediction at the smallest and largest "
                            "of each number", f"{what} {name}, {value:g}: {_told(answer)}", False)
                return
    if held.edges:
        yield Check("edges of the data", "smoke", "a finite prediction at the smallest and largest of each "
                    "number", f"{2 * len(held.edges)} answers, all finite", True)


def _unseen(port: int, held: Held, name: str) -> Check:
    answer = once(port, rows_body(held.columns, [held.changed(name, "opsdeck-unseen")]))
    return Check(f"unseen text in {name}", "smoke", "a finite prediction, or a refusal by 400",
                 _told(answer, always=True), _predicts(answer) or answer.status == 400)


def _wrong(held: Held) -> tuple[str, Any]:
    """A column, and a value that is not of its type."""
    for name, kind in zip(held.columns, held.types, strict=True):
        if kind != "string":
            return name, "not a number"
    return held.columns[0], {"not": "text"}


def _record(values: dict[str, Any]) -> bytes:
    return json.dumps({"dataframe_records": [values]}).encode()


def _reason(answer: Answer, names: str) -> bool:
    try:
        said = json.loads(answer.body)
    except ValueError:
        return False
    text = said.get("message") if isinstance(said, dict) else None
    return isinstance(text, str) and bool(text) and names in text


def _valid(answer: Answer) -> bool:
    try:
        return isinstance(strict(answer.body)["predictions"], list)
    except (ValueError, KeyError, TypeError):
        return False


def _predicts(answer: Answer) -> bool:
    """Whether it is an answer with predictions that are numbers: NaN and infinities are none."""
    return answer.status == 200 and _valid(answer)


def _told(answer: Answer, *, always: bool = False) -> str:
    """The answer in words: with its content where that is no prediction, or always."""
    if answer.status != 200 or (_predicts(answer) and not always):
        return answer.words()
    return short(answer.body.decode(errors="replace"))


def _as_large_as(held: Held, mb: float) -> bytes:
    """A body of about so many megabytes, of the held-out rows again and again."""
    one = len(held.body(range(len(held.rows)))) / len(held.rows)
    rows = max(1, int(mb * 1e6 / one))
    return held.body([at % len(held.rows) for at in range(rows)])
