#!/usr/bin/env bash
# Makes the certificates of the tests again: tests/certificates/make.sh. They are valid for 100 years, except for the one
# that has expired. The keys are in the tree: they protect nothing.
#
#     ca         the authority of all but `stranger`
#     server     P-256, for localhost, quickio.example, 127.0.0.1 and ::1
#     other      P-256, for other.example and *.wild.example
#     rsa        RSA-2048, for the names of `server`
#     rsa4096    RSA-4096, for the names of `server`
#     p384       P-384, for the names of `server`
#     expired    P-256, for localhost, until 2020
#     client     P-256, a client named alice
#     stranger   P-256, a client named mallory, signed by itself
set -euo pipefail
cd "$(dirname "$0")"

names=DNS:localhost,DNS:quickio.example,IP:127.0.0.1,IP:::1
as_server='basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName='
as_client='basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n'

# Makes a key: NAME, and the name of a curve or the size of an RSA key.
key() {
    case ${2:-P-256} in
    P-*) openssl genpkey -quiet -algorithm EC -pkeyopt "ec_paramgen_curve:${2:-P-256}" -out "$1.key" ;;
    *) openssl genpkey -quiet -algorithm RSA -pkeyopt "rsa_keygen_bits:$2" -out "$1.key" ;;
    esac
}

# Makes a key and its certificate, signed by the authority: NAME SUBJECT EXTENSIONS [CURVE or SIZE].
signed() {
    key "$1" "${4:-}"
    openssl req -new -key "$1.key" -subj "$2" -out request.tmp
    openssl x509 -req -in request.tmp -CA ca.pem -CAkey ca.key -days 36500 -extfile <(printf '%b' "$3") -out "$1.pem"
    rm request.tmp
}

key ca
openssl req -x509 -key ca.key -subj "/O=QuickIO tests/CN=authority" -days 36500 -out ca.pem \
    -addext keyUsage=keyCertSign,cRLSign
signed server "/O=QuickIO tests/CN=quickio.example" "$as_server$names"
signed other "/O=QuickIO tests/CN=other.example" "${as_server}DNS:other.example,DNS:*.wild.example"
signed rsa "/O=QuickIO tests/CN=quickio.example" "$as_server$names" 2048
signed rsa4096 "/O=QuickIO tests/CN=quickio.example" "$as_server$names" 4096
signed p384 "/O=QuickIO tests/CN=quickio.example" "$as_server$names" P-384
signed client "/O=QuickIO tests/CN=alice" "$as_client"
key stranger
openssl req -x509 -key stranger.key -subj "/O=QuickIO tests/CN=mallory" -days 36500 -out stranger.pem \
    -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth

# `openssl x509` of OpenSSL 3.0 knows only a number of days from now, and `openssl ca` needs a folder for its state.
key expired
work=$(mktemp -d)
touch "$work/index"
printf '[ca]\ndefault_ca=it\n[it]\ndatabase=%s/index\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\nO=optional\nCN=supplied\n' "$work" "$work" >"$work/config"
printf '%b' "${as_server}DNS:localhost" >"$work/extensions"
openssl req -new -key expired.key -subj "/O=QuickIO tests/CN=localhost" -out "$work/request"
openssl ca -batch -notext -config "$work/config" -cert ca.pem -keyfile ca.key -in "$work/request" -out expired.pem \
    -startdate 20190101000000Z -enddate 20200101000000Z -extfile "$work/extensions" 2>/dev/null
rm -r "$work"
