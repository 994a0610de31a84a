"""Tests of what decides about a fault: `python3 -m unittest measure.fault_tests` in load-tests/."""

import gzip
import http.client
import json
import os
import socket
import sys
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from scenarios import f05_cut, f06_errors

from . import exporting, faults, open_loop, processes, small_disk
from .descriptors import Descriptors
from .replica import ANNOUNCED, PASSED

ME = os.getpid()


def call():
    done = SimpleNamespace(set_result=lambda _: None)
    return open_loop.Call(open_loop.HTTP1, time.monotonic(), done=done)


class AnswersOverHttp1(unittest.TestCase):
    """What was a whole answer, and what was not."""

    def setUp(self):
        target = SimpleNamespace(path="/score", key="k")
        self.callers = SimpleNamespace(target=target, body=b"{}", resting=[], every=set())
        self.connection = open_loop.Http1(self.callers)
        self.connection.transport = SimpleNamespace(write=lambda _: None, close=lambda: None)
        self.call = call()
        self.connection.send(self.call)

    def test_a_length_that_is_reached(self):
        self.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab")
        self.assertFalse(self.call.ended)
        self.connection.data_received(b"c")
        self.assertTrue(self.call.ok)
        self.assertEqual((self.call.body_bytes, self.callers.resting), (3, [self.connection]))

    def test_a_length_that_is_not(self):
        self.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab")
        self.connection.connection_lost(None)
        self.assertEqual((self.call.ok, self.call.status, self.call.fault), (False, 200, "connection closed"))

    def test_chunks_with_their_end(self):
        for piece in (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-", b"Encoding: chunked\r\n\r\n2\r\nab\r",
                      b"\n1\r\nc\r\n0\r\n", b"\r\n"):
            self.assertFalse(self.call.ended)
            self.connection.data_received(piece)
        self.assertTrue(self.call.ok)
        self.assertEqual(self.call.body_bytes, 3)

    def test_chunks_without(self):
        self.connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        self.connection.connection_lost(ConnectionResetError())
        self.assertIn("ConnectionResetError", self.call.fault)

    def test_no_answer(self):
        self.connection.connection_lost(None)
        self.assertEqual((self.call.status, self.call.fault), (0, "connection closed"))

    def test_a_last_answer_ends_the_connection(self):
        self.connection.data_received(b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((self.call.fault, self.call.ok, self.callers.resting), ("", False, []))


class Replica(unittest.TestCase):
    def setUp(self):
        folder = Path(self.enterContext(TemporaryDirectory()))
        bench = SimpleNamespace(folder=folder, load_cpu=0)
        self.replica = self.enterContext(faults.Replica(bench, processes.free_port()))

    def post(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.replica.port, timeout=10)
        self.addCleanup(connection.close)
        connection.request("POST", "/score", body=b"{}")
        return connection

    def test_answers_as_it_was_told(self):
        self.replica.order(status=503, seconds=0)
        self.assertEqual(self.post().getresponse().status, 503)
        self.assertEqual(self.replica.stats()["answered"], 1)

    def test_what_it_has_in_hand_can_be_read_when_it_is_dead(self):
        self.replica.order(kind="silent")
        connections = [self.post() for _ in range(3)]
        self.wait(lambda: self.replica.stats()["in_hand"] == 3)
        self.assertEqual(self.replica.kill(), 3)
        for connection in connections:
            self.assertRaises(ConnectionError, connection.getresponse)

    def test_a_cut_answer_is_short(self):
        for framing in ("length", "chunked"):
            self.replica.order(kind="cut", framing=framing, seconds=0)
            with self.assertRaises(http.client.IncompleteRead) as short:
                self.post().getresponse().read()
            self.assertEqual(len(short.exception.partial), PASSED)
        self.assertGreater(ANNOUNCED, PASSED)

    def test_a_call_on_a_connection_that_it_has_closed_is_counted(self):
        self.replica.order(keep_alive_seconds=0.1)
        connection = self.post()
        connection.getresponse().read()
        self.wait(lambda: self.replica.stats()["idle_closes"] == 1)
        connection.sock.sendall(b"POST /score HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        self.wait(lambda: self.replica.stats()["late"] == 1)

    def test_refuses_for_a_while_and_is_back(self):
        self.replica.order(refuse_seconds=1.5)
        self.assertRaises(ConnectionRefusedError, self.post)
        processes.wait_for_port(self.replica.process, self.replica.port)

    def wait(self, probe):
        deadline = time.monotonic() + 10
        while not probe():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)


class Collector(unittest.TestCase):
    """It takes and refuses what it says that it does."""

    def setUp(self):
        folder = Path(self.enterContext(TemporaryDirectory()))
        self.collector = self.enterContext(exporting.Collector(SimpleNamespace(folder=folder, load_cpu=0)))

    def post(self, *ids):
        batch = [{"data": {"baseData": {"id": it}}} for it in ids]
        connection = http.client.HTTPConnection("127.0.0.1", self.collector.port, timeout=10)
        self.addCleanup(connection.close)
        connection.request("POST", "/v2.1/track", body=gzip.compress(json.dumps(batch).encode()))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["errors"]

    def test_of_a_batch_each_item_gets_its_own_status(self):
        self.collector.order(status=206, items=[200, 500, 400])
        self.assertEqual(self.post("a", "b", "c"), (206, [{"index": 1, "statusCode": 500}, {"index": 2, "statusCode": 400}]))
        self.collector.order(status=429, retry_after=7)
        self.assertEqual(self.post("b")[0], 429)
        self.collector.order()
        self.assertEqual(self.post("b", "a"), (200, []))
        self.assertEqual(self.collector.ids(), {"taken": {"a": 2, "b": 1}, "refused": {"c": 1}, "batches": 3})

    def test_dead_it_takes_nothing_and_it_comes_back_on_its_port(self):
        self.collector.order(dead=True)
        self.assertRaises(ConnectionError, self.post, "a")
        self.collector.order()
        self.assertEqual(self.post("a"), (200, []))
        self.assertEqual(self.collector.ids()["taken"], {"a": 1})


class OpenDescriptors(unittest.TestCase):
    def test_connections_to_replicas_are_told_from_others(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            before = Descriptors.of([ME], {port})
            with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                first, second = listening.accept()[0], listening.accept()[0]
                first.close()
                now = Descriptors.of([ME], {port})
                second.close()
        self.assertEqual((now.pooled, now.half_closed, before.pooled), (1, 1, 0))
        # The replica's end of the other one is this process's own, too.
        self.assertEqual(now.own, before.own + 1)


class SmallDisk(unittest.TestCase):
    @unittest.skipIf(os.geteuid(), "mounting a tmpfs takes root")
    def test_is_full_when_it_was_filled_and_has_room_again(self):
        bench = SimpleNamespace(folder=self.enterContext(TemporaryDirectory()))
        with small_disk.small_disk(bench, 1) as disk:
            file = disk.path / "file"
            disk.fill()
            with self.assertRaises(OSError):
                file.write_bytes(bytes(4096))
            disk.empty()
            file.write_bytes(bytes(4096))
            path = disk.path
        self.assertEqual(list(path.iterdir()), [])


class Verdicts(unittest.TestCase):
    def test_a_gap_in_the_arrivals_is_an_ejection(self):
        steady = [n / 100 for n in range(100)]
        self.assertIsNone(f06_errors.quiet_after(steady, 0.0, 1.0))
        self.assertAlmostEqual(f06_errors.quiet_after(steady[:20], 0.0, 1.0), 0.19)
        self.assertEqual(f06_errors.quiet_after([], 0.0, 1.0), 0.0)

    def test_a_record_of_a_cut_answer(self):
        record = {"Reason": "upstream_reset", "EndedBy": "upstream", "ResponseBytes": PASSED, "StatusCode": 200}
        self.assertTrue(f05_cut.told(record))
        self.assertTrue(f05_cut.told({**record, "ResponseBytes": 168, "StatusCode": 502}))
        for other in (None, {**record, "Reason": "ok"}, {**record, "ResponseBytes": 0}):
            self.assertFalse(f05_cut.told(other))

    def test_records_are_one_for_each_call_that_was_not_dropped(self):
        gateway = SimpleNamespace(request_id="RequestId")

        def faults_of(lines, calls, dropped):
            run = SimpleNamespace(callers=SimpleNamespace(calls=calls), dropped=dropped, records=lambda _: lines)
            return faults.Run.record_faults(run, gateway)

        one, two, torn = b'{"RequestId":"1"}', b'{"RequestId":"2"}', b'{"Requ'
        self.assertEqual(faults_of([one, two], 2, 0), [])
        self.assertEqual(faults_of([one, torn, two], 3, 1), [])
        for lines, calls, dropped in (([one], 2, 0), ([one, one], 2, 0), ([one, torn], 1, 0), ([one, two], 3, 0),
                                      ([one, torn, torn], 2, 1)):
            self.assertNotEqual(faults_of(lines, calls, dropped), [])

    def test_only_scoregate_is_held_to_the_targets(self):
        self.assertIs(faults.Setup("x").verdict(False), False)
        self.assertIsNone(faults.Setup("x", "nginx").verdict(False))

    def test_the_books_of_an_exporter_are_read_from_a_page(self):
        name = "scoregate_exporter"
        page = (f'{name}_accepted_total{{exporter="application_insights"}} 9\n{name}_spooled{{exporter="application_insights"}} 2\n'
                f'{name}_records_total{{exporter="application_insights",outcome="delivered"}} 6\n'
                f'{name}_records_total{{exporter="application_insights",outcome="dropped"}} 1\n')
        self.assertEqual(exporting.read_books(page), {"accepted": 9, "spooled": 2, "delivered": 6, "dropped": 1})

    def test_one_spoilt_window_does_not_move_the_usual_p99(self):
        size = round(exporting.RATE * exporting.WINDOW_SECONDS)
        calls = [SimpleNamespace(seconds=9.0 if size <= n < size + 50 else 0.02) for n in range(3 * size)]
        self.assertEqual(exporting.usual_p99(calls), 0.02)
        self.assertEqual(exporting.usual_p99(calls[:10]), 0.02)

    def test_percentiles_are_of_the_calls(self):
        calls = [SimpleNamespace(seconds=n / 100) for n in range(100)]
        self.assertEqual((faults.percentile(calls, 0.5), faults.percentile(calls, 0.99)), (0.5, 0.99))


if __name__ == "__main__":
    sys.exit(unittest.main())
