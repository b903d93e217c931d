"""The daemon that carries out the calls: one for all rows on this machine, and one for each guest."""

import os
import signal
import subprocess
import threading
import time

LISTENS = ": waiting for "
TOTALS = "calls processed:"
LIMIT = 30.0
# Lines of its log that say why something failed.
LOUD = ("ERROR", "WARN")


def parse_totals(line):
    """`… calls processed: N; name=value name=value …` as a dictionary."""
    _, _, rest = line.partition(TOTALS)
    words = rest.replace(";", " ").split()
    if not words:
        return {}
    totals = {"calls": int(words[0])}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if equals and value.isdigit():
            totals[name] = int(value)
    return totals


class Daemon:
    def __init__(self, program, executor, socket, env, log_path=None, flag="--local-socket", arguments=()):
        self.program, self.socket = program, socket
        self.log, self.turn = [], threading.Condition()
        # SIGUSR1 answers whoever asks; two that ask at once would take each other's line.
        self.asking = threading.Lock()
        self.keep = open(log_path, "w", encoding="utf-8") if log_path else None
        env = dict(env)
        env.setdefault("RUST_LOG", "info,virtio_queue=off")
        if "--state-dir" not in arguments:
            # As on a host, but met by no other daemon.
            arguments = ("--state-dir", socket + ".state", *arguments)
        said = dict(zip(arguments, arguments[1:]))
        self.state, self.vm = said["--state-dir"], said.get("--vm-id", "0")
        self.child = subprocess.Popen(
            [program, "--executor", executor, *arguments, flag, socket],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True, text=True, errors="replace",
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self._wait(LISTENS, 0)

    def _read(self):
        for line in self.child.stderr:
            with self.turn:
                self.log.append(line.rstrip("\n"))
                self.turn.notify_all()
            if self.keep:
                self.keep.write(line)
                self.keep.flush()
        with self.turn:
            self.turn.notify_all()

    def _wait(self, texts, begin):
        texts = (texts,) if isinstance(texts, str) else texts
        until = time.monotonic() + LIMIT
        with self.turn:
            while True:
                for line in self.log[begin:]:
                    if any(text in line for text in texts):
                        return line
                left = until - time.monotonic()
                if left <= 0 or self.child.poll() is not None:
                    raise RuntimeError("the daemon says nothing of " + texts[0].strip() + "\n" + "\n".join(self.log[-20:]))
                self.turn.wait(min(left, 0.1))

    def alive(self):
        return self.child.poll() is None

    def totals(self):
        """Its totals now, or nothing where it does not answer."""
        with self.asking:
            try:
                begin = len(self.log)
                os.kill(self.child.pid, signal.SIGUSR1)
                return parse_totals(self._wait(TOTALS, begin))
            except (RuntimeError, ProcessLookupError):
                return {}

    def control(self, *words):
        """What vgpuctl, which lies beside the daemon, says to an order for its VM. Raises RuntimeError where it fails."""
        command = [os.path.join(os.path.dirname(self.program), "vgpuctl"), *words, "--state-dir", self.state]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60.0)
        if ended.returncode:
            raise RuntimeError(ended.stderr.strip() or f"vgpuctl has ended with {ended.returncode}")
        return ended.stdout.strip()

    def suspend(self):
        return self.control("suspend", self.vm)

    def resume(self):
        return self.control("resume", self.vm)

    def loud(self, begin):
        """Warnings and errors since line `begin` of its log."""
        return [line for line in self.log[begin:] if any(word in line for word in LOUD)]

    def workers(self):
        """Its child processes: workers of sessions, and those that wait for one."""
        found = []
        try:
            for thread in os.listdir(f"/proc/{self.child.pid}/task"):
                with open(f"/proc/{self.child.pid}/task/{thread}/children", encoding="ascii") as file:
                    found += [int(pid) for pid in file.read().split()]
        except OSError:
            pass
        return found

    def settled_workers(self, quiet=0.5, limit=3.0):
        """As `workers`, once it has started those that it keeps ready: the next of them comes a moment after the last."""
        found, since = self.workers(), time.monotonic()
        until = since + limit
        while time.monotonic() < min(since + quiet, until):
            time.sleep(0.05)
            now = self.workers()
            if now != found:
                found, since = now, time.monotonic()
        return found

    def settle(self, limit=5.0):
        """Waits until no session is open; the totals then."""
        until = time.monotonic() + limit
        while True:
            totals = self.totals()
            if totals.get("sessions_open") == 0 or not totals or time.monotonic() > until:
                return totals
            time.sleep(0.05)

    def stop(self):
        """Ends it. How it ended, and its processes that are left."""
        workers = self.workers()
        try:
            os.kill(self.child.pid, signal.SIGTERM)
            code = self.child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait()
        except ProcessLookupError:
            code = self.child.wait()
        time.sleep(0.1)
        return {"exit": code, "workers_left": [pid for pid in workers if os.path.exists(f"/proc/{pid}")]}
