#!/usr/bin/env bash
# Runs the Autobahn fuzzing client against a WebSocket echo server and compares its results with the committed ones.
#
# usage: run.sh FOLDER URL [--update]
#
# FOLDER is where install.sh installed the suite; the report for people is FOLDER/report/index.html.
# Ends with one line `autobahn: N passed, N failed`; exits 1 where a case did worse than tests/autobahn/expected.txt
# says. --update writes that file anew from this run. AUTOBAHN_CASES (JSON, e.g. '["7.*"]') runs fewer cases.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: run.sh FOLDER URL [--update]}
url=${2:?usage: run.sh FOLDER URL [--update]}
update=${3:-}
cases=${AUTOBAHN_CASES:-'["*"]'}
# Cases 12 and 13, about compression, exchange 1,000 messages each, of up to 128 KiB. They run only if AUTOBAHN_CASES names
# them.
excluded='["12.*", "13.*"]'
if [[ -n ${AUTOBAHN_CASES:-} ]]; then excluded='[]'; fi

cat >"$folder/spec.json" <<J
{ "outdir": "$folder/report",
  "servers": [ {"agent": "quickio", "url": "$url", "options": {"version": 18}} ],
  "cases": $cases, "exclude-cases": $excluded, "exclude-agent-cases": {} }
J
rm -rf "$folder/report"
"$folder/venv/bin/wstest" -m fuzzingclient -s "$folder/spec.json" >"$folder/wstest.log" 2>&1 || {
    tail -n 20 "$folder/wstest.log" >&2
    exit 2
}
python3 "$here/compare.py" "$folder/report/index.json" "$here/expected.txt" ${update:+"$update"}
