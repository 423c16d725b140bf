"""Who has sent an event: a client, and what the application keeps for it."""

from __future__ import annotations

from typing import Any, Dict, Optional

from quickio._links import Link
from quickio._wire import ClientKey


class Client:
    """A client of the server, for as long as it is connected; one that connects again is another.

    There may be several objects for one client: they are equal, and the same key of a dictionary.
    """

    __slots__ = ("_link", "_key", "_data")

    def __init__(self, link: Link, key: ClientKey) -> None:
        self._link = link
        self._key = key
        self._data: Optional[Dict[str, Any]] = None

    @property
    def shard(self) -> int:
        """The shard of the server on which it lives."""
        return self._key[0]

    @property
    def id(self) -> str:
        """Its name, for logs: the shard, and two numbers. No other client ever has it."""
        return "%d.%d.%d" % self._key

    @property
    def data(self) -> Dict[str, Any]:
        """What the application keeps for it: a dictionary that is empty at first.

        It is forgotten when the client has gone, behind its off-hooks and behind the functions of `app.gone`, which are
        called for clients whose data was used.
        """
        data = self._data
        return self._begin_data() if data is None else data

    def _begin_data(self) -> Dict[str, Any]:
        # Several threads may be at it, with this object or others for the same client: one of them wins, and all take
        # its data. So what is put there is nobody else's until then.
        mine = Client(self._link, self._key)
        mine._data = {}
        winner = self._link.watched.setdefault(self._key, mine)
        if winner is mine:
            self._link.watch(self._key)
        data = winner._data
        assert data is not None, "a watched client has its data from the start"
        self._data = data
        return data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Client({self.id})"


def client_of(link: Link, key: ClientKey) -> Client:
    """The object that has the client's data, or a new one."""
    return link.watched.get(key) or Client(link, key)
