"""What the tools of Node projects print when they fail.

Most patterns were written from the tools' real output: npm 9 to 12, pnpm 8 to 12, Yarn 1 and 4, tsc 5 and 7,
vue-tsc, svelte-check, Vite 6 and 8, Rollup, esbuild, webpack, Node.
"""

from builds.verdicts.patterns import FETCH_FAILED, NETWORK_ERROR, Patterns, symptoms

_NPM = r"npm (?:error|err!) "

NPM_AND_OTHERS = Patterns(
    symptoms=(
        *symptoms(
            "lockfile_out_of_sync",
            _NPM + r"(?:Missing|Invalid): (?P<package>\S+).* (?:from|in) lock file",
            _NPM + r".*`npm ci`.* can only install",
            r"ERR_PNPM_(?:OUTDATED_LOCKFILE|NO_LOCKFILE|LOCKFILE_\w+|FROZEN_LOCKFILE_\w+)",
            r"Your lockfile needs to be updated",
            r"lockfile would have been (?:modified|created) by this install",
        ),
        *symptoms("lockfile_out_of_sync", r"specifiers in the lockfile", after=2),
        *symptoms(
            "invalid_manifest",
            _NPM + r"(?:code )?(?:EJSONPARSE|EINVALIDPACKAGENAME|EINVALIDTAGNAME)",
            _NPM + r"(?:JSON\.parse (?:Invalid|Expected|Unexpected|Bad)|Invalid package name)",
            r"(?:JSON at position \d+|Unexpected token).*\b(?P<file>package\.json)\b",
            r"\b(?P<file>package\.json): .*(?:JSON at position \d+|Unexpected token)",
            r"ERR_PNPM_JSON_PARSE|ERR_PNPM_BAD_PACKAGE_JSON",
        ),
        *symptoms(
            "dependency_conflict",
            _NPM + r"(?:While resolving|Found|Conflicting peer dependency): \S",
            _NPM + r"\s*peer \S+ from (?P<package>\S+)",
            _NPM + r"(?:code )?ERESOLVE",
            r"ERR_PNPM_PEER_DEP_ISSUES",
        ),
        *symptoms(
            FETCH_FAILED,
            _NPM + r"code (?:ECONN\w+|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|ENETUNREACH|EPROTO|E40[137]|E5\d\d"
            r"|ERR_SOCKET_TIMEOUT)",
            _NPM + r"code (?:\w*CERT\w*|\w*SIGNATURE\w*)$",
            _NPM + r".*(?:403 Forbidden - GET|unable to access) '?http",
            r"ERR_PNPM_(?:META_)?FETCH_(?:FAIL|40[137]|5\d\d)",
            r"tunneling socket could not be established",
            r"RequestError: (?:Bad response|.*\bE[A-Z]{4,})",
            r"gyp ERR! stack .*(?:\b40\d\b|tunnel|ENOTFOUND|EAI_AGAIN|FetchError)",
        ),
        *symptoms(
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
        ),
        *symptoms(
            "missing_script",
            r"Missing script: \"?(?P<script>[\w:./@-]+)",
            r"^error Command \"(?P<script>[^\"]+)\" not found",
            r"Couldn't find a script named \"(?P<script>[^\"]+)\"",
            constants={"manifest": "package.json"},
        ),
    ),
    words=(*("lock", "json", "unexpected", "expected", "conflict", "not in", "no match", "no candidates"),),
    # npm ends every failure with these; they do not name the cause.
    boilerplate=(
        _NPM + r"(?:A complete log|code \d+$|path |command |workspace |location |Lifecycle script|errno|syscall|\s*$)",
        "ELIFECYCLE",
    ),
)

_TYPESCRIPT = {"checker": "TypeScript"}

# Tools that any of the package managers may run.
WEB_TOOLS = Patterns(
    symptoms=(
        *symptoms(
            "process_limit",
            r"spawn(?:Sync)? .*\bEAGAIN\b",
            r"Assertion failed:.*uv_thread_create",
        ),
        *symptoms("out_of_memory", r"JavaScript heap out of memory"),
        *symptoms("egress_blocked", r"Failed to fetch .* from (?P<host>Google Fonts)"),
        *symptoms(
            "type_error",
            r"(?<!\S)(?P<file>[^\s(:]+)\((?P<line>\d+),\d+\): error TS\d+",
            r"(?<!\S)(?P<file>[^\s:]+):(?P<line>\d+):\d+ - error (?:TS\d+|ts\(\d+\))",
            r"\berror TS\d+: ",
            r"^\d+ ERROR \"(?P<file>[^\"]+)\" (?P<line>\d+):\d+ ",
            constants=_TYPESCRIPT,
        ),
        *symptoms("type_error", r"\[ERROR\] (?:TS|NG)-?\d+: ", after=2, constants=_TYPESCRIPT),
        *symptoms(
            "type_error",
            r"^(?:Type )?error: .* \((?:ts|js)\)$|^Type error: |^\s*TS\d{4,5}: ",
            before=1,
            constants=_TYPESCRIPT,
        ),
        *symptoms("type_error", r"^Error: .*corresponding type declarations", before=1, constants=_TYPESCRIPT),
        *symptoms(
            "module_not_found",
            r"Module not found: (?:Error: )?Can't resolve '(?P<module>[^']+)'(?: in '(?P<folder>[^']+)')?",
            before=1,
        ),
        *symptoms("module_not_found", r"\[ERROR\] Could not resolve \"(?P<module>[^\"]+)\"$", after=2),
        *symptoms(
            "module_not_found",
            r"failed to resolve(?: import)? [\"'](?P<module>[^\"']+)[\"'] from [\"'](?P<file>[^\"']+)[\"']",
            r"Could not resolve [\"'](?P<module>[^\"']+)[\"'] (?:from|in) [\"']?(?P<file>[^\"'\s]+)",
            r"(?:Could not|Cannot) resolve entry module \"?(?P<module>[^\s\"]+?)\"?\.?$",
            r"Cannot find (?:module|package) '(?P<module>[^']+)'(?! or its)(?: imported from (?P<file>\S+))?",
        ),
        *symptoms("syntax_error", r"^SyntaxError: ", before=4),
        *symptoms(
            "syntax_error",
            r"\[ERROR\] (?:Unexpected|Expected|Unterminated|Syntax error|The character)",
            r"\[(?:PARSE_ERROR|builtin:vite-transform)\]",
            after=2,
        ),
        *symptoms("syntax_error", r"Module parse failed: ", before=1),
        *symptoms(
            "syntax_error",
            r"(?<!\S)(?P<file>[^\s:]+):(?P<line>\d+):\d+: ERROR: (?!Could not resolve)",
            r"RollupError: (?P<file>\S+) \((?P<line>\d+):\d+\): (?!.* is not exported by)",
            r"\bSyntaxError: (?P<file>/\S+): ",
            r"CssSyntaxError|\[postcss\] .*(?:Unknown word|Unclosed)",
            r"^\s*(?:Error:\s+)?[x\u00d7] (?:Unexpected|Expected|Unterminated)",
        ),
        *symptoms(NETWORK_ERROR, r"getaddrinfo (?:ENOTFOUND|EAI_AGAIN) (?P<host>[^\s:,]+)"),
    ),
    words=("eagain", "unexpected", "expected", "unterminated", "css", "transform", "getaddrinfo"),
    boilerplate=(r"error during build:$", r"^\s*at .+[:)]"),
)
