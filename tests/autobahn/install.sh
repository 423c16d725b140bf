#!/usr/bin/env bash
# Installs the Autobahn WebSocket test suite into the folder $1, in versions that are pinned.
#
# The suite needs Python 2.7, which Debian has no longer: it is looked for among pyenv's versions and on the
# PATH. Exits 3 where there is none, so that the caller can say that the suite was not run.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
to=${1:?usage: install.sh FOLDER}
stamp=$to/installed
if [[ -f $stamp ]] && cmp -s "$here/requirements.txt" "$stamp"; then exit 0; fi

python=
for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7 "$(command -v python2.7 || true)"; do
    # A pyenv shim is found on the PATH also where its version is not chosen: only one that runs counts.
    if [[ -n $candidate && -x $candidate ]] && "$candidate" -c '' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [[ -z $python ]]; then
    echo "no Python 2.7 was found (pyenv's versions, PATH): the Autobahn suite cannot run" >&2
    exit 3
fi

rm -rf "$to"
mkdir -p "$to"
# The last virtualenv that makes Python 2.7 environments lives in an environment of its own.
python3 -m venv "$to/tool"
"$to/tool/bin/pip" -q install 'virtualenv==20.15.1'
"$to/tool/bin/virtualenv" -q -p "$python" "$to/venv"
"$to/venv/bin/pip" -q install --no-deps -r "$here/requirements.txt" 2>"$to/pip.log" || {
    tail -n 20 "$to/pip.log" >&2
    exit 2
}
"$to/venv/bin/wstest" --help >/dev/null
cp "$here/requirements.txt" "$stamp"
