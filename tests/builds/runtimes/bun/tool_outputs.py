"""Output of failing Bun 1.4, with made-up names of hosts and packages."""

# Code → (phase, output, what the message must contain). Each sample is one failed command.
SAMPLES: dict[str, list[tuple[str, str, str]]] = {
    "lockfile_out_of_sync": [
        (
            "installation",
            "bun install v1.4.5 (a7733435c)\nResolving dependencies\nerror: lockfile had changes, but lockfile is "
            "frozen\nnote: dependencies in package.json changed since bun.lock was saved: marked changed from 15.0.12 "
            "to 15.0.11\nnote: try re-running without --frozen-lockfile and commit the updated lockfile",
            "does not match",
        ),
        (
            "installation",
            '1 | {"lockfileVersion": 1, "packages":\n                                      ^\n'
            "error: Unexpected end of file\n    at bun.lock:1:35\n"
            "ParserError: failed to parse lockfile: 'bun.lock'\n\nwarn: Ignoring lockfile\n"
            "error: lockfile had changes, but lockfile is frozen",
            "does not match",
        ),
    ],
    "invalid_manifest": [
        (
            "installation",
            '1 | {"name": "a",, }\n                 ^\nerror: Expected string but found ","\n'
            '    at /workspace/app/a/package.json:1:14\n\n1 | {"name": "x", "workspaces": ["a"]}\n'
            '                                 ^\nerror: ParserError reading package.json for workspace package "a" '
            'from "/workspace/app"\n    at /workspace/app/package.json:1:33',
            "a/package.json is invalid",
        ),
    ],
    "dependency_not_found": [
        (
            "installation",
            "error: GET https://registry.example/@nope%2fx - 404\nerror: @nope/x@1.0.0 failed to resolve",
            "does not have @nope/x@1.0.0.",
        ),
        (
            "installation",
            'error: No version matching "99.0.0" found for specifier "is-odd" (but package exists)\n'
            "error: is-odd@99.0.0 failed to resolve",
            "does not have is-odd@99.0.0.",
        ),
        (
            "installation",
            'error: Package "is-odd" with tag "next" not found, but package exists\n'
            "error: is-odd@next failed to resolve",
            "does not have is-odd@next.",
        ),
    ],
    "registry_unavailable": [
        (
            "installation",
            "error: ProxyConnectFailed (502) downloading package manifest marked\n"
            "error: marked@15.0.12 failed to resolve",
            "could not download",
        ),
        ("installation", "error: ConnectionRefused downloading tarball marked@15.0.12", "could not download"),
        ("installation", "error: SELF_SIGNED_CERT_IN_CHAIN downloading package manifest marked", "could not download"),
        ("installation", "error: GET https://registry.example/marked - 503", "could not download"),
    ],
    "missing_script": [("build", 'error: Script not found "build:prod"', "`build:prod`")],
    "module_not_found": [
        (
            "build",
            "$ bun build.mjs\nerror: Cannot find package 'marked' from '/workspace/app/build.mjs'\n\n"
            "note: DNSResolveFailed downloading package manifest marked\n\nBun v1.4.5 (Linux x64)\n"
            'error: script "build" exited with code 1',
            "The module marked cannot be found in build.mjs",
        ),
        (
            "build",
            '1 | import x from "./nope";\n                  ^\nerror: Could not resolve: "./nope"\n'
            "    at /workspace/app/src/a.ts:1:15",
            "./nope cannot be found in src/a.ts, line 1",
        ),
        (
            "build",
            'error: Could not resolve: "nope". Maybe you need to "bun install"?\n    at /workspace/app/a.ts:4:1',
            "The module nope cannot be found in a.ts, line 4",
        ),
        ("build", 'error: ModuleNotFound resolving "src/none.ts" (entry point)', "src/none.ts"),
        ("build", 'error: Module not found "src/none.js"', "src/none.js"),
    ],
    "syntax_error": [
        (
            "build",
            "1 | const a = 1;\n2 | const b = ;\n              ^\nerror: Unexpected ;\n"
            "    at /workspace/app/src/a.ts:2:11\n",
            "in src/a.ts, line 2",
        ),
    ],
    "command_not_found": [
        (
            "build",
            "$ nope-tool x\n/usr/bin/bash: line 1: nope-tool: command not found\n"
            'error: script "build" exited with code 127',
            "`nope-tool`",
        ),
        ("build", 'error: Executable not found in $PATH: "nope-tool"\n  path: "nope-tool",', "`nope-tool`"),
    ],
    "process_limit": [
        ("build", "EAGAIN: resource temporarily unavailable, posix_spawn 'sleep'\n    path: \"sleep\",", "processes"),
    ],
    # Tools that a script calls print the same as under Node.
    "type_error": [("build", "m.ts(1,7): error TS2322: Type 'string' is not assignable to type 'number'.", "m.ts")],
    "egress_blocked": [
        (
            "build",
            'TypeError: getaddrinfo EAI_AGAIN files.example\n     path: "https://files.example/x",',
            "files.example",
        )
    ],
}
