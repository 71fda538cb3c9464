"""Response models: each one is both the JSON that the service sends and its schema in `/openapi.json`.

A model has exactly the fields that it names, and sends all of them. Decimals are strings in plain notation, never
binary floats. Instants are ISO 8601 in UTC.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from runtime.escape import one_line
from service.api import schemas
from service.api.schemas import Json


class ResponseModel(BaseModel):
    """A JSON object of a response, made from a record's attributes or from values."""

    model_config = ConfigDict(
        from_attributes=True, frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )

    @classmethod
    def of(cls, record: object) -> Self:
        """Make the response from a record: each field takes the attribute of its name, or of its `validation_alias`.

        Raises:
            pydantic.ValidationError: the record lacks an attribute, or has one of another type.
        """
        return cls.model_validate(record)

    def to_json(self) -> str:
        """Compact JSON in ASCII."""
        return self.model_dump_json(ensure_ascii=True)


def json_response(body: ResponseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An HTTP response with the JSON of a model."""
    return web.Response(text=body.to_json(), status=status, headers=headers, content_type="application/json")


def document_response(document: Json) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that answers with a fixed document, whose JSON is made once."""
    text = json.dumps(document, separators=(",", ":"))

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    return handler


def schemas_of(*models: type[ResponseModel]) -> Json:
    """The JSON schemas of the models and of the models that they contain, by name, for `components/schemas`."""
    _, document = models_json_schema(
        [(model, "serialization") for model in models],
        schema_generator=_Schemas,
        ref_template="#/components/schemas/{model}",
    )
    found: Json = document["$defs"]
    return found


class _Schemas(GenerateJsonSchema):
    """JSON schemas without titles, which only repeat names, and without defaults, since every field is always sent."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - the base class's signature
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Json:
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        found = super().model_schema(schema)
        found.pop("title", None)
        return found


def _plain(value: Decimal) -> str:
    return format(value, "f")


def _in_utc(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


# The bounds below are in the schemas only. The database checks them; a response is not validated a second time.
Id = Annotated[UUID, WithJsonSchema(schemas.UUID)]
Day = Annotated[date, WithJsonSchema(schemas.DAY)]
Instant = Annotated[datetime, PlainSerializer(_in_utc), WithJsonSchema(schemas.INSTANT)]
Money = Annotated[Decimal, PlainSerializer(_plain), WithJsonSchema(schemas.MONEY)]
Fraction = Annotated[Decimal, PlainSerializer(_plain), WithJsonSchema(schemas.FRACTION)]
Token = Annotated[int, WithJsonSchema(schemas.TOKEN)]
Count = Annotated[int, WithJsonSchema(schemas.integer(0))]
PositiveCount = Annotated[int, WithJsonSchema(schemas.integer(1))]
OutsideText = Annotated[str, AfterValidator(one_line)]
"""A text from the sidecar or from another task, bounded and printable."""


def items(least: int, most: int, description: str | None = None) -> Any:
    """A list field whose schema bounds the number of items."""
    return Field(description=description, json_schema_extra={"minItems": least, "maxItems": most})
