"""Building blocks of the OpenAPI descriptions. An object has exactly the fields that it names, and all of them."""

from datetime import date
from typing import Any

from service.portfolio.formats import ID

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
UUID: Json = {"type": "string", "format": "uuid", "pattern": f"^{ID.pattern}$"}
DAY: Json = {"type": "string", "format": "date"}
INSTANT: Json = {"type": "string", "format": "date-time", "pattern": "Z$"}
MONEY: Json = {"type": "string", "format": "decimal", "pattern": r"^-?[0-9]+\.[0-9]{4}$"}
FRACTION: Json = {"type": "string", "format": "decimal", "pattern": r"^(0\.[0-9]{4}|1\.0000)$"}
TOKEN: Json = {"type": "integer", "minimum": 0, "description": "A term's fencing token."}


def operation(summary: str, content: Json, *errors: int, stopping: bool = False) -> Json:
    """An operation that answers with 200 and that content, with one of the errors, with 500 or with 503.

    With `stopping`, the content is also sent with 503 while the task stops.
    """
    answers = {str(status): ref("responses", str(status)) for status in (*errors, 500, 503)}
    if stopping:
        schema = {"anyOf": [content["application/json"]["schema"], ref("schemas", "Error")]}
        answers["503"] = {"description": "The task stops.", "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "responses": {"200": {"description": "Success.", "content": content}, **answers}}


def error_response(status: int, meaning: str) -> Json:
    """The response for an error status. `meaning` is its description."""
    schema = {"anyOf": [ref("schemas", "FieldError"), ref("schemas", "FieldErrors")]}
    answer: Json = {"description": meaning, "content": json_of("Error")}
    match status:
        case 400:
            answer["content"] = {"application/json": {"schema": schema}}
        case 401:
            answer["headers"] = {"WWW-Authenticate": {"required": True, "schema": text_of("Bearer.*")}}
        case 503:
            answer["headers"] = {"Retry-After": {"required": True, "schema": integer(0), "description": "Seconds."}}
    return answer


def parameter(place: str, name: str, schema: Json, **more: str) -> Json:
    """A path or query parameter."""
    return {"in": place, "name": name, "required": place == "path", "schema": schema, **more}


def json_of(schema: str) -> Json:
    """JSON content with the schema of that name."""
    return {"application/json": {"schema": ref("schemas", schema)}}


def ref(kind: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def object_of(**fields: Json) -> Json:
    """The schema of an object with exactly these fields."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def list_of(items: Json, least: int, most: int) -> Json:
    """The schema of an array with `least` to `most` items."""
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def integer(least: int, most: int | None = None) -> Json:
    """The schema of an integer with a minimum and, if given, a maximum."""
    return {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})


def text_of(pattern: str) -> Json:
    """The schema of a string that matches the whole pattern."""
    return {"type": "string", "pattern": f"^{pattern}$"}


def days_between(first: date, last: date) -> str:
    """A pattern for the dates from `first` to `last`, because JSON Schema has no bounds for dates.

    `first` must be the first day of a decade, and `last` the last day of one.
    """
    decades = "|".join(str(decade) for decade in range(first.year // 10, last.year // 10 + 1))
    return f"^({decades})[0-9]-[0-9]{{2}}-[0-9]{{2}}$"
