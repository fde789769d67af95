"""How alike two small pictures are, in eleven ways: what the ranking learns to weigh.

A picture is 8 x 8, its pixels from 0 (paper) to 16 (ink). Cosines of the same picture are 1 in any ink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SIDE = 8
HALVES = {"top": np.s_[:4, :], "bottom": np.s_[4:, :], "left": np.s_[:, :4], "right": np.s_[:, 4:]}
FEATURES = ("pixels", "seen", "shifted", "coarse", "rows", "columns", "top", "bottom", "left", "right", "ink")


def compare(query: Floats, candidates: Floats) -> dict[str, Floats]:
    """FEATURES of a query (8, 8) with each of n candidates (n, 8, 8), each (n,): more alike is larger."""
    inked = query.any(axis=1)  # where a part of the query is hidden, its rows hold no ink
    parts = {name: _cosine(query[half], candidates[:, *half]) for name, half in HALVES.items()}
    return {
        "pixels": _cosine(query, candidates),
        "seen": _cosine(query[inked], candidates[:, inked]),
        "shifted": np.max([_cosine(query, moved) for moved in _neighbours(candidates)], axis=0),
        "coarse": _cosine(_coarse(query[None])[0], _coarse(candidates)),
        "rows": _cosine(query.sum(axis=1), candidates.sum(axis=2)),
        "columns": _cosine(query.sum(axis=0), candidates.sum(axis=1)),
        **parts,
        "ink": -np.abs(candidates.mean(axis=(1, 2)) - query.mean()),
    }


def _cosine(one: Floats, many: Floats) -> Floats:
    """Of one array with each of many; 0 where either holds no ink."""
    flat, others = one.ravel(), many.reshape(len(many), -1)
    lengths = np.linalg.norm(flat) * np.linalg.norm(others, axis=1)
    dots = (others * flat).sum(axis=1)
    return np.asarray(np.divide(dots, lengths, out=np.zeros(len(many)), where=lengths > 0))


def _coarse(pictures: Floats) -> Floats:
    """Means of 2 x 2 pixels: (n, 4, 4)."""
    return np.asarray(pictures.reshape(len(pictures), 4, 2, 4, 2).mean(axis=(2, 4)))


def _neighbours(pictures: Floats) -> list[Floats]:
    """The pictures moved by at most one pixel in each direction; what leaves on one side is lost."""
    wide = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    return [wide[:, y:y + SIDE, x:x + SIDE] for y in range(3) for x in range(3)]
