"""A project's variables: validation, what each phase receives, storage, and what the API shows."""

import string
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connections, transaction
from rest_framework.test import APIClient

from builds.models import Build
from builds.queue.claims import claim
from builds.runner import Run
from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.package_index import IndexSettings
from builds.sandbox.container import base_environment, egress_environment
from builds.sandbox.contract import Registries
from chef.jobs.models import Status
from chef.storage.sealing import UnsealError, reseal, seal, unseal
from projects.environment import (
    MAX_TOTAL_BYTES,
    MAX_VALUE_BYTES,
    MAX_VARIABLES,
    EnvironmentUnreadableError,
    InvalidEnvironmentError,
    Secret,
    environment_document,
    environment_for,
    name_fault,
    set_environment,
)
from projects.models import EnvironmentVariable, Project

LONG = "hunter2hunter2"
HOSTILE = "a\nb'\"`id`$(id)${HOME}\\ \t%s ü🍳;|&><*?~#"
# Set by Chef only to tune tools; a project may override them.
OPEN_TO_CHANGE = {"LANG", "CI", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "DO_NOT_TRACK"}


@pytest.fixture
def project(owner: User) -> Project:
    return Project.objects.create(owner=owner, name="project")


@pytest.fixture
def client(owner: User, make_client: Callable[..., APIClient]) -> APIClient:
    return make_client(owner)


def change(project: Project, env: Any = None, secrets: Any = None) -> None:
    set_environment(project, env=env, secrets=secrets)


def refusals(project: Project, env: Any = None, secrets: Any = None) -> dict[str, str]:
    """Reasons of refusals by attr."""
    with pytest.raises(InvalidEnvironmentError) as refused:
        change(project, env, secrets)
    return {f"{fault.where}.{fault.name}": fault.detail for fault in refused.value.faults}


# --- Sealing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "plain text", HOSTILE, "y" * 32_768])
def test_a_sealed_text_is_hidden_and_can_be_unsealed(text: str) -> None:
    sealed = seal(text)

    assert unseal(sealed) == text
    assert not text or text not in sealed
    assert seal(text) != sealed  # equal values have different ciphertexts


def test_a_new_key_seals_and_the_old_one_still_unseals(settings: Any) -> None:
    settings.SECRETS_KEYS = ["old" * 20]
    sealed = seal("text")

    settings.SECRETS_KEYS = ["new" * 20, "old" * 20]
    resealed = reseal(sealed)
    assert unseal(sealed) == "text"

    settings.SECRETS_KEYS = ["new" * 20]
    assert unseal(resealed) == "text"
    with pytest.raises(UnsealError):
        unseal(sealed)


def test_an_altered_sealed_text_is_refused() -> None:
    sealed = seal("text")

    with pytest.raises(UnsealError):
        unseal(sealed[:-6] + ("AAAA==" if not sealed.endswith("AAAA==") else "BBBB=="))


def test_resealing_uses_the_newest_key(project: Project, settings: Any) -> None:
    settings.SECRETS_KEYS = ["old" * 20]
    change(project, {"MODE": "dev"}, {"TOKEN": Secret(LONG)})
    settings.SECRETS_KEYS = ["new" * 20, "old" * 20]

    call_command("reseal_environment", verbosity=0)

    settings.SECRETS_KEYS = ["new" * 20]
    assert environment_for(project).for_phase("build") == {"MODE": "dev", "TOKEN": LONG}
    settings.SECRETS_KEYS = ["another" * 10]
    with pytest.raises(CommandError, match="MODE of project"):
        call_command("reseal_environment", verbosity=0)


# --- Validation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", "1A", "A-B", "A B", "A=B", "A\n", "Ä", "a" * 101, "A.B", "$A"),
        *("PATH", "HOME", "USER", "SHELL", "path", "LD_PRELOAD", "LD_LIBRARY_PATH", "NODE_OPTIONS", "PYTHONHOME"),
        *("PYTHONSTARTUP", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "No_Proxy", "NODE_EXTRA_CA_CERTS"),
        *("SSL_CERT_FILE", "PIP_INDEX_URL", "npm_config_registry", "NPM_CONFIG_REGISTRY", "CHEF_X"),
        *("BASH_ENV", "ENV", "IFS"),
    ],
)
def test_a_reserved_name_is_refused_with_an_explanation(project: Project, name: str) -> None:
    assert len(refusals(project, env={name: "x"})[f"env.{name}"]) > 40
    assert f"secrets.{name}" in refusals(project, secrets={name: Secret(LONG)})


@pytest.mark.parametrize("name", ["A", "_", "API_KEY", "vite_api", "NODE_ENV", "CI", "PYTHONPATH", "a" * 100, "PATHS"])
def test_other_names_are_accepted(name: str) -> None:
    assert name_fault(name) is None


