"""Bun in its image, sealed as builds are: a TLS registry is reached only through the proxy."""

import contextlib
import gc
import hashlib
import http.server
import io
import json
import ssl
import tarfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_django import Settings

from builds.runtimes.bun.runtime import BUN
from builds.runtimes.catalogue import runtime_tag
from builds.runtimes.image_preparation import prepare, runtime_images
from builds.runtimes.registries import discover
from builds.sandbox import workspace_tar
from builds.sandbox.contract import Command, Identity, InputFile, Limits, Outcome, Watch, Workspace
from builds.sandbox.docker_sandbox import DockerSandbox
from builds.sandbox.image_store import ImageStore

# The SDK leaves finished streams' sockets to the garbage collector.
pytestmark = [pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"), pytest.mark.slow]

HOST = "localhost"
LIMITS = Limits(memory_bytes=1024**3, cpus=2, pids=256, disk_bytes=1024**3)
PACKAGE = {"name": "tiny", "version": "1.0.0", "main": "index.js"}


@pytest.fixture(scope="module", autouse=True)
def ready() -> None:
    """Bun's image is in the engine."""
    with ImageStore() as store:
        prepare(runtime_images(["bun"]), store=store)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A bundle with one certificate authority, which is also the server's certificate, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle = tmp_path / "authority.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    bundle.with_suffix(".key").write_bytes(private)
    return bundle


@pytest.fixture
def registry(authority: Path) -> Iterator[str]:
    """The URL of a TLS registry with one package."""
    archive = _archive()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = f"https://{self.headers['Host']}"
            body = archive if self.path.endswith(".tgz") else _manifest(address, archive)
            self.send_response(200 if "tiny" in self.path else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority, authority.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://{HOST}:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def own_registry(registry: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """npm on this machine is configured for the test's registry, and so is Bun."""
    settings.DATA_DIR, settings.BUILD_DIR, settings.EGRESS_ALLOWED_HOSTS = tmp_path / "data", tmp_path / "b", []
    monkeypatch.setenv("npm_config_registry", registry)
    workspace_tar.toolbox.cache_clear()
    yield
    workspace_tar.toolbox.cache_clear()


def _archive() -> bytes:
    buffer = io.BytesIO()
    files = {"package.json": json.dumps(PACKAGE), "index.js": "module.exports = 'from the registry';\n"}
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _manifest(address: str, archive: bytes) -> bytes:
    integrity = f"sha512-{b64encode(hashlib.sha512(archive).digest()).decode()}"
    version = {**PACKAGE, "dist": {"tarball": f"{address}/tiny/-/tiny-1.0.0.tgz", "integrity": integrity}}
    return json.dumps({"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}).encode()


@contextlib.contextmanager
def opened(sandbox: DockerSandbox, identity: Identity) -> Iterator[Workspace]:
    workspace = sandbox.open(identity, image=sandbox.image_id(runtime_tag("bun", "")), limits=LIMITS)
    try:
        yield workspace
    finally:
        workspace.remove()


def run(*commands: Command) -> list[tuple[Outcome, str]]:
    """Outcomes and output of commands run one after another on a small project."""
    files = {
        "package.json": '{"name": "x", "dependencies": {"tiny": "1.0.0"}, "scripts": {"build": "node build.js"}}',
        "build.js": "console.log(require('tiny'), 'by', process.versions.bun ? 'bun' : 'node')",
    }
    sandbox, identity, done = DockerSandbox(discover), Identity(uuid4(), 1), []
    with opened(sandbox, identity) as workspace:
        workspace.put([InputFile(path, text.encode()) for path, text in files.items()], BUN.toolbox)
        for command in commands:
            printed, deadline = bytearray(), time.monotonic() + 60
            watch = Watch(
                lambda _, data, to=printed: to.extend(data),  # type: ignore[misc]
                lambda until=deadline: until - time.monotonic(),  # type: ignore[misc]
                lambda: False,
            )
            done.append((workspace.run(command, watch), printed.decode()))
    del sandbox
    gc.collect()  # here, where warnings about sockets are ignored
    return done


def command(phase: str, script: str) -> Command:
    return Command(phase=phase, script=script, environment=BUN.environment, with_registries=phase == "installation")


def test_bun_installs_through_the_proxy_and_builds_sealed(registry: str, authority: Path, settings: Settings) -> None:
    settings.CA_BUNDLE = str(authority)

    (installed, log), (built, printed) = run(
        command("installation", "bun install && ls bun.lock"), command("build", "bun run build")
    )

    assert installed.succeeded, log
    assert [(each.host, each.port, each.allowed) for each in installed.egress] == [
        (HOST, int(registry.rpartition(":")[2]), True)
    ]
    assert "bun.lock" in log
    assert built.succeeded, printed
    assert "from the registry by bun" in printed


def test_registry_of_an_unknown_authority_is_refused(settings: Settings) -> None:
    settings.CA_BUNDLE = ""

    [(outcome, log)] = run(command("installation", "bun install"))

    assert not outcome.succeeded
    assert "DEPTH_ZERO_SELF_SIGNED_CERT downloading package manifest tiny" in log
