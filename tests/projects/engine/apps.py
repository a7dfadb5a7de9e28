"""Valid model answers for a small app; tests override what they need."""

import json
from typing import Any

INTENT = {
    "summary": "A list of things to do.",
    "users": "one person",
    "features": ["add", "remove"],
    "data": ["items"],
    "constraints": [],
    "assumptions": ["Items stay in the browser."],
}


def planned(path: str, *uses: str, needed: bool = True) -> dict[str, Any]:
    return {"path": path, "purpose": f"What {path} is for.", "uses": list(uses), "needed": needed}


def plan(*files: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "Todo Liste",
        "description": "A list of things to do.",
        "runtime": "node",
        "design": "Items are {id, text}.",
        "files": list(files) or [planned("index.html", "src/main.js"), planned("src/main.js")],
        "dependencies": [{"name": "vite", "range": "^5.4.0", "development": True}],
        "scripts": [{"name": "build", "command": "vite build"}],
        "package": False,
        "commonjs": False,
        **changes,
    }


def written(text: str) -> dict[str, Any]:
    return {"content": text}


SUITE = {
    "files": [{"path": "tests/main.test.js", "content": "import test from 'node:test'\n"}],
    "dependencies": [],
    "command": "node --test",
}


def patch(**changes: Any) -> dict[str, Any]:
    return {"summary": "Changed.", "replacements": [], "new_files": [], "deleted": [], **changes}


def replacement(path: str, search: str, replace: str) -> dict[str, str]:
    return {"path": path, "search": search, "replace": replace}


def as_json(content: bytes) -> Any:
    return json.loads(content)
