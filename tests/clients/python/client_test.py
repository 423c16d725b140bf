"""Tests of a running server with a Python client, the `websockets` package.

The server has two shards, the applications relay and clienttest, and a clock that only these tests advance.
QUICKIO_ADDRESS is its address (HOST:PORT), QUICKIO_ADMIN the address of its statistics endpoint, and QUICKIO_PID its
process id, to which the last test sends SIGTERM.
"""

import json
import os
import random
import signal
import unittest
import urllib.request

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import connect

ADDRESS = os.environ["QUICKIO_ADDRESS"]
ADMIN = os.environ["QUICKIO_ADMIN"]
SECONDS = 20  # the time limit for everything that a test awaits


class Client:
    """A connection that has completed its handshake."""

    def __init__(self, path="/", **options):
        options.setdefault("subprotocols", ["quickio"])
        self.socket = connect(f"ws://{ADDRESS}{path}", open_timeout=SECONDS, **options)
        self.last_id = 0
        self.answers = {}
        self.events = []
        self.socket.send("/qio/ohai")
        assert self.text() == "/qio/ohai"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def text(self):
        return self.socket.recv(timeout=SECONDS)

    def send(self, path, data, callback=0):
        self.socket.send(f"{path}:{callback}={data}")

    def request(self, path, data="null"):
        """Sends an event, and returns the code, data, server callback and message of the answer."""
        self.last_id += 1
        self.send(path, data, self.last_id)
        return self.answer(self.last_id)

    def answer(self, callback):
        while callback not in self.answers:
            self.receive()
        server_callback, body = self.answers.pop(callback)
        return body["code"], body["data"], server_callback, body.get("err_msg")

    def event(self):
        while not self.events:
            self.receive()
        return self.events.pop(0)

    def receive(self):
        head, data = self.text().split("=", 1)
        path, callback = head.rsplit(":", 1)
        if path.startswith("/qio/callback/"):
            self.answers[int(path.removeprefix("/qio/callback/"))] = (int(callback), json.loads(data))
        else:
            self.events.append((path, int(callback), json.loads(data)))

    def ended(self):
        """Reads to the end, and returns the code and reason of the server's close frame."""
        try:
            while True:
                self.text()
        except ConnectionClosed as closed:
            return closed.rcvd.code, closed.rcvd.reason


def stats():
    with urllib.request.urlopen(f"http://{ADMIN}/stats", timeout=SECONDS) as response:
        return json.load(response)


def advance(seconds):
    """Advances the clock of the server."""
    url = f"http://{ADMIN}/clock?advance={round(seconds * 1000)}"
    with urllib.request.urlopen(url, data=b"", timeout=SECONDS) as response:
        assert response.status == 200


def spread(count):
    """Opens at least `count` clients, and more until every shard has one."""
    clients = [Client() for _ in range(count)]
    while not all(shard["gauges"]["clients"] > 0 for shard in stats()["shards"]):
        assert len(clients) < count + 100, "a shard gets no connections"
        clients.append(Client())
    return clients


def close_all(clients):
    for client in clients:
        client.socket.close()


class Handshake(unittest.TestCase):
    def test_subprotocol_is_chosen(self):
        with Client(subprotocols=["chat", "quickio"]) as client:
            self.assertEqual(client.socket.subprotocol, "quickio")
        with Client(subprotocols=None) as client:
            self.assertIsNone(client.socket.subprotocol)

    def test_any_path(self):
        with Client(path="/a/b?c=d") as client:
            self.assertEqual(client.request("/qio/ping")[0], 200)

    def test_unknown_subprotocol_is_refused(self):
        with self.assertRaises(InvalidStatus) as refused:
            connect(f"ws://{ADDRESS}/", subprotocols=["chat"])
        self.assertEqual(refused.exception.response.status_code, 400)

    def test_first_message_has_to_be_ohai(self):
        with connect(f"ws://{ADDRESS}/") as socket:
            socket.send("hello")
            with self.assertRaises(ConnectionClosed) as closed:
                socket.recv(timeout=SECONDS)
            self.assertEqual(closed.exception.rcvd.code, 1002)
            self.assertEqual(closed.exception.rcvd.reason, "invalid handshake")

    def test_compression(self):
        with Client(compression="deflate") as client:
            names = [extension.name for extension in client.socket.protocol.extensions]
            self.assertEqual(names, ["permessage-deflate"])
            for size in (10, 1000, 5000, 60_000):
                self.assertEqual(client.request("/clienttest/echo", '"' + "x" * size + '"')[1], "x" * size)
        with Client(compression=None) as client:
            self.assertEqual(client.socket.protocol.extensions, [])
            self.assertEqual(client.request("/clienttest/echo", '"' + "x" * 5000 + '"')[1], "x" * 5000)


