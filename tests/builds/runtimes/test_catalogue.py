"""The language runtimes: versions, tags and images."""

import pytest

from builds.runtimes.catalogue import RUNTIMES, find_runtime, resolve_version, runtime_tag
from builds.runtimes.runtime import UnknownRuntimeError


@pytest.mark.parametrize(
    ("runtime", "wish", "version"),
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
def test_a_wish_means_the_release_line_that_it_belongs_to(runtime: str, wish: str | None, version: str) -> None:
    assert resolve_version(runtime, wish) == version


@pytest.mark.parametrize(
    ("runtime", "wish", "code", "told"),
    [
        ("ruby", None, "unknown_runtime", "node, python, static"),
        ("node", "16", "unknown_version", "18, 20, 22, 24"),
        ("node", "180", "unknown_version", "18, 20, 22, 24"),
        ("node", "22; rm", "unknown_version", "18, 20, 22, 24"),
        ("node", "22.; rm", "unknown_version", "18, 20, 22, 24"),
        ("python", "3", "unknown_version", "3.11"),
        ("python", "3.1", "unknown_version", "3.11"),
    ],
)
def test_an_unknown_wish_is_refused_with_what_there_is(runtime: str, wish: str | None, code: str, told: str) -> None:
    with pytest.raises(UnknownRuntimeError) as caught:
        resolve_version(runtime, wish)

    assert caught.value.code == code
    assert told in str(caught.value)


def test_an_image_s_tag_names_runtime_and_version() -> None:
    assert runtime_tag("node", "22") == "chef-runtime/node:22"
    assert find_runtime("python").image("3.11") == "python:3.11-slim-bookworm"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_default_version_is_one_of_the_versions(name: str) -> None:
    assert RUNTIMES[name].default_version in RUNTIMES[name].versions
