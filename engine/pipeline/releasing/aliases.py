"""`python -m engine.pipeline.releasing.aliases VERB`: a registry's aliases after a release, in a process of
its own, since the engine does not load MLflow. Prints one JSON object; an error is one too, with exit 1.

    released   champion is this version, the one before it previous, and it is no candidate any more
    refused    it is no candidate any more; why stands in its tags
    held       which version each alias of the model has; changes nothing
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.errors import OpsdeckError
from engine.pipeline.releasing.registry import CANDIDATE, CHAMPION, OUTCOME, PREVIOUS, Registry


def released(registry: Registry, model: str, version: str, why: str) -> dict[str, Any]:
    """Safe to repeat: what an end in between leaves is completed by another try."""
    held = registry.aliases(model)
    before = held.get(CHAMPION)
    if before is not None and before != version:
        registry.point(model, PREVIOUS, before)
    registry.tag(model, version, OUTCOME, why)
    registry.point(model, CHAMPION, version)
    if held.get(CANDIDATE) == version:
        registry.point(model, CANDIDATE, None)
    return {"champion": version, "previous": registry.aliases(model).get(PREVIOUS)}


def refused(registry: Registry, model: str, version: str, why: str) -> dict[str, Any]:
    registry.tag(model, version, OUTCOME, why)
    if registry.aliases(model).get(CANDIDATE) == version:
        registry.point(model, CANDIDATE, None)
    return {"champion": registry.aliases(model).get(CHAMPION)}


def held(tracking: str, model: str) -> dict[str, Any]:
    """Of a registry that was never written, none; it is not made."""
    path = tracking.removeprefix("sqlite:///")
    there = path == tracking or Path(path).exists()
    return {"held": Registry(tracking).aliases(model) if there else {}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.pipeline.releasing.aliases")
    parser.add_argument("verb", choices=["released", "refused", "held"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", default="")
    parser.add_argument("--why", default="")
    arguments = parser.parse_args()
    try:
        tracking = os.environ["OPSDECK_TRACKING"]  # it may hold a password
        if arguments.verb == "held":
            print(json.dumps(held(tracking, arguments.model)))
            return 0
        registry = Registry(tracking)
        act = released if arguments.verb == "released" else refused
        print(json.dumps(act(registry, arguments.model, arguments.version, arguments.why[:4000])))
    except OpsdeckError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