class Events(unittest.TestCase):
    def test_answers(self):
        with Client() as client:
            self.assertEqual(client.request("/qio/ping"), (200, None, 0, None))
            self.assertEqual(client.request("/q@io//pi ng/", ""), (200, None, 0, None))
            self.assertEqual(client.request("/nowhere"), (404, None, 0, None))
            self.assertEqual(
                client.request("/clienttest/error/401"), (401, "you requested an error?", 0, "401s are fun!")
            )
            text = "\u00e9\u6c34\U0001f40c"
            self.assertEqual(client.request("/clienttest/echo", json.dumps(text, ensure_ascii=False))[1], text)

    def test_fragments(self):
        with Client() as client:
            client.socket.send(["/qio", "/pi", "", "ng:", "9=", "null"])
            self.assertEqual(client.answer(9)[0], 200)

    def test_pings_and_pongs(self):
        with Client() as client:
            for payload in (b"", b"x" * 125):
                self.assertTrue(client.socket.ping(payload).wait(SECONDS))
            client.socket.pong(b"nobody asked")
            self.assertEqual(client.request("/qio/ping")[0], 200)

    def test_callback_chain(self):
        with Client() as client:
            code, data, callback, _ = client.request("/clienttest/echo", "0")
            for step in range(1, 30):
                self.assertEqual((code, data), (200, step - 1))
                code, data, callback, _ = client.request(f"/qio/callback/{callback}", str(step))
            self.assertEqual(client.request("/qio/callback/1")[::3], (404, "callback doesn't exist"))

    def test_heartbeat_challenge(self):
        with Client() as client:
            client.send("/clienttest/heartbeat-challenge", "null", 1)
            path, callback, data = client.event()
            self.assertEqual((path, data), ("/qio/heartbeat", None))
            client.send(f"/qio/callback/{callback}", "null")
            self.assertEqual(client.answer(1)[0], 200)


class Subscriptions(unittest.TestCase):
    def test_broadcasts_reach_their_subscribers_once_and_in_order(self):
        clients = spread(12)
        listeners = clients[::2]
        for client in listeners:
            self.assertEqual(client.request("/qio/on", '"/relay/python"')[0], 200)
        count = 50
        for number in range(count):
            for sender, client in enumerate(clients):
                client.send("/relay/python", json.dumps([sender, number]))
        for client in clients:
            client.request("/qio/ping")  # everything was accepted
        for client in listeners:
            found = {}
            for _ in range(count * len(clients)):
                path, _, (sender, number) = client.event()
                self.assertEqual(path, "/relay/python")
                found.setdefault(sender, []).append(number)
            self.assertEqual(found, {sender: list(range(count)) for sender in range(len(clients))})
            self.assertEqual(client.request("/qio/off", '"/relay/python"')[0], 200)
        clients[1].request("/relay/python", "1")
        for client in clients:
            client.request("/qio/ping")
            self.assertEqual(client.events, [])
        close_all(clients)

    def test_pending_until_it_is_decided(self):
        with Client() as client:
            client.send("/qio/on", '"/clienttest/in-progress"', 100)
            self.assertEqual(client.request("/qio/on", '"/clienttest/in-progress"')[0], 202)
            client.request("/clienttest/in-progress")
            self.assertEqual(client.answer(100)[0], 200)

    def test_extra_data(self):
        with Client() as client:
            self.assertEqual(client.request("/qio/on", '["/clienttest/on-data", 1]')[0], 401)
            self.assertEqual(client.request("/qio/on", '["/clienttest/on-data", 123987]')[0], 200)
            self.assertEqual(client.event(), ("/clienttest/on-data", 0, True))

    def test_periodic_broadcast(self):
        with Client() as client:
            client.request("/qio/on", '"/clienttest/broadcast"')
            for _ in range(3):
                advance(0.01)
                self.assertEqual(client.event(), ("/clienttest/broadcast", 0, "broadcast event"))


