"""Projects whose build dwells in one phase for long enough to be hit there, by real work, and how to see it there."""

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
    """A project whose build dwells in one phase for long enough to be hit there, by real work."""

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


DWELLING = {
    "preparation": Slow(files=600),
    "installation": Slow(install_seconds=2),
    "build": Slow(build_seconds=2),
    "artifacts": Slow(outputs=800),
    "cleanup": Slow(junk=4000),
}


def wait_for_phase(installation: Installation, accepted: dict[str, Any], phase: str) -> None:
    query = f"SELECT phase, status FROM builds_build WHERE {same('id', accepted)}"

    def reached() -> bool:
        [(now, status)] = installation.rows(query)
        assert status in ("queued", "running"), f"it was {status} before {phase} was seen"
        return bool(now == phase)

    until(reached, seconds=60, what=f"the build is in {phase}", every=0.005)


def terminal_events(installation: Installation, accepted: dict[str, Any]) -> list[str]:
    """The terminal status of each event that has one; a build must have exactly one."""
    query = (
        "SELECT to_status FROM builds_buildevent WHERE kind='status'"
        f" AND to_status IN ('completed','failed','cancelled') AND {same('build_id', accepted)}"
    )
    return [str(status) for (status,) in installation.rows(query)]


def same(column: str, accepted: dict[str, Any]) -> str:
    """A condition on a build's id that both databases understand."""
    return f"replace(cast({column} as text), '-', '') = '{accepted['jobId'].replace('-', '')}'"
