"""The egress proxy from a sealed container, through its first process: chef-init or the fall-back script."""

import contextlib
import hashlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import docker
import psutil
import pytest
from docker.models.containers import Container

from builds.sandbox.chef_init import FirstProcess, fall_back, first_process
from builds.sandbox.egress import EgressProxy
from tests.builds.sandbox.egress.peers import Address, Client, blocks, digest_of, echo, listening, proxy

pytestmark = [pytest.mark.once, pytest.mark.docker]

UID = 10001
IMAGES = {"node": "chef-runtime/node:22", "python": "chef-runtime/python:3.11", "static": "chef-runtime/static:12"}
INIT = ["/chef/inside/init", "--deadline", "60"]
FORWARD = ["--forward", "/chef/egress/proxy.sock:3128"]
BUNDLE = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
TRUST = {"NODE_EXTRA_CA_CERTS": "/chef/ca.pem", "PIP_CERT": "/chef/ca.pem", "SSL_CERT_FILE": "/chef/ca.pem"}
PROXY = dict.fromkeys(("http_proxy", "https_proxy", "npm_config_proxy"), "http://127.0.0.1:3128")

# Twenty times in parallel: send 2 MB, half-close, and print the digest of the response.
EXCHANGE = {
    "node": """
        const net = require('node:net'), { createHash } = require('node:crypto');
        for (let i = 0; i < 20; i++) {
          const digest = createHash('sha256');
          const peer = net.connect({ host: '127.0.0.1', port: 3128, allowHalfOpen: true });
          peer.write(`CONNECT ${process.argv[1]} HTTP/1.1\\r\\n\\r\\n`);
          peer.once('data', () => {
            peer.on('data', (data) => digest.update(data));
            peer.end(Buffer.alloc(2e6, 'x'));
          });
          peer.on('end', () => console.log(digest.digest('hex')));
        }""",
    "python": """if True:
        import hashlib, socket, sys, threading
        def exchange():
            digest = hashlib.sha256()
            peer = socket.create_connection(("127.0.0.1", 3128))
            peer.sendall(b"CONNECT %s HTTP/1.1\\r\\n\\r\\n" % sys.argv[1].encode())
            peer.recv(1000)
            peer.sendall(b"x" * 2_000_000)
            peer.shutdown(socket.SHUT_WR)
            while data := peer.recv(65536):
                digest.update(data)
            print(digest.hexdigest() + "\\n", end="")
        for _ in range(20):
            threading.Thread(target=exchange).start()""",
}
# Prints the error of a direct connection to each address.
DIRECT = {
    "node": """
        const net = require('node:net');
        for (const address of process.argv.slice(1)) {
          const [host, port] = address.split(' ');
          net.connect({ host, port: Number(port) }).on('error', (error) => console.log(error.code))
            .on('connect', () => console.log('reached', address));
        }""",
    "python": """if True:
        import errno, socket, sys
        for address in sys.argv[1:]:
            host, port = address.split(' ')
            try:
                socket.create_connection((host, int(port)), timeout=5)
                print('reached', address)
            except OSError as error:
                print(errno.errorcode.get(error.errno, error.errno))""",
}
EVALUATE = {"node": ["/usr/bin/env", "node", "-e"], "python": ["/usr/bin/env", "python3", "-c"]}

languages = pytest.mark.parametrize("language", ["node", "python"])


class Sandbox:
    """A container like that of the installation phase: no network, only /tmp writable, no privileges."""

    def __init__(self, folder: Path, first: FirstProcess) -> None:
        self.client = docker.from_env(timeout=60)
        self.folder, self.inside, self.first = folder, folder.with_name("inside"), first
        self.inside.mkdir()
        for name, content in first.files.items():
            (self.inside / name).write_bytes(content)
            (self.inside / name).chmod(0o555)

    def volumes(self) -> dict[str, dict[str, str]]:
        sources = {str(self.folder): "/chef/egress", str(self.inside): "/chef/inside", BUNDLE: "/chef/ca.pem"}
        return {source: {"bind": target, "mode": "ro"} for source, target in sources.items()}

    @contextlib.contextmanager
    def start(self, language: str, argv: list[str], *, start: list[str] | None = None) -> Iterator[Container]:
        self.folder.mkdir(exist_ok=True)
        container = self.client.containers.run(
            IMAGES[language], [*(start or [*INIT, *FORWARD]), "--", *argv], detach=True, init=not self.first.reaps,
            network_mode="none", user=f"{UID}:{UID}", read_only=True, cap_drop=["ALL"], pids_limit=256,
            security_opt=["no-new-privileges"], tmpfs={"/tmp": f"size=64m,exec,uid={UID}"}, working_dir="/tmp",
            environment={"HOME": "/tmp"} | TRUST | PROXY, volumes=self.volumes(), mem_limit="512m",
        )  # fmt: skip
        try:
            yield container
        finally:
            container.remove(force=True, v=True)

    def run(self, language: str, argv: list[str], *, start: list[str] | None = None) -> tuple[int, str]:
        """Exit code and the output of both streams."""
        with self.start(language, argv, start=start) as container:
            code = container.wait(timeout=60)["StatusCode"]
            return code, container.logs().decode()


