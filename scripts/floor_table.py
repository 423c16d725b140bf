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
    ("paced", "fan-out of 64 bytes to 1,000 subscribers, 40 a second", None),
    ("churn", "connect, handshake, ping, close, 50 at a time", None),
]
CONNECTIONS = ("connect", "storm")
CONNECT_US = 60
CONNECT_ABOVE_FLOOR_US = 30
BURST_PART = 0.1
NAMES = {"floor": "floor", "quickio": "QuickIO", "ws": "ws on Node", "uws": "uWebSockets"}
TAIL_CASE = "paced"
PERCENTILES = ["p50", "p99", "p99.9", "max"]
# The highest p99.9 of deliveries, in multiples of their p50, beyond what the floor's p99.9 is above its p50.
TAIL = 2


def runs(out, case, which):
    """Returns the load generator's reports of all rounds of one case, or an empty list if there are none."""
    folder = os.path.join(out, "runs")
    names = sorted(n for n in os.listdir(folder) if n.startswith(f"{case}.{which}."))
    reports = [json.load(open(os.path.join(folder, n), encoding="utf-8")) for n in names]
    if any("measured" in r and not r["server"]["cpu_us_each_message"] for r in reports):
        sys.exit(f"floor_table.py: a run of {case} with {which} had no messages; see {folder}")
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


def tail(entries):
    return {p: statistics.median(e[p] for e in entries) for p in PERCENTILES}


def tails(out):
    """Returns the latencies of the paced case, medians over the rounds, by what measured them."""
    result = {}
    for which, name in NAMES.items():
        if reports := runs(out, TAIL_CASE, which):
            result[f"{name}: deliveries, measured by the load generator"] = tail([r["latency_us"]["delivery"] for r in reports])
    for timer in ("turn", "delivery"):
        if stats := runs(out, TAIL_CASE, "stats"):
            result[f"QuickIO: its own histogram `{timer}`"] = tail([s["timers"][timer] for s in stats])
    return result


def tail_verdicts(found):
    """Compares the tails of deliveries with the goals."""
    def of(which):
        return found.get(f"{NAMES[which]}: deliveries, measured by the load generator")

    quickio, floor, uws = of("quickio"), of("floor"), of("uws")
    verdicts = []
    if quickio and floor:
        allowed = TAIL * quickio["p50"] + floor["p99.9"] - floor["p50"]
        verdicts.append(f"- p99.9 of a delivery: {quickio['p99.9']:,.0f} us{verdict(quickio['p99.9'], round(allowed))}")
    if quickio and uws:
        verdicts.append(f"- p99 of a delivery: {quickio['p99']:,.0f} us{verdict(quickio['p99'], round(uws['p99']))}")
    return verdicts


def compare(found, name, other):
    """Returns the ratios of the costs of two contestants, by rounds, which ran directly after each other."""
    return [a / b for a, b in zip(found[name]["totals"], found[other]["totals"])]


def main():
    out = sys.argv[1]
    result, verdicts = {"kernel": platform.release()}, []
    lines = ["| CPU us for each message | user | system | total | from, to | messages/s |", "| --- " * 6 + "|"]
    for case, title, allowed in CASES:
        reports = {which: runs(out, case, which) for which in NAMES}
        found = {which: medians(r) for which, r in reports.items() if r}
        if not found:
            continue
        lines += [row(f"{title}: {NAMES[which]}", m) for which, m in found.items()]
        result[case] = {"title": title, "allowed": allowed, **found}
        for other in (o for o in found if o != "quickio"):
            ratios = compare(found, "quickio", other)
            result[case][f"ratio_to_{other}"] = statistics.median(ratios)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} rounds"
            limit = allowed if other == "floor" else None
            ratio = statistics.median(ratios)
            verdicts.append(f"- {title}: QuickIO / {NAMES[other]} = {ratio:.3f}, {spread}{verdict(ratio, limit)}")
        if case in CONNECTIONS:
            verdicts += connect_verdicts(result[case])
    if "burst20" in result and "single" in result:
        part = result["burst20"]["quickio"]["total"] / result["single"]["quickio"]["total"]
        result["burst_part"] = {"ratio": part, "allowed": BURST_PART}
        verdicts.append(f"- each message of a burst of 20 / the single one = {part:.3f}{verdict(part, BURST_PART)}")
    if found := tails(out):
        result["tails"] = found
        lines += ["", "| latency at 40 fan-outs a second, us | " + " | ".join(PERCENTILES) + " |", "| --- " * 5 + "|"]
        lines += [f"| {name} | " + " | ".join(f"{t[p]:,.0f}" for p in PERCENTILES) + " |" for name, t in found.items()]
        verdicts += tail_verdicts(found)
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
