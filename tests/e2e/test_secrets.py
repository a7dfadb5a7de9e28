"""Variables and secrets in real builds: each phase sees its own, values arrive unchanged, and nothing that Chef stores,
shows or logs contains a secret."""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import docker
import pytest

from tests.e2e.client import ChefClient, RequestRefusedError
from tests.installation import Installation, until

pytestmark = pytest.mark.once("postgresql")

MIB = 1024**2
HOSTILE = "line 1\nline 2 'x' \"y\" `id` $(id) ${HOME} $HOME \\ ; && | > /tmp/x * ~ ü🍳\t%s"
ENV = {"MODE": "production", "HOSTILE": HOSTILE, "EMPTY": "", "CI": "false"}
SEALED = "s3cr3t/of-the+build phase"  # for the build phase only
SHARED = "npm_0123456789abcdefABCDEF"  # for the installation phase too
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7\n-----END KEY-----\n"
SECRETS = {"SEALED": SEALED, "SHARED": {"value": SHARED, "installation": True}, "KEY": KEY}

PROBE = r"""
import fs from "node:fs";
import { createHash } from "node:crypto";

const phase = process.argv[2];
const digest = (text) => createHash("sha256").update(text).digest("hex");
const seen = Object.fromEntries(Object.entries(process.env).map(([name, value]) => [name, digest(value)]));
const others = fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).flatMap((pid) => {
  try { return fs.readFileSync(`/proc/${pid}/environ`, "utf8").split("\0"); } catch { return []; }
});
fs.mkdirSync("results", { recursive: true });
const report = { seen, others: [...new Set(others)].map(digest), plain: process.env.HOSTILE };
fs.writeFileSync(`results/${phase}.json`, JSON.stringify(report));
"""

PRINTING = r"""
const wait = () => new Promise((resolve) => setTimeout(resolve, 350));
const { SEALED, SHARED, KEY } = process.env;
console.log("whole", SEALED, "end");
console.error("aside", SHARED);
console.log(KEY);
console.log("json", JSON.stringify({ SEALED, KEY }));
console.log("url", encodeURIComponent(SEALED));
for (const before of ["", "x", "xy"]) console.log("base64", Buffer.from(before + SEALED + "z").toString("base64"));
console.log("base64url", Buffer.from(SEALED).toString("base64url"));
console.log("hex", Buffer.from(SEALED).toString("hex"));
console.log("coloured", "\x1b[31m" + SEALED.slice(0, 9) + "\x1b[32m" + SEALED.slice(9) + "\x1b[0m");
process.stdout.write("split " + SEALED.slice(0, 5)); await wait();
process.stdout.write(SEALED.slice(5, 12)); await wait();
process.stdout.write(SEALED.slice(12) + " end\n");
for (const letter of SEALED) process.stdout.write(letter);
console.log("\nlone begin s3cr3t/of");
await wait();
console.error(`Error: cannot log in with ${SEALED}`);
process.exitCode = Number(process.argv[2] ?? 0);
"""


def project(scripts: tuple[str, str], **files: str) -> dict[str, Any]:
    install, build = scripts
    strategy = {"runtime": "node", "installCommand": install, "buildCommand": build, "outputs": ["results"]}
    return {"files": {"probe.mjs": PROBE, "print.mjs": PRINTING, **files}, "strategy": strategy}


@pytest.fixture(scope="module")
def client(chef: Installation) -> Iterator[ChefClient]:
    with ChefClient(chef.url, chef.token) as client:
        yield client


@pytest.fixture(scope="module")
def reports(client: ChefClient) -> dict[str, dict[str, Any]]:
    """The probe's report from each phase."""
    scripts = ("node probe.mjs installation", "node probe.mjs build")
    job = client.submit({**project(scripts), "env": ENV, "secrets": SECRETS})
    assert client.wait(job, seconds=60)["status"] == "completed", client.log_text(job)
    found = {artifact.name: client.download(artifact).json() for artifact in client.artifacts(job)}
    return {name.removeprefix("results/").removesuffix(".json"): report for name, report in found.items()}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- In the containers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["installation", "build"])