def test_variables_set_by_chef_are_reserved(settings: Any) -> None:
    settings.CA_BUNDLE = "/etc/ssl/bundle.pem"
    full = IndexSettings(["x"], {"extra": ["x"], "trusted": ["x"]})
    set_by_chef = base_environment()
    for runtime in RUNTIMES.values():
        to_index = runtime.package_index.environment(full) if runtime.package_index else {}
        registries = Registries(frozenset(), to_index, runtime.proxy_variables, runtime.ca_variables)
        set_by_chef |= {**runtime.environment, **egress_environment(registries)}

    assert {name for name in set_by_chef if not name_fault(name)} == OPEN_TO_CHANGE


def test_all_errors_are_reported_at_once_without_values(project: Project) -> None:
    env = {"PATH": "leak-1", "NUL": "leak\0-2", "HALF": "leak\ud800", "BIG": "leak-4" * MAX_VALUE_BYTES, "OK": "fine"}
    secrets = {"SHORT": Secret("leak"), "SPACES": Secret(" " * 20), "OK": Secret(LONG)}

    found = refusals(project, env, secrets)

    assert set(found) == {
        *("env.PATH", "env.NUL", "env.HALF", "env.BIG", "secrets.SHORT", "secrets.SPACES", "secrets.OK"),
    }
    assert "leak" not in str(found)
    assert not EnvironmentVariable.objects.exists()


def test_limits_apply_to_all_variables_together(project: Project) -> None:
    most = {f"V{number}": "x" for number in range(MAX_VARIABLES)}
    change(project, most)

    assert "may have 100" in refusals(project, {"MORE": "x"})["env."]
    assert "together" in refusals(project, {"V1": "x" * 32_000, "V2": "x" * 32_000, "V3": "x" * 2_000})["env."]
    change(project, {"V1": None, "MORE": "x"}, {"TOKEN": None})
    assert environment_document(project)["env"].keys() == most.keys() - {"V1"} | {"MORE"}
    assert MAX_TOTAL_BYTES >= 2 * MAX_VALUE_BYTES


# --- Storage and phases --------------------------------------------------------------------------------


def test_each_phase_gets_only_its_variables(project: Project) -> None:
    change(project, {"MODE": HOSTILE}, {"TOKEN": Secret(LONG), "NPM_TOKEN": Secret(LONG * 2, installation=True)})

    environment = environment_for(project)

    assert environment.for_phase("installation") == {"MODE": HOSTILE, "NPM_TOKEN": LONG * 2}
    assert environment.for_phase("build") == {"MODE": HOSTILE, "NPM_TOKEN": LONG * 2, "TOKEN": LONG}
    assert environment.for_phase("artifacts") == {}
    assert environment.secrets == (("NPM_TOKEN", LONG * 2), ("TOKEN", LONG))


def test_an_update_merges_by_name_and_none_removes(project: Project) -> None:
    change(project, {"A": "1", "B": "2"}, {"S": Secret(LONG), "T": Secret(LONG)})

    change(project, {"A": "3", "B": None, "GONE": None}, {"S": None, "U": Secret(LONG, installation=True)})

    assert environment_document(project) == {
        "env": {"A": "3"},
        "secrets": [{"name": "T", "installation": False}, {"name": "U", "installation": True}],
    }


def test_a_variable_can_change_its_kind_but_is_only_removed_as_its_own(project: Project) -> None:
    change(project, {"A": "plain"}, {"S": Secret(LONG)})

    change(project, {"S": None}, {"A": Secret(LONG)})

    assert environment_document(project) == {
        "env": {},
        "secrets": [{"name": "A", "installation": False}, {"name": "S", "installation": False}],
    }


def test_values_are_neither_in_the_database_nor_in_reprs(project: Project) -> None:
    change(project, {"MODE": "plain-value"}, {"TOKEN": Secret(LONG)})

    stored = str(list(EnvironmentVariable.objects.values()))
    shown = repr((Secret(LONG), environment_for(project), list(project.variables.all())))

    assert LONG not in stored + shown
    assert "plain-value" not in stored + shown


def test_variables_belong_to_one_project(project: Project, other: User) -> None:
    change(project, {"A": "1"}, {"S": Secret(LONG)})

    assert environment_document(Project.objects.create(owner=other, name="other")) == {"env": {}, "secrets": []}


def test_a_plain_variable_hidden_from_installation_is_refused(project: Project) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        EnvironmentVariable.objects.create(project=project, name="A", sealed_value="x")


