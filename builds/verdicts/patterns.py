"""What failing tools print, and the verdict code that each line stands for.

Most patterns were written against the tool's real output: npm 9 to 12, pnpm 8 to 12, Yarn 1 and 4, tsc 5 and 7,
vue-tsc, svelte-check, Vite 6 and 8, Rollup, esbuild, webpack, Node, pip, `build`, Python, dash and bash. This module
only reads single lines; `verdicts` decides what they mean together.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Two codes that are not verdicts yet. Whether a download failed by our policy or by the registry, only the egress
# record tells; a name that cannot be resolved is worth a verdict only when nothing better explains the failure.
FETCH_FAILED = "fetch_failed"
NETWORK_ERROR = "network_error"


@dataclass(frozen=True)
class Symptom:
    """One kind of line. Named groups are the verdict's facts; `before` and `after` count lines that belong to it."""

    code: str
    pattern: re.Pattern[str]
    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class Sign:
    """A symptom that was seen, with the facts that its line names."""

    symptom: Symptom
    facts: dict[str, str]


def _symptoms(code: str, *patterns: str, before: int = 0, after: int = 0) -> tuple[Symptom, ...]:
    return tuple(Symptom(code, re.compile(pattern, re.IGNORECASE), before, after) for pattern in patterns)


_NPM = r"npm (?:error|err!) "

