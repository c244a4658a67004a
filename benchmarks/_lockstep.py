"""Advances several workers in lock step: each keeps its own loop, one of them is awake at a time."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

Pause = Callable[[], None]


class _Stop(BaseException):
    """Leaves the loop of a worker, past any ``except Exception`` there."""


class Lockstep:
    """Workers that take turns, such as real Trainers, whose loops cannot be called step by step.

    A worker is a function that gets ``pause`` and calls it before each of its steps. It runs in a thread of its own
    and sleeps in ``pause`` until `step` wakes it; `step` returns when it pauses again. The caller sleeps meanwhile, so
    no two threads ever compute at the same time.

    Args:
        workers: Workers by name, each an endless loop, which is left by an exception out of ``pause``.
    """

    def __init__(self, workers: dict[str, Callable[[Pause], None]]) -> None:
        self._stopping = False
        self._paused = threading.Semaphore(0)
        self._turns = {name: threading.Semaphore(0) for name in workers}
        self._pool = ThreadPoolExecutor(max_workers=len(workers))
        self._futures: dict[str, Future[None]] = {}
        for name, worker in workers.items():
            future = self._pool.submit(worker, self._pause_of(name))
            future.add_done_callback(lambda _: self._paused.release())
            self._futures[name] = future
            self._await_pause(name)

    def __enter__(self) -> Self:
        """Return itself; every worker has paused before its first step."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every worker."""
        self._stopping = True
        for name, future in self._futures.items():
            if not future.done():
                self._turns[name].release()
                self._paused.acquire()
        self._pool.shutdown()

    def step(self, name: str) -> tuple[float, float]:
        """Let the worker ``name`` take one step, and return its wall-clock and processor time, in seconds.

        Raises:
            RuntimeError: If the worker ended.
        """
        wall, processor = time.perf_counter(), time.process_time()
        self._turns[name].release()
        self._await_pause(name)
        return time.perf_counter() - wall, time.process_time() - processor

    def _pause_of(self, name: str) -> Pause:
        def pause() -> None:
            self._paused.release()
            self._turns[name].acquire()
            if self._stopping:
                raise _Stop

        return pause

    def _await_pause(self, name: str) -> None:
        self._paused.acquire()
        if self._futures[name].done():
            self._futures[name].result()
            raise RuntimeError(f"the worker {name!r} ended by itself.")
