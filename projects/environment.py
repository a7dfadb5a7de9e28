"""The environment of a project's builds: which variables are allowed, how they are stored, and which phase gets them.

Plain variables go to both phases. Secrets go to the build phase, and to installation only on request; their values are
never returned. Knows nothing of masking logs or of containers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.db import transaction

from chef.refusals import Reason, RefusalError
from chef.storage.sealing import UnsealError, seal, unseal
from projects.models import EnvironmentVariable, Project

MAX_NAME_CHARS = 100
MAX_VARIABLES = 100
MAX_VALUE_BYTES = 32 * 1024
MAX_TOTAL_BYTES = 64 * 1024
# Shorter texts occur in logs by chance: masking them would reveal more than it hides.
MIN_SECRET_CHARS = 8

NAME_PATTERN = "[A-Za-z_][A-Za-z0-9_]*"
_NAME = re.compile(NAME_PATTERN)

_IN_A_COMMAND = "Set it in the command that needs it instead, as in `{name}=value command`."


class ReservedFor(StrEnum):
    """Why a name cannot be set, and what to do instead."""

    TOOLS = "Chef sets this to where the build finds its tools and files. " + _IN_A_COMMAND
    PROGRAMS = "This affects every program that a phase starts, including Chef's own. " + _IN_A_COMMAND
    SHELL = "This changes how the shell reads commands. " + _IN_A_COMMAND
    EGRESS = "Chef configures how installations reach the package registries: leave this out."
    PACKAGE_MANAGERS = (
        "Chef configures the package managers. Write the option into the project's own file, such as .npmrc, or into "
        "`strategy.installCommand`."
    )
    CHEF = "Names that begin with CHEF_ are reserved: choose another one."


# Patterns of names in upper case, and why they are refused; what runs builds adds the names that its tools read.
_RESERVED: list[tuple[re.Pattern[str], ReservedFor]] = [
    (re.compile("PATH|HOME|USER|LOGNAME|SHELL|PWD|TMPDIR|TMP|TEMP"), ReservedFor.TOOLS),
    (re.compile("LD_.*|GLIBC_TUNABLES|GCONV_PATH"), ReservedFor.PROGRAMS),
    (re.compile("BASH_ENV|ENV|IFS|SHELLOPTS|BASHOPTS|PS4"), ReservedFor.SHELL),
    (re.compile(".*_PROXY|SSL_CERT_FILE|SSL_CERT_DIR|CURL_CA_BUNDLE"), ReservedFor.EGRESS),
    (re.compile("CHEF_.*"), ReservedFor.CHEF),
]


def reserve(pattern: str, reason: ReservedFor) -> None:
    """Refuse names whose upper-case form matches the pattern as a whole. Called once for each, at start."""
    _RESERVED.append((re.compile(pattern), reason))


@dataclass(frozen=True)
class Secret:
    """A value that is never shown again. `installation`: whether that phase gets it too."""

    value: str = field(repr=False)
    installation: bool = False


@dataclass(frozen=True)
class EnvironmentFault:
    """One error: in `env` or `secrets`, at which name if any, and what to do. Never contains the value."""

    where: str
    name: str
    detail: str


class InvalidEnvironmentError(RefusalError):
    """The environment is invalid. `faults` lists every error."""

    code, status = "invalid_environment", 400

    def __init__(self, faults: Iterable[EnvironmentFault]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            "; ".join(f"{fault.where}.{fault.name}: {fault.detail}" for fault in self.faults),
            reasons=[self._reason(fault) for fault in self.faults],
        )

    def _reason(self, fault: EnvironmentFault) -> Reason:
        attr = (fault.where, fault.name[:MAX_NAME_CHARS]) if fault.name else (fault.where,)
        return Reason(self.code, fault.detail, attr, is_of_user=bool(fault.name))


class EnvironmentUnreadableError(Exception):
    """These variables were encrypted with a key that this installation no longer has."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"no key decrypts {', '.join(names)}")
        self.names = names


@dataclass(frozen=True)
class BuildEnvironment:
    """The variables of each phase of one build, and the values to mask in its output."""

    installation: Mapping[str, str] = field(default_factory=dict, repr=False)
    build: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # (name, value)

    def for_phase(self, phase: str) -> dict[str, str]:
        given = {"installation": self.installation, "build": self.build}
        return dict(given.get(phase, {}))


# --- What may be in it -------------------------------------------------------------------------------------------


def name_fault(name: str) -> str | None:
    """Why a variable's name is invalid and what to do; empty if it is valid."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        return (
            f"A name has letters, digits and _, does not start with a digit, and at most {MAX_NAME_CHARS} characters."
        )
    reason = next((reason for pattern, reason in _RESERVED if pattern.fullmatch(name.upper())), None)
    return f"{name} cannot be set here. {reason.format(name=name)}" if reason else None


def value_fault(value: str) -> str | None:
    """Why a value is invalid; empty if it is valid. Never contains the value."""
    if "\0" in value:
        return "The value contains a NUL character, which is not allowed: remove it, or encode the value as base64."
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "The value contains invalid Unicode (an unpaired surrogate): send valid text, or encode it as base64."
    if size > MAX_VALUE_BYTES:
        return f"The value has {size:,} bytes, more than the {MAX_VALUE_BYTES:,} allowed: put it into a project file."
    return None


def secret_fault(value: str) -> str | None:
    """Why a secret's value is invalid; empty if it is valid."""
    if fault := value_fault(value):
        return fault
    if len(re.sub(r"[\x00-\x20\x7f-\xa0]", "", value)) < MIN_SECRET_CHARS:
        return (
            f"A secret needs at least {MIN_SECRET_CHARS} characters besides spaces: a shorter one cannot be masked in "
            "logs. Make it longer, or send it in `env` if it need not be kept secret."
        )
    return None


