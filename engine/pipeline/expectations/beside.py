"""What was expected beside what was found, as rows of text for a screen of 80 columns. Pure."""

from __future__ import annotations

import unicodedata
from typing import Any

from engine.pipeline.expectations.findings import percent
from engine.pipeline.expectations.model import Finding

WIDTH = 80
BAR = 20
MOST_ROWS = 12
LEVELS = (
    (0.01, "1 %"),
    (0.05, "5 %"),
    (0.25, "25 %"),
    (0.5, "median"),
    (0.75, "75 %"),
    (0.95, "95 %"),
    (0.99, "99 %"),
)


def beside(finding: Finding) -> list[str]:
    """Rows of at most 80 columns: the sentence, the effect, and expected and seen side by side, with
    quantiles and a histogram for numbers and shares for categories."""
    lines = wrapped(visible(str(finding))) + wrapped(_effect(finding))
    before, after = finding.before or {}, finding.after or {}
    if finding.kind == "distribution" and after:
        lines += ["", *_histogram(before, finding.shares), "", *_quantiles(before, after)]
    elif finding.kind in ("categories", "unknown category"):
        lines += ["", *_categories(before, after)]
    else:
        lines += ["", *_columns([("expected", "seen"), (visible(finding.expected), visible(finding.seen))])]
    if accepted := before.get("accepted"):
        said = f"The expectation was accepted by {accepted['by']} at {accepted['at']}: {accepted['reason']}"
        lines += ["", *wrapped(visible(said))]
    return lines


def _effect(finding: Finding) -> str:
    """`Kolmogorov-Smirnov distance 0.31 (margin 0.1), by chance 2e-16, 10,000 rows`."""
    if finding.effect is None or not finding.measure:
        return ""
    parts = [f"{finding.measure} {finding.effect:.3g}"]
    if finding.margin is not None:
        parts[0] += f" (margin {finding.margin:g})"
    if finding.chance is not None:
        parts.append(
            f"by chance {finding.chance:.1g}" if finding.chance > 1e-12 else "by chance less than 1e-12"
        )
    parts += [f"{name} {value:.3g}" for name, value in finding.more.items()]
    if finding.rows:
        parts.append(f"{finding.rows:,} rows")
    return ", ".join(parts)


def _histogram(before: dict[str, Any], seen: list[float]) -> list[str]:
    """Shares between points of the old distribution, each about a tenth of its rows."""
    rows: list[tuple[str, float, float]] = []
    low, last, last_seen = None, 0.0, 0.0
    for at, share, now in zip(before["at"], before["share"], seen, strict=True):
        first = low is None and not rows
        if first and now > 0.005 + 5 * share:
            pass  # much lies at or below the least value seen: it gets a row of its own
        elif share - last < 0.095 and share < 1:
            continue
        label = f"up to {at:g}" if low is None else f"{low:g} to {at:g}"
        rows.append((label, share - last, now - last_seen))
        low, last, last_seen = at, share, now
    rows.append((f"above {before['at'][-1]:g}", 0.0, 1 - last_seen))
    return _bars("values", rows)


def _categories(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The values whose share changed most, then what is left."""
    old, new = dict(before["shares"]), dict(after.get("shares", []))
    names = sorted(
        old.keys() | new.keys(), key=lambda name: (-abs(new.get(name, 0) - old.get(name, 0)), name)
    )
    rows = [(name if name else '""', old.get(name, 0.0), new.get(name, 0.0)) for name in names[:MOST_ROWS]]
    rows.sort(key=lambda row: (-row[1], -row[2], row[0]))
    rest = (1 - sum(row[1] for row in rows), 1 - sum(row[2] for row in rows))
    if max(rest) > 1e-9:
        rows.append(("all others", max(0.0, rest[0]), max(0.0, rest[1])))
    return _bars("value", rows)


def _bars(head: str, rows: list[tuple[str, float, float]]) -> list[str]:
    largest = max([share for row in rows for share in row[1:]] + [1e-12])
    lines = [f"{fit(head, 22)} {'before':>6} {'':{BAR}} {'now':>6}"]
    for label, old, new in rows:
        lines.append(f"{fit(visible(label), 22)} {_share(old):>6} {bar(old / largest):{BAR}} "
                     f"{_share(new):>6} {bar(new / largest)}".rstrip())
    return lines


def _share(share: float) -> str:
    return percent(share) if len(percent(share)) <= 6 else f"{100 * share:.0f} %"


def bar(part: float) -> str:
    """A bar of eighths of a cell; at least one eighth for what is there at all."""
    eighths = round(max(0.0, min(1.0, part)) * BAR * 8)
    if part > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _quantiles(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    rows = [("", "before", "now")]
    rows += [(label, f"{_at(before, level):.6g}", f"{_at(after, level):.6g}") for level, label in LEVELS]
    for key, label in (("mean", "mean"), ("deviation", "std. deviation")):
        if before.get(key) is not None and after.get(key) is not None:
            rows.append((label, f"{before[key]:.6g}", f"{after[key]:.6g}"))
    rows.append(("rows", f"{before['rows']:,}", f"{after['rows']:,}"))
    return [f"{label:<22} {old:>16} {new:>16}".rstrip() for label, old, new in rows]


def _at(distribution: dict[str, Any], level: float) -> float:
    for at, share in zip(distribution["at"], distribution["share"], strict=True):
        if share >= level - 1e-12:
            return float(at)
    return float(distribution["at"][-1])


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    half = (WIDTH - 2) // 2
    lines = []
    for left, right in rows:
        lefts, rights = wrapped(left, half) or [""], wrapped(right, half) or [""]
        for at in range(max(len(lefts), len(rights))):
            one = lefts[at] if at < len(lefts) else ""
            two = rights[at] if at < len(rights) else ""
            lines.append(f"{fit(one, half)}  {fit(two, half)}".rstrip())
    return lines


def visible(text: str) -> str:
    """The text with every control character, and whatever else a terminal would not show, as its escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
               for one in text)


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """The text in lines of at most `width` columns, broken between words where it can be."""
    lines: list[str] = []
    for word in text.split():
        if lines and cells(lines[-1]) + 1 + cells(word) <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for one in word:
            if cells(lines[-1]) + cells(one) > width:
                lines.append("")
            lines[-1] += one
    return lines


def fit(text: str, width: int) -> str:
    """The text in exactly `width` columns: cut with an ellipsis, or filled up."""
    if cells(text) > width:
        kept = ""
        for one in text:
            if cells(kept + one) > width - 1:
                break
            kept += one
        text = kept + "…"
    return text + " " * (width - cells(text))
