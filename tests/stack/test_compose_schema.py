"""compose.yaml matches the Compose specification."""

from pathlib import Path

import pytest
import yaml
from compose_viz.spec.compose_spec import ComposeSpecification
from pydantic import ValidationError

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())
DOCUMENT = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
"""Contents of the file without extensions: the specification allows them, but this schema does not."""


def test_the_file_matches_the_schema() -> None:
    ComposeSpecification.model_validate(DOCUMENT)


def test_the_schema_rejects_an_unknown_field() -> None:
    broken = DOCUMENT | {"services": DOCUMENT["services"] | {"redis": {"image": "redis", "helthcheck": {}}}}
    with pytest.raises(ValidationError):
        ComposeSpecification.model_validate(broken)
