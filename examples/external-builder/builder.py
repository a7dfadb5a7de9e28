"""An external builder: claims builds of the external queue, runs a command on their files, and reports the result.

pip install httpx standardwebhooks
CHEF_URL=http://127.0.0.1:3001 CHEF_WORKER_SECRET=whsec_... python builder.py --outputs dist make all

The command runs with all rights of the user who started this: build only for people whom you trust.
"""

import argparse
import base64
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks import Webhook

SECRET = os.environ.pop("CHEF_WORKER_SECRET")  # not passed on to the command


def send(chef: httpx.Client, action: str, message: dict[str, Any]) -> Any:
    """Send a signed message; without an answer, again with the same id, so that it takes effect once."""
    body, message_id, pauses = json.dumps(message), f"msg_{uuid.uuid4().hex}", [1, 2, 4, 8]
    while True:
        now = datetime.now(UTC)
        headers = {"webhook-id": message_id, "webhook-timestamp": str(int(now.timestamp()))}
        headers["webhook-signature"] = Webhook(SECRET).sign(message_id, now, body)
        headers["Content-Type"] = "application/json"
        try:
            answer = chef.post(f"/v1/hooks/worker-{action}", content=body, headers=headers).raise_for_status()
            return answer.json() if answer.content else None
        except httpx.HTTPError as error:
            if not pauses or (isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500):
                raise
        time.sleep(pauses.pop(0))


def run(chef: httpx.Client, claimed: dict[str, Any], command: list[str], folder: str) -> tuple[int, str]:
    """(exit code, output) of the command. Raises httpx.HTTPStatusError when the build is no longer ours."""
    lease = datetime.fromisoformat(claimed["leaseExpiresAt"]) - datetime.now(UTC)
    environment = {**os.environ, **claimed["env"]}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        while True:
            try:
                output = process.communicate(timeout=lease.total_seconds() / 3)[0]
                return process.returncode, output.decode(errors="replace")
            except subprocess.TimeoutExpired:
                try:
                    send(chef, "heartbeat", {"jobId": claimed["jobId"], "fence": claimed["fence"]})
                except httpx.HTTPError:
                    process.kill()
                    raise


def build(chef: httpx.Client, claimed: dict[str, Any], command: list[str], outputs: str) -> dict[str, Any]:
    """Fetch the files, run the command, and report the result."""
    result = {"jobId": claimed["jobId"], "fence": claimed["fence"]}
    with tempfile.TemporaryDirectory() as folder:
        archive = chef.get(claimed["archive"]["url"]).raise_for_status().content
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        code, log = run(chef, claimed, command, folder)
        if code:
            verdict = {"exitCode": code, "evidence": [line[:400] for line in log.splitlines()[-5:]]}
            return {**result, "status": "failed", "verdict": verdict, "logs": log}
        found = sorted(path for path in (Path(folder) / outputs).rglob("*") if path.is_file() and not path.is_symlink())
        artifacts = [
            {
                "name": path.relative_to(folder).as_posix(),
                "content": base64.b64encode(path.read_bytes()).decode(),
                "encoding": "base64",
            }
            for path in found
        ]
        return {**result, "status": "completed", "logs": log, "artifacts": artifacts}


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds projects from Chef's external queue.")
    parser.add_argument("--outputs", default="dist", help="the folder that the command writes")
    parser.add_argument("--once", action="store_true", help="exit when no build is waiting")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    with httpx.Client(base_url=os.environ["CHEF_URL"], timeout=60) as chef:
        while True:
            if claimed := send(chef, "claim", {"worker": os.uname().nodename[:80]}):
                try:
                    build_result = send(chef, "result", build(chef, claimed, options.command, options.outputs))
                    print(build_result["jobId"], build_result["status"], flush=True)
                except httpx.HTTPStatusError as refusal:
                    print(claimed["jobId"], "dropped:", refusal.response.text, flush=True)
            elif options.once:
                return
            else:
                time.sleep(5)


if __name__ == "__main__":
    main()