# The order is the precedence: when a log shows several, the first of these is the verdict. Limits come first, because a
# tool that runs out of something reports all kinds of follow-up errors.
SYMPTOMS: tuple[Symptom, ...] = (
    *_symptoms(
        "process_limit",
        r"fork: (?:retry: )?Resource temporarily unavailable",
        r": cannot fork$",
        r"spawn(?:Sync)? .*\bEAGAIN\b",
        r"BlockingIOError: \[Errno 11\] Resource temporarily unavailable",
        r"can't start new thread",
        r"Assertion failed:.*uv_thread_create",
        r"pthread_create\b.*Resource temporarily unavailable",
        r"failed to (?:create new OS|spawn) thread",
    ),
    *_symptoms(
        "out_of_memory",
        r"JavaScript heap out of memory",
        r"^MemoryError\b",
        r"std::bad_alloc",
        r"ENOMEM|Cannot allocate memory",
    ),
    *_symptoms(
        "disk_limit",
        # Node reports a lack of file watchers as ENOSPC too.
        r"ENOSPC(?!.*file watchers)",
        r"No space left on device|Disk quota exceeded",
        r"EDQUOT",
    ),
    *_symptoms(
        "lockfile_out_of_sync",
        _NPM + r"(?:Missing|Invalid): (?P<package>\S+).* (?:from|in) lock file",
        _NPM + r".*`npm ci`.* can only install",
        r"ERR_PNPM_(?:OUTDATED_LOCKFILE|NO_LOCKFILE|LOCKFILE_\w+|FROZEN_LOCKFILE_\w+)",
        r"Your lockfile needs to be updated",
        r"lockfile would have been (?:modified|created) by this install",
    ),
    *_symptoms("lockfile_out_of_sync", r"specifiers in the lockfile", after=2),
    *_symptoms(
        "invalid_manifest",
        _NPM + r"(?:code )?(?:EJSONPARSE|EINVALIDPACKAGENAME|EINVALIDTAGNAME)",
        _NPM + r"(?:JSON\.parse (?:Invalid|Expected|Unexpected|Bad)|Invalid package name)",
        r"(?:JSON at position \d+|Unexpected token).*\b(?P<file>package\.json)\b",
        r"\b(?P<file>package\.json): .*(?:JSON at position \d+|Unexpected token)",
        r"ERR_PNPM_JSON_PARSE|ERR_PNPM_BAD_PACKAGE_JSON",
        r"^configuration error: `|invalid (?P<file>pyproject\.toml) config|TOMLDecodeError: ",
        r"^ERROR: (?P<detail>Invalid requirement: '?.+?'?)(?::|$)",
    ),
    *_symptoms(
        "dependency_conflict",
        _NPM + r"(?:While resolving|Found|Conflicting peer dependency): \S",
        _NPM + r"\s*peer \S+ from (?P<package>\S+)",
        _NPM + r"(?:code )?ERESOLVE",
        r"ERR_PNPM_PEER_DEP_ISSUES",
        r"ResolutionImpossible",
        r"^ERROR: Cannot install .* conflicting dependencies",
    ),
    *_symptoms("dependency_conflict", r"^The conflict is caused by:", after=3),
    *_symptoms(
        FETCH_FAILED,
        _NPM + r"code (?:ECONN\w+|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|ENETUNREACH|EPROTO|E40[137]|E5\d\d|ERR_SOCKET_TIMEOUT)",
        _NPM + r"code (?:\w*CERT\w*|\w*SIGNATURE\w*)$",
        _NPM + r".*(?:403 Forbidden - GET|unable to access) '?http",
        r"ERR_PNPM_(?:META_)?FETCH_(?:FAIL|40[137]|5\d\d)",
        r"tunneling socket could not be established",
        r"CONNECT tunnel failed|Tunnel connection failed|Cannot connect to proxy",
        r"connection broken by|Max retries exceeded with url",
        r"RequestError: (?:Bad response|.*\bE[A-Z]{4,})",
        r"gyp ERR! stack .*(?:\b40\d\b|tunnel|ENOTFOUND|EAI_AGAIN|FetchError)",
    ),
    *_symptoms(
        "dependency_not_found",
        _NPM + r"404\s+'(?P<package>[^']+)' is not in",
        _NPM + r"404\s+The requested resource '(?P<package>[^']+)'",
        _NPM + r"404 Not Found - GET ",
        r"No matching version found for (?P<package>\S+@\S+?)\.?(?: |$)",
        r"^\W*Failed to resolve (?P<package>\S+@\S+)$",
        _NPM + r"code (?:E404|ETARGET)",
        r"ERR_PNPM_FETCH_404|ERR_PNPM_NO_MATCHING_VERSION",
        r"^(?P<package>\S+) is not in the npm registry",
        r"Couldn't find package \"(?P<package>[^\"]+)\"",
        r"Couldn't find any versions for \"(?P<package>[^\"]+)\"",
        r"YN0035: .?\s*(?P<package>\S+): Package not found",
        r"YN0082: .?\s*(?P<package>\S+): No candidates found",
        r"No matching distribution found for (?P<package>.+)",
        r"Could not find a version that satisfies the requirement (?P<package>.+?) \(",
    ),
    *_symptoms(
        "missing_script",
        r"Missing script: \"?(?P<script>[\w:./@-]+)",
        r"^error Command \"(?P<script>[^\"]+)\" not found",
        r"Couldn't find a script named \"(?P<script>[^\"]+)\"",
    ),
    *_symptoms("egress_blocked", r"Failed to fetch .* from (?P<host>Google Fonts)"),
    *_symptoms(
        "type_error",
        r"(?<!\S)(?P<file>[^\s(:]+)\((?P<line>\d+),\d+\): error TS\d+",
        r"(?<!\S)(?P<file>[^\s:]+):(?P<line>\d+):\d+ - error (?:TS\d+|ts\(\d+\))",
        r"\berror TS\d+: ",
        r"^\d+ ERROR \"(?P<file>[^\"]+)\" (?P<line>\d+):\d+ ",
    ),
    *_symptoms("type_error", r"\[ERROR\] (?:TS|NG)-?\d+: ", after=2),
    *_symptoms("type_error", r"^(?:Type )?error: .* \((?:ts|js)\)$|^Type error: |^\s*TS\d{4,5}: ", before=1),
    *_symptoms("type_error", r"^Error: .*corresponding type declarations", before=1),
    *_symptoms("module_not_found", r"ModuleNotFoundError: No module named '(?P<module>[^']+)'", before=2),
    *_symptoms(
        "module_not_found",
        r"Module not found: (?:Error: )?Can't resolve '(?P<module>[^']+)'(?: in '(?P<folder>[^']+)')?",
        before=1,
    ),
    *_symptoms("module_not_found", r"\[ERROR\] Could not resolve \"(?P<module>[^\"]+)\"$", after=2),
    *_symptoms(
        "module_not_found",
        r"failed to resolve(?: import)? [\"'](?P<module>[^\"']+)[\"'] from [\"'](?P<file>[^\"']+)[\"']",
        r"Could not resolve [\"'](?P<module>[^\"']+)[\"'] (?:from|in) [\"']?(?P<file>[^\"'\s]+)",
        r"(?:Could not|Cannot) resolve entry module \"?(?P<module>[^\s\"]+?)\"?\.?$",
        r"Cannot find (?:module|package) '(?P<module>[^']+)'(?! or its)(?: imported from (?P<file>\S+))?",
        r"BackendUnavailable: Cannot import '(?P<module>[^']+)'",
        r"^ERROR: Backend '(?P<module>[^']+)' is not available",
    ),
    *_symptoms("syntax_error", r"^(?:SyntaxError|IndentationError|TabError): ", before=4),
    *_symptoms(
        "syntax_error",
        r"\[ERROR\] (?:Unexpected|Expected|Unterminated|Syntax error|The character)",
        r"\[(?:PARSE_ERROR|builtin:vite-transform)\]",
        after=2,
    ),
    *_symptoms("syntax_error", r"Module parse failed: ", before=1),
    *_symptoms(
        "syntax_error",
        r"(?<!\S)(?P<file>[^\s:]+):(?P<line>\d+):\d+: ERROR: (?!Could not resolve)",
        r"RollupError: (?P<file>\S+) \((?P<line>\d+):\d+\): (?!.* is not exported by)",
        r"\bSyntaxError: (?P<file>/\S+): ",
        r"CssSyntaxError|\[postcss\] .*(?:Unknown word|Unclosed)",
        r"^\s*(?:Error:\s+)?[x\u00d7] (?:Unexpected|Expected|Unterminated)",
    ),
    *_symptoms(
        "command_not_found",
        r"^(?:/bin/)?(?:ba|da|a)?sh: (?:(?:line )?\d+: )?(?P<command>[^\s:]+): (?:command )?not found$",
        r"^command not found: (?P<command>\S+)$",
        r"exec: \"(?P<command>[^\"]+)\": executable file not found",
    ),
    *_symptoms(
        NETWORK_ERROR,
        r"getaddrinfo (?:ENOTFOUND|EAI_AGAIN) (?P<host>[^\s:,]+)",
        r"Could not resolve host: (?P<host>\S+)",
        r"Temporary failure in name resolution|Name or service not known",
        r"Network is unreachable|ENETUNREACH",
    ),
)

