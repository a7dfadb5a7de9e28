"""Shared by the tests of detection: plans from a few files, or refusals."""

import json
from typing import Any

import pytest

from builds.runtimes.detection import DetectionError, Plan, StrategyRequest, detect

TOOLS = "npm install --no-audit --no-fund --loglevel=error --prefix /workspace/tools"
NPM_CI = "npm ci --no-audit --no-fund"
NPM_INSTALL = "npm install --no-audit --no-fund"
ASSEMBLE = "python /workspace/.chef/assemble.py"


def plan_of(files: dict[str, str | bytes], *, dependencies: dict[str, str] | None = None, **strategy: Any) -> Plan:
    contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return detect(contents, dependencies=dependencies or {}, strategy=StrategyRequest(**strategy))


def refused(files: dict[str, str | bytes], **options: Any) -> DetectionError:
    with pytest.raises(DetectionError) as caught:
        plan_of(files, **options)
    return caught.value


def manifest(**fields: Any) -> str:
    return json.dumps({"name": "x", "version": "1.0.0", **fields})


def built(**fields: Any) -> str:
    """A package.json with a build script and a dependency."""
    return manifest(**{"scripts": {"build": "vite build"}, "dependencies": {"vite": "^6"}, **fields})
