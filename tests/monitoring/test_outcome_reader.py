"""Late labels become counts: over a real gateway's log, through rotation, garbage and restarts."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.config import Outcomes, Service
from engine.demo.layout import Layout
from engine.monitoring.outcome_reader import OutcomeReader
from engine.serving.log_file import LogFile
from engine.serving.prediction_log import Entry, LogSettings, PredictionLog
from tests.monitoring.strata import summed
from tests.serving.harness import Gateway, ScriptedVariant, response

PROBABILITY = {"champion": 0.9, "challenger": 0.2}


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Files:
    """A prediction log and a label file as the gateway and the replayer write them, and their readers."""

    def __init__(self, home: Path) -> None:
        self.outcomes = Outcomes(predictions=home / "predictions.jsonl", labels=home / "labels.jsonl",
                                 label="late", within=3600)
        self.clock = Clock()
        self.said: list[str] = []
        self.outcomes.labels.touch()
        self.max_bytes = 64 << 20

    def reader(self, **changes: Any) -> OutcomeReader:
        service = Service(outcomes=self.outcomes.model_copy(update=changes))
        return OutcomeReader({"flights": service, "other": Service()}, self.clock, tell=self.said.append)

    async def predict(self, *ids: str, variant: str = "challenger", score: float = 0.9, **more: Any) -> None:
        log = PredictionLog(LogSettings(self.outcomes.predictions, max_bytes=self.max_bytes), "flights")
        for id in ids:
            fields: dict[str, Any] = {
                "at": self.clock.now, "correlation_id": id, "trace_id": "t" * 32, "variant": variant,
                "version": "3", "key_hash": 255, "latency_s": 0.0125, "status": 200, "error_type": "",
                "content_type": "application/json", "request": b'{"inputs": {"hour": [7]}}',
                "response": json.dumps({"predictions": [{"probability": score}]}).encode()}
            log.append(Entry(**fields | more))
        await log.close()

    def label(self, *ids: str, late: Any = 1) -> None:
        log = LogFile(self.outcomes.labels, max_bytes=self.max_bytes, max_age_s=1e9, keep=9, keep_age_s=1e9)
        lines = [json.dumps({"at": self.clock.now, "correlation_id": id, "key": "N14228",
                             "landed": "2013-04-01T05:00:00Z", "late": late, "delay_min": 41}) for id in ids]
        log.write("".join(line + "\n" for line in lines).encode(), len(lines), self.clock.now)
        log.close()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_labels_that_come_later_give_the_new_counts_of_each_variant(files: Files) -> None:
    reader = files.reader()
    await reader.look()
    await files.predict("a", "b")
    await files.predict("c", variant="champion", score=0.2)
    await reader.look()
    assert summed(reader.take("flights")) == {} and reader.age("flights") is None
    files.clock.now += 600
    files.label("a", "c")
    files.label("b", late=0)
    await reader.look()
    assert summed(reader.take("flights")) == {"challenger": (2, 1), "champion": (1, 1)}
    assert summed(reader.take("flights")) == {}
    files.clock.now += 7
    assert reader.age("flights") == 7
    assert files.said == []


async def test_predictions_from_before_a_restart_are_known_and_labels_from_before_do_not_count_twice(
        files: Files) -> None:
    first = files.reader()
    await first.look()
    await files.predict("a", "b", "c")
    files.label("a")
    await first.look()
    assert summed(first.take("flights")) == {"challenger": (1, 0)}

    second = files.reader()
    await second.look()
    files.label("b")
    await second.look()
    assert summed(second.take("flights")) == {"challenger": (1, 0)}


async def test_rotation_of_both_files_loses_nothing(files: Files) -> None:
    files.max_bytes = 900
    reader = files.reader()
    await reader.look()
    ids = [f"id-{i}" for i in range(40)]
    n = 0
    for at in range(0, 40, 8):
        await files.predict(*ids[at:at + 8])
        for id in ids[at:at + 8]:
            files.label(id)
        await reader.look()
        n += summed(reader.take("flights"))["challenger"][0]
    assert n == 40
    assert len(list(files.outcomes.predictions.parent.iterdir())) > 4


async def test_garbage_is_counted_out_and_told_once(files: Files) -> None:
    reader = files.reader()
    await reader.look()
    await files.predict("a", "b")
    for path in (files.outcomes.predictions, files.outcomes.labels):
        with path.open("ab") as file:
            file.write(b'\xff\xfe\n{}\n[1]\n{"correlation_id": 7, "late": 1}\nnull\n' + b"[" * 5000 + b"\n")
    files.label("a")
    for _ in range(3):
        await reader.look()
    assert summed(reader.take("flights")) == {"challenger": (1, 0)}
    assert len(files.said) == 2
    assert f"{files.outcomes.labels} has lines that are no records" in files.said[1]
    assert reader.problems("flights") == files.said


async def test_a_request_that_failed_has_no_outcome(files: Files) -> None:
    reader = files.reader()
    await reader.look()
    await files.predict("a", error_type="timeout", status=504, response=b"")
    files.label("a")
    await reader.look()
    assert summed(reader.take("flights")) == {}
    tally = reader.tally("flights")
    assert tally is not None and tally.unusable == 1


async def test_an_output_that_is_not_there_is_told_once_with_what_to_change(files: Files) -> None:
    reader = files.reader(output="score")
    await reader.look()
    await files.predict("a", "b")
    files.label("a")
    await reader.look()
    files.label("b")
    await reader.look()
    assert summed(reader.take("flights")) == {}
    assert len(files.said) == 1 and "see `label` and `output` of outcomes" in files.said[0]


async def test_a_rollout_counts_what_was_predicted_since_it_began_also_after_a_restart(files: Files) -> None:
    reader = files.reader()
    await reader.look()
    await files.predict("old")
    files.clock.now += 60
    begun = files.clock.now
    files.clock.now += 60
    await files.predict("new")
    for one in (reader, files.reader()):
        one.begin("flights", begun)
        await one.look()
    restarted = one
    files.label("old", "new", late=0)
    for one in (reader, restarted):
        await one.look()
        assert summed(one.take("flights")) == {"challenger": (1, 1)}


async def test_a_new_config_is_followed_and_one_that_says_the_same_loses_nothing(files: Files,
                                                                               tmp_path: Path) -> None:
    reader = files.reader()
    await reader.look()
    await files.predict("a")
    await reader.look()
    reader.use_services({"flights": Service(title="renamed", outcomes=files.outcomes)})
    files.label("a")
    await reader.look()
    assert summed(reader.take("flights")) == {"challenger": (1, 0)}
    reader.use_services({"flights": Service()})
    await reader.look()
    assert summed(reader.take("flights")) == {} and reader.tally("flights") is None
    assert summed(reader.take("never heard of")) == {} and reader.problems("never heard of") == []


async def test_files_that_are_not_there_yet_are_found_when_they_come(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.outcomes.labels.unlink()
    reader = files.reader()
    await reader.look()
    assert files.said == []
    await files.predict("a")
    files.label("a")
    await reader.look()
    assert summed(reader.take("flights")) == {"challenger": (1, 0)}


async def test_a_file_that_cannot_be_read_is_told_once(files: Files) -> None:
    files.outcomes.labels.unlink()
    files.outcomes.labels.mkdir()
    reader = files.reader()
    for _ in range(3):
        await reader.look()
    assert files.said == [f"{files.outcomes.labels} cannot be read: it is not a regular file"]


async def test_run_reads_by_itself_and_closes_its_files_when_cancelled(files: Files) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = files.reader()
    task = asyncio.create_task(reader.run())
    await files.predict("a")
    while reader.tally("flights").predictions < 1:  # type: ignore[union-attr]
        await asyncio.sleep(0.02)
    files.label("a")
    taken: Mapping[str, tuple[int, int]] = {}
    async with asyncio.timeout(10):
        while not taken:
            await asyncio.sleep(0.02)
            taken = summed(reader.take("flights"))
    assert taken == {"challenger": (1, 0)}
    task.cancel()
    await asyncio.wait([task])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A real gateway over two variants that each answer a probability of their own."""
    def variant(name: str) -> ScriptedVariant:
        body = json.dumps({"predictions": [{"probability": PROBABILITY[name]}]})
        return ScriptedVariant(lambda request: response(200, body))

    variants = {name: variant(name) for name in PROBABILITY}
    with tempfile.TemporaryDirectory(prefix="gw") as directory:
        home = Path(directory)
        made = Gateway(home, {name: one.port for name, one in variants.items()},
                       initial_weights={"champion": 50, "challenger": 50},
                       prediction_log={"path": str(home / "log" / "predictions.jsonl")})
        try:
            yield made
        finally:
            made.kill()
            for one in variants.values():
                one.close()


