"""Every shipped procedure passes `opsdeck check`, with not even a warning."""

import datetime as dt
import re
from pathlib import Path

from engine.actions import register
from engine.procedures.actions import Registry
from engine.procedures.check import check_paths, procedures_in

RUNBOOKS = Path(__file__).parents[2] / "runbooks"
REGISTRY = Registry()
register(REGISTRY)


def test_every_shipped_procedure_is_free_of_problems_when_it_was_reviewed() -> None:
    # On the day of the last review, so that time alone does not fail this test; that a review is
    # overdue is what `opsdeck check` is there to warn of.
    today = max(dt.date.fromisoformat(line.removeprefix("reviewed: "))
                for path in procedures_in(RUNBOOKS) for line in path.read_text().splitlines()
                if line.startswith("reviewed: "))
    found = check_paths([RUNBOOKS], REGISTRY, today=today)
    assert [str(problem) for problem in found.problems] == []
    assert found.files >= 9


def test_a_broken_one_would_be_found(tmp_path: Path) -> None:
    good = (RUNBOOKS / "incidents/drain-variant.yaml").read_text()
    broken = tmp_path / "drain-variant.yaml"
    broken.write_text(good.replace("use: traffic.shift", "use: traffic.shfit"))
    found = check_paths([broken], REGISTRY, today=dt.date(2026, 11, 24))
    assert found.errors >= 1


def test_every_procedure_that_the_readme_runs_is_shipped() -> None:
    readme = (RUNBOOKS.parent / "README.md").read_text()
    named = set(re.findall(r"opsdeck run ([a-z0-9-]+)(?=[ `\n])", readme))
    assert named <= {path.stem for path in procedures_in(RUNBOOKS)}
