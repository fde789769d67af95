"""The split that a project asks for, applied to what was read; and one that leaves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.located import did_you_mean
from engine.pipeline.expectations.model import Finding
from engine.pipeline.project.model import Holdout, Project
from engine.pipeline.stages.data import splitting
from engine.pipeline.stages.data.naming import counted, found, listed
from engine.pipeline.stages.data.scanning import Scan
from engine.pipeline.stages.data.writing import Split
from engine.words import span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]


def split(project: Project, made: Scan, name: str) -> tuple[Split | None, list[Finding]]:
    """The split, or None and why there is none."""
    data = project.data
    held = _held(project, made)
    rest = ~held
    train = rest
    if made.times is not None:
        train = splitting.window(made.times, rest, data.window.last)
    if not held.any() or not train.any():
        return None, [_nothing(data.holdout, made, name, held)]
    weights = None
    if data.window.half_life is not None and made.times is not None:
        weights = splitting.weights(made.times[train], data.window.half_life)
    return Split(train, held, weights), []


def _held(project: Project, made: Scan) -> Bools:
    import numpy as np

    holdout = project.data.holdout
    if holdout.last is not None:
        assert made.times is not None
        return splitting.by_time(made.times, holdout.last)
    if holdout.share is not None:
        units = made.groups if made.groups is not None else made.keys if made.keys is not None else (
            np.arange(made.rows, dtype=np.uint64))
        return splitting.by_share(units, holdout.share, project.seed)
    assert made.marked is not None
    return made.marked


def _nothing(holdout: Holdout, made: Scan, name: str, held: Bools) -> Finding:
    everything = bool(held.all())
    left = "nothing is left to train on" if everything else "nothing is held out"
    if holdout.last is not None:
        assert made.clock is not None
        covers = span((made.clock.newest - made.clock.oldest) / splitting.SECOND)
        said = (f"All {counted(made.rows, 'row')} of {name} lie within {covers}, and the newest "
                f"{span(holdout.last)} are held out: {left}.")
        wanted, column = f"rows older than {span(holdout.last)}", made.clock.column
    elif holdout.column is not None:
        column = holdout.column
        others = [str(one) for one in made.values if one is not None]
        if everything:
            said = f"Every row of {name} has {holdout.value} in {column}: {left}."
        else:
            hint = did_you_mean(str(holdout.value), others)
            near = f" {hint[0].upper()}{hint[1:]}" if hint.startswith("did you mean") else ""
            said = (f"No row of {name} has {holdout.value} in {column}, which holds {listed(others, 5)}: "
                    f"{left}.{near}")
        wanted = f"some rows with {holdout.value} in {column}, and some without"
    else:
        column = ""
        unit = "group" if made.groups is not None else "key" if made.keys is not None else "row"
        said = f"There is one {unit} in {name}, which cannot be split: {left}."
        wanted = f"two {unit}s or more"
    return found("holdout", column, said, hard=True, expected=wanted, seen=left)
