"""The runner's pure parts: `python3 -m unittest discover tests/gpu`. A few milliseconds; no GPU and no compiler."""

import json
import os
import sys
import tempfile
import time
import types
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from runner import compare, daemon, execute, main, parity, record, rows, schedule, task  # noqa: E402


class Comparing(unittest.TestCase):
    def test_facts_are_what_is_neither_a_note_nor_a_time(self):
        out = "a: 1\nnote: libcuda /x\ntime: launch\t2.5\tus\nb\n"
        self.assertEqual(compare.facts(out), ["a: 1", "b"])
        self.assertEqual(compare.notes(out), ["libcuda /x"])
        self.assertEqual(compare.times(out + "time: broken\ntime: odd\tx\tus\n"), {"launch": (2.5, "us")})

    def test_equal_lengths_are_compared_by_position(self):
        self.assertEqual(compare.difference(["a", "b"], ["a", "c"]), ["native: b", "ours:   c"])

    def test_a_missing_line_does_not_make_all_after_it_differ(self):
        self.assertEqual(compare.difference(["a", "b", "c", "d"], ["a", "c", "d"]), ["native: b"])

    def test_a_difference_is_no_longer_than_its_limit(self):
        lines = compare.difference([str(n) for n in range(100)], ["x" * 1000] * 100)
        self.assertEqual(len(lines), compare.MOST_LINES)
        self.assertLess(max(map(len, lines)), compare.MOST_COLUMNS + 20)

    def test_medians_and_ratios(self):
        native = compare.medians([{"launch": (1.0, "us")}, {"launch": (9.0, "us")}, {"launch": (2.0, "us")}])
        self.assertEqual(native, {"launch": {"value": 2.0, "unit": "us"}})
        ours = compare.medians([{"launch": (3.0, "us"), "more": (1.0, "ms")}])
        self.assertEqual(compare.timings(native, ours), [
            {"name": "launch", "unit": "us", "native": 2.0, "ours": 3.0, "ratio": 1.5},
            {"name": "more", "unit": "ms", "native": None, "ours": 1.0},
        ])


class Parity(unittest.TestCase):
    OUT = "a: begin\na: x = 0: y\na: end\nb: begin\nb: died with status b\nc: begin\nc: half\n"

    def test_lines_belong_to_their_case(self):
        cases = parity.parse(self.OUT)
        self.assertEqual(cases["a"], {"lines": ["x = 0: y"], "state": "ended"})
        self.assertEqual(cases["b"]["state"], "died with status b")
        self.assertEqual(parity.culprit(cases), "c")
        self.assertIsNone(parity.culprit(parity.parse("a: begin\na: end\n")))

    def test_a_case_that_kills_its_program_costs_only_itself(self):
        program = (
            "import sys\n"
            "for name in 'abc':\n"
            "    if name in sys.argv: continue\n"
            "    print(name + ': begin', flush=True)\n"
            "    if name == 'b': raise SystemExit(3)\n"
            "    print(name + ': fact', flush=True)\n"
            "    print(name + ': end', flush=True)\n"
        )
        clock = schedule.Clock(60)
        cases, _, _ = parity.run([sys.executable, "-c", program], dict(os.environ), 20, clock)
        self.assertEqual({name: case["status"] for name, case in cases.items()}, {"a": "ok", "b": "failed: exit 3", "c": "ok"})
        self.assertEqual(cases["c"]["lines"], ["fact"])

    def test_a_program_that_does_not_begin_is_one_row(self):
        cases, _, _ = parity.run([sys.executable, "-c", "raise SystemExit(1)"], dict(os.environ), 20, schedule.Clock(60))
        self.assertEqual(cases, {"-": {"lines": [], "status": "failed: exit 1"}})

    def test_a_case_is_the_same_only_with_the_same_lines_and_the_same_end(self):
        def case(status="ok", *lines):
            return {"lines": list(lines), "status": status}

        native = {"a": case("ok", "1"), "b": case("ok", "1"), "c": case(), "d": case()}
        ours = {"a": case("ok", "1"), "b": case("ok", "2"), "c": case("died: SIGSEGV")}
        found = {name: same for name, _, _, same, _ in parity.rows(native, ours)}
        self.assertEqual(found, {"a": True, "b": False, "c": False, "d": False})
        self.assertEqual([same for _, _, _, same, _ in parity.rows(None, ours)], ["not run"] * 3)


