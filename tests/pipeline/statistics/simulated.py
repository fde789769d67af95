"""Worlds whose true metrics are known, for tests of coverage, type I error and power."""

from __future__ import annotations

import numpy as np

from engine.pipeline.statistics.labelled import Labelled, labelled


def scored(rng: np.random.Generator, n: int, *, signal: float = 1.0, groups: int = 0) -> Labelled:
    """Binary rows with calibrated probabilities: logit(p) ~ N(-0.5, signal²). With `groups`, rows of one
    share their logit and so their luck."""
    who = rng.integers(0, groups, n) if groups else np.arange(n)
    logits = rng.normal(-0.5, signal, groups or n)[who]
    p = 1 / (1 + np.exp(-logits))
    return labelled("binary", rng.random(n) < p, p, groups=who if groups else None)


def two_models(rng: np.random.Generator, n: int, *, noise: tuple[float, float] = (0.5, 0.5),
               groups: int = 0) -> tuple[Labelled, Labelled]:
    """Two models of the same rows, each the true logit with noise of its own of these sizes."""
    who = rng.integers(0, groups, n) if groups else np.arange(n)
    logits = rng.normal(0, 1, groups or n)[who]
    labels = rng.random(n) < 1 / (1 + np.exp(-logits))
    given = who if groups else None
    heard = [logits + size * rng.normal(size=groups or n)[who] for size in noise]
    first, second = (labelled("binary", labels, 1 / (1 + np.exp(-one)), groups=given) for one in heard)
    return first, second
