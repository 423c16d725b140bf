"""Events that an application registers."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, TypeVar

from quickio._answers import function
from quickio._events import Event, Subscription, Unsubscribed
from quickio._runner import is_async

Handler = Callable[[Event], object]
OnHook = TypeVar("OnHook", bound=Callable[[Subscription], object])
OffHook = TypeVar("OffHook", bound=Callable[[Unsubscribed], object])


class Registration:
    """A registered event, made by `app.event`.

        @app.event("/room", children=True)
        async def room(event): ...

        @room.on
        async def may_join(subscription): ...
    """

    def __init__(self, path: str, children: bool, subscriptions: bool, is_open: Callable[[], bool]) -> None:
        self.path = path
        self.children = children
        self.subscriptions = subscriptions
        self._handler: Optional[Handler] = None
        self._handler_is_async = False
        self._on_hook: Optional[Callable[..., object]] = None
        self._off_hook: Optional[Callable[..., object]] = None
        self._is_open = is_open

    def __call__(self, handler: Handler) -> Registration:
        """Sets the handler. It returns the answer's data, or an `Answer`, a promise to answer later, or `NEVER`."""
        self._check(handler, self._handler, "handler")
        self._handler = handler
        self._handler_is_async = is_async(handler)
        return self

    @property
    def handler(self) -> Optional[Handler]:
        """The function that handles the event; without one clients are answered 500."""
        return self._handler

    def on(self, hook: OnHook) -> OnHook:
        """Sets the on-hook, which decides who may subscribe: `True` accepts, `False` refuses. A decorator."""
        self._check(hook, self._on_hook, "on-hook")
        if not self.subscriptions:
            raise ValueError(f"nobody may subscribe to {self.path}: an on-hook has nothing to decide")
        self._on_hook = hook
        return hook

    def off(self, hook: OffHook) -> OffHook:
        """Sets the off-hook, which is told of subscriptions that have ended. A decorator."""
        self._check(hook, self._off_hook, "off-hook")
        self._off_hook = hook
        return hook

    def __repr__(self) -> str:
        return f"Registration({self.path!r})"

    def _check(self, value: object, present: object, what: str) -> None:
        function(value)
        if present is not None:
            raise ValueError(f"{self.path} has its {what} already")
        if not self._is_open():
            raise RuntimeError(f"{self.path}: the server has been told what there is, and the {what} comes too late")

    def _to_ready(self) -> Dict[str, Any]:
        """What the line `ready` says of it."""
        everyone = "everyone" if self.subscriptions else "nobody"
        return {
            "path": self.path,
            "children": self.children,
            "handler": self._handler is not None,
            "subscriptions": everyone if self._on_hook is None else "ask",
            "off": self._off_hook is not None,
        }
