"""What Python, pip and `build` print when they fail. The patterns were written from their real output."""

from builds.verdicts.patterns import FETCH_FAILED, Patterns, symptoms

TOOL_PATTERNS = Patterns(
    symptoms=(
        *symptoms(
            "process_limit",
            r"BlockingIOError: \[Errno 11\] Resource temporarily unavailable",
            r"can't start new thread",
        ),
        *symptoms("out_of_memory", r"^MemoryError\b"),
        *symptoms(
            "invalid_manifest",
            r"^configuration error: `|invalid (?P<file>pyproject\.toml) config|TOMLDecodeError: ",
            r"^ERROR: (?P<detail>Invalid requirement: '?.+?'?)(?::|$)",
        ),
        *symptoms(
            "dependency_conflict",
            r"ResolutionImpossible",
            r"^ERROR: Cannot install .* conflicting dependencies",
        ),
        *symptoms("dependency_conflict", r"^The conflict is caused by:", after=3),
        *symptoms(
            FETCH_FAILED,
            r"Tunnel connection failed|Cannot connect to proxy",
            r"connection broken by|Max retries exceeded with url",
        ),
        *symptoms("dependency_not_found", r"No matching distribution found for (?P<package>.+)"),
        *symptoms(
            "dependency_not_found",
            r"Could not find a version that satisfies the requirement (?P<package>.+?) \((?!from versions: none)",
        ),
        # If pip cannot reach an index, it only says that there are no versions.
        *symptoms(
            "dependency_not_found",
            r"Could not find a version that satisfies the requirement (?P<package>.+?) \(from versions: none\)",
            hides_block=True,
        ),
        *symptoms("module_not_found", r"ModuleNotFoundError: No module named '(?P<module>[^']+)'", before=2),
        *symptoms(
            "module_not_found",
            r"BackendUnavailable: Cannot import '(?P<module>[^']+)'",
            r"^ERROR: Backend '(?P<module>[^']+)' is not available",
        ),
        *symptoms("syntax_error", r"^(?:SyntaxError|IndentationError|TabError): ", before=4),
    ),
    words=("conflict", "impossible", "retries", "no match", "no module", "traceback", "broken by"),
    boilerplate=(r"^Traceback ",),
    places=(r"File \"(?P<file>[^\"<>]+)\", line (?P<line>\d+)",),
)
