"""What a challenger must show against the champion, as data: read from a project's file, decided in
`comparison`. Pure.

    gates:
      - {kind: non_inferiority, metric: log_loss, margin: 0.005}
      - {kind: improvement, metric: roc_auc, at_least: 0.002}
      - {kind: segments, metric: log_loss, margin: 0.02, require: no harm}
      - {kind: latency, quantile: 0.99, at_most_ms: 50, at_most_ratio: 1.2}
      - {kind: memory, at_most_mb: 512, at_most_ratio: 1.2}

Margins are in the metric's own unit, and a gain is positive when the challenger is better, whichever way
the metric goes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.fields import Model, Text

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Improvement(Model):
    """The challenger is better by more than `at_least`: shown, not just measured."""

    kind: Literal["improvement"] = "improvement"
    metric: Text
    at_least: NotNegative = 0.0

    @property
    def threshold(self) -> float:
        return self.at_least

    @property
    def name(self) -> str:
        return f"{self.metric} better" + (f" by {self.at_least:g}" if self.at_least else "")


class NonInferiority(Model):
    """The challenger is worse by less than `margin`, if at all: shown."""

    kind: Literal["non_inferiority"] = "non_inferiority"
    metric: Text
    margin: Positive

    @property
    def threshold(self) -> float:
        return -self.margin

    @property
    def name(self) -> str:
        return f"{self.metric} not worse by {self.margin:g}"


class Segments(Model):
    """Every named segment. `no harm`: none is shown to be worse by more than `margin`, over all segments with
    the one error rate (Holm), so that many segments do not refuse a good model by chance; a segment of few
    rows passes unless it is far worse. `shown`: each is shown to be worse by less than `margin`, which few
    rows cannot do; that all must agree makes an adjustment needless (Berger 1982)."""

    kind: Literal["segments"] = "segments"
    metric: Text
    margin: NotNegative
    require: Literal["no harm", "shown"] = "no harm"

    @model_validator(mode="after")
    def _can_be_shown(self) -> Self:
        if self.require == "shown" and self.margin == 0:
            raise ValueError("with `require: shown` a margin is more than 0")
        return self

    @property
    def name(self) -> str:
        told = "no harm beyond" if self.require == "no harm" else "shown within"
        return f"{self.metric} of every segment, {told} {self.margin:g}"


class Latency(Model):
    """The quantile of the challenger's latency: below so many milliseconds, and below so many times the
    champion's; each shown by its upper bound."""

    kind: Literal["latency"] = "latency"
    quantile: Fraction = 0.99
    at_most_ms: Positive | None = None
    at_most_ratio: Positive | None = None

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.at_most_ms is None and self.at_most_ratio is None:
            raise ValueError("a latency gate wants `at_most_ms` or `at_most_ratio`")
        return self

    @property
    def name(self) -> str:
        return f"latency p{100 * self.quantile:g}"


class Memory(Model):
    """The challenger's peak memory, as measured."""

    kind: Literal["memory"] = "memory"
    at_most_mb: Positive | None = None
    at_most_ratio: Positive | None = None

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.at_most_mb is None and self.at_most_ratio is None:
            raise ValueError("a memory gate wants `at_most_mb` or `at_most_ratio`")
        return self

    @property
    def name(self) -> str:
        return "memory"


Gate = Annotated[Improvement | NonInferiority | Segments | Latency | Memory, Field(discriminator="kind")]
