"""Old and new side by side, for a person who decides on a screen of 80 columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pipeline.expectations import Finding, accept, beside, check, learn
from engine.pipeline.expectations.beside import bar, cells, fit

ROWS = 2000


def made(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shops = rng.choice(["north", "south", "漢字"], ROWS, p=[0.6, 0.3, 0.1])
    return {"amount": rng.normal(100, 10, ROWS), "shop": shops}


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    new = made(2)
    new["amount"] = new["amount"] + 10
    new["shop"] = np.where(new["shop"] == "north", "west", new["shop"])
    new["amount"][:50] = 400
    found = check(learn(pa.table(made(1))), pa.table(new))
    return {one.kind: one for one in found}


def test_numbers_show_a_histogram_and_quantiles(findings: dict[str, Finding]) -> None:
    text = "\n".join(beside(findings["distribution"]))
    assert "suspicious: The values of amount have shifted: the median is 110" in text
    assert "Kolmogorov-Smirnov distance 0.4" in text and "(margin 0.1)" in text
    assert "standardized mean difference" in text and "population stability index" in text
    median = next(line for line in text.splitlines() if line.startswith("median"))
    assert [round(float(word), -1) for word in median.split()[1:]] == [100, 110]
    shares = [line for line in text.splitlines() if " to " in line and "%" in line]
    assert len(shares) >= 8 and all("█" in line or "▏" in line for line in shares)
    above = next(line for line in text.splitlines() if line.startswith("above"))
    assert above.split()[2:4] == ["0", "%"] and above.split()[4] != "0"


def test_the_shares_of_the_histogram_add_up(findings: dict[str, Finding]) -> None:
    lines = [line for line in beside(findings["distribution"]) if line.startswith(("up to", "above"))
             or (" to " in line[:22] and "%" in line)]
    for column in (slice(22, 30), slice(50, 58)):
        assert sum(float(line[column].split("%")[0]) for line in lines) == pytest.approx(100, abs=0.2)


def test_categories_show_what_went_and_what_came(findings: dict[str, Finding]) -> None:
    lines = beside(findings["categories"])
    north, west = (next(line for line in lines if line.startswith(name)) for name in ("north", "west"))
    assert "█" in north[30:50] and "█" not in north[50:]
    assert "█" not in west[30:50] and "█" in west[50:]
    assert "Not seen before: west" in " ".join(lines)


def test_every_other_finding_shows_expected_and_seen(findings: dict[str, Finding]) -> None:
    lines = beside(findings["range"])
    head = next(line for line in lines if line.startswith("expected"))
    assert head.split() == ["expected", "seen"]
    assert lines[lines.index(head) + 1].endswith("to 400")


def test_who_accepted_the_expectation_before_is_shown(findings: dict[str, Finding]) -> None:
    old = learn(pa.table(made(1)))
    new = made(2)
    new["amount"] = new["amount"] + 10
    [first] = [one for one in check(old, pa.table(new)) if one.kind == "distribution"]
    accepted = accept(old, first, by="anna", reason="prices rose", at="2026-11-24T03:14:07Z")
    [again] = [one for one in check(accepted, pa.table(made(3))) if one.kind == "distribution"]
    assert "accepted by anna at 2026-11-24T03:14:07Z: prices rose" in " ".join(beside(again))


texts = st.text(max_size=60)


@settings(deadline=None, max_examples=60)
@given(st.lists(texts, min_size=1, max_size=20, unique=True), texts, st.integers(0, 2**32))
def test_no_row_is_wider_than_the_screen_or_holds_a_control_character(
        values: list[str], name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = rng.dirichlet([1.0] * len(values)).tolist()
    shares = [[value, share] for value, share in zip(values, parts, strict=True)]
    back = [[value, share] for value, share in zip(values, parts[::-1], strict=True)]
    finding = Finding(column=name, kind="categories", severity="suspicious",
                      sentence=f"In {name} shares shifted.", expected=name, seen=name,
                      place=["columns", name, "categories"], before={"shares": shares},
                      after={"shares": back})
    for lines in (beside(finding), beside(finding.model_copy(update={"kind": "type"}))):
        assert all(cells(line) <= 80 and line.isprintable() for line in lines)


@given(texts, st.integers(1, 30))
def test_a_text_is_fitted_to_its_cells(text: str, width: int) -> None:
    assert cells(fit(text, width)) == width


@given(st.floats(0, 1))
def test_a_bar_is_as_long_as_its_part_and_never_nothing_for_something(part: float) -> None:
    assert len(bar(part)) <= 20 and (len(bar(part)) > 0) == (part > 0)
    assert abs(len(bar(part)) - part * 20) <= 1
