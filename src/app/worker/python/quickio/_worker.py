"""The life of a worker: hello, the script, ready, serving, the end."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import signal
import socket
import sys
import threading
import traceback
from types import FrameType
from typing import Any, Callable, List, NoReturn, Optional, Sequence, Set

from quickio import _script
from quickio._app import App
from quickio._control import Control, Line
from quickio._dispatch import Clock, Dispatcher
from quickio._links import Link
from quickio._output import Output
from quickio._report import break_off, end_child, exit_now, forked, report, show, text_of
from quickio._runner import Runner
from quickio._wire import ProtocolError

PROTOCOL_VERSION = 1
RECEIVE_BYTES = 256 * 1024
# How often it is looked, at the end, whether everything is done.
END_TICK_SECONDS = 0.002
# How long a thread computes before another one gets its turn. The loop must not wait long for a function that does.
SWITCH_SECONDS = 0.001
LEFT_TO_THE_SERVER = (signal.SIGINT, signal.SIGTERM)

# What each thread that forks had blocked before.
_masks = threading.local()


def run(app: App, control_fd: int) -> NoReturn:
    """Runs the application to its end, and exits."""
    # What a signal to all processes of a terminal or a service means for its workers is decided by the server, which
    # ends their links in order. Not by SIG_IGN, which what the application starts would inherit.
    for number in LEFT_TO_THE_SERVER:
        signal.signal(number, _left_to_the_server)
    sys.setswitchinterval(SWITCH_SECONDS)
    loop = asyncio.SelectorEventLoop()
    # Before the script is loaded: older Pythons tie a lock or a queue to the loop when it is made.
    asyncio.set_event_loop(loop)
    control = Control(_socket(control_fd), loop)
    try:
        hello = control.hello()
        # Before the script is loaded: see `_socket`.
        sockets = [_socket(fd) for fd in hello.get("links", ())]
    except (ProtocolError, OSError) as error:
        break_off(f"{error}")
    code = _Worker(app, control, loop, hello, sockets).run()
    # All is done and written. Python would wait for threads of the application now, some of which never end.
    try:
        atexit._run_exitfuncs()
    except BaseException as error:
        report("a function of atexit", error)
    exit_now(code)


def _left_to_the_server(_number: int, _frame: Optional[FrameType]) -> None:
    pass


def _block_signals() -> None:
    """Before a fork: what its child is sent at once waits until that has its own handlers."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_SERVER)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    # What the application starts must not hold the server's sockets.
    sock.set_inheritable(False)
    return sock


