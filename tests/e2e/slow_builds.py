"""Builds that stay in one phase long enough to be interrupted there, by real work; and queries on their state."""

from dataclasses import dataclass
from typing import Any

from tests.installation import Installation, until

WRITE = (
    'node -e \'const fs=require("fs"); for (const [folder, count] of Object.entries({COUNTS}))'
    " { fs.mkdirSync(folder, {recursive: true});"
    " for (let i=0;i<count;i++) fs.writeFileSync(`${folder}/${i}.txt`, String(i)); }'"
)


@dataclass(frozen=True)
class Slow:
    """A project whose build stays in one phase long enough to be interrupted there, by real work."""

    files: int = 1
    outputs: int = 20
    junk: int = 0
    install_seconds: float = 0.7
    build_seconds: float = 0.7

    def submit(self, installation: Installation) -> dict[str, Any]:
        write = WRITE.replace("{COUNTS}", f"{{dist: {self.outputs}, junk: {self.junk}}}")
        return installation.submit(
            {f"src/{index}.txt": "x" * 15_000 for index in range(self.files)},
            strategy={
                "runtime": "node",
                "installCommand": f"echo installing; sleep {self.install_seconds}",
                "buildCommand": f"echo building; sleep {self.build_seconds}; {write}",
                "outputs": ["dist"],
            },
        )


SLOW_IN = {
    "preparation": Slow(files=600),
    "installation": Slow(install_seconds=2),
    "build": Slow(build_seconds=2),
    "artifacts": Slow(outputs=800),
    "cleanup": Slow(junk=4000),
}


def wait_for_phase(installation: Installation, accepted: dict[str, Any], phase: str) -> None:
    query = f"SELECT phase, status FROM builds_build WHERE {matches('id', accepted)}"

    def reached() -> bool:
        [(now, status)] = installation.rows(query)
        assert status in ("queued", "running"), f"the build was {status} before it reached {phase}"
        return bool(now == phase)

    until(reached, seconds=60, what=f"the build is in {phase}", every=0.005)


def terminal_events(installation: Installation, accepted: dict[str, Any]) -> list[str]:
    """The terminal statuses among the build's events; a build must have exactly one."""
    query = (
        "SELECT to_status FROM builds_buildevent WHERE kind='status'"
        f" AND to_status IN ('completed','failed','cancelled') AND {matches('build_id', accepted)}"
    )
    return [str(status) for (status,) in installation.rows(query)]


def matches(column: str, accepted: dict[str, Any]) -> str:
    """An SQL condition on a build's id that works in both databases."""
    return f"replace(cast({column} as text), '-', '') = '{accepted['jobId'].replace('-', '')}'"