@pytest.mark.django_db(transaction=True)
def test_concurrent_changes_all_count_and_respect_the_limit(project: Project) -> None:
    refused: list[str] = []

    def add(number: int) -> None:
        try:
            change(project, {f"T{number}_{letter}": "x" for letter in string.ascii_letters[:30]})
        except InvalidEnvironmentError as refusal:
            refused.append(str(refusal))

    _run_concurrently([partial(add, number) for number in range(4)])

    assert len(refused) == 1
    assert project.variables.count() == 90


def _run_concurrently(tasks: list[Callable[[], None]]) -> None:
    def run(task: Callable[[], None]) -> None:
        try:
            task()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- A lost key ----------------------------------------------------------------------------------------


def test_variables_without_their_key_are_reported_by_name(project: Project, settings: Any) -> None:
    change(project, {"MODE": "dev"}, {"TOKEN": Secret(LONG)})
    settings.SECRETS_KEYS = ["another" * 10]

    with pytest.raises(EnvironmentUnreadableError, match="MODE, TOKEN"):
        environment_for(project)

    assert environment_document(project)["env"] == {"MODE": None}
    change(project, {"MODE": "again", "NEW": "x"}, {"TOKEN": Secret(LONG)})
    assert environment_for(project).for_phase("build") == {"MODE": "again", "NEW": "x", "TOKEN": LONG}


@pytest.mark.django_db(transaction=True)
def test_a_build_without_its_key_ends_at_once_with_a_verdict(queue_build: Callable[..., Build], settings: Any) -> None:
    build = queue_build(secrets={"TOKEN": Secret(LONG)})
    settings.SECRETS_KEYS = ["another" * 10]
    lease = claim("worker")
    assert lease

    def no_sandbox() -> Any:
        raise AssertionError("nothing may be started")

    Run(lease, no_sandbox).execute()

    build.refresh_from_db()
    assert (build.status, build.fence) == (Status.FAILED, 1)
    assert build.verdict is not None
    assert (build.verdict["code"], build.verdict["phase"]) == ("environment_unreadable", "preparation")
    assert "TOKEN" in build.verdict["message"]


# --- The API -------------------------------------------------------------------------------------------


def post(client: APIClient, **body: Any) -> Any:
    return client.post("/v1/projects", {"files": {"index.html": "x"}, **body})


def test_a_project_can_be_submitted_with_its_environment(client: APIClient) -> None:
    secrets = {"TOKEN": LONG, "NPM_TOKEN": {"value": LONG, "installation": True}}

    answer = post(client, env={"MODE": HOSTILE, "EMPTY": "", "SPACE": " x "}, secrets=secrets)

    document = client.get(f"/v1/projects/{answer.json()['projectId']}").json()
    assert document["env"] == {"MODE": HOSTILE, "EMPTY": "", "SPACE": " x "}
    assert document["secrets"] == [
        {"name": "NPM_TOKEN", "installation": True},
        {"name": "TOKEN", "installation": False},
    ]
    assert LONG not in str(document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("env", {"X": 1}),
        ("env", {"X": None}),
        ("env", {"X": ["leak"]}),
        ("secrets", {"X": None}),
        ("secrets", {"X": {"value": 12345678}}),
        ("secrets", {"X": {"value": "leakleak", "installation": "yes"}}),
        ("secrets", {"X": {"value": "leakleak", "phase": "build"}}),
        ("secrets", {"X": {"installation": True}}),
        ("secrets", {"X": "leak"}),
    ],
)
def test_an_invalid_value_is_refused_at_its_path(client: APIClient, field: str, value: Any) -> None:
    answer = post(client, **{field: value})

    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert (error["code"], error["attr"]) == ("invalid_environment", f"{field}.X")
    assert "leak" not in error["detail"]
    assert not Project.objects.exists()


@pytest.mark.parametrize("value", ["A=1", [["A", "1"]], None, 3])
def test_a_field_that_is_not_an_object_is_refused(client: APIClient, value: Any) -> None:
    answer = post(client, env=value, secrets=value)

    assert answer.status_code == 400
    assert {error["attr"] for error in answer.json()["errors"]} == {"env", "secrets"}


def test_a_name_of_both_kinds_is_refused_and_nothing_is_stored(client: APIClient) -> None:
    answer = post(client, env={"X": "plain"}, secrets={"X": LONG})

    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert (error["code"], error["attr"]) == ("invalid_environment", "secrets.X")
    assert not Project.objects.exists()


def test_too_large_a_total_is_refused_at_the_field(client: APIClient) -> None:
    project = post(client, env={"A": "x" * 30_000, "B": "x" * 30_000}).json()["projectId"]

    answer = client.patch(f"/v1/projects/{project}", {"env": {"C": "x" * 30_000}})

    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert (error["code"], error["attr"]) == ("invalid_environment", "env")
