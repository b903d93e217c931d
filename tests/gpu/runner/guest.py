"""Guests: QEMU, emulating, with our device, in which programs run on this machine's own files.

The bundle's vm.tar.xz has all of it but the root file system, which is this machine's, shared read-only (virtiofs): a program and what
it needs have the same paths there and here. What is written goes to memory; the native libcuda.so.1 and libnvidia-ml.so.1 cannot be
reached, wherever they lie.
"""

import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass

from .agent import Agent, Gone
from .daemon import Daemon
from .place import Missing
from .schedule import Overlap

ARCHIVE = "vm.tar.xz"
# Where the guest has this machine's root.
ROOT = "/host"
# Folders that are the guest's own, empty at first.
OWN = ("/tmp", "/run", "/var/tmp", "/dev/shm")
# The driver's libraries that are ours in a guest.
LIBRARIES = ("libcuda.so", "libnvidia-ml.so")
# Folders of the native driver.
NATIVE = ("/usr/local/nvidia",)
BOOT_LIMIT = 150.0
SETUP_LIMIT = 60.0
STOP_LIMIT = 20.0


@dataclass
class Kind:
    """A machine. Memory is only taken as the guest uses it."""

    memory_mib: int
    cpus: int
    # How many rows run in it at a time.
    rows: int


KINDS = {"small": Kind(8192, 4, 3), "large": Kind(24576, 6, 2)}


def _libraries(place):
    """Every file of this machine that a program may find as libcuda.so.1 or libnvidia-ml.so.1, but ours, with the name of ours."""
    folders = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    folders += [place.native_lib] if place.native_lib not in ("", "none") else []
    folders += ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"]
    ours = os.path.realpath(place.shim)
    try:
        listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout.splitlines()
    except OSError:
        listed = []
    pairs = set()
    for library in LIBRARIES:
        found = [os.path.join(folder, library + end) for folder in folders for end in (".1", "")]
        found += [line.split(" => ")[1] for line in listed if library in line and " => " in line]
        real = {os.path.realpath(path) for path in found if os.path.exists(path)}
        pairs |= {(path, library + ".1") for path in real if not path.startswith(ours + "/")}
    return sorted(pairs)


def _script(place):
    """What makes the shared root a place to run programs in."""
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(place.python)))
    kept = sorted({os.path.realpath(path) for path in (place.root, place.work, place.shim, prefix)})
    hidden = [path for path in NATIVE if os.path.isdir(path)]
    own = [path for path in OWN if os.path.isdir(path)]
    lines = ["set -e", f"mkdir -p {ROOT} /kept", f"mount -t virtiofs -o ro host {ROOT}"]

    def add(line, *words):
        lines.append(line.format(*(shlex.quote(word) for word in words)))

    for number, path in enumerate(kept):
        add("mkdir /kept/{}; mount -o bind {} /kept/{}", str(number), ROOT + path, str(number))
    add("mount -o rbind /dev {}", ROOT + "/dev")
    add("mount -t proc proc {}; mount -t sysfs sys {}", ROOT + "/proc", ROOT + "/sys")
    # For who counts system calls (programs/counted.py).
    add("mount -t tracefs tracefs {} || echo no tracefs", ROOT + "/sys/kernel/tracing")
    for path in own + hidden:
        add("mount -t tmpfs -o mode=1777 own {}", ROOT + path)
    for number, path in enumerate(kept):
        if any(path == parent or path.startswith(parent + "/") for parent in own):
            add("mkdir -p {}; mount -o bind /kept/{} {}", ROOT + path, str(number), ROOT + path)
    add("mount -t tmpfs -o mode=1777 own {}", ROOT + os.path.realpath(place.caches))
    for path, library in _libraries(place):
        if not path.startswith(tuple(parent + "/" for parent in own + hidden)):
            add("mount -o bind {} {}", ROOT + os.path.realpath(os.path.join(place.shim, library)), ROOT + path)
    # NCCL's ranks meet over the loopback.
    lines.append("ip link set lo up || ifconfig lo up")
    lines.append("test -c /dev/vgpu")
    return "\n".join(lines)


