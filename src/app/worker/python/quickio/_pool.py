"""The thread pool for plain functions.

Threads of Python do not compute at the same time. While jobs are quick, one thread therefore runs them all: more
threads would only take turns. More threads are activated if that one makes no progress, either because a job is slow,
or because jobs wait for something other than the processor. Jobs of one client never run on two threads at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from threading import Lock, Thread, get_ident
from typing import Any, Callable, Deque, Dict, List, Optional, Set, Tuple

from quickio._wire import ClientKey

Job = Tuple[Optional[ClientKey], Callable[..., object], Tuple[Any, ...], Any]

# How often progress is checked while there is work. A job that is running at two checks in a row is slow, and its
# thread counts as stalled. A slow job therefore delays other jobs for at most twice this time.
TICK_SECONDS = 0.002
# A thread that runs quick jobs flushes their output after this many jobs; each tick does so, too.
JOBS_PER_FLUSH = 128
# A share of the processor's time between two ticks. Above it the threads compute, and more of them would not help.
BUSY_SHARE = 0.7


class _Thread:
    """A thread of the pool, and its progress."""

    __slots__ = ("wake", "ident", "finished", "finished_at_tick", "is_stalled")

    def __init__(self) -> None:
        # Held while the thread sleeps. The thread waits for it, and is woken by its release.
        self.wake = Lock()
        self.wake.acquire()
        self.ident = 0
        # The number of jobs that it has finished, now and at the last tick.
        self.finished = 0
        self.finished_at_tick = 0
        self.is_stalled = False


class Pool:
    """A queue of jobs and the threads that run them.

    The lock protects the consumers of the queue, the state of each thread (idle, active or stalled), and the map of
    clients that are being served.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads_max: int,
        run: Callable[[Callable[..., object], Tuple[Any, ...], Any], None],
        flush: Callable[[], None],
        flushers: Set[int],
    ) -> None:
        """Creates a pool without threads.

        `run` runs a job and must not raise. `flush` sends the output. `flushers` receives the ids of the threads that
        call `flush` themselves.
        """
        self._loop = loop
        self._threads_max = threads_max
        self._run = run
        self._flush = flush
        self._flushers = flushers
        self._lock = Lock()
        self._queue: Deque[Job] = deque()
        # Clients that a thread is serving, with their jobs that arrived meanwhile.
        self._serving: Dict[ClientKey, Optional[Deque[Job]]] = {}
        self._idle: List[_Thread] = []
        # Includes the stalled threads, which `_stalled` counts.
        self._active: List[_Thread] = []
        self._stalled = 0
        self._started = 0
        # The number of threads that may be active and not stalled.
        self._concurrency = 1
        self._is_ticking = False
        self._taken = 0
        self._last_tick = (0, 0, 0.0, 0.0)  # jobs taken, jobs waiting, wall clock, processor time

    def submit(self, jobs: List[Job]) -> None:
        """Queues jobs behind all others. Only the loop's thread calls this."""
        with self._lock:
            self._queue.extend(jobs)
            if len(self._active) - self._stalled < 1:
                self._activate_one()
        if not self._is_ticking:
            self._is_ticking = True
            self._last_tick = (self._taken, 0, time.monotonic(), time.process_time())
            self._loop.call_later(TICK_SECONDS, self._tick)

    def is_idle(self) -> bool:
        """Returns whether all jobs have finished."""
        with self._lock:
            return not (self._queue or self._active)

    # Code that runs on the pool's threads.

    def _thread_main(self, thread: _Thread) -> None:
        thread.ident = get_ident()
        while True:
            thread.wake.acquire()
            self._flushers.add(thread.ident)
            while not self._try_park(thread):
                self._run_jobs(thread)
                # Flushed before the thread is parked: when the pool is idle, all output has been sent.
                self._flush()
            self._flushers.discard(thread.ident)

    def _run_jobs(self, thread: _Thread) -> None:
        """Runs jobs until none is left, or too many threads are active."""
        served: Optional[ClientKey] = None
        run, next_job = self._run, self._next_job
        while True:
            job = next_job(thread, served)
            if job is None:
                return
            served = job[0]
            run(job[1], job[2], job[3])
            # Release the job now, not when the next one arrives: dropping a promise that it held has an effect.
            job = None
            thread.finished += 1
            if thread.finished % JOBS_PER_FLUSH == 0:
                self._flush()

    def _next_job(self, thread: _Thread, served: Optional[ClientKey]) -> Optional[Job]:
        """Ends the service of a client, and takes the next job, whose client is then being served."""
        with self._lock:
            if thread.is_stalled:
                self._mark_progress(thread)
            if served is not None:
                waiting = self._serving[served]
                if waiting:
                    return waiting.popleft()
                del self._serving[served]
            if len(self._active) - self._stalled > self._concurrency:
                return None
            return self._pop_job()

    def _pop_job(self) -> Optional[Job]:
        """Takes a job from the queue. Jobs of clients that another thread is serving are set aside for that thread."""
        queue, serving = self._queue, self._serving
        while queue:
            job = queue.popleft()
            self._taken += 1
            client = job[0]
            if client is None:
                return job
            if client not in serving:
                serving[client] = None
                return job
            waiting = serving[client]
            if waiting is None:
                waiting = serving[client] = deque()
            waiting.append(job)
        return None

    def _try_park(self, thread: _Thread) -> bool:
        """Makes the thread idle, unless there is work for it."""
        with self._lock:
            if thread.is_stalled:
                self._mark_progress(thread)
            is_surplus = len(self._active) - self._stalled > self._concurrency
            if self._queue and not is_surplus:
                return False
            self._active.remove(thread)
            self._idle.append(thread)
            return True

    def _mark_progress(self, thread: _Thread) -> None:
        """Ends the stalled state of a thread. The caller holds the lock."""
        thread.is_stalled = False
        self._stalled -= 1
        self._flushers.add(thread.ident)

    # The number of threads.

    def _activate_one(self) -> None:
        """Wakes an idle thread or starts a new one, within the limit. The caller holds the lock."""
        if self._idle:
            thread = self._idle.pop()
        elif self._started < self._threads_max:
            thread = _Thread()
            try:
                Thread(target=self._thread_main, args=(thread,), name=f"quickio-{self._started}", daemon=True).start()
            except RuntimeError:
                if not self._started:
                    raise
                return  # the system has no more threads; the existing ones do the work
            self._started += 1
        else:
            return
        # Differs from `finished`, so that the next tick does not find the thread stalled, even if it has just started.
        thread.finished_at_tick = thread.finished - 1
        self._active.append(thread)
        thread.wake.release()

    def _tick(self) -> None:
        with self._lock:
            self._find_stalled()
            self._adjust_concurrency()
            if self._queue and len(self._active) - self._stalled < self._concurrency:
                self._activate_one()
            self._is_ticking = bool(self._active)
        # A slow job must not delay its own output, or that of earlier jobs on the same thread.
        self._flush()
        if self._is_ticking:
            self._loop.call_later(TICK_SECONDS, self._tick)

    def _find_stalled(self) -> None:
        """Marks the threads that have not finished a job since the last tick."""
        for thread in self._active:
            if thread.finished_at_tick != thread.finished:
                thread.finished_at_tick = thread.finished
            elif not thread.is_stalled:
                thread.is_stalled = True
                self._stalled += 1
                self._flushers.discard(thread.ident)

    def _adjust_concurrency(self) -> None:
        """Allows one more thread if jobs wait while the processor is not busy, and one less if no job waits."""
        taken, waiting, wall, busy = self._last_tick
        now, busy_now = time.monotonic(), time.process_time()
        self._last_tick = (self._taken, len(self._queue), now, busy_now)
        if not self._queue:
            self._concurrency = max(1, self._concurrency - 1)
        elif self._taken - taken < waiting and busy_now - busy < BUSY_SHARE * (now - wall):
            self._concurrency = min(self._threads_max, self._concurrency + 1)