PRECEDENCE: tuple[str, ...] = tuple(dict.fromkeys(symptom.code for symptom in SYMPTOMS))

# One of these is in every line that shows a symptom: an ordinary line is then a hundred times cheaper to pass over.
_WORDS = re.compile(
    "err|fail|can't|cannot|could|missing|unavailable|memory|nomem|alloc|nospc|quota|eagain|thread|lock|json|unexpected"
    "|expected|unterminated|invalid|conflict|impossible|tunnel|proxy|retries|unable|css|transform|unreach|getaddrinfo"
    "|exception|traceback|fatal|not found|not in|not known|no match|no module|no candidates|space left|resolution"
    "|broken by"
)

_ERROR_LIKE = re.compile(
    r"\berror\b|error:|\bfailed\b|\bfatal\b|exception|traceback|\bERR!|not exported by", re.IGNORECASE
)
# npm closes every failure with these, and they say nothing about the cause.
_NOISE = re.compile(
    _NPM + r"(?:A complete log|code \d+$|path |command |workspace |location |Lifecycle script|errno|syscall|\s*$)"
    r"|error during build:$|Build failed (?:with|in) \d|^\s*at .+[:)]|ELIFECYCLE|^Traceback |Command failed",
    re.IGNORECASE,
)

# Where in the code: in Python's words, or as `file:line` and `file line:column` of most other tools.
_PLACE = re.compile(
    r"File \"(?P<python>[^\"<>]+)\", line (?P<python_line>\d+)"
    r"|(?:^|[\s\[])(?:file://)?(?P<file>[\w./@~-]+\.[a-z]{1,6})[: ](?P<line>\d+)\b",
    re.IGNORECASE,
)
# Where the project lies in every sandbox. People know their files by the path within the project.
_PROJECT_FOLDER = re.compile(r"^(?:file://)?/workspace/app/")


def is_suspect(line: str) -> bool:
    """Whether a line may show a symptom at all."""
    return bool(_WORDS.search(line.lower()))


def signs(line: str) -> Iterator[Sign]:
    """Every symptom that a suspect line shows. The line is clean: cut, without escape sequences or a line end."""
    for symptom in SYMPTOMS:
        match = symptom.pattern.search(line)
        if match:
            yield Sign(symptom, {name: _shown(value) for name, value in match.groupdict().items() if value})


def place(line: str) -> dict[str, str]:
    """The `file` and `line` of the code that a line of an error's context points to; empty when it does not."""
    match = _PLACE.search(line)
    if not match:
        return {}
    return {"file": _shown(match["python"] or match["file"]), "line": match["python_line"] or match["line"]}


def _shown(fact: str) -> str:
    return _PROJECT_FOLDER.sub("", fact)


def is_error_like(line: str) -> bool:
    """Whether a line of an unknown tool looks as if it reports the failure rather than its echo."""
    return bool(_ERROR_LIKE.search(line)) and not is_noise(line)


def is_noise(line: str) -> bool:
    """Whether a line belongs to the failure of any command, whatever its cause."""
    return bool(_NOISE.search(line))
