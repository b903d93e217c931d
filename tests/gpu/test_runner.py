"""The runner's pure parts: `python3 -m unittest discover tests/gpu`. A few milliseconds; no GPU and no compiler."""

import json
import os
import socket
import sys
import tempfile
import threading
import time
import types
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from runner import agent, compare, daemon, execute, guest, main, parity, record, rows, schedule, task  # noqa: E402


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


class Counts(unittest.TestCase):
    OUT = ("mark: begin a\nmark: end a\ncount: a\tsystem calls\t30\ncount: a\tcalls\t2000\n"
           "count: b\tsystem calls\t5\ncount: c\tinterrupts\t1\ncount: broken\n")
    TOTALS = [("begin a", {"calls": 10}), ("end a", {"calls": 20}), ("begin b", {"calls": 0}), ("end b", {"calls": 500}), ("end d", {"calls": 1}),
              ("begin c", {}), ("end c", {"calls": 9})]

    def test_counts_are_set_against_the_calls_of_their_loop(self):
        found = compare.counts(self.OUT, self.TOTALS)
        self.assertEqual(found, {
            "a: system calls": (15.0, compare.PER_CALLS),
            # The program does not know its calls: the daemon does.
            "b: system calls": (10.0, compare.PER_CALLS)})

    def test_without_a_daemon_only_what_knows_its_calls_counts(self):
        self.assertEqual(compare.counts(self.OUT), {"a: system calls": (15.0, compare.PER_CALLS)})

    def test_marks_and_counts_are_no_facts(self):
        self.assertEqual(compare.facts(self.OUT + "fact\n"), ["fact"])

    def test_a_program_is_counted_between_its_marks(self):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs/counted.py")
        child = "echo 'mark: begin x'; read a; echo 'mark: end x'; read a; echo 'count: x\tcalls\t10'; exit 3"
        ended = execute.run([sys.executable, "-B", program, "sh", "-c", child], dict(os.environ), 20.0)
        self.assertEqual(ended.status, "failed: exit 3")
        self.assertEqual([line for line in ended.out.splitlines() if line.startswith("mark")], ["mark: begin x", "mark: end x"])
        self.assertIn("count: x\tcalls\t10", ended.out)

    def test_interrupts_of_all_processors_and_vectors_of_one_device(self):
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs"))
        self.addCleanup(sys.path.pop, 0)
        import counted

        text = ("           CPU0       CPU1\n 25:  10  2  PCI-MSI 1-edge  virtio1-control\n 26:  0  5  PCI-MSI 2-edge  virtio1-events\n"
                " 27:  7  7  PCI-MSI 3-edge  virtio11-events\nNMI:  1  1  Non-maskable interrupts\n")
        self.assertEqual(counted.interrupts(text, "virtio1"), 17)


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
            self.assertEqual(row.name.startswith("timing/") or row.suspends, row.phase in rows.MEASURED, row.name)

    def test_a_row_in_a_guest_is_another_one_than_the_same_here(self):
        every = rows.every(PLACE)
        self.assertEqual(len({row.key for row in every}), len(every))
        in_guests = rows.chosen(every, ["vm/*"], (1, 1))
        self.assertEqual(in_guests, [row for row in every if row.guest])
        self.assertTrue(all(row.guest in guest.KINDS and row.phase >= rows.GUEST and row.transport == "vm" for row in in_guests))
        for row in in_guests:
            self.assertEqual(row.name.startswith(("timing/", "counted/")), row.phase in rows.MEASURED, row.name)
        both = {row.name for row in every if not row.guest} & {row.name for row in in_guests}
        self.assertIn("parity/basic", both)

    def test_every_program_is_there(self):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
        for row in rows.every(PLACE):
            sources = [source.replace("{checks}", PLACE.checks) for source, *_ in row.build]
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
            kept = record.Record(path)
            self.addCleanup(kept.file.close)
            kept.say = lambda text: None
            kept.row(rows.Row("r", []), same=True)
            with open(path, encoding="utf-8") as file:
                self.assertEqual(json.loads(file.read())["program"], "r")

    def test_shards_are_two_numbers(self):
        self.assertEqual(main._shard("2/3"), (2, 3))
        with self.assertRaises(main.argparse.ArgumentTypeError):
            main._shard("4/3")


