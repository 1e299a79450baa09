"""Ctrl-C, and what else asks a process to end, lets a step be finished and saved first; asked twice, it ends at once.

Our choice: what was trained is not lost, and the same command goes on from there.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C; `kill`, `timeout` and schedulers; a terminal that is closed


class Interrupted(KeyboardInterrupt):
    """A run was asked to end, and has been saved."""

    def __init__(self, number: int):
        super().__init__("stopped; the same command resumes it")
        self.signal = number


@dataclass
class Asked:
    """Which signal asked for the end: 0 for none."""

    signal: int = 0


@contextmanager
def finishing_steps() -> Iterator[Asked]:
    """Within it, a signal is noted instead of obeyed; after it, `Interrupted` is raised. Only a main thread gets signals."""
    asked, before = Asked(), {}

    def note(number: int, frame) -> None:
        if asked.signal:
            raise KeyboardInterrupt
        asked.signal = number

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):  # ignored by `nohup`, say
                before[number] = signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked.signal:
        raise Interrupted(asked.signal)
