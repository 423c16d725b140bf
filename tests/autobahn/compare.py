#!/usr/bin/env python3
"""Compares reports of the Autobahn suite with the committed results, case by case.

usage: compare.py REPORTS EXPECTED [--update]

REPORTS is a folder with the folder of a report for each part of the cases.

EXPECTED has a line for each case: its name, how the server behaved, how it closed. A case passes where it behaved
and closed as expected or better. A case that is missing, or that nobody expected, fails. If AUTOBAHN_CASES chose the
cases, only those are compared, and those that EXPECTED does not have must be OK.
"""

import json
import os
import sys

# From best to worst. What is not named here (FAILED, WRONG CODE, UNCLEAN, ...) is worse than all of it.
RANKS = {"OK": 0, "INFORMATIONAL": 0, "NON-STRICT": 1, "UNIMPLEMENTED": 2}


def rank(verdict):
    return RANKS.get(verdict, 3)


def order(name):
    return [int(part) for part in name.split(".")]


def read_reports(folder):
    cases = {}
    for part in sorted(os.listdir(folder)):
        with open(os.path.join(folder, part, "index.json"), encoding="utf-8") as file:
            (of_part,) = json.load(file).values()  # one agent
        cases.update(of_part)
    # Verdicts such as `WRONG CODE` are written without their space: a line has three words.
    return {
        name: tuple(case[key].replace(" ", "-") for key in ("behavior", "behaviorClose"))
        for name, case in cases.items()
    }


def read_expected(path):
    with open(path, encoding="utf-8") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    return {name: (behavior, closed) for name, behavior, closed in rows}


def write_expected(path, found):
    with open(path, "w", encoding="utf-8") as file:
        file.write("# Autobahn: case, behaviour, how it closed. Made by scripts/test.sh --update-autobahn.\n")
        for name in sorted(found, key=order):
            file.write(" ".join((name, *found[name])) + "\n")


def failures(found, expected, whole):
    """Says what is wrong with each case that fails."""
    for name in sorted(found.keys() | expected.keys(), key=order):
        if name not in found:
            if whole:
                yield f"{name}: was not run"
        elif name not in expected:
            if whole or max(map(rank, found[name])) > 0:
                yield f"{name}: {' '.join(found[name])}, a case that {os.path.basename(sys.argv[2])} does not have"
        elif any(rank(now) > rank(then) for now, then in zip(found[name], expected[name])):
            yield f"{name}: {' '.join(found[name])}, expected {' '.join(expected[name])}"


def main():
    found = read_reports(sys.argv[1])
    if "--update" in sys.argv[3:]:
        write_expected(sys.argv[2], found)
    failed = list(failures(found, read_expected(sys.argv[2]), "AUTOBAHN_CASES" not in os.environ))
    for line in failed:
        print("  falls short:", line)
    print(f"autobahn: {len(found) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
