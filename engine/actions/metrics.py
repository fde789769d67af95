"""`metrics.*`: reading a service's live signals, and waiting until they are good for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from engine.actions import signals
from engine.errors import ActionFailed, NotFound
from engine.fields import Duration
from engine.procedures import evaluation
from engine.procedures.actions import Action, Context, Params
from engine.procedures.scanner import references
from engine.words import SERVICE, nearest, span

NAMES = (*signals.NUMBERS, "errors", "stale")
POLL = 0.5  # seconds; the collector reads its targets once a second
PROGRESS = 5.0  # seconds between two lines of progress when nothing changes


class Read(Params):
    """The service whose signals are read."""

    service: Annotated[str, Field(pattern=SERVICE)]


class Check(Params):
    """`condition`: CEL over the signals of `service`, or of its `variant`: rps, p50_ms, p95_ms,
    p99_ms, error_ratio, errors (per second by type, `errors.timeout`), in_flight, weight, stale,
    age_s. It must hold `for` so long without a break, and must have done so `within` that time
    (left out: `for` and two minutes more)."""

    service: Annotated[str, Field(pattern=SERVICE)]
    variant: Annotated[str, Field(pattern=SERVICE)] | None = None
    condition: Annotated[str, Field(min_length=1)]
    hold: Annotated[Duration, Field(alias="for", le=86400)] = 0.0
    within: Annotated[Duration, Field(le=86400)] | None = None

    @field_validator("condition")
    @classmethod
    def _is_cel(cls, condition: str) -> str:
        try:
            evaluation.compile_only(condition)
        except evaluation.ExpressionError as error:
            raise ValueError(error.message) from None
        for name, *_ in references(condition):
            if name not in NAMES:
                raise ValueError(f"there is no signal {name}. {nearest(str(name), NAMES)}")
        return condition

    @model_validator(mode="after")
    def _long_enough(self) -> Check:
        if self.within is not None and self.within < self.hold:
            raise ValueError("within is shorter than for: it could never hold so long")
        return self

    @property
    def deadline(self) -> float:
        return self.hold + 120.0 if self.within is None else self.within

    @property
    def target(self) -> str:
        return f"{self.service} {self.variant}" if self.variant else self.service


async def read(ctx: Context, params: Read) -> dict[str, Any]:
    """Effect none. Result: service and variants.<name>, each as `signals.settled` says (numbers are
    -1.0 where not known, see `known`); slowest and most_errors, the variants with the highest
    p99_ms and error_ratio; main_error, the type with the most errors a second, and main_error_at,
    the variant that has most of those: "" where there is none."""
    raw = ctx.signals.read(params.service)
    names = await signals.variants(ctx, params.service, raw)
    variants = {}
    for name in names:
        try:
            variants[name] = signals.settled(ctx.signals.read(params.service, name))
        except NotFound:
            variants[name] = signals.settled({})
    whole = signals.settled(raw)
    for name, entry in {params.service: whole, **variants}.items():
        ctx.log(f"{name}: {_numbers(entry)}")
    kind, variant = signals.main_error(variants)
    return {"service": whole, "variants": variants,
            "slowest": signals.worst(variants, "p99_ms"),
            "most_errors": signals.worst(variants, "error_ratio"),
            "main_error": kind, "main_error_at": variant}


async def check(ctx: Context, params: Check) -> dict[str, Any]:
    """Effect none. Result: held_s, and last: the signals at the end, as `signals.settled` says.

    A signal that is stale or not known breaks the hold. Raises ActionFailed at the deadline, with
    what it was like at last, and NotFound for an unknown service or variant.
    """
    begun = ctx.clock()
    since: float | None = None
    told: tuple[float, str] | None = None
    while True:
        raw = ctx.signals.read(params.service, params.variant)
        now = ctx.clock()
        state = judge(params.condition, raw)
        since = None if state != "holds" else now if since is None else since
        held = 0.0 if since is None else now - since
        if since is not None and held >= params.hold:
            ctx.log(f"{params.condition} held for {span(held)} ({_referenced(params, raw)})")
            return {"held_s": round(held, 3), "last": signals.settled(raw)}
        if told is None or state != told[1] or now - told[0] >= PROGRESS:
            progress = f" for {span(held)} of {span(params.hold)}" if since is not None else ""
            ctx.log(f"{params.condition} {state}{progress} ({_referenced(params, raw)})")
            told = now, state
        if now - begun + (params.hold - held) > params.deadline:
            how = f"for {span(params.hold)} " if params.hold else ""
            raise ActionFailed(
                f"`{params.condition}` did not hold {how}within {span(params.deadline)} on "
                f"{params.target}: at the end it {state} ({_referenced(params, raw)}).")
        await ctx.sleep(POLL)


def judge(condition: str, raw: Mapping[str, Any]) -> str:
    """`holds`, or what is the matter, as the end of a sentence. Pure."""
    if raw.get("stale", True):
        age = raw.get("age_s")
        return "cannot be told: the signals are stale" + (f" ({span(age)} old)" if age else "")
    names = {name: raw.get(name) for name in NAMES} | {"errors": signals.errors(raw)}
    for path in references(condition):
        value = names.get(str(path[0]))
        if path[0] == "errors" and len(path) > 1 and value is not None:
            value = value.get(path[1])
        if value is None or (path == ("errors",) and None in value.values()):
            return f"cannot be told: {evaluation.shown(path)} is not known"
    return "holds" if evaluation.truth(condition, names) else "does not hold"


def _referenced(params: Check, raw: Mapping[str, Any]) -> str:
    names = dict.fromkeys(str(path[0]) for path in references(params.condition))
    shown = {name: signals.errors(raw) if name == "errors" else raw.get(name) for name in names}
    return ", ".join(f"{name} {_value(value)}" for name, value in shown.items()) or "no signal"


def _value(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, Mapping):
        some = {kind: rate for kind, rate in value.items() if rate}
        return ", ".join(f"{kind} {rate:.3g}/s" for kind, rate in some.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(entry: Mapping[str, Any]) -> str:
    if entry["stale"]:
        return "stale"
    rest = {"req/s": "rps", "p50": "p50_ms", "p95": "p95_ms", "p99": "p99_ms"}
    shown = [f"{word} {entry[name]:.4g}" for word, name in rest.items() if entry[name] >= 0]
    if entry["error_ratio"] >= 0:
        shown.append(f"errors {entry['error_ratio'] * 100:.2f} %")
    return ", ".join(shown) or "nothing known yet"


def _describe(params: Check) -> str:
    hold = f" for {span(params.hold)}" if params.hold else ""
    return f"metrics.check {params.target} {params.condition}{hold} within {span(params.deadline)}"


ACTIONS: list[Action[Any]] = [
    Action(name="metrics.read", effect="none", params=Read, run=read, service="service",
           summary="Read a service's live signals, whole and by variant",
           describe=lambda p: f"metrics.read {p.service}"),
    Action(name="metrics.check", effect="none", params=Check, run=check, service="service",
           summary="Wait until a condition on live signals has held for a while",
           describe=_describe),
]
