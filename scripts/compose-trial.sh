#!/usr/bin/env bash
# Tests Dockerfile and docker-compose.yml: builds the image, starts a separate stack on a free port, checks published
# ports and mounts, builds a project through that port, opens its site, and takes everything down again.
#
#   scripts/compose-trial.sh [PROJECT_FOLDER]    default: examples/react-ts-vite
#   scripts/compose-trial.sh --clean             remove the look-alike images of earlier trials
#
# Public images that the engine lacks are built from Debian packages, under their public names and labelled
# chef.lookalike=1, with as much of the official images' behaviour as docker-compose.yml uses. That needs root and
# mmdebstrap. With an image registry, pull the three first, and none is built.
# The workers pull the runtimes' images (chef-runtime/*), unless `manage.py prepare_runtimes` has built them before.

set -euo pipefail
cd "$(dirname "$0")/.."

readonly LABEL=chef.lookalike=1
readonly PYTHON=python:3.11-slim-bookworm POSTGRES=postgres:15-bookworm REDIS=redis:7-bookworm
readonly START_SECONDS=300 BUILD_SECONDS=300

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'compose-trial: %s\n' "$*" >&2; exit 1; }

# --- Look-alikes of the public images ------------------------------------------------------------------------------

make_missing_images() {
    has_image "$PYTHON" || make_python
    has_image "$POSTGRES" || make_postgres
    has_image "$REDIS" || make_redis
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

make_python() {
    hook install 'ln -s /usr/bin/python3 /usr/local/bin/python; ln -s /usr/bin/python3 /usr/local/bin/python3
        rm -f /usr/lib/python3*/EXTERNALLY-MANAGED'
    make_image "$PYTHON" ca-certificates,gcc,libc6-dev,netbase,passwd,python3,python3-pip,python3-venv,tzdata
}

make_postgres() {
    # Otherwise Debian's package creates a cluster at once.
    hook essential 'mkdir -p /etc/postgresql-common
        echo create_main_cluster=false >/etc/postgresql-common/createcluster.conf'
    hook install "install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
        echo $(base64 -w0 <<<"$POSTGRES_ENTRYPOINT") | base64 -d >/usr/local/bin/docker-entrypoint.sh
        chmod +x /usr/local/bin/docker-entrypoint.sh"
    make_image "$POSTGRES" postgresql-15 'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["postgres"]' \
        'ENV PGDATA=/var/lib/postgresql/data' 'VOLUME /var/lib/postgresql/data' \
        'ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
}

make_redis() {
    hook install 'install -d -o redis -g redis /data'
    make_image "$REDIS" redis-server 'CMD ["redis-server"]' 'WORKDIR /data' 'VOLUME /data'
}

# Creates a new database like the official image: its first user, with a password required over TCP.
readonly POSTGRES_ENTRYPOINT='#!/bin/sh
set -eu
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    chmod 0700 "$PGDATA"
    initdb --username="$POSTGRES_USER" --pwfile=/dev/stdin ${POSTGRES_INITDB_ARGS:-} <<end
${POSTGRES_PASSWORD:?}
end
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '"'*'"'" >>"$PGDATA/postgresql.conf"
    echo "CREATE DATABASE \"${POSTGRES_DB:-$POSTGRES_USER}\"" | postgres --single -jE postgres
fi
exec "$@"'

# hook STAGE SCRIPT: a script to run in the next image's tree, before or after its packages are installed.
hook() {
    local stage=$1 script=$2
    [ "$stage" = essential ] || stage=customize
    hooks+=("--$stage-hook=chroot \"\$1\" sh -ec '$script'")
}
hooks=()

# make_image NAME PACKAGES CHANGE...
make_image() {
    local name=$1 packages=$2 change changes=()
    shift 2
    command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: apt-get install mmdebstrap, or pull $name"
    [ "$(id -u)" = 0 ] || fail "building $name needs root: run this as root, or pull $name"
    say "building a look-alike of $name"
    for change in "LABEL $LABEL" 'ENV LANG=C.UTF-8' "$@"; do changes+=(--change "$change"); done
    apt-config dump | grep '^Acquire::https\?::' >"$scratch/apt.conf" || true
    # Through a file: from a pipe that ends early, the engine would import half a system under a public name.
    debian_sources | mmdebstrap --quiet --variant=essential --include="$packages" --aptopt="$scratch/apt.conf" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        "${hooks[@]}" bookworm "$scratch/root.tar" -
    docker import "${changes[@]}" "$scratch/root.tar" "$name"
    rm "$scratch/root.tar"
    hooks=()
}

# The archives that this machine's apt uses, mirrors included.
debian_sources() {
    apt-get indextargets --format '$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -n 's/^Debian //p' | grep . || fail "apt has no Debian archive: run apt-get update"
}

# By name and label: images built on a look-alike inherit its label.
clean() {
    local name
    for name in "$PYTHON" "$POSTGRES" "$REDIS"; do
        [ -z "$(docker images --quiet --filter "reference=$name" --filter "label=$LABEL")" ] || docker rmi "$name"
    done
}

# --- The stack -----------------------------------------------------------------------------------------------------

# Compose version 2 if installed, otherwise version 1; without this checkout's .env.
compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose --env-file "$scratch/env" "$@"
    else
        docker-compose --env-file "$scratch/env" "$@"
    fi
}

