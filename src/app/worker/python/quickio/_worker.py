"""The life of a worker: hello, loading the script, ready, serving, shutdown."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import io
import os
import signal
import socket
import sys
import threading
import traceback
from contextvars import Context
from types import FrameType
from typing import Any, Callable, List, NoReturn, Optional, Sequence, Set

from quickio import _script
from quickio._app import App
from quickio._control import Control, Line
from quickio._dispatch import Clock, Dispatcher
from quickio._links import Link
from quickio._output import Output
from quickio._report import (
    abort,
    exit_child,
    exit_now,
    forked,
    format_error,
    log_errors_by,
    print_error,
    report,
    stop_logging_errors,
)
from quickio._runner import Runner
from quickio._wire import ProtocolError

PROTOCOL_VERSION = 1
RECEIVE_BYTES = 256 * 1024
# How often the shutdown checks whether all work is done.
SHUTDOWN_POLL_SECONDS = 0.002
# How long a thread computes before another one gets its turn. The loop must not wait long for a thread that computes.
SWITCH_SECONDS = 0.001
# Signals that the server handles for its workers.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# The signal mask of each thread before it forked.
_masks = threading.local()


def run(app: App, control_fd: int) -> NoReturn:
    """Runs the application until the server ends it, and exits."""
    # A signal to all processes of a terminal or a service also reaches the workers. The server decides about them, and
    # ends their links in order. SIG_IGN is not used because programs started by the application would inherit it.
    for number in IGNORED_SIGNALS:
        signal.signal(number, _ignore_signal)
    sys.setswitchinterval(SWITCH_SECONDS)
    _accept_any_text()
    loop = asyncio.SelectorEventLoop()
    # Set before the script is loaded: in older versions of Python, a lock or queue is bound to the loop when created.
    asyncio.set_event_loop(loop)
    control = Control(_socket(control_fd), loop)
    try:
        hello = control.read_hello()
        # Opened before the script is loaded: see `_socket`.
        sockets = [_socket(fd) for fd in hello.get("links", ())]
    except (ProtocolError, OSError) as error:
        abort(f"cannot start: {error}")
    code = _Worker(app, control, loop, hello, sockets).run()
    stop_logging_errors()
    # All work is done and all output is sent. A normal exit would wait for threads of the application, which may never
    # end; only the functions of `atexit` are run.
    try:
        atexit._run_exitfuncs()
    except BaseException as error:
        report("a function of atexit", error)
    exit_now(code)


def _ignore_signal(_number: int, _frame: Optional[FrameType]) -> None:
    pass


def _accept_any_text() -> None:
    """Makes `print` and `logging` accept every text, whatever the locale.

    Texts from clients may have halves of surrogate pairs, which have no form in UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _block_signals() -> None:
    """Runs before a fork. Signals that the child receives at once are delayed until it has its own handlers."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    # Programs started by the application must not hold the server's sockets open.
    sock.set_inheritable(False)
    return sock


class _Worker:
    """A worker process."""

    def __init__(
        self,
        app: App,
        control: Control,
        loop: asyncio.AbstractEventLoop,
        hello: Line,
        sockets: Sequence[socket.socket],
    ) -> None:
        self._app = app
        self._control = control
        self._loop = loop
        self._hello = hello
        self._sockets = sockets
        self._clock = Clock()
        self._links: List[Link] = []
        self._flushers: Set[int] = set()
        self._links_ended = asyncio.Event()
        # The files that the server watches after a failure.
        self._files_of_failure: List[str] = []

    def run(self) -> int:
        """Runs the worker to its end, and returns the exit code."""
        failure = self._load()
        return self._loop.run_until_complete(self._main() if failure is None else self._send_failed(failure))

    # Start.

    def _load(self) -> Optional[str]:
        """Loads the script. Returns a description of the failure, or `None` if it succeeded."""
        version = self._hello.get("version")
        if version != PROTOCOL_VERSION:
            ours = f"this library uses version {PROTOCOL_VERSION}; use the library that comes with the server"
            return f"the server uses version {version} of the worker protocol, but {ours}"
        app, hello, script = self._app, self._hello, self._hello["script"]
        app.name, app.instance, app.instances = hello["app"], hello["instance"], hello["instances"]
        app.settings = hello.get("settings", {})
        app._log_line = self._control.log
        log_errors_by(lambda text: self._control.log("error", text))
        os.register_at_fork(
            before=_block_signals, after_in_parent=_unblock_signals, after_in_child=self._disconnect_child
        )
        try:
            _script.load(script)
            _script.check_not_patched()
        except BaseException as error:
            if forked:
                exit_child(error)
            return self._describe_failure(error)
        if forked:
            exit_child()
        return None

    async def _main(self) -> int:
        self._control.start(lambda: os._exit(0))
        if self._hello.get("test"):
            return await self._test()
        try:
            await _call_all(self._app._start_hooks)
            _script.check_not_patched()
        except BaseException as error:
            return await self._send_failed(self._describe_failure(error))
        self._start_serving()
        await self._links_ended.wait()
        await self._shut_down()
        return 0

    async def _test(self) -> int:
        self._send_ready()
        try:
            await _call_all(self._app._self_tests)
        except BaseException as error:
            return await self._send_failed(self._describe_failure(error))
        self._control.send({"tested": True})
        await self._wait_until_sent()
        return 0

    async def _send_failed(self, why: str) -> int:
        self._control.send({"failed": why[:10_000], "files": self._files_of_failure})
        await self._wait_until_sent()
        return 1

    def _describe_failure(self, error: BaseException) -> str:
        if not isinstance(error, SystemExit):
            print_error(format_error(error))
        self._files_of_failure = _script.files_of_failure(error, self._hello["script"])
        return _script.describe_failure(error, self._hello["script"])

    # Serving.

    def _start_serving(self) -> None:
        app, loop = self._app, self._loop
        if not self._sockets:
            abort("cannot start: the hello names no links")
        for index, sock in enumerate(self._sockets):
            sock.setblocking(False)
            self._links.append(Link(index, sock, Output(sock, loop, self._flushers)))
        runner = Runner(loop, app.threads, self._flush, self._flushers)
        registrations = list(app._registrations.values())
        dispatcher = Dispatcher(loop, registrations, app._gone_hooks, app._timers, runner, self._clock)
        self._runner = runner
        announced = self._send_ready()
        app._start_serving(loop, self._links, lambda: self._clock.ms, announced)
        for link in self._links:
            link.on_callback_dropped = lambda callback: _call_soon(
                loop, dispatcher.callback_dropped, callback, runner.context.copy()
            )
            loop.add_reader(link.socket, self._on_readable, link, dispatcher)

    def _send_ready(self) -> List[Line]:
        """Sends the line `ready`. Returns the timers that it announces."""
        self._app._accepts_registrations = False
        timers = self._app._timers.to_ready()
        ready = {
            "version": PROTOCOL_VERSION,
            "events": [registration._to_ready() for registration in self._app._registrations.values()],
            "timers": timers,
            "files": _script.source_files(self._hello["script"]),
        }
        self._control.send({"ready": ready})
        return timers

    def _on_readable(self, link: Link, dispatcher: Dispatcher) -> None:
        if forked:
            exit_child()
        try:
            piece = link.socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        try:
            if piece:
                dispatcher.handle_frames(link, link.decoder.feed(piece))
            else:
                self._link_ended(link)
        except ProtocolError as error:
            abort(f"protocol error on link {link.index}: {error}; this worker exits")
        except Exception:
            abort(f"internal error; this worker exits\n{traceback.format_exc()}")

    def _link_ended(self, link: Link) -> None:
        if not link.decoder.is_between_frames():
            raise ProtocolError("the link ended in the middle of a frame")
        self._loop.remove_reader(link.socket)
        link.end()
        if all(link.ended for link in self._links):
            self._links_ended.set()

    def _flush(self) -> None:
        for link in self._links:
            link.output.flush()

    # Shutdown.

    async def _shut_down(self) -> None:
        await self._wait_until_idle()
        for hook in self._app._stop_hooks:
            try:
                await _call_all([hook])
            except BaseException as error:
                report("a function of app.stop", error)
        await _cancel_all()
        self._flush()
        await self._wait_until_sent()

    async def _wait_until_idle(self) -> None:
        """Waits until no request, hook or timer is running."""
        idle_checks = 0
        # Two checks in a row: a coroutine that a thread has just handed to the loop is briefly counted by neither.
        while idle_checks < 2:
            await asyncio.sleep(SHUTDOWN_POLL_SECONDS)
            is_idle = self._runner.is_idle() and not any(link.pending_requests for link in self._links)
            idle_checks = idle_checks + 1 if is_idle else 0

    async def _wait_until_sent(self) -> None:
        outputs = [self._control.output] + [link.output for link in self._links]
        while not all(output.is_empty() for output in outputs):
            await asyncio.sleep(SHUTDOWN_POLL_SECONDS)

    def _disconnect_child(self) -> None:
        """Runs in a child process that the application has forked."""
        forked.append(True)
        self._app._disconnect()
        for output in [self._control.output] + [link.output for link in self._links]:
            output.disable()
        # The parent may want to end the child with these signals.
        for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) is _ignore_signal:
                signal.signal(number, default)
        _unblock_signals()


async def _call_all(functions: Sequence[Callable[[], Any]]) -> None:
    """Calls functions for start, stop or self-test, async or not. Nothing else runs, so plain ones need no thread."""
    for function in functions:
        try:
            result = function()
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if forked:
                exit_child(error)
            raise
        if forked:
            exit_child()


async def _cancel_all() -> None:
    """Cancels the application's own tasks, as `asyncio.run` does: they can clean up, and no warning is printed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _call_soon(
    loop: asyncio.AbstractEventLoop, function: Callable[..., object], argument: object, context: Context
) -> None:
    try:
        loop.call_soon_threadsafe(function, argument, context=context)
    except RuntimeError:
        pass  # the loop has been closed
