#!/usr/bin/env bash
# Runs the Autobahn fuzzing client against a WebSocket echo server and compares its results with the committed ones.
#
# usage: run.sh FOLDER URL [--update]
#
# FOLDER is where install.sh installed the suite; the reports for people are FOLDER/report/*/index.html. The cases run in
# parts at the same time, because the suite uses only one core.
# Ends with one line `autobahn: N passed, N failed`; exits 1 where a case did worse than tests/autobahn/expected.txt
# says. --update writes that file anew from this run. AUTOBAHN_CASES (JSON, e.g. '["7.*"]') runs fewer cases.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: run.sh FOLDER URL [--update]}
url=${2:?usage: run.sh FOLDER URL [--update]}
update=${3:-}
# The 216 cases about compression (12 and 13) exchange 1,000 messages each, of up to 128 KiB.
parts=('["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]' '["12.*"]' '["13.*"]')
if [[ -n ${AUTOBAHN_CASES:-} ]]; then parts=("$AUTOBAHN_CASES"); fi

# run_part NUMBER CASES
run_part() {
    local spec=$folder/part-$1.json log=$folder/part-$1.log
    cat >"$spec" <<J
{ "outdir": "$folder/report/$1",
  "servers": [ {"agent": "quickio", "url": "$url", "options": {"version": 18}} ],
  "cases": $2, "exclude-cases": [], "exclude-agent-cases": {} }
J
    "$folder/venv/bin/wstest" -m fuzzingclient -s "$spec" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        return 2
    }
}

rm -rf "$folder/report"
mkdir -p "$folder/report"
running=()
for number in "${!parts[@]}"; do
    run_part "$number" "${parts[number]}" &
    running+=($!)
done
for part in "${running[@]}"; do
    wait "$part" || exit 2
done
python3 "$here/compare.py" "$folder/report" "$here/expected.txt" ${update:+"$update"}
