"""Whether the product can live with the answers: its schema, its headers, and the same numbers everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.pipeline.stages.staging.asking import asker
from engine.pipeline.stages.staging.checks import Check
from engine.pipeline.stages.staging.requests import Held, outputs
from engine.serving.correlation import CORRELATION_HEADER

VERSION_HEADER = "x-opsdeck-model-version"
IN_ONE = 500  # rows of one request
ALONE = 20  # rows that are asked for again, one a request
BUT = "but for the rounding of sums of another number of rows"


def validator(path: Path | None) -> Callable[[Any], str | None]:
    """Tells what is wrong with an answer by the product's schema; without one, nothing. Raises UsageError
    for a file that is no JSON schema."""
    if path is None:
        return lambda answer: None
    import jsonschema

    try:
        schema = json.loads(path.read_bytes())
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except OSError as error:
        raise UsageError(f"The downstream schema cannot be read: {error.strerror}.", where=str(path),
                         hint="staging.downstream names it in opsdeck.pipeline.yaml.") from error
    except (ValueError, jsonschema.SchemaError) as error:
        said = error.message if isinstance(error, jsonschema.SchemaError) else str(error)
        raise UsageError(f"The downstream schema is no JSON schema: {said}", where=str(path)) from error
    made = kind(schema)

    def wrong(answer: Any) -> str | None:
        found = next(iter(made.iter_errors(answer)), None)
        return None if found is None else f"{found.json_path}: {found.message[:200]}"
    return wrong


def contract(ports: Sequence[int], held: Held, version: str, wrong: Callable[[Any], str | None], schema: str
             ) -> Iterator[Check]:
    """Every row of `held`, one a request and many in one."""
    for number, port in enumerate(ports, 1):
        of = f"replica {number}"
        yield _answers(port, held, wrong, schema, of)
        yield _headers(port, held, version, of)
        yield _equal(port, held, of)


def _answers(port: int, held: Held, wrong: Callable[[Any], str | None], schema: str, of: str) -> Check:
    expected = f"every answer is valid by {schema}" if schema else "a finite prediction for every row"
    with asker(port) as one:
        for at in range(len(held.rows)):
            answer = one.ask(held.body([at]))
            problem = answer.words() if answer.status != 200 else None
            if problem is None:
                try:
                    given = outputs(answer)
                    problem = wrong(json.loads(answer.body)) or (
                        None if given else "it has no prediction")
                except ValueError as error:
                    problem = str(error)
            if problem is not None:
                return Check(f"answers of {of}", "contract", expected, f"row {at}: {problem}", False)
    return Check(f"answers of {of}", "contract", expected, f"{len(held.rows):,} answers, all valid", True)


def _headers(port: int, held: Held, version: str, of: str) -> Check:
    expected = f"the caller's correlation id back, and version {version}"
    with asker(port) as one:
        for id_ in ("staging-1", "A.b_c-9", "f" * 64):
            headers = one.ask(held.body([0]), {CORRELATION_HEADER: id_}).headers
            back, of_model = headers.get(CORRELATION_HEADER), headers.get(VERSION_HEADER)
            seen = f"{back or 'no id'}, version {of_model or 'none'}"
            if back != id_ or of_model != version:
                return Check(f"headers of {of}", "contract", expected, f"for {id_}: {seen}", False)
    return Check(f"headers of {of}", "contract", expected, "the ids, and the version", True)


def _equal(port: int, held: Held, of: str) -> Check:
    """Many rows in a request, then a few of them each alone: what else is asked for changes no prediction."""
    name, count = f"predictions of {of}", len(held.rows)
    parts = [range(start, min(start + IN_ONE, count)) for start in range(0, count, IN_ONE)]
    bits = all(held.exact(at) for at in parts)
    expected = f"what the evaluation predicted, {'bit for bit' if bits else BUT}"
    apart, output = 0.0, ""
    with asker(port) as one:
        for at in (*parts, *(range(row, row + 1) for row in range(min(ALONE, count)))):
            found = held.matches(one.ask(held.body(at)), at, output)
            if found.wrong is not None:
                asked = f"rows {at.start} to {at.stop - 1}" if len(at) > 1 else f"row {at.start} alone"
                return Check(name, "replicas", expected, f"{asked}: {found.wrong}", False)
            apart, output = max(apart, found.apart), found.output
    told = f"equal but for at most {apart:.3g}, which is rounding" if apart else "all equal"
    return Check(name, "replicas", expected, f"{count:,} rows, {told}", True)
