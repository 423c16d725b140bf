#!/usr/bin/env bash
# Installs the programs that the tests need, and runs all tests.
#
#   scripts/test.sh [--quick] [--no-rust] [--no-clients] [--no-browser] [--no-tls] [--no-benches] [--no-autobahn] [--no-fuzz]
#                   [--update-autobahn]
#
# The parts are rust (all tests of the crate), clients (real clients in Python and Node, the client library in Node, the
# worker libraries and their types, the server API and its description), browser (the client library and the page in
# Chromium), tls (testssl.sh), benches, autobahn, and fuzz (a few seconds of each target of scripts/fuzz.sh).
#
#   --quick             skips the benches, and Autobahn and the fuzz targets, which need optimized builds
#   --no-PART           skips that part
#   --update-autobahn   replaces tests/autobahn/expected.txt with the results of this run
#
# Programs are installed under target/ and in node_modules of tests/clients/node,
# tests/clients/package and tests/browser. Packages of the
# system (gcc, g++, fp-compiler, perl, golang, a JDK, nginx, haproxy, curl, zsh, fish, mandoc, groff, tmux, openssl, php-cli, ruby,
# python3, python3-venv, nodejs, npm, chromium, testssl.sh) are installed only if they are missing. The last line is
# `N passed, N failed`; the exit code is 0 if nothing failed.
set -euo pipefail

cd "$(dirname "$0")/.."
source scripts/lib/server.sh

readonly tools=$PWD/target/test-tools
readonly logs=$PWD/target/test-logs

rust=yes clients=yes browser=yes tls=yes benches=yes autobahn=yes fuzz=yes update=
passed=0 failed=0

main() {
    read_flags "$@"
    mkdir -p "$tools" "$logs"
    if [[ $rust == yes ]]; then test_rust; fi
    if [[ $clients == yes ]]; then test_clients; fi
    if [[ $browser == yes ]]; then test_browser; fi
    if [[ $tls == yes ]]; then test_tls; fi
    if [[ $benches == yes ]]; then test_benches; fi
    if [[ $autobahn == yes ]]; then test_autobahn; fi
    if [[ $fuzz == yes ]]; then test_fuzz; fi
    echo "$passed passed, $failed failed"
    [[ $failed -eq 0 ]]
}

read_flags() {
    local flag
    for flag in "$@"; do
        case $flag in
        --quick) benches=no autobahn=no fuzz=no ;;
        --no-rust) rust=no ;;
        --no-clients) clients=no ;;
        --no-browser) browser=no ;;
        --no-tls) tls=no ;;
        --no-benches) benches=no ;;
        --no-autobahn) autobahn=no ;;
        --no-fuzz) fuzz=no ;;
        --update-autobahn) update=--update ;;
        *)
            echo "test.sh: unknown flag: $flag (see the first lines of $0)" >&2
            exit 2
            ;;
        esac
    done
}

heading() {
    printf '\n== %s\n' "$*"
}

# run NAME COMMAND...: runs a command, and shows its output and keeps it in $logs/NAME. Sets `code` to its exit code.
run() {
    local name=$1
    shift
    heading "$name: $*"
    code=0
    "$@" </dev/null 2>&1 | tee "$logs/$name" || code=$?
}

# sum NAME PATTERN: prints the sum of the numbers that the first group of the pattern matches in a log.
sum() {
    sed -nE "s/$2/\1/p" "$logs/$1" | awk '{ total += $1 } END { print total + 0 }'
}

# count NAME PASSED FAILED: adds the results of a run. A run that failed without a failed test (for example because it did
# not compile, or crashed) counts as one failure.
count() {
    local name=$1 good=$2 bad=$3
    if [[ $code -ne 0 && $bad -eq 0 ]]; then bad=1; fi
    if [[ $code -eq 0 && $good -eq 0 ]]; then
        echo "$name did not run any tests" >&2
        bad=1
    fi
    passed=$((passed + good)) failed=$((failed + bad))
}

count_libtest() {
    count "$1" "$(sum "$1" '.*test result: .* ([0-9]+) passed;.*')" "$(sum "$1" '.*test result: .* ([0-9]+) failed;.*')"
}

