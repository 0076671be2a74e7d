#!/usr/bin/env python3
"""Checks deny.toml's licence and source rules against `cargo metadata`.

Stands in for cargo-deny on machines that do not have it.
"""

import json
import re
import subprocess
import sys
import tomllib

with open("deny.toml", "rb") as file:
    allowed = set(tomllib.load(file)["licenses"]["allow"])

metadata = json.loads(
    subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"])
)


def permitted(expression):
    """Whether an SPDX expression can be met by allowed licences."""
    expression = expression.replace("/", " OR ")
    tokens = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression)
    words = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    return eval("".join(f" {words.get(t, str(t in allowed))} " for t in tokens))


wrong = []
for package in metadata["packages"]:
    source = package["source"]
    if source is None:
        continue
    if not source.startswith("registry+"):
        wrong.append(f"{package['name']}: comes from {source}")
    if not permitted(package["license"] or "none"):
        wrong.append(f"{package['name']} {package['version']}: {package['license']}")
print(f"licences: {len(metadata['packages'])} packages checked, {len(wrong)} not permitted")
sys.exit("\n".join(wrong) if wrong else 0)
