"""A CloudFormation template as data.

The short forms of its functions become their long forms, and the functions are evaluated with given values.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[2] / "ops/aws/service.yaml"

Values = Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """A YAML loader that supports CloudFormation's tags and keeps dates as strings."""


def _long_form(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        value = value.split(".", 1) if tag == "GetAtt" else value
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _long_form)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(path: Path = TEMPLATE) -> dict[str, Any]:
    """Return the template with every function in its long form."""
    document: dict[str, Any] = yaml.load(path.read_text(), _Loader)
    return document


def references(part: object) -> Iterator[str]:
    """Return the references of a part of a template: parameters, resources, pseudo parameters, `Resource.Attribute`."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield ".".join(value)
            elif key == "Fn::Sub":
                yield from re.findall(r"\$\{([^}!]+)\}", value)
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def evaluated(part: Any, values: Values, conditions: Mapping[str, bool]) -> Any:
    """Return the part with its functions evaluated.

    `values` has the value of each `Ref` and of each `Resource.Attribute`.
    """
    if isinstance(part, list):
        entries = [evaluated(entry, values, conditions) for entry in part]
        return [entry for entry in entries if entry is not None]
    if not isinstance(part, dict):
        return part
    match part:
        case {"Ref": "AWS::NoValue"}:
            return None
        case {"Ref": name}:
            return values[name]
        case {"Fn::GetAtt": name}:
            return values[".".join(name)]
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([^}!]+)\}", lambda found: str(values[found[1]]), text)
        case {"Fn::If": [condition, then, otherwise]}:
            return evaluated(then if conditions[condition] else otherwise, values, conditions)
    found = {key: evaluated(value, values, conditions) for key, value in part.items()}
    return {key: value for key, value in found.items() if value is not None}
