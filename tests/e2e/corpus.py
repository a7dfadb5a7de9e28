"""Projects that must build: real ones, fetched from the package registries once per run, and small ones made here.

They are fetched by npm and pip in the runtimes' own images, configured like this installation, so that a machine
without Node, with a private mirror or behind a TLS-inspecting proxy gets the same corpus.
"""

import base64
import contextlib
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import docker
from django.conf import settings

from builds.runtimes.catalogue import RUNTIMES, runtime_tag
from builds.runtimes.registries import discover

CREATE_VITE = "9.3.0"
CLICK = "8.5.1"
ATTRS = "26.1.0"
MARKED = "15.0.12"
MARKDOWN = "3.11.3"

FETCH_SECONDS = 120
SITE_FILES = 200
CA_IN_CONTAINER = "/etc/chef-trial-ca.pem"

Files = dict[str, bytes]


@dataclass(frozen=True)
class Project:
    """Files by path, and other fields of the submission: `dependencies`, `strategy`."""

    files: Mapping[str, bytes]
    options: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """If all files are text, an object by path, else a list of entries with an encoding: the API accepts both."""
        try:
            return {"files": {path: content.decode() for path, content in self.files.items()}, **self.options}
        except UnicodeDecodeError:
            return {"files": [_entry(path, content) for path, content in self.files.items()], **self.options}


def _entry(path: str, content: bytes) -> dict[str, str]:
    return {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}


def project(files: Mapping[str, str], **options: Any) -> Project:
    """A project of text files."""
    return Project({path: text.encode() for path, text in files.items()}, options)


def manifest(**fields: Any) -> str:
    """A package.json."""
    return json.dumps({"name": "corpus", "private": True, "version": "1.0.0", **fields}, indent=2)


# --- Fetched -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """The unpacked downloads: files by path, below their archive's top folder."""

    create_vite: Files
    click: Files
    attrs: Files

    def template(self, name: str) -> Files:
        """A create-vite template as its command writes it; '_' replaces dots in names that npm refuses to pack."""
        files = below(self.create_vite, f"package/template-{name}")
        return {f".{path[1:]}" if path.startswith("_") else path: content for path, content in files.items()}


def fetch() -> Sources:
    """Download the corpus, with both package managers in parallel. Fails the test run with their output."""
    # Sources of these two only: their build backends may come as wheels, which takes seconds instead of minutes.
    pip = (
        f"pip download -q --no-deps --no-binary click,attrs -d sdists click=={CLICK} attrs=={ATTRS} >&2"
        " && tar -C sdists -c ."
    )
    with ThreadPoolExecutor(2) as pool:
        package, sdists = pool.submit(_create_vite), pool.submit(_output_in_container, "python", pip)
    archives = unpacked(sdists.result())
    return Sources(
        create_vite=package.result(),
        click=unpacked(archives[f"click-{CLICK}.tar.gz"]),
        attrs=unpacked(archives[f"attrs-{ATTRS}.tar.gz"]),
    )


def vite_template(name: str) -> Project:
    """Download one create-vite template on its own."""
    return Project(Sources(_create_vite(), {}, {}).template(name))


def _create_vite() -> Files:
    return unpacked(_output_in_container("node", f"npm pack --silent create-vite@{CREATE_VITE} >&2 && cat ./*.tgz"))


def _output_in_container(runtime: str, script: str) -> bytes:
    """The standard output of a shell script, run in a runtime's image with this machine's network."""
    environment = dict(discover().environment)
    environment |= {name: os.environ[name] for name in ("HTTPS_PROXY", "NO_PROXY") if name in os.environ}
    mounts = []
    if settings.CA_BUNDLE:
        mounts = [f"{settings.CA_BUNDLE}:{CA_IN_CONTAINER}:ro"]
        environment |= {"NODE_EXTRA_CA_CERTS": CA_IN_CONTAINER, "PIP_CERT": CA_IN_CONTAINER}
    with contextlib.closing(docker.DockerClient(base_url=settings.DOCKER_HOST, timeout=FETCH_SECONDS)) as engine:
        container = engine.containers.run(
            runtime_tag(runtime, RUNTIMES[runtime].default_version),
            ["sh", "-c", f"{{ {script}\n}} > /tmp/output"],
            environment=environment,
            volumes=mounts,
            network_mode="host",
            working_dir="/tmp",
            init=True,
            detach=True,
        )
        try:
            assert container.wait()["StatusCode"] == 0, container.logs().decode(errors="replace")
            # Through a file: a container's output goes through the engine's log, which is made for text.
            stream, _ = container.get_archive("/tmp/output")
            return unpacked(b"".join(stream))["output"]
        finally:
            container.remove(force=True, v=True)