def test_plain_variables_reach_both_phases_as_they_were_sent(reports: dict[str, Any], phase: str) -> None:
    seen = reports[phase]["seen"]

    assert {name: seen.get(name) for name in ENV} == {name: digest(value) for name, value in ENV.items()}
    assert reports[phase]["plain"] == HOSTILE


def test_secrets_reach_the_installation_phase_only_on_request(reports: dict[str, Any]) -> None:
    install, build = reports["installation"], reports["build"]

    assert {name: build["seen"].get(name) for name in SECRETS} == {
        "SEALED": digest(SEALED),
        "SHARED": digest(SHARED),
        "KEY": digest(KEY),
    }
    assert install["seen"]["SHARED"] == digest(SHARED)
    assert not {"SEALED", "KEY"} & set(install["seen"])
    # Nor does any other process in that container, such as the forwarder, have secrets of the build phase.
    assert not {digest(f"SEALED={SEALED}"), digest(f"KEY={KEY}")} & set(install["others"])
    assert digest(f"SHARED={SHARED}") in install["others"]


def test_the_engine_gets_only_the_secrets_of_the_phase(chef: Installation, client: ChefClient) -> None:
    job = client.submit({**project(("sleep 3", "sleep 3; mkdir results; echo x > results/x")), "secrets": SECRETS})

    seen = {phase: _inspected(chef, job.job_id, phase) for phase in ("installation", "build")}

    assert client.wait(job, seconds=60)["status"] == "completed"
    assert f"SHARED={SHARED}" in seen["installation"]["Config"]["Env"]
    assert SEALED not in json.dumps(seen["installation"])
    assert f"SEALED={SEALED}" in seen["build"]["Config"]["Env"]
    for found in seen.values():
        rest = {**found, "Config": {**found["Config"], "Env": []}}
        assert not [value for value in (SEALED, SHARED) if value in json.dumps(rest)]


def _inspected(chef: Installation, build: str, phase: str) -> dict[str, Any]:
    """The engine's data on the container that runs a phase."""

    def running() -> dict[str, Any] | None:
        [row] = chef.rows(f"SELECT phase FROM builds_build WHERE id = '{_key(chef, build)}'")
        found = chef.containers(build, running=True)
        return found[0] if row[0] == phase and found else None

    found = until(running, seconds=30, what=f"a container runs the {phase}")
    with docker.APIClient(base_url=chef.environment.get("DOCKER_HOST"), version="auto") as engine:
        return dict(engine.inspect_container(found["Id"]))


def _key(chef: Installation, build: str) -> str:
    """The id as the database stores it."""
    return build if chef.environment["DATABASE_URL"].startswith("postgres") else build.replace("-", "")


# --- Stored, shown and logged ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 1], ids=["completed", "failed"])
def printed(request: pytest.FixtureRequest, client: ChefClient) -> dict[str, Any]:
    """All API answers on a build that prints its secrets in every form."""
    scripts = (f"echo {SHARED} $SHARED", f"mkdir results; echo x > results/x; node print.mjs {request.param}")
    job = client.submit({**project(scripts), "env": ENV, "secrets": SECRETS})
    document = client.wait(job, seconds=60)
    assert document["status"] == ("failed" if request.param else "completed"), client.log_text(job)
    builds, project_path = f"/v1/builds/{job.job_id}", f"/v1/projects/{job.project_id}"
    paths = (builds, f"{builds}/logs", project_path, f"{project_path}/logs", "/v1/builds", "/v1/projects")
    answers = {path: client._checked(client._http.get(path)).text for path in paths}
    return {"document": document, "log": client.log_text(job), "answers": answers}


