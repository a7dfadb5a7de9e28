"""System checks: a setting that cannot work is told at start, with what to do."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

# A unix socket's path may have 107 bytes; the egress proxy adds its own folder and name to BUILD_DIR.
MAX_BUILD_DIR_BYTES = 107 - len("/0123456789ab-9999999/proxy.sock")


@register()
def build_dir_is_short(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if len(str(settings.BUILD_DIR).encode()) <= MAX_BUILD_DIR_BYTES:
        return []
    hint = "Set BUILD_DIR to a shorter path, such as /run/chef."
    return [Error(f"BUILD_DIR is longer than {MAX_BUILD_DIR_BYTES} bytes.", hint=hint, id="builds.E001")]


@register()
def ca_bundle_is_there(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.CA_BUNDLE or Path(settings.CA_BUNDLE).is_file():
        return []
    hint = "Set it to a file of certificates in PEM form, or leave it unset."
    return [Error(f"SSL_CERT_FILE={settings.CA_BUNDLE} is not a file.", hint=hint, id="builds.E002")]
