"""The stage that writes the page of evidence: evidence.md, and evidence.html with plots."""

from __future__ import annotations

import msgspec

from engine.pipeline.building import places
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.page import rendering
from engine.pipeline.stages.page.content import page
from engine.pipeline.stages.page.found import gather
from engine.pipeline.stages.table import STAGES
from engine.procedures.authors import Authors

MARKDOWN, HTML = "evidence.md", "evidence.html"


def run(work: Work) -> Done:
    """Result: page and html (absolute paths, where they are once the stage is done), against (what speaks
    against a release), verdict. It passes whatever the page says: it is for a person to read."""
    at, key = places.of(work.home, work.project.project), work.settings.get("key")
    told = work.settings.get("authors")
    authors = None if told is None else msgspec.convert(told, Authors)
    made = page(gather(at, work.run, work.project, authors))
    (work.output / MARKDOWN).write_text(rendering.markdown(made), encoding="utf-8")
    (work.output / HTML).write_text(rendering.html(made), encoding="utf-8")
    kept = at.area(STAGES["page"]).stage("page") / key / "output" if key else work.output
    work.say(made.verdict)
    work.say(f"with plots, for a browser: {kept / HTML}")
    return Done(True, made.verdict, {
        "page": str(kept / MARKDOWN), "html": str(kept / HTML), "verdict": made.verdict,
        "against": list(made.against)}, (MARKDOWN, HTML))