def _secrets_in(text: str) -> list[str]:
    """The secrets in a text, by name and form."""
    written = {"whole": SEALED, "url": quote(SEALED, safe=""), "hex": SEALED.encode().hex(), "shared": SHARED}
    written |= {f"line {number}": line for number, line in enumerate(KEY.strip().split("\n"))}
    written |= {"json": json.dumps(KEY)[1:-1]}
    for before in range(3):
        # Without the characters at both ends, which hold bits of the neighbouring bytes.
        core = base64.b64encode(b"x" * before + SEALED.encode() + b"zz")[4:-4].decode()
        written |= {f"base64 after {before}": core, f"base64url {before}": core.replace("+", "-").replace("/", "_")}
    return [name for name, form in written.items() if form in text]


def test_no_form_of_a_secret_is_in_the_log(printed: dict[str, Any]) -> None:
    log = printed["log"]

    assert _secrets_in(log) == []
    assert "whole [secret SEALED] end\n" in log
    assert "aside [secret SHARED]\n" in log
    assert "split [secret SEALED] end\n" in log
    assert "coloured [secret SEALED]\n" in log
    assert "lone begin s3cr3t/of\n" in log
    assert "$ echo [secret SHARED] $SHARED\n" in log


def test_the_verdict_s_evidence_is_masked_too(printed: dict[str, Any]) -> None:
    verdict = printed["document"]["verdict"]

    assert _secrets_in(json.dumps(verdict)) == []
    assert verdict is None or "Error: cannot log in with [secret SEALED]" in verdict["evidence"]


def test_no_api_answer_contains_a_secret(printed: dict[str, Any]) -> None:
    # The project's own command is shown as it was sent, so it may contain the value.
    answers = {path: text.replace(f"echo {SHARED} $SHARED", "") for path, text in printed["answers"].items()}

    assert {path: found for path, text in answers.items() if (found := _secrets_in(text))} == {}


def test_neither_the_database_nor_any_process_s_log_holds_a_secret(chef: Installation, printed: Any) -> None:
    stored = chef.rows("SELECT sealed_value FROM projects_environmentvariable")
    events = chef.rows("SELECT * FROM builds_buildevent")
    chunks = chef.rows("SELECT text FROM builds_logchunk")
    logs = "".join(path.read_text(errors="replace") for path in chef.folder.glob("*.log"))

    assert len(stored) >= len(ENV) + len(SECRETS)
    assert _secrets_in(str(stored)) == _secrets_in(str(events)) == _secrets_in("".join(row[0] for row in chunks)) == []
    assert _secrets_in(logs) == []
    assert "production" not in str(stored)


# --- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "attr"),
    [
        ({"LD_PRELOAD": "/workspace/x.so"}, "env.LD_PRELOAD"),
        ({"PATH": "/workspace"}, "env.PATH"),
        ({"NODE_OPTIONS": "--require /workspace/x"}, "env.NODE_OPTIONS"),
        ({"https_proxy": "http://evil"}, "env.https_proxy"),
        ({"A": "x\0y"}, "env.A"),
        ({"A\0B": "x"}, "env.A\0B"),
        ({"$(id)": "x"}, "env.$(id)"),
        ({"A": "x" * MIB}, "env.A"),
        ({f"V{number}": "x" * 32_000 for number in range(33)}, "env"),
    ],
)
def test_a_harmful_environment_is_refused(client: ChefClient, env: dict[str, str], attr: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        client.submit({**project(("true", "true")), "env": env})

    assert refused.value.status == 400
    [error] = refused.value.errors
    assert (error["code"], error["attr"]) == ("invalid_environment", attr)
    assert len(error["detail"]) < 400


def test_shell_metacharacters_are_literal_in_every_field(client: ChefClient) -> None:
    odd = "a;id>x $(id) `id`"
    body = project(("node probe.mjs installation", "node probe.mjs build"), **{f"src/{odd}.txt": odd})
    job = client.submit({**body, "name": odd, "env": {"HOSTILE": odd}, "dependencies": {}})

    assert client.wait(job, seconds=60)["status"] == "completed", client.log_text(job)
    [report] = [client.download(a).json() for a in client.artifacts(job) if a.name == "results/build.json"]
    assert report["plain"] == odd
    assert "uid=" not in client.log_text(job)
