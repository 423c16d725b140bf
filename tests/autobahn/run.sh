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
# The 216 cases about compression (12 and 13) exchange 1,000 messages each, of up to 128 KiB. Those that run by default are
# one of each size (12), and for each kind of offer a short, a long and a fragmented message (13).
default=$(printf '"%s", ' {1,2,3,4,5,6,7,9,10}.'*' \
    12.{1.1,2.2,3.3,4.4,5.5,1.6,2.7,3.8,4.9,5.10,1.11,2.12,3.13,4.14,5.15,1.16,2.17,3.18} \
    13.{1,2,3,4,5,6,7}.{3,6,11})
cases=${AUTOBAHN_CASES:-"[${default%, }]"}

cat >"$folder/spec.json" <<J
{ "outdir": "$folder/report",
  "servers": [ {"agent": "quickio", "url": "$url", "options": {"version": 18}} ],
  "cases": $cases, "exclude-cases": [], "exclude-agent-cases": {} }
J
rm -rf "$folder/report"
"$folder/venv/bin/wstest" -m fuzzingclient -s "$folder/spec.json" >"$folder/wstest.log" 2>&1 || {
    tail -n 20 "$folder/wstest.log" >&2
    exit 2
}
python3 "$here/compare.py" "$folder/report/index.json" "$here/expected.txt" ${update:+"$update"}
