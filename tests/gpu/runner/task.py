"""One row: compiled, run natively and through our library, compared, recorded."""

import contextlib
import os

from . import compare, execute, parity, suspend
from .place import Missing


def run(row, context):
    """Runs a row; what it has to say goes to the record. Never raises: a row that goes wrong in the runner is a row that failed."""
    try:
        _run(row, context)
    except Missing as why:
        context.record.row(row, same="not run", reason=str(why))
    except Exception as error:  # noqa: BLE001 - the other rows go on
        context.record.row(row, same="not run", reason=f"the runner: {type(error).__name__}: {error}")


def _run(row, context):
    if context.clock.left() <= 1:
        raise Missing("no time was left")
    place = context.place
    for source, output, compiler, flags in row.build:
        place.compile(source, output, compiler, list(flags))
    argv = place.words(row.argv)
    if row.parity:
        _parity(row, argv, context)
    else:
        _program(row, argv, context)


class Here:
    """Where our side of a row runs: on this machine, through the daemon's local socket."""

    def __init__(self, context):
        self.daemon, self.overlap, self.run, self.environment = context.daemon, context.overlap, execute.run, context.place.ours
        self.slots, self.silence = contextlib.nullcontext(), parity.SILENCE


class InGuest:
    """And in a guest, whose daemon is its own. Raises `Missing` where it does not boot."""

    # How much longer a program may be silent.
    SLOWER = 4.0

    def __init__(self, context, name):
        guest = context.guests.get(name)
        self.daemon, self.overlap, self.run, self.environment = guest.daemon, guest.overlap, guest.run, context.place.in_guest
        self.slots, self.silence = guest.slots, parity.SILENCE * self.SLOWER


def _where(row, context):
    """Nowhere, where our side is not to run."""
    if not context.ours:
        return None
    return InGuest(context, row.guest) if row.guest else Here(context)


def _limit(row, context):
    return max(1.0, min(row.limit, context.clock.left()))


def _ours(row, where, work):
    """Runs `work`, and says what the daemon counted meanwhile. Rows that overlap share its counters: `beside` names them."""
    daemon = where.daemon
    before, line = daemon.totals(), len(daemon.log)
    with where.overlap.of(row.key) as others:
        result = work()
    after = daemon.totals()
    deferred = after.get("posted_errors", 0) - before.get("posted_errors", 0)
    facts = {
        "deferred_errors": deferred if after else None,
        "sessions": after.get("sessions_opened", 0) - before.get("sessions_opened", 0),
        "sessions_died": after.get("sessions_died", 0) - before.get("sessions_died", 0),
    }
    if others and (deferred or facts["sessions_died"]):
        facts["beside"] = sorted(others)
    loud = daemon.loud(line)
    if loud:
        facts["log"] = [entry[-300:] for entry in loud[:5]]
    if not daemon.alive():
        facts["log"] = facts.get("log", []) + ["the daemon has ended"]
    return result, facts


def _parity(row, argv, context):
    context.images.join()
    native, native_seconds = None, 0.0
    if context.native:
        kept = context.cache.get(row.name)
        if kept is not None:
            native, native_seconds = kept["cases"], kept["seconds"]
        elif not context.ours_only:
            native, native_seconds, _ = parity.run(argv, context.place.native(row.env), _limit(row, context), context.clock)
            context.cache.put(row.name, {"cases": native, "seconds": native_seconds})
    ours, ours_seconds, err, counted = None, 0.0, "", {}
    where = _where(row, context)
    if where:
        def work():
            return parity.run(argv, where.environment(row.env), _limit(row, context), context.clock, where.run, where.silence)
        with where.slots:
            (ours, ours_seconds, err), counted = _ours(row, where, work)
    for case, n, o, same, lines in parity.rows(native, ours):
        extra = {"said": _tail(err)} if o and o["status"] != "ok" else {}
        context.record.row(
            row, case=case, same=same, difference=lines,
            native=n and {"status": n["status"], "lines": len(n["lines"]), "hash": compare.digest(n["lines"])},
            ours=o and {"status": o["status"], "lines": len(o["lines"]), "hash": compare.digest(o["lines"])}, **extra,
        )
    context.record.summary(row, {
        "native_seconds": round(native_seconds, 3), "ours_seconds": round(ours_seconds, 3),
        "cases": max(len(native or {}), len(ours or {})), **counted,
    })


class Marks:
    """The daemon's totals at each mark that a program says."""

    def __init__(self, daemon):
        self.daemon, self.totals = daemon, []

    def __call__(self, line):
        if line.startswith(compare.MARK):
            self.totals.append((line[len(compare.MARK):].strip(), self.daemon.totals()))


