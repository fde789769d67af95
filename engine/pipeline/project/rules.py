"""What the types of a project file cannot say: parts of it that do not fit each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.errors import UsageError
from engine.located import Located, Problem, did_you_mean
from engine.located.places import Where
from engine.pipeline.project.model import Project
from engine.pipeline.robustness.adversary import Adversarial
from engine.pipeline.statistics import metrics
from engine.pipeline.statistics.gates import Improvement, NonInferiority, Segments
from engine.serving.http_messages import MAX_BODY_BYTES

# Variables that a stage's process is given by the pipeline; see the contract of an entry.
GIVEN = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONHASHSEED")


def problems(project: Project, located: Located) -> Iterator[Problem]:
    """Every part that does not fit another, as problems at their lines."""
    yield from _columns(project, located)
    yield from _holdout(project, located)
    yield from _task(project, located)
    yield from _metrics(project, located)
    yield from _twice(project, located)
    yield from _tried_columns(project, located)
    yield from _credentials(project, located)
    yield from _staging(project, located)
    yield from _release(project, located)
    yield from _triggers(project, located)


def _columns(project: Project, located: Located) -> Iterator[Problem]:
    data = project.data
    for key in ("key", "features", "segments"):
        names: list[str] = getattr(data, key)
        for at, name in enumerate(names):
            if name in names[:at]:
                yield located.problem(("data", key, at), f"the column {name} is named twice in `{key}`",
                                      "remove one of the two")
    roles: list[tuple[Where, str, str]] = [(("data", "label"), "label", data.label)]
    roles += [(("data", role), role, name) for role, name in (("time", data.time), ("group", data.group))
              if name is not None]
    for at, (place, role, name) in enumerate(roles):
        for _, earlier, other in roles[:at]:
            if name == other:
                yield located.problem(place, f"the column {name} is both the {earlier} and the {role}",
                                      "a column has one of these parts")
    for key, why in (("features", "a model that sees the answer learns nothing else"),
                     ("segments", "segments are known before the answer is"),
                     ("key", "a key tells rows apart, whatever their answer")):
        for at, name in enumerate(getattr(data, key)):
            if name == data.label:
                yield located.problem(("data", key, at), f"the label {name} is among the {_said(key)}",
                                      f"{why}; remove it from `{key}`")
    for at, name in enumerate(data.features):
        if name == data.time:
            yield located.problem(("data", "features", at), f"the time {name} is among the features",
                                  "a moment never comes again; make columns such as the hour of it")
        if [name] == data.key:
            yield located.problem(("data", "features", at), f"the key {name} is among the features", "what "
                                  "names a row says nothing of another; remove it from `features`")
    for at, name in enumerate(data.segments):
        if name == data.time:
            yield located.problem(("data", "segments", at), f"the time {name} is among the segments",
                                  "every moment would be a segment; make a column such as the month of it")


def _said(key: str) -> str:
    return "columns of the key" if key == "key" else key


def _holdout(project: Project, located: Located) -> Iterator[Problem]:
    data, holdout = project.data, project.data.holdout
    place: Where = ("data", "holdout")
    if holdout.column is None:
        if holdout.value is not None:
            yield located.problem((*place, "is"), "`is` goes with `column`",
                                  "write {column: split, is: test}")
        return
    if holdout.value is None:
        yield located.problem((*place, "column"), "which value of the column is kept out is not said",
                              f"write {{column: {holdout.column}, is: test}}")
    if isinstance(holdout.value, list | dict):
        yield located.problem((*place, "is"), "`is` must be one value", "write text or a number")
    for role, name in (("label", data.label), ("time", data.time)):
        if holdout.column == name:
            yield located.problem((*place, "column"), f"the {role} {name} cannot say which rows are kept out",
                                  "keep out the newest rows by {last: 30d}" if role == "time" else
                                  "use a column of its own, or {share: 0.2}")
    if holdout.column in data.features:
        yield located.problem((*place, "column"), f"{holdout.column} is a feature too", "a column that tells "
                              "training from test is the same in every row that is trained on")


def _task(project: Project, located: Located) -> Iterator[Problem]:
    if project.task == "ranking" and project.data.group is None:
        yield located.problem(("data",), "a ranking task wants `group` in `data`: the column of the query "
                              "whose rows are ranked", "write group: query_id")
    classes = project.evaluate.classes
    place: Where = ("evaluate", "classes")
    if classes and project.task not in ("binary", "multiclass"):
        yield located.problem(place, f"a {project.task} task has no classes", "remove `classes`")
    elif classes and project.task == "binary" and len(classes) != 2:
        yield located.problem(place, f"a binary task has two classes, not {len(classes)}",
                              "name both, the one that is scored last; or write task: multiclass")
    elif len(set(classes)) < len(classes):
        yield located.problem(place, "a class is named twice", "name each once")


def _metrics(project: Project, located: Located) -> Iterator[Problem]:
    named: list[tuple[Where, str]] = [(("evaluate", "metrics", at), name)
                                      for at, name in enumerate(project.evaluate.metrics)]
    for at, gate in enumerate(project.gates):
        if isinstance(gate, Improvement | NonInferiority | Segments):
            named.append((("gates", at, "metric"), gate.metric))
        if isinstance(gate, Segments) and not project.data.segments:
            yield located.problem(("gates", at, "kind"), "a gate on segments wants `segments` in `data`",
                                  "write segments: [carrier] under data, or remove the gate")
    named += [(("robustness", "perturbations", at, "metric"), one.metric)
              for at, one in enumerate(project.robustness.perturbations) if one.metric is not None]
    for place, name in named:
        try:
            metrics.find(name, project.task)
        except UsageError:
            yield located.problem(place, f"there is no metric {name} of a {project.task} task",
                                  did_you_mean(name, metrics.names(project.task)))


def _twice(project: Project, located: Located) -> Iterator[Problem]:
    lists: list[tuple[Where, str, list[str]]] = [
        (("gates",), "gate", [gate.name for gate in project.gates]),
        (("robustness", "perturbations"), "perturbation",
         [one.name for one in project.robustness.perturbations]),
        (("robustness", "behaviours"), "behaviour", [one.name for one in project.robustness.behaviours])]
    for place, noun, names in lists:
        for at, name in enumerate(names):
            if name in names[:at]:
                yield located.problem((*place, at), f"the {noun} `{name}` is there twice",
                                      f"it is item {names.index(name) + 1} too; change or remove one")


def _tried_columns(project: Project, located: Located) -> Iterator[Problem]:
    """Columns that perturbations and behaviours name, where the features are named."""
    features = project.data.features
    if not features:
        return
    tried: list[tuple[Where, object]] = [
        (("robustness", "perturbations", at, "try"), one.try_)
        for at, one in enumerate(project.robustness.perturbations)]
    tried += [(("robustness", "behaviours", at, "expect", "change"), one.expect.change)
              for at, one in enumerate(project.robustness.behaviours) if hasattr(one.expect, "change")]
    for place, change in tried:
        names = [*getattr(change, "columns", []), *getattr(change, "categories", [])]
        if isinstance(column := getattr(change, "column", None), str):
            names.append(column)
        for name in names:
            if name not in features:
                what = "the search changes" if isinstance(change, Adversarial) else "the change is of"
                yield located.problem(place, f"{what} {name}, which is no feature",
                                      did_you_mean(name, features))


def _credentials(project: Project, located: Located) -> Iterator[Problem]:
    for name in project.train.credentials:
        place: Where = ("train", "credentials", name)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield located.problem(place, f"`{name}` is no name of an environment variable",
                                  "write letters, digits and underscores, such as STORE_TOKEN")
        elif name in GIVEN or name.startswith("OPSDECK_"):
            yield located.problem(place, f"the variable {name} is set by the pipeline", "use another name")


def _staging(project: Project, located: Located) -> Iterator[Problem]:
    if (largest := project.staging.largest_mb) * 1e6 > MAX_BODY_BYTES:
        yield located.problem(("staging", "largest_mb"), f"a model server takes requests of at most "
                              f"{MAX_BODY_BYTES / 1e6:.0f} MB (64 MiB), not of {largest:g}",
                              "ask for fewer rows at once: write largest_mb: 10")


def _release(project: Project, located: Located) -> Iterator[Problem]:
    release = project.release
    if release is None:
        return
    for name, value in release.params.items():
        place: Where = ("release", "params", name)
        if name in ("service", "to"):
            key = "service" if name == "service" else "variant"
            yield located.problem(place, f"the parameter {name} is given by `release.{key}`",
                                  f"set `{key}` and remove this")
        elif not isinstance(value, str | int | float | bool):
            yield located.problem(place, f"the parameter {name} must be text, a number, true or false",
                                  "a procedure's parameter is one value")


def _triggers(project: Project, located: Located) -> Iterator[Problem]:
    triggers = project.triggers
    if triggers is None:
        return
    if not (triggers.commits or triggers.data or triggers.cron or triggers.drift or triggers.webhook):
        yield located.problem(("triggers",), "nothing triggers this pipeline",
                              "write `cron`, `commits`, `data`, `drift: true` or `webhook: true` under it",
                              "warning")
    source = project.data.source
    if triggers.data is not None and source.command and not source.sources:
        yield located.problem(("triggers", "data"), "new data is not seen: it is made by a command that "
                              "names no sources", "name the files it reads under data.source.sources",
                              "warning")
    for at, cron in enumerate(triggers.cron):
        yield from _cron(located, ("triggers", "cron", at), cron.at, cron.zone)


def _cron(located: Located, place: Where, at: str, zone: str) -> Iterator[Problem]:
    import datetime as dt
    import zoneinfo

    from cronsim import CronSim, CronSimError

    try:
        # Any moment will do: whether it ever comes is the same from all of them.
        next(CronSim(at, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)))
    except CronSimError as error:
        said = str(error)
        what = said[:1].lower() + said[1:] if said.startswith("Bad ") else "it has not five parts"
        yield located.problem((*place, "at"), f"`{at}` is no cron expression: {what}",
                              "write minute, hour, day of month, month, day of week, such as \"30 2 * * 1\"")
    except StopIteration:
        yield located.problem((*place, "at"), f"the moment `{at}` never comes", "look at the day and month")
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield located.problem((*place, "zone"), f"there is no time zone {zone}",
                              did_you_mean(zone, zoneinfo.available_timezones())
                              if zoneinfo.available_timezones() else "write UTC")
