#!/usr/bin/env bash
# Attacks a server from one address while honest clients use it, and checks that only the attacker suffers.
#
#     scripts/attack.sh [--seconds 10] [--settle 60] [--shards N] [--out target/attack] [--debug] [--skip-build]
#                       [--no-bounds] [ATTACK...]
#
# Each attack of examples/attack (by default all of them) gets a server of its own, with default settings. Beside the
# attack a hundred clients ping, a hundred subscribers receive broadcasts that are counted, and others connect, ping and
# close. The clients have other addresses than the attacker. Afterwards the same clients run beside a process that only
# uses as much CPU time as the attacker has used.
#
# Writes OUT/table.md with a row for each attack, and the measurements as JSON. The exit code is 1 if one of the bounds
# is exceeded, which scripts/attack_table.py lists with their reasons. A run takes about 90 s for each attack.
#
#   --settle S     the pause after an attack before the memory is measured again
#   --debug        attacks a debug build, which is for the tests of this script
#   --no-bounds    checks only that no honest client lost anything or was refused
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/server.sh

seconds=10 settle=60 shards= out=target/attack profile=release build=yes bounds=yes attacks=
while [[ $# -gt 0 ]]; do
    case $1 in
    --seconds) seconds=$2 && shift 2 ;;
    --settle) settle=$2 && shift 2 ;;
    --shards) shards=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --debug) profile=debug && shift ;;
    --skip-build) build=no && shift ;;
    --no-bounds) bounds=no && shift ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) echo "attack.sh: unknown flag: $1 (see --help)" >&2 && exit 2 ;;
    *) attacks="$attacks $1" && shift ;;
    esac
done

flags=
if [[ $profile == release ]]; then flags=--release; fi
if [[ $build == yes ]]; then cargo build $flags --bins --example attack; fi
bin=${CARGO_TARGET_DIR:-target}/$profile
known=$("$bin/examples/attack" --help | sed -nE 's/^  ([a-z-]+) +[0-9]+ .*/\1/p')
for attack in ${attacks:=$known}; do
    if ! grep -qx -- "$attack" <<<"$known"; then
        echo "attack.sh: no such attack: $attack (see $bin/examples/attack --help)" >&2
        exit 2
    fi
done
mkdir -p "$out"
rm -f "$out"/*.json
port=22400

# measure FILE: writes the memory and CPU time of the server, the size of its log, and its statistics as JSON.
measure() {
    python3 scripts/attack_table.py measure "$server_pid" "http://127.0.0.1:$((port + 1))/stats" "$log" >"$1"
}

# honest FILE SECONDS: runs the honest clients. The exit code is 1 if they lost anything, which FILE has too.
honest() {
    "$bin/quickio-load" mixed --server "127.0.0.1:$port" --event "$ping_event" --pingers 100 --subscribers 100 \
        --publishers 2 --churners 5 --idle 0 --slow 0 --ping-rate 500 --publish-rate 50 --churn-rate 20 \
        --seconds "$2" --drain 10 --quiet --json "$1" >"${1%.json}.txt" 2>&1 || true
}

# run ATTACK
run() {
    local attack=$1 apps="--app relay" cpu_seconds during
    ping_event=/qio/ping
    if [[ $attack == worker ]]; then
        apps="$apps --app examples/attack/attacked.py"
        ping_event=/echo
    fi
    port=$((port + 2))
    log=$out/$attack.log
    # shellcheck disable=SC2086 # The words of $apps are flags.
    start_server "$out/$attack.out" "$log" "$bin/quickio" $apps ${shards:+--shards "$shards"} \
        --listen "127.0.0.1:$port" --admin "127.0.0.1:$((port + 1))"
    if ! wait_for_server grep -qx ready "$out/$attack.out"; then
        echo "attack.sh: the server did not start:" >&2
        cat "$log" >&2
        exit 1
    fi
    echo "== $attack" >&2
    honest "$out/$attack.warmup.json" 1
    measure "$out/$attack.before.json"
    honest "$out/$attack.honest.json" "$seconds" &
    during=$!
    # The honest clients have connected and begin to be measured after a moment.
    sleep 1
    "$bin/examples/attack" "$attack" --server "127.0.0.1:$port" --seconds "$((seconds + 1))" >"$out/$attack.attack.json"
    wait "$during"
    measure "$out/$attack.after.json"
    sleep "$settle"
    measure "$out/$attack.later.json"
    cpu_seconds=$(sed -E 's/.*"cpu_seconds":([0-9.]+).*/\1/' "$out/$attack.attack.json")
    honest "$out/$attack.burn.json" "$seconds" &
    during=$!
    sleep 1
    "$bin/examples/attack" burn --cpu-seconds "$cpu_seconds" --seconds "$((seconds + 1))" >/dev/null
    wait "$during"
    stop_server
}

for attack in $attacks; do run "$attack"; done
scripts/attack_table.py table "$bin/quickio" "$out" "$bounds" $attacks | tee "$out/table.md"
exit "${PIPESTATUS[0]}"
