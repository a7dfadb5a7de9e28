"""Hostile outputs, such as links: refused with a verdict or left out with a log line; links are never followed."""

from typing import Any

import pytest

from tests.conftest import MAX_ARTIFACTS
from tests.installation import Installation

pytestmark = pytest.mark.once("postgresql")

MIXED = r"""
mkdir -p dist/folder && cd dist && echo kept > kept.txt && echo inside > folder/inside.txt && : > empty.txt
ln -s /etc/passwd passwd && ln -s folder linked && ln kept.txt hard.txt && mkfifo pipe
printf x > "$(printf 'new\nline')" && printf x > 'quo"te'"'"'s.txt' && printf x > "$(printf 'bidi\342\200\256txt')"
printf x > "$(printf 'broken\377')" && printf x > 'back\slash' && echo a > Case.txt && echo b > case.txt
"""
REFUSED = {
    "missing": ("true", "no_output"),
    "empty": ("mkdir dist", "no_output"),
    "a link": ("ln -s /etc dist", "unsafe_output"),
    "behind a link": ("ln -s /etc nested; true", "unsafe_output"),
    "below a file": ("echo x > nested; true", "no_output"),
    "sparse and huge": ("mkdir dist; truncate -s 2G dist/big", "artifacts_too_large"),
    "too many": (f"mkdir dist; cd dist; for i in $(seq {MAX_ARTIFACTS + 1}); do : > $i; done", "too_many_artifacts"),
}


def submit(chef: Installation, command: str, **strategy: Any) -> dict[str, Any]:
    strategy = {"runtime": "static", "buildCommand": command, "outputs": ["dist"], **strategy}
    return chef.submit({"README.txt": "x"}, strategy=strategy)


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_output_ends_with_the_expected_verdict(chef: Installation, name: str) -> None:
    command, code = REFUSED[name]

    document = chef.wait(submit(chef, command, outputs=["nested/ssl"] if "nested" in command else ["dist"]))

    assert (document["status"], document["verdict"]["code"]) == ("failed", code)
    assert document["verdict"]["phase"] == "artifacts"
    assert document["verdict"]["hint"]


def test_only_regular_files_with_plain_names_are_kept(chef: Installation) -> None:
    accepted = submit(chef, MIXED)
    document = chef.wait(accepted)

    assert document["status"] == "completed", chef.log_text(accepted)
    listing = chef.get(f"/v1/projects/{accepted['projectId']}/artifacts")["artifacts"]
    # Of two hard links, the engine's archive has the first one it meets as the file.
    kept = {artifact["name"].removeprefix("dist/") for artifact in listing}
    assert kept - {"hard.txt", "kept.txt"} == {
        "folder/inside.txt",
        "empty.txt",
        "quo\"te's.txt",
        "Case.txt",
        "case.txt",
    }
    assert len(kept & {"hard.txt", "kept.txt"}) == 1
    text = chef.log_text(accepted)
    for name in ("passwd", "linked", "pipe", "new", "bidi", "broken", "back"):
        assert f"not kept: 'dist/{name}" in text
    with chef.client() as client:
        for artifact in listing:
            answer = client.get(artifact["url"])
            assert (answer.status_code, len(answer.content)) == (200, artifact["size"])
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_output_may_be_one_file_and_several_may_be_named(chef: Installation) -> None:
    command = "mkdir -p a/b && echo 1 > a/b/one.txt && echo 2 > two.txt"
    accepted = submit(chef, command, outputs=["a/b", "two.txt"])

    assert chef.wait(accepted)["status"] == "completed"

    listing = chef.get(f"/v1/projects/{accepted['projectId']}/artifacts")["artifacts"]
    assert [artifact["name"] for artifact in listing] == ["a/b/one.txt", "two.txt"]


def test_an_unchanged_artifact_is_not_sent_again(chef: Installation) -> None:
    accepted = submit(chef, "mkdir dist && echo '<h1>hi</h1>' > dist/index.html")
    chef.wait(accepted)
    path = f"/v1/projects/{accepted['projectId']}/artifacts/dist/index.html"

    with chef.client() as client:
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        missing = client.get(f"{path}x")

    assert (first.status_code, first.text) == (200, "<h1>hi</h1>\n")
    assert (again.status_code, again.content) == (304, b"")
    assert (missing.status_code, missing.json()["errors"][0]["code"]) == (404, "not_found")


def test_a_body_over_the_limit_is_refused_before_it_is_read(chef: Installation) -> None:
    with chef.client() as client:
        declared = client.post("/v1/projects", content=b"x" * (45 * 1024**2))
        streamed = client.post("/v1/projects", content=(b"x" * 1024**2 for _ in range(45)))

    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (413, "request_too_large")
