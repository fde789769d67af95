"""Pictures of every screen, at 80×24 and 160×48, as SVG and PNG: `python -m tests.screenshots`.

They are taken of the real console on the real demo, which is set up for it in a home of its own, with a
slow challenger and a runbook that waits for a person: about two minutes. `--home PATH` takes an engine
that runs instead; `--made-up` shows scenes that the demo does not have, for looking at while working on
a screen. The pictures of rollouts and pipelines are of made-up data, rollouts also without colour.

PNG wants libcairo2 and the DejaVu fonts (Debian: libcairo2 fonts-dejavu-core).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import io
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec

from console import picture
from console.app import OpsdeckApp
from console.live import LiveSource
from console.paint import Painter
from console.source import Link
from engine.api import wire
from engine.api.backend import OutputChunk
from engine.api.light import Client
from engine.home import find
from tests.console.scenes import BY_NAME, SCENES, Scene, opened, typed
from tests.end_to_end.live import set_up

SIZES = ((80, 24), (160, 48))
FOLDER = Path(__file__).parent.parent / "screenshots"


ROLLOUTS = ("fleet-rollouts", "rollouts", "rollout-healthy", "rollout-failing", "rollout-evidence",
            "rollout-approve")
PIPELINES = ("run-training", "page", "run-release-dialog")
WITHOUT_COLOUR = ("rollout-healthy", "rollout-failing")


def made_up_scenes() -> Iterator[Scene]:
    """What the incident of the demo does not show: pipelines, and rollouts in colour and without."""
    yield from (BY_NAME[name] for name in (*ROLLOUTS, *PIPELINES))
    for name in WITHOUT_COLOUR:
        yield dataclasses.replace(BY_NAME[name], name=f"{name}-mono", options={"theme": "mono"})


def live_scenes(snapshot: wire.Snapshot) -> Iterator[Scene]:
    """What an engine's own data can show."""
    enter = ("enter",)
    yield Scene("fleet")
    if snapshot.services:
        yield Scene("service", enter)
    yield Scene("runbooks", (*typed(":runbooks"), "enter"))
    yield Scene("start-confirm", (*typed(":runbooks high-latency"), *enter * 9), write=True)
    yield Scene("runs", (*typed(":runs"), "enter"))
    for waiting in snapshot.waiting[:1]:
        yield Scene("run", run=waiting.run, write=True)
        yield Scene("run-confirm", enter, run=waiting.run, write=True)
    for run in [run for run in snapshot.runs if run.ended][:1]:
        yield Scene("run-done", run=run.id)
    yield Scene("approvals", ("a",))
    yield Scene("audit", (*typed(":audit"), "enter", "j", "enter"))
    yield Scene("help", ("question_mark",))


class Elsewhere(LiveSource):
    """An engine's data with its paths as they are on an operations host, not on this machine."""

    def __init__(self, home: Path) -> None:
        super().__init__(find(home).socket)
        self._paths = ((str(home), "/var/lib/opsdeck"), (sys.prefix, "/opt/opsdeck"))

    def told(self, item: Any) -> Any:
        data = msgspec.json.encode(item)
        for here, there in self._paths:
            data = data.replace(here.encode(), there.encode())
        return msgspec.json.decode(data, type=type(item))

    async def follow(self, run: str) -> AsyncIterator[wire.RunView | OutputChunk | Link]:
        async for item in super().follow(run):
            yield self.told(item)

    async def run(self, run: str) -> wire.RunView:
        return cast("wire.RunView", self.told(await super().run(run)))

    async def events(self, limit: int, before: int | None) -> list[wire.Event]:
        return [self.told(event) for event in await super().events(limit, before)]


def write(painter: Painter, stem: Path, png: bool) -> None:
    """One picture; the PNG in few colours, at a scale at which a character is whole pixels wide."""
    svg = picture.svg(painter)
    stem.with_suffix(".svg").write_text(svg, "utf-8")
    if png:
        import cairosvg
        from PIL import Image
        data = cairosvg.svg2png(bytestring=svg.encode(), scale=13 / picture.CELL_W)
        few = Image.open(io.BytesIO(data)).convert("RGB").quantize(
            255, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(stem.with_suffix(".png"), optimize=True)


async def take(scene: Scene, home: Path | None, folder: Path, png: bool) -> None:
    for width, height in SIZES:
        source = Elsewhere(home) if home else None
        async with opened(scene, (width, height), source=source) as (app, _pilot):
            assert isinstance(app, OpsdeckApp)
            write(app.painter, folder / f"{scene.name}-{width}x{height}", png)


@contextlib.contextmanager
def incident() -> Iterator[Path]:
    """The home of a demo in an incident: a page fires, and a runbook waits for a typed name."""
    with tempfile.TemporaryDirectory(prefix="opsdeck-") as place:
        demo = set_up(Path(place) / "home")
        try:
            demo("demo", "fault", "latency", "--amount", "300")
            demo.until("the page", lambda: bool(demo.service()["alerts"]), 90)
            demo("run", "high-latency", "-p", "service=flights", "--json")
            yield demo.home
        finally:
            demo("demo", "--clean", "--everything", "--yes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="the home of a running engine")
    parser.add_argument("--made-up", action="store_true", help="scenes of made-up data")
    parser.add_argument("--to", type=Path, default=FOLDER, help="where the pictures go")
    parser.add_argument("--no-png", action="store_true", help="SVG only")
    parser.add_argument("only", nargs="*", help="names of scenes; all without")
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        scenes: list[tuple[Scene, Path | None]] = [
            (scene, None) for scene in (SCENES if args.made_up else made_up_scenes())]
        if not args.made_up and not (args.only and set(args.only) <= {scene.name for scene, _ in scenes}):
            home = args.home or stack.enter_context(incident())
            scenes += [(scene, home) for scene in live_scenes(Client(find(home).socket).snapshot())]
        for scene, home in scenes:
            if scene.name in args.only or (not args.only and scene.picture):
                asyncio.run(take(scene, home, args.to, not args.no_png))
                print(scene.name)


if __name__ == "__main__":
    main()