PLACE = types.SimpleNamespace(
    parity=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../parity"),
    checks=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../programs"))


class Agents(unittest.TestCase):
    """The port's other end is played here."""

    def agent(self, answers):
        """An agent, and what it was asked. `answers` are for the first command: (message, body)."""
        asked = []

        def receive(port):
            text, body = agent.LENGTHS.unpack(port.recv(agent.LENGTHS.size, socket.MSG_WAITALL))
            return json.loads(port.recv(text, socket.MSG_WAITALL)), port.recv(body, socket.MSG_WAITALL) if body else b""

        def send(port, number, message, body=b""):
            text = json.dumps({"id": number, "message": message}).encode()
            port.sendall(agent.LENGTHS.pack(len(text), len(body)) + text + body)

        def play(listener):
            port, _ = listener.accept()
            with port, listener:
                send(port, 0, {"Hello": {"kernel": "6.1"}})
                first, _ = receive(port)
                asked.append(first["message"])
                for message, body in answers:
                    send(port, first["id"], message, body)
                if not answers:
                    asked.append(receive(port)[0]["message"])
                    send(port, first["id"], {"Exit": {"Signal": 9}})

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "agent")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        player = threading.Thread(target=play, args=(listener,))
        player.start()
        self.addCleanup(player.join)
        found = agent.Agent(path, lambda: True)
        self.addCleanup(found.close)
        self.assertEqual(found.hello(10.0), "6.1")
        return found, asked

    def test_a_command_with_its_outputs_and_its_end(self):
        found, asked = self.agent([({"Output": "Stdout"}, b"a\n"), ({"Output": "Stderr"}, b"e"), ({"Output": "Stdout"}, b"b"), ({"Exit": {"Code": 77}}, b"")])
        ended = found.run(["x", "y"], {"A": "1"}, 10.0)
        self.assertEqual((ended.status, ended.out, ended.err), ("not run", "a\nb", "e"))
        self.assertEqual(asked, [{"Run": {"argv": ["x", "y"], "uid": 0, "env": [["A", "1"]], "cwd": "/"}}])

    def test_lines_are_heard_as_they_come(self):
        heard = []
        found, _ = self.agent([({"Output": "Stdout"}, b"mark: a\nb"), ({"Output": "Stderr"}, b"e\n"), ({"Output": "Stdout"}, b"c\n"), ({"Exit": {"Code": 0}}, b"")])
        found.run(["x"], {}, 10.0, heard=heard.append)
        self.assertEqual(heard, ["mark: a", "bc"])

    def test_signals_and_refusals(self):
        self.assertEqual(self.agent([({"Exit": {"Signal": 11}}, b"")])[0].run(["x"], {}, 10.0).status, "died: SIGSEGV")
        self.assertEqual(self.agent([({"Failed": "no x"}, b"")])[0].run(["x"], {}, 10.0).status, "failed: no x")

    def test_a_limit_kills_and_silence_is_a_limit(self):
        found, asked = self.agent([])
        self.assertEqual(found.run(["x"], {}, 0.2).status, "no end in 0 s")
        self.assertEqual(asked[1], {"Signal": 9})
        self.assertEqual(self.agent([])[0].run(["x"], {}, 20.0, silence=0.2).status, "nothing said for 0 s")

    def test_a_guest_that_ends_ends_its_commands(self):
        found, _ = self.agent([({"Output": "Stdout"}, b"half")])
        ended = found.run(["x"], {}, 10.0)
        self.assertEqual((ended.status, ended.out), ("failed: the guest has ended", "half"))
        self.assertEqual(found.run(["x"], {}, 10.0).status, "failed: the guest has ended")


class GuestRoots(unittest.TestCase):
    def test_what_lies_in_a_hidden_folder_is_put_back_and_caches_are_the_guests_own(self):
        place = types.SimpleNamespace(
            root="/srv/bundle", work="/tmp/made", shim="/srv/bundle/lib", caches="/tmp/made/caches", python="/opt/a b/bin/python3", native_lib="")
        lines = guest._script(place).splitlines()
        kept = next(n for n, line in enumerate(lines) if "/host/tmp/made /kept/" in line)
        hidden = lines.index("mount -t tmpfs -o mode=1777 own /host/tmp")
        back = next(n for n, line in enumerate(lines) if line.endswith(" /host/tmp/made"))
        own = lines.index("mount -t tmpfs -o mode=1777 own /host/tmp/made/caches")
        self.assertTrue(kept < hidden < back < own, lines)
        self.assertIn("'/host/opt/a b'", "\n".join(lines))
        self.assertEqual(lines[-1], "test -c /dev/vgpu")


