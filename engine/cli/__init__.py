"""The command `opsdeck`: one file per verb, and no work at import time."""