class Liveness(unittest.TestCase):
    def test_a_handshake_has_ten_seconds(self):
        with connect(f"ws://{ADDRESS}/") as socket:
            advance(10.001)
            with self.assertRaises(ConnectionClosed) as closed:
                socket.recv(timeout=SECONDS)
            self.assertEqual((closed.exception.rcvd.code, closed.exception.rcvd.reason), (1008, "client timeout"))

    def test_a_fragmented_message_has_ten_seconds(self):
        with Client() as client:
            with client.socket.send_context():
                client.socket.protocol.send_text(b"/qio/pi", fin=False)
            self.assertTrue(client.socket.ping().wait(SECONDS))  # the server has the fragment
            advance(10.001)
            self.assertEqual(client.ended(), (1008, "client timeout"))

    def test_heartbeats_and_challenges(self):
        with Client() as client:
            for _ in range(3):
                advance(60)
                self.assertEqual(client.event(), ("/qio/heartbeat", 0, None))
            advance(15 * 60 - 180)
            callback = 0
            while callback == 0:
                path, callback, _ = client.event()
                self.assertEqual(path, "/qio/heartbeat")
            client.send(f"/qio/callback/{callback}", "null")
            client.request("/qio/ping")
            advance(14 * 60)
            client.request("/qio/ping")
            advance(15 * 60)
            advance(60)
            self.assertEqual(client.ended(), (1008, "client timeout"))

    def test_server_callbacks_expire(self):
        with Client() as client:
            callback = client.request("/clienttest/echo")[2]
            advance(15.001)
            self.assertEqual(client.request(f"/qio/callback/{callback}")[::3], (404, "callback doesn't exist"))


class Closing(unittest.TestCase):
    def test_codes(self):
        for message, code, reason in (
            ("no event", 1002, "invalid event format"),
            (b"binary", 1003, None),
            ("/qio/ping:1=" + "x" * 100_000, 1009, None),
        ):
            with Client() as client:
                client.socket.send(message)
                found = client.ended()
                self.assertEqual(found[0], code)
                if reason:
                    self.assertEqual(found[1], reason)

    def test_invalid_utf8(self):
        with Client() as client:
            with client.socket.send_context():
                client.socket.protocol.send_text(b"/qio/ping:1=\xff")
            self.assertEqual(client.ended()[0], 1007)

    def test_reserved_opcode(self):
        with Client() as client:
            self.assertEqual(Opcode.TEXT, 1)
            client.socket.socket.sendall(b"\x83\x80\0\0\0\0")
            self.assertEqual(client.ended()[0], 1002)

    def test_close_is_echoed(self):
        for code in (1000, 1001, 3000, 4999):
            with Client() as client:
                client.socket.close(code, "bye")
                self.assertEqual(client.ended()[0], code)

    def test_the_server_closes(self):
        with Client() as client:
            client.send("/clienttest/close", "null")
            self.assertEqual(client.ended()[0], 1000)

    def test_move(self):
        with Client() as client:
            client.send("/clienttest/move", '"elsewhere.example.com"')
            self.assertEqual(client.event(), ("/qio/move", 0, "elsewhere.example.com"))
            client.ended()


class Shutdown(unittest.TestCase):
    """Shuts the server down, and must run last."""

    def test_going_away(self):
        clients = spread(6)
        for client in clients:
            client.request("/qio/on", '"/relay/end"')
        os.kill(int(os.environ["QUICKIO_PID"]), signal.SIGTERM)
        for client in clients:
            self.assertEqual(client.ended()[0], 1001)


def load_tests(loader, _tests, _pattern):
    """Returns all classes in a random order (the seed is printed), with the shutdown of the server last."""
    classes = [Handshake, Events, Subscriptions, Liveness, Closing]
    seed = int(os.environ.get("QUICKIO_FUZZ_SEED", os.getpid()))
    print(f"QUICKIO_FUZZ_SEED={seed}")
    random.Random(seed).shuffle(classes)
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in [*classes, Shutdown])


if __name__ == "__main__":
    unittest.main(verbosity=2)
