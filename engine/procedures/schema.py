"""The JSON Schema of the language, for editors. `schema.json` beside this file is its output:

    python -m engine.procedures.schema > engine/procedures/schema.json
"""

from __future__ import annotations

import json
from typing import Any

from engine.procedures.document import Document
from engine.procedures.rollouts import FORMS

ID = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a procedure file, generated from the models."""
    schema = Document.model_json_schema(by_alias=True)
    for name, keys in (("Step", ("use", "shell", "manual")), ("Operation", ("use", "shell"))):
        schema["$defs"][name]["oneOf"] = [{"required": [key]} for key in keys]
    schema["required"].remove("steps")
    schema["oneOf"] = [{"required": ["steps"]}, {"required": ["rollout"]}]
    plan = schema["$defs"]["Rollout"]
    plan["oneOf"] = [{"required": [form]} for form in FORMS]
    params = schema["properties"]["params"]
    params["propertyNames"] = {"pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"}
    return {"$schema": ID, "title": "Opsdeck procedure, version 1",
            **{key: value for key, value in schema.items() if key != "title"}}


def text() -> str:
    """The shipped file's text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
