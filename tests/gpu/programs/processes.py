"""Processes that come and go: `row N` one after another, `once N` at the same time, `killed N` ends each in the middle of its work."""

import os
import subprocess
import sys
import time

from common import fact, note

PROGRAM = os.path.join(os.environ["VGPU_BUILD"], "once")


def start(*words):
    return subprocess.Popen([PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(child):
    out, _ = child.communicate(timeout=30)
    lines = [line for line in out.splitlines() if not line.startswith("vgpu")]
    return child.returncode, *lines


def main():
    how, count = sys.argv[1], int(sys.argv[2])
    begin = time.monotonic()
    if how == "row":
        for n in range(count):
            fact(n, *finish(start()))
    elif how == "once":
        for n, child in enumerate([start() for _ in range(count)]):
            fact(n, *finish(child))
    else:
        for n in range(count):
            child = start("hold")
            fact(n, child.stdout.readline().strip())
            time.sleep(0.2)
            child.kill()
            child.communicate()
            fact(n, "killed", child.returncode)
            fact(n, "the next", *finish(start()))
    note(f"{(time.monotonic() - begin) / count:.3f} s each")


main()
