"""Projects to build, as a user would send them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REACT_APP = Path(__file__).resolve().parents[2] / "examples" / "react-ts-vite"
# Made by tools on a developer's machine, not source.
_NOT_SOURCE = {"node_modules", "dist", ".git"}


@dataclass(frozen=True)
class Workload:
    """A project as sent to Chef: files by path, and `strategy` in the API's form."""

    name: str
    files: Mapping[str, bytes]
    strategy: Mapping[str, Any] = field(default_factory=dict)
    reaches_registries: bool = False

    def body(self) -> dict[str, Any]:
        """The body of `POST /v1/projects`."""
        files = [
            {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
            for path, content in self.files.items()
        ]
        return {"name": f"benchmark {self.name}", "files": files, "strategy": dict(self.strategy)}


def trivial(runtime: str) -> Workload:
    """Two phases with trivial commands, so that the time is all overhead."""
    return _commands("trivial", runtime, build="mkdir -p dist && echo hi > dist/index.html")


def slow(seconds: int) -> Workload:
    """A build that only sleeps, so that its process can be examined."""
    return _commands("slow", "static", build=f"sleep {seconds} && mkdir -p dist && echo hi > dist/index.html")


def _commands(name: str, runtime: str, *, build: str) -> Workload:
    strategy = {"runtime": runtime, "installCommand": "true", "buildCommand": build, "outputs": ["dist"]}
    return Workload(name, {"notes.txt": b"A benchmark.\n"}, strategy)


def react_app() -> Workload:
    """The React app of `examples/`, as a user would upload it. Raises FileNotFoundError if it is missing."""
    if not (REACT_APP / "package.json").is_file():
        raise FileNotFoundError(f"There is no app in {REACT_APP}.")
    files = {file.relative_to(REACT_APP): file for file in sorted(REACT_APP.rglob("*")) if file.is_file()}
    kept = {str(path): file.read_bytes() for path, file in files.items() if not _NOT_SOURCE & set(path.parts)}
    return Workload("react", kept, reaches_registries=True)
