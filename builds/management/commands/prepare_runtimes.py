"""`manage.py prepare_runtimes`: gets the runtimes' images into the engine, and finds the package registries."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from builds.runtimes.image_preparation import (
    PreparationError,
    RuntimeImage,
    discover_registries,
    prepare,
    runtime_images,
)
from builds.runtimes.registries import forget
from builds.runtimes.runtime import UnknownRuntimeError
from builds.sandbox.chef_init import first_process
from builds.sandbox.contract import SandboxError
from builds.sandbox.image_store import ImageStore


class Command(BaseCommand):
    help = "Pull or build the image of every runtime that is not in the Docker engine, and find the package registries."
    requires_system_checks = ()  # start.sh waits for this; the server runs the checks

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--runtime", action="append", default=[], metavar="NAME[:VERSION]", help="only this one; may be repeated"
        )
        parser.add_argument("--force", action="store_true", help="create the images again even if they exist")
        parser.add_argument("--no-pull", action="store_true", help="do not pull: build the images from packages")

    def handle(self, *args: Any, **options: Any) -> None:
        # A plain SIGTERM would leave the temporary folder and an untagged image behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if warning := first_process().warning:
            self._print(warning)
        try:
            images = runtime_images(options["runtime"])
            with ImageStore() as store:
                self._prepare(images, store, force=options["force"], pull=not options["no_pull"])
                found = discover_registries(store=store, fresh=True)
        except (SandboxError, PreparationError, UnknownRuntimeError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt as error:
            raise CommandError("Interrupted; run it again to create the missing images.") from error
        self._print(
            f"package registries: {', '.join(sorted(f'{host}:{port}' for host, port in found.hosts)) or 'none'}"
        )

    def _prepare(self, images: list[RuntimeImage], store: ImageStore, *, force: bool, pull: bool) -> None:
        ready = prepare(images, store=store, force=force, pull=pull, report=self._print)
        if any(prepared.how != "present" for prepared in ready):
            forget()  # a new image may have a package manager with another default

    def _print(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