set_up_environment() {
    : >"$scratch/env"
    mkdir "$scratch/builds"
    export COMPOSE_PROJECT_NAME="chef-trial-$$" CHEF_IMAGE="chef:trial-$$" BUILD_DIR="$scratch/builds"
    PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    SECRET_KEY=$(random) POSTGRES_PASSWORD=$(random) REDIS_PASSWORD=$(random)
    DOCKER_GID=$(stat -c %g "${DOCKER_SOCKET:-/var/run/docker.sock}")
    export PORT SECRET_KEY POSTGRES_PASSWORD REDIS_PASSWORD DOCKER_GID
    unset CHEF_BIND CHEF_HTTPS CHEF_URL ALLOWED_HOSTS
}

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# From a copy, so that certificates for the Dockerfile need not be in the checkout.
build_image() {
    local wanted
    wanted=$(ls -d Dockerfile .dockerignore $(sed -n 's/^!//p' .dockerignore) 2>/dev/null || true)
    mkdir "$scratch/context"
    cp --recursive --parents $wanted "$scratch/context"
    if [ -n "${SSL_CERT_FILE:-}" ]; then
        mkdir -p "$scratch/context/certs"
        cp "$SSL_CERT_FILE" "$scratch/context/certs/host.crt"
    fi
    # The host's network: engines on such machines may have no network for image builds.
    docker build --quiet --force-rm --network host --tag "$CHEF_IMAGE" \
        --build-arg PIP_INDEX_URL --build-arg PIP_TRUSTED_HOST "$scratch/context"
}

start_stack() {
    compose up --detach --no-build
    for service in postgres redis web worker sender reaper; do wait_healthy "$service"; done
}

wait_healthy() {
    local deadline=$((SECONDS + START_SECONDS))
    until [ "$(inspect "$1" '{{.State.Health.Status}}')" = healthy ]; do
        ((SECONDS < deadline)) || fail "$1 is not healthy after $START_SECONDS s"
        sleep 1
    done
}

inspect() { docker inspect --format "$2" "$(compose ps --quiet "$1")"; }

take_down() {
    local status=$?
    trap - EXIT
    if [ -n "${COMPOSE_PROJECT_NAME:-}" ]; then
        [ "$status" = 0 ] || compose logs --tail=40 || true
        say "taking the stack down"
        compose down --volumes --timeout 90 || true
        docker rmi --force "$CHEF_IMAGE" >/dev/null 2>&1 || true
        docker image prune --force --filter label=chef.stage=build >/dev/null || true
    fi
    rm -rf "$scratch"
    exit "$status"
}

# --- The checks ----------------------------------------------------------------------------------------------------

