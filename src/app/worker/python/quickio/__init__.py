"""Applications of QuickIO, the server for real-time events, in Python.

    from quickio import app

    @app.event("/hello")
    async def hello(event):
        return "hello " + str(event.data)

`quickio --app hello.py` serves it. `app` is the application: one for the process. All else here is what its functions
are given, may return and may raise.

An `async def` function runs on the process's one event loop, beside all others of that kind; those are started in the
order in which the server sent what they are for. A plain `def` function runs on a thread, so it may block; the plain
functions of one client never run at the same time, and run in order.

A script can be imported without a server too, by its own unit tests: events are registered, `Registration.handler` is
the function, and what would reach a server raises `NotRunning`.
"""

# This file must parse, and get as far as the next lines, on any Python: they say which one is needed.
import sys

if sys.version_info < (3, 9):
    from quickio import _old

    _old.refuse()

from quickio._answers import NEVER, Answer
from quickio._app import App
from quickio._client import Client
from quickio._errors import AlreadyAnswered, BadData, Dropped, NotRunning, Refusal
from quickio._events import Event, Reply, Subscription, Unsubscribed
from quickio._json import Json
from quickio._later import Later, LaterDecision
from quickio._registration import Registration
from quickio._timers import Timer

__all__ = [
    "NEVER",
    "AlreadyAnswered",
    "Answer",
    "App",
    "BadData",
    "Client",
    "Dropped",
    "Event",
    "Json",
    "Later",
    "LaterDecision",
    "NotRunning",
    "Refusal",
    "Registration",
    "Reply",
    "Subscription",
    "Timer",
    "Unsubscribed",
    "app",
]

app = App()
"""The application of this process."""
