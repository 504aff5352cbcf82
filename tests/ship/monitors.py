"""Holds what is rendered for the Prometheus operator to the CustomResourceDefinitions of that operator.

Usage: monitors.py DEFINITIONS MANIFEST…

A field that a definition does not know is an error, as with `kubectl apply --validate=strict`: an API server would drop it in
silence. The rules in CEL (`x-kubernetes-validations`) are not evaluated.
"""

import sys
from pathlib import Path

import jsonschema
import yaml

GROUP = "monitoring.coreos.com"


def strict(schema: dict) -> dict:
    """The schema as JSON Schema has it, and closed where it names properties."""
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.update({"type": ["integer", "string"], "anyOf": [{}]})
    if schema.pop("nullable", False):
        schema["type"] = [schema["type"], "null"]
    properties = schema.get("properties", {})
    if properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for inner in [*properties.values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(inner, dict):
            strict(inner)
    return schema


def validators(folder: Path) -> dict[tuple[str, str], jsonschema.Draft7Validator]:
    found = {}
    for plural in ("servicemonitors", "podmonitors", "prometheusrules"):
        spec = yaml.safe_load((folder / f"{GROUP}_{plural}.yaml").read_text())["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            found[f"{GROUP}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft7Validator(schema)
    return found


known = validators(Path(sys.argv[1]))
seen: set[str] = set()
problems = []
for manifest in sys.argv[2:]:
    for found in yaml.safe_load_all(Path(manifest).read_text()):
        if not found or not found["apiVersion"].startswith(GROUP):
            continue
        seen.add(found["kind"])
        for error in known[found["apiVersion"], found["kind"]].iter_errors(found):
            problems.append(f"{manifest}: {found['kind']}: {error.json_path}: {error.message}")
print("\n".join(problems))
assert not problems
assert seen == {kind for _, kind in known}, f"only {seen} rendered"
