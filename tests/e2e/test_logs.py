"""Logs of a real build: complete, in order, readable soon, and capped with constant memory in the worker."""

import time

import psutil
import pytest

from tests.installation import Installation, until

pytestmark = pytest.mark.once("postgresql")

MIB = 1024**2


def test_lines_keep_their_order_phase_and_stream(chef: Installation) -> None:
    script = 'for i in $(seq 1 300); do echo "line $i"; done; sleep 0.4; echo warn >&2; sleep 0.4;'
    script += 'printf "caf\\303"; sleep 0.3; printf "\\251\\n"'
    accepted = chef.submit({"index.html": "x"}, strategy={"installCommand": script, "buildCommand": "echo then"})

    assert chef.wait(accepted)["status"] == "completed", chef.log_text(accepted)

    page = chef.get(f"/v1/projects/{accepted['projectId']}/logs")
    entries = page["entries"]
    installed = "".join(e["text"] for e in entries if e["phase"] == "installation" and e["stream"] == "stdout")
    assert installed == "".join(f"line {i}\n" for i in range(1, 301)) + "café\n"
    assert [e["text"] for e in entries if e["stream"] == "stderr"] == ["warn\n"]
    assert "then\n" in [e["text"] for e in entries if e["phase"] == "build"]
    assert [e["sequence"] for e in entries] == list(range(1, len(entries) + 1))
    assert (page["complete"], page["truncated"]) == (True, False)


def test_paging_gives_every_entry_once(chef: Installation) -> None:
    script = "for i in $(seq 1 6); do echo out $i; echo err $i >&2; sleep 0.25; done"
    accepted = chef.submit({"index.html": "x"}, strategy={"buildCommand": script})
    seen: list[int] = []
    cursor, complete = "", False

    while not complete:
        after = f"&after={cursor}" if cursor else ""
        page = chef.get(f"/v1/projects/{accepted['projectId']}/logs?limit=2{after}")
        seen += [entry["sequence"] for entry in page["entries"]]
        cursor, complete = page["nextCursor"], page["complete"]

    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 12


def test_a_line_can_be_read_while_the_build_runs(chef: Installation) -> None:
    accepted = chef.submit({"index.html": "x"}, strategy={"buildCommand": "echo now; sleep 6"})

    until(lambda: "now\n" in chef.log_text(accepted), seconds=5, what="the line is there")

    assert chef.status(accepted)["status"] == "running"
    chef.wait(accepted)


def test_200_mb_of_output_are_capped_with_constant_memory(chef: Installation) -> None:
    line = "y" * 99
    # The numbers at both ends show that the beginning and the end are kept, in order.
    script = f"echo first; sleep 3; yes {line} | head -c 200000000; for i in $(seq 1 50); do echo last $i; done"
    accepted = chef.submit({"index.html": "x"}, strategy={"buildCommand": script, "timeout": 120000})
    until(lambda: "first\n" in chef.log_text(accepted), seconds=20, what="the build has begun")
    baseline = peak = _worker_memory(chef)

    while chef.status(accepted)["status"] in ("queued", "running"):
        peak = max(peak, _worker_memory(chef))
        time.sleep(0.2)

    document, text = chef.status(accepted), chef.log_text(accepted)
    assert document["status"] == "completed", document["verdict"]
    assert peak - baseline < 30 * MIB
    assert len(text) < 11 * MIB
    assert document["usage"]["logBytes"] < 11 * MIB
    assert chef.get(f"/v1/projects/{accepted['projectId']}/logs?limit=1")["truncated"] is True
    beginning, mark, end = text.partition("[chef] ")
    assert 0 < beginning.index("\nfirst\n") < beginning.index(f"\n{line}\n")
    assert "bytes of output were left out here" in end.partition("\n")[0]
    assert mark
    assert end.count(line) > 100
    assert "".join(f"last {i}\n" for i in range(1, 51)) in end


def _worker_memory(chef: Installation) -> int:
    """The largest private memory, in bytes, of any descendant of the workers' process."""
    found = [0]
    for process in psutil.Process(chef.processes["workers"].pid).children(recursive=True):
        try:
            found.append(process.memory_full_info().uss)
        except psutil.Error:
            continue  # it has just ended
    return max(found)
