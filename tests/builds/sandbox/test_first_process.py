"""The containers' first process: compiled when its source changes, or replaced by a script with a warning."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.checks import run_checks

from builds.sandbox import chef_init, workspace_tar
from builds.sandbox.chef_init import NotCompiledError, architecture_of, compiled, fall_back, first_process
from builds.sandbox.contract import SandboxError

pytestmark = [pytest.mark.once, pytest.mark.slow]

ARM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44)


@pytest.fixture
def own_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the source, an empty folder for compiled programs, and empty caches."""
    source = tmp_path / "chef_init.c"
    source.write_bytes(chef_init.SOURCE.read_bytes())
    monkeypatch.setattr(chef_init, "SOURCE", source)
    monkeypatch.setattr(chef_init, "FOLDER", tmp_path / "compiled")
    forget()
    yield source
    forget()


@pytest.fixture
def no_compiler(own_source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def forget() -> None:
    first_process.cache_clear()
    workspace_tar.toolbox.cache_clear()


def test_it_is_compiled_once_and_again_when_the_source_changes(own_source: Path) -> None:
    first, written = compiled(), compiled().stat().st_mtime_ns

    assert compiled() == first
    assert first.stat().st_mtime_ns == written
    own_source.write_text(own_source.read_text().replace("deadline exceeded", "too late"))
    assert compiled() != first
    assert b"too late" in compiled().read_bytes()
    assert sorted(chef_init.FOLDER.iterdir()) == sorted([first, compiled()]), "nothing temporary is left"


def test_another_compiler_makes_another_program(own_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = compiled()
    monkeypatch.setenv("CC", "gcc -DOTHER")

    assert compiled() != usual
    assert compiled().is_file()


@pytest.mark.usefixtures("own_source")
def test_compiled_program_is_the_first_process_without_a_warning() -> None:
    found = first_process()

    assert set(found.files) == {"init"}
    assert (found.reaps, found.warning) == (True, "")
    assert found.architecture == architecture_of(Path("/proc/self/exe").read_bytes())
    assert not [each for each in run_checks() if each.id == "builds.W003"]


@pytest.mark.usefixtures("no_compiler")
def test_machine_without_a_compiler_is_reported_and_gets_the_script() -> None:
    found = first_process()

    assert set(found.files) == {"init", "forward.py", "forward.mjs"}
    assert found.files["init"].startswith(b"#!/bin/sh\n")
    assert not found.reaps
    assert found.warning.startswith("chef-init was not compiled (there is no C compiler): a slower shell script")
    assert [each.msg for each in run_checks() if each.id == "builds.W003"] == [found.warning]
    assert dict(workspace_tar.toolbox()).items() >= dict(found.files).items()


@pytest.mark.usefixtures("own_source")
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("false", "false failed: no reason given"),
        ("/no/such/cc", "/no/such/cc: "),
        ("gcc -Dmain=", "gcc failed: "),
    ],
)
def test_failing_compiler_is_reported_with_its_output(
    monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
) -> None:
    monkeypatch.setenv("CC", compiler)

    with pytest.raises(NotCompiledError, match=reason):
        compiled()
    assert reason in first_process().warning
    assert list(chef_init.FOLDER.iterdir()) == []


@pytest.mark.usefixtures("own_source")
def test_compiler_for_another_system_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "cc"
    other.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho MZ >"$2"\n')
    other.chmod(0o755)
    monkeypatch.setenv("CC", str(other))

    with pytest.raises(NotCompiledError, match="does not build programs for Linux"):
        compiled()


def test_engine_on_another_processor_is_refused_with_what_to_do() -> None:
    built = chef_init.FirstProcess({"init": ARM}, architecture=architecture_of(ARM))

    built.require("arm64")
    with pytest.raises(SandboxError, match=r"compiled for arm64 and the Docker Engine runs on amd64\. Set CC to"):
        built.require("amd64")


def test_script_runs_on_any_processor() -> None:
    fall_back("no compiler").require("riscv64")


def test_script_refuses_another_order_of_options() -> None:
    script = chef_init.SOURCE.with_suffix(".sh")

    for arguments in (["--forward", "/s:1"], ["--deadline", "5", "/bin/true"]):
        done = subprocess.run([script, *arguments], capture_output=True, text=True)

        assert done.returncode == 64, arguments
        assert done.stderr.startswith("chef-init: ")


def test_only_the_first_process_can_be_run_and_the_build_owns_none_of_it() -> None:
    stream = b"".join(workspace_tar.workspace_stream([], {}, uid=10001))
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        with_modes = {member.name: (member.uid, member.mode) for member in archive}

    inside = {name: found for name, found in with_modes.items() if name.startswith(".chef/")}
    assert with_modes["."] == with_modes[".chef"] == (0, 0o755)
    assert inside.pop(".chef/init") == (0, 0o555)
    assert set(inside.values()) == {(0, 0o444)}