async def test_over_a_real_gateway_every_prediction_meets_its_label(gateway: Gateway, tmp_path: Path
                                                                    ) -> None:
    labels = tmp_path / "labels.jsonl"
    reader = OutcomeReader({"flights": Service(outcomes=Outcomes(
        predictions=gateway.predictions, labels=labels, label="late"))}, time.time)
    await reader.look()
    for i in range(30):
        answer = await asyncio.to_thread(gateway.post, x_correlation_id=f"flight-{i}", x_request_key=f"k{i}")
        assert answer.status == 200
    await asyncio.to_thread(gateway.records, 30)
    labels.write_text("".join(json.dumps({"correlation_id": f"flight-{i}", "late": 1}) + "\n"
                              for i in range(30)))
    await reader.look()
    counts = summed(reader.take("flights"))
    assert sum(n for n, _ in counts.values()) == 30
    assert counts["champion"] == (counts["champion"][0], 0)  # 0.9 says late, and all were
    assert counts["challenger"] == (counts["challenger"][0], counts["challenger"][0])


def test_the_demo_says_where_its_outcomes_are(tmp_path: Path) -> None:
    from engine.config_file import load
    from engine.demo.configs import prepare

    layout = prepare(tmp_path, running=False)
    found = load(layout.config).services["flights"].outcomes
    assert isinstance(layout, Layout) and found is not None
    assert (found.predictions, found.labels, found.label) == (layout.predictions, layout.labels, "late")
