"""`python -m engine.pipeline.building.remote URI`: what names the data at an S3 address, as JSON.

{"dataset": {"uri", "sha256" or "version", …}} or {"error", "hint"}; exit 0 or 1.
"""

from __future__ import annotations

import json
import os
import sys

from engine.errors import OpsdeckError


def main(uri: str) -> int:
    import msgspec

    from engine.reproduce import s3

    try:
        found = s3.dataset(uri, s3.client(os.environ.get("AWS_ENDPOINT_URL_S3")
                                          or os.environ.get("AWS_ENDPOINT_URL")))
    except OpsdeckError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return 1
    print(json.dumps({"dataset": msgspec.to_builtins(found)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
