"""What Bun prints when it fails. The patterns were written from the real output of Bun 1.4."""

from builds.verdicts.patterns import FETCH_FAILED, Patterns, symptoms

TOOL_PATTERNS = Patterns(
    symptoms=(
        *symptoms("process_limit", r"^EAGAIN: resource temporarily unavailable, posix_spawn"),
        *symptoms("lockfile_out_of_sync", r"lockfile had changes, but lockfile is frozen", after=1),
        *symptoms("invalid_manifest", r"^\s+at (?P<file>\S*package\.json):\d+:\d+$", before=3),
        *symptoms(
            FETCH_FAILED,
            r"^error: \w+(?: \(\d+\))? downloading (?:package manifest|tarball) ",
            r"^error: GET \S+ - (?:40[137]|429|5\d\d)$",
        ),
        *symptoms(
            "dependency_not_found",
            r"^error: GET \S+ - 404$",
            r"^error: (?P<package>[^\s:]+@[^\s:]+) failed to resolve$",  # with a colon it is not a registry package
            r"^error: No version matching \"[^\"]+\" found for specifier",
            r"^error: Package \"[^\"]+\" with tag \"[^\"]+\" not found",
        ),
        *symptoms(
            "missing_script",
            r"^error: Script not found \"(?P<script>[^\"]+)\"",
            constants={"manifest": "package.json"},
        ),
        *symptoms(
            "module_not_found",
            r"^error: Cannot find (?:module|package) '(?P<module>[^']+)' from '(?P<file>[^']+)'",
            r"^error: ModuleNotFound resolving \"(?P<module>[^\"]+)\"",
            r"^error: Module not found \"(?P<module>[^\"]+)\"",
        ),
        *symptoms("module_not_found", r"^error: Could not resolve: \"(?P<module>[^\"]+)\"", after=1),
        *symptoms("syntax_error", r"^error: (?:Unexpected|Expected|Unterminated) ", before=2, after=1),
        *symptoms(
            "command_not_found",
            r"^/usr/bin/(?:ba|da)?sh: (?:(?:line )?\d+: )?(?P<command>[^\s:]+): (?:command )?not found$",
            r"^error: Executable not found in \$PATH: \"(?P<command>[^\"]+)\"",
        ),
    ),
    words=("lock", "json", "expected", "unterminated"),
    # Bun ends every failure with these; they do not name the cause.
    boilerplate=(
        r"^error: script \"[^\"]+\" exited with code \d+",
        r"^bun (?:install )?v\d",
        r"^note: (?:try re-running|Run 'bun upgrade')",
    ),
)
