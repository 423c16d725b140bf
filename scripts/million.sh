#!/usr/bin/env bash
# Connects a million clients to a server on this host, takes it through everything that happens to such a server, and reports
# what it cost.
#
#     scripts/million.sh [--connections 1000000] [--rooms 1000] [--hold 600] [--seconds 60] [--churn 1000] [--shards auto]
#                        [--connect-rate R] [--server-cores LIST] [--load-cores LIST] [--port 22800] [--out target/million]
#                        [--skip-build] [--bin DIR] [--check] [--force] [--reserve MIB] [--no-namespace] [--steer]
#                        [STEP...]
#
# First it checks that the host has what the run needs, and says what is missing. Then it takes these steps, or `connect` and
# those that are given, in this order:
#
#   connect     connects all clients; each subscribes to one of the rooms and to one path that all share
#   hold        keeps them for --hold seconds, with heartbeats
#   broadcast   sends one event to all of them, while some ping
#   rooms       sends an event to each room once a second, for --seconds
#   churn       the same, while --churn clients a second close and connect again
#   return      kills the server, starts it again, and lets every client come back
#   stop        stops the server in order: every client must be told (1001)
#
# Writes OUT/table.md and OUT/million.json. The exit code is 1 if a client failed because of the server, or if the run could
# not be completed. A million clients take 17 minutes and 10 GiB.
#
# Run it as root to see the kernel's memory by slab, and to let it make a network namespace of its own for the server and the
# load, with a table of TCP connections that is large enough for both ends of all of them. The namespace ends with the run, and
# nothing changes outside of it. From another shell, its addresses are reached with `nsenter --net=/proc/PID/ns/net`.
#
#   --check          only checks the host
#   --force          runs even if something is missing
#   --no-namespace   stays in the network namespace of the host
#   --steer          lets the load's cores process all packets of the namespace (receive packet steering). Without it, the
#                    sender's core does: then the server's CPU time has what the kernel does at the clients' end for each event
#   --reserve MIB    ends the run when less memory than this is available (1024)
#   --bin DIR        uses the programs in DIR instead of building them
#   --shards N       as many shards; by default, the fewest that hold all connections with this limit on open files
#   --connect-rate R at most as many connects a second; by default as many as the server takes
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/server.sh

given=("$@") namespace=yes
connections=1000000 rooms=1000 hold=600 seconds=60 churn=1000 shards=auto connect_rate= server_cores= load_cores= port=22800
out=target/million build=yes bin=${CARGO_TARGET_DIR:-target}/release check=no force= reserve=1024 wanted= steer=no
while [[ $# -gt 0 ]]; do
    case $1 in
    --connections) connections=$2 && shift 2 ;;
    --rooms) rooms=$2 && shift 2 ;;
    --hold) hold=$2 && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    --churn) churn=$2 && shift 2 ;;
    --shards) shards=$2 && shift 2 ;;
    --connect-rate) connect_rate=$2 && shift 2 ;;
    --server-cores) server_cores=$2 && shift 2 ;;
    --load-cores) load_cores=$2 && shift 2 ;;
    --port) port=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --skip-build) build=no && shift ;;
    --bin) bin=$2 build=no && shift 2 ;;
    --check) check=yes && shift ;;
    --force) force=--force && shift ;;
    --no-namespace) namespace=no && shift ;;
    --steer) steer=yes && shift ;;
    --reserve) reserve=$2 && shift 2 ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) echo "million.sh: unknown flag: $1 (see --help)" >&2 && exit 2 ;;
    *) wanted="$wanted $1" && shift ;;
    esac
done
all_steps="connect hold broadcast rooms churn return stop"
for step in $wanted; do
    case " $all_steps " in
    *" $step "*) ;;
    *) echo "million.sh: no such step: $step (see --help)" >&2 && exit 2 ;;
    esac
done
steps=
for step in $all_steps; do
    case " connect ${wanted:-$all_steps} " in *" $step "*) steps="$steps $step" ;; esac
done

