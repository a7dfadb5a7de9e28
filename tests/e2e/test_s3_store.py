"""An installation with artifacts in an S3-compatible store: a real build, all downloads, and a store outage."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.installation import Installation, until
from tests.s3_server import S3Server

pytestmark = [pytest.mark.once, pytest.mark.docker, pytest.mark.redis]

SIZE = 12 * 1000**2 + 1
PAGE = "<h1>From a bucket</h1>"
SCRIPT = f"mkdir dist && cp index.html dist && head -c {SIZE} /dev/urandom > dist/large.bin"
BUILD = {"runtime": "static", "buildCommand": SCRIPT, "outputs": ["dist"]}
BUCKET = "chef-artifacts"


@pytest.fixture(scope="module")
def stored(short_folder: Path, s3: S3Server) -> Iterator[Installation]:
    folder = short_folder / "stored"
    folder.mkdir()
    s3.make_bucket(BUCKET)
    settings = s3.settings(BUCKET) | {"NO_PROXY": "127.0.0.1", "WORKER_CONCURRENCY": "2"}
    installation = Installation(folder, **settings)
    try:
        yield installation.start()
    finally:
        installation.stop()


def built(stored: Installation) -> dict[str, Any]:
    return stored.submit({"index.html": PAGE}, strategy=BUILD)


def test_artifacts_in_the_store_are_served_in_every_way(stored: Installation, s3: S3Server) -> None:
    accepted = built(stored)
    assert stored.wait(accepted)["status"] == "completed"
    project = f"/v1/projects/{accepted['projectId']}"
    artifacts = {artifact["name"]: artifact for artifact in stored.get(f"{project}/artifacts")["artifacts"]}

    with stored.client() as client:
        whole = client.get(f"{project}/artifacts/dist/large.bin")
        part = client.get(f"{project}/artifacts/dist/large.bin", headers={"Range": f"bytes=5000000-{SIZE - 2}"})
        zipped = client.get(f"{project}/artifacts.zip")
        release = client.post(f"{project}/publish", json={"slug": "stored"}).json()
        site = {"Host": release["url"].removeprefix("http://")}
        page, large = client.get("/", headers=site), client.get("/large.bin", headers=site)
        site_part = client.get("/large.bin", headers={**site, "Range": "bytes=-100"})

    assert hashlib.sha256(whole.content).hexdigest() == artifacts["dist/large.bin"]["sha256"]
    assert (part.status_code, part.content) == (206, whole.content[5_000_000:-1])
    archive = zipfile.ZipFile(io.BytesIO(zipped.content))
    assert {name: archive.read(name) for name in archive.namelist()} == {
        "dist/index.html": PAGE.encode(),
        "dist/large.bin": whole.content,
    }
    assert (page.status_code, page.text) == (200, PAGE)
    assert large.content == whole.content
    assert (site_part.status_code, site_part.content) == (206, whole.content[-100:])
    assert all(key.startswith(f"chef/artifacts/{accepted['jobId']}/1/") for key in s3.keys(BUCKET))
    assert list((stored.folder / "artifacts").rglob("*")) == []
    with stored.client() as client:
        assert client.delete(project).status_code == 204
    assert s3.keys(BUCKET) == []


def test_a_build_waits_for_an_unavailable_store(stored: Installation, s3: S3Server) -> None:
    s3.stop()
    try:
        accepted = built(stored)
        until(lambda: faults(stored, accepted), seconds=60, what="an attempt fails without the store")
        health = httpx.get(f"{stored.url}/health", trust_env=False)
    finally:
        s3.start()
        s3.make_bucket(BUCKET)

    document = stored.wait(accepted, seconds=90)

    assert document["status"] == "completed", document["verdict"]
    assert document["attempt"] > 1
    assert health.status_code == 503
    assert health.json()["status"] == "down"
    assert len(s3.keys(BUCKET)) == 2


def faults(stored: Installation, accepted: dict[str, Any]) -> bool:
    """Whether an attempt has ended with an infrastructure fault, after which the build is queued again."""
    document = stored.status(accepted)
    assert document["status"] in {"queued", "running"}, document["verdict"]
    return bool(document["status"] == "queued" and document["attempt"] >= 1)
