"""What two runs of a program said, compared. Pure functions; `test_runner.py` tests them.

Each line of a program's standard output is a fact, which has to be equal, but for two kinds:

    note: TEXT                        for people; not compared
    time: NAME <TAB> VALUE <TAB> UNIT a measurement; the median over the rounds is kept
    mark: begin|end NAME              a loop that is counted; the daemon's totals are asked for there
    count: NAME <TAB> WHAT <TAB> N    what was counted in it; with WHAT `calls`, how many calls it made
"""

import hashlib
import statistics

NOTE = "note: "
TIME = "time: "
MARK = "mark: "
COUNT = "count: "
PER_CALLS = "per 1000 calls"
# How many differing lines a row carries, and how much of each.
MOST_LINES = 20
MOST_COLUMNS = 400


def facts(out):
    """The lines to compare."""
    return [line for line in out.splitlines() if not line.startswith((NOTE, TIME, MARK, COUNT))]


def notes(out):
    return [line[len(NOTE):] for line in out.splitlines() if line.startswith(NOTE)]


def times(out):
    """{name: (value, unit)}"""
    found = {}
    for line in out.splitlines():
        if line.startswith(TIME):
            parts = line[len(TIME):].split("\t")
            if len(parts) == 3:
                try:
                    found[parts[0]] = (float(parts[1]), parts[2])
                except ValueError:
                    continue
    return found


def counts(out, totals=()):
    """{"NAME: WHAT": (value, unit)} for each thousand calls of a loop. `totals` are the marks with the daemon's totals at each. A loop that
    does not know its calls is set against those that the daemon carried out meanwhile; without either it is left out."""
    loops, begun, carried = {}, {}, {}
    for line in out.splitlines():
        parts = line[len(COUNT):].split("\t") if line.startswith(COUNT) else ()
        if len(parts) == 3 and parts[2].isdigit():
            loops.setdefault(parts[0], {})[parts[1]] = int(parts[2])
    for text, now in totals:
        what, _, name = text.partition(" ")
        if what == "begin":
            begun[name] = now.get("calls")
        elif begun.get(name) is not None and "calls" in now:
            carried[name] = now["calls"] - begun[name]
    found = {}
    for name, values in loops.items():
        calls = values.pop("calls", None) or carried.get(name)
        if calls:
            found.update({f"{name}: {what}": (1000.0 * value / calls, PER_CALLS) for what, value in sorted(values.items())})
    return found


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _cut(line):
    return line if len(line) <= MOST_COLUMNS else line[:MOST_COLUMNS] + "…"


def difference(native, ours):
    """The first lines that differ, each with whose it is. Lines are paired by position as long as one side has not more of them:
    a value that differs is more often seen than a line that is missing."""
    if len(native) == len(ours):
        pairs = [(a, b) for a, b in zip(native, ours) if a != b]
        lines = [line for a, b in pairs for line in ("native: " + a, "ours:   " + b)]
    else:
        import difflib

        lines = []
        matcher = difflib.SequenceMatcher(None, native, ours, autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag != "equal":
                lines += ["native: " + line for line in native[a:b]] + ["ours:   " + line for line in ours[c:d]]
    return [_cut(line) for line in lines[:MOST_LINES]]


def medians(rounds):
    """{name: {"value": median, "unit": unit}} of the times of several rounds."""
    names = {}
    for found in rounds:
        for name, (value, unit) in found.items():
            names.setdefault(name, (unit, []))[1].append(value)
    return {name: {"value": statistics.median(values), "unit": unit} for name, (unit, values) in names.items()}


def timings(native, ours):
    """Both sides' medians and their ratio, ours to native, in the native order and then what only ours has."""
    rows = []
    for name in list(native) + [name for name in ours if name not in native]:
        n, o = native.get(name), ours.get(name)
        row = {"name": name, "unit": (n or o)["unit"], "native": n and n["value"], "ours": o and o["value"]}
        if n and o and n["value"]:
            row["ratio"] = round(o["value"] / n["value"], 4)
        rows.append(row)
    return rows
