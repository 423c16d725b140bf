"""Timers: the server's clock, and functions that run by it."""

from __future__ import annotations

import math
from threading import RLock
from typing import Any, Callable, Dict, List, Optional

from quickio._answers import function as checked_function
from quickio._links import Link
from quickio._report import report
from quickio._runner import Runner
from quickio._wire import CANCEL, NUMBER_MAX, REPEATED, TIMER, frame

SECONDS_MAX = 10 * 365 * 24 * 3600.0


class Timer:
    """A function that runs later, or again and again."""

    __slots__ = ("_timers", "_number", "_ms", "_repeats", "_function", "_runs")

    def __init__(self, timers: Timers, number: int, ms: int, repeats: bool, function: Callable[[], object]) -> None:
        self._timers = timers
        self._number = number
        self._ms = ms
        self._repeats = repeats
        self._function = function
        self._runs = False

    def cancel(self) -> None:
        """It does not run any more. A run that has begun goes on. Any thread may call it, any number of times."""
        self._timers._cancel(self)

    def _settle(self, result: object) -> None:
        self._runs = False

    def _fail(self, error: BaseException) -> None:
        self._runs = False
        report("a timer", error)


class Timers:
    """All timers of the process. The server keeps them; those that are set before it is there wait for it."""

    def __init__(self) -> None:
        # Whoever holds it may be interrupted by a destructor, run by the garbage collector, that cancels another timer.
        self._lock = RLock()
        self._timers: Dict[int, Timer] = {}
        self._last = 0
        self._link: Optional[Link] = None

    def set(self, seconds: float, function: Callable[[], object], repeats: bool) -> Timer:
        """Sets one."""
        ms = _milliseconds(seconds, 1 if repeats else 0)
        checked_function(function)
        with self._lock:
            timer = Timer(self, self._unused_number(), ms, repeats, function)
            self._timers[timer._number] = timer
            link = self._link
        if link is not None:
            _send(link, timer)
        return timer

    def to_ready(self) -> List[Dict[str, int]]:
        """Those that repeat, as the line `ready` has them."""
        with self._lock:
            timers = list(self._timers.values())
            return [{"timer": timer._number, "ms": timer._ms} for timer in timers if timer._repeats]

    def begin(self, link: Link, told: List[Dict[str, int]]) -> None:
        """From now on the server is there; it has been told of these."""
        numbers = {timer["timer"] for timer in told}
        with self._lock:
            self._link = link
            untold = [timer for timer in list(self._timers.values()) if timer._number not in numbers]
            cancelled = numbers - self._timers.keys()
        for timer in untold:
            _send(link, timer)
        for number in cancelled:
            link.write(frame(CANCEL, number=number))

    def fire(self, number: int, runner: Runner) -> None:
        """One is due. One that was cancelled when that was said already is none any more."""
        timer = self._timers.get(number)
        if timer is None:
            return
        if not timer._repeats:
            self._timers.pop(number, None)
        if not timer._runs:
            timer._runs = True
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
        raise TypeError(f"seconds are a number, not {type(seconds).__name__}")
    if not 0 <= seconds <= SECONDS_MAX:
        raise ValueError(f"{seconds} seconds: 0 to {SECONDS_MAX:.0f} may be said")
    # Never early: a fraction of a millisecond is one.
    ms: int = math.ceil(round(seconds * 1000, 6))
    if ms < least:
        raise ValueError("a timer that repeats takes a millisecond at least")
    return ms
