"""Runs functions of the application: on the loop where they are async, on threads where they are not."""

from __future__ import annotations

import asyncio
import functools
from types import CoroutineType
from typing import Any, Awaitable, Callable, List, Optional, Set, Tuple

from quickio._pool import Job, Pool
from quickio._report import break_off, end_child, forked, report, text_of
from quickio._wire import ClientKey

_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE


class Outcome:
    """Takes what a function returned or raised. This one is for functions that answer nobody."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def _settle(self, result: object) -> None:
        pass

    def _fail(self, error: BaseException) -> None:
        report(self._where, error)


class Runner:
    """Starts functions, and knows what is under way."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, threads_max: int, flush: Callable[[], None], flushers: Set[int]
    ) -> None:
        self._loop = loop
        self._tasks: Set[asyncio.Task[None]] = set()
        self._pool = Pool(loop, threads_max, self._run_plain, flush, flushers)
        self.submit: Callable[[List[Job]], None] = self._pool.submit
        self.has_no_plain: Callable[[], bool] = self._pool.is_idle

    def is_idle(self) -> bool:
        """Whether nothing is under way but what `task` has started."""
        return not self._tasks and self._pool.is_idle()

    def task(self, function: Callable[..., Any], args: Tuple[Any, ...], outcome: Any) -> asyncio.Task[None]:
        """Starts an async function. Whoever calls keeps the task: the loop does not.

        The constructor and not `loop.create_task`: it never begins before this returns, whatever task factory the
        application has set, and it is quicker.
        """
        return asyncio.Task(_finish(function, args, outcome), loop=self._loop)

    def start(
        self,
        function: Callable[..., Any],
        args: Tuple[Any, ...],
        outcome: Any,
        client: Optional[ClientKey] = None,
    ) -> None:
        """Starts any function. The loop's thread calls it."""
        if is_async(function):
            self._keep(self.task(function, args, outcome))
        else:
            self._pool.submit([(client, function, args, outcome)])

    def _run_plain(self, function: Callable[..., object], args: Tuple[Any, ...], outcome: Any) -> None:
        try:
            result = function(*args)
            if forked:
                end_child()
            if type(result) is CoroutineType:
                # A plain function that returns what an async one would, as wrappers do.
                self._loop.call_soon_threadsafe(self._adopt, result, outcome)
            else:
                outcome._settle(result)
        except BaseException as error:  # also `exit()`: one client's event must not end the process
            _fail(outcome, error)

    def _adopt(self, coroutine: Awaitable[object], outcome: Any) -> None:
        self._keep(asyncio.Task(_finish(lambda: coroutine, (), outcome), loop=self._loop))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _finish(function: Callable[..., Any], args: Tuple[Any, ...], outcome: Any) -> None:
    try:
        result = await function(*args)
        if forked:
            end_child()
        outcome._settle(result)
    except BaseException as error:  # also `exit()`, and the cancelling of one's own task
        _fail(outcome, error)


def _fail(outcome: Any, error: BaseException) -> None:
    """Tells an outcome of an exception. Never raises: a thread that ended here would leave its clients unserved."""
    if forked:
        end_child(error)
    try:
        outcome._fail(error)
    except BaseException as another:
        break_off(f"an error of the library\n{text_of(another)}")
    finally:
        # One that the application raises again and again would gather all the frames that it has ever passed. Not by an
        # assignment, which its class may forbid.
        BaseException.with_traceback(error, None)


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives something to await. A class with an async `__call__` has such objects."""
    code = getattr(function, "__code__", None)
    if code is None:
        # functools.partial, or an object that can be called.
        inner = function.func if isinstance(function, functools.partial) else getattr(type(function), "__call__", None)
        code = getattr(inner, "__code__", None)
    return code is not None and code.co_flags & _CO_COROUTINE != 0
