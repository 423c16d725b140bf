#!/usr/bin/env bash
# Builds scripts/baseline_uws.cpp with uWebSockets, with the flags of its own makefiles (epoll, -O3, -march=native, LTO).
#
#     scripts/baseline_uws.sh [DIRECTORY]        # default: target/uws; the program is DIRECTORY/baseline_uws
#
# The sources of uWebSockets are those that the crate libuwebsockets-sys contains, fetched by cargo. Neither the server nor
# its tests depend on the crate; nothing of it but these sources is used. Needs a C and a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-target/uws} version=0.0.10
if [[ $out == -h || $out == --help ]]; then sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0; fi
program=$out/baseline_uws
if [[ $program -nt scripts/baseline_uws.cpp ]]; then exit 0; fi

if [[ ! -d $out/vendor/libuwebsockets-sys ]]; then
    mkdir -p "$out/fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n\n[dependencies]\nlibuwebsockets-sys = "=%s"\n\n[workspace]\n' \
        "$version" >"$out/fetch/Cargo.toml"
    : >"$out/fetch/src/lib.rs"
    cargo vendor --quiet --manifest-path "$out/fetch/Cargo.toml" "$out/vendor" >/dev/null
fi
sources=$out/vendor/libuwebsockets-sys/uWebSockets
objects=$out/objects
mkdir -p "$objects"
for source in "$sources"/uSockets/src/*.c "$sources"/uSockets/src/eventing/*.c "$sources"/uSockets/src/crypto/*.c; do
    "${CC:-cc}" -std=c11 -w -O3 -flto -march=native -DLIBUS_NO_SSL -I"$sources/uSockets/src" -c "$source" \
        -o "$objects/$(basename "$source").o"
done
"${CXX:-c++}" -std=c++20 -w -O3 -flto -march=native -DLIBUS_NO_SSL -DUWS_NO_ZLIB -I"$sources/src" \
    -I"$sources/uSockets/src" scripts/baseline_uws.cpp "$objects"/*.o -o "$program" 2>"$out/link.log" || { cat "$out/link.log" >&2; exit 1; }
