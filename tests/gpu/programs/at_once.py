"""Several processes at once: `at_once.py KIND…`, each kind with one process and with four. All are made ready first, then let go together,
and each says how much it got done in the same seconds; the sum is what the device gave."""

import os
import subprocess
import sys

from common import fact, note, time_of

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = "4"
COUNTS = (1, 4)
# What a process is, what it counts, by how much that is divided, and the unit.
KINDS = {
    "launches": ([os.path.join(os.environ.get("VGPU_BUILD", ""), "bench_loops"), "rate", SECONDS], "launches", 1e3, "thousand/s"),
    "gpt2": ([sys.executable, os.path.join(HERE, "models.py"), "rate", SECONDS], "GPT-2 (124 M, bf16), loop without waiting", 1, "tokens/s"),
}


class Worker:
    def __init__(self, words):
        self.child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def until(self, word):
        """Reads up to the line that begins with `word`; the rest of it, or nothing where it ended before."""
        for line in self.child.stdout:
            if line.startswith(word):
                return line[len(word):].strip()
            if line.startswith("note: "):
                print(line, end="", flush=True)
        return None

    def go(self):
        try:
            self.child.stdin.write("\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # what it says, or does not, tells

    def end(self):
        """Reads what is left, so that it can end."""
        for line in self.child.stdout:
            if line.startswith("note: "):
                print(line, end="", flush=True)
        return self.child.wait()


def run(kind, count):
    words, what, scale, unit = KINDS[kind]
    workers = [Worker(words) for _ in range(count)]
    ready = [worker.until("ready") for worker in workers]
    for worker in workers:
        worker.go()
    rates = [worker.until("rate: ") for worker in workers]
    fact(kind, count, "processes:", [worker.end() for worker in workers])
    if None in ready or None in rates:
        return
    rates = [float(rate) / scale for rate in rates]
    note(f"{kind}, {count}: each {', '.join(f'{rate:.4g}' for rate in rates)} {unit}")
    time_of(f"{what}, {count} process" + ("es at once, together" if count > 1 else ""), sum(rates), unit)


def main():
    for kind in sys.argv[1:]:
        for count in COUNTS:
            run(kind, count)


main()
