"""What the Python programs share. A line of standard output is a fact, which has to be the same natively and through our library;
`note` and `time` lines are not compared (see ../runner/compare.py)."""

import atexit
import hashlib
import sys

SKIPPED = 77


def fact(name, *values):
    print(f"{name}:", *values, flush=True)


def note(*words):
    print("note:", *words, flush=True)


def time_of(name, value, unit):
    print(f"time: {name}\t{value:.6g}\t{unit}", flush=True)


def skip(why):
    """Something that the program needs is missing here."""
    print(why, flush=True)
    sys.stdout.flush()
    raise SystemExit(SKIPPED)


def digest(data):
    return hashlib.sha256(bytes(data)).hexdigest()[:16]


def attempt(name, work):
    """A step whose failure is a fact, and leaves the steps after it to be run."""
    try:
        value = work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it has to be the same
        lines = str(error).strip().splitlines()
        fact(name, "failed:", type(error).__name__, lines[0][:200] if lines else "")
        return None
    fact(name, "done" if value is None else value)
    return value


@atexit.register
def _library():
    """Which driver library this process had: one that had the native one says nothing of ours."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        found = {line.split(maxsplit=5)[5].strip() for line in file if "/libcuda.so" in line}
    if found:
        note("libcuda", *sorted(found))
