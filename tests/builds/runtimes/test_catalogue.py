"""The language runtimes: versions, tags and images."""

import pytest

from builds.runtimes.catalogue import RUNTIMES, find_runtime, package_indexes, resolve_version, runtime_tag
from builds.runtimes.runtime import Runtime, UnknownRuntimeError
from builds.sandbox.contract import SYSTEM_PATH
from builds.verdicts.patterns import COMMON, PRECEDENCE

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("runtime", "asked", "version"),
    [
        ("node", None, "22"),
        ("node", "", "22"),
        ("node", "18", "18"),
        ("node", "v20.11.1", "20"),
        ("node", "24.x", "24"),
        ("python", None, "3.11"),
        ("python", "3.11.4", "3.11"),
        ("static", None, "12"),
    ],
)
def test_a_version_resolves_to_its_release_line(runtime: str, asked: str | None, version: str) -> None:
    assert resolve_version(runtime, asked) == version


@pytest.mark.parametrize(
    ("runtime", "asked", "code", "expected"),
    [
        ("ruby", None, "unknown_runtime", "node, bun, python, static"),
        ("node", "16", "unknown_version", "18, 20, 22, 24"),
        ("node", "180", "unknown_version", "18, 20, 22, 24"),
        ("node", "22; rm", "unknown_version", "18, 20, 22, 24"),
        ("node", "22.; rm", "unknown_version", "18, 20, 22, 24"),
        ("python", "3", "unknown_version", "3.11"),
        ("python", "3.1", "unknown_version", "3.11"),
    ],
)
def test_an_unknown_runtime_or_version_is_refused_with_the_available_ones(
    runtime: str, asked: str | None, code: str, expected: str
) -> None:
    with pytest.raises(UnknownRuntimeError) as caught:
        resolve_version(runtime, asked)

    assert caught.value.code == code
    assert expected in str(caught.value)


def test_an_image_s_tag_names_runtime_and_version() -> None:
    assert runtime_tag("node", "22") == "chef-runtime/node:22"
    assert find_runtime("python").image("3.11") == "python:3.11-slim-bookworm"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_default_version_is_one_of_the_versions(name: str) -> None:
    assert RUNTIMES[name].default_version in RUNTIMES[name].versions


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_a_runtime_s_tools_come_before_the_system_s_on_the_path(runtime: Runtime) -> None:
    *own, rest = runtime.environment["PATH"].partition(SYSTEM_PATH)

    assert rest == ""
    assert all(name not in runtime.toolbox for name in ("ca.pem", "forward.py"))
    assert own[0] == "".join(f"{folder}:" for folder in runtime.tool_folders)


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_every_symptom_has_a_precedence(runtime: Runtime) -> None:
    assert {symptom.code for symptom in runtime.patterns.symptoms} <= set(PRECEDENCE)
    assert set(COMMON.symptoms) <= set(runtime.patterns.symptoms)


def test_a_runtime_without_a_required_attribute_is_refused_when_it_is_defined() -> None:
    given = {"name": "x", "versions": ("1",), "public_image": "x", "trial": "x", "trial_start": "x"}

    with pytest.raises(TypeError, match="Incomplete must set title, subject, default_version, suggestion"):
        type("Incomplete", (Runtime,), given)


def test_each_package_index_can_be_asked_for_in_an_image() -> None:
    asked = {
        runtime.package_index.name for runtime in RUNTIMES.values() if runtime.package_index and runtime.index_query
    }

    assert asked == set(package_indexes())


def test_a_label_shows_the_version_if_it_is_relevant() -> None:
    assert find_runtime("node").label("22") == "Node 22"
    assert find_runtime("static").label("12") == "Static site"
