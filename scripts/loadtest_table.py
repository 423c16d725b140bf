#!/usr/bin/env python3
"""Prints the tables of scripts/loadtest.sh in Markdown: medians over the rounds, compared with the first protocol.

    scripts/loadtest_table.py OUT PROTOCOLS SCENARIOS
"""

import glob
import json
import os
import statistics
import sys

HOLDING = ("hold", "bare")
MEMORY = (
    "scenario", "protocol", "bytes resident for each client", "times the first", "sockets for each", "CPU, % of a core",
)
LOAD = (
    "scenario", "protocol", "messages/s", "p50 us", "p99 us", "CPU us/message", "of it user", "times the first",
    "from, to", "requests/message",
)


def runs(out, scenario, protocol):
    """Returns the load generator's reports of all rounds, in order."""
    names = glob.glob(os.path.join(glob.escape(out), f"{scenario}.{protocol}.*.json"))
    names.sort(key=lambda name: int(name.split(".")[-2]))
    return [json.load(open(name, encoding="utf-8")) for name in names]


def at(report, path):
    for key in path.split("/"):
        report = report[key]
    return report


def median(reports, path):
    return statistics.median(at(report, path) for report in reports)


def ratios(reports, first, path):
    """Returns the ratio of each round. Its runs followed each other directly: this is less noisy than a ratio of medians."""
    return [at(one, path) / at(other, path) for one, other in zip(reports, first)]


def held(reports, first):
    each = "server/bytes_each_connection/resident"
    clients = median(reports, "connections/opened")
    return [
        f"{median(reports, each):,.0f}",
        f"{statistics.median(ratios(reports, first, each)):.2f}",
        f"{median(reports, 'connections/sockets') / clients:.2g}",
        f"{median(reports, 'server/cpu_percent'):.2f}",
    ]


def timed_latency(report):
    """Returns the latency that a scenario is about: delivery, else ping, else cycle; None if nothing was received in time."""
    return next((name for name in ("delivery", "ping", "cycle") if name in report["latency_us"]), None)


def has_figures(report, scenario):
    if scenario in HOLDING:
        return report["server"]["bytes_each_connection"] is not None
    return report["server"]["cpu_us_each_message"] is not None and timed_latency(report) is not None


def loaded(reports, first):
    each = "server/cpu_us_each_message/total"
    beside = ratios(reports, first, each)
    messages = [max(at(report, "measured/messages"), 1) for report in reports]
    requests = [at(report, "measured/requests") / n for report, n in zip(reports, messages)]
    timed = timed_latency(reports[0])
    return [
        f"{median(reports, 'measured/rate'):,.0f}",
        f"{median(reports, f'latency_us/{timed}/p50'):,.0f}",
        f"{median(reports, f'latency_us/{timed}/p99'):,.0f}",
        f"{median(reports, each):.2f}",
        f"{median(reports, 'server/cpu_us_each_message/user'):.2f}",
        f"{statistics.median(beside):.2f}",
        f"{min(beside):.2f} to {max(beside):.2f}",
        f"{statistics.median(requests):.2f}",
    ]


def rows(out, scenarios, protocols, cells):
    for scenario in scenarios:
        first = runs(out, scenario, protocols[0])
        for protocol in protocols:
            reports = runs(out, scenario, protocol)
            note = "" if all(report["went_well"] for report in reports) else " (with errors)"
            # A round in which nothing was received, because the machine was busy with other work, is not a measurement.
            both = [pair for pair in zip(reports, first) if all(has_figures(one, scenario) for one in pair)]
            if both:
                yield [scenario, protocol + note, *cells([one for one, _ in both], [other for _, other in both])]


def shares(out, protocols):
    """Returns a table of the bytes of a session and of a socket. A stream's client that has sent no request has one socket less."""
    def each(scenario, protocol):
        reports = runs(out, scenario, protocol) if protocol in protocols else []
        return median(reports, "server/bytes_each_connection/resident") if reports else None

    streams = [each(scenario, "event-stream") for scenario in HOLDING]
    sockets = [each(scenario, "websocket") for scenario in HOLDING]
    polls = each("bare", "long-polling")
    if None in (*streams, *sockets, polls):
        return []
    subscription = sockets[0] - sockets[1]
    socket = streams[0] - streams[1] - subscription
    return [
        "Of an HTTP client's bytes, by the differences between these rows:", "",
        "| part | bytes | by |", "| --- | --- | --- |",
        f"| subscription | {subscription:,.0f} | WebSocket: hold - bare |",
        f"| socket that is idle | {socket:,.0f} | event stream: hold - bare - subscription |",
        f"| session with the poll that it holds | {polls - socket:,.0f} | long polling: bare - socket |",
        f"| session with its stream | {streams[1] - socket:,.0f} | event stream: bare - socket |", "",
    ]


def table(head, body):
    body = list(body)
    lines = [f"| {' | '.join(cells)} |" for cells in ([*head], ["---"] * len(head), *body)]
    return [*lines, ""] if body else []


def main():
    out, protocols, scenarios = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
    holding = [scenario for scenario in scenarios if scenario in HOLDING]
    loading = [scenario for scenario in scenarios if scenario not in HOLDING]
    lines = table(MEMORY, rows(out, holding, protocols, held)) + shares(out, protocols)
    print("\n".join(lines + table(LOAD, rows(out, loading, protocols, loaded))))


main()
