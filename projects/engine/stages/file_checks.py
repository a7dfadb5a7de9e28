"""Errors in one written file that can be found by parsing it. The build finds the rest."""

import ast
import json

from projects.engine.limits import Limits, sentences

_MAY_BE_EMPTY = (".gitkeep", "__init__.py", "py.typed", ".nojekyll")
# Their tools allow comments in them.
_JSON_WITH_COMMENTS = ("tsconfig", "jsconfig", ".eslintrc")


def content_faults(path: str, text: str, limits: Limits) -> list[str]:
    """Sentences for the model; [] for a file that can be kept."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return [f"{path}: the text contains invalid Unicode (an unpaired surrogate)."]
    if "\0" in text:
        return [f"{path}: the text contains a NUL character; only text files can be written."]
    if not text.strip() and not path.endswith(_MAY_BE_EMPTY):
        return [f"{path}: the file is empty."]
    if faults := limits.faults([(path, size)]):
        return [sentences(faults)]
    fault = _syntax_fault(path, text)
    return [f"{path}: {fault}."] if fault else []


def _syntax_fault(path: str, text: str) -> str:
    name = path.rpartition("/")[2]
    try:
        if name.endswith(".json") and not name.startswith(_JSON_WITH_COMMENTS):
            json.loads(text)
        elif name.endswith(".py"):
            ast.parse(text)
    except json.JSONDecodeError as error:
        return f"it is not JSON: {error}"
    except SyntaxError as error:
        return f"it is not Python: {error.msg} in line {error.lineno}"
    except (ValueError, RecursionError, MemoryError):
        return "it is nested too deeply to be parsed"
    return ""