def _program(row, argv, context):
    kept = context.cache.get(row.name) if context.native else None
    native = [execute.Ended.from_json(value) for value in kept] if kept else []
    fresh = context.native and not native and not context.ours_only
    ours, counted, where, marked = [], {}, None, []
    for _ in range(row.rounds):
        if fresh:
            native.append(execute.run(argv, context.place.native(row.env), _limit(row, context)))
            if native[-1].status == "not run":
                # What is missing here is missing for both.
                context.record.row(row, same="not run", reason=_reason(native[-1]), native=_side(native))
                return
        # Not before the native side has run: a guest is waited for.
        where = where or _where(row, context)
        if where:
            marks = Marks(where.daemon)
            suspends = suspend.Suspends(where.daemon, context.baseline, context.place.native({}) if context.baseline else None) if row.suspends else None
            heard = {"heard": suspends or marks} if row.counted or row.suspends else {}

            def work():
                ended = where.run(argv, where.environment(row.env), _limit(row, context), **heard)
                if suspends:
                    suspends.wait()
                return ended
            with where.slots:
                ended, more = _ours(row, where, work)
            if suspends:
                more["suspends"] = suspends.done
                wrong = suspends.judge(where.daemon.totals().get("calls", 0))
                if wrong and ended.status == "ok":
                    ended.status = "not suspended right: " + "; ".join(wrong)
            ours.append(ended)
            marked.append(marks.totals)
            counted = {k: (counted.get(k, 0) + v if isinstance(v, int) else v) for k, v in more.items()} if counted else more
            if ended.status != "ok":
                break
    if fresh:
        context.cache.put(row.name, [ended.as_json() for ended in native])
    _compare(row, argv, native, list(zip(ours, marked)), counted, fresh, context)


def _steady(row, argv, native, ours, context):
    """What differs although the native program says the same twice: lines that it does not are no fact of a driver. Whether ours is the
    same, the lines that differ, and the lines that were left out for it."""
    again = execute.run(argv, context.place.native(row.env), _limit(row, context))
    first, second, mine = (compare.facts(ended.out) for ended in (native, again, ours))
    unsteady = []
    if again.status == "ok" and len(first) == len(second) == len(mine):
        kept = [n for n, (a, b) in enumerate(zip(first, second)) if a == b]
        unsteady = [a[:200] for a, b in zip(first, second) if a != b]
        first, mine = [first[n] for n in kept], [mine[n] for n in kept]
    lines = compare.difference(first, mine)
    return not lines, lines, unsteady


def _reason(ended):
    lines = (ended.out + "\n" + ended.err).strip().splitlines()
    return lines[-1] if lines else ended.status


def _tail(text, most=1500):
    return text[-most:]


def _side(rounds):
    if not rounds:
        return None
    last = next((ended for ended in rounds if ended.status != "ok"), rounds[-1])
    lines = compare.facts(last.out)
    return {
        "status": last.status, "seconds": round(sum(e.seconds for e in rounds) / len(rounds), 3), "lines": len(lines),
        "hash": compare.digest(lines),
    }


def _wrong_library(ended, place):
    """Python programs say which libcuda they had loaded; one that had the native one proves nothing."""
    for note in compare.notes(ended.out):
        if note.startswith("libcuda "):
            return any(not os.path.realpath(path).startswith(os.path.realpath(place.shim)) for path in note.split()[1:])
    return False


def _measured(ended, totals=()):
    return {**compare.times(ended.out), **compare.counts(ended.out, totals)}


def _compare(row, argv, native, marked, counted, fresh, context):
    """`marked` is our side: how each round ended, and the daemon's totals at the marks in it."""
    ours, extra = [ended for ended, _ in marked], dict(counted)
    n, o = _side(native), _side(ours)
    if n and n["status"] != "ok":
        extra["native_said"] = _tail(next(e for e in native if e.status != "ok").err)
    if (row.guest or row.daemons) and ours and compare.notes(ours[-1].out):
        extra["notes"] = compare.notes(ours[-1].out)[:40]
    if o:
        if o["status"] == "ok" and any(_wrong_library(ended, context.place) for ended in ours):
            o["status"] = "wrong library"
        elif o["status"] == "ok" and counted.get("sessions", 1) < 1 and not row.daemons:
            o["status"] = "no session was opened"
        if o["status"] != "ok":
            bad = next((e for e in ours if e.status != "ok"), ours[-1])
            extra["said"] = _tail(bad.err)
            if row.guest:
                # How far it came: an emulated program may have run out of time.
                extra["ours_out"] = _tail(bad.out, 3000)
    if n is None or o is None:
        same, lines, reason = "not run", [], "native was not run" if n is None else "ours was not run"
        if o and o["status"] == "not run":
            reason = _reason(ours[-1])
    elif n["status"] != "ok":
        same, lines, reason = "not run", [], "natively: " + n["status"]
        extra["native_out"] = _tail(native[-1].out, 600)
    else:
        ended = next((e for e in ours if e.status != "ok"), ours[-1])
        lines = compare.difference(compare.facts(native[-1].out), compare.facts(ended.out))
        same, reason = not lines and o["status"] == "ok", None
        if lines and o["status"] == "ok" and fresh and context.clock.left() > row.limit / 4:
            same, lines, unsteady = _steady(row, argv, native[-1], ended, context)
            if unsteady:
                extra["unsteady"] = unsteady
        if not same:
            extra.setdefault("said", _tail(ended.err))
    timing = compare.timings(compare.medians([_measured(e) for e in native if e.status == "ok"]),
                             compare.medians([_measured(e, totals) for e, totals in marked if e.status == "ok"]))
    if timing:
        extra["timing"] = timing
    if reason:
        extra["reason"] = reason
    context.record.row(row, same=same, difference=lines, native=n, ours=o, **extra)
