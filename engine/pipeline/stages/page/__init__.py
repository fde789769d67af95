"""The stage that writes the page of evidence: evidence.md, and evidence.html with plots."""

from __future__ import annotations

from engine.pipeline import places
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.page import rendering
from engine.pipeline.stages.page.content import page
from engine.pipeline.stages.page.found import gather

MARKDOWN, HTML = "evidence.md", "evidence.html"


def run(work: Work) -> Done:
    """Result: page and html (absolute paths), against (what speaks against a release), verdict. It passes
    whatever the page says: it is for a person to read."""
    found = gather(places.of(work.home, work.project.project), work.run, work.project)
    made = page(found)
    (work.output / MARKDOWN).write_text(rendering.markdown(made), encoding="utf-8")
    (work.output / HTML).write_text(rendering.html(made), encoding="utf-8")
    work.say(made.verdict)
    return Done(True, made.verdict, {
        "page": str(work.output / MARKDOWN), "html": str(work.output / HTML), "verdict": made.verdict,
        "against": list(made.against)}, (MARKDOWN, HTML))
