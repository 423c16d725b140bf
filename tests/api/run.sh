#!/usr/bin/env bash
# Checks the server API against its own description, /openapi.json, with Schemathesis: requests that fit the description are
# accepted, others are refused, and all answers have the statuses and the forms that it names.
#
#   tests/api/run.sh FOLDER QUICKIO
#
# Schemathesis is installed into FOLDER, in versions that are pinned. QUICKIO is the program. Prints `api: N passed, M failed`,
# which are operations.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
to=${1:?usage: run.sh FOLDER QUICKIO}
program=${2:?usage: run.sh FOLDER QUICKIO}
if ! cmp -s "$here/requirements.txt" "$to/installed"; then
    rm -rf "$to"
    python3 -m venv "$to"
    "$to/bin/pip" -q install --no-deps -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$to/installed"
fi

work=$(mktemp -d)
server=
finish() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" || true
    fi
    rm -rf "$work"
}
trap finish EXIT
secret=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
(umask 077 && echo "$secret" >"$work/key")
cat >"$work/quickio.toml" <<SETTINGS
app = ["relay"]
listen = "127.0.0.1:0"
admin = "off"
api = "127.0.0.1:0"
shards = 2

[[api-keys]]
name = "tests"
secret-file = "$work/key"
scopes = ["broadcast", "send", "clients", "read"]

[[rules]]
path = "/**"
history = 10
SETTINGS
"$program" --config "$work/quickio.toml" </dev/null >"$work/out" 2>"$work/log" &
server=$!
for _ in $(seq 400); do
    if grep -qx ready "$work/out" || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.05
done
address=$(sed -n 's/^api on //p' "$work/out")
if [[ -z $address ]]; then
    cat "$work/log" >&2
    exit 1
fi
status=0
"$to/bin/schemathesis" --config-file "$here/schemathesis.toml" run "http://$address/openapi.json" --no-color \
    --header "Authorization: Bearer $secret" --max-examples 40 --generation-deterministic --continue-on-failure 2>&1 | tee "$work/report" || status=$?
tested=$(sed -nE 's/^  Tested: ([0-9]+)$/\1/p' "$work/report")
bad=$(grep -cE '^_+ (GET|POST) ' "$work/report" || true)
echo "api: $((${tested:-0} - bad)) passed, $bad failed"
exit "$status"
