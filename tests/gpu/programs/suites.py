"""Public test suites as they are, a line for each test: `suites.py cuda-bindings` (NVIDIA's cuda-python) and `suites.py
numba-cuda-cudadrv` (the part of numba-cuda's suite that tests its use of the driver). Further words name files of the suite: those alone.

Each file of tests is a process of its own, a few at a time. A test that ends its process, or does not end, is said to have done so, and
the file's other tests run in another process.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from common import SKIPPED, fact, note, skip

ROOT, WORK = os.environ["VGPU_ROOT"], os.environ["VGPU_WORK"]
HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.environ.get("VGPU_TRANSPORT") is not None
# Seconds: for all of a suite, for one process. The row that runs us has a little more.
ALLOWED = float(os.environ.get("VGPU_SUITE_SECONDS", "0"))
WHOLE, ONE = ALLOWED or 110.0, ALLOWED or 60.0
# Processes at a time, and how many a file may have.
AT_ONCE, TRIES = min(8, os.cpu_count() or 1), 6

# Tests whose outcome changes from run to run on the native driver, each with the reason: said as notes, with their outcome.
UNSTEADY = {}


class Suite:
    """How a suite's files are found and handed to pytest: `files` are (name, what pytest is given)."""

    def __init__(self, name, files, arguments, path=(), env=None):
        self.name, self.files, self.arguments, self.path, self.env = name, files, arguments, list(path), env or {}


def unpacked():
    """The folder of what the bundle's suites.tar.xz has. The first that comes unpacks it."""
    packed, folder = os.path.join(ROOT, "suites.tar.xz"), os.path.join(WORK, "suites")
    if not os.path.exists(packed):
        skip("the bundle was made without the test suites")
    if not os.path.exists(folder):
        new = tempfile.mkdtemp(prefix="suites-", dir=WORK)
        with tarfile.open(packed) as archive:
            archive.extractall(new, filter="data")
        try:
            os.rename(new, folder)
        except OSError:
            shutil.rmtree(new)  # another row was there first
    return folder


def test_files(folder):
    return sorted(file for file in os.listdir(folder) if file.startswith("test_") and file.endswith(".py"))


def cuda_bindings(folder):
    """cuda_bindings/tests, with the cuda-bindings of the same version, which goes before one that is installed."""
    tests = os.path.join(folder, "cuda-python/cuda_bindings/tests")
    if not os.path.isdir(tests):
        skip("the bundle was made without cuda-python's tests (--cuda-python)")
    for needed in ("numpy", "cuda.pathfinder"):
        try:
            importlib.import_module(needed)
        except ImportError as why:
            skip(f"{needed}: {why}")
    settings = os.path.join(tests, "pytest.ini")
    return Suite(
        "cuda-bindings", [(file, os.path.join(tests, file)) for file in test_files(tests)],
        ["-c", settings] if os.path.exists(settings) else [], path=[os.path.join(folder, "bindings")],
    )


def numba_cudadrv(folder):
    """numba.cuda.tests.cudadrv of the numba-cuda that is installed. The tests that need programs which nvcc has to make first are
    skipped on both sides: their source is in no package."""
    package = importlib.util.find_spec("numba_cuda")
    if package is None:
        skip("no numba-cuda")
    place = os.path.join(package.submodule_search_locations[0], "numba/cuda/tests/cudadrv")
    if not os.path.isdir(place):
        skip("numba-cuda is installed without its tests")
    note("numba-cuda", importlib.metadata.version("numba-cuda"))
    # As numba-cuda's own pytest.ini has it.
    arguments = ["-c", os.devnull, "-o", "consider_namespace_packages=true", "--pyargs"]
    files = [(file, "numba.cuda.tests.cudadrv." + file.removesuffix(".py")) for file in test_files(place)]
    # Nearly every kernel of numba-cuda 0.30 needs a name that numpy 2.5 has dropped: without it there would be little to compare.
    return Suite("numba-cuda-cudadrv", files, arguments, env={"VGPU_NUMPY_ROW_STACK": "1"})


SUITES = {"cuda-bindings": cuda_bindings, "numba-cuda-cudadrv": numba_cudadrv}


