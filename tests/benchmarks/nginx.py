"""The yardstick of downloads: nginx with one worker, serving files on an unused port."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.installation import until
from tests.ports import answers, free_port

# Defaults, with one worker, as Chef's web process is one too. No access log.
CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {http}
    server {{ listen 127.0.0.1:{port}; {server} }}
}}
"""
# As configured in docs/operate.md.
_IN_FRONT = """
    location / {
        proxy_pass http://chef; proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_set_header Host $http_host; proxy_set_header If-None-Match $http_if_none_match;
        proxy_set_header Range $http_range; proxy_set_header If-Range $http_if_range;
        proxy_cache sites; proxy_cache_key "$http_host$request_uri $http_accept_encoding"; proxy_cache_lock on;
        proxy_cache_bypass $http_range; proxy_ignore_headers Cache-Control Expires Vary; tcp_nopush off;
    }
    location /_stored/ {
        internal; alias %s/; etag off;
        add_header ETag $upstream_http_etag; add_header Content-Encoding $upstream_http_content_encoding;
        add_header Vary $upstream_http_vary; add_header X-Content-Type-Options nosniff;
    }
"""


class NginxMissingError(Exception):
    """nginx is not installed."""


@contextlib.contextmanager
def serving(file: Path, folder: Path) -> Iterator[int]:
    """Serve the file as `/file` while the block runs; yields the port. Raises NginxMissingError."""
    with _running(folder, f"location = /file {{ alias {file}; }}") as port:
        yield port


@contextlib.contextmanager
def serving_site(site: Path, folder: Path) -> Iterator[int]:
    """Serve a folder, with its `.gz` files to clients that accept gzip; yields the port. Raises NginxMissingError."""
    with _running(folder, f"root {site}; include /etc/nginx/mime.types; gzip_static on;") as port:
        yield port


@contextlib.contextmanager
def in_front(chef: int, stored: Path, folder: Path) -> Iterator[int]:
    """An nginx in front of Chef's port that sends stored files itself; yields its port. Raises NginxMissingError."""
    upstream = f"upstream chef {{ server 127.0.0.1:{chef}; keepalive 64; }}"
    cache = f"proxy_cache_path {folder}/cache keys_zone=sites:10m max_size=1g use_temp_path=off;"
    with _running(folder, _IN_FRONT % stored, f"{upstream} {cache}") as port:
        yield port


@contextlib.contextmanager
def _running(folder: Path, server: str, http: str = "") -> Iterator[int]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NginxMissingError("nginx is missing: install Debian's package nginx-light.")
    port, config = free_port(), folder / "nginx.conf"
    folder.mkdir()
    # As root, nginx would switch its worker to a user who may not read the file.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(CONFIG.format(folder=folder, port=port, user=user, server=server, http=http))
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port), seconds=10, what="nginx answers")
        yield port
    finally:
        process.terminate()
        process.wait(10)
