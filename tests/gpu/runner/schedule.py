"""All rows, phase by phase: those that are measured run alone, the others a few at a time."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from . import rows, task

# What is kept for the measured rows of the last phase, of the whole time.
RESERVE = 0.15


class Clock:
    """How much of the run's time is left, less what is reserved for later phases."""

    def __init__(self, limit):
        self.until, self.limit, self.reserved = time.monotonic() + limit, limit, 0.0

    def left(self):
        return self.until - self.reserved - time.monotonic()


class Overlap:
    """Which rows use the daemon at the same time."""

    def __init__(self):
        self.turn, self.now = threading.Lock(), {}

    @contextlib.contextmanager
    def of(self, name):
        others = set()
        with self.turn:
            for other, seen in self.now.items():
                others.add(other)
                seen.add(name)
            self.now[name] = others
        try:
            yield others
        finally:
            with self.turn:
                self.now.pop(name, None)


def run(chosen, context, jobs):
    phases = sorted({row.phase for row in chosen})
    for phase in phases:
        now = [row for row in chosen if row.phase == phase]
        later = any(row.phase > phase and row.phase in rows.MEASURED for row in chosen)
        if context.ours:
            context.guests.begin({row.guest for row in now if row.guest})
        context.clock.reserved = context.clock.limit * RESERVE if later else 0.0
        if phase in rows.MEASURED:
            for row in now:
                task.run(row, context)
        else:
            with ThreadPoolExecutor(max_workers=jobs) as pool:
                list(pool.map(lambda row: task.run(row, context), now))