class File:
    """A file of tests: `outcomes` are what each test came to, `reasons` why those that did not pass did not."""

    def __init__(self, suite, folder, logs, name, target, until):
        self.suite, self.folder, self.logs, self.name, self.target, self.until = suite, folder, logs, name, target, until
        self.outcomes, self.reasons, self.libraries, self.collected = {}, {}, set(), []

    def run(self):
        for attempt in range(TRIES):
            how, report = self._process(attempt)
            begun, finished = None, False
            for line in report:
                if "collected" in line:
                    self.collected += [name for name in line["collected"] if name not in self.collected]
                elif "begun" in line:
                    begun = line["begun"]
                elif "ended" in line:
                    self._say(line["ended"], line["outcome"], line["why"])
                    begun = None
                elif "libcuda" in line:
                    self.libraries.update(line["libcuda"])
                else:
                    finished = True
            if begun is not None:
                self._say(begun, how, "the test ended its process")
                continue
            # 5: nothing was left to run. Others are an end that no test accounts for.
            if not finished or how not in ("exit 0", "exit 1", "exit 5"):
                self._say(self.name, "the process: " + how, "")
            break
        for name in self.collected:
            self.outcomes.setdefault(name, "not reached")
        return self

    def _say(self, name, outcome, why):
        self.outcomes[name] = outcome
        if why and outcome != "passed":
            self.reasons[name] = why

    def _process(self, attempt):
        """Runs pytest on what is left of the file. How it ended, and its report."""
        with tempfile.TemporaryDirectory() as place:
            report, done = os.path.join(place, "report"), os.path.join(place, "done")
            with open(done, "w", encoding="utf-8") as file:
                json.dump(sorted(self.outcomes), file)
            env = dict(os.environ, VGPU_REPORT=report, VGPU_DONE=done, VGPU_FILE=self.name, TMPDIR=place)
            env.update(self.suite.env, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
            path = [*self.suite.path, os.path.join(self.folder, "python"), os.path.join(HERE, "suite"), env.get("PYTHONPATH", "")]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, path))
            argv = [
                sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "-p", "vgpu_report",
                "--rootdir", place, *self.suite.arguments, self.target,
            ]
            log = os.path.join(self.logs, f"{self.name}.{attempt}.log" if attempt else self.name + ".log")
            limit = min(ONE, self.until - time.monotonic())
            if limit < 1:
                return "no time was left", []
            with open(log, "wb") as out:
                child = subprocess.Popen(argv, env=env, cwd=place, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
                try:
                    code = child.wait(limit)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                    code = None
            return _how(code), _lines(report)


def _how(code):
    if code is None:
        return "no end"
    if code < 0:
        try:
            return "died: " + signal.Signals(-code).name
        except ValueError:
            return f"died: signal {-code}"
    return f"exit {code}"


def _lines(path):
    """The report's lines; the last may be cut."""
    found = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                found.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return found


def main():
    name, *wanted = sys.argv[1:]
    folder = unpacked()
    suite = SUITES[name](folder)
    if wanted:
        suite.files = [file for file in suite.files if file[0] in wanted]
    try:
        with open(os.path.join(folder, "versions.json"), encoding="utf-8") as file:
            note("the bundle's", json.load(file))
    except OSError:
        pass
    logs = os.path.join(WORK, "suite-logs", name, "ours" if OURS else "native")
    try:
        os.makedirs(logs, exist_ok=True)
    except OSError:
        logs = tempfile.mkdtemp(prefix="suite-logs-")  # in a guest, which may only read the host's folders
    until = time.monotonic() + WHOLE
    count, libraries = {}, set()
    files = [File(suite, folder, logs, file, target, until) for file, target in suite.files]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for file in pool.map(File.run, files):
            libraries |= file.libraries
            for test, outcome in sorted(file.outcomes.items()):
                if test in UNSTEADY:
                    note(f"{test}: {outcome}; not compared: {UNSTEADY[test]}")
                    continue
                fact(test, outcome)
                count[outcome] = count.get(outcome, 0) + 1
                if outcome not in ("passed", "skipped"):
                    print(f"{test}: {outcome}: {file.reasons.get(test, '')}", file=sys.stderr, flush=True)
                elif outcome == "skipped":
                    note(f"{test}: skipped: {file.reasons.get(test, '')}")
    fact("count", *(f"{outcome} {n}" for outcome, n in sorted(count.items())))
    if libraries:
        note("libcuda", *sorted(libraries))
    if not count:
        print("there are no tests")
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
