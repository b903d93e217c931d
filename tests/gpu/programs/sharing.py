"""Several VMs on one device: `sharing.py CASE`. Through our library each tenant has a daemon of its own, as a VM has, and what the case
shows is measured; natively there is what it is compared with: one tenant alone, or processes side by side as the driver has them."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from common import fact, note, time_of  # noqa: E402
from runner import gpu  # noqa: E402
from runner.daemon import Daemon  # noqa: E402
from runner.suspend import TENANT as FILLER  # noqa: E402

BUILD = os.environ.get("VGPU_BUILD", "")
DAEMON = os.environ.get("VGPU_DAEMON")
EXECUTOR = os.environ.get("VGPU_EXECUTOR", "cuda")
TENANT = os.path.join(BUILD, "check-tenant")
# About 0.2 ms of an H100 for each kernel.
ELEMENTS, KERNELS = (str(48 << 20) if EXECUTOR == "cuda" else "20000"), "8"


class Program:
    """A tenant's program, which says when it is ready."""

    def __init__(self, words, env, ready, talks=True):
        self.child = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.ready, self.said = ready is not None and self.until(ready) is not None, ""

    def until(self, word):
        for line in self.child.stdout:
            if line.startswith(word):
                return line[len(word):].strip()
        return None

    def go(self):
        try:
            self.child.stdin.write("\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # what it says, or does not, tells

    def end(self):
        self.said += self.child.stdout.read()
        return self.child.wait()

    def kill(self):
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


class Vm:
    """A daemon, or natively nothing at all."""

    count = 0

    def __init__(self, folder, *arguments):
        Vm.count += 1
        self.env, self.daemon = dict(os.environ), None
        if DAEMON:
            socket = os.path.join(folder, f"vm{Vm.count}.sock")
            arguments = ("--vm-id", str(Vm.count), "--state-dir", os.path.join(folder, "state"), *arguments)
            env = {name: value for name, value in os.environ.items() if not name.startswith("LD_LIBRARY_PATH")}
            native = os.environ.get("VGPU_NATIVE_LIB")
            if native:
                env["LD_LIBRARY_PATH"] = native
            self.daemon = Daemon(DAEMON, EXECUTOR, socket, env, arguments=arguments)
            self.env["VGPU_SOCKET"] = socket

    def run(self, words, ready):
        return Program(words, self.env, ready)

    def started(self, words):
        """A program that tells by a file that it is ready, once it is or has ended."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "ready")
            program = Program(words, {**self.env, "VGPU_READY": path}, None)
            until = time.monotonic() + 30
            while not os.path.exists(path) and program.child.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            program.ready = os.path.exists(path)
        return program

    def tenant(self, mode, seconds, *warm, elements=ELEMENTS, kernels=KERNELS):
        return self.run([TENANT, mode, str(seconds), elements, kernels, *map(str, warm)], "begins")

    def device_ms(self):
        return self.daemon.totals().get("gpu_ms", 0) if self.daemon else 0

    def stop(self):
        if self.daemon:
            deferred = self.daemon.totals().get("posted_errors")
            if deferred:
                fact("deferred errors", deferred)
            ended = self.daemon.stop()
            if ended["exit"] or ended["workers_left"]:
                fact("a daemon's end", ended)


def vms(folder, *each):
    return [Vm(folder, *arguments) for arguments in each]


def value_of(program, word):
    """What a program that has ended said behind `word`."""
    return next((line[len(word):].strip() for line in program.said.splitlines() if line.startswith(word)), None)


def jain(values):
    """1 where all are equal, 1/n where one has everything."""
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values)) if any(values) else 0.0


def together(machines, words, seconds):
    """The same program in each VM, let go together. Their device time between, in ms, and the programs after their end."""
    programs = [vm.run(words, "ready") for vm in machines]
    for program in programs:
        program.go()
    # Not the beginning, and not the end, where some have ended before others.
    time.sleep(1.0)
    before = [vm.device_ms() for vm in machines]
    time.sleep(max(0.0, seconds - 2.0))
    used = [vm.device_ms() - at for vm, at in zip(machines, before)]
    for program in programs:
        if program.end():
            fact("a program's end", program.child.returncode)
    return used, programs


def equal(folder):
    seconds = 14
    words = [sys.executable, os.path.join(HERE, "models.py"), "train", str(seconds)]
    machines = vms(folder, *[()] * (4 if DAEMON else 1))
    used, alone = together(machines[:1], words, seconds)
    rate = float(value_of(alone[0], "rate: "))
    fact("losses", value_of(alone[0], "losses: "))
    time_of("training steps, one alone", rate, "steps/s")
    if not DAEMON:
        time_of("training steps, four together", rate, "steps/s")
        return machines
    note(f"alone: {used[0]} ms of device time in {seconds - 2} s")
    used, programs = together(machines, words, seconds)
    rates = [float(value_of(program, "rate: ")) for program in programs]
    for losses in {value_of(program, "losses: ") for program in programs} - {value_of(alone[0], "losses: ")}:
        fact("other losses", losses)
    time_of("training steps, four together", sum(rates), "steps/s")
    note(f"device time {used} ms, Jain's index {jain(used):.5f}; rates {', '.join(f'{r:.4g}' for r in rates)}, Jain's index {jain(rates):.5f}")
    return machines


def weights(folder):
    machines = []
    for light, heavy in ((10, 90), (25, 75)) if DAEMON else ():
        pair = vms(folder, ("--weight", str(light)), ("--weight", str(heavy)))
        machines += pair
        for mode in ("flood", "steps"):
            seconds = 32 if mode == "flood" else 10
            programs = [vm.tenant(mode, seconds) for vm in pair]
            time.sleep(1.0)
            before = [vm.device_ms() for vm in pair]
            time.sleep(seconds - 2)
            used = [vm.device_ms() - at for vm, at in zip(pair, before)]
            ends = [program.end() for program in programs]
            share = 100 * used[0] / max(1, sum(used))
            steps = [program.said.split()[1] for program in programs]
            note(f"{light}:{heavy}, {mode}: {share:.2f} % of {sum(used)} ms in {seconds - 2} s; steps {steps}")
            fact(f"{light}:{heavy}, {mode}", "within two points" if abs(share - light) <= 2 and not any(ends) else f"{share:.2f} %, {ends}")
    if not DAEMON:
        for name in ("10:90, flood", "10:90, steps", "25:75, flood", "25:75, steps"):
            fact(name, "within two points")
    return machines


def priority(folder):
    high, low = vms(folder, ("--priority", "high"), ("--priority", "low"))
    for name, busy in (("alone", None), ("beside one that is busy", low)):
        beside = busy.tenant("flood", 12) if busy else None
        if beside:
            time.sleep(1.0)
        program = high.tenant("latency", 8, kernels="2")
        fact("its end", program.end())
        median, last, _ = program.said.split()[1:4]
        time_of(f"a step of high priority {name}, median", float(median), "µs")
        time_of(f"a step of high priority {name}, 99th percentile", float(last), "µs")
        if beside:
            fact("the other's end", beside.end())
            note("the other:", beside.said.strip())
    return [high, low]


def compute(machines, seconds):
    """A tenant in each, let go together. What one of them has left over of its share from before does not count."""
    programs = [vm.tenant("steps", seconds, WARM_SECONDS) for vm in machines]
    for program in programs:
        program.go()
    time.sleep(WARM_SECONDS + 0.5)
    return programs


def rates_of(programs):
    """Steps a second of tenants, once they have ended; nothing where one has not ended well, which it says itself."""
    ends = [program.end() for program in programs]
    if any(ends):
        fact("a tenant's end", ends)
        return []
    return [float(words[1]) / float(words[3]) for words in (program.said.split() for program in programs)]


PROCESSES = os.path.join(BUILD, "check-processes")


def kill_worker(vm):
    """Kills the worker of the VM's session that was opened last."""
    opened = [line for line in vm.daemon.log if "opened: guest process" in line][-1]
    os.kill(int(opened.rsplit(" ", 1)[1]), signal.SIGKILL)


def one_fault(vm, what):
    """One program of the VM that goes wrong; how it ended."""
    if what in ("unmapped", "misaligned", "assert"):
        return vm.started([PROCESSES, "fault", what]).end()
    if what == "corrupt rings":
        before = vm.daemon.totals().get("sessions_died")
        vm.started([PROCESSES, "corrupt"]).end()
        vm.daemon.settle()
        return "ended" if vm.daemon.totals().get("sessions_died") > before else "was not seen"
    if what == "endless kernel and a limit":
        vm.daemon.control("set", vm.daemon.vm, "kernel-timeout=300ms")
        program = vm.started([PROCESSES, "until-error", "wait"])
        ended = program.end(), value_of(program, "answered ")
        vm.daemon.control("set", vm.daemon.vm, "kernel-timeout=none")
        return ended
    program = vm.started([PROCESSES, "spin" if what == "endless kernel" else "copies"])
    if not program.ready:
        program.kill()
        return "never came to it"
    time.sleep(0.3)
    if what == "worker killed":
        kill_worker(vm)
        return "ended" if program.end() else "went on"
    if what == "daemon killed":
        vm.daemon.child.kill()
        vm.daemon.child.wait()
        vm.daemon = None
        return "ended" if program.end() else "went on"
    program.kill()
    return "killed"


# What happens, and how it ends. The daemon goes last.
FAULTS = {
    "unmapped": 0, "misaligned": 0, "assert": 0, "endless kernel": "killed", "endless kernel and a limit": (0, "702"),
    "process killed": "killed", "worker killed": "ended", "corrupt rings": "ended", "daemon killed": "ended",
}
# For so long the others are measured: a fault takes less than a second of it.
FAULT_SECONDS, WARM_SECONDS = 12, 1.5


def faults(folder):
    """Three that compute and compare, and a fourth in which everything goes wrong."""
    if not DAEMON:
        for what in FAULTS:
            fact(what, FAULTS[what])
            fact(f"{what}: the others' rates", "within 5 %")
        fact("the others", "go on")
        return []
    machines, other = vms(folder, (), (), ()), Vm(folder)
    before = rates_of(compute(machines, FAULT_SECONDS))
    for what in FAULTS:
        programs = compute(machines, FAULT_SECONDS)
        begin = time.monotonic()
        fact(what, one_fault(other, what))
        took = time.monotonic() - begin
        rates = rates_of(programs)
        kept = [100 * rate / full for rate, full in zip(rates, before)]
        note(f"{what}, {took:.1f} s: the others' rates {', '.join(f'{part:.1f} %' for part in kept)}")
        fact(f"{what}: the others' rates", "within 5 %" if len(kept) == len(machines) and min(kept) > 95 else kept)
        left = gpu.processes()
        if left:
            time.sleep(1.0)
            left = gpu.processes()
        ours = {pid for vm in machines for pid in vm.daemon.workers()} | set(other.daemon.workers() if other.daemon else ())
        stray = [line for line in left or () if int(line.split(",")[0]) not in ours]
        if stray:
            fact("left on the GPU", stray)
    after = rates_of(compute(machines, FAULT_SECONDS))
    fact("the others", "go on" if before and after and all(a > 0.95 * b for a, b in zip(after, before)) else f"{before} {after}")
    return machines + ([other] if other.daemon else [])


KINDS = ("plain", "async", "pool", "virtual", "array", "array3d", "mipmap", "module")
QUOTA_MIB, UNIT_MIB = 8192, 4


def quota(folder):
    """Each kind of allocation up to the quota, beside one who computes."""
    if not DAEMON:
        fact("numbers", "agree")
        for kind in KINDS:
            fact(kind, "up to the quota")
        fact("the neighbour's end", 0)
        return []
    machines = vms(folder, ("--vram", f"{QUOTA_MIB}MiB"), ())
    env = dict(machines[0].env)
    # NVML of the VM is ours.
    env["LD_LIBRARY_PATH"] = os.path.join(os.environ["VGPU_ROOT"], "lib")
    program = subprocess.Popen([os.path.join(BUILD, "check-quota")], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(what):
        program.stdin.write(what + "\n")
        program.stdin.flush()
        return program.stdout.readline().strip()

    neighbour = machines[1].tenant("steps", 20)
    first = ask("numbers")
    words = first.split()
    fact("numbers", "agree" if words[1] == words[6] and words[2] == words[4] == words[7] == str(QUOTA_MIB) else first)
    for kind in KINDS:
        filled = ask("fill " + kind).split()[-1]
        reached = int(filled) * UNIT_MIB if filled.isdigit() else 0
        note(f"{kind}: {reached} MiB in pieces of {UNIT_MIB} MiB")
        fact(kind, "up to the quota" if 0.97 * QUOTA_MIB <= reached <= QUOTA_MIB else filled)
    note("numbers before and after:", first, "/", ask("numbers"))
    program.stdin.close()
    program.wait()
    fact("the neighbour's end", neighbour.end())
    return machines


def rotated(folder):
    """Two that need more device memory together than there is, and take turns with it."""
    words = ("without turns", "first", "second", "turns of both")
    if not DAEMON:
        for word, value in zip(words, ("no room", 0, 0, True)):
            fact(word, value)
        return []
    machines = vms(folder, (), ())
    env = {**os.environ, "LD_LIBRARY_PATH": os.environ.get("VGPU_NATIVE_LIB", "")}
    filler = subprocess.Popen([sys.executable, "-c", FILLER, "13000"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    note(f"another program has {filler.stdout.readline().strip()} MiB of the device")
    big = dict(elements=str(2_000_000_000), kernels="2")
    first = machines[0].tenant("steps", 45, **big)
    fact(words[0], "room" if machines[1].tenant("steps", 1, **big).ready else "no room")
    daemon = machines[0].daemon
    rotate = subprocess.Popen([os.path.join(os.path.dirname(DAEMON), "vgpuctl"), "rotate", "1", "2", "--turn", "4s", "--times", "1", "--json",
                               "--state-dir", daemon.state], stdout=subprocess.PIPE, text=True)
    second = machines[1].tenant("steps", 30, **big)
    for word, program in zip(words[1:], (first, second)):
        fact(word, program.end())
        note(f"{word}: {program.said.strip()}")
    rotate.terminate()
    turns = [json.loads(line) for line in rotate.stdout]
    for turn in turns:
        note(f"VM {turn['vm']}: {turn['turn_s']:.1f} s; off in {turn['suspend_s']:.1f} s, the next one back in {turn['resume_s']:.1f} s; {turn['suspended']}")
    fact(words[3], {turn["vm"] for turn in turns if turn["works"]} == {1, 2})
    filler.stdin.close()
    filler.wait()
    return machines


def soak(folder):
    """Tenants that start and stop at random, some of them killed, and now and then a daemon."""
    seconds, limit = float(os.environ.get("VGPU_SOAK_SECONDS", "470")), 6
    if not DAEMON:
        fact("wrong results", [])
        return []
    chance = random.Random(7)
    machines = vms(folder, ("--priority", "high"), ("--weight", "30"), (), ("--vram", "16GiB"))
    settled = [len(os.listdir(f"/proc/{vm.daemon.child.pid}/fd")) for vm in machines if not vm.daemon.settled_workers() is None]
    shared = set(os.listdir("/dev/shm"))
    until, running, counts, wrong = time.monotonic() + seconds, [], {"started": 0, "ended": 0, "killed": 0, "daemons": 0}, []
    while time.monotonic() < until or running:
        for entry in list(running):
            vm, program, ends, kill = entry
            if program.child.poll() is not None:
                running.remove(entry)
                counts["ended"] += 1
                if program.end() or "steps" not in program.said and "latency" not in program.said:
                    wrong.append((program.child.returncode, program.said[-200:]))
            elif time.monotonic() > ends:
                running.remove(entry)
                program.kill()
                counts["killed"] += 1
        if time.monotonic() < until and len(running) < limit:
            vm = chance.choice(machines)
            if chance.random() < 0.02 and not any(entry[0] is vm for entry in running):
                at = machines.index(vm)
                vm.stop()
                machines[at] = vm = Vm(folder)
                counts["daemons"] += 1
            works, kill = chance.uniform(1, 15), chance.random() < 0.3
            program = vm.tenant(chance.choice(("steps", "flood", "latency")), works, elements=str(chance.choice((1 << 16, 1 << 22, 48 << 20))))
            counts["started"] += 1
            running.append((vm, program, time.monotonic() + (chance.uniform(0, works) if kill else works + 60), kill))
        time.sleep(chance.uniform(0.01, 0.3))
    note(counts)
    fact("wrong results", wrong)
    now = [len(os.listdir(f"/proc/{vm.daemon.child.pid}/fd")) for vm in machines if not vm.daemon.settled_workers() is None]
    note(f"descriptors of the daemons before {settled}, after {now}")
    if any(b > a + 8 for a, b in zip(settled, now)):
        fact("descriptors", settled, now)
    if set(os.listdir("/dev/shm")) - shared:
        fact("left in /dev/shm", set(os.listdir("/dev/shm")) - shared)
    return machines


CASES = {"equal": equal, "weights": weights, "priority": priority, "faults": faults, "quota": quota, "rotated": rotated, "soak": soak}


def main():
    with tempfile.TemporaryDirectory() as folder:
        machines = CASES[sys.argv[1]](folder)
        for vm in machines:
            vm.stop()


main()
