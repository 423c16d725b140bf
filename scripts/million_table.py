#!/usr/bin/env python3
"""Prints the tables of scripts/million.sh.

    scripts/million_table.py report OUT
    scripts/million_table.py docs FILE...

The first form reads the measurements in the directory OUT, writes OUT/million.json and prints the tables of the run. Its exit code
is 1 if a client failed because of the server. The second one prints the tables of several runs side by side as Markdown, from their
million.json.
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import million_report  # noqa: E402, from scripts/lib

MIB = million_report.MIB


def number(value):
    """Returns a number with as many decimals as it needs for three digits, at most three."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    if abs(value) < 0.1:
        return f"{value:.3f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def mib(value):
    return f"{number(value / MIB)} MiB"


def latency(found, names=("p50", "p99", "p999", "max")):
    """Returns percentiles in milliseconds: `1.2, 3.4, 5.6, 7.8`."""
    return ", ".join(number(found.get(f"{name}_ms")) for name in names)


def some(found):
    """Returns the entries of a table of counts that are not 0: `2 timeout, 1 reset`."""
    return "; ".join(f"{count:,} {name}" for name, count in found.items() if count) or "none"


def connect_rows(step):
    load = step["load"]
    yield "connected", f"{load['connected']:,}"
    yield "failed", f"{load['failed']:,} ({some(load['failures'])})"
    yield "seconds; connects a second", f"{number(load['seconds'])}; {number(load['rate'])}"
    yield "time to open: p50, p99, p99.9, max, ms", latency(load["opened"])
    for name, text in (("tcp", "TCP"), ("upgrade", "upgrade"), ("hello", "hello"), ("subscriptions", "subscriptions")):
        yield f"its part {text}, ms", latency(load[name])
    shards = step["connections_of_shards"]
    yield "connections of a shard, fewest to most", f"{shards['fewest']:,} to {shards['most']:,}"
    yield "server CPU for each client, us (user)", each(step)


def hold_rows(step):
    load, memory = step["load"], step["memory"]
    yield "seconds", number(load["seconds"])
    yield "heartbeats; lost clients", f"{load['heartbeats']:,}; {load['lost']:,}"
    yield "resident bytes for each client, with all of the server", number(memory["resident_each"])
    yield "the same without the server before the first client", number(memory["resident_growth_each"])
    yield "server resident; at the peak", f"{mib(step['server']['resident'])}; {mib(step['server']['peak'])}"
    kernel = memory["kernel"]
    for kind, found in kernel["kinds"].items():
        name = million_report.SLAB_NAMES[kind]
        yield f"kernel, {name}: both ends; the server's", f"{mib(found['bytes'])}; {mib(found['server_bytes'])}"
    yield "kernel, all: both ends; the server's", f"{mib(kernel['bytes'])}; {mib(kernel['server_bytes'])}"
    yield "server and its side of the kernel", mib(memory["server_side"])


def broadcast_rows(step):
    load = step["load"]
    if "error" in load:
        yield "not published", load["error"]
        return
    yield "delivered of expected", f"{load['delivered']:,} of {load['expected']:,}"
    yield "delivery: first, p50, p99, p99.9, last, ms", latency(load, ("first", "p50", "p99", "p999", "last"))
    yield "pings meanwhile: p50, p99, p99.9, max, ms", latency(load["pings"])
    if "pings_before" in load:
        yield "pings before: p50, p99, p99.9, max, ms", latency(load["pings_before"])
    yield "server CPU for each delivery, us (user)", each(step)
    yield "sends meanwhile, with heartbeats and answers to pings", number(step["counters"].get("sends", 0))


def rooms_rows(step):
    load = step["load"]
    yield "published; delivered", f"{load['published']:,}; {load['delivered']:,}"
    yield "lost; duplicated", f"{load['lost']:,}; {load['duplicated']:,}"
    if load.get("unpublished"):
        yield "not published, because no member of the room was connected", f"{load['unpublished']:,}"
    yield "deliveries a second", number(load["deliveries_per_s"])
    yield "delivery: p50, p99, p99.9, max, ms", latency(load["latency"])
    yield "server CPU for each delivery, us (user)", each(step)


def churn_rows(step):
    yield from rooms_rows(step)
    load = step["load"]
    yield "closed and opened again; failed", f"{load['churned']:,}; {load['failed']:,}"
    if load.get("churn_skipped"):
        yield "not churned, because the client was still opening", f"{load['churn_skipped']:,}"
    yield "time to open: p50, p99, p99.9, max, ms", latency(load["opened"])


def return_rows(step):
    load, moments = step["load"], step["moments"]
    yield "connections lost; clients back", f"{load['lost']:,}; {load['back']:,}"
    yield "s from the kill: process ended; new server ready", " ; ".join(
        number(moments[name] - moments["killed"]) for name in ("ended", "ready")
    )
    yield "starts until the address was free", f"{moments['starts']:,}"
    yield "s from the first lost connection: 99 %; 100 % back", f"{number(load['seconds_to_99'])}; {number(load['seconds_to_100'])}"
    yield "attempts; of these refused", f"{load['attempts']:,}; {load['refusals']:,}"
    yield "attempts that failed, by reason", some(load.get("failures", {}))
    yield "first answer: p50, p99, p99.9, max, ms", latency(load["first_answer"])
    yield "server CPU for each client, us (user)", each(step)


