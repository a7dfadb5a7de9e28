"""The sandbox seen from inside both phases of a real build: no privileges, nothing to write to, no network."""

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.installation import Installation

pytestmark = pytest.mark.once("postgresql")

PROBE = r"""
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import dns from "node:dns";
import { spawnSync } from "node:child_process";

const phase = process.argv[2];
const targets = JSON.parse(fs.readFileSync("targets.json", "utf8"));
const attempt = (work) => { try { work(); return "done"; } catch (error) { return error.code ?? String(error); } };
const shell = (script) => spawnSync("/bin/sh", ["-c", script], { encoding: "utf8" });

function connect([host, port]) {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port, timeout: 1500 });
    const end = (answer) => { socket.destroy(); resolve(answer); };
    socket.on("connect", () => end("connected"));
    socket.on("timeout", () => end("timeout"));
    socket.on("error", (error) => end(error.code));
  });
}

function tunnel([host, port]) {
  return new Promise((resolve) => {
    const socket = net.connect({ host: "127.0.0.1", port: 3128, timeout: 5000 });
    socket.on("connect", () => socket.write(`CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`));
    socket.on("data", (data) => { socket.destroy(); resolve(data.toString().split("\r\n")[0]); });
    socket.on("timeout", () => { socket.destroy(); resolve("timeout"); });
    socket.on("error", (error) => resolve(error.code));
  });
}

const lookup = (name) =>
  new Promise((resolve) => dns.lookup(name, (error, address) => resolve(error?.code ?? address)));
const all = async (work) =>
  Object.fromEntries(await Promise.all(targets.map(async (t) => [t.join(":"), await work(t)])));

const report = {
  uid: process.getuid(),
  gid: process.getgid(),
  status: fs.readFileSync("/proc/self/status", "utf8"),
  writes: Object.fromEntries(["/x", "/etc/x", "/usr/x", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger",
    "/workspace/.chef/init", "/workspace/.chef/x",
    "/workspace/x"].map((path) => [path, attempt(() => fs.writeFileSync(path, "x"))])),
  interfaces: Object.keys(os.networkInterfaces()),
  routes: fs.readFileSync("/proc/net/route", "utf8").trim().split("\n").length - 1,
  first: attempt(() => fs.readFileSync("/proc/1/environ")),
  sockets: ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd"].filter((path) => fs.existsSync(path)),
  devices: fs.readdirSync("/dev"),
  mounts: fs.readFileSync("/proc/self/mountinfo", "utf8").trim().split("\n").map((line) => line.split(" ")[4]),
  mount: shell("mount -t tmpfs none /mnt").status,
  unshare: shell("unshare -Ur true").status,
  mknod: shell("mknod /tmp/node b 8 0").status,
  setuid: shell("su -c id root").stdout,
  tmp: Number(shell("df --output=size -B1 /tmp | tail -1").stdout),
  environment: Object.keys(process.env),
  direct: await all(connect),
  tunnelled: await all(tunnel),
  names: await lookup("example.org"),
  itself: await lookup("localhost"),  // tools that test in a browser or start a server listen on it
};
fs.mkdirSync("results", { recursive: true });
fs.writeFileSync(`results/${phase}.json`, JSON.stringify(report));
"""


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.server.answered = True  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def host_service() -> Iterator[socketserver.TCPServer]:
    """A service on the host that listens on every address, as a careless database would."""
    with socketserver.ThreadingTCPServer(("0.0.0.0", 0), _Answer) as server:
        server.answered = False  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def reports(chef: Installation, host_service: socketserver.TCPServer) -> dict[str, dict[str, Any]]:
    """The probe's report from each phase."""
    port = host_service.server_address[1]
    own = socket.gethostbyname(socket.gethostname())
    targets = [["127.0.0.1", chef.redis_port], ["169.254.169.254", 80], ["172.17.0.1", port], [own, port]]
    targets += [["localhost", chef.port], ["host.docker.internal", port], ["::1", port], ["1.1.1.1", 53]]
    accepted = chef.submit(
        {"probe.mjs": PROBE, "targets.json": json.dumps(targets)},
        strategy={
            "runtime": "node",
            "installCommand": "node probe.mjs installation",
            "buildCommand": "node probe.mjs build",
            "outputs": ["results"],
        },
    )
    document = chef.wait(accepted)
    assert document["status"] == "completed", chef.log_text(accepted)
    with chef.client() as client:
        listing = client.get(f"/v1/projects/{accepted['projectId']}/artifacts").json()["artifacts"]
        return {
            artifact["name"].removeprefix("results/").removesuffix(".json"): _fetch(client, artifact["url"])
            for artifact in listing
        } | {"document": document}


