"""All settings of an installation, read once from the environment.

`.env.example` lists each name with its meaning. An invalid value stops the process at start with a sentence that says
what to write instead; nothing falls back to an insecure default.
"""

import os
import re
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dj_database_url
import django_stubs_ext
import limits
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from chef.text.units import parse_bytes

# DRF's and Django's generics are subscripted in annotations that run at import time.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent


def env(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def env_bool(name: str, default: bool = False) -> bool:
    value = env(name, "1" if default else "0").lower()
    if value not in {"1", "0", "true", "false", "yes", "no", "on", "off"}:
        raise ImproperlyConfigured(f"{name}={value!r} is not a boolean: write 1 or 0.")
    return value in {"1", "true", "yes", "on"}


def env_number(name: str, default: float, *, least: float, most: float = float("inf")) -> float:
    value = env(name, str(default))
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise ImproperlyConfigured(f"{name}={value!r} must be a number from {least:g} to {most:g}.")
    return number


def env_bytes(name: str, default: str) -> int:
    try:
        return parse_bytes(env(name, default))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}") from error


def env_rate(name: str, default: str) -> str:
    """Such as 600/minute; empty for no limit."""
    rate = env(name, default)
    try:
        return "" if rate == "0" else str(rate if limits.parse(rate).amount else "")
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={rate!r} is not a rate: write one such as 600/minute, or 0.") from error


def env_list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in env(name, default).split(",") if part.strip()]


# --- The process -----------------------------------------------------------------------------------------------

DEBUG = env_bool("DEBUG")
DATA_DIR = Path(env("CHEF_DATA_DIR", str(BASE_DIR / "var"))).resolve()
PORT = int(env_number("PORT", 3001, least=1, most=65535))
# The base of links in responses; empty: the address that the client used.
CHEF_URL = env("CHEF_URL").rstrip("/")


def secret_key() -> str:
    """SECRET_KEY, or the content of the file that scripts/start.sh creates in the data folder. No default."""
    file = DATA_DIR / "secret-key"
    key = env("SECRET_KEY") or (file.read_text().strip() if file.is_file() else "")
    if not key:
        raise ImproperlyConfigured(f"Set SECRET_KEY to a long random text, or write one to {file}.")
    return key


SECRET_KEY = secret_key()
SECRET_KEY_FALLBACKS = env_list("SECRET_KEY_FALLBACKS")  # former keys: what they signed and sealed stays valid


def secrets_keys() -> list[str]:
    """Keys that encrypt projects' variables in the database: the first encrypts, all decrypt."""
    keys = env_list("CHEF_SECRETS_KEY")
    if any(len(key) < 32 for key in keys):
        raise ImproperlyConfigured("CHEF_SECRETS_KEY: a key is too short: create one with openssl rand -hex 32.")
    return [*keys, SECRET_KEY, *SECRET_KEY_FALLBACKS]


SECRETS_KEYS = secrets_keys()
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_FAILURE_VIEW = "chef.web.errors.csrf_failure"
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS")
ROOT_URLCONF = "chef.urls"
ASGI_APPLICATION = "chef.asgi.application"
WSGI_APPLICATION = "chef.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = ["chef.formats"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework_api_key",
    "drf_standardized_errors",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_rq",
    "csp",
    "projects",
    "builds",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]

# Served over HTTPS: cookies and redirects require it. Off for a local machine without a certificate.
HTTPS = env_bool("CHEF_HTTPS")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
# Browsers accept cookies with this prefix from this host only, so published sites on sibling hosts cannot set them.
_COOKIE = "__Host-chef" if HTTPS else "chef"
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{_COOKIE}-session", f"{_COOKIE}-csrf"
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
BEHIND_PROXY = env_bool("CHEF_BEHIND_PROXY")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None

# --- Where the data lives ----------------------------------------------------------------------------------------

# Scratch space of running builds: their egress proxies' sockets. The Docker engine must see it at the same path.
BUILD_DIR = Path(env("BUILD_DIR", str(DATA_DIR / "builds"))).resolve()
ARTIFACTS_DIR = Path(env("ARTIFACTS_DIR", str(DATA_DIR / "artifacts"))).resolve()
_S3_DETAILS = (
    "ENDPOINT_URL",
    "REGION",
    "PREFIX",
    "ADDRESSING_STYLE",
    "ACCESS_KEY_ID",
    "SECRET_ACCESS_KEY",
    "SESSION_TOKEN",
)


