"""A pytest plugin: a run with skipped or xfailed tests fails."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and _left_out(reporter) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if count := _left_out(terminalreporter):
        terminalreporter.write_line(f"{count} tests were skipped or expected to fail: every test has to run.", red=True)


def _left_out(reporter: pytest.TerminalReporter) -> int:
    return sum(len(reporter.stats.get(kind, [])) for kind in ("skipped", "xfailed", "xpassed"))
