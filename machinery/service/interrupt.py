"""Run one coroutine to its end, or cancel it when a signal asks and give it time to clean up."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A signal ended the work. `signal` names it; `tidy` is False if the clean-up was not over in time.

    The error that the work itself ended with, if it was not the cancellation, is the `__cause__`.
    """

    def __init__(self, signal_name: str, *, tidy: bool) -> None:
        """Name the signal."""
        super().__init__(signal_name)
        self.signal = signal_name
        self.tidy = tidy


async def until_signalled(work: Coroutine[Any, Any, T], *, grace: float, told: Callable[[str], None] = lambda _: None) -> T:
    """Return what `work` returns or raise what it raises; raise Stopped if a signal came before its end.

    `told` is called with the signal's name when it arrives. `work` is cancelled once and has `grace`
    seconds to clean up; further signals do not hurry it, so that an impatient second ^C leaves nothing behind.
    A signal that our parent ignores (nohup, a job in the background) stays ignored. Work that succeeds in spite of
    a signal has succeeded.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    came: asyncio.Future[str] = loop.create_future()

    def arrive(number: signal.Signals) -> None:
        if not came.done():
            came.set_result(number.name)
            told(number.name)
            task.cancel()

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, arrive, number)
    try:
        both: set[asyncio.Future[Any]] = {task, came}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not came.done():
            return task.result()
        await asyncio.wait({task}, timeout=grace)
        return _result_after(task, came.result())
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _result_after(task: asyncio.Task[T], signal_name: str) -> T:
    if not task.done():
        raise Stopped(signal_name, tidy=False)
    error = None if task.cancelled() else task.exception()
    if task.cancelled() or error is not None:
        raise Stopped(signal_name, tidy=True) from error
    return task.result()