def artifact_store() -> dict[str, Any]:
    """ARTIFACTS_DIR, or a bucket of an S3-compatible store instead."""
    if bucket := env("S3_BUCKET"):
        return {"BACKEND": "chef.storage.s3.S3Store", "OPTIONS": s3_options(bucket)}
    if unused := [f"S3_{name}" for name in _S3_DETAILS if env(f"S3_{name}")]:
        raise ImproperlyConfigured(f"{', '.join(unused)}: set S3_BUCKET too, or none of them.")
    return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(ARTIFACTS_DIR)}}


def s3_options(bucket: str) -> dict[str, Any]:
    """Options for django-storages. What is not set here, boto3 finds by itself: AWS_… variables, a role."""
    endpoint, style = env("S3_ENDPOINT_URL"), env("S3_ADDRESSING_STYLE").lower()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise ImproperlyConfigured(f"S3_BUCKET={bucket!r} is not a bucket's name; S3_PREFIX sets a prefix of its keys.")
    if endpoint and not re.match(r"https?://[^/\s]", endpoint):
        raise ImproperlyConfigured(f"S3_ENDPOINT_URL={endpoint!r} is not a URL: begin it with http:// or https://.")
    if style not in {"", "auto", "path", "virtual"}:
        raise ImproperlyConfigured(f"S3_ADDRESSING_STYLE={style!r}: write path, virtual or auto.")
    return {
        "bucket_name": bucket,
        "location": env("S3_PREFIX").strip("/"),
        "endpoint_url": endpoint or None,
        "region_name": env("S3_REGION") or None,
        "addressing_style": style or ("path" if endpoint else "auto"),  # self-hosted stores rarely have bucket hosts
        "verify": None if "AWS_CA_BUNDLE" in os.environ else env("SSL_CERT_FILE") or None,
        **s3_keys(),
    }


def s3_keys() -> dict[str, Any]:
    """Our keys, never mixed with a token from elsewhere; nothing if boto3 is to find the keys."""
    key, secret, token = env("S3_ACCESS_KEY_ID"), env("S3_SECRET_ACCESS_KEY"), env("S3_SESSION_TOKEN")
    if bool(key) != bool(secret) or (token and not key):
        raise ImproperlyConfigured("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together: set both, or neither.")
    return {"access_key": key, "secret_key": secret, "security_token": token or None} if key else {}


STORAGES = {
    "default": artifact_store(),
    "staticfiles": {"BACKEND": "chef.web.static_files.StaticFilesStorage"},
}

DATABASES = {"default": dj_database_url.parse(env("DATABASE_URL", f"sqlite:///{DATA_DIR / 'chef.sqlite3'}"))}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Immediate transactions: one that reads first and writes later would fail at once, regardless of the time-out.
    # Tests use a file too: SQLite's in-memory databases lock differently.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    # A process frozen in the middle of a transaction must not block the reaper with its locks.
    DATABASES["default"].setdefault("OPTIONS", {})["options"] = "-c idle_in_transaction_session_timeout=5s"
    if env_bool("CHEF_DB_POOL"):
        # For the web process only: a pool does not survive the fork that starts each build.
        DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 16}
        DATABASES["default"]["CONN_MAX_AGE"] = 0

# --- Published sites ---------------------------------------------------------------------------------------------

# Sites get subdomains of this domain, out of reach of the application's cookies. With a port if not the default one.
SITES_DOMAIN = env("SITES_DOMAIN", f"localhost:{PORT}").lower().strip(".")


def accel_prefix() -> str:
    """Below this path, an nginx in front serves large files of ARTIFACTS_DIR itself; empty: Chef serves them."""
    prefix = env("SITES_ACCEL_PREFIX").rstrip("/")
    if prefix and env("S3_BUCKET"):
        raise ImproperlyConfigured(
            "SITES_ACCEL_PREFIX needs files in ARTIFACTS_DIR, which S3_BUCKET replaces: unset one."
        )
    return prefix


SITES_ACCEL_PREFIX = accel_prefix()
PREVIEW_SECONDS = int(env_number("CHEF_PREVIEW_HOURS", 24, least=0.01, most=8760) * 3600)

# What our pages may load: their own files, and previews in a frame. Nothing inline, nothing from other hosts.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "frame-src": [f"{'https' if HTTPS else 'http'}://*.{SITES_DOMAIN}"],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
        "base-uri": [NONE],
    }
}

# --- Redis, which wakes up workers -------------------------------------------------------------------------------


def redis_url() -> str:
    """REDIS_URL, or a URL built from REDIS_HOST, REDIS_PORT and REDIS_PASSWORD."""
    password = env("REDIS_PASSWORD")
    auth = f":{quote(password, safe='')}@" if password else ""
    host, port = env("REDIS_HOST", "127.0.0.1"), int(env_number("REDIS_PORT", 6379, least=1, most=65535))
    return env("REDIS_URL", f"redis://{auth}{host}:{port}/0")