count_unittest() {
    local ran bad
    ran=$(sum "$1" 'Ran ([0-9]+) tests? in .*')
    bad=$(($(sum "$1" 'FAILED .*failures=([0-9]+).*') + $(sum "$1" 'FAILED .*errors=([0-9]+).*')))
    count "$1" $((ran - bad)) "$bad"
}

test_rust() {
    # The tests compile and run applications in other languages.
    install_packages gcc cc
    install_packages g++ c++
    install_packages fp-compiler fpc
    install_packages python3 python3
    install_packages nodejs node
    install_packages perl perl
    # The tests put proxies in front of the server.
    install_packages nginx nginx
    install_packages libnginx-mod-stream /usr/lib/nginx/modules/ngx_stream_module.so
    install_packages haproxy haproxy
    install_packages curl curl
    # Completions are tested in their shells, and the manual page in two formatters.
    install_packages zsh zsh
    install_packages fish fish
    install_packages mandoc mandoc
    install_packages groff /usr/share/groff/current/tmac/an.tmac
    install_packages tmux tmux
    install_packages openssl openssl
    # The tests run back ends, and clients of TLS.
    install_packages php-cli php
    install_packages ruby ruby
    install_packages golang-go go
    install_packages default-jdk-headless javac
    if cargo nextest --version >/dev/null 2>&1; then
        run rust cargo nextest run --no-fail-fast --color never
        count rust "$(sum rust '.*Summary .* ([0-9]+) passed.*')" "$(sum rust '.*Summary .* ([0-9]+) failed.*')"
    else
        run rust cargo test --quiet --lib --bins --tests --examples --no-fail-fast
        count_libtest rust
    fi
    run doc cargo test --quiet --doc
    count_libtest doc
}

