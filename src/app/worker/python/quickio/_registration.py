"""Registered events, with their handlers and hooks."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, TypeVar

from quickio._answers import check_callable
from quickio._events import Event, Subscription, Unsubscribed
from quickio._runner import is_async

Handler = Callable[[Event], object]
OnHook = TypeVar("OnHook", bound=Callable[[Subscription], object])
OffHook = TypeVar("OffHook", bound=Callable[[Unsubscribed], object])


class Registration:
    """A registered event, created by `app.event`.

        @app.event("/room", children=True)
        async def room(event): ...

        @room.on
        async def may_join(subscription): ...
    """

    def __init__(
        self,
        path: str,
        children: bool,
        subscriptions: bool,
        client_info: bool,
        accepts_registrations: Callable[[], bool],
    ) -> None:
        self.path = path
        self.children = children
        self.subscriptions = subscriptions
        self.client_info = client_info
        self._handler: Optional[Handler] = None
        self._handler_is_async = False
        self._on_hook: Optional[Callable[..., object]] = None
        self._off_hook: Optional[Callable[..., object]] = None
        self._accepts_registrations = accepts_registrations

    def __call__(self, handler: Handler) -> Registration:
        """Sets the handler. Its return value is data, an `Answer`, a promise from `event.later()`, or `NEVER`."""
        self._check(handler, self._handler, "a handler")
        self._handler = handler
        self._handler_is_async = is_async(handler)
        return self

    @property
    def handler(self) -> Optional[Handler]:
        """The function that handles the event. Without one, clients are answered 500."""
        return self._handler

    def on(self, hook: OnHook) -> OnHook:
        """Sets the on-hook, which decides who may subscribe: `True` accepts, `False` refuses. A decorator."""
        self._check(hook, self._on_hook, "an on-hook")
        if not self.subscriptions:
            raise ValueError(f"{self.path} has subscriptions=False: it cannot have an on-hook")
        self._on_hook = hook
        return hook

    def off(self, hook: OffHook) -> OffHook:
        """Sets the off-hook, which is called for each subscription that has ended. A decorator."""
        self._check(hook, self._off_hook, "an off-hook")
        self._off_hook = hook
        return hook

    def __repr__(self) -> str:
        return f"Registration({self.path!r})"

    def _check(self, value: object, present: object, what: str) -> None:
        check_callable(value)
        if present is not None:
            raise ValueError(f"{self.path} already has {what}")
        if not self._accepts_registrations():
            raise RuntimeError(f"cannot give {self.path} {what} after the start: do it while the script is loaded")

    def _to_ready(self) -> Dict[str, Any]:
        """Returns the event's entry in the line `ready`."""
        everyone = "everyone" if self.subscriptions else "nobody"
        ready: Dict[str, Any] = {
            "path": self.path,
            "children": self.children,
            "handler": self._handler is not None,
            "subscriptions": everyone if self._on_hook is None else "ask",
            "off": self._off_hook is not None,
        }
        if self._on_hook is not None:
            ready["options"] = True
        if self.client_info:
            ready["client_info"] = True
        return ready
