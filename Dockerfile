# The image of all of Chef's services; docker-compose.yml says how each is run.
#
#   docker build -t chef:local .
#
# An index other than pip's own:  --build-arg PIP_INDEX_URL=...  (PIP_EXTRA_INDEX_URL and PIP_TRUSTED_HOST likewise).
# Behind a proxy that inspects TLS: put its certificate authority, in PEM form, into certs/NAME.crt beside this file.
# Neither stays in the image: both are only in the first stage. At run time, SSL_CERT_FILE names the certificates.

FROM python:3.11-slim-bookworm AS build
# Lets `docker image prune --filter label=chef.stage=build` find what the builder keeps of this stage.
LABEL chef.stage=build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST

# The pattern allows the folder to be missing. Its content is copied, not the folder itself.
WORKDIR /build
COPY requirements.lock cert[s] ./
RUN { cat "$(python -c 'from pip._vendor.certifi import where; print(where())')" \
   && find . -name '*.crt' -exec sed -s '$a\' {} +; } > authorities.pem

# Only wheels, by hash: no package's code runs during the build. The environment has no pip: nothing is added later.
RUN python -m venv --without-pip /opt/chef \
 && python -m pip --python /opt/chef/bin/python --cert authorities.pem --disable-pip-version-check install \
    --progress-bar off --no-cache-dir --only-binary=:all: --require-hashes --requirement requirements.lock

# For chef-init, which runs first in each build's container. Not installed if the image already has a compiler.
RUN command -v gcc >/dev/null \
 || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; }

# Static files are collected here, so that they always match the code. The key signs nothing.
WORKDIR /app
COPY . .
RUN rm -rf requirements.lock certs \
 && python -m builds.sandbox.chef_init \
 && SECRET_KEY=not-used CHEF_DATA_DIR=/var/lib/chef \
    /opt/chef/bin/python manage.py collectstatic --noinput --verbosity 0 \
 && /opt/chef/bin/python -m compileall -q . \
 && chmod -R a+rX,go-w . /var/lib/chef


FROM python:3.11-slim-bookworm

# Not 10001: that user is only for builds. A volume mounted on the artifacts' folder takes its owner.
RUN groupadd --gid 10000 chef \
 && useradd --uid 10000 --gid chef --no-create-home --home-dir /var/lib/chef --shell /usr/sbin/nologin chef \
 && install -d -o chef -g chef /srv/artifacts

COPY --from=build /opt/chef /opt/chef
COPY --from=build /var/lib/chef /var/lib/chef
COPY --from=build /app /app

ENV PATH=/opt/chef/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CHEF_DATA_DIR=/var/lib/chef \
    ARTIFACTS_DIR=/srv/artifacts
WORKDIR /app
USER chef
EXPOSE 3001

# The bundle that docker-compose.yml mounts is used only if it is not empty: without one, it mounts /dev/null.
ENTRYPOINT ["sh", "-c", "[ ! -s /etc/chef/ca.pem ] || export SSL_CERT_FILE=/etc/chef/ca.pem; exec \"$@\"", "chef"]
CMD ["uvicorn", "chef.asgi:application", "--host", "0.0.0.0", "--port", "3001", \
     "--http", "builds.sites.ready_answers:ReadyProtocol", "--no-access-log", "--timeout-graceful-shutdown", "10"]
