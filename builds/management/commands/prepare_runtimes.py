"""`manage.py prepare_runtimes`: every runtime's image is in the engine, and the package registries are known."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from builds.runtimes.images import PreparationError, RuntimeImage, discover_registries, prepare, runtime_images
from builds.runtimes.registries import forget
from builds.runtimes.runtime import UnknownRuntimeError
from builds.sandbox.chef_init import first_process
from builds.sandbox.contract import SandboxError
from builds.sandbox.images import ImageStore


class Command(BaseCommand):
    help = "Pull or build the image of every runtime that is not in the Docker engine, and find the package registries."
    requires_system_checks = ()  # start.sh waits for this; the checks are the server's

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--runtime", action="append", default=[], metavar="NAME[:VERSION]", help="only this one; may be repeated"
        )
        parser.add_argument("--force", action="store_true", help="make the images anew although they are there")
        parser.add_argument("--no-pull", action="store_true", help="ask no image registry: build from packages")

    def handle(self, *args: Any, **options: Any) -> None:
        # A plain SIGTERM would leave the temporary folder and an untagged image behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if warning := first_process().warning:
            self._tell(warning)
        try:
            images = runtime_images(options["runtime"])
            with ImageStore() as store:
                self._prepare(images, store, force=options["force"], pull=not options["no_pull"])
                found = discover_registries(store=store, fresh=True)
        except (SandboxError, PreparationError, UnknownRuntimeError) as fault:
            raise CommandError(str(fault)) from fault
        except KeyboardInterrupt as fault:
            raise CommandError("Interrupted; run it again to make the images that are missing.") from fault
        self._tell(f"package registries: {', '.join(sorted(f'{host}:{port}' for host, port in found.hosts)) or 'none'}")

    def _prepare(self, images: list[RuntimeImage], store: ImageStore, *, force: bool, pull: bool) -> None:
        ready = prepare(images, store=store, force=force, pull=pull, report=self._tell)
        if any(prepared.how != "present" for prepared in ready):
            forget()  # a new image may bring a package manager with another default

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
