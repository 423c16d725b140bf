"""Clients, and the data that the application keeps for them."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

from quickio._links import Link
from quickio._wire import ClientKey


class Client:
    """A client of the server, for as long as it is connected. A client that reconnects is a new client.

    Several objects may represent one client: they are equal and have the same hash.
    """

    __slots__ = ("_link", "_key", "_data")

    def __init__(self, link: Link, key: ClientKey) -> None:
        self._link = link
        self._key = key
        self._data: Optional[Dict[str, Any]] = None

    @property
    def shard(self) -> int:
        """The index of the server's shard that owns the client."""
        return self._key[0]

    @property
    def id(self) -> str:
        """A unique name for logs: the shard and two numbers. It is never used again for another client."""
        return "%d.%d.%d" % self._key

    @property
    def data(self) -> Dict[str, Any]:
        """The application's data for this client: a dictionary, empty at first.

        The data is dropped after the client has disconnected, its off-hooks have run, and the functions registered by
        `app.gone` have run. Those functions are called only for clients whose data was used, by this worker or by an
        earlier one that has been replaced or has crashed. In the second case the data is empty.
        """
        data = self._data
        return self._create_data() if data is None else data

    def _create_data(self) -> Dict[str, Any]:
        # Several threads may run this at once, on this object or on other objects for the same client. `setdefault`
        # lets one of them win, and all use its dictionary. The object stored must therefore not be in use elsewhere.
        candidate = Client(self._link, self._key)
        candidate._data = {}
        winner = self._link.watched.setdefault(self._key, candidate)
        if winner is candidate:
            self._link.watch(self._key)
        data = winner._data
        assert data is not None, "a watched client has data from the start"
        self._data = data
        return data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Client({self.id})"


class ClientInfo:
    """What the server knows of a client, at the time of an event or of a request to subscribe."""

    __slots__ = ("user", "claims", "address", "headers", "certificate")

    user: Optional[str]
    """The user that the client has authenticated as, or `None`."""
    claims: Optional[Dict[str, Any]]
    """The claims of the client's token, or `None`."""
    address: Optional[str]
    """The client's IP address, or `None` for a Unix socket."""
    headers: Dict[str, str]
    """The headers that the server's setting `app-headers` names, by their names in lower case."""
    certificate: Optional[str]
    """The subject of the client's TLS certificate, or `None`."""

    def __init__(self, raw: bytes) -> None:
        # The client may have disconnected.
        info = json.loads(raw) or {}
        self.user = info.get("user")
        self.claims = info.get("claims")
        self.address = info.get("address")
        self.headers = info.get("headers", {})
        self.certificate = info.get("certificate")

    @property
    def origin(self) -> Optional[str]:
        """The origin of the page that has connected, if `app-headers` names `origin`."""
        return self.headers.get("origin")

    def __repr__(self) -> str:
        return f"ClientInfo(user={self.user!r}, address={self.address!r})"


def client_of(link: Link, key: ClientKey) -> Client:
    """Returns the object that holds the client's data, or a new object if there is no data."""
    return link.watched.get(key) or Client(link, key)


def gone_client(link: Link, key: ClientKey) -> Client:
    """Returns an object for a client that has disconnected. Its data is empty. Using it does not watch the client."""
    client = Client(link, key)
    client._data = {}
    return client
