# shellcheck shell=bash
# Starts and stops a server in the background. floor.sh, loadtest.sh, apps.sh and test.sh source this file.
#
# There is at most one server at a time. Its process id is in $server_pid, which is empty while there is none. A server
# that is still running when the script exits is stopped.

server_pid=
trap stop_server EXIT
trap 'exit 1' INT TERM

# start_server OUT ERR COMMAND...: starts COMMAND in the background, with its output in the files OUT and ERR.
start_server() {
    local out=$1 err=$2
    shift 2
    # Truncated here, because the output of an earlier server may contain the line that is waited for.
    : >"$out"
    "$@" </dev/null >"$out" 2>"$err" &
    server_pid=$!
}

# wait_for_server CONDITION...: waits until the command CONDITION succeeds. Fails if the server ends before that, or
# after 20 s.
wait_for_server() {
    local tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [[ $tries -gt 400 ]] || ! kill -0 "$server_pid" 2>/dev/null; then return 1; fi
        sleep 0.05
    done
}

# is_listening PORT: a condition for servers that do not print anything when they are ready. The port is looked up,
# because a connection would be counted by the server.
is_listening() {
    grep -q "$(printf ':%04X ' "$1").* 0A " /proc/net/tcp
}

# Stops the server, if there is one, and waits until it has ended.
stop_server() {
    if [[ -n $server_pid ]]; then
        kill "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
        server_pid=
    fi
}