# Runs real clients, each against a server of its own. The last test of each client shuts the server down.
test_clients() {
    install_python
    run build cargo build --quiet
    if [[ $code -ne 0 ]]; then
        failed=$((failed + 1))
        return
    fi
    if [[ -x $tools/venv/bin/python ]]; then
        start_test_server
        run python "$tools/venv/bin/python" tests/clients/python/client_test.py
        await_server_exit
        count_unittest python
    fi
    install_node tests/clients/node
    start_test_server
    run node node --test --test-reporter=tap tests/clients/node/client.test.js
    await_server_exit
    count node "$(sum node '# pass ([0-9]+)')" "$(sum node '# fail ([0-9]+)')"
    # The tests of the library start their own servers.
    run library node --test --test-reporter=tap tests/js/*.test.mjs
    count library "$(sum library '# pass ([0-9]+)')" "$(sum library '# fail ([0-9]+)')"
    install_node tests/clients/package
    run package node --test --test-reporter=tap tests/clients/package/package.test.mjs
    count package "$(sum package '# pass ([0-9]+)')" "$(sum package '# fail ([0-9]+)')"
    test_workers
    # The server API against its own description.
    run api tests/api/run.sh "$tools/api" "$PWD/target/debug/quickio"
    count api "$(sum api 'api: ([0-9]+) passed.*')" "$(sum api 'api: .* ([0-9]+) failed')"
}

# Runs the tests of the worker libraries against a simulated server, a worker that uses no library, and the type checkers.
test_workers() {
    run workers-python python3 -m unittest discover -s tests/workers/python
    count_unittest workers-python
    install_packages perl perl
    run workers-node node --test --test-reporter=tap tests/workers/node/*.test.mjs tests/workers/perl/*.test.mjs
    count workers-node "$(sum workers-node '# pass ([0-9]+)')" "$(sum workers-node '# fail ([0-9]+)')"
    run types-python env MYPYPATH=src/app/worker/python "$tools/venv/bin/mypy" --strict --warn-unused-ignores \
        --cache-dir "$tools/mypy" tests/workers/types/sample.py src/app/worker/python/quickio
    count types-python "$(sum types-python 'Success: no issues found in ([0-9]+) source files?')" 0
    run types-node tests/clients/node/node_modules/.bin/tsc -p tests/workers/types
    count types-node $((code == 0)) 0
    test_python_package
}

# Builds the Python package, installs it, and checks the types of an application that uses it as an editor would.
test_python_package() {
    local types=$tools/python-package
    rm -rf "$types" target/package/*.whl
    run package-python bash -ec "
        scripts/package.sh python
        python3 -m venv --without-pip '$types'
        '$tools/venv/bin/pip' -q --python '$types/bin/python' install --no-index --no-deps target/package/*.whl
        cp tests/workers/types/sample.py '$types/'
        '$tools/venv/bin/mypy' --strict --python-executable '$types/bin/python' --cache-dir '$tools/mypy-package' '$types/sample.py'
        '$tools/venv/bin/pyright' --pythonpath '$types/bin/python' '$types/sample.py'
        '$types/bin/python' -c 'import quickio; print(quickio.app)'"
    count package-python $((code == 0)) 0
}

# Runs the client library and the page in a real browser. Its tests start their own servers.
test_browser() {
    if ! install_packages chromium chromium || ! install_node tests/browser; then
        echo "**** FAILED: the tests in the browser need Debian's chromium and npm's playwright-core ****" >&2
        failed=$((failed + 1))
        return
    fi
    run build cargo build --quiet
    if [[ $code -ne 0 ]]; then
        failed=$((failed + 1))
        return
    fi
    run browser node tests/browser/run.mjs
    count browser "$(sum browser 'browser: ([0-9]+) passed.*')" "$(sum browser 'browser: .* ([0-9]+) failed')"
}

# Runs testssl.sh against a server with the default settings of TLS.
test_tls() {
    if ! install_packages testssl.sh testssl; then
        echo "**** FAILED: the tests of TLS need Debian's testssl.sh ****" >&2
        failed=$((failed + 1))
        return
    fi
    run build cargo build --quiet
    if [[ $code -ne 0 ]]; then
        failed=$((failed + 1))
        return
    fi
    start_server "$logs/tls.out" "$logs/tls.err" target/debug/quickio --listen tls://127.0.0.1:0 --admin off --app relay \
        --tls-cert tests/certificates/server.pem --tls-key tests/certificates/server.key
    if ! wait_for_server grep -qx ready "$logs/tls.out"; then
        echo "the server did not start:" >&2
        cat "$logs/tls.err" >&2
        stop_server
        failed=$((failed + 1))
        return
    fi
    local port
    port=$(sed -n 's/^listening on .*://p' "$logs/tls.out")
    run testssl tests/testssl/run.py "localhost:$port" "$logs"
    stop_server
    count testssl "$(sum testssl 'testssl: ([0-9]+) passed.*')" "$(sum testssl 'testssl: .* ([0-9]+) failed')"
}

start_test_server() {
    # The variables are for the tests: the server would reject them as unknown settings.
    start_server "$logs/server.out" "$logs/server.err" \
        env -u QUICKIO_ADDRESS -u QUICKIO_ADMIN -u QUICKIO_PID target/debug/quickio --shards 2 --app relay \
        --app clienttest --compression --clock manual --listen 127.0.0.1:0 --admin 127.0.0.1:0
    if ! wait_for_server grep -qx ready "$logs/server.out"; then
        echo "the server did not start:" >&2
        cat "$logs/server.err" >&2
        exit 1
    fi
    QUICKIO_ADDRESS=$(sed -n 's/^listening on //p' "$logs/server.out" | head -n 1)
    QUICKIO_ADMIN=$(sed -n 's/^admin on //p' "$logs/server.out")
    QUICKIO_PID=$server_pid
    export QUICKIO_ADDRESS QUICKIO_ADMIN QUICKIO_PID
}

# Waits until the server that the clients have shut down has ended. Its exit code must be 0.
await_server_exit() {
    local status=0 waited=0
    # Clients that failed may not have shut it down.
    if [[ $code -ne 0 ]]; then kill "$server_pid" 2>/dev/null || true; fi
    while kill -0 "$server_pid" 2>/dev/null; do
        if [[ $waited -gt 200 ]]; then kill -KILL "$server_pid"; fi
        waited=$((waited + 1))
        sleep 0.1
    done
    wait "$server_pid" || status=$?
    server_pid=
    unset QUICKIO_ADDRESS QUICKIO_ADMIN QUICKIO_PID
    if [[ $status -ne 0 ]]; then
        echo "the server exited with $status:" >&2
        cat "$logs/server.err" >&2
        code=1
    fi
}

# Runs each bench once, to check that it works. As a test it needs no optimized build, which would take minutes.
test_benches() {
    if ! compgen -G 'benches/*.rs' >/dev/null; then return; fi
    run benches cargo test --bench '*'
    count benches "$(grep -cE '^Success' "$logs/benches" || true)" 0
}

test_autobahn() {
    local folder=$PWD/target/autobahn status=0
    heading "autobahn: install"
    install_packages python3-venv python3
    tests/autobahn/install.sh "$folder" || status=$?
    if [[ $status -eq 3 ]]; then
        echo "**** SKIPPED: the Autobahn suite was not run; the reason is above ****" >&2
        return
    elif [[ $status -ne 0 ]]; then
        failed=$((failed + 1))
        return
    fi
    run echo-build cargo build --release --example echo
    if [[ $code -ne 0 ]]; then
        failed=$((failed + 1))
        return
    fi
    start_server "$logs/echo.out" "$logs/echo.err" target/release/examples/echo 127.0.0.1:0
    if ! wait_for_server grep -q '^listening on ' "$logs/echo.out"; then
        echo "the echo endpoint did not start:" >&2
        cat "$logs/echo.err" >&2
        stop_server
        failed=$((failed + 1))
        return
    fi
    local address
    address=$(sed -n 's/^listening on //p' "$logs/echo.out" | head -n 1)
    run autobahn tests/autobahn/run.sh "$folder" "ws://$address/echo" ${update:+"$update"}
    stop_server
    count autobahn "$(sum autobahn 'autobahn: ([0-9]+) passed.*')" "$(sum autobahn 'autobahn: .* ([0-9]+) failed')"
}

test_fuzz() {
    # libFuzzer is in C++.
    install_packages g++ c++
    run fuzz scripts/fuzz.sh --seconds 5
    if grep -q '^fuzz: SKIPPED' "$logs/fuzz"; then
        echo "**** SKIPPED: the fuzz targets were not run; the reason is above ****" >&2
        return
    fi
    count fuzz "$(sum fuzz 'fuzz: ([0-9]+) passed.*')" "$(sum fuzz 'fuzz: .* ([0-9]+) failed')"
}

# install_packages PACKAGE COMMAND: installs a Debian package if the command that it provides is missing.
install_packages() {
    local package=$1 command=$2
    if [[ $package == python3-venv ]] && python3 -c 'import ensurepip, venv' 2>/dev/null; then return; fi
    if [[ -f $command ]]; then return; fi
    # Without the package Debian has the command, but not most of its modules.
    if [[ $package == perl ]] && perl -MJSON::PP -e 1 2>/dev/null; then return; fi
    if [[ $package != python3-venv && $package != perl ]] && command -v "$command" >/dev/null; then return; fi
    heading "installing $package"
    local sudo=
    if [[ $(id -u) -ne 0 ]]; then sudo=sudo; fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q update || return
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$package"
}

install_python() {
    local wanted=tests/clients/python/requirements.txt stamp=$tools/venv/installed
    if [[ -f $stamp ]] && cmp -s "$wanted" "$stamp"; then return; fi
    install_packages python3-venv python3
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" -q install -r "$wanted"
    cp "$wanted" "$stamp"
}

# install_node FOLDER: installs the packages of a folder's package-lock.json. Fails if that is not possible.
install_node() {
    local folder=$1
    install_packages nodejs node || return
    install_packages npm npm || return
    local stamp=$folder/node_modules/.package-lock.json
    if [[ -f $stamp && ! $folder/package-lock.json -nt $stamp ]]; then return; fi
    (cd "$folder" && npm ci --no-audit --no-fund)
}

main "$@"
