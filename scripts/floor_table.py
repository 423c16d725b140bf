#!/usr/bin/env python3
"""Makes the table of scripts/floor.sh: medians over the runs, and ratios. Writes OUT/floor.json, prints Markdown."""

import json
import os
import platform
import statistics
import sys

CASES = [
    ("single", "fan-out of 64 bytes to 1,000 subscribers, one message a turn", 1.15),
    ("burst20", "the same in bursts of 20", None),
    ("ping", "ping over 200 connections", 1.2),
]
BURST_PART = 0.1


def runs(out, case, which):
    """The load generator's reports of all rounds of one case."""
    folder = os.path.join(out, "runs")
    names = sorted(n for n in os.listdir(folder) if n.startswith(f"{case}.{which}."))
    reports = [json.load(open(os.path.join(folder, n), encoding="utf-8")) for n in names]
    if not reports:
        sys.exit(f"floor_table.py: no runs of {case} with {which} in {folder}")
    return reports


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
    result, lines, verdicts = {}, [], []
    lines += ["| CPU us for each message | user | system | total | from, to | messages/s |", "| --- | --- | --- | --- | --- | --- |"]
    for case, title, allowed in CASES:
        floor, server = (medians(runs(out, case, which)) for which in ("floor", "websocket"))
        # Floor and server of one round ran one after the other: their ratio is less noisy than that of medians.
        ratio = statistics.median(s / f for s, f in zip(server["totals"], floor["totals"]))
        result[case] = {"title": title, "floor": floor, "server": server, "ratio": ratio, "allowed": allowed}
        lines += [row(f"{title}: floor", floor), row(f"{title}: server", server)]
        wanted = "" if allowed is None else f" (at most {allowed}: {'met' if ratio <= allowed else 'MISSED'})"
        verdicts.append(f"- {title}: server / floor = {ratio:.3f}{wanted}")
    part = result["burst20"]["server"]["total"] / result["single"]["server"]["total"]
    result["burst_part"] = {"ratio": part, "allowed": BURST_PART}
    verdict = "met" if part <= BURST_PART else "MISSED"
    verdicts.append(f"- each message of a burst of 20 / the single one = {part:.4f} (at most {BURST_PART}: {verdict})")
    result["kernel"] = platform.release()
    with open(os.path.join(out, "floor.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
    print("\n".join(lines + [""] + verdicts))


main()
