"""The shapes of the API's bodies and answers, from its OpenAPI document."""

from typing import Any

from app.cli.types.shapes import Field, ListOf, Literals, MapOf, Named, OneOf, Plain, Shape, Type

_PLAIN: dict[str, Type] = {
    "string": Plain("string"),
    "number": Plain("number"),
    "integer": Plain("integer"),
    "boolean": Plain("boolean"),
    "null": Plain("null"),
}


def api_shapes(document: dict[str, Any]) -> list[Shape]:
    """Return the document's named objects, by name."""
    schemas = document["components"]["schemas"]
    return [_shape(name, schemas[name]) for name in sorted(schemas)]


def _shape(name: str, schema: dict[str, Any]) -> Shape:
    required = set(schema.get("required", ()))
    fields = tuple(
        Field(key, _type(value), optional=key not in required)
        for key, value in schema.get("properties", {}).items()
    )
    return Shape(name, schema.get("description", name).strip().splitlines()[0], fields)


def _type(schema: dict[str, Any]) -> Type:  # noqa: PLR0911 (one for each kind of schema)
    if reference := schema.get("$ref"):
        return Named(reference.rpartition("/")[2])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return OneOf(tuple(_type(option) for option in options))
    if (value := schema.get("const")) is not None:
        return Literals((value,)) if isinstance(value, str) else Plain("any")
    if words := schema.get("enum"):
        return Literals(tuple(words)) if all(isinstance(w, str) for w in words) else Plain("any")
    kind = schema.get("type")
    if kind == "array":
        return ListOf(_type(schema.get("items", {})))
    if kind == "object":
        value = schema.get("additionalProperties", True)
        return MapOf(_type(value) if isinstance(value, dict) else Plain("any"))
    return _PLAIN[kind] if isinstance(kind, str) else Plain("any")
