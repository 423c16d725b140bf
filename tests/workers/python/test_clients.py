"""Clients and their data."""

from support import ADA, ANSWER, BOB, BROADCAST, GONE, OFF, ON, WATCH, Case, answer, event, frame

from quickio import _client


class Clients(Case):
    SCRIPT = """
        from quickio import app
        @app.event("/count")
        {async_}def count(event):
            event.client.data["count"] = event.client.data.get("count", 0) + 1
            return event.client.data["count"]
        @count.off
        {off}def off(unsubscribed):
            unsubscribed.client.data["off"] = True
        @app.gone
        {gone}def gone(client):
            app.broadcast("/gone", [client.id, client.data])
        """

    def test_data_is_kept_until_the_client_has_disconnected(self):
        for mode in range(8):
            words = ["async " if mode & bit else "" for bit in (1, 2, 4)]
            with self.subTest(words):
                script = self.SCRIPT.format(async_=words[0], off=words[1], gone=words[2])
                worker = self.worker(script, links=1)
                worker.send(event(1), event(2), event(3, client=BOB))
                frames = worker.take(5)
                self.assertEqual(frames.count(frame(WATCH, client=ADA)), 1)
                self.assertEqual(frames.count(frame(WATCH, client=BOB)), 1)
                expected = [answer(1, b"1"), answer(2, b"2"), answer(3, b"1")]
                self.assertEqual([raw for raw in frames if raw[4] == ANSWER], expected)
                # Sent in one piece: the event, the end of the subscription and GONE are still handled in this order.
                worker.send(event(4), frame(OFF, client=ADA), frame(GONE, client=ADA))
                gone = frame(BROADCAST, b"/gone", b'["0.5.7",{"count":3,"off":true}]')
                self.assertEqual(worker.take(2), [answer(4, b"3"), gone])
                # An event of a client that is already gone starts with new data, and a new WATCH.
                worker.send(event(5))
                self.assertEqual(worker.take(2), [frame(WATCH, client=ADA), answer(5, b"1")])
                worker.send(frame(GONE, client=ADA))
                self.assertEqual(worker.next(), frame(BROADCAST, b"/gone", b'["0.5.7",{"count":1}]'))
                # A client that only an earlier worker has watched: its data is empty, and it is not watched again.
                worker.send(frame(GONE, client=(0, 9, 9)))
                self.assertEqual(worker.next(), frame(BROADCAST, b"/gone", b'["0.9.9",{}]'))

    def test_clients_are_keys_of_dictionaries(self):
        worker = self.worker(
            """
            from quickio import app
            seen = {}
            @app.event("/seen")
            async def seen_before(event):
                before = event.client in seen
                seen[event.client] = 1
                return [before, len(seen), event.client.shard, event.client == "x", event.client is event.client]
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b"[false,1,0,false,true]"))
        self.assertEqual(worker.ask(2), answer(2, b"[true,1,0,false,true]"))
        self.assertEqual(worker.ask(3, client=(0, 5, 8)), answer(3, b"[false,2,0,false,true]"))
        self.assertEqual(worker.ask(4, client=BOB, link=1), answer(4, b"[false,3,1,false,true]"))

    def test_threads_that_race_for_the_data_share_it(self):
        worker = self.worker(
            """
            import threading
            from quickio import app
            @app.event("/race")
            async def race(event):
                from quickio._client import client_of
                clients = [client_of(event.client._link, event.client._key) for _ in range(8)]
                threads = [threading.Thread(target=lambda c=c: c.data.setdefault("x", [])) for c in clients]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                return len({id(client.data) for client in clients})
            """
        )
        for nth in range(1, 51):
            client = (0, nth, 1)
            worker.send(event(nth, client=client))
            self.assertEqual(worker.take(2), [frame(WATCH, client=client), answer(nth, b"1")])

    def test_threads_that_race_with_the_same_object_share_its_data(self):
        others = []

        class Watched(dict):
            def setdefault(self, key, value):
                if not others:  # another thread that has found no data either
                    others.append(None)
                    others[0] = client._create_data()
                return super().setdefault(key, value)

        class Link:
            watched, watches = Watched(), []
            watch = watches.append

        client = _client.Client(Link, ADA)
        self.assertIs(client.data, others[0])
        self.assertIs(client.data, others[0])
        self.assertEqual(Link.watches, [ADA])

    def test_an_error_in_gone_is_logged(self):
        worker = self.worker(
            """
            from quickio import app
            @app.event("/watch")
            async def watch(event): event.client.data
            @app.gone
            def first(client): raise OSError("first")
            @app.gone
            async def second(client): app.broadcast("/second")
            """,
            links=1,
        )
        worker.send(event(1))
        worker.take(2)
        worker.send(frame(GONE, client=ADA))
        self.assertEqual(worker.next(), frame(BROADCAST, b"/second"))
        self.assert_log(worker, "OSError: first", "a function of app.gone")

    def test_events_bring_what_the_server_knows_of_the_client(self):
        worker = self.worker(
            """
            from quickio import app
            @app.event("/who", client_info=True)
            async def who(event):
                info = event.info
                return [event.extra, info.user, info.claims, info.origin, info.address, info.certificate]
            @who.on
            def on(subscription):
                return subscription.info.user == "7"
            @app.event("/plain")
            async def plain(event):
                try:
                    return event.info
                except RuntimeError as error:
                    return str(error)
            """
        )
        info = b'{"user":"7","claims":{"a":1},"address":"::1","headers":{"origin":"o"},"certificate":"CN=x"}'
        worker.send(event(1, text=b"/x\n" + info, flags=5))
        self.assertEqual(worker.next(), answer(1, b'["/x","7",{"a":1},"o","::1","CN=x"]'))
        worker.send(event(2, text=b"\nnull", flags=5))
        self.assertEqual(worker.next(), answer(2, b'["",null,null,null,null,null]'))
        worker.send(frame(ON, b"/x\n" + info, flags=4, request=3, client=ADA))
        self.assertEqual(worker.next(), answer(3))
        # Options of the subscription are before it.
        worker.send(frame(ON, b'/x\n{"history":1}\n' + info, flags=12, request=3, client=ADA))
        self.assertEqual(worker.next(), answer(3))
        worker.send(event(4, number=1))
        self.assertEqual(worker.next(), answer(4, b'"register /plain with client_info=True to use `info`"'))