def unpacked(archive: bytes) -> Files:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        readers = {member.name: tar.extractfile(member) for member in tar if member.isreg()}
        return {name.removeprefix("./"): reader.read() for name, reader in readers.items() if reader}


def below(files: Mapping[str, bytes], folder: str) -> Files:
    """The files of one folder, by paths relative to it."""
    prefix = f"{folder}/"
    found = {path.removeprefix(prefix): content for path, content in files.items() if path.startswith(prefix)}
    assert found, f"nothing below {prefix}"
    return found


# --- Made --------------------------------------------------------------------------------------------------------

# A build that needs its dependency: its output is in no source file.
MARKED_BUILD = """
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { marked } from "marked";
mkdirSync("dist", { recursive: true });
writeFileSync("dist/index.html", marked.parse(readFileSync("README.md", "utf8")));
"""
MARKED_INTEGRITY = "sha512-8dD6FusOQSrpv9Z1rdNMdlSgQOIP880DHqnohobOmYLElGEqAL/JvxvuxZO16r4HtjTlfPRDC1hbvxC9dPN2nA=="
PNPM_LOCK = f"""lockfileVersion: '9.0'

settings:
  autoInstallPeers: true
  excludeLinksFromLockfile: false

importers:

  .:
    dependencies:
      marked:
        specifier: {MARKED}
        version: {MARKED}

packages:

  marked@{MARKED}:
    resolution: {{integrity: {MARKED_INTEGRITY}}}
    engines: {{node: '>= 18'}}
    hasBin: true

snapshots:

  marked@{MARKED}: {{}}
"""
# Without `resolved`, Yarn uses the configured registry.
YARN_LOCK = f"""# THIS IS AN AUTOGENERATED FILE. DO NOT EDIT THIS FILE DIRECTLY.
# yarn lockfile v1


marked@{MARKED}:
  version "{MARKED}"
  integrity {MARKED_INTEGRITY}
"""
# As Bun 1.4 writes it, trailing commas included.
BUN_LOCK = f"""{{
  "lockfileVersion": 1,
  "workspaces": {{
    "": {{
      "name": "corpus",
      "dependencies": {{
        "marked": "{MARKED}",
      }},
    }},
  }},
  "packages": {{
    "marked": ["marked@{MARKED}", "", {{ "bin": {{ "marked": "bin/marked.js" }} }}, "{MARKED_INTEGRITY}"],
  }}
}}
"""
NPM_LOCK = json.dumps(
    {
        "name": "corpus",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {
            "": {"name": "corpus", "version": "1.0.0", "dependencies": {"marked": MARKED}},
            "node_modules/marked": {
                "version": MARKED,
                "integrity": MARKED_INTEGRITY,
                "bin": {"marked": "bin/marked.js"},
                "engines": {"node": ">= 18"},
            },
        },
    }
)


def marked_app(lock: Mapping[str, str], **fields: Any) -> Project:
    """A small Node app; its lock file decides the package manager."""
    return project(
        {
            "package.json": manifest(
                type="module", scripts={"build": "node build.mjs"}, dependencies={"marked": MARKED}, **fields
            ),
            "build.mjs": MARKED_BUILD,
            "README.md": "# Built\n\nwith *care*\n",
            **lock,
        }
    )


def bundled_by_bun() -> Project:
    """TypeScript that Bun's own bundler turns into one file, without a lock file."""
    return project(
        {
            "package.json": manifest(
                packageManager="bun@1.2.0",
                scripts={"build": "bun build src/main.ts --outdir dist --minify"},
                dependencies={"marked": MARKED},
            ),
            "src/main.ts": 'import { marked } from "marked";\nconst text: string = "# By Bun";\n'
            "console.log(marked.parse(text));\n",
        }
    )


