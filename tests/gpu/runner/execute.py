"""Runs one process with a time limit, and takes everything that it started along when it has to go."""

import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass

# What of a program's output is kept. A program that prints more has gone wrong.
MOST_OUTPUT = 8 << 20
# The exit status by which a program says that something it needs is missing.
SKIPPED = 77
# How often a running program is looked at.
LOOK = 0.02

# Process groups that run now, for `kill_all`.
_running = set()


@dataclass
class Ended:
    """How a process ended, and what it printed."""

    status: str
    seconds: float
    out: str
    err: str

    def as_json(self):
        return {"status": self.status, "seconds": round(self.seconds, 3), "out": self.out, "err": self.err[-4000:]}

    @staticmethod
    def from_json(value):
        return Ended(value["status"], value["seconds"], value["out"], value["err"])


def _read(file):
    file.seek(0)
    return file.read(MOST_OUTPUT).decode("utf-8", "replace")


def status_of(code):
    """The words for what `Popen.wait` returns."""
    if code == 0:
        return "ok"
    if code == SKIPPED:
        return "not run"
    if code < 0:
        try:
            return "died: " + signal.Signals(-code).name
        except ValueError:
            return f"died: signal {-code}"
    return f"failed: exit {code}"


def kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def kill_all():
    """Ends what runs, when the whole run has to end."""
    for pid in list(_running):
        kill_group(pid)


def _whole_lines(file, begin, size):
    """The lines that have ended between two places of a file, and where the last of them ends."""
    text = os.pread(file.fileno(), min(size - begin, MOST_OUTPUT), begin)
    end = text.rfind(b"\n") + 1
    return text[:end].decode("utf-8", "replace").splitlines(), begin + end


def run(argv, env, limit, cwd=None, silence=None, heard=None):
    """Runs `argv` for at most `limit` seconds, and at most `silence` seconds without a new byte on its standard output. `heard` gets each
    line as it comes; it must not take long."""
    begin = time.monotonic()
    # Files, not pipes: a grandchild that holds a pipe open would hold us.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            return Ended("not run", 0.0, "", f"{argv[0]}: {error.strerror}")
        _running.add(child.pid)
        status, size, changed, told = None, 0, begin, 0
        try:
            while True:
                code = child.poll()
                now = time.monotonic()
                new = os.fstat(out.fileno()).st_size
                if new != size:
                    size, changed = new, now
                    if heard:
                        lines, told = _whole_lines(out, told, size)
                        for line in lines:
                            heard(line)
                if code is not None:
                    status = status_of(code)
                    break
                if now - begin > limit:
                    status = f"no end in {limit:.0f} s"
                    break
                if silence is not None and now - changed > silence:
                    status = f"nothing said for {silence:.0f} s"
                    break
                time.sleep(LOOK)
        finally:
            kill_group(child.pid)
            child.wait()
            _running.discard(child.pid)
        return Ended(status, time.monotonic() - begin, _read(out), _read(err))
