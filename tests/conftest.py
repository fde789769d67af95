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
    "tests/end_to_end/test_two_people.py": "users",
    "tests/daemon/test_strangers.py": "users",
}


def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """A file's tests run on one worker, in order, and so do those of files that belong together."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", 1)[0]
            return TOGETHER.get(path, path)

    return ByFile(config, log)