def static_site() -> Project:
    """A static site of 200 files: linked pages and images; some names need quoting in a URL."""
    dice = random.Random(200)
    files = {"index.html": b'<!doctype html><link rel="stylesheet" href="css/site.css"><h1>200 files</h1>'}
    files["css/site.css"] = "body { font-family: serif } /* ünïcode */\n".encode()
    files["docs/100% sure #1?.html"] = b"<h1>a name that a URL must quote</h1>"
    files["bilder/gr\u00fc\u00dfe aus K\u00f6ln.bin"] = bytes(range(256))
    files["empty.txt"] = b""
    files[".well-known/security.txt"] = b"Contact: mailto:security@example.org\n"
    for number in range((SITE_FILES - len(files)) // 2):
        files[f"pages/{number // 10}/page-{number}.html"] = f'<a href="page-{number + 1}.html">next</a>\n'.encode()
    for number in range(SITE_FILES - len(files)):
        files[f"images/{number}.png"] = b"\x89PNG\r\n\x1a\n" + dice.randbytes(dice.randrange(20_000))
    assert len(files) == SITE_FILES
    return Project(files)


def vite_by_dependencies() -> Project:
    """Dependencies by name and files, without a package.json. Vite must become the build tool."""
    page = '<!doctype html><div id="app"></div><script type="module" src="/main.js"></script>'
    script = 'import { marked } from "marked";\ndocument.querySelector("#app").innerHTML = marked.parse("# By name");\n'
    return project({"index.html": page, "main.js": script}, dependencies={"vite": "^8.0.0", "marked": f"^{MARKED}"})


def files_by_dependencies() -> Project:
    """Dependencies without a build tool: the files are the output."""
    return project(
        {"index.html": "<h1>plain</h1>\n", "server.js": "console.log(require('is-number')(7))\n"},
        dependencies={"is-number": "7.0.0"},
    )


def python_app() -> Project:
    """A program with requirements, not a package."""
    return project(
        {
            "main.py": "import markdown\n\nfrom texts.title import TITLE\n\nprint(markdown.markdown(TITLE))\n",
            "texts/__init__.py": "",
            "texts/title.py": 'TITLE = "# It runs"\n',
            "requirements.txt": f"markdown=={MARKDOWN}\n",
        }
    )


def node_version(version: str) -> Project:
    """A build that writes its Node version into the output."""
    script = 'mkdir dist && node -p "process.versions.node" > dist/version.txt'
    return project({".nvmrc": f"v{version}\n", "package.json": manifest(scripts={"build": script})})


def _template(name: str) -> Callable[[Sources], Project]:
    return lambda sources: Project(sources.template(name))


# Every project that must complete, and how to make it from the sources.
COMPLETING: dict[str, Callable[[Sources], Project]] = {
    "react-ts": _template("react-ts"),
    "vue-ts": _template("vue-ts"),
    "svelte-ts": _template("svelte-ts"),
    "vanilla": _template("vanilla"),
    "click": lambda sources: Project(sources.click),  # as unpacked: everything in one folder
    "attrs": lambda sources: Project(below(sources.attrs, f"attrs-{ATTRS}")),
    "static site": lambda _: static_site(),
    "npm": lambda _: marked_app({"package-lock.json": NPM_LOCK}),
    "pnpm": lambda _: marked_app({"pnpm-lock.yaml": PNPM_LOCK}),
    "pnpm by its field": lambda _: marked_app({}, packageManager="pnpm@9.15.9"),
    "yarn": lambda _: marked_app({"yarn.lock": YARN_LOCK}),
    "bun": lambda _: marked_app({"bun.lock": BUN_LOCK}),
    "bundled by bun": lambda _: bundled_by_bun(),
    "vite by dependencies": lambda _: vite_by_dependencies(),
    "files by dependencies": lambda _: files_by_dependencies(),
    "python app": lambda _: python_app(),
    "node 20": lambda _: node_version("20"),
}
