"""Python library for applications of QuickIO, the server for real-time events.

    from quickio import app

    @app.event("/hello")
    async def hello(event):
        return "hello " + str(event.data)

`quickio --app hello.py` runs this application. `app` is the application; each process has one. The other names in this
package are the types that its functions receive, return and raise.

An `async def` function runs on the event loop of the process, concurrently with all other async functions. Async
functions start in the order in which the server sent their requests. A plain `def` function runs on a thread and may
block. The plain functions for one client never run at the same time, and run in order.

A script can also be imported without a server, for example by its unit tests. Events are registered as usual,
`Registration.handler` is the function, and every call that needs a server raises `NotRunning`.
"""

# This file has to parse on any Python, up to the check below, which tells the user the required version.
import sys

if sys.version_info < (3, 9):
    from quickio import _old

    _old.refuse()

from quickio._answers import NEVER, Answer
from quickio._app import App
from quickio._client import Client, ClientInfo
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
    "ClientInfo",
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
