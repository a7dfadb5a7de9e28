"""The yardstick of downloads: nginx, with one worker, serving one file from a folder on a port of its own."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.installation import _answers, free_port, until

# As it comes, but for one worker: Chef's web process is one too. It answers and nothing else.
CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 64; }}
http {{
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; location = /file {{ alias {file}; }} }}
}}
"""


class NginxMissing(Exception):
    """There is no nginx on this machine."""


@contextlib.contextmanager
def serving(file: Path, folder: Path) -> Iterator[int]:
    """The port at which `/file` is the file, while the block runs. Raises NginxMissing."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NginxMissing("The yardstick is nginx: install Debian's package nginx-light.")
    port, config = free_port(), folder / "nginx.conf"
    folder.mkdir()
    # Started by root, its worker would be somebody else, who may not read the file.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(CONFIG.format(folder=folder, port=port, file=file, user=user))
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port), seconds=10, what="nginx answers")
        yield port
    finally:
        process.terminate()
        process.wait(10)