REDIS_URL = redis_url()
# No time-out in RQ: the lease in the database decides when a build is lost.
RQ_QUEUES = {name: {"URL": REDIS_URL, "DEFAULT_TIMEOUT": -1} for name in ("builds", "generations")}
RQ_SHOW_ADMIN_LINK = False  # its pages are at /admin/queue/ with permission checks: see builds.admin.queue_pages

WORKER_CONCURRENCY = int(env_number("WORKER_CONCURRENCY", 5, least=1, most=256))
WORKER_TIMEOUT = env_number("WORKER_TIMEOUT", 300_000, least=1_000) / 1000  # milliseconds to seconds
# How many generations run at once; they mostly wait for the model.
GENERATION_CONCURRENCY = int(env_number("GENERATION_CONCURRENCY", 4, least=1, most=256))
# How long a running job may leave its lease unrenewed before another worker may take it.
LEASE_SECONDS = env_number("CHEF_LEASE_SECONDS", 15, least=2, most=3600)
# The same for an external builder, which connects over the network.
OUTSIDE_LEASE_SECONDS = env_number("CHEF_OUTSIDE_LEASE_SECONDS", 300, least=2, most=86_400)


def worker_secrets() -> list[str]:
    """Secrets that external builders sign with. All are valid, so that one can be replaced by the next."""
    secrets = env_list("CHEF_WORKER_SECRET")
    if any(not 24 <= _key_bytes(secret) <= 64 for secret in secrets):
        raise ImproperlyConfigured(
            "CHEF_WORKER_SECRET: a secret is whsec_ and 24 to 64 random bytes in base64; create one with "
            '`echo "whsec_$(openssl rand -base64 32)"`. Separate several with commas.'
        )
    return secrets


def _key_bytes(secret: str) -> int:
    """The length in bytes of a Standard Webhooks secret; 0 if it is not one."""
    head, prefix, key = secret.rpartition("whsec_")
    try:
        return len(b64decode(key, validate=True)) if prefix and not head else 0
    except ValueError:
        return 0


WORKER_SECRETS = worker_secrets()
# How long running builds may continue after SIGTERM before they are handed back to the queue.
SHUTDOWN_GRACE_SECONDS = env_number("CHEF_SHUTDOWN_GRACE_SECONDS", 20, least=0, most=3600)
MAX_ATTEMPTS = 3
OWNER_MAX_RUNNING = int(env_number("CHEF_OWNER_MAX_RUNNING", 0, least=0))  # 0: no limit
MAX_QUEUED = int(env_number("CHEF_MAX_QUEUED", 5_000, least=1))
OWNER_MAX_QUEUED = int(env_number("CHEF_OWNER_MAX_QUEUED", 500, least=1))

# --- The sandbox -------------------------------------------------------------------------------------------------

DOCKER_HOST = env("DOCKER_HOST", "unix:///var/run/docker.sock")
DOCKER_MEMORY_LIMIT = env_bytes("DOCKER_MEMORY_LIMIT", "512m")
DOCKER_CPU_LIMIT = env_number("DOCKER_CPU_LIMIT", 1, least=0.05, most=1024)
DOCKER_RUNTIME = env("DOCKER_RUNTIME")  # an OCI runtime such as runsc; empty: the engine's default
# The largest file that a build may write.
DISK_LIMIT = env_bytes("CHEF_DISK_LIMIT", "4g")
PIDS_LIMIT = int(env_number("CHEF_PIDS_LIMIT", 256, least=16, most=32_768))
RUNTIME_REGISTRY = env("RUNTIME_REGISTRY")  # where to pull public images from; empty: the engine's default
EGRESS_ALLOWED_HOSTS = env_list("EGRESS_ALLOWED_HOSTS")  # "host" or "host:port", in addition to the package registries
# The installation's name, on every container, volume and network: separates installations on the same engine.
INSTALLATION = env("CHEF_INSTALLATION", "chef")
CA_BUNDLE = env("SSL_CERT_FILE")  # mounted read-only in the installation phase

# --- Limits ------------------------------------------------------------------------------------------------------

