"""A pytest plugin: a line of JSON in the file VGPU_REPORT for each test that begins and each that ends, so that a test which ends its
process costs only itself. Tests that the file VGPU_DONE names are left out.
"""

import json
import os

import pytest

REPORT, DONE, FILE = (os.environ[name] for name in ("VGPU_REPORT", "VGPU_DONE", "VGPU_FILE"))
# What worse phase of a test decides what is said of it.
RANK = {"passed": 0, "xpassed": 1, "xfailed": 2, "skipped": 3, "failed": 4, "error": 5}

_now = {}


def name_of(nodeid):
    """`test_x.py::Class::test`, wherever the file lies: pytest's own names depend on that."""
    _, separator, rest = nodeid.partition("::")
    return FILE + separator + rest


def _write(**line):
    with open(REPORT, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _last(longrepr):
    """The line that says why."""
    if isinstance(longrepr, tuple):
        return str(longrepr[2])
    lines = [line for line in str(longrepr).splitlines() if line.strip()]
    raised = [line for line in lines if line.startswith("E ")]
    return (raised or lines or [""])[0].removeprefix("E").strip()[:300]


def _outcome(report):
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed and report.when != "call":
        return "error"
    return report.outcome


def pytest_configure():
    """numpy 2.5 dropped the name `row_stack`, which was another name of `vstack`, and numba-cuda 0.30 does not compile a kernel without."""
    if os.environ.get("VGPU_NUMPY_ROW_STACK"):
        import numpy

        if not hasattr(numpy, "row_stack"):
            numpy.row_stack = numpy.vstack


def pytest_collection_modifyitems(config, items):
    with open(DONE, encoding="utf-8") as file:
        done = set(json.load(file))
    kept, left = [], []
    for item in items:
        (left if name_of(item.nodeid) in done else kept).append(item)
    items[:] = kept
    if left:
        config.hook.pytest_deselected(items=left)
    _write(collected=[name_of(item.nodeid) for item in kept])


def pytest_collectreport(report):
    if report.failed or report.skipped and report.longrepr:
        _write(ended=name_of(report.nodeid), outcome="error" if report.failed else "skipped", why=_last(report.longrepr))


def pytest_runtest_logstart(nodeid):
    _now[nodeid] = ("passed", "")
    _write(begun=name_of(nodeid))


def pytest_runtest_logreport(report):
    outcome = _outcome(report)
    if RANK[outcome] >= RANK[_now[report.nodeid][0]] and (outcome != "passed" or report.when == "call"):
        _now[report.nodeid] = (outcome, _last(report.longrepr) if report.longrepr else "")


def pytest_runtest_logfinish(nodeid):
    outcome, why = _now.pop(nodeid)
    _write(ended=name_of(nodeid), outcome=outcome, why=why)


def pytest_sessionfinish():
    with open("/proc/self/maps", encoding="utf-8") as file:
        _write(libcuda=sorted({line.split(maxsplit=5)[5].strip() for line in file if "/libcuda.so" in line}))


def pytest_unconfigure():
    _write(finished=True)


@pytest.fixture(scope="class")
def initialize_from_pytest_config(request):
    """numba-cuda's test classes ask for this of whoever runs them: whether to write files about failed checks of compiled code."""
    request.cls._dump_failed_filechecks = False
