#!/usr/bin/env python3
"""Prints the tables of scripts/apps.sh: medians of the runs in OUT/runs."""

import json
import pathlib
import statistics
import sys

LANGUAGES = ["rust", "c", "python", "python-plain", "node"]
NAMES = {
    "rust": "Rust",
    "c": "C",
    "python": "Python, `async def`",
    "python-plain": "Python, `def` (threads)",
    "node": "JavaScript",
}


def main():
    runs = pathlib.Path(sys.argv[1]) / "runs"

    def median(scenario, language, pick):
        files = sorted(runs.glob(f"{scenario}.{language}.*.json"))
        values = [pick(json.loads(file.read_text())) for file in files]
        return statistics.median(values) if values and None not in values else None

    table("One event through a handler that does nothing", "idle", "busy", "ping", median)
    print()
    table("A broadcast from a handler, to one subscriber", "broadcast-idle", "broadcast-busy", "delivery", median)


def table(title, idle, busy, latency, median):
    print(f"{title}:\n")
    print("| | events a second | server CPU us | worker CPU us | p50 us | p99 us | added p50 | added p99 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    first = None
    for language in LANGUAGES:
        rate = median(busy, language, lambda run: run["measured"]["rate"])
        if rate is None:
            continue
        server = median(busy, language, lambda run: run["server"]["cpu_us_each_message"]["total"])
        worker = median(busy, language, lambda run: (run["worker"]["cpu_us_each_message"] or {}).get("total"))
        p50, p99 = (
            median(idle, language, lambda run, which=which: run["latency_us"][latency][which]) for which in ("p50", "p99")
        )
        first = first or (p50, p99)
        added = ("", "") if language == "rust" else (f"{p50 - first[0]:.0f}", f"{p99 - first[1]:.0f}")
        worker = "" if worker is None else f"{worker:.2f}"
        print(
            f"| {NAMES[language]} | {rate:,.0f} | {server:.2f} | {worker} | {p50:.0f} | {p99:.0f} |"
            f" {added[0]} | {added[1]} |"
        )


main()
