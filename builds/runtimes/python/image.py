"""The Python image, built from packages: a Debian base, and Debian's own Python with pip."""

from pathlib import Path

from builds.runtimes.rootfs import BASE_PACKAGES, RootFilesystem, Workshop

VERSION = "3.11"  # the Python of our Debian release
_PACKAGES = "python3 python3-pip python3-setuptools python3-venv python3-wheel"


def lay_out(workshop: Workshop, version: str) -> RootFilesystem:
    """The root file system with Debian's Python. Raises UnbuildableError."""
    folder = workshop.once(f"python {version}", lambda folder: _fill(folder, workshop))
    return workshop.root(folder, PYTHON_VERSION=version)


def _fill(folder: Path, workshop: Workshop) -> None:
    workshop.overlay(workshop.debian(f"{BASE_PACKAGES} {_PACKAGES}"), folder)
    for mark in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        mark.unlink()  # the image is the environment: there are no Debian packages to protect
    (folder / "usr/bin/python").symlink_to("python3")
    if workshop.is_native:
        # A read-only root has no bytecode cache: without this, pip takes four times as long to start.
        argv = ["chroot", str(folder), "python3", "-m", "compileall", "-q", "-j2"]
        workshop.run([*argv, "/usr/lib/python3", f"/usr/lib/python{VERSION}"])
