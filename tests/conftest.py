from __future__ import annotations

import os
from typing import Any

# Commands started by tests may keep their bytecode: without it each start compiles the whole engine.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# No test speaks to an engine of the person who runs it.
os.environ.pop("OPSDECK_HOME", None)

# Files that share what there is one of: the live demo, and this machine's user database.
TOGETHER = {
    "tests/end_to_end/test_incident_runbooks_live.py": "demo",
    "tests/end_to_end/test_console_live.py": "demo",
    "tests/end_to_end/test_rollouts.py": "demo",
    "tests/end_to_end/test_two_people.py": "users",
    "tests/daemon/test_strangers.py": "users",
}


# What takes longest begins first, so that no worker is left with it while the other has no work.
FIRST = ("demo", "tests/crash/", "tests/console/test_terminal.py", "tests/end_to_end/", "tests/demo/")


def unit(nodeid: str) -> str:
    """What runs on one worker, in order: a file's tests, and those of files that belong together."""
    path = nodeid.split("::", 1)[0]
    return TOGETHER.get(path, path)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    def rank(item: Any) -> int:
        return next((at for at, start in enumerate(FIRST) if unit(item.nodeid).startswith(start)), len(FIRST))

    items.sort(key=rank)


def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False  # in the order of the collection, not of the number of tests
    return ByUnit(config, log)
