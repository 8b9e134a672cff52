#!/usr/bin/env python3
"""The table of a run: medians of each contender, and how one of them (`--us`) stands to each other.

A ratio is taken between two measurements of the same repetition, minutes apart at most, and the median
of those ratios is shown with the lowest and the highest: the machine's moods cancel out."""

import argparse
import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Callable

GIB = 2**30


@dataclass(frozen=True)
class Metric:
    """A number of one repetition of one contender, from its tests by name."""

    name: str
    label: str
    read: Callable
    better: str = "more"


def gigabits(test):
    return lambda tests: tests[test]["bps"] / 1e9


def kilopackets(test):
    return lambda tests: tests[test]["pps"] / 1e3


def seconds_per_gib(side):
    return lambda tests: tests["tcp4_fwd"]["gw_cpu"][side] * GIB / tests["tcp4_fwd"]["bytes"]


def microseconds_per_packet(tests):
    test = tests["udp64_30k"]
    # A contender without processes costs nothing that could be compared.
    return sum(test["gw_cpu"].values()) / test["recv"] * 1e6 if test["gw_cpu"] else None


def peak_rss(tests):
    """Of the gateway that needs more."""
    return max(max(test["rss"].values()) for test in tests.values() if test.get("rss"))


METRICS = [
    Metric("tcp1_fwd", "TCP, 1 stream, forward, Gbit/s", gigabits("tcp1_fwd")),
    Metric("tcp1_rev", "TCP, 1 stream, reverse, Gbit/s", gigabits("tcp1_rev")),
    Metric("tcp4_fwd", "TCP, 4 streams, forward, Gbit/s", gigabits("tcp4_fwd")),
    Metric("tcp4_rev", "TCP, 4 streams, reverse, Gbit/s", gigabits("tcp4_rev")),
    Metric("wire_tcp1_fwd", "wire, TCP, 1 stream, Gbit/s", gigabits("wire_tcp1_fwd")),
    Metric("wire_tcp4_fwd", "wire, TCP, 4 streams, Gbit/s", gigabits("wire_tcp4_fwd")),
    Metric("udp64_max", "UDP, 64 bytes, 1000 packets/s", kilopackets("udp64_max")),
    Metric("udp200_max", "UDP, 200 bytes, 1000 packets/s", kilopackets("udp200_max")),
    Metric("udp64_30k_loss", "UDP, 30 000 packets/s, lost, %", lambda tests: 100 * tests["udp64_30k"]["loss"], "less"),
    Metric("udp64_30k_cpu", "UDP, 30 000 packets/s, CPU us a packet, both", microseconds_per_packet, "less"),
    Metric("ping_idle_p50", "ping, idle, p50, ms", lambda tests: tests["ping_idle"]["p50"], "less"),
    Metric("ping_idle_p99", "ping, idle, p99, ms", lambda tests: tests["ping_idle"]["p99"], "less"),
    Metric("ping_load_p50", "ping, 4 streams, p50, ms", lambda tests: tests["tcp4_fwd"]["ping"]["p50"], "less"),
    Metric("ping_load_p99", "ping, 4 streams, p99, ms", lambda tests: tests["tcp4_fwd"]["ping"]["p99"], "less"),
    Metric("cpu_a", "CPU of A (seals), 4 streams, s/GiB", seconds_per_gib("A"), "less"),
    Metric("cpu_b", "CPU of B (opens), 4 streams, s/GiB", seconds_per_gib("B"), "less"),
    Metric("rss", "peak memory (RSS) of a gateway, MiB", peak_rss, "less"),
]


def spread(values):
    """Median, lowest, highest and number of some values; nothing of none."""
    if not values:
        return None
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