def _fetch(client: httpx.Client, url: str) -> dict[str, Any]:
    return dict(client.get(url).json())


@pytest.fixture(params=["installation", "build"])
def report(request: pytest.FixtureRequest, reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return reports[request.param]


def test_localhost_resolves_to_loopback(report: dict[str, Any]) -> None:
    assert report["itself"] in {"127.0.0.1", "::1"}


def test_there_are_no_capabilities_and_none_can_be_gained(report: dict[str, Any]) -> None:
    status = dict(line.split(":\t", 1) for line in report["status"].splitlines() if ":\t" in line)

    assert {name: int(value, 16) for name, value in status.items() if name.startswith("Cap")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_no_phase_runs_as_root(report: dict[str, Any]) -> None:
    assert (report["uid"], report["gid"]) == (10001, 10001)
    assert "uid=0" not in report["setuid"]


def test_nothing_but_the_project_can_be_written(report: dict[str, Any]) -> None:
    kernel = {path: answer for path, answer in report["writes"].items() if path.startswith("/proc")}

    assert {report["writes"][path] for path in report["writes"].keys() - kernel.keys()} <= {"EROFS", "EACCES"}
    assert set(kernel.values()) <= {"EROFS", "EACCES", "EPERM", "ENOENT"}  # not every kernel has all of them


def test_the_first_process_cannot_be_inspected(report: dict[str, Any]) -> None:
    assert report["first"] == "EACCES"


def test_mounting_namespaces_and_devices_are_refused(report: dict[str, Any]) -> None:
    assert report["mount"] != 0
    assert report["unshare"] != 0
    assert report["mknod"] != 0


def test_no_engine_socket_host_folder_or_disk_is_visible(report: dict[str, Any]) -> None:
    own = {"/workspace", "/chef/egress", "/tmp", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    system = ("/proc", "/sys", "/dev")

    assert report["sockets"] == []
    assert [mount for mount in report["mounts"] if mount not in own | {"/"} and not mount.startswith(system)] == []
    assert not [device for device in report["devices"] if device.startswith(("sd", "vd", "xvd", "nvme", "loop", "mem"))]


def test_there_is_no_network_but_loopback(report: dict[str, Any]) -> None:
    assert report["interfaces"] in ([], ["lo"])
    assert report["routes"] == 0


def test_nothing_on_the_host_or_any_network_answers(
    report: dict[str, Any], host_service: socketserver.TCPServer
) -> None:
    assert "connected" not in report["direct"].values()
    assert report["names"] in ("EAI_AGAIN", "ENOTFOUND")
    assert host_service.answered is False  # type: ignore[attr-defined]


def test_the_registry_proxy_reaches_only_the_registries(reports: dict[str, dict[str, Any]]) -> None:
    refused = reports["installation"]["tunnelled"]
    egress = {(entry["host"], entry["port"]): entry["allowed"] for entry in reports["document"]["egress"]}

    assert all(answer.startswith(("HTTP/1.1 403", "HTTP/1.1 400")) for answer in refused.values()), refused
    assert egress[("169.254.169.254", 80)] is False
    assert not any(egress.values())


def test_the_build_phase_has_no_network_access_at_all(reports: dict[str, dict[str, Any]]) -> None:
    assert set(reports["build"]["tunnelled"].values()) == {"ECONNREFUSED"}
    assert "/chef/egress" not in reports["build"]["mounts"]
    assert not [name for name in reports["build"]["environment"] if "proxy" in name.lower()]


def test_the_secrets_of_the_installation_are_not_in_the_environment(report: dict[str, Any]) -> None:
    assert not {"SECRET_KEY", "DATABASE_URL", "REDIS_URL", "REDIS_PASSWORD", "DOCKER_HOST"} & set(report["environment"])
