"""CloudWatch's filter patterns for JSON log lines, in the forms that ops/aws/service.yaml uses."""

import json
import re
from fnmatch import fnmatchcase
from typing import Any

_CONDITION = re.compile(r'\$\.(\w+) = "([^"]*)"')


def matches(pattern: str, line: str) -> bool:
    """Return true if a log line matches a pattern such as `{ $.a = "x*" && $.b = "y" }`; `*` stands for any text.

    Raises:
        ValueError: the pattern has an unsupported form.
    """
    inside = re.fullmatch(r"\{ (.+) \}", pattern)
    if inside is None:
        raise ValueError(pattern)
    fields = _fields(line)
    for condition in inside[1].split(" && "):
        found = _CONDITION.fullmatch(condition)
        if found is None or "[" in found[2] or "?" in found[2]:
            raise ValueError(condition)
        value = fields.get(found[1])
        if not isinstance(value, str) or not fnmatchcase(value, found[2]):
            return False
    return True


def measured(transformation: dict[str, Any], line: str) -> tuple[float, dict[str, str]]:
    """Return the value and the dimensions that a metric filter takes from a matching line.

    Raises:
        KeyError: the line lacks a field; CloudWatch would drop the value silently.
    """
    fields = _fields(line)
    value = transformation["MetricValue"]
    number = fields[value.removeprefix("$.")] if value.startswith("$.") else float(value)
    if not isinstance(number, (int, float)) or isinstance(number, bool):
        raise KeyError(value)
    dimensions = {
        each["Key"]: str(fields[each["Value"].removeprefix("$.")]) for each in transformation.get("Dimensions", ())
    }
    return float(number), dimensions


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
