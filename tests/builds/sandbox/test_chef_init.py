"""chef-init run on this machine, without Docker: exit codes, deadlines, reaping and forwarding."""

import contextlib
import hashlib
import resource
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from builds.sandbox import chef_init
from tests.installation import until
from tests.ports import free_port

pytestmark = [pytest.mark.once, pytest.mark.slow]

MEGABYTE = bytes(range(256)) * 4096
Start = Callable[..., "subprocess.Popen[str]"]
Talk = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def program() -> str:
    return str(chef_init.compiled())


@pytest.fixture
def start(program: str) -> Iterator[Start]:
    """Start it; processes still running at the end of a test are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, open_files: int = 0) -> subprocess.Popen[str]:
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))) if open_files else None
        pipe = subprocess.PIPE
        process = subprocess.Popen([program, *arguments], stdout=pipe, stderr=pipe, text=True, preexec_fn=limit)
        started.append(process)
        return process

    yield start
    for process in started:
        kill(process)


def run(start: Start, *arguments: str) -> tuple[int, str, str]:
    """Exit code and the output of both streams."""
    process = start(*arguments)
    output, errors = process.communicate(timeout=20)
    return process.returncode, output, errors


def shell(script: str, *, seconds: float = 20) -> list[str]:
    return ["--deadline", str(seconds), "--", "/bin/sh", "-c", script]


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill it with all its processes: here no PID namespace does that."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.communicate()


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


# --- How it is made ------------------------------------------------------------------------------------------------


def test_source_compiles_without_a_warning(tmp_path: Path) -> None:
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]
    argv = ["cc", *chef_init.FLAGS, *strict, "-o", str(tmp_path / "made"), str(chef_init.SOURCE)]

    done = subprocess.run(argv, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_program_is_linked_to_no_library(program: str) -> None:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, env={"LANG": "C"})

    assert "not a dynamic executable" in done.stderr


# --- How it is called ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--deadline is required"),
        (["--", "/bin/true"], "--deadline is required"),
        (["--deadline", "5"], "the command must be an absolute path"),
        (["--deadline", "5", "--", "true"], "the command must be an absolute path"),
        (["--deadline", "0", "--", "/bin/true"], "a number of seconds above 0"),
        (["--deadline", "-3", "--", "/bin/true"], "a number of seconds above 0"),
        (["--deadline", "nan", "--", "/bin/true"], "a number of seconds above 0"),
        (["--deadline", "inf", "--", "/bin/true"], "a number of seconds above 0"),
        (["--deadline", "5s", "--", "/bin/true"], "a number of seconds above 0"),
        (["--deadline", "", "--", "/bin/true"], "a number of seconds above 0"),
        (["--deadline"], "an option has no value"),
        (["--deadline", "5", "--faster", "--", "/bin/true"], "unknown option"),
        (["--deadline", "5", "--forward", "3128", "--", "/bin/true"], "SOCKET:PORT"),
        (["--deadline", "5", "--forward", ":3128", "--", "/bin/true"], "SOCKET:PORT"),
        (["--deadline", "5", "--forward", f"/{'x' * 107}:3128", "--", "/bin/true"], "SOCKET:PORT"),
        (["--deadline", "5", "--forward", "/s:0", "--", "/bin/true"], "a port from 1 to 65535"),
        (["--deadline", "5", "--forward", "/s:65536", "--", "/bin/true"], "a port from 1 to 65535"),
        (["--deadline", "5", "--forward", "/s:+80", "--", "/bin/true"], "a port from 1 to 65535"),
        (["--deadline", "5", "--forward", "/s:", "--", "/bin/true"], "a port from 1 to 65535"),
    ],
)
def test_wrong_usage_is_refused_with_a_reason_and_the_usage(start: Start, arguments: list[str], reason: str) -> None:
    code, output, errors = run(start, *arguments)

    assert (code, output) == (64, "")
    assert reason in errors
    assert "usage: chef-init --deadline SECONDS" in errors


# --- The command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 124", 124), ("exit 137", 137), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_it_exits_as_the_command_does(start: Start, script: str, code: int) -> None:
    assert run(start, *shell(script)) == (code, "", "")


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [("/no/such/command", 127, "No such file or directory"), ("/tmp", 126, "Permission denied")],
)
def test_command_that_cannot_be_run_is_reported(start: Start, command: str, code: int, reason: str) -> None:
    ended, _, errors = run(start, "--deadline", "5", "--", command)

    assert ended == code
    assert errors == f"chef-init: cannot run {command}: {reason}\n"


def test_command_gets_its_arguments_unchanged_and_the_streams(start: Start) -> None:
    script = 'printf "%s\\n" "$@"; echo err >&2'

    code, output, errors = run(start, *shell(script), "sh", "$HOME `id` ; 'x", "", "--deadline")

    assert (code, errors) == (0, "err\n")
    assert output.split("\n") == ["$HOME `id` ; 'x", "", "--deadline", ""]


def test_command_inherits_no_blocked_signal_and_no_open_file(start: Start, tmp_path: Path) -> None:
    script = "grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd"
    forward = ["--forward", f"{tmp_path}/s:{free_port()}"]

    _, plain, _ = run(start, *shell(script))
    _, forwarded, _ = run(start, *forward, *shell(script))

    assert plain.split() == forwarded.split()
    assert forwarded.split()[:2] == ["SigBlk:", "0" * 16]
    assert forwarded.split()[4:] == ["0", "1", "2", "3"]  # the last is ls's own descriptor of the folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_reaches_the_whole_process_group(start: Start, number: signal.Signals) -> None:
    program = (
        "import signal, subprocess, sys; number = int(sys.argv[1]); signal.signal(number, lambda *_: None)\n"
        "child = subprocess.Popen(['sleep', '15']); print('ready', flush=True)\n"
        "sys.exit(9 if child.wait() == -number else 1)"
    )
    process = start("--deadline", "20", "--", sys.executable, "-c", program, str(int(number)))
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(number)

    assert process.wait(timeout=10) == 9


# --- Whom it ends, and when ----------------------------------------------------------------------------------------


def test_deadline_kills_the_command_and_its_group(start: Start) -> None:
    began = time.monotonic()

    code, output, errors = run(start, *shell('trap "" TERM INT HUP; sleep 30 & echo $$ $!; wait', seconds=0.5))

    assert 0.5 <= time.monotonic() - began < 5
    assert (code, errors) == (124, "chef-init: deadline exceeded\n")
    for pid in map(int, output.split()):
        until(lambda pid=pid: not is_alive(pid), seconds=5, what=f"{pid} has ended")  # type: ignore[misc]


def test_deadline_holds_while_nobody_reads_the_output(start: Start) -> None:
    process = start(*shell("yes >&2 & sleep 300", seconds=1))
    assert process.wait(timeout=20) == 124


def test_deadline_may_be_fractional_and_is_not_early(start: Start) -> None:
    assert run(start, *shell("sleep 0.2; echo done", seconds=5.25)) == (0, "done\n", "")


def test_nothing_in_the_group_outlives_the_command(start: Start) -> None:
    process = start(*shell("sleep 30 >/dev/null 2>&1 & echo $!; exit 3"))
    output, _ = process.communicate(timeout=10)

    assert process.returncode == 3
    until(lambda: not is_alive(int(output)), seconds=5, what="the background process has ended")


def test_orphans_are_reaped(start: Start) -> None:
    process = start(*shell("for each in 1 2 3 4 5; do (sleep 0.6 &); done; echo ready; sleep 15"))
    assert process.stdout is not None
    process.stdout.readline()
    own = psutil.Process(process.pid)

    until(lambda: len(own.children()) == 6, seconds=5, every=0.02, what="the orphans are its children")
    until(lambda: len(own.children()) == 1, seconds=5, what="no zombie is left, and the command runs")


# --- The forwarder -------------------------------------------------------------------------------------------------


class Forwarded:
    """chef-init with a port, the socket it forwards to, and a waiting command."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.socket, self.port, self._start = str(folder / "s"), free_port(), start

    def begin(self, **limits: int) -> psutil.Process:
        arguments = ["--forward", f"{self.socket}:{self.port}", *shell("echo ready; sleep 60", seconds=60)]
        self.process = self._start(*arguments, **limits)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return psutil.Process(self.process.pid)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def listen(self, *, backlog: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.socket)
        listener.listen(backlog)
        listener.settimeout(20)
        return listener

    @contextlib.contextmanager
    def answering(self, talk: Talk) -> Iterator[None]:
        """`talk` handles each connection to the socket in a thread."""

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    talk(self.request)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 512

        with Server(self.socket, Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield
            server.shutdown()


@pytest.fixture
def forwarded(start: Start, short_folder: Path, request: pytest.FixtureRequest) -> Forwarded:
    folder = short_folder / f"forward-{abs(hash(request.node.name)):x}"
    folder.mkdir()
    return Forwarded(start, folder)


def read_all(peer: socket.socket) -> bytes:
    return b"".join(iter(lambda: peer.recv(65536), b""))


def answer_digest(peer: socket.socket) -> None:
    """Read to the end, marked by a half-close, then respond."""
    peer.sendall(hashlib.sha256(read_all(peer)).hexdigest().encode())


def ask_digest(forwarded: Forwarded, content: bytes) -> bool:
    with forwarded.connect() as peer:
        peer.sendall(content)
        peer.shutdown(socket.SHUT_WR)
        return read_all(peer).decode() == hashlib.sha256(content).hexdigest()


def used_cpu(process: psutil.Process, seconds: float) -> float:
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return float(sum(process.cpu_times()[:2]) - before)


def test_client_may_finish_first_and_still_gets_its_answer(forwarded: Forwarded) -> None:
    forwarded.begin()
    with forwarded.answering(answer_digest):
        assert ask_digest(forwarded, 5 * MEGABYTE)
        assert ask_digest(forwarded, b"")


def test_proxy_may_finish_first_and_still_gets_what_is_sent(forwarded: Forwarded) -> None:
    received: list[bytes] = []

    def finish_first(peer: socket.socket) -> None:
        peer.sendall(b"hello")
        peer.shutdown(socket.SHUT_WR)
        received.append(read_all(peer))

    forwarded.begin()
    with forwarded.answering(finish_first), forwarded.connect() as peer:
        assert read_all(peer) == b"hello"
        peer.sendall(MEGABYTE)
        peer.shutdown(socket.SHUT_WR)
        until(lambda: received == [MEGABYTE], seconds=10, what="the proxy has it all")


def test_two_hundred_concurrent_connections_lose_nothing(forwarded: Forwarded) -> None:
    together = threading.Barrier(200)

    def ask(number: int) -> bool:
        content = number.to_bytes(2, "big") * 50_000
        with forwarded.connect() as peer:
            together.wait(timeout=20)
            peer.sendall(content)
            peer.shutdown(socket.SHUT_WR)
            return read_all(peer).decode() == hashlib.sha256(content).hexdigest()

    process = forwarded.begin()
    with forwarded.answering(answer_digest), ThreadPoolExecutor(200) as pool:
        assert all(pool.map(ask, range(200)))

    until(lambda: process.num_fds() <= 5, seconds=5, what="every connection is closed on both sides")


def test_slow_reader_slows_the_sender_down_without_using_cpu(forwarded: Forwarded) -> None:
    """The other side has sent everything and hung up: this must use neither memory nor CPU time."""
    process = forwarded.begin()
    with forwarded.answering(lambda peer: peer.sendall(40 * MEGABYTE)), forwarded.connect() as peer:
        first = peer.recv(1)
        time.sleep(0.3)

        assert used_cpu(process, 0.5) < 0.1
        assert process.memory_info().rss < 4 * 2**20
        digest = hashlib.sha256(first)
        while data := peer.recv(1 << 20):
            digest.update(data)
    assert digest.digest() == hashlib.sha256(40 * MEGABYTE).digest()


def test_vanished_peer_ends_only_its_own_connection(forwarded: Forwarded) -> None:
    process = forwarded.begin()
    with forwarded.answering(lambda peer: peer.sendall(40 * MEGABYTE)):
        with forwarded.connect() as peer:
            peer.recv(1)
            # Unread bytes without lingering cause a reset.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: process.num_fds() <= 5, seconds=5, what="both sides are closed")

        with forwarded.connect() as peer:
            assert len(read_all(peer)) == 40 * len(MEGABYTE)
    assert used_cpu(process, 0.3) < 0.1


def test_connections_wait_while_out_of_file_descriptors(forwarded: Forwarded) -> None:
    process = forwarded.begin(open_files=16)
    with forwarded.answering(lambda peer: peer.sendall(peer.recv(100))):
        peers = [forwarded.connect() for _ in range(30)]  # the others wait in the backlog
        assert used_cpu(process, 0.5) < 0.1

        for number, peer in enumerate(peers):
            with peer:
                peer.sendall(b"%d" % number)
                assert read_all(peer) == b"%d" % number


def test_connections_wait_while_the_proxy_accepts_none(forwarded: Forwarded) -> None:
    forwarded.begin()
    with forwarded.listen(backlog=1) as listener:
        peers = [forwarded.connect() for _ in range(6)]
        time.sleep(0.3)

        for _ in peers:
            with listener.accept()[0] as server:
                server.sendall(b"at last")
        assert [read_all(peer) for peer in peers] == [b"at last"] * 6
    for peer in peers:
        peer.close()


def test_connection_without_a_proxy_is_closed_and_reported_once(forwarded: Forwarded) -> None:
    forwarded.begin()
    for _ in range(3):
        with forwarded.connect() as peer:
            assert read_all(peer) == b""

    forwarded.process.terminate()
    _, errors = forwarded.process.communicate(timeout=10)

    assert errors == f"chef-init: the proxy at {forwarded.socket} cannot be reached: No such file or directory\n"


def test_open_connection_does_not_delay_the_exit(forwarded: Forwarded) -> None:
    forwarded.begin()
    with forwarded.answering(lambda peer: peer.sendall(read_all(peer))), forwarded.connect() as peer:
        peer.sendall(b"x")
        forwarded.process.terminate()

        assert forwarded.process.wait(timeout=5) == 128 + signal.SIGTERM


def test_port_in_use_is_reported_and_nothing_is_run(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, errors = run(start, "--forward", f"/s:{port}", *shell("echo ran"))

    assert (code, output) == (70, "")
    assert errors == f"chef-init: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_port_is_only_on_loopback(forwarded: Forwarded) -> None:
    forwarded.begin()
    listening = [each.laddr for each in psutil.net_connections("tcp") if each.pid == forwarded.process.pid]

    assert [tuple(address) for address in listening] == [("127.0.0.1", forwarded.port)]
