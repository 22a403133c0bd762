"""Making the OpenAPI document: FastAPI's, from the routes, completed with shapes."""

from typing import Any
from urllib.parse import unquote

import yaml
from fastapi import FastAPI

from app.spec.operations import OPERATIONS, Operation
from app.spec.schemas import Error, json_schemas

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_ERRORS = {
    400: "What was sent makes no sense",
    403: "No valid token, or not allowed",
    404: "There is no such thing",
    409: "Not in the state that the request needs",
    410: "It has gone",
    416: "No such part",
    422: "Contradicts what was asked before",
    500: "It could not be started",
    501: "Not available on this server",
}
_DESCRIPTIONS = {
    200: "Success",
    201: "Created",
    202: "Accepted",
    204: "Done",
    206: "A part",
    302: "Elsewhere",
    304: "Not modified",
}
_LOCATION = {
    "Location": {"description": "Where it is", "schema": {"type": "string", "format": "uri"}}
}


def openapi_document(app: FastAPI, *, base_url: str = "/") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the application's routes, paths below the base URL."""
    document = dict(app.openapi())
    types = [kind for operation in OPERATIONS.values() for kind in _types(operation)]
    shapes, definitions = json_schemas([*types, Error])
    prefix = unquote(base_url.rstrip("/"))
    paths: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        below = path.removeprefix(prefix)
        for method in _METHODS:
            if method in operations:
                known = OPERATIONS.get((method, below))
                renamed, completed = _completed(below, operations[method], known, shapes)
                completed["operationId"] = f"{method}_{_identifier(renamed)}"
                paths.setdefault(renamed, {})[method] = completed
    return {
        "openapi": document["openapi"],
        "info": {
            **document["info"],
            "description": "Jupyter Server's API, and executions, documents and live state beside.",
        },
        "servers": [{"url": base_url.rstrip("/") or "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(definitions.items())),
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token T` or `Bearer T`",
                },
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
        "security": [{"token": []}, {"query": []}],
    }


class _Dumper(yaml.SafeDumper):
    """Writes each value where it is, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (yaml's signature)
        """Return that nothing is written as a reference."""
        return True


def as_yaml(document: dict[str, Any]) -> str:
    """Return the document as YAML."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _types(operation: Operation) -> list[Any]:
    answers = [kind for kind in operation.answers.values() if not isinstance(kind, str | None)]
    return [*answers, operation.body] if operation.body is not None else answers


def _untitled(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the titles that FastAPI makes of paths, base URL and all."""
    content = {
        kind: {"schema": {key: value for key, value in it["schema"].items() if key != "title"}}
        for kind, it in answer.get("content", {}).items()
    }
    return {**answer, "content": content} if content else answer


def _completed(
    path: str, made: dict[str, Any], known: Operation | None, shapes: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return an operation with its shapes, and its path with Jupyter's names of parameters."""
    operation = {key: value for key, value in made.items() if key != "requestBody"}
    error = {"application/json": {"schema": shapes[repr(Error)]}}
    if known is None:
        # FastAPI's own answer to bad input is not this server's.
        plain = {
            status: _untitled(answer)
            for status, answer in made["responses"].items()
            if status != "422"
        }
        other = {"description": "An error", "content": error}
        operation["responses"] = {**plain, "default": other}
        return path, operation
    operation["responses"] = _answers(known, shapes, error)
    if known.public:
        operation["security"] = []
    if known.body is not None:
        content = {"application/json": {"schema": shapes[repr(known.body)]}}
        operation["requestBody"] = {"content": content}
    if "parameters" in made:
        operation["parameters"] = [
            {**parameter, "name": known.names.get(parameter["name"], parameter["name"])}
            for parameter in made["parameters"]
        ]
    for old, new in known.names.items():
        path = path.replace(f"{{{old}}}", f"{{{new}}}")
    return path, operation


def _answers(known: Operation, shapes: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, kind in known.answers.items():
        answer: dict[str, Any] = {"description": _DESCRIPTIONS[status]}
        if isinstance(kind, str):
            answer["content"] = {kind: {}}
        elif kind is not None:
            answer["content"] = {"application/json": {"schema": shapes[repr(kind)]}}
        if known.located:
            answer["headers"] = _LOCATION
        answers[str(status)] = answer
    errors = set(known.errors) if known.public else {*known.errors, 403}
    for status in sorted(errors):
        answers[str(status)] = {"description": _ERRORS[status], "content": error}
    return answers


def _identifier(path: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in path).split())
