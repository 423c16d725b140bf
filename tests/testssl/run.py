#!/usr/bin/env python3
"""Runs testssl.sh against a server and compares its findings with what must be true.

usage: run.py HOST:PORT FOLDER

The server must have the certificate tests/certificates/server.pem and the default settings of TLS. FOLDER gets the
report. Ends with one line `testssl: N passed, N failed`; exits 1 if a finding is missing or differs.
"""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent

# Protocols, forward secrecy, preferences, defaults, headers, known vulnerabilities, and simulated clients. Each cipher
# alone (-e) tells nothing beyond the categories (-s) and preferences (-P).
TESTS = ["-p", "-s", "-f", "-P", "-S", "-h", "-U", "-c"]

SUITES_12 = "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305"
SUITES_13 = "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256"

# The findings, by the beginnings of their texts.
EXPECTED = {
    "SSLv2": "not offered",
    "SSLv3": "not offered",
    "TLS1": "not offered",
    "TLS1_1": "not offered",
    "TLS1_2": "offered",
    "TLS1_3": "offered with final",
    "NPN": "not offered",
    "ALPN": "http/1.1",
    "cipherlist_NULL": "not offered",
    "cipherlist_aNULL": "not offered",
    "cipherlist_EXPORT": "not offered",
    "cipherlist_LOW": "not offered",
    "cipherlist_3DES_IDEA": "not offered",
    "cipherlist_AVERAGE": "not offered",
    "cipherlist_STRONG": "offered",
    "PFS": "offered",
    "cipher_order": "server",
    "protocol_negotiated": "Default protocol TLS1.3",
    "cipher_negotiated": "TLS_AES_128_GCM_SHA256",
    "cipherorder_TLSv1_2": SUITES_12,
    "cipherorder_TLSv1_3": SUITES_13,
    "TLS_session_ticket": "valid for 43200 seconds",
    "sessionresumption_ticket": "supported",
    "sessionresumption_ID": "not supported",
    "TLS_timestamp": "random",
    "cert_trust": "Ok via SAN",
    "cert_chain_of_trust": "passed",
    "HTTP_status_code": "200 OK",
    "X-Content-Type-Options": "nosniff",
    "heartbleed": "not vulnerable",
    "CCS": "not vulnerable",
    "ticketbleed": "not vulnerable",
    "ROBOT": "not vulnerable",
    "secure_renego": "supported",
    "secure_client_renego": "not vulnerable",
    "CRIME_TLS": "not vulnerable",
    "BREACH": "not vulnerable",
    "POODLE_SSL": "not vulnerable",
    "fallback_SCSV": "no protocol below TLS 1.2 offered",
    "SWEET32": "not vulnerable",
    "FREAK": "not vulnerable",
    "DROWN": "not vulnerable",
    "LOGJAM": "not vulnerable",
    "BEAST": "not vulnerable",
    "LUCKY13": "not vulnerable",
    "RC4": "not vulnerable",
    "clientsimulation-chrome_101_win10": "TLSv1.3 TLS_AES_128_GCM_SHA256",
    "clientsimulation-firefox_100_win10": "TLSv1.3 TLS_AES_128_GCM_SHA256",
    "clientsimulation-safari_154_osx_1231": "TLSv1.3 TLS_AES_128_GCM_SHA256",
    "clientsimulation-android_60": "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256",
    "clientsimulation-java_8u161": "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256",
    "clientsimulation-ie_8_win7": "No connection",
}

# A finding that testssl.sh may fail to make: it has `openssl s_client` end at once, perhaps before the session ticket has
# arrived. Then the server's defaults are tested again, up to so many times.
RACE, RACES_MAX = "sessionresumption_ticket", 10

# Findings that testssl.sh does not like, and why they are so.
ACCEPTED = {
    "engine_problem": "the OpenSSL of the tester has no GOST",
    "cert_validityPeriod": "the certificate of the tests is valid for 100 years",
    "cert_revocation": "the authority of the tests revokes nothing",
    "HSTS": "the operator's decision: it concerns everything on the host, not only this server",
}


def run(address, report, tests):
    report.unlink(missing_ok=True)
    authority = HERE.parent / "certificates" / "ca.pem"
    command = ["testssl", "--color", "0", "--quiet", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1"]
    command += [*tests, "--jsonfile", str(report), address]
    # The exit code is the number of findings of testssl.sh, which are judged here.
    subprocess.run(command, env={**os.environ, "ADDITIONAL_CA_FILES": str(authority)}, timeout=900)
    return json.loads(report.read_text(encoding="utf-8"))


def find(address, report):
    """Returns the findings by their names."""
    found = {finding["id"]: finding for finding in run(address, report, TESTS)}
    for _ in range(RACES_MAX):
        if not found.get(RACE, {"finding": ""})["finding"].startswith("check failed"):
            break
        found |= {finding["id"]: finding for finding in run(address, report, ["-S"]) if finding["id"] == RACE}
    return found


def failures(found):
    """Says what is wrong with each finding."""
    for name, expected in EXPECTED.items():
        text = found[name]["finding"] if name in found else "nothing"
        if not text.startswith(expected):
            yield f"{name}: expected {expected!r}, found {text!r}"
    for name, finding in found.items():
        if finding["severity"] not in ("OK", "INFO") and name not in ACCEPTED and name not in EXPECTED:
            yield f"{name}: {finding['severity']}: {finding['finding']}"


def main():
    address, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    failed = list(failures(find(address, folder / "testssl.json")))
    for line in failed:
        print("  falls short:", line)
    print(f"testssl: {max(len(EXPECTED) - len(failed), 0)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
