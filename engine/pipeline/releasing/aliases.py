"""`python -m engine.pipeline.releasing.aliases VERB`: a registry's aliases after a release, in a process of
its own, since the engine does not load MLflow. Prints one JSON object; an error is one too, with exit 1.

    released   champion is this version, the one before it previous, and it is no candidate any more
    refused    it is no candidate any more; why stands in its tags
"""

from __future__ import annotations

import argparse
import json
import os
import sys
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.pipeline.releasing.aliases")
    parser.add_argument("verb", choices=["released", "refused"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--why", required=True)
    arguments = parser.parse_args()
    try:
        registry = Registry(os.environ["OPSDECK_TRACKING"])  # it may hold a password
        act = released if arguments.verb == "released" else refused
        print(json.dumps(act(registry, arguments.model, arguments.version, arguments.why[:4000])))
    except OpsdeckError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
