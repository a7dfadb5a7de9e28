"""A local S3-compatible store: moto's server, as its own process, over HTTP."""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import boto3

from tests.installation import until
from tests.ports import answers, free_port

# moto accepts any credentials.
KEY, SECRET, REGION = "tester", "not-a-secret-of-anybody", "eu-central-1"
# Keys per list page: less than S3's thousand, so that lists have several pages.
PAGE_KEYS = 50


class S3Server:
    """A running store; `settings` are an installation's settings for one of its buckets."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client: Any = boto3.Session(KEY, SECRET, region_name=REGION).client("s3", endpoint_url=self.url)
        self.start()

    def start(self) -> None:
        """Start the server, without any data."""
        environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_KEYS)}
        argv = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda: answers(self.port), seconds=30, what="the S3 server answers")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def make_bucket(self, name: str = "") -> str:
        name = name or f"chef-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    def settings(self, bucket: str) -> dict[str, str]:
        return {
            "S3_BUCKET": bucket,
            "S3_ENDPOINT_URL": self.url,
            "S3_REGION": REGION,
            "S3_ACCESS_KEY_ID": KEY,
            "S3_SECRET_ACCESS_KEY": SECRET,
            "S3_PREFIX": "chef/artifacts",
        }

    def keys(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def uploads(self, bucket: str) -> int:
        """The number of multipart uploads that are neither completed nor aborted."""
        return len(self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()))


@contextlib.contextmanager
def serving() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
        server.client.close()
