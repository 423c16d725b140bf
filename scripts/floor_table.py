#!/usr/bin/env python3
"""Prints the table of scripts/floor.sh in Markdown: medians over the runs, and ratios. Writes OUT/floor.json."""

import json
import os
import platform
import statistics
import sys

CASES = [
    ("single", "fan-out of 64 bytes to 1,000 subscribers, one message a turn", 1.15),
    ("burst20", "the same in bursts of 20", None),
    ("ping", "ping over 200 connections", 1.2),
    ("connect", "a connection that is opened, greeted and closed, one at a time", None),
    ("storm", "the same with 1,000 at a time", None),
]
CONNECTIONS = ("connect", "storm")
CONNECT_US = 60
CONNECT_ABOVE_FLOOR_US = 30
BURST_PART = 0.1
NAMES = {"floor": "floor", "quickio": "QuickIO", "ws": "ws on Node"}


def runs(out, case, which):
    """Returns the load generator's reports of all rounds of one case, or an empty list if there are none."""
    folder = os.path.join(out, "runs")
    names = sorted(n for n in os.listdir(folder) if n.startswith(f"{case}.{which}."))
    return [json.load(open(os.path.join(folder, n), encoding="utf-8")) for n in names]


def medians(reports):
    each = [r["server"]["cpu_us_each_message"] for r in reports]
    result = {part: statistics.median(e[part] for e in each) for part in ("user", "system", "total")}
    result["totals"] = [e["total"] for e in each]
    result["rate"] = statistics.median(r["measured"]["rate"] for r in reports)
    result["load_busy"] = max(r["load"]["busy"] for r in reports)
    result["went_well"] = all(r["went_well"] for r in reports)
    return result


def row(name, m):
    spread = f"{min(m['totals']):.3f} to {max(m['totals']):.3f}"
    note = "" if m["went_well"] else " (with errors)"
    return f"| {name}{note} | {m['user']:.3f} | {m['system']:.3f} | {m['total']:.3f} | {spread} | {m['rate']:,.0f} |"


def main():
    out = sys.argv[1]
    result, verdicts = {"kernel": platform.release()}, []
    lines = ["| CPU us for each message | user | system | total | from, to | messages/s |", "| --- " * 6 + "|"]
    for case, title, allowed in CASES:
        reports = {which: runs(out, case, which) for which in ("floor", "quickio", "ws")}
        found = {which: medians(r) for which, r in reports.items() if r}
        lines += [row(f"{title}: {NAMES[which]}", m) for which, m in found.items()]
        # Floor and server of one round ran directly after each other: their ratios are less noisy than the ratio of medians.
        ratios = [s / f for s, f in zip(found["quickio"]["totals"], found["floor"]["totals"])]
        ratio = statistics.median(ratios)
        result[case] = {"title": title, "ratio": ratio, "ratios": ratios, "allowed": allowed, **found}
        spread = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} rounds"
        verdicts.append(f"- {title}: server / floor = {ratio:.3f}, {spread}{verdict(ratio, allowed)}")
        if case in CONNECTIONS:
            verdicts += connect_verdicts(result[case])
    part = result["burst20"]["quickio"]["total"] / result["single"]["quickio"]["total"]
    result["burst_part"] = {"ratio": part, "allowed": BURST_PART}
    verdicts.append(f"- each message of a burst of 20 / the single one = {part:.3f}{verdict(part, BURST_PART)}")
    with open(os.path.join(out, "floor.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
    print("\n".join(lines + [""] + verdicts))


def connect_verdicts(case):
    """Adds the CPU time of a connection above the floor to its result; returns the lines about it."""
    pairs = zip(case["quickio"]["totals"], case["floor"]["totals"])
    total, above = case["quickio"]["total"], statistics.median(server - floor for server, floor in pairs)
    case["above_floor"] = above
    return [
        f"  - CPU us of the server: {total:.1f}{verdict(total, CONNECT_US)}",
        f"  - CPU us above the floor: {above:.1f}{verdict(above, CONNECT_ABOVE_FLOOR_US)}",
    ]


def verdict(ratio, allowed):
    return "" if allowed is None else f" (at most {allowed}: {'met' if ratio <= allowed else 'MISSED'})"


main()
