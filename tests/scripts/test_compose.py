"""Guarantees of docker-compose.yml and Dockerfile, by their text; scripts/compose-trial.sh runs them."""

import re
from typing import Any

import pytest
import yaml
from django.conf import settings

from builds.checks import MAX_BUILD_DIR_BYTES
from builds.sandbox import chef_init

pytestmark = pytest.mark.once

Service = dict[str, Any]

# Settings of an installation without compose, or of a single process: compose sets these itself.
SET_BY_COMPOSE = {"ARTIFACTS_DIR", "CHEF_DATA_DIR", "DEBUG", "DOCKER_HOST", "REDIS_PORT", "REDIS_URL"}
SET_BY_COMPOSE |= {"CHEF_ALLOW_ANONYMOUS"}  # only valid with DEBUG
# These refer to the host; the containers get a port and a mounted file.
OF_THE_HOST = {"PORT", "SSL_CERT_FILE"}


@pytest.fixture(scope="module")
def source() -> str:
    return (settings.BASE_DIR / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def compose(source: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(source)
    return document


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = compose["services"]
    return found


@pytest.fixture(scope="module")
def django_settings() -> str:
    return (settings.BASE_DIR / "chef" / "settings.py").read_text()


def ends_by_itself(service: Service) -> bool:
    return str(service["restart"]) == "no"


def staying(services: dict[str, Service]) -> dict[str, Service]:
    return {name: service for name, service in services.items() if not ends_by_itself(service)}


def environment_of(services: dict[str, Service]) -> set[str]:
    return {name for service in services.values() for name in service.get("environment", {})}


def mounts(service: Service) -> list[tuple[str, str]]:
    """(source, target) of each volume; a source such as `${NAME:-/default}` contains colons."""
    found = [re.fullmatch(r"((?:\$\{[^}]*}|[^:$])+):((?:\$\{[^}]*}|[^:$])+)(?::ro)?", v) for v in service["volumes"]]
    return [(match[1], match[2]) for match in found if match]


# --- Networks -----------------------------------------------------------------------------------------


def test_only_web_publishes_a_port(services: dict[str, Service]) -> None:
    publishing = {name for name, service in services.items() if "ports" in service}

    assert publishing == {"web"}
    assert len(services["web"]["ports"]) == 1
    assert not any(service.get("network_mode") == "host" for service in services.values())


def test_web_is_published_only_locally_by_default(services: dict[str, Service]) -> None:
    port = services["web"]["ports"][0]

    assert port == "${CHEF_BIND:-127.0.0.1}:${PORT:-3001}:3001"


def test_database_and_redis_cannot_reach_the_internet(compose: dict[str, Any], services: dict[str, Service]) -> None:
    reachable = {name: services[name]["networks"] for name in ("postgres", "redis")}

    assert reachable == {"postgres": ["data"], "redis": ["data"]}
    assert compose["networks"]["data"] == {"internal": True}


def test_web_and_workers_share_only_the_data_network(services: dict[str, Service]) -> None:
    shared = set(services["web"]["networks"]) & set(services["worker"]["networks"])

    assert shared == {"data"}


def test_only_workers_have_the_docker_socket(services: dict[str, Service]) -> None:
    holders = {name for name, service in services.items() if "docker.sock" in str(service.get("volumes"))}

    assert holders == {"worker"}
    assert {name for name, service in services.items() if "group_add" in service} == {"worker"}


# --- Containers ---------------------------------------------------------------------------------------


def test_containers_have_minimal_privileges(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert "privileged" not in service, name


def test_only_the_folder_set_up_runs_as_root(services: dict[str, Service]) -> None:
    roots = {name: service for name, service in services.items() if service.get("user") == "0:0"}

    assert set(roots) == {"folders"}
    assert roots["folders"]["network_mode"] == "none"
    assert ends_by_itself(roots["folders"])
    assert (settings.BASE_DIR / "Dockerfile").read_text().count("\nUSER chef\n") == 1


def test_permanent_services_are_monitored_and_restarted(services: dict[str, Service]) -> None:
    for name, service in staying(services).items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert {"interval", "timeout", "retries", "start_period"} < set(service["healthcheck"]), name
        assert "stop_grace_period" in service, name

    assert set(staying(services)) == {"postgres", "redis", "web", "worker", "generator", "sender", "reaper"}


def test_one_off_services_are_waited_for(services: dict[str, Service]) -> None:
    awaited = {
        dependency
        for service in services.values()
        for dependency, how in service.get("depends_on", {}).items()
        if how == {"condition": "service_completed_successfully"}
    }

    assert awaited == set(services) - set(staying(services))
    assert all("migrate" in services[name]["depends_on"] for name in ("web", "worker", "generator", "sender", "reaper"))


def test_images_have_a_tag(services: dict[str, Service]) -> None:
    images = {name: service["image"] for name, service in services.items()}

    assert images["postgres"] == "postgres:15-bookworm"
    assert images["redis"] == "redis:7-bookworm"
    assert {images[name] for name in set(services) - {"postgres", "redis"}} == {"${CHEF_IMAGE:-chef:local}"}


def test_one_service_builds_the_image_for_all(services: dict[str, Service]) -> None:
    building = {name for name, service in services.items() if "build" in service}

    assert building == {"migrate"}


# --- Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "DOCKER_GID"])
def test_secrets_are_required_with_an_explanation(source: str, name: str) -> None:
    uses = re.findall(rf"\$\{{{name}(\W[^}}]*)?}}", source)

    assert [use for use in uses if use.startswith(":?set it in .env")]
    assert not [use for use in uses if use.startswith((":-", "-"))]


def test_every_setting_is_passed_on_or_listed(services: dict[str, Service], django_settings: str) -> None:
    names = set(re.findall(r'\benv(?:_\w+)?\("([A-Z_0-9]+)"', django_settings))

    missing = names - environment_of(services) - SET_BY_COMPOSE - OF_THE_HOST

    assert not missing, "add these to docker-compose.yml for the services that read them, or list here why not"


def test_redis_is_persistent_and_requires_a_password(services: dict[str, Service]) -> None:
    configuration = services["redis"]["command"][-1].splitlines()

    assert "appendonly yes" in configuration
    assert 'requirepass "$$REDISCLI_AUTH"' in configuration
    assert mounts(services["redis"]) == [("redis", "/data")]


def test_only_web_pools_database_connections(services: dict[str, Service]) -> None:
    pooling = {name for name, service in services.items() if "CHEF_DB_POOL" in service.get("environment", {})}

    assert pooling == {"web"}


def test_installations_on_one_engine_have_different_labels(services: dict[str, Service]) -> None:
    labels = {services[name]["environment"]["CHEF_INSTALLATION"] for name in ("web", "worker", "reaper")}

    assert labels == {"compose-${COMPOSE_PROJECT_NAME:-chef}"}


def test_workers_and_engine_see_sockets_at_the_same_path(services: dict[str, Service]) -> None:
    worker = services["worker"]

    folder = worker["environment"]["BUILD_DIR"]
    default = folder.removeprefix("${BUILD_DIR:-").removesuffix("}")

    assert (folder, folder) in mounts(worker)
    assert (folder, "/builds") in mounts(services["folders"])
    assert default.startswith("/")
    assert len(default) <= MAX_BUILD_DIR_BYTES


def test_workers_have_more_time_to_stop_than_their_builds(services: dict[str, Service], django_settings: str) -> None:
    grace = re.search(r'"CHEF_SHUTDOWN_GRACE_SECONDS", (\d+),', django_settings)

    allowed = services["worker"]["stop_grace_period"]

    assert grace
    assert allowed == f"1m${{CHEF_SHUTDOWN_GRACE_SECONDS:-{grace[1]}}}s"


def test_web_and_workers_share_the_artifacts(services: dict[str, Service]) -> None:
    shared = ("artifacts", "/srv/artifacts")

    assert all(shared in mounts(services[name]) for name in ("web", "worker", "reaper"))
    assert "ARTIFACTS_DIR=/srv/artifacts" in (settings.BASE_DIR / "Dockerfile").read_text()


# --- The image ----------------------------------------------------------------------------------------


def test_image_contains_only_the_whole_application() -> None:
    lines = (settings.BASE_DIR / ".dockerignore").read_text().splitlines()
    included = {line.removeprefix("!") for line in lines if line.startswith("!")}
    apps = {app for app in settings.INSTALLED_APPS if (settings.BASE_DIR / app).is_dir()}

    assert "*" in lines
    assert included == apps | {"chef", "templates", "static", "manage.py", "requirements.lock", "certs"}


def test_image_compiles_the_first_process_of_builds_itself() -> None:
    recipe, ignored = ((settings.BASE_DIR / name).read_text() for name in ("Dockerfile", ".dockerignore"))
    compiled = chef_init.FOLDER.relative_to(settings.BASE_DIR)

    first_stage, _, last_stage = recipe.rpartition("\nFROM ")
    assert "python -m builds.sandbox.chef_init" in first_stage
    assert str(compiled) in ignored.splitlines(), "locally compiled files are not copied into the image"
    assert "gcc" not in last_stage


def test_image_installs_locked_packages_by_hash() -> None:
    recipe = (settings.BASE_DIR / "Dockerfile").read_text()

    assert "--require-hashes --requirement requirements.lock" in recipe
    assert recipe.count("\nFROM python:3.11-slim-bookworm") == 2