class Guest:
    """A running guest with a daemon of its own."""

    def __init__(self, place, executor, name, log, begun):
        """Is in `begun` before anything of it runs."""
        begun.append(self)
        self.kind, self.name, self.processes = KINDS[name], name, []
        self.agent = self.daemon = None
        self.slots, self.overlap, begin = threading.Semaphore(self.kind.rows), Overlap(), time.monotonic()
        # A short path: a socket's has at most 107 bytes.
        self.folder = tempfile.mkdtemp(prefix="vgpu-vm-")
        self.log = log + "." + name
        try:
            self._start(place, executor)
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = round(time.monotonic() - begin, 1)

    def _start(self, place, executor):
        vm, here = place.vm, lambda name: os.path.join(self.folder, name)
        env = place.native({})
        for name in place.chosen:
            env.pop(name, None)
        self.daemon = Daemon(
            place.daemon, executor, here("vgpu.sock"), env, self.log + ".daemon.log", flag="--socket-path",
            arguments=place.arguments(self.name))
        self._launch(vm, "virtiofsd", [
            "--socket-path", here("root.sock"), "--shared-dir", "/", "--readonly", "--announce-submounts", "--cache", "always",
            "--sandbox", "none", "--seccomp", "none", "--log-level", "error", "--thread-pool-size", "4",
        ])
        self._until(lambda: os.path.exists(here("root.sock")), "virtiofsd does not listen")
        memory, cpus = self.kind.memory_mib, min(self.kind.cpus, os.cpu_count() or 1)
        qemu = self._launch(vm, "qemu-system-x86_64", [
            "-L", os.path.join(vm, "firmware"), "-machine", "q35,memory-backend=ram", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off",
            "-smp", str(cpus), "-m", f"{memory}M", "-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", os.path.join(vm, "vmlinuz"), "-initrd", os.path.join(vm, "initramfs"),
            # The emulated counters of all CPUs go together, which the kernel does not believe: its other clock is one device for all.
            "-append", "console=ttyS0 oops=panic panic=-1 quiet mitigations=off tsc=reliable",
            "-chardev", f"file,id=console,path={self.log}.console.log", "-serial", "chardev:console",
            "-chardev", f"socket,id=agent,path={here('agent')},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=vgpu.agent",
            "-chardev", f"socket,id=vgpu,path={here('vgpu.sock')}",
            "-device", "vhost-user-fs-pci,chardev=vgpu,tag=VGPUSTUB,num-request-queues=1,queue-size=1024",
            "-chardev", f"socket,id=root,path={here('root.sock')}",
            "-device", "vhost-user-fs-pci,chardev=root,tag=host,num-request-queues=1,queue-size=1024",
        ])
        try:
            self.agent = Agent(here("agent"), lambda: qemu.poll() is None)
            self.kernel = self.agent.hello(BOOT_LIMIT)
        except Gone as why:
            raise Missing(f"{why}: {self._said()}") from why
        done = self.agent.run(["/bin/sh", "-c", _script(place)], {}, SETUP_LIMIT)
        if done.status != "ok":
            raise Missing(f"the guest's root cannot be set up: {done.status}: {(done.err or done.out)[-300:]}")

    def _launch(self, vm, program, arguments):
        words = [os.path.join(vm, "lib/ld-linux-x86-64.so.2"), "--library-path", os.path.join(vm, "lib"), os.path.join(vm, "bin", program)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
        with open(f"{self.log}.{program}.log", "wb") as said:
            child = subprocess.Popen(words + arguments, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        self.processes.append((program, child))
        return child

    def _until(self, there, complaint, limit=20.0):
        until = time.monotonic() + limit
        while not there():
            if time.monotonic() > until or any(child.poll() is not None for _, child in self.processes):
                raise Missing(f"{complaint}: {self._said()}")
            time.sleep(0.02)

    def _said(self):
        """The last words of those that take part."""
        words = []
        for name in [program for program, _ in self.processes] + ["console"]:
            try:
                with open(f"{self.log}.{name}.log", encoding="utf-8", errors="replace") as file:
                    lines = file.read().strip().splitlines()
            except OSError:
                continue
            if lines:
                words.append(f"{name}: {lines[-1][:200]}")
        return "; ".join(words)

    def run(self, argv, env, limit, cwd=None, silence=None, heard=None):
        """`execute.run`, in the guest's copy of this machine. `heard` is given each line as it comes."""
        del cwd
        return self.agent.run(["chroot", ROOT, *argv], env, limit, silence=silence, heard=heard)

    def kill(self):
        for _, child in self.processes:
            child.kill()

    def stop(self):
        """Ends it. What its daemon counted, and how it ended."""
        said = {}
        if self.agent:
            said["kernel_complaints"] = self._complaints()
            self.agent.power_off()
            try:
                self.processes[-1][1].wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                said["qemu"] = "killed"
            self.agent.close()
        for _, child in reversed(self.processes):
            child.kill()
            child.wait()
        if self.daemon:
            said["totals"] = self.daemon.settle()
            said["daemon"] = self.daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return said

    def _complaints(self):
        done = self.agent.run(["/bin/sh", "-c", "dmesg | grep -E 'BUG|WARNING|Oops|Bad page|vgpu' | tail -n 20"], {}, 20.0)
        return done.out.splitlines()


class Guests:
    """Each kind is booted once, when the first row asks for it; one that does not boot is not tried again."""

    def __init__(self, place, executor, log):
        self.place, self.executor, self.log = place, executor, log
        self.turn, self.turns, self.there, self.broken, self.begun = threading.Lock(), {}, {}, {}, []

    def get(self, name):
        with self.turn:
            turn = self.turns.setdefault(name, threading.Lock())
            self._unpack()
        with turn:
            if name in self.broken:
                raise Missing(self.broken[name])
            if name not in self.there:
                try:
                    self.there[name] = Guest(self.place, self.executor, name, self.log, self.begun)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is why no row can run in it
                    self.broken[name] = f"no guest: {error}"
                    raise Missing(self.broken[name]) from error
            return self.there[name]

    def _unpack(self):
        if self.place.vm is not None:
            return
        archive = os.path.join(self.place.root, ARCHIVE)
        if not os.path.exists(archive):
            raise Missing("there is no VM in this bundle (vm.tar.xz)")
        with tarfile.open(archive, "r:xz") as tar:
            tar.extractall(self.place.work, filter="data")
        self.place.vm = os.path.join(self.place.work, "vm")

    def begin(self, names):
        """Boots these while other things are done."""
        for name in names:
            threading.Thread(target=self._try, args=(name,), daemon=True).start()

    def _try(self, name):
        try:
            self.get(name)
        except Missing:
            pass  # the rows say so

    def kill(self):
        """Ends what runs in them, at once, and those that boot."""
        for guest in list(self.begun):
            guest.kill()

    def stop(self):
        said = {}
        for name, guest in self.there.items():
            said[name] = {"kernel": guest.kernel, "boot_seconds": guest.boot_seconds, **guest.stop()}
        return said
