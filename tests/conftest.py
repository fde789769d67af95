from __future__ import annotations

import os

# Commands started by tests may keep their bytecode: without it each start compiles the whole engine.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# No test speaks to an engine of the person who runs it.
os.environ.pop("OPSDECK_HOME", None)
