"""The shipped JSON Schema is the language's."""

from __future__ import annotations

import json
from pathlib import Path

import engine.procedures
from engine.procedures.document import Document, Step
from engine.procedures.schema import json_schema, text


def test_the_shipped_file_is_what_the_models_say() -> None:
    file = Path(engine.procedures.__file__).parent / "schema.json"
    assert file.read_text() == text(), (
        "run: python -m engine.procedures.schema > engine/procedures/schema.json")


def test_it_names_every_key_as_it_is_written_and_no_other() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Document.model_fields)
    step = schema["$defs"]["Step"]
    assert set(step["properties"]) == {f.alias or n for n, f in Step.model_fields.items()}
    assert "with" in step["properties"] and step["additionalProperties"] is False
    assert step["oneOf"] == [{"required": ["use"]}, {"required": ["shell"]}, {"required": ["manual"]}]


def test_a_duration_may_be_a_number_or_a_text() -> None:
    timeout = json_schema()["$defs"]["Step"]["properties"]["timeout"]
    assert [kind["type"] for kind in timeout["anyOf"]] == ["number", "string"]
    assert json.loads(text()) == json_schema()
