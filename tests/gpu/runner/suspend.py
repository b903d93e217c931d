"""Suspends and resumes the daemon's VM in the middle of a program, at the marks that it says, and looks at the device meanwhile. The first
time another program, on NVIDIA's library, takes all of the device's memory: it is there to be had, and the VM cannot come back before."""

import subprocess
import sys
import threading
import time

from . import gpu

MARK = "mark: suspend"
# How long it stays suspended.
HOLD = 1.0


# Takes all memory of the first device but so many MiB, writes it, and holds it until standard input ends. Says how many MiB.
TENANT = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
context, free, total, memory = (ctypes.c_uint64() for _ in range(4))
def call(name, *arguments):
    result = getattr(cuda, name)(*arguments)
    if result:
        sys.exit(f"{name}: {result}")
call("cuInit", 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
call("cuCtxSetCurrent", context)
call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
size = free.value - (int(sys.argv[1]) << 20)
call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
call("cuMemsetD32_v2", memory, 0x5A5A5A5A, ctypes.c_size_t(size // 4))
call("cuCtxSynchronize")
print(size >> 20, flush=True)
sys.stdin.read()
"""


class Suspends:
    """Hears a program's lines. A thread of its own suspends, since it takes seconds, in which the program is to be watched."""

    def __init__(self, daemon, baseline, native=None):
        """`native` is the environment of programs on NVIDIA's library, where they are to be run."""
        self.daemon, self.baseline, self.native = daemon, baseline, native
        self.threads, self.turn, self.done, self.failed = [], threading.Lock(), [], []

    def __call__(self, line):
        if line.startswith(MARK):
            thread = threading.Thread(target=self._once)
            self.threads.append(thread)
            thread.start()

    def _once(self):
        with self.turn:
            try:
                self.done.append(self._suspend_and_resume())
            except RuntimeError as why:
                self.failed.append(str(why).splitlines()[0])

    def _suspend_and_resume(self):
        used = gpu.memory_used_mib()
        begin = time.monotonic()
        said = self.daemon.suspend()
        suspended = time.monotonic()
        while_suspended, programs = gpu.memory_used_mib(), gpu.processes()
        # Before the time is up: what was under way when the gate closed is carried out by now.
        calls = self.daemon.totals().get("calls")
        tenant = self._tenant() if self.native and not self.done else None
        time.sleep(HOLD)
        held = self.daemon.totals().get("calls")
        resume = time.monotonic()
        self.daemon.resume()
        return {
            "suspend_s": round(suspended - begin, 3), "resume_s": round(time.monotonic() - resume, 3), "said": said,
            "used_mib": used, "used_suspended_mib": while_suspended, "processes": programs, "calls_while_suspended": held - calls,
            "calls_before": calls, **({"tenant": tenant} if tenant else {}),
        }

    def _tenant(self):
        """Another program has the device's memory, and the VM is to be resumed. What came of it; raises RuntimeError if it was."""
        child = subprocess.Popen([sys.executable, "-c", TENANT, "512"], env=self.native, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        try:
            took = child.stdout.readline().strip()
            if not took.isdigit():
                raise RuntimeError("the other program has not got the device: " + child.stderr.read()[-200:])
            try:
                said = self.daemon.resume()
            except RuntimeError as refusal:
                return {"mib": int(took), "refused": str(refusal)[-200:]}
            raise RuntimeError("the VM was resumed although the device was full: " + said)
        finally:
            child.stdin.close()
            child.wait(30)
            child.stdout.close()
            child.stderr.close()

    def wait(self):
        for thread in self.threads:
            thread.join()

    def judge(self, calls_after):
        """What is wrong with it, if anything. `calls_after` are the daemon's calls when the program had ended."""
        wrong = list(self.failed)
        if not self.done:
            wrong.append("the VM was never suspended")
        for at in self.done:
            if at["calls_while_suspended"] != 0:
                wrong.append(f"{at['calls_while_suspended']} calls were carried out while it was suspended")
            if calls_after <= at["calls_before"]:
                wrong.append("the program had ended before")
            if self.baseline and at["used_suspended_mib"]:
                left = max(now - before for before, now in zip(self.baseline, at["used_suspended_mib"]))
                if left > gpu.TOLERANCE_MIB:
                    wrong.append(f"{left} MiB are left on the device")
        return wrong
