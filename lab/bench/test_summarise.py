#!/usr/bin/env python3
"""The arithmetic of the table."""

import unittest

from summarise import METRICS, Run, cell, markdown, number, spread


def tcp(contender, repetition, gigabits, test="tcp1_fwd", **more):
    return {"contender": contender, "rep": repetition, "test": test, "bps": gigabits * 1e9, **more}


def metric(name):
    return next(metric for metric in METRICS if metric.name == name)


class Spread(unittest.TestCase):
    def test_is_of_all_values(self):
        self.assertEqual(spread([3, 1, 9]), {"median": 3, "min": 1, "max": 9, "n": 3})
        self.assertEqual(spread([1, 2])["median"], 1.5)
        self.assertIsNone(spread([]))


class Ratios(unittest.TestCase):
    def test_pair_the_same_repetition(self):
        # The machine was twice as fast the second time: medians say nothing, ratios are the same.
        run = Run([[tcp("us", 0, 2), tcp("peer", 0, 4), tcp("us", 1, 6), tcp("peer", 1, 12)]])
        self.assertEqual(run.ratios("us", "peer", metric("tcp1_fwd")), [0.5, 0.5])

    def test_leave_out_what_one_of_both_lacks(self):
        run = Run([[tcp("us", 0, 2), tcp("us", 1, 6), tcp("peer", 1, 3)]])
        self.assertEqual(run.ratios("us", "peer", metric("tcp1_fwd")), [2])

    def test_are_not_taken_over_zero(self):
        lost = {"contender": "us", "rep": 0, "test": "udp64_30k", "loss": 0.1}
        run = Run([[lost, lost | {"contender": "peer", "loss": 0}]])
        self.assertEqual(run.ratios("us", "peer", metric("udp64_30k_loss")), [])

    def test_repetitions_of_two_files_are_apart(self):
        run = Run([[tcp("us", 0, 2), tcp("peer", 0, 1)], [tcp("us", 0, 9), tcp("peer", 0, 3)]])
        self.assertEqual(run.ratios("us", "peer", metric("tcp1_fwd")), [2, 3])


class Costs(unittest.TestCase):
    def test_cpu_is_per_gib_of_the_side(self):
        record = tcp("us", 0, 1, "tcp4_fwd", gw_cpu={"A": 3, "B": 5}, bytes=2 * 2**30)
        run = Run([[record]])
        self.assertEqual(list(run.values("us", metric("cpu_a")).values()), [1.5])
        self.assertEqual(list(run.values("us", metric("cpu_b")).values()), [2.5])

    def test_cpu_per_packet_is_of_both_sides(self):
        record = {"contender": "us", "rep": 0, "test": "udp64_30k", "gw_cpu": {"A": 0.5, "B": 0.7}, "recv": 100_000}
        self.assertAlmostEqual(Run([[record]]).values("us", metric("udp64_30k_cpu"))[(0, 0)], 12)

    def test_without_processes_there_is_none(self):
        records = [
            {"contender": "plain", "rep": 0, "test": "udp64_30k", "gw_cpu": {}, "recv": 100_000},
            tcp("plain", 0, 1, "tcp4_fwd", gw_cpu={}, bytes=2**30, rss={}),
        ]
        run = Run([records])
        for name in ("udp64_30k_cpu", "cpu_a", "rss"):
            self.assertEqual(run.values("plain", metric(name)), {}, name)

    def test_memory_is_the_peak_of_the_larger_side_over_all_tests(self):
        records = [tcp("us", 0, 1, rss={"A": 7, "B": 9}), tcp("us", 0, 1, "tcp1_rev", rss={"A": 12, "B": 9})]
        self.assertEqual(list(Run([records]).values("us", metric("rss")).values()), [12])


class Troubles(unittest.TestCase):
    def test_are_told_once_with_their_number(self):
        records = [{"contender": "peer", "rep": rep, "failed": "no program"} for rep in range(3)]
        table = Run([[tcp("us", 0, 1), *records]]).table("us")
        self.assertEqual(table["troubles"], [{"what": "peer did not come up: no program", "times": 3}])
        self.assertEqual(table["contenders"], ["us", "peer"])
        self.assertIsNone(table["metrics"][0]["values"]["peer"])

    def test_an_error_is_no_measurement(self):
        run = Run([[{"contender": "us", "rep": 0, "test": "tcp1_fwd", "error": "RuntimeError: refused"}]])
        self.assertEqual(run.table("us")["metrics"], [])

    def test_what_could_not_be_read_is_left_out(self):
        run = Run([[tcp("us", 0, 1, rss={"A": None, "B": 9})]])
        self.assertEqual(run.values("us", metric("rss")), {})


class Printed(unittest.TestCase):
    def test_three_digits_count(self):
        self.assertEqual([number(value) for value in (0, 0.123, 4.567, 45.67, 456.7)], ["0", "0.12", "4.57", "45.7", "457"])

    def test_one_value_has_no_spread(self):
        self.assertEqual(cell(spread([4.5])), "4.50")
        self.assertEqual(cell(spread([4.5, 5, 3])), "4.50 (3.00-5.00)")
        self.assertEqual(cell(None), "-")

    def test_columns_are_aligned(self):
        self.assertEqual(markdown([["", "a"], ["bb", "c"]]), "|    | a |\n|----|---|\n| bb | c |")


if __name__ == "__main__":
    unittest.main()
