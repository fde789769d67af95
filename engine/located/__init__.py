"""YAML files whose every value knows its line, and what is wrong with them in plain sentences."""

from __future__ import annotations

from engine.located.invalid import fields_at, problems_of, validate
from engine.located.names import did_you_mean, nearest
from engine.located.places import Misplaced
from engine.located.reading import MAX_BYTES, Located, Mark, Problem, Where, load, load_bytes

__all__ = ["MAX_BYTES", "Located", "Mark", "Misplaced", "Problem", "Where", "did_you_mean", "fields_at",
           "load", "load_bytes", "nearest", "problems_of", "validate"]
