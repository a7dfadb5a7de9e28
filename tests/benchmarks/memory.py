"""The memory of Chef's processes: resident (RSS) and proportional (PSS), which divides shared pages."""

from dataclasses import dataclass

import psutil

from tests.installation import Installation

MIB = 1024**2


@dataclass(frozen=True)
class Process:
    """One process and its memory in MiB."""

    name: str
    pid: int
    rss: float
    pss: float


def look(chef: Installation) -> list[Process]:
    """Web, reaper, worker pool, sweeper, each worker, and the process of each running build."""
    pool = psutil.Process(chef.processes["workers"].pid)
    # The sweeper has the workers' command line, but is started before them.
    sweeper, *workers = sorted(pool.children(), key=psutil.Process.create_time)
    found = [("web", psutil.Process(chef.processes["web"].pid)), ("reaper", _process(chef, "reaper"))]
    found += [("worker pool", pool), ("sweeper", sweeper)]
    for number, worker in enumerate(workers, 1):
        found.append((f"worker {number}", worker))
        found += [(f"build of worker {number}", child) for child in worker.children()]
    return [_measure(name, process) for name, process in found]


def _process(chef: Installation, name: str) -> psutil.Process:
    return psutil.Process(chef.processes[name].pid)


def _measure(name: str, process: psutil.Process) -> Process:
    memory = process.memory_full_info()
    return Process(name, process.pid, memory.rss / MIB, memory.pss / MIB)