def stop_rows(step):
    load, moments = step["load"], step["moments"]
    yield "told (1001) of clients", f"{load['closed_1001']:,} of {load['clients']:,}"
    yield "ends of clients by cause", some(load.get("closes", {}))
    yield "s until the process ended; its exit code", f"{number(moments['ended'] - moments['told'])}; {moments['exit_code']}"
    yield "first; last client told, ms", f"{number(load['first_ms'])}; {number(load['last_ms'])}"
    yield "server CPU for each client, us (user)", each(step)


def each(step):
    return f"{number(step['server']['cpu_us_each'])} ({number(step['server']['user_us_each'])})"


ROWS = {
    "connect": connect_rows, "hold": hold_rows, "broadcast": broadcast_rows, "rooms": rooms_rows, "churn": churn_rows,
    "return": return_rows, "stop": stop_rows,
}


NAMES = {"turn": "turns", "delivery": "deliveries"}


def common_rows(step):
    """Yields what every step has: where the time went, and the server's own histograms."""
    machine = step["machine"]
    yield "limited by", step.get("limit") or "neither program's cores"
    yield "CPU in percent of a core: server", number(step["server"]["core_percent"])
    if "load_core_percent" in machine:
        yield "the same: load; all cores idle, iowait", " ; ".join(
            number(machine[name]) for name in ("load_core_percent", "idle_percent", "iowait_percent")
        )
    yield "least memory available; most slabs", f"{mib(machine['available_min'])}; {mib(machine['slab_max'])}"
    yield "most pages of TCP buffers", f"{machine['tcp_pages_max']:,}"
    for name in ("turn", "delivery"):
        found = step["histograms"].get(name)
        if found and found["count"]:
            yield f"server's own {NAMES[name]}: count", f"{found['count']:,}"
            yield f"server's own {NAMES[name]}: p50, p99, p99.9, max, ms", latency(found)


def rows(report, name):
    """Returns the rows of a step as a dictionary from label to text, empty if the run did not have the step."""
    step = report["steps"].get(name)
    return dict([*ROWS[name](step), *common_rows(step)]) if step else {}


def run_rows(report):
    """Returns what may differ between the runs of a table."""
    run, host = report["run"], report["host"]
    program = host.get("program", {"version": "unknown", "sha256": ""})
    own = host.get("network_namespace") == "own"
    steered = host.get("packets_steered_to")
    tcp_mem = host["tcp_mem"]
    return {
        "revision of the working copy": f"`{host['commit']}`",
        "server's program": f"{program['version']}, SHA-256 `{program['sha256'][:12]}`",
        "began (UTC); minutes": f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(run['started']))}; "
        f"{(run['ended'] - run['started']) / 60:.1f}",
        "network namespace": "its own" if own else "the host's",
        "packets are processed by": f"the load's cores ({steered})" if steered else "the sender's core",
        "buckets of the table of TCP connections": f"{host.get('tcp_buckets') or 0:,}",
        "congestion control": host.get("congestion_control") or "unknown",
        "`tcp_mem`, pages": " ".join(map(str, tcp_mem)) if tcp_mem else "unknown",
        "seconds of `hold`": f"{run['hold_s']:,}",
    }


def goal_rows(report):
    return {
        f"{found['goal']}: {found['wanted']}": f"{found['text']} ({'met' if found['met'] else '**missed**'})"
        for found in report["goals"]
    }


def side_by_side(title, columns):
    """Prints a table with a column for each run. Runs without a row have an empty cell."""
    labels = list(dict.fromkeys(label for column in columns for label in column))
    if not labels:
        return
    heads = [f"run {index + 1}" for index in range(len(columns))] if len(columns) > 1 else ["measured"]
    print(f"| {title} | " + " | ".join(heads) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for label in labels:
        print(f"| {label} | " + " | ".join(column.get(label, "") for column in columns) + " |")
    print()


def tables(reports):
    run, host = reports[0]["run"], reports[0]["host"]
    print(
        f"{run['connections']:,} clients in {run['rooms']:,} rooms; {run['shards']} shards on cores {run['server_cores']}, "
        f"the load on cores {run['load_cores']}. Linux {host['kernel']}, {host['cpu']}, "
        f"{host['cores']} cores, {host['memory_bytes'] / million_report.GIB:.1f} GiB, `ulimit -n` {host['nofile']:,}. "
        f"Server: `{run['server']}`.\n"
    )
    if run["connections"] < 1_000_000:
        print("The goals are those for a million clients.\n")
    side_by_side("run", [run_rows(report) for report in reports])
    side_by_side("goal", [goal_rows(report) for report in reports])
    for name in ROWS:
        side_by_side(f"`{name}`", [rows(report, name) for report in reports])


def print_log(log):
    print(f"Warnings and errors in the server's log: {log['count']}.\n")
    if log["lines"]:
        print("```text\n" + "\n".join(log["lines"]) + "\n```")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "report":
        report = million_report.build(sys.argv[2])
        with open(os.path.join(sys.argv[2], "million.json"), "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
        tables([report])
        print_log(report["server_log"])
        for text in report["failures"]:
            print(f"million.sh: {text}", file=sys.stderr)
        return 1 if report["failures"] else 0
    if len(sys.argv) >= 3 and sys.argv[1] == "docs":
        tables([million_report.load_json(path) for path in sys.argv[2:]])
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
