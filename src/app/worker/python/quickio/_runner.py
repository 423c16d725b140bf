"""Execution of the application's functions: async functions on the loop, plain functions on threads."""

from __future__ import annotations

import asyncio
import functools
from types import CoroutineType
from typing import Any, Awaitable, Callable, List, Optional, Set, Tuple

from quickio._context import BaseContext
from quickio._pool import Job, Pool
from quickio._report import abort, exit_child, forked, format_error, report, safe_name
from quickio._wire import ClientKey

_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE


class Outcome:
    """Receives the return value or the exception of a function. This class is for functions that answer no client."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def _set_result(self, result: object) -> None:
        pass

    def _set_exception(self, error: BaseException) -> None:
        report(self._where, error)


class Runner:
    """Starts the application's functions, and tracks which of them are running."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, threads_max: int, flush: Callable[[], None], flushers: Set[int]
    ) -> None:
        self._loop = loop
        # Created when the start functions have run, in their context.
        self.context = BaseContext()
        self._tasks: Set[asyncio.Task[None]] = set()
        self._pool = Pool(loop, threads_max, self._run_job, flush, flushers)
        self.submit: Callable[[List[Job]], None] = self._pool.submit
        self.is_pool_idle: Callable[[], bool] = self._pool.is_idle

    def is_idle(self) -> bool:
        """Returns whether no function is running. Tasks of `create_task` are not counted; their callers track them."""
        return not self._tasks and self._pool.is_idle()

    def create_task(self, function: Callable[..., Any], args: Tuple[Any, ...], outcome: Any) -> asyncio.Task[None]:
        """Starts an async function. The caller must keep the task, because the loop does not keep it alive.

        The constructor is used rather than `loop.create_task`: it is faster, and the task never begins before this
        returns, even if the application has set a task factory.
        """
        return asyncio.Task(_finish(self.context, function, args, outcome), loop=self._loop)

    def start(
        self,
        function: Callable[..., Any],
        args: Tuple[Any, ...],
        outcome: Any,
        client: Optional[ClientKey] = None,
    ) -> None:
        """Starts a function of either kind. Only the loop's thread calls this."""
        if is_async(function):
            self._keep_alive(self.create_task(function, args, outcome))
        else:
            self._pool.submit([(client, function, args, outcome)])

    def _run_job(self, function: Callable[..., object], args: Tuple[Any, ...], outcome: Any) -> None:
        try:
            context = self.context.copy()
            result = context.run(self._call, function, args)
            if forked:
                exit_child()
            if type(result) is CoroutineType:
                # A plain function that returns a coroutine, such as a wrapper of an async function.
                self._loop.call_soon_threadsafe(self._run_coroutine, result, outcome, context=context)
            else:
                outcome._set_result(result)
        except BaseException as error:  # includes SystemExit: one client's event must not end the process
            _fail(outcome, error)

    def _call(self, function: Callable[..., object], args: Tuple[Any, ...]) -> object:
        self.context.renew_decimal()
        return function(*args)

    def _run_coroutine(self, coroutine: Awaitable[object], outcome: Any) -> None:
        self._keep_alive(asyncio.Task(_finish(None, lambda: coroutine, (), outcome), loop=self._loop))

    def _keep_alive(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _finish(
    context: Optional[BaseContext], function: Callable[..., Any], args: Tuple[Any, ...], outcome: Any
) -> None:
    try:
        # The task has a copy of the context in which it was created: that of the loop's reader.
        if context is not None:
            context.renew_decimal()
        result = await function(*args)
        if forked:
            exit_child()
        outcome._set_result(result)
    except BaseException as error:  # includes SystemExit, and the cancellation of the task by itself
        _fail(outcome, error)


def _fail(outcome: Any, error: BaseException) -> None:
    """Passes an exception to an outcome. Never raises: a thread that ended here would no longer serve its clients."""
    if forked:
        exit_child(error)
    try:
        try:
            outcome._set_exception(error)
        except BaseException as another:
            # The application has made an exception that cannot be examined, for example by a property that raises.
            outcome._set_exception(RuntimeError(f"{safe_name(error)} was raised, and {safe_name(another)} by it"))
    except BaseException as another:
        abort(f"internal error; this worker exits\n{format_error(another)}")
    finally:
        # An exception object that the application raises repeatedly would otherwise keep every frame it has passed
        # through. The method is called on the base class, because the object's class may forbid the assignment.
        BaseException.with_traceback(error, None)


def is_async(function: Callable[..., object]) -> bool:
    """Returns whether a call of the function returns a coroutine. This includes objects with an async `__call__`."""
    code = getattr(function, "__code__", None)
    if code is None:
        # functools.partial, or a callable object.
        inner = function.func if isinstance(function, functools.partial) else getattr(type(function), "__call__", None)
        code = getattr(inner, "__code__", None)
    return code is not None and code.co_flags & _CO_COROUTINE != 0
