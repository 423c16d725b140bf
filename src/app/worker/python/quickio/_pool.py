"""The threads for plain functions.

Threads of Python do not compute at the same time, so one thread runs all jobs while they are quick: more would only
take turns. Others are set free when it does not get on: because a job is slow, or because jobs wait for something else
than the processor. The jobs of one client are never run by two threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from threading import Lock, Thread, get_ident
from typing import Any, Callable, Deque, Dict, List, Optional, Set, Tuple

from quickio._wire import ClientKey

Job = Tuple[Optional[ClientKey], Callable[..., object], Tuple[Any, ...], Any]

# How often somebody looks whether the threads get on, while there is work. A job that was there the last time, too, is
# slow; so a slow one holds up the others for twice this long.
TICK_SECONDS = 0.002
# A thread that runs quick jobs sends what they have written after so many of them; each tick does, too.
JOBS_PER_FLUSH = 128
# Of the processor's time between two ticks. Above it the threads compute, and more of them are of no use.
BUSY_SHARE = 0.7


class _Thread:
    """A thread, and how far it is."""

    __slots__ = ("wake", "ident", "finished", "seen", "is_stuck")

    def __init__(self) -> None:
        self.wake = Lock()
        self.wake.acquire()
        self.ident = 0
        self.finished = 0
        self.seen = 0
        self.is_stuck = False


class Pool:
    """A queue of jobs, and the threads that run them.

    Under the lock: the queue's consumers, which thread is idle, active or stuck, and which client is being served.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads_max: int,
        run: Callable[[Callable[..., object], Tuple[Any, ...], Any], None],
        flush: Callable[[], None],
        flushers: Set[int],
    ) -> None:
        """`run` runs a job, and never raises. `flush` sends what was written; `flushers`: the threads that call it."""
        self._loop = loop
        self._threads_max = threads_max
        self._run = run
        self._flush = flush
        self._flushers = flushers
        self._lock = Lock()
        self._queue: Deque[Job] = deque()
        # Clients that a thread serves, with their jobs that came up meanwhile.
        self._served: Dict[ClientKey, Optional[Deque[Job]]] = {}
        self._idle: List[_Thread] = []
        self._active: List[_Thread] = []
        self._stuck = 0
        self._started = 0
        # How many threads may be active that are not stuck.
        self._quota = 1
        self._is_ticking = False
        self._taken = 0
        self._last_tick = (0, 0, 0.0, 0.0)  # jobs taken, jobs waiting, and both clocks

    def submit(self, jobs: List[Job]) -> None:
        """Runs these behind all others. The loop's thread calls it."""
        with self._lock:
            self._queue.extend(jobs)
            if len(self._active) - self._stuck < 1:
                self._set_one_free()
        if not self._is_ticking:
            self._is_ticking = True
            self._last_tick = (self._taken, 0, time.monotonic(), time.process_time())
            self._loop.call_later(TICK_SECONDS, self._tick)

    def is_idle(self) -> bool:
        """Whether all jobs are done."""
        with self._lock:
            return not (self._queue or self._active)

    # What threads do.

    def _live(self, thread: _Thread) -> None:
        thread.ident = get_ident()
        while True:
            thread.wake.acquire()
            self._flushers.add(thread.ident)
            while not self._rests(thread):
                self._drain(thread)
                # Before it rests: who waits until all is done may count on what is sent.
                self._flush()
            self._flushers.discard(thread.ident)

    def _drain(self, thread: _Thread) -> None:
        """Runs jobs until there are none, or too many threads do so."""
        served: Optional[ClientKey] = None
        run, take = self._run, self._take
        while True:
            job = take(thread, served)
            if job is None:
                return
            served = job[0]
            run(job[1], job[2], job[3])
            # Nothing is kept here while it waits: what a job held may have to be noticed as dropped.
            job = None
            thread.finished += 1
            if thread.finished % JOBS_PER_FLUSH == 0:
                self._flush()

    def _take(self, thread: _Thread, served: Optional[ClientKey]) -> Optional[Job]:
        """Ends the service of a client, and begins that of the next job's."""
        with self._lock:
            if thread.is_stuck:
                self._unstick(thread)
            if served is not None:
                waiting = self._served[served]
                if waiting:
                    return waiting.popleft()
                del self._served[served]
            if len(self._active) - self._stuck > self._quota:
                return None
            return self._next()

    def _next(self) -> Optional[Job]:
        queue, served = self._queue, self._served
        while queue:
            job = queue.popleft()
            self._taken += 1
            client = job[0]
            if client is None:
                return job
            if client not in served:
                served[client] = None
                return job
            waiting = served[client]
            if waiting is None:
                waiting = served[client] = deque()
            waiting.append(job)
        return None

    def _rests(self, thread: _Thread) -> bool:
        """Becomes idle, unless there is work for it."""
        with self._lock:
            if thread.is_stuck:
                self._unstick(thread)
            is_surplus = len(self._active) - self._stuck > self._quota
            if self._queue and not is_surplus:
                return False
            self._active.remove(thread)
            self._idle.append(thread)
            return True

    def _unstick(self, thread: _Thread) -> None:
        thread.is_stuck = False
        self._stuck -= 1
        self._flushers.add(thread.ident)

    # How many there are.

    def _set_one_free(self) -> None:
        """Wakes a thread, or starts one, if there may be one more. Called under the lock."""
        if self._idle:
            thread = self._idle.pop()
        elif self._started < self._threads_max:
            thread = _Thread()
            try:
                Thread(target=self._live, args=(thread,), name=f"quickio-{self._started}", daemon=True).start()
            except RuntimeError:
                if not self._started:
                    raise
                return  # the system has no more of them; those that are there go on
            self._started += 1
        else:
            return
        # The next tick finds it moved, however little time it had.
        thread.seen = thread.finished - 1
        self._active.append(thread)
        thread.wake.release()

    def _tick(self) -> None:
        with self._lock:
            self._find_stuck()
            self._adjust_quota()
            if self._queue and len(self._active) - self._stuck < self._quota:
                self._set_one_free()
            self._is_ticking = bool(self._active)
        # A job holds up neither its own output nor what was written before it by the same thread.
        self._flush()
        if self._is_ticking:
            self._loop.call_later(TICK_SECONDS, self._tick)

    def _find_stuck(self) -> None:
        """Marks the threads that have not finished a job since the last tick."""
        for thread in self._active:
            if thread.seen != thread.finished:
                thread.seen = thread.finished
            elif not thread.is_stuck:
                thread.is_stuck = True
                self._stuck += 1
                self._flushers.discard(thread.ident)

    def _adjust_quota(self) -> None:
        """One more where jobs wait though the processor does not; one less where none waits."""
        taken, waiting, wall, busy = self._last_tick
        now, busy_now = time.monotonic(), time.process_time()
        self._last_tick = (self._taken, len(self._queue), now, busy_now)
        if not self._queue:
            self._quota = max(1, self._quota - 1)
        elif self._taken - taken < waiting and busy_now - busy < BUSY_SHARE * (now - wall):
            self._quota = min(self._threads_max, self._quota + 1)
