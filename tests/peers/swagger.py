"""Checks what the local Azure DevOps was asked and what it answered against Microsoft's own description of the API.

https://github.com/MicrosoftDocs/vsts-rest-api-specs. Stricter than the description: a property or query that it does
not name is a problem, and so is a time without a zone. In three places the service is known to differ from it:

* a list is wrapped as `{count, value}`;
* `_links` is an object of named `{href}`;
* the timeline may be asked for without an id, and is 204 without a body before the run began.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from bot.demo.azure_devops import Exchange

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "ado" / "swagger"

FILES = ("pipelines.7.1.json", "build.7.1.json", "serviceHooks.7.1.json", "pipelinesapproval.7.1.json")

Json = dict[str, Any]

_KEPT = ("$ref", "type", "format", "enum")
_LINKS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": {"href": {"type": "string"}},
        "required": ["href"],
        "additionalProperties": False,
    },
}
_TEXT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_ERROR = {
    "type": "object",
    "properties": {
        "$id": {"type": "string"},
        "innerException": {},
        "message": {"type": "string", "minLength": 1},
        "typeName": {"type": "string"},
        "typeKey": {"type": "string"},
        "errorCode": {"type": "integer"},
        "eventId": {"type": "integer"},
    },
    "required": ["$id", "innerException", "message", "typeName", "typeKey", "errorCode", "eventId"],
    "additionalProperties": False,
}
_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@_FORMATS.checks("uuid", raises=ValueError)
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or str(uuid.UUID(value)) == value


@_FORMATS.checks("int32")
def _is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    method: str
    path: tuple[str, ...]
    parameters: Mapping[str, Json]
    body: Json | None
    answer: Json | None
    definitions: Json

    def matches(self, method: str, path: tuple[str, ...]) -> bool:
        return (
            method == self.method
            and len(path) == len(self.path)
            and all(self._is_segment(*pair) for pair in zip(self.path, path, strict=True))
        )

    def _is_segment(self, template: str, segment: str) -> bool:
        if not template.startswith("{"):
            return template.lower() == segment.lower()
        return self.parameters[template.strip("{}")]["type"] != "integer" or segment.isdigit()


class Swagger:
    """Give it to `AzureDevOps.on_exchange`; `problems` has a line for everything that does not fit the description."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self._operations = [operation for name in FILES for operation in _operations(folder / name)]

    def __call__(self, exchange: Exchange) -> None:
        # Where the services are found is described nowhere, and a page for a browser is not part of the API.
        if exchange.method == "OPTIONS" or exchange.path.endswith("/ResourceAreas") or "/_apis/" not in exchange.path:
            return
        at = f"{exchange.method} {exchange.path}"
        self.problems += [f"{at}: {problem}" for problem in self._check(exchange)]

    def _check(self, exchange: Exchange) -> Iterator[str]:
        path = tuple(exchange.path.strip("/").split("/"))
        operation = next((each for each in self._operations if each.matches(exchange.method, path)), None)
        if operation is None:
            yield "there is no such operation"
            return
        if exchange.status >= 400:
            yield from _errors("answer", exchange.answer, _ERROR, {})
            return
        yield from _check_query(operation, exchange.query)
        yield from _check_body(exchange.body, operation)
        if exchange.status != 204:
            yield from _check_value("answer", exchange.answer, operation.answer, operation.definitions)


def load() -> Swagger | None:
    """None where the descriptions are not at hand."""
    return Swagger(FOLDER) if FOLDER.is_dir() else None


def _operations(file: Path) -> Iterator[_Operation]:
    document = json.loads(file.read_text(encoding="utf-8-sig"))
    definitions = {name: _strict(schema, document) for name, schema in document["definitions"].items()}
    definitions["ReferenceLinks"] = _LINKS
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            parameters = {each["name"]: each for each in described["parameters"] if "name" in each}
            operation = _Operation(
                method=method.upper(),
                path=tuple(path.strip("/").split("/")),
                parameters=parameters,
                body=_schema(parameters.get("body"), document),
                answer=_schema(described["responses"].get("200"), document),
                definitions=definitions,
            )
            yield operation
            if path.endswith("/timeline/{timelineId}"):
                yield replace(operation, path=operation.path[:-1])


def _schema(described: Json | None, document: Json) -> Json | None:
    schema = (described or {}).get("schema")
    if schema is None:
        return None
    return _TEXT if schema.get("format") == "Stream" else _strict(schema, document)


def _strict(schema: Json, document: Json) -> Json:
    """JSON Schema of a swagger schema; an object may have no other properties than its own and those it inherits."""
    if set(schema) <= {"type", "description"} and schema.get("type") == "object":
        return {}  # .NET's object: any value
    strict = {key: schema[key] for key in _KEPT if key in schema}
    for key in ("items", "additionalProperties"):
        if key in schema:
            strict[key] = _strict(schema[key], document)
    if "properties" in schema:
        properties = _properties(schema, document)
        strict["properties"] = {name: _strict(value, document) for name, value in properties.items()}
        strict["additionalProperties"] = False
    return strict


def _properties(schema: Json, document: Json) -> Json:
    properties = dict(schema.get("properties", {}))
    for parent in schema.get("allOf", []):
        name = parent.get("$ref", "").removeprefix("#/definitions/")
        properties |= _properties(document["definitions"].get(name, {}), document)
    return properties


def _check_query(operation: _Operation, query: Mapping[str, str]) -> Iterator[str]:
    for name, value in query.items():
        if name == "api-version":
            continue
        described = operation.parameters.get(name, {})
        if described.get("in") != "query":
            yield f"query {name} is not described"
        elif described["type"] == "integer" and not value.isdigit():
            yield f"query {name} is not a number: {value}"
        elif described["type"] == "boolean" and value.lower() not in ("true", "false"):
            yield f"query {name} is neither true nor false: {value}"
        # An enum may be a set of flags, with commas in between.
        elif "enum" in described and not set(value.split(",")) <= set(described["enum"]):
            yield f"query {name} is not one of {described['enum']}: {value}"


def _check_body(body: Any, operation: _Operation) -> Iterator[str]:
    """Only answers are wrapped: a list is sent as it is."""
    if body and operation.body is None:
        yield "body is not described"
    elif operation.body is not None:
        yield from _errors("body", body, operation.body, operation.definitions)


def _check_value(what: str, value: Any, schema: Json | None, definitions: Json) -> Iterator[str]:
    if schema is None:
        if value:
            yield f"{what} is not described"
        return
    if schema.get("type") == "array" or (schema == _TEXT and not isinstance(value, str)):
        if not _is_collection(value):
            yield f"{what} is not a list wrapped as count and value"
            return
        value = value["value"]
    yield from _errors(what, value, schema, definitions)


def _is_collection(value: Any) -> bool:
    values = value.get("value") if isinstance(value, dict) else None
    return isinstance(values, list) and value == {"count": len(values), "value": values}


def _errors(what: str, value: Any, schema: Json, definitions: Json) -> Iterator[str]:
    validator = Draft202012Validator({"definitions": definitions, **schema}, format_checker=_FORMATS)
    for error in validator.iter_errors(value):
        yield f"{what}{error.json_path.removeprefix('$')}: {error.message}"