class Run:
    """The measurements of one run or several."""

    def __init__(self, files_of_records):
        self.tests = {}
        self.troubles = []
        self.foreign = []
        for file, records in enumerate(files_of_records):
            for record in records:
                self.add(file, record)

    def add(self, file, record):
        repetitions = self.tests.setdefault(record["contender"], {})
        trouble = self.trouble(record)
        if trouble:
            self.troubles.append(trouble)
        elif "test" in record:
            repetitions.setdefault((file, record["rep"]), {})[record["test"]] = record
            if record.get("wall"):
                self.foreign.append(100 * record["foreign"] / record["wall"])

    @staticmethod
    def trouble(record):
        if "failed" in record:
            return f"{record['contender']} did not come up: {record['failed']}"
        if "left" in record:
            return f"{record['contender']} left behind: {'; '.join(record['left'])}"
        if "error" in record:
            return f"{record['contender']}, {record['test']}: {record['error']}"
        return None

    def values(self, contender, metric):
        """One number a repetition, where there is one."""
        found = {}
        for repetition, tests in self.tests.get(contender, {}).items():
            try:
                value = metric.read(tests)
            except (KeyError, TypeError, ValueError, ZeroDivisionError):
                continue
            if value is not None:
                found[repetition] = value
        return found

    def ratios(self, us, other, metric):
        """Ours over the other's, of each repetition that has both."""
        ours, theirs = self.values(us, metric), self.values(other, metric)
        return [ours[repetition] / theirs[repetition] for repetition in ours if theirs.get(repetition)]

    def table(self, us):
        """Everything that is shown, as data."""
        contenders = list(self.tests)
        others = [name for name in contenders if name != us]
        metrics = []
        for metric in METRICS:
            values = {name: spread(list(self.values(name, metric).values())) for name in contenders}
            if any(values.values()):
                ratios = {name: spread(self.ratios(us, name, metric)) for name in others} if us in contenders else {}
                metrics.append({"name": metric.name, "label": metric.label, "better": metric.better, "values": values, "ratios": ratios})
        return {
            "machine": machine(),
            "contenders": contenders,
            "us": us,
            "metrics": metrics,
            "troubles": [{"what": what, "times": self.troubles.count(what)} for what in dict.fromkeys(self.troubles)],
            "foreign_cpu_percent": spread(self.foreign),
        }


def machine():
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", text)
    return {"cpu": model[1] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


# ---- printing


def number(value):
    """Three digits that count, and no exponent."""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def cell(spread):
    if spread is None:
        return "-"
    if spread["n"] == 1:
        return number(spread["median"])
    return f"{number(spread['median'])} ({number(spread['min'])}-{number(spread['max'])})"


def markdown(rows):
    """Rows of cells, the first of them the head, as a table that is read as it is and as Markdown."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def show(table):
    this = table["machine"]
    print(f"{this['cpu']}, {this['cores']} cores, Linux {this['kernel']}; TCP with cubic")
    foreign = table["foreign_cpu_percent"]
    if foreign:
        print(f"other processes took {number(foreign['median'])} % of a core meanwhile, at most {number(foreign['max'])} %")
    if not table["metrics"]:
        print("nothing was measured")
    else:
        print("\nMedian (lowest-highest); v: less is better\n")
        label = {metric["name"]: metric["label"] + (" v" if metric["better"] == "less" else "") for metric in table["metrics"]}
        rows = [["", *table["contenders"]]]
        rows += [[label[metric["name"]], *(cell(metric["values"][name]) for name in table["contenders"])] for metric in table["metrics"]]
        print(markdown(rows))
        others = [name for name in table["contenders"] if name != table["us"]]
        if others and len(others) < len(table["contenders"]):
            print(f"\n{table['us']} divided by each other, of the same repetition: median (lowest-highest)\n")
            rows = [["", *others]]
            rows += [[label[metric["name"]], *(cell(metric["ratios"][name]) for name in others)] for metric in table["metrics"]]
            print(markdown(rows))
    if table["troubles"]:
        print()
    for trouble in table["troubles"]:
        print(trouble["what"] + (f" ({trouble['times']} times)" if trouble["times"] > 1 else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--us", default="cygnet", help="who is compared with each other (cygnet)")
    parser.add_argument("--json", action="store_true", help="the table as one line of JSON")
    parser.add_argument("files", nargs="+", metavar="RUN.jsonl")
    options = parser.parse_args()
    run = Run([json.loads(line) for line in open(file)] for file in options.files)
    table = run.table(options.us)
    if options.json:
        print(json.dumps({"table": table}))
    else:
        show(table)


if __name__ == "__main__":
    main()
