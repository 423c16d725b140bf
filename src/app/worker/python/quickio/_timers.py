"""Timers, which run functions by the server's clock."""

from __future__ import annotations

import math
from threading import RLock
from typing import Any, Callable, Dict, List, Optional

from quickio._answers import check_callable
from quickio._links import Link
from quickio._report import report
from quickio._runner import Runner
from quickio._wire import CANCEL, NUMBER_MAX, REPEATED, TIMER, frame

SECONDS_MAX = 10 * 365 * 24 * 3600.0


class Timer:
    """A function that runs once after a time, or repeatedly."""

    __slots__ = ("_timers", "_number", "_ms", "_repeats", "_function", "_is_running")

    def __init__(self, timers: Timers, number: int, ms: int, repeats: bool, function: Callable[[], object]) -> None:
        self._timers = timers
        self._number = number
        self._ms = ms
        self._repeats = repeats
        self._function = function
        self._is_running = False

    def cancel(self) -> None:
        """Prevents all further runs. A run that has begun continues. Any thread may call this, any number of times."""
        self._timers._cancel(self)

    def _set_result(self, result: object) -> None:
        self._is_running = False

    def _set_exception(self, error: BaseException) -> None:
        self._is_running = False
        report("a timer", error)


class Timers:
    """All timers of the process. The server runs them; timers set before it is connected are sent to it later."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run a destructor that cancels another timer while this thread holds it.
        self._lock = RLock()
        self._timers: Dict[int, Timer] = {}
        self._last = 0
        self._link: Optional[Link] = None

    def set(self, seconds: float, function: Callable[[], object], repeats: bool) -> Timer:
        """Sets a timer."""
        ms = _milliseconds(seconds, 1 if repeats else 0)
        check_callable(function)
        with self._lock:
            timer = Timer(self, self._unused_number(), ms, repeats, function)
            self._timers[timer._number] = timer
            link = self._link
        if link is not None:
            _send(link, timer)
        return timer

    def to_ready(self) -> List[Dict[str, int]]:
        """Returns the repeating timers as the line `ready` announces them."""
        with self._lock:
            timers = list(self._timers.values())
            return [{"timer": timer._number, "ms": timer._ms} for timer in timers if timer._repeats]

    def connect(self, link: Link, announced: List[Dict[str, int]]) -> None:
        """Connects the timers to the server, to which `ready` has announced some of them."""
        numbers = {timer["timer"] for timer in announced}
        with self._lock:
            self._link = link
            unannounced = [timer for timer in list(self._timers.values()) if timer._number not in numbers]
            cancelled = numbers - self._timers.keys()
        for timer in unannounced:
            _send(link, timer)
        for number in cancelled:
            link.write(frame(CANCEL, number=number))

    def fire(self, number: int, runner: Runner) -> None:
        """Runs a timer that is due. A timer that was cancelled after the server sent the frame is ignored."""
        timer = self._timers.get(number)
        if timer is None:
            return
        if not timer._repeats:
            self._timers.pop(number, None)
        if not timer._is_running:
            timer._is_running = True
            runner.start(timer._function, (), timer)

    def _cancel(self, timer: Timer) -> None:
        with self._lock:
            was_set = self._timers.pop(timer._number, None) is not None
            link = self._link
        if was_set and link is not None:
            link.write(frame(CANCEL, number=timer._number))

    def _unused_number(self) -> int:
        while True:
            number = self._last % NUMBER_MAX + 1
            self._last = number
            if number not in self._timers:
                return number


def _send(link: Link, timer: Timer) -> None:
    link.write(frame(TIMER, number=timer._number, time=timer._ms, flags=REPEATED if timer._repeats else 0))


def _milliseconds(seconds: Any, least: int) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"seconds must be a number, not {type(seconds).__name__}")
    if not 0 <= seconds <= SECONDS_MAX:
        raise ValueError(f"seconds must be 0 to {SECONDS_MAX:.0f}, not {seconds}")
    # Rounded up to the next millisecond, so that no timer fires early.
    ms: int = math.ceil(round(seconds * 1000, 6))
    if ms < least:
        raise ValueError("a repeating timer must wait at least a millisecond")
    return ms
