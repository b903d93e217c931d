"""Counts what a program costs its kernel in a steady state: `counted.py PROGRAM ARGUMENTS…`.

The program says `mark: begin NAME` and `mark: end NAME`, and waits for a line after each. Between the two are counted

    system calls   of the program and all that it starts, by the kernel's own tracepoint (root, and a tracefs that is mounted)
    interrupts     of our device, by /proc/interrupts
    and what our kernel module counts (guest-driver/kmod/README.md): doorbells, kicks, waits, sleeps

and said as `count: NAME <TAB> WHAT <TAB> VALUE`, which ../runner/compare.py sets against the number of calls. What cannot be counted here
is left out, and a note says why.
"""

import ctypes
import glob
import os
import struct
import subprocess
import sys
import time

MARK = "mark: "
# How long the runner may take to ask the daemon for its totals, where it does.
PAUSE = 0.7

TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
SYS_PERF_EVENT_OPEN = 298
PERF_TYPE_TRACEPOINT = 2
# Of the attributes' bits: children are counted as well.
INHERIT = 1 << 1
# The first published size of perf_event_attr.
ATTRIBUTES = struct.Struct("<IIQQQQQIIQ")

DEVICE = "/sys/class/misc/vgpu"


class SystemCalls:
    """Counts the system calls of a process, and of those that it starts from now on."""

    def __init__(self, pid):
        """Raises OSError where the kernel does not let us."""
        for folder in TRACEFS:
            try:
                with open(folder + "/events/raw_syscalls/sys_enter/id", encoding="ascii") as file:
                    number = int(file.read())
                break
            except OSError as error:
                last = error
        else:
            raise last
        attributes = ctypes.create_string_buffer(ATTRIBUTES.pack(
            PERF_TYPE_TRACEPOINT, ATTRIBUTES.size, number, 0, 0, 0, INHERIT, 0, 0, 0))
        libc = ctypes.CDLL(None, use_errno=True)
        self.counter = libc.syscall(
            ctypes.c_long(SYS_PERF_EVENT_OPEN), attributes, ctypes.c_int(pid), ctypes.c_int(-1), ctypes.c_int(-1), ctypes.c_ulong(0))
        if self.counter < 0:
            raise OSError(ctypes.get_errno(), "perf_event_open: " + os.strerror(ctypes.get_errno()))

    def read(self):
        return struct.unpack("<Q", os.read(self.counter, 8))[0]


def interrupts(text, device):
    """The sum over all CPUs and all vectors of a virtio device, of /proc/interrupts."""
    total = 0
    for line in text.splitlines()[1:]:
        words = line.split()
        if any(word.startswith(device + "-") for word in words):
            for word in words[1:]:
                if not word.isdigit():
                    break
                total += int(word)
    return total


def of_the_device():
    """What is counted of our device, in a guest that has it."""
    found = {}
    try:
        name = os.path.basename(os.path.realpath(DEVICE + "/device"))
        if name.startswith("virtio"):
            with open("/proc/interrupts", encoding="ascii") as file:
                found["interrupts"] = interrupts(file.read(), name)
        for path in glob.glob(DEVICE + "/counters/*"):
            with open(path, encoding="ascii") as file:
                found[os.path.basename(path)] = int(file.read())
    except OSError as error:
        print(f"note: the device's counters: {error}", flush=True)
    return found


def main():
    # It begins when it is counted: the shell reads a line, then becomes the program.
    child = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r go; exec "$@"', "sh", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        calls = SystemCalls(child.pid)
    except OSError as error:
        calls = None
        print(f"note: system calls cannot be counted here: {error}", flush=True)

    def look():
        found = of_the_device() if os.path.isdir(DEVICE) else {}
        if calls:
            found["system calls"] = calls.read()
        return found

    def answer():
        try:
            child.stdin.write("\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # its end says why

    begun = {}
    answer()
    for line in child.stdout:
        if not line.startswith(MARK):
            print(line, end="", flush=True)
            continue
        what, _, name = line[len(MARK):].strip().partition(" ")
        if what == "begin":
            print(line, end="", flush=True)
            time.sleep(PAUSE)
            begun[name] = look()
        else:
            now = look()
            print(line, end="", flush=True)
            time.sleep(PAUSE)
            for key, value in sorted(now.items()):
                if key in begun.get(name, {}):
                    print(f"count: {name}\t{key}\t{value - begun[name][key]}", flush=True)
        answer()
    code = child.wait()
    sys.exit(code if code >= 0 else 1)


if __name__ == "__main__":
    main()