class _Worker:
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

    def run(self) -> int:
        failed = self._load()
        return self._loop.run_until_complete(self._serve() if failed is None else self._failed(failed))

    # The beginning.

    def _load(self) -> Optional[str]:
        """Loads the script; why it failed, if it did."""
        version = self._hello.get("version")
        if version != PROTOCOL_VERSION:
            return f"the server speaks version {version} of the worker protocol, this library {PROTOCOL_VERSION}"
        app, hello, script = self._app, self._hello, self._hello["script"]
        app.name, app.instance, app.instances = hello["app"], hello["instance"], hello["instances"]
        app.settings = hello.get("settings", {})
        app._log_line = self._control.log
        os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals, after_in_child=self._leave)
        try:
            _script.load(script)
        except BaseException as error:
            if forked:
                end_child(error)
            return self._why(error)
        if forked:
            end_child()
        return None

    async def _serve(self) -> int:
        self._control.serve(lambda: os._exit(0))
        if self._hello.get("test"):
            return await self._test()
        try:
            await _call_all(self._app._start)
        except BaseException as error:
            return await self._failed(self._why(error))
        self._begin()
        await self._links_ended.wait()
        await self._end()
        return 0

    async def _test(self) -> int:
        self._say_ready()
        try:
            await _call_all(self._app._self_test)
        except BaseException as error:
            return await self._failed(self._why(error))
        self._control.send({"tested": True})
        await self._all_written()
        return 0

    async def _failed(self, why: str) -> int:
        self._control.send({"failed": why[:10_000]})
        await self._all_written()
        return 1

    def _why(self, error: BaseException) -> str:
        if not isinstance(error, SystemExit):
            show(text_of(error))
        return _script.failure(error, self._hello["script"])

    # Serving.

    def _begin(self) -> None:
        app, loop = self._app, self._loop
        if not self._sockets:
            break_off("hello names no links")
        for index, sock in enumerate(self._sockets):
            sock.setblocking(False)
            self._links.append(Link(index, sock, Output(sock, loop, self._flushers)))
        runner = Runner(loop, app.threads, self._flush, self._flushers)
        registrations = list(app._registrations.values())
        dispatcher = Dispatcher(loop, registrations, app._gone, app._timers, runner, self._clock)
        self._runner = runner
        told = self._say_ready()
        app._begin(loop, self._links, lambda: self._clock.ms, told)
        for link in self._links:
            link.on_unanswerable = lambda callback: _soon(loop, dispatcher.unanswerable, callback)
            loop.add_reader(link.socket, self._on_readable, link, dispatcher)

    def _say_ready(self) -> List[Line]:
        """Tells what there is; the timers of which it told."""
        self._app._is_open = False
        timers = self._app._timers.to_ready()
        ready = {
            "version": PROTOCOL_VERSION,
            "events": [registration._to_ready() for registration in self._app._registrations.values()],
            "timers": timers,
            "files": _script.files(self._hello["script"]),
        }
        self._control.send({"ready": ready})
        return timers

    def _on_readable(self, link: Link, dispatcher: Dispatcher) -> None:
        if forked:
            end_child()
        try:
            piece = link.socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        try:
            if piece:
                dispatcher.take(link, link.decoder.feed(piece))
            else:
                self._link_ended(link)
        except ProtocolError as error:
            break_off(f"link {link.index}: the server has sent {error}")
        except Exception:
            break_off(f"an error of the library\n{traceback.format_exc()}")

    def _link_ended(self, link: Link) -> None:
        if not link.decoder.is_between_frames():
            raise ProtocolError("the end in the midst of a frame")
        self._loop.remove_reader(link.socket)
        link.end()
        if all(link.ended for link in self._links):
            self._links_ended.set()

    def _flush(self) -> None:
        for link in self._links:
            link.output.flush()

    # The end.

    async def _end(self) -> None:
        await self._all_done()
        for function in self._app._stop:
            try:
                await _call_all([function])
            except BaseException as error:
                report("a function of app.stop", error)
        await _cancel_all()
        self._flush()
        await self._all_written()

    async def _all_done(self) -> None:
        """Waits for what is under way: requests, hooks, runs of timers."""
        idle_ticks = 0
        # Twice: what a thread has just handed to the loop belongs to nobody for a moment.
        while idle_ticks < 2:
            await asyncio.sleep(END_TICK_SECONDS)
            is_idle = self._runner.is_idle() and not any(link.under_way for link in self._links)
            idle_ticks = idle_ticks + 1 if is_idle else 0

    async def _all_written(self) -> None:
        outputs = [self._control.output] + [link.output for link in self._links]
        while not all(output.is_empty() for output in outputs):
            await asyncio.sleep(END_TICK_SECONDS)

    def _leave(self) -> None:
        """In a child that the application has forked."""
        forked.append(True)
        self._app._leave()
        for output in [self._control.output] + [link.output for link in self._links]:
            output.mute()
        # Who has forked it may want to end it so.
        for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) is _left_to_the_server:
                signal.signal(number, default)
        _unblock_signals()


async def _call_all(functions: Sequence[Callable[[], Any]]) -> None:
    """Those of start, stop and self-test, async or not: nothing else runs, so they need no thread."""
    for function in functions:
        try:
            result = function()
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if forked:
                end_child(error)
            raise
        if forked:
            end_child()


async def _cancel_all() -> None:
    """What the application has started by itself ends as under `asyncio.run`: it can clean up, and is not warned of."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], argument: object) -> None:
    try:
        loop.call_soon_threadsafe(function, argument)
    except RuntimeError:
        pass  # the loop has ended
