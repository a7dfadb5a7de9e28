"""Output of failing tools, shortened, with made-up names of hosts and packages."""

# Code → (a tool's output, what the message must contain). Each sample is one failed command.
SAMPLES: dict[str, list[tuple[str, str]]] = {
    "process_limit": [
        ("bash: fork: retry: Resource temporarily unavailable", "limit of processes"),
        ("sh: 0: Cannot fork", "limit of processes"),
        ("Error: spawn sleep EAGAIN\n    at ChildProcess._handle.onexit (node:internal/child_process:285:19)", ""),
        ("Error: spawnSync /bin/sh EAGAIN", ""),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", ""),
        ("RuntimeError: can't start new thread", ""),
        ("  #  Assertion failed: (0) == (uv_thread_create(t.get(), start_thread, this))", ""),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2: Resource temporarily unavailable", ""),
        ("runtime: failed to create new OS thread (have 2 already; errno=11)", ""),
    ],
    "out_of_memory": [
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\nAborted", "memory"),
        ('Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nMemoryError', ""),
        ("terminate called after throwing an instance of 'std::bad_alloc'", ""),
        ("OSError: [Errno 12] Cannot allocate memory", ""),
    ],
    "disk_limit": [
        ("npm error code ENOSPC\nnpm error nospc ENOSPC: no space left on device, write", "disk"),
        ("OSError: [Errno 28] No space left on device", ""),
        ("Error: EDQUOT: disk quota exceeded, write", ""),
    ],
    "lockfile_out_of_sync": [
        (
            "npm error code EUSAGE\nnpm error\n"
            "npm error `npm ci` can only install packages when your package.json and package-lock.json are in sync.\n"
            "npm error\nnpm error Missing: is-even@1.0.0 from lock file\n"
            "npm error Invalid: lock file's is-odd@3.0.0 does not satisfy is-odd@3.0.1\n" + "npm error Usage:\n" * 60,
            "does not match",
        ),
        ("npm ERR! The `npm ci` command can only install with an existing package-lock.json or", "missing"),
        (
            ' ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with "frozen-lockfile" because pnpm-lock.yaml is not up to '
            "date with <ROOT>/package.json\n\n    Failure reason:\n"
            '    specifiers in the lockfile ({}) don\'t match specs in package.json ({"is-odd":"3.0.1"})',
            "",
        ),
        ("error Your lockfile needs to be updated, but yarn was run with `--frozen-lockfile`.", ""),
        ("➤ YN0028: │ The lockfile would have been modified by this install, which is explicitly forbidden.", ""),
    ],
    "invalid_manifest": [
        (
            "npm error code EJSONPARSE\n"
            "npm error JSON.parse Invalid package.json: JSONParseError: Expected double-quoted property name in JSON",
            "is invalid",
        ),
        ('npm error Invalid package name "a b" of package "a b@*": name can only contain URL-friendly characters.', ""),
        (
            " ERROR  Expected double-quoted property name in JSON at position 30 while parsing '{\"a\":1,}' "
            "in /workspace/app/package.json",
            "package.json is invalid",
        ),
        (
            "error SyntaxError: /workspace/app/package.json: Expected ',' in JSON at position 3",
            "package.json is invalid",
        ),
        (" ERR_PNPM_JSON_PARSE  Expected double-quoted property name", ""),
        ("configuration error: `project.version` must be pep440\nDESCRIPTION:", ""),
        ("ERROR: Invalid requirement: 'six==': Expected end or semicolon (after name)", "Invalid requirement: 'six=='"),
    ],
    "dependency_conflict": [
        (
            "npm error code ERESOLVE\nnpm error ERESOLVE unable to resolve dependency tree\nnpm error\n"
            "npm error While resolving: x@1.0.0\nnpm error Found: react@18.2.0\nnpm error node_modules/react\n"
            'npm error   react@"18.2.0" from the root project\nnpm error\nnpm error Could not resolve dependency:\n'
            'npm error peer react@"17.0.2" from react-dom@17.0.2',
            "conflict",
        ),
        (" ERR_PNPM_PEER_DEP_ISSUES  Unmet peer dependencies", ""),
        (
            "ERROR: Cannot install -r requirements.txt (line 1) and urllib3==1.20 because these package versions have "
            "conflicting dependencies.\n\nThe conflict is caused by:\n    The user requested urllib3==1.20\n"
            "    requests 2.31.0 depends on urllib3<3 and >=1.21.1\n\n"
            "ERROR: ResolutionImpossible: for help visit a page",
            "",
        ),
    ],
    "registry_unavailable": [
        ("npm error code ECONNREFUSED\nnpm error syscall connect\nnpm error errno ECONNREFUSED", "could not download"),
        ("npm error code SELF_SIGNED_CERT_IN_CHAIN", ""),
        ("npm error 403 403 Forbidden - GET https://registry.example/is-even", ""),
        (" ERR_PNPM_FETCH_403  GET https://registry.example/is-odd: Forbidden - 403", ""),
        ("error Error: https://r.example/x: tunneling socket could not be established, statusCode=403", ""),
        ("curl: (56) CONNECT tunnel failed, response 403", ""),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError('Cannot connect to proxy.', "
            "OSError('Tunnel connection failed: 403 Forbidden'))': /simple/six/\n"
            "ERROR: Could not find a version that satisfies the requirement six (from versions: none)\n"
            "ERROR: No matching distribution found for six",
            "",
        ),
        ("➤ YN0001: │ RequestError: Bad response: 403", ""),
        ("gyp ERR! stack FetchError: request to https://headers.example/v22.tar.gz failed", ""),
    ],
    "dependency_not_found": [
        (
            "npm error code E404\nnpm error 404 Not Found - GET https://registry.example/nope\nnpm error 404\n"
            "npm error 404  'nope@1.0.0' is not in this registry.",
            "nope@1.0.0",
        ),
        ("npm error 404  The requested resource 'nope@1.0.0' could not be found or you do not have", "nope@1.0.0"),
        ("npm error code ETARGET\nnpm error notarget No matching version found for is-odd@99.0.0.", "is-odd@99.0.0."),
        (
            " ERR_PNPM_FETCH_404  GET https://registry.example/nope: Not Found - 404\n\n"
            "nope is not in the npm registry, or you have no permission to fetch it.",
            "nope",
        ),
        ("Error: ERR_PNPM_FETCH_404\n  ├─▶ Failed\n  │   Failed to resolve nope@1.0.0", "nope@1.0.0"),
        (
            "  ├─▶ Failed to resolve dependency tree: No matching version found for is-\n  │   odd@99.0.0\n"
            "  ╰─▶ No matching version found for is-odd@99.0.0 while fetching it from",
            "is-odd@99.0.0",
        ),
        ('error Couldn\'t find package "nope" on the "npm" registry.', "nope"),
        ('error Couldn\'t find any versions for "is-odd" that matches "99.0.0"', "is-odd"),
        ("➤ YN0035: │ nope@npm:1.0.0: Package not found", "nope@npm:1.0.0"),
        ("➤ YN0082: │ is-odd@npm:99.0.0: No candidates found", "is-odd@npm:99.0.0"),
        (
            "ERROR: Could not find a version that satisfies the requirement six==99 (from versions: 1.0, 1.1)\n"
            "ERROR: No matching distribution found for six==99",
            "six==99",
        ),
    ],
    "missing_script": [
        ('npm error Missing script: "build"\nnpm error\nnpm error To see a list of scripts, run:', "`build`"),
        ('npm ERR! Missing script: "build"', "`build`"),
        (' ERR_PNPM_NO_SCRIPT  Missing script: build:prod\n\nCommand "build:prod" not found.', "`build:prod`"),
        ('error Command "build" not found.', "`build`"),
        ('Usage Error: Couldn\'t find a script named "build".', "`build`"),
    ],
    "egress_blocked": [
        ("Failed to fetch `Inter` from Google Fonts.\nModule not found: Can't resolve 'font'", "Google Fonts"),
        ("TypeError: fetch failed\n  [cause]: Error: getaddrinfo EAI_AGAIN files.example\n", "files.example"),
        ("curl: (6) Could not resolve host: files.example", "files.example"),
        ("urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", "the network"),
        ("connect: Network is unreachable", "the network"),
    ],
    "type_error": [
        ("src/App.tsx(3,32): error TS2345: Argument of type 'string' is not assignable.", "src/App.tsx, line 3"),
        (
            "\x1b[96msrc/App.tsx\x1b[0m:\x1b[93m3\x1b[0m:\x1b[93m32\x1b[0m - \x1b[91merror\x1b[0m\x1b[90m TS2345: "
            "\x1b[0mArgument of type 'string' is not assignable.",
            "src/App.tsx, line 3",
        ),
        ("src/a.ts(1,17): error TS2307: Cannot find module './b' or its corresponding type declarations.", "line 1"),
        ("src/pages/index.astro:4:9 - error ts(2322): Type 'string' is not assignable.", "index.astro, line 4"),
        ("error TS5058: The specified path does not exist: 'nope.json'.", "type errors"),
        ('1795491093698 ERROR "src/App.svelte" 3:32 "Type \'string\' is not assignable."', "src/App.svelte, line 3"),
        ("/workspace/app/src/C.svelte:2:7\nError: Type 'string' is not assignable. (ts)", "src/C.svelte, line 2"),
        ("./src/app/page.tsx:5:7\nType error: Property 'a' does not exist on type 'B'.", "./src/app/page.tsx, line 5"),
        ("/workspace/app/src/v.ts:1:17\nError: Cannot find module './A' or its corresponding type declarations.", ""),
        ("✘ [ERROR] TS2322: Type 'string' is not assignable.\n\n    src/app/app.ts:5:2:", "src/app/app.ts, line 5"),
    ],
    "module_not_found": [
        (
            '[vite]: Rollup failed to resolve import "nope" from "/workspace/app/src/main.jsx".\n'
            "This is most likely unintended because it can break your application at runtime.",
            "The module nope cannot be found in src/main.jsx",
        ),
        ('[vite]: Rolldown failed to resolve import "nope" from "/workspace/app/src/main.jsx".', "src/main.jsx"),
        ("\x1b[31m[UNRESOLVED_IMPORT] \x1b[0mCould not resolve './nope' in src/main.jsx", "./nope"),
        ('[!] RollupError: Could not resolve "./nope" from "src/r.js"', "./nope cannot be found in src/r.js"),
        ('Could not resolve entry module "index.html".', "index.html"),
        (
            '✘ [ERROR] Could not resolve "nope"\n\n    src/r.js:1:14:\n      1 │ import',
            "nope cannot be found in src/r.js",
        ),
        (
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'nope' imported from /workspace/app/src/r.js",
            "The module nope cannot be found in src/r.js",
        ),
        ("Error: Cannot find module 'nope'\nRequire stack:\n- /workspace/app/c.cjs", "The module nope"),
        (
            "ERROR in ./src/r.js 1:0-26\nModule not found: Error: Can't resolve 'nope' in '/workspace/app/src'",
            "nope cannot be found in ./src/r.js, line 1",
        ),
        (
            'Traceback (most recent call last):\n  File "/workspace/app/s.py", line 1, in <module>\n    import nope\n'
            "ModuleNotFoundError: No module named 'nope'",
            "nope cannot be found in s.py, line 1",
        ),
        ("pyproject_hooks._impl.BackendUnavailable: Cannot import 'nope.backend'", "nope.backend"),
        ("ERROR: Backend 'nope.backend' is not available.", "nope.backend"),
    ],
    "syntax_error": [
        ("  File \"app.py\", line 2\n    if x\n        ^\nSyntaxError: expected ':'", "app.py, line 2"),
        ('  File "lib/b.py", line 3\n    return 2\nTabError: inconsistent use of tabs', "lib/b.py, line 3"),
        (
            "file:///workspace/app/src/bad.js:1\nconst a = ;\n          ^\n\nSyntaxError: Unexpected token ';'",
            "src/bad.js, line 1",
        ),
        (
            "[vite:build-html] Transform failed with 1 error:\n"
            "/workspace/app/src/main.jsx:4:0: ERROR: Unexpected end of file",
            "src/main.jsx, line 4",
        ),
        (
            "[builtin:vite-transform] Unexpected token\n   ╭─[ src/main.jsx:2:16 ]\n   │",
            "src/main.jsx, line 2",
        ),
        ('✘ [ERROR] Unexpected ";"\n\n    src/bad.js:1:10:\n      1 │ const a = ;', "src/bad.js, line 1"),
        ("[!] RollupError: src/bad.js (1:10): Expression expected", "src/bad.js, line 1"),
        ("ERROR in ./src/bad.js 1:10\nModule parse failed: Unexpected token (1:10)", "./src/bad.js, line 1"),
        ("SyntaxError: /workspace/app/src/App.js: Unexpected token (3:5)", "src/App.js"),
        ("[vite:css] [postcss] /workspace/app/src/s.css:3:1: Unknown word", ""),
        ("Error:   x Expected ';', got 'b'\n   ,-[/workspace/app/src/a.ts:1:1]", ""),
    ],
    "command_not_found": [
        ("> x@1.0.0 build\n> nope build\n\nsh: 1: nope: not found", "`nope`"),
        ("/bin/sh: 1: nope: not found\nerror Command failed with exit code 127.", "`nope`"),
        ("bash: line 1: nope: command not found", "`nope`"),
        ("command not found: nope", "`nope`"),
        ('exec: "nope": executable file not found in $PATH', "`nope`"),
    ],
}