@pytest.fixture(params=["compiled", "fall-back"])
def sandbox(folder: Path, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    first = first_process() if request.param == "compiled" else fall_back("a test wants it")
    assert first.reaps == (request.param == "compiled")
    sandbox = Sandbox(folder, first)
    yield sandbox
    sandbox.client.close()


only_compiled = pytest.mark.parametrize("sandbox", ["compiled"], indirect=True)
only_fall_back = pytest.mark.parametrize("sandbox", ["fall-back"], indirect=True)


# --- How a command starts and ends ---------------------------------------------------------------------------------


@languages
def test_command_runs_unchanged_and_its_exit_code_is_the_container_s(sandbox: Sandbox, language: str) -> None:
    script = 'echo "$1"; echo err >&2; exit 7'

    code, output = sandbox.run(language, ["/bin/sh", "-c", script, "sh", "$HOME `id` ; 'x"])

    assert code == 7
    assert sorted(output.splitlines()) == ["$HOME `id` ; 'x", "err"]


@languages
@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["/bin/sh", "-c", "kill -9 $$"], 137, ""),
        (["/no/such/command"], 127, "/no/such/command"),
        (["/tmp"], 126, "/tmp"),
    ],
)
def test_how_the_command_ended_is_reported(
    sandbox: Sandbox, language: str, argv: list[str], code: int, words: str
) -> None:
    ended, output = sandbox.run(language, argv)

    assert ended == code
    assert words in output


@only_compiled
@pytest.mark.parametrize("language", ["node", "python", "static"])
def test_image_needs_no_language_runtime(sandbox: Sandbox, language: str) -> None:
    script = "grep -ci ':0C38 ' /proc/net/tcp; cat /proc/1/comm"  # 3128, and listening

    code, output = sandbox.run(language, ["/bin/sh", "-c", script])

    assert (code, output.split()) == (0, ["1", "init"])


@only_fall_back
def test_fall_back_refuses_an_image_that_it_cannot_forward_in(sandbox: Sandbox) -> None:
    code, output = sandbox.run("static", ["/bin/echo", "ran"])

    assert code == 69
    assert output.startswith("chef-init: this image has neither python3 nor node, so it cannot reach registries")
    assert "ran" not in output


def test_deadline_ends_every_process(sandbox: Sandbox) -> None:
    # One has left the session, one ignores signals, and one signals the first process.
    script = "trap '' TERM HUP INT; setsid sleep 60 & (kill -9 1; kill -STOP 1) 2>/dev/null; sleep 60"
    began = time.monotonic()

    code, output = sandbox.run("static", ["/bin/sh", "-c", script], start=[*INIT[:2], "1.5"])

    assert time.monotonic() - began < 10
    assert code == (124 if sandbox.first.reaps else 137)
    assert output == ("chef-init: deadline exceeded\n" if sandbox.first.reaps else "")


def test_orphans_do_not_use_up_the_process_limit(sandbox: Sandbox) -> None:
    script = "i=0; while [ $i -lt 600 ]; do (true &) || exit 1; i=$((i + 1)); done; echo through"

    code, output = sandbox.run("static", ["/bin/sh", "-c", script], start=INIT)

    assert (code, output) == (0, "through\n")


@only_compiled
def test_build_cannot_inspect_the_first_process(sandbox: Sandbox) -> None:
    script = "for each in environ maps mem exe fd/3; do cat /proc/1/$each && echo $each; done 2>/dev/null; echo done"

    _, output = sandbox.run("static", ["/bin/sh", "-c", script])

    assert output == "done\n"


@languages
def test_sigterm_is_forwarded(sandbox: Sandbox, language: str) -> None:
    script = 'trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done'
    with sandbox.start(language, ["/bin/sh", "-c", script]) as container:
        deadline = time.monotonic() + 10
        while b"ready" not in container.logs() and time.monotonic() < deadline:
            time.sleep(0.05)
        container.kill("SIGTERM")

        assert container.wait(timeout=10)["StatusCode"] == 9


