"""Runs inside the installation container, in images with python3.

Forwards a loopback port to the proxy's unix socket, for package managers that support proxies only by host and port;
then runs the command and exits as it does:

    python3 forward.py SOCKET PORT -- argv...

Exit codes: the command's own, 128 + signal if one killed it, 126 or 127 if it cannot be run, 70 if the port is not
available, 64 for wrong usage. Does not use a thread per connection: threads count against the process limit.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import NoReturn


def leave(code: int, reason: str) -> NoReturn:
    print(f"chef: {reason}", file=sys.stderr, flush=True)
    os._exit(code)


async def pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while chunk := await loop.sock_recv(source, 65536):
            await loop.sock_sendall(sink, chunk)
            await asyncio.sleep(0)  # a socket that is always ready never suspends and would starve the others
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


async def carry(path: str, client: socket.socket) -> None:
    with contextlib.suppress(OSError), client, socket.socket(socket.AF_UNIX) as proxy:
        proxy.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(proxy, path)
        await asyncio.gather(pump(client, proxy), pump(proxy, client))


async def serve(path: str, listener: socket.socket) -> None:
    async with asyncio.TaskGroup() as connections:
        while True:
            try:
                client, _ = await asyncio.get_running_loop().sock_accept(listener)
                connections.create_task(carry(path, client))
            except OSError:  # out of file descriptors: wait for a connection to end
                await asyncio.sleep(0.1)


async def run(path: str, port: int, argv: list[str]) -> NoReturn:
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    except OSError as error:
        leave(70, f"cannot listen on 127.0.0.1:{port}: {os.strerror(error.errno or 0)}")
    listener.setblocking(False)
    serving = asyncio.create_task(serve(path, listener))
    try:
        child = await asyncio.create_subprocess_exec(*argv)
    except OSError as error:
        leave(127 if isinstance(error, FileNotFoundError) else 126, f"cannot run {argv[0]}: {error.strerror}")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, child.send_signal, number)
    code = await child.wait()
    serving.cancel()
    os._exit(code if code >= 0 else 128 - code)  # at once, without waiting for open connections


if __name__ == "__main__":
    if len(sys.argv) < 5 or sys.argv[3] != "--" or not sys.argv[2].isdigit() or not 0 < int(sys.argv[2]) < 65536:
        leave(64, "usage: python3 forward.py SOCKET PORT -- command [argument...]")
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), sys.argv[4:]))