class Running(unittest.TestCase):
    def run_python(self, program, limit=20.0, silence=None):
        return execute.run([sys.executable, "-c", program], dict(os.environ), limit, silence=silence)

    def test_ends_have_names(self):
        self.assertEqual([execute.status_of(code) for code in (0, 77, 3, -11, -64)],
                         ["ok", "not run", "failed: exit 3", "died: SIGSEGV", "died: SIGRTMAX"])

    def test_output_and_status(self):
        ended = self.run_python("import sys; print('out'); print('err', file=sys.stderr)")
        self.assertEqual((ended.status, ended.out, ended.err), ("ok", "out\n", "err\n"))
        self.assertEqual(execute.Ended.from_json(ended.as_json()).out, "out\n")

    def test_a_limit_ends_it_with_what_it_started(self):
        begin = time.monotonic()
        ended = self.run_python("import subprocess; subprocess.run(['sleep', '60'])", limit=0.5)
        self.assertEqual(ended.status, "no end in 0 s")
        self.assertLess(time.monotonic() - begin, 15)
        self.assertEqual(self.run_python("import time; time.sleep(60)", silence=0.3).status, "nothing said for 0 s")

    def test_a_program_that_is_not_there(self):
        self.assertEqual(execute.run(["/nonexistent"], {}, 1).status, "not run")


class Choosing(unittest.TestCase):
    def test_names_by_pattern_and_shards_without_overlap(self):
        every = rows.programs()
        only = rows.chosen(every, ["pytorch/*", "timing/start"], (1, 1))
        self.assertTrue(all(row.name.startswith("pytorch/") or row.name == "timing/start" for row in only))
        parts = [rows.chosen(every, [], (i, 3)) for i in (1, 2, 3)]
        self.assertEqual(sorted(row.name for part in parts for row in part), sorted(row.name for row in every))

    def test_names_are_unique_and_measured_rows_run_alone(self):
        every = rows.programs()
        self.assertEqual(len({row.name for row in every}), len(every))
        for row in every:
            self.assertEqual(row.name.startswith("timing/"), row.phase in rows.MEASURED, row.name)

    def test_every_program_is_there(self):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
        for row in rows.programs():
            sources = [source for source, *_ in row.build]
            sources += [word.removeprefix("{programs}/") for word in row.argv if word.startswith("{programs}/")]
            for source in sources:
                self.assertTrue(os.path.exists(os.path.join(folder, source)), source)


class Counting(unittest.TestCase):
    def test_a_totals_line(self):
        totals = daemon.parse_totals("[INFO] calls processed: 42; sessions_open=1 posted_errors=0")
        self.assertEqual(totals, {"calls": 42, "sessions_open": 1, "posted_errors": 0})
        self.assertEqual(daemon.parse_totals("nothing"), {})

    def test_rows_that_overlap_know_of_each_other(self):
        overlap = schedule.Overlap()
        with overlap.of("a") as a:
            with overlap.of("b") as b:
                self.assertEqual((a, b), ({"b"}, {"a"}))
        with overlap.of("c") as c:
            self.assertEqual(c, set())

    def cache(self, path, earlier=None):
        cache = record.Cache(path, earlier)
        if cache.file:
            self.addCleanup(cache.file.close)
        return cache

    def test_native_results_outlive_a_run_that_was_cut_short(self):
        with tempfile.TemporaryDirectory() as folder:
            first, second = os.path.join(folder, "1"), os.path.join(folder, "2")
            self.cache(first).put("row", [1])
            with open(first, "a", encoding="utf-8") as file:
                file.write('{"row": "cut')
            self.assertEqual(self.cache(second, first).get("row"), [1])
            self.assertEqual(self.cache(None, second).get("row"), [1])

    def test_rows_are_lines_as_they_end(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "rows")
            kept = record.Record(path, "local")
            self.addCleanup(kept.file.close)
            kept.say = lambda text: None
            kept.row(types.SimpleNamespace(name="r"), same=True)
            with open(path, encoding="utf-8") as file:
                self.assertEqual(json.loads(file.read())["program"], "r")

    def test_shards_are_two_numbers(self):
        self.assertEqual(main._shard("2/3"), (2, 3))
        with self.assertRaises(main.argparse.ArgumentTypeError):
            main._shard("4/3")


class FakePlace:
    """Both sides are this machine's Python, which is told which side it is."""

    shim = "/shim"

    def words(self, argv):
        return argv

    def native(self, extra):
        return {**os.environ, **extra, "SIDE": "native"}

    def ours(self, extra):
        return {**os.environ, **extra, "SIDE": "ours"}


class FakeDaemon:
    def __init__(self):
        self.log, self.count = [], 0

    def totals(self):
        self.count += 1
        return {"sessions_opened": self.count, "posted_errors": 0, "sessions_died": 0}

    def loud(self, begin):
        return self.log[begin:]

    def alive(self):
        return True