# The default is half of the cores for the server and the other half for the load. A single core is shared.
read -ra cpus <<<"$(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))')"
cores=${#cpus[@]}
half=$(((cores + 1) / 2))
join() { local IFS=, && echo "$*"; }
if [[ -z $server_cores ]]; then server_cores=$(join "${cpus[@]:0:half}"); fi
if [[ -z $load_cores ]]; then load_cores=$(join "${cpus[@]:cores > 1 ? half : 0}"); fi

# In the namespace, the script runs once more. Cargo needs the network of the host.
if [[ -z ${MILLION_NAMESPACE:-} ]]; then
    if [[ $build == yes && $check == no ]]; then cargo build --release --bins; fi
    if [[ $namespace == yes ]]; then
        if [[ $steer == yes ]]; then export MILLION_STEER_TO=$load_cores; fi
        exec python3 scripts/lib/million_namespace.py "$connections" scripts/million.sh "${given[@]}"
    fi
    if [[ $steer == yes ]]; then echo "million.sh: --steer needs a network namespace of its own" >&2 && exit 2; fi
    export MILLION_NAMESPACE=host MILLION_NAMESPACE_REASON="--no-namespace was given"
fi

mkdir -p "$out"
host_json=()
if [[ $check == no ]]; then
    # The files of an earlier run, and no others.
    rm -f "$out"/*.{measure,load,moments}.json "$out"/{host,run,million}.json "$out"/{samples.jsonl,table.md} \
        "$out"/server.{*.log,out,pid}
    host_json=(--json "$out/host.json" --program "$bin/quickio")
fi
# The assignments are those of shards, addresses, clients_max and subscriptions.
plan=$(python3 scripts/lib/million_host.py --connections "$connections" --shards "$shards" --cores "$half" \
    --churn "$churn" --reserve-mib "$reserve" "${host_json[@]}" $force) || exit 1
addresses= clients_max= subscriptions=
eval "$plan"
echo "server: $shards shards on cores $server_cores; load: $addresses source addresses, on cores $load_cores" >&2
if [[ $check == yes ]]; then exit 0; fi

# Ten seconds, the default, are for servers with fewer clients. Everything else that clients notice is at its default.
server_flags=(--app relay --shards "$shards" --connections-per-address-max 0 --clients-max "$clients_max"
    --clients-subs-total "$subscriptions" --shutdown-timeout 60s)
load_flags=(--connections "$connections" --rooms "$rooms" --sources "$addresses"
    --pingers "$((connections < 1000 ? connections : 1000))" ${connect_rate:+--connect-rate "$connect_rate"})
life=0 starts=0 load_pid= sampler_pid= completed=
started=$(date +%s.%N)

# report STEPS: writes the report of these steps. The exit code is 1 if a client failed because of the server.
report() {
    printf '{"connections": %s, "rooms": %s, "hold_s": %s, "seconds": %s, "churn": %s, "shards": %s, "addresses": %s,
 "server_cores": "%s", "load_cores": "%s", "steps": "%s", "server": "%s", "load": "%s", "started": %s, "ended": %s}\n' \
        "$connections" "$rooms" "$hold" "$seconds" "$churn" "$shards" "$addresses" "$server_cores" "$load_cores" \
        "${1# }" "${server_flags[*]}" "${load_flags[*]}" "$started" "$(date +%s.%N)" >"$out/run.json"
    scripts/million_table.py report "$out" | tee "$out/table.md"
    return "${PIPESTATUS[0]}"
}

# Ends everything, and waits until it has ended. If the run was cut short, the steps that were completed are reported.
cleanup() {
    local pid
    for pid in $sampler_pid $load_pid; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    stop_server
    if [[ -n $completed ]]; then
        echo "million.sh: the run was cut short; these steps were completed:$completed" >&2
        report "$completed" || true
    fi
}
trap cleanup EXIT
# A write to a load that has ended fails, and does not end the script before it has cleaned up.
trap : PIPE

fail() {
    echo "million.sh: $1" >&2
    exit 1
}

# The longest wait until a server is ready, in seconds. The kernel needs 50 us and more to close each connection of a killed one.
start_seconds_max=300

# Starts a server, whose log is OUT/server.LIFE.log, and waits until it is ready. Fails if it ends before that.
try_start() {
    start_server "$out/server.out" "$out/server.$life.log" taskset -c "$server_cores" "$bin/quickio" "${server_flags[@]}" \
        --listen "127.0.0.1:$port" --admin "127.0.0.1:$((port + 1))"
    echo "$server_pid" >"$out/server.pid"
    until wait_for_server grep -qx ready "$out/server.out"; do
        if ! kill -0 "$server_pid" 2>/dev/null; then server_pid= && return 1; fi
        if [[ $((SECONDS - $1)) -gt $start_seconds_max ]]; then fail "the server does not get ready"; fi
    done
}

# start once|again: starts a server. The kernel closes the sockets of a killed one in the background, and its address is in use
# until then. The server waits for that, but not for ever: like a service manager, the script tries again.
start() {
    local began=$SECONDS
    life=$((life + 1)) starts=1
    until try_start "$began"; do
        if [[ $1 == once || $((SECONDS - began)) -gt $start_seconds_max ]]; then
            fail "the server did not start: $(cat "$out/server.$life.log")"
        fi
        sleep 0.1
        starts=$((starts + 1))
    done
}

# measure NAME: writes OUT/NAME.measure.json.
measure() {
    python3 scripts/lib/million_measure.py snapshot "$server_pid" "$load_pid" "http://127.0.0.1:$((port + 1))" \
        "$out/$1.measure.json"
}

# tell LINE: tells the load to begin a step.
tell() {
    { echo "$1" >&"$to_load"; } 2>/dev/null || fail "the load has ended"
}

# hear MEMBER FILE: waits for a line of the load with this member of a JSON object, and writes it to FILE.
hear() {
    local line
    while IFS= read -r line <&"$from_load"; do
        case $line in *"\"$1\":"*) printf '%s\n' "$line" >"$2" && return ;; esac
    done
    fail "the load ended before it had told the result of a step"
}

# moments NAME VALUE...: writes what the script itself has seen as JSON: times in seconds since the epoch, and counts.
moments() {
    local members
    members=$(printf '"%s": %s, ' "$@")
    printf '{%s}\n' "${members%, }" >"$out/$step.moments.json"
}

# end_server SIGNAL: ends the server, and sets `signalled` and `ended`, the times of the signal and of the end, and
# `exit_code`.
end_server() {
    exit_code=0
    signalled=$(date +%s.%N)
    kill "-$1" "$server_pid"
    wait "$server_pid" 2>/dev/null || exit_code=$?
    server_pid=
    ended=$(date +%s.%N)
}

step_return() {
    tell return
    hear ready /dev/null
    end_server KILL
    start again
    moments killed "$signalled" ended "$ended" ready "$(date +%s.%N)" exit_code "$exit_code" starts "$starts"
}

step_stop() {
    tell stop
    hear ready /dev/null
    end_server TERM
    moments told "$signalled" ended "$ended" exit_code "$exit_code"
}

start once
coproc LOAD {
    exec taskset -c "$load_cores" "$bin/quickio-load" million --server "127.0.0.1:$port" "${load_flags[@]}"
}
load_pid=$LOAD_PID from_load=${LOAD[0]} to_load=${LOAD[1]}
python3 scripts/lib/million_measure.py sample $$ "$out/server.pid" "$load_pid" "$reserve" "$out/samples.jsonl" &
sampler_pid=$!
sleep 1
measure start
for step in $steps; do
    echo "== $step" >&2
    case $step in
    hold) tell "hold $hold" ;;
    rooms) tell "rooms $seconds 1" ;;
    churn) tell "rooms $seconds 1 $churn" ;;
    return) step_return ;;
    stop) step_stop ;;
    *) tell "$step" ;;
    esac
    hear step "$out/$step.load.json"
    if [[ $step != stop ]]; then measure "$step"; fi
    completed="$completed $step"
done
kill "$sampler_pid" && sampler_pid=
# At the end of its input the load closes what is still open, and ends.
exec {to_load}>&-
wait "$load_pid" || fail "the load ended with exit code $?"
load_pid= completed=
stop_server
report "$steps"
