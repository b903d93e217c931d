"""Programs of tests/parity: many cases in one process. A case that kills the process costs that case only: the program runs again
without it. The lines are described in parity.h."""

from . import compare, execute

# How often a program is begun again without the case that ended it.
MOST_TRIES = 6
# A case that says nothing for so long hangs.
SILENCE = 20.0


def parse(out):
    """{case: {"lines": [...], "state": "begun" | "ended" | "died …"}} in order."""
    cases = {}
    for line in out.splitlines():
        name, colon, rest = line.partition(": ")
        if not colon:
            continue
        case = cases.setdefault(name, {"lines": [], "state": "begun"})
        if rest == "begin":
            # A case that dies in its own process is begun once; nothing begins twice within a run.
            case["state"] = "begun"
        elif rest == "end":
            case["state"] = "ended"
        elif rest.startswith("died with status "):
            case["state"] = rest
        else:
            case["lines"].append(rest)
    return cases


def culprit(cases):
    """The case that a run ended in: the last one that began and did not end."""
    last = None
    for name, case in cases.items():
        if case["state"] == "begun":
            last = name
    return last


def run(argv, env, limit, clock, execute_one=execute.run, silence=SILENCE):
    """Every case of a program. Returns ({case: {"lines", "status"}}, seconds, standard error); a program that does not begin has
    no case, and its end as the status of the case "-"."""
    done, skip, seconds, err = {}, [], 0.0, ""
    for _ in range(MOST_TRIES):
        left = min(limit - seconds, clock.left())
        if left <= 0:
            break
        words = [word for name in skip for word in ("--skip", name)]
        ended = execute_one(argv + words, env, left, silence=silence)
        seconds += ended.seconds
        err = (err + ended.err)[-4000:]
        cases = parse(ended.out)
        for name, case in cases.items():
            state = case["state"]
            status = "ok" if state == "ended" else ended.status if state == "begun" else state
            done[name] = {"lines": case["lines"], "status": status}
        killer = culprit(cases)
        if killer is None:
            if not cases and not done:
                done["-"] = {"lines": [], "status": ended.status if ended.status != "ok" else "failed: says nothing"}
            break
        # What has run already need not run again.
        skip = list(done)
    return done, seconds, err


def rows(native, ours):
    """One entry a case: (name, native, ours, same, difference). Either side may be None: not run."""
    names = list(native or {}) + [name for name in ours or {} if name not in (native or {})]
    for name in names:
        n, o = (native or {}).get(name), (ours or {}).get(name)
        if native is None or ours is None:
            yield name, n, o, "not run", []
        elif n is None or o is None:
            yield name, n, o, False, [("native" if n is None else "ours") + " has no such case"]
        else:
            same = n["lines"] == o["lines"] and n["status"] == o["status"]
            lines = compare.difference(n["lines"], o["lines"])
            if n["status"] != o["status"]:
                lines = [f"native: {n['status']}", f"ours:   {o['status']}"] + lines
            yield name, n, o, same, lines[:compare.MOST_LINES]
