"""Tests of the parts that decide what a figure says: `python3 -m unittest measure.tests` in load-tests/."""

import os
import select
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

from . import Failure, gateways, load, processes, report, sample

H2LOAD = """\
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: h2
progress: 100% done

finished in 490.83ms, 4074.73 req/s, 1.2MB/s
requests: 2000 total, 2000 started, 2000 done, 1990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 1990 2xx, 0 3xx, 10 4xx, 0 5xx
"""


class H2loadSummary(unittest.TestCase):
    def test_reads_seconds_requests_and_answers(self):
        outcome, answered = load.parse_h2load(H2LOAD)
        self.assertAlmostEqual(outcome.seconds, 0.49083)
        self.assertEqual((outcome.requests, answered, outcome.notes["protocol"]), (2000, 1990, "h2"))

    def test_refuses_a_summary_without_its_lines(self):
        with self.assertRaises(Failure):
            load.parse_h2load(H2LOAD.replace("finished in", "stopped after"))


CHILD = """
import time
while time.process_time_ns() < 50_000_000: pass
print(time.process_time_ns(), flush=True)
time.sleep(60)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


class Accounting(unittest.TestCase):
    def test_counts_children_and_ends_them(self):
        cpu = min(os.sched_getaffinity(0))
        with patch.object(processes, "STOP_SECONDS", 0.2), \
                processes.Process("parent", [sys.executable, "-c", PARENT], cpu, stdout=subprocess.PIPE) as process:
            with process.child.stdout as stdout:
                used_by_child = int(stdout.readline())
            _, child = process.pids()
            handle = os.pidfd_open(child)
            self.assertGreaterEqual(process.cpu_ns(), used_by_child)
            process.stop()
        self.assertTrue(select.select([handle], [], [], 0)[0], "the child outlived its program")
        os.close(handle)


class Records(unittest.TestCase):
    gateway = SimpleNamespace(request_id="request_id", status="status")

    def count(self, *lines):
        with patch.object(sample, "LOG_SECONDS", 0.2), TemporaryDirectory() as folder:
            log = Path(folder) / "access.log"
            log.write_text("".join(line + "\n" for line in lines))
            return sample.count_records(log, self.gateway, 3)

    def test_accepts_one_refusal_and_the_rest_answered(self):
        lines = [f'{{"request_id":"{n}","status":{status}}}' for n, status in enumerate((200, 401, 200))]
        self.assertEqual(self.count(*lines), (3, []))

    def test_names_what_is_missing_doubled_or_broken(self):
        line = '{"request_id":"1","status":200}'
        for lines, fault in (((line,), "1 records for 3 calls"), ((line, line, line), "1 different request ids"),
                             (("{", line, line), "JSONDecodeError")):
            self.assertIn(fault, self.count(*lines)[1][0])


class Marks(unittest.TestCase):
    def samples(self, **cpu):
        return [SimpleNamespace(round=1, gateway=name, scenario="h1", cpu_us_per_request=value, rss_idle=30 * 1024)
                for name, value in cpu.items()]

    def test_compares_with_the_better_peer(self):
        mark = report.MARKS[0]
        self.assertEqual(mark.judge(self.samples(scoregate=19, nginx=30, haproxy=20))[2:], ("0.95", "met"))
        self.assertEqual(mark.judge(self.samples(scoregate=20, nginx=30, haproxy=20))[2:], ("1.00", "**missed**"))

    def test_says_not_measured_when_a_peer_was_left_out(self):
        self.assertEqual(report.MARKS[0].judge(self.samples(scoregate=10, nginx=30))[3], "not measured")

    def test_holds_a_variant_against_scoregate_itself(self):
        samples = self.samples(**{"scoregate": 20, "scoregate-write-ahead": 25})
        mark = next(mark for mark in report.MARKS if mark.gateway == "scoregate-write-ahead")
        self.assertEqual(mark.judge(samples)[1:], ("≤ 1.30 × scoregate", "1.25", "met"))
        self.assertIn("scoregate, write-ahead: CPU per request", report.marks_table(samples, ["scoregate", mark.gateway]))
        self.assertNotIn("write-ahead", report.marks_table(samples, ["scoregate"]))

    def test_judges_memory_as_it_is(self):
        self.assertEqual(report.MARKS[-1].judge(self.samples(scoregate=10))[2:], ("30.00", "**missed**"))


class Templates(unittest.TestCase):
    def test_every_place_is_filled(self):
        with TemporaryDirectory() as folder:
            bench = gateways.Bench(Path(folder), 0, 1)
            for template in gateways.PEERS.iterdir():
                path = bench.render(template.name, log=Path(folder) / "log", port=1)
                self.assertNotRegex(path.read_text(), r"@[A-Z0-9_]+@", template.name)


if __name__ == "__main__":
    unittest.main()