MAX_FILES = int(env_number("CHEF_MAX_FILES", 1_000, least=1))
MAX_FILE_BYTES = env_bytes("CHEF_MAX_FILE_BYTES", "1m")
MAX_PROJECT_BYTES = env_bytes("CHEF_MAX_PROJECT_BYTES", "20m")
MAX_PATH_BYTES = int(env_number("CHEF_MAX_PATH_BYTES", 240, least=1, most=1000))
MAX_PATH_DEPTH = int(env_number("CHEF_MAX_PATH_DEPTH", 20, least=1, most=100))
MAX_LOG_BYTES = env_bytes("CHEF_MAX_LOG_BYTES", "10m")
MAX_ARTIFACTS = int(env_number("CHEF_MAX_ARTIFACTS", 20_000, least=1))
MAX_ARTIFACT_BYTES = env_bytes("CHEF_MAX_ARTIFACT_BYTES", "1g")
# A form that uploads a folder may send more files than a project may have, because some are left out later.
DATA_UPLOAD_MAX_NUMBER_FILES = 20 * MAX_FILES
FILE_UPLOAD_HANDLERS = [
    "projects.api.parsers.FileCountLimit",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
# JSON escapes and base64 make a body larger than its files.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * MAX_PROJECT_BYTES + 1_048_576

# --- The AI engine -----------------------------------------------------------------------------------------------

# Any endpoint with OpenAI's chat completions API; without a key, starter projects replace the model.
AI_API_KEY = env("AI_API_KEY") or env("OPENAI_API_KEY") or env("EMERGENT_LLM_KEY")
AI_PROVIDER = env("AI_PROVIDER", "openai" if AI_API_KEY else "starter").lower()
if AI_PROVIDER not in {"openai", "starter"}:
    raise ImproperlyConfigured(
        f"AI_PROVIDER={AI_PROVIDER!r}: write openai for an endpoint with its API, or starter for no model."
    )
AI_MODEL = env("AI_MODEL", "gpt-4o")
AI_BASE_URL = env("AI_BASE_URL", "https://api.openai.com/v1").rstrip("/")
if AI_PROVIDER == "openai" and not AI_BASE_URL.startswith(("http://", "https://")):
    raise ImproperlyConfigured(f"AI_BASE_URL={AI_BASE_URL!r} is not a URL: begin it with http:// or https://.")
# What a million tokens cost, in any currency; only to show the cost.
AI_PRICE_INPUT = env_number("AI_PRICE_INPUT", 0, least=0, most=1_000_000)
AI_PRICE_OUTPUT = env_number("AI_PRICE_OUTPUT", 0, least=0, most=1_000_000)
AI_MAX_OUTPUT = int(env_number("AI_MAX_OUTPUT", 16_384, least=500))  # most tokens of one answer
# Seconds without output, and for a whole answer, before a request is given up; and attempts per request.
AI_SILENCE_SECONDS = env_number("AI_SILENCE_SECONDS", 120, least=0.1, most=3600)
AI_ANSWER_SECONDS = env_number("AI_ANSWER_SECONDS", 600, least=0.1, most=7200)
AI_TRIES = int(env_number("AI_TRIES", 4, least=1, most=20))
# Tokens that one generation may use including its repairs, and one owner per day (UTC); 0: no daily limit.
AI_MAX_TOKENS = int(env_number("AI_MAX_TOKENS", 200_000, least=1_000))
AI_OWNER_TOKENS_PER_DAY = int(env_number("AI_OWNER_TOKENS_PER_DAY", 0, least=0))
MAX_PROMPT_CHARS = int(env_number("CHEF_MAX_PROMPT_CHARS", 20_000, least=1, most=1_000_000))
# How long POST /v1/generate waits for the files before it answers that they are still being written.
GENERATE_WAIT = env_number("GENERATE_WAIT", 60, least=0, most=3600)

# --- Webhooks ----------------------------------------------------------------------------------------------------

# The installation's own endpoint, which receives every build's result: see builds.webhooks.endpoints.
CONVEX_URL = env("CONVEX_URL")
CONVEX_WEBHOOK_SECRET = env("CONVEX_WEBHOOK_SECRET")
WEBHOOK_CONCURRENCY = int(env_number("WEBHOOK_CONCURRENCY", 16, least=2, most=256))
# How many messages are sent to one endpoint at once, so that a slow one does not delay others.
WEBHOOK_PER_ENDPOINT = int(env_number("CHEF_WEBHOOK_PER_ENDPOINT", 4, least=1, most=256))
WEBHOOK_TIMEOUT = env_number("CHEF_WEBHOOK_TIMEOUT", 15, least=0.1, most=300)  # seconds for one whole attempt
# Delay before a failed message is sent again, doubled each time, and its maximum.
WEBHOOK_RETRY_SECONDS = env_number("CHEF_WEBHOOK_RETRY_SECONDS", 5, least=0.01, most=3600)
WEBHOOK_RETRY_MAX_SECONDS = env_number("CHEF_WEBHOOK_RETRY_MAX_SECONDS", 3600, least=0.01, most=86_400)
WEBHOOK_RETRY_HOURS = env_number("CHEF_WEBHOOK_RETRY_HOURS", 24, least=0.001, most=8760)
WEBHOOK_DISABLE_DAYS = env_number("CHEF_WEBHOOK_DISABLE_DAYS", 5, least=0.001, most=3650)
WEBHOOK_KEEP_DAYS = env_number("CHEF_WEBHOOK_KEEP_DAYS", 30, least=0.001, most=3650)
OWNER_MAX_WEBHOOKS = int(env_number("CHEF_OWNER_MAX_WEBHOOKS", 100, least=1, most=10_000))
WEBHOOK_ALLOW_HTTP = env_bool("CHEF_WEBHOOK_ALLOW_HTTP")
# "host" or "host:port" that may receive messages despite an internal address: see builds.webhooks.guard.
WEBHOOK_ALLOWED_HOSTS = env_list("CHEF_WEBHOOK_ALLOWED_HOSTS")

# --- Mail --------------------------------------------------------------------------------------------------------

# Owners get an e-mail when their endpoint is switched off; without a host, none is sent.
EMAIL_HOST = env("EMAIL_HOST")
EMAIL_PORT = int(env_number("EMAIL_PORT", 25, least=1, most=65535))
EMAIL_HOST_USER = env("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env_bool("EMAIL_USE_TLS")
EMAIL_TIMEOUT = 10
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'dummy'}.EmailBackend"
DEFAULT_FROM_EMAIL = env("DEFAULT_FROM_EMAIL", "chef@localhost")

# --- The API -----------------------------------------------------------------------------------------------------

ALLOW_ANONYMOUS = env_bool("CHEF_ALLOW_ANONYMOUS")
if ALLOW_ANONYMOUS and not DEBUG:
    raise ImproperlyConfigured("CHEF_ALLOW_ANONYMOUS=1 lets anyone in: it is for trying Chef out, and needs DEBUG=1.")
_AUTHENTICATION = [
    "projects.api.authentication.TokenAuthentication",
    "rest_framework.authentication.SessionAuthentication",
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        *_AUTHENTICATION,
        *(["projects.api.authentication.LocalUserAuthentication"] if ALLOW_ANONYMOUS else []),
    ],
    "DEFAULT_PERMISSION_CLASSES": ["projects.api.authentication.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["projects.api.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "builds.api.schema.openapi.ApiSchema",
    "URL_FORMAT_OVERRIDE": None,  # Accept chooses the response's format
    "DEFAULT_METADATA_CLASS": None,  # the schema replaces OPTIONS
    "EXCEPTION_HANDLER": "drf_standardized_errors.handler.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
IDEMPOTENCY_KEYS = "projects.idempotency_keys.IdempotencyKeys"  # a chef.web.idempotency.KeyStore
# How long the response to a POST with an Idempotency-Key is kept; and to a signed message. A signature is valid for up
# to ten minutes: if kept for less, the message could be replayed.
IDEMPOTENCY_HOURS = env_number("CHEF_IDEMPOTENCY_HOURS", 24, least=0.25, most=8760)
# Longer than any handler takes: after this, the process of a request is presumed dead.
IDEMPOTENCY_LOCK_SECONDS = env_number("CHEF_IDEMPOTENCY_LOCK_SECONDS", 60, least=1, most=3600)
# Requests of one owner, and of one address without a valid token; empty: no limit.
RATE_READ = env_rate("CHEF_RATE_READ", "6000/minute")
RATE_WRITE = env_rate("CHEF_RATE_WRITE", "600/minute")
RATE_ANONYMOUS = env_rate("CHEF_RATE_ANONYMOUS", "120/minute")
# Live streams at once per web process, and as many downloads; each costs a connection and up to half a megabyte, but no
# thread.
MAX_LIVE_READERS = int(env_number("CHEF_MAX_LIVE_READERS", 1_000, least=1))
LIVE_PING_SECONDS = env_number("CHEF_LIVE_PING_SECONDS", 15, least=0.1, most=3600)
DRF_STANDARDIZED_ERRORS = {
    "EXCEPTION_HANDLER_CLASS": "chef.web.errors.ApiExceptionHandler",
    "EXCEPTION_FORMATTER_CLASS": "chef.web.errors.ApiExceptionFormatter",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Chef",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SWAGGER_UI_DIST": "SIDECAR",  # the page works offline
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["builds.api.schema.openapi.with_codes"],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env("LOG_LEVEL", "INFO")},
    "loggers": {name: {"level": "WARNING"} for name in ("django", "rq", "httpx", "httpx2")},
}