check_doors() {
    local container service
    for container in $(compose ps --quiet); do
        service=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}}' "$container")
        [ "$service" = web ] || [ -z "$(docker port "$container")" ] || fail "$service publishes a port"
        [ "$service" = worker ] || ! docker inspect --format '{{.Mounts}}' "$container" | grep -q docker.sock ||
            fail "$service has the Docker socket"
    done
    [ "$(docker port "$(compose ps --quiet web)")" = "3001/tcp -> 127.0.0.1:$PORT" ] || fail "web is published elsewhere"
    for service in postgres redis web worker sender reaper; do
        [ "$(compose exec -T "$service" id -u)" != 0 ] || fail "$service runs as root"
    done
}

check_redis() {
    compose exec -T -e REDISCLI_AUTH= redis redis-cli ping 2>&1 | grep -q NOAUTH || fail "Redis does not ask for a password"
    compose exec -T redis redis-cli set compose-trial kept
    compose restart redis
    wait_healthy redis
    compose exec -T redis redis-cli get compose-trial | grep -q kept || fail "Redis lost data in a restart"
}

# Submits the folder, waits for its build, and fetches the first artifact, as any client of the API could.
build_project() {
    TOKEN=$(compose exec -T web python manage.py create_token trial --create-user --scope publish --days 1 | tr -d '\r') \
        python3 - "$1" "http://127.0.0.1:$PORT" "$BUILD_SECONDS" <<'client'
import hashlib, json, os, pathlib, sys, time, urllib.error, urllib.request

folder, url, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])


def call(path, body=None, host=""):
    data = json.dumps(body).encode() if body else None
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}", "Content-Type": "application/json"}
    headers |= {"Host": host} if host else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(urllib.request.Request(url + path, data, headers), timeout=60).read()
    except urllib.error.HTTPError as refusal:
        sys.exit(f"{path}: {refusal.code}: {refusal.read().decode()}")


files = [file for file in folder.rglob("*") if file.is_file() and not {"node_modules", "dist"} & set(file.parts)]
upload = {"files": {file.relative_to(folder).as_posix(): file.read_text() for file in files}}
project = f"/v1/projects/{json.loads(call('/v1/projects', upload))['projectId']}"
deadline = time.monotonic() + seconds
while (build := json.loads(call(f"{project}/status")))["status"] in {"queued", "running"}:
    if time.monotonic() > deadline:
        sys.exit(f"not built within {seconds:g} s: {build}")
    time.sleep(0.5)
if build["status"] != "completed":
    entries = json.loads(call(f"{project}/logs"))["entries"]
    sys.exit("\n".join([*(entry["text"].rstrip() for entry in entries), json.dumps(build["verdict"], indent=1)]))
artifact, *rest = json.loads(call(f"{project}/artifacts"))["artifacts"]
content = call(f"{project}/artifacts/{artifact['name']}")
if hashlib.sha256(content).hexdigest() != artifact["sha256"]:
    sys.exit(f"{artifact['name']} is not what was stored")
print(f"completed in {build['durationMs']} ms, {1 + len(rest)} artifacts; {artifact['name']} is whole")
site = json.loads(call(f"{project}/publish", {"slug": "trial"}))["url"].removeprefix("http://")
if site != f"trial.localhost:{url.rpartition(':')[2]}" or b"<html" not in call("/", host=site).lower():
    sys.exit(f"{site} is not the site")
print(f"published at {site}")
client
}

# --- The trial -----------------------------------------------------------------------------------------------------

main() {
    local project=${1:-examples/react-ts-vite}
    [ "$project" != --clean ] || { clean; return; }
    [ -d "$project" ] || fail "there is no folder $project"
    scratch=$(mktemp -d /tmp/chef-trial-XXXXXX)
    trap take_down EXIT
    make_missing_images
    set_up_environment
    say "building the image"
    build_image
    say "starting the stack"
    start_stack
    say "checking ports and mounts"
    check_doors
    check_redis
    say "building $project"
    build_project "$project"
    [ -z "$(ls "$BUILD_DIR" 2>/dev/null)" ] || fail "files are left in the workers' folder"
    say "the stack works"
}

main "$@"