def environment_faults(env: Mapping[str, str | None], secrets: Mapping[str, Secret | None]) -> list[EnvironmentFault]:
    """All errors in new variables that can be found without the existing ones."""
    found = [
        ("env", name, name_fault(name) or (value_fault(value) if value is not None else None))
        for name, value in env.items()
    ]
    found += [
        ("secrets", name, name_fault(name) or (secret_fault(secret.value) if secret else None))
        for name, secret in secrets.items()
    ]
    twice = "This name is in `env` too: a variable is either plain or secret, so leave it out of one of them."
    found += [("secrets", name, twice) for name in secrets if name in env]
    return [EnvironmentFault(where, name, detail) for where, name, detail in found if detail]


# --- How it is kept ----------------------------------------------------------------------------------------------


@transaction.atomic
def set_environment(
    project: Project, *, env: Mapping[str, str | None] | None, secrets: Mapping[str, Secret | None] | None
) -> None:
    """Set the named variables and keep all others; None removes a variable.

    A plain variable can become a secret and the reverse. Raises InvalidEnvironmentError and changes nothing then.
    """
    env, secrets = env or {}, secrets or {}
    if faults := environment_faults(env, secrets):
        raise InvalidEnvironmentError(faults)
    if not env and not secrets:
        return
    Project.objects.select_for_update().get(pk=project.pk)  # so that the limits hold for concurrent changes
    for kind, changes in ((False, env), (True, secrets)):
        gone = [name for name, value in changes.items() if value is None]
        project.variables.filter(is_secret=kind, name__in=gone).delete()
    _write(project, env, secrets)
    _check_totals(project, where="env" if env else "secrets")


def _write(project: Project, env: Mapping[str, str | None], secrets: Mapping[str, Secret | None]) -> None:
    rows = [
        EnvironmentVariable(project=project, name=name, sealed_value=seal(value), for_installation=True)
        for name, value in env.items()
        if value is not None
    ]
    rows += [
        EnvironmentVariable(
            project=project,
            name=name,
            sealed_value=seal(secret.value),
            is_secret=True,
            for_installation=secret.installation,
        )
        for name, secret in secrets.items()
        if secret is not None
    ]
    EnvironmentVariable.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["project", "name"],
        update_fields=["sealed_value", "is_secret", "for_installation"],
    )


def _check_totals(project: Project, *, where: str) -> None:
    variables = _opened(project)
    total = sum(len(row.name) + len((value or "").encode()) for row, value in variables)
    faults = []
    if (count := len(variables)) > MAX_VARIABLES:
        detail = (
            f"The project would have {count} variables and may have {MAX_VARIABLES}: leave some out or remove some."
        )
        faults.append(EnvironmentFault(where, "", detail))
    if total > MAX_TOTAL_BYTES:
        detail = (
            f"All variables together would take {total:,} bytes and may take {MAX_TOTAL_BYTES:,}: shorten some, or put "
            "large values into files of the project."
        )
        faults.append(EnvironmentFault(where, "", detail))
    if faults:
        raise InvalidEnvironmentError(faults)


# --- What is made of it ------------------------------------------------------------------------------------------


def environment_for(project: Project) -> BuildEnvironment:
    """The environment of a build's phases. Raises EnvironmentUnreadableError if a key is missing."""
    variables = _opened(project)
    if unreadable := [row.name for row, value in variables if value is None]:
        raise EnvironmentUnreadableError(unreadable)
    known = [(row, value or "") for row, value in variables]
    return BuildEnvironment(
        installation={row.name: value for row, value in known if row.for_installation},
        build={row.name: value for row, value in known},
        secrets=tuple((row.name, value) for row, value in known if row.is_secret),
    )


def environment_document(project: Project) -> dict[str, Any]:
    """`{"env": {name: value}, "secrets": [{"name", "installation"}]}`; a value that cannot be decrypted is None."""
    variables = _opened(project)
    return {
        "env": {row.name: value for row, value in variables if not row.is_secret},
        "secrets": [{"name": row.name, "installation": row.for_installation} for row, _ in variables if row.is_secret],
    }


def _opened(project: Project) -> list[tuple[EnvironmentVariable, str | None]]:
    """The project's variables by name with their values; None where a value cannot be decrypted."""
    return [(row, _value_of(row)) for row in project.variables.order_by("name")]


def _value_of(row: EnvironmentVariable) -> str | None:
    try:
        return unseal(row.sealed_value)
    except UnsealError:
        return None