@languages
def test_port_in_use_is_reported(sandbox: Sandbox, language: str) -> None:
    code, output = sandbox.run(language, [*INIT, *FORWARD, "--", "/bin/true"])

    assert code == 70
    assert ": cannot listen on 127.0.0.1:3128: " in output


# --- Egress --------------------------------------------------------------------------------------------------------


@languages
def test_forwarder_handles_many_connections_without_loss(sandbox: Sandbox, client: Client, language: str) -> None:
    def answer(peer: socket.socket) -> None:
        peer.sendall(digest_of(peer).encode())
        for block in blocks(2):
            peer.sendall(block)

    with listening(answer) as (host, port), proxy(client, (host, port)):
        code, output = sandbox.run(language, [*EVALUATE[language], EXCHANGE[language], f"{host}:{port}"])

    expected = hashlib.sha256(hashlib.sha256(b"x" * 2_000_000).hexdigest().encode() + b"".join(blocks(2))).hexdigest()
    assert code == 0
    assert output.split() == [expected] * 20


@languages
def test_container_reaches_nothing_directly(sandbox: Sandbox, client: Client, language: str) -> None:
    entries = itertools.chain.from_iterable(psutil.net_if_addrs().values())
    own = [entry.address for entry in entries if entry.family == socket.AF_INET]
    hosts = {"127.0.0.1", "169.254.169.254", "198.51.100.1", *own}
    with listening(echo) as (_, port), proxy(client, ("127.0.0.1", port)):
        addresses = [f"{host} {port}" for host in hosts]
        code, output = sandbox.run(language, [*EVALUATE[language], DIRECT[language], *addresses])

    assert code == 0
    assert sorted(output.split()) == ["ECONNREFUSED", *["ENETUNREACH"] * (len(hosts) - 1)]


def test_npm_installs_through_the_proxy_only_from_its_registry(folder: Path, sandbox: Sandbox) -> None:
    registry = npm_registry(sandbox)
    with EgressProxy(folder=folder, allowed=frozenset({pair_of(registry)})) as running:
        install = f"npm install --registry={registry} --no-audit is-number && ls node_modules"
        code, output = sandbox.run("node", ["/bin/sh", "-c", install])

    assert code == 0, output
    assert output.splitlines()[-1] == "is-number"
    assert [(entry.host, entry.port) for entry in running.report()] == [pair_of(registry)]


def test_npm_install_from_an_unlisted_host_fails_and_is_recorded(folder: Path, sandbox: Sandbox) -> None:
    with EgressProxy(folder=folder, allowed=frozenset()) as running:
        install = [
            "/usr/bin/env",
            "npm",
            "install",
            "--registry=https://evil.example",
            "--fetch-retries=0",
            "is-number",
        ]
        code, output = sandbox.run("node", install)

    assert code != 0
    assert "403" in output
    assert [(entry.host, entry.allowed) for entry in running.report()] == [("evil.example", False)]


def test_pip_installs_through_the_proxy_only_from_its_index(folder: Path, sandbox: Sandbox) -> None:
    index, files = pip_index()
    allowed = frozenset({pair_of(index), (files, 443)})
    with EgressProxy(folder=folder, allowed=allowed) as running:
        install = f"python3 -m pip install -q --no-cache-dir -i {index} --target site iniconfig && ls site"
        code, output = sandbox.run("python", ["/bin/sh", "-c", install])

    assert code == 0, output
    assert "iniconfig" in output.splitlines()
    assert {(entry.host, entry.port) for entry in running.report()} <= allowed


def npm_registry(sandbox: Sandbox) -> str:
    """The registry of the machine's npm, or, without one, of the image's."""
    argv = ["/usr/bin/env", "npm", "config", "get", "registry"]
    if shutil.which("npm"):
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    return sandbox.run("node", argv)[1].strip()


def pip_index() -> tuple[str, str]:
    """The index that the machine's pip uses, and the file host of pip's default index."""
    probe = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    script = "from pip._internal.models.index import PyPI; print(PyPI.simple_url, PyPI.file_storage_domain)"
    default = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    return os.environ.get("PIP_INDEX_URL") or probe.stdout.strip() or default[0], default[1]


def pair_of(url: str) -> Address:
    parts = urlsplit(url)
    assert parts.hostname
    return parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
