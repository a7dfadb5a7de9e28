#!/bin/sh
# Replaces chef-init where it could not be compiled: the same options, in this order.
#
#     chef_init.sh --deadline SECONDS [--forward SOCKET:PORT] -- /PATH/TO/COMMAND [ARGUMENT...]
#
# It needs programs from the image: `timeout`, and python3 or node to forward. If one is missing, it exits with 69. It
# does not reap processes: that is left to the engine's own init.

refuse() {
    echo "chef-init: $1" >&2
    exit "$2"
}

# A build may write to folders that come first on its PATH.
find_program() {
    (PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin && command -v "$1")
}

[ "$1" = --deadline ] || refuse "--deadline must come first" 64
seconds=$2
shift 2
forward=
if [ "$1" = --forward ]; then
    forward=$2
    shift 2
fi
[ "$1" = -- ] || refuse "-- must come before the command" 64
shift

timeout=$(find_program timeout) || refuse "this image has no program \`timeout\`: compile chef-init, which needs none" 69
set -- "$timeout" -s KILL "$seconds" "$@"
if [ -n "$forward" ]; then
    socket=${forward%:*} port=${forward##*:}
    if python=$(find_program python3); then
        set -- "$python" -I "${0%/*}/forward.py" "$socket" "$port" -- "$@"
    elif node=$(find_program node); then
        set -- "$node" "${0%/*}/forward.mjs" "$socket" "$port" -- "$@"
    else
        refuse "this image has neither python3 nor node, so it cannot reach registries: compile chef-init, which needs none" 69
    fi
fi
exec "$@"