class FakePlace:
    """Both sides are this machine's Python, which is told which side it is."""

    shim = "/shim"

    def words(self, argv):
        return argv

    def native(self, extra):
        return {**os.environ, **extra, "SIDE": "native"}

    def ours(self, extra):
        return {**os.environ, **extra, "SIDE": "ours"}

    def in_guest(self, extra):
        return {**os.environ, **extra, "SIDE": "guest"}


class FakeDaemon:
    def __init__(self):
        self.log, self.count = [], 0

    def totals(self):
        self.count += 1
        return {"sessions_opened": self.count, "posted_errors": 0, "sessions_died": 0, "calls": 0 if self.suspended else self.count}

    suspended, refuses = False, False

    def suspend(self):
        if self.refuses:
            raise RuntimeError("VM 0 is not suspended: busy\nmore")
        self.suspended = True
        return "said"

    def resume(self):
        self.suspended = False
        return "said"

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
            place=FakePlace(), record=kept, cache=options.get("cache", record.Cache(None)), daemon=FakeDaemon(), native=True, ours=True,
            guests=options.get("guests"),
            ours_only=options.get("ours_only", False), clock=schedule.Clock(60), overlap=schedule.Overlap(), baseline=None)
        context.daemon.refuses = options.get("refuses", False)
        row = rows.Row("row", [sys.executable, "-c", "import os; side = os.environ['SIDE']\n" + program], rounds=rounds, limit=20.0, guest="small" if "guests" in options else "",
                       counted=options.get("counted", False), suspends=options.get("suspends", False))
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

    def test_our_side_runs_in_the_guest_and_counts_at_its_daemon(self):
        ran = []

        def run(argv, env, limit, silence=None):
            ran.append(env["SIDE"])
            return execute.run(argv, env, limit)

        there = types.SimpleNamespace(daemon=FakeDaemon(), overlap=schedule.Overlap(), run=run, slots=threading.Semaphore(1))
        value = self.result("print('fact')", guests=types.SimpleNamespace(get=lambda name: there))
        self.assertEqual((value["same"], value["sessions"], ran), (True, 1, ["guest"]))
        self.assertEqual(there.daemon.count, 2)

    def test_a_counted_row_asks_the_daemon_at_each_mark(self):
        def run(argv, env, limit, silence=None, heard=None):
            ended = execute.run(argv, env, limit)
            for line in ended.out.splitlines():
                heard(line)
            return ended

        there = types.SimpleNamespace(daemon=FakeDaemon(), overlap=schedule.Overlap(), run=run, slots=threading.Semaphore(1))
        there.daemon.totals = lambda calls=iter(range(0, 10000, 100)): {"sessions_opened": next(calls), "calls": next(calls)}
        value = self.result("print('mark: begin l\\nmark: end l\\ncount: l\\tkicks\\t4')", counted=True,
                            guests=types.SimpleNamespace(get=lambda name: there))
        self.assertEqual(value["timing"], [{"name": "l: kicks", "unit": "per 1000 calls", "native": None, "ours": 20.0}])

    def test_a_row_is_suspended_at_its_marks(self):
        value = self.result("import time; print('mark: suspend', flush=True); time.sleep(0.2); print('fact')", suspends=True)
        self.assertIs(value["same"], True, value)
        self.assertEqual([at["calls_while_suspended"] for at in value["suspends"]], [0])
        for more, why in (({"refuses": True}, "VM 0 is not suspended: busy"), ({}, "never suspended")):
            value = self.result("print('mark: suspend' if %r else '')" % bool(more), suspends=True, **more)
            self.assertIs(value["same"], False)
            self.assertIn(why, value["ours"]["status"])

    def test_a_guest_that_does_not_boot_is_a_reason(self):
        def get(name):
            raise guest.Missing("no guest: " + name)

        value = self.result("print('fact')", guests=types.SimpleNamespace(get=get))
        self.assertEqual((value["same"], value["reason"]), ("not run", "no guest: small"))

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