class Rows(unittest.TestCase):
    def result(self, program, rounds=1, **options):
        """What a row of this Python program has to say."""
        written = []
        kept = types.SimpleNamespace(row=lambda row, **value: written.append(value))
        context = types.SimpleNamespace(
            place=FakePlace(), record=kept, cache=options.get("cache", record.Cache(None)), daemon=FakeDaemon(), native=True,
            ours_only=options.get("ours_only", False), clock=schedule.Clock(60), overlap=schedule.Overlap())
        row = rows.Row("row", [sys.executable, "-c", "import os; side = os.environ['SIDE']\n" + program], rounds=rounds, limit=20.0)
        task.run(row, context)
        self.assertEqual(len(written), 1)
        return written[0]

    def test_the_same(self):
        value = self.result("print('fact'); print('note: ' + side); print('time: t\\t%d\\tms' % len(side))", rounds=2)
        self.assertIs(value["same"], True)
        self.assertEqual((value["native"]["status"], value["ours"]["status"], value["deferred_errors"]), ("ok", "ok", 0))
        self.assertEqual(value["timing"], [{"name": "t", "unit": "ms", "native": 6.0, "ours": 4.0, "ratio": 0.6667}])

    def test_a_difference(self):
        value = self.result("print('a'); print(side)")
        self.assertIs(value["same"], False)
        self.assertEqual(value["difference"], ["native: native", "ours:   ours"])

    def test_what_the_native_program_does_not_say_twice_is_no_difference(self):
        value = self.result("print('a'); print(os.urandom(8).hex())")
        self.assertIs(value["same"], True)
        self.assertEqual(len(value["unsteady"]), 1)

    def test_a_failure_of_ours(self):
        value = self.result("import sys; print('a'); sys.exit('it failed' if side == 'ours' else 0)")
        self.assertIs(value["same"], False)
        self.assertEqual((value["ours"]["status"], value["said"]), ("failed: exit 1", "it failed\n"))

    def test_a_failure_of_the_native_one_says_nothing_of_ours(self):
        value = self.result("import sys; sys.exit('it failed')")
        self.assertEqual((value["same"], value["reason"]), ("not run", "natively: failed: exit 1"))

    def test_what_is_missing_is_not_run(self):
        value = self.result("import sys; print('no such package'); sys.exit(77)")
        self.assertEqual((value["same"], value["reason"], value.get("ours")), ("not run", "no such package", None))

    def test_a_program_with_the_native_library_proves_nothing(self):
        value = self.result("print('note: libcuda /usr/lib/libcuda.so.1')")
        self.assertEqual((value["same"], value["ours"]["status"]), (False, "wrong library"))

    def test_earlier_native_results_are_enough(self):
        cache = record.Cache(None)
        cache.put("row", [execute.Ended("ok", 1.0, "ours\n", "").as_json()])
        self.assertIs(self.result("print(side)", cache=cache, ours_only=True)["same"], True)
        self.assertEqual(self.result("print(side)", ours_only=True)["same"], "not run")


# A pytest in little: "tests" that pass, fail, or end their process, and a report as the plugin writes it.
FAKE_PYTEST = """
import json, os, sys
with open(os.environ["VGPU_DONE"]) as file:
    done = json.load(file)
names = [os.environ["VGPU_FILE"] + "::" + n for n in ("good", "bad", "crash", "last")]
left = [name for name in names if name not in done]
with open(os.environ["VGPU_REPORT"], "a", buffering=1) as report:
    say = lambda **line: report.write(json.dumps(line) + chr(10))
    say(collected=left)
    for name in left:
        say(begun=name)
        if name.endswith("crash"):
            os.abort()
        say(ended=name, outcome="failed" if name.endswith("bad") else "passed", why="it is bad" if name.endswith("bad") else "")
    say(libcuda=["/x/libcuda.so.1"])
    say(finished=True)
sys.exit(1)
"""


class Suites(unittest.TestCase):
    def setUp(self):
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs"))
        self.addCleanup(sys.path.pop, 0)
        for name in ("VGPU_ROOT", "VGPU_WORK"):
            os.environ.setdefault(name, tempfile.gettempdir())
        import suites

        self.suites = suites

    def file(self, folder, until=60.0):
        with open(os.path.join(folder, "pytest.py"), "w", encoding="utf-8") as file:
            file.write(FAKE_PYTEST)
        suite = self.suites.Suite("s", [], [], path=[folder])
        return self.suites.File(suite, folder, folder, "test_x.py", "test_x.py", time.monotonic() + until).run()

    def test_a_test_that_ends_its_process_costs_only_itself(self):
        with tempfile.TemporaryDirectory() as folder:
            file = self.file(folder)
        self.assertEqual(file.outcomes, {
            "test_x.py::good": "passed", "test_x.py::bad": "failed", "test_x.py::crash": "died: SIGABRT", "test_x.py::last": "passed"})
        self.assertEqual((file.reasons["test_x.py::bad"], file.libraries), ("it is bad", {"/x/libcuda.so.1"}))

    def test_what_has_no_time_left_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.file(folder, until=0.0).outcomes, {"test_x.py": "the process: no time was left"})


if __name__ == "__main__":
    unittest.main()
