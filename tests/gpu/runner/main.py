"""The command line, and a run from its beginning to its end."""

import argparse
import datetime
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading

from . import execute, gpu, rows, schedule
from .daemon import Daemon
from .guest import Guests
from .place import Place
from .record import Cache, Record

DESCRIPTION = "Runs programs natively and through this repository's libcuda.so.1, in turn, and says where they differ."


def _shard(text):
    index, slash, count = text.partition("/")
    if not slash or not 1 <= int(index) <= int(count):
        raise argparse.ArgumentTypeError("two numbers I/N, I from 1 to N")
    return int(index), int(count)


def arguments():
    parser = argparse.ArgumentParser(prog="run.py", description=DESCRIPTION)
    add = parser.add_argument
    add("--out", metavar="FILE", default="rows.jsonl", help="results, a line of JSON each; FILE.native keeps the native runs")
    add("--list", action="store_true", help="list the rows and end")
    add("--only", metavar="GLOB", action="append", default=[], help="only rows whose name matches; may be repeated")
    add("--shard", metavar="I/N", type=_shard, default=(1, 1), help="every N-th row from the I-th on")
    add("--time-limit", metavar="SECONDS", type=float, default=240.0, help="for the whole run (240)")
    add("--row-limit", metavar="SECONDS", type=float, help="at most this for one run of a row")
    add("--jobs", metavar="N", type=int, default=min(6, os.cpu_count() or 1), help="rows at a time, but for measured ones")
    add("--native-lib", metavar="DIR|none", default="", help="folder of the native libcuda.so.1; none: no native runs")
    add("--native-from", metavar="FILE", help="native results of an earlier run (its FILE.native)")
    add("--ours-only", action="store_true", help="no native run, but for what --native-from has")
    add("--native-only", action="store_true", help="no daemon; keeps the native results only")
    add("--executor", default="cuda", help="the daemon's executor (cuda)")
    add("--gpu", metavar="LIST", help="the daemon's --gpu; native runs see the same GPUs")
    add("--soft-devices", metavar="N", help="the daemon's --soft-devices")
    add("--profile", metavar="DIR", help="the daemon's --profile: how long the calls of each program took")
    add("--python", help="the Python that has PyTorch and the others (python3)")
    add("--daemon", metavar="FILE", help="vhost-user-vgpu")
    add("--shim", metavar="DIR", help="folder of our libcuda.so.1")
    add("--headers", metavar="DIR", help="folder of kernels_ptx.h")
    add("--parity", metavar="DIR", help="folder of the parity programs")
    add("--checks", metavar="DIR", help="folder of the programs that check themselves")
    add("--vm", metavar="DIR", help="the unpacked vm.tar.xz; the bundle's is unpacked otherwise")
    add("--cuda-include", metavar="DIR", help="folder of cuda.h")
    add("--work", metavar="DIR", help="where to compile; a new folder that is removed at the end otherwise")
    return parser.parse_args()


class Context:
    """What every row needs."""

    def __init__(self, options, place, record, cache, daemon, images, baseline):
        self.place, self.record, self.cache, self.daemon, self.images = place, record, cache, daemon, images
        self.native, self.ours = options.native_lib != "none", not options.native_only
        self.ours_only = options.ours_only
        self.clock = schedule.Clock(options.time_limit)
        self.overlap = schedule.Overlap()
        # What of the device's memory is in use without any of our programs, in MiB.
        self.baseline = baseline
        self.guests = Guests(place, options.executor, options.out)


def _manifest(root):
    try:
        with open(os.path.join(root, "manifest.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def main():
    options = arguments()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    work = os.path.abspath(options.work) if options.work else tempfile.mkdtemp(prefix="vgpu-run-")
    os.makedirs(work, exist_ok=True)
    try:
        return _run(options, root, work)
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)


def _run(options, root, work):
    place = Place(options, root, work)
    chosen = rows.chosen(rows.every(place), options.only, options.shard)
    if options.list:
        for row in chosen:
            print(row.key, row.shows, sep="\t")
        return 0
    if options.row_limit:
        for row in chosen:
            row.limit = min(row.limit, options.row_limit)
    # A core of a CUDA process is gigabytes.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    record = Record(options.out)
    record.write({"header": {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), "executor": options.executor,
        "transport": "local", "machine": gpu.describe(), "bundle": _manifest(root), "packages": place.packages(),
        "rows": [row.key for row in chosen],
    }})
    before = gpu.memory_used_mib()
    # nvcc takes seconds a file: while the daemon starts and the first rows run.
    images = threading.Thread(target=place.make_images)
    images.start()
    daemon = None
    if not options.native_only and any(not row.guest for row in chosen):
        record.say("starting the daemon")
        env = place.native({})
        for name in place.chosen:
            env.pop(name, None)
        daemon = Daemon(place.daemon, options.executor, place.socket, env, options.out + ".daemon.log", arguments=place.arguments("local"))
    workers = len(daemon.settled_workers()) if daemon else 0
    cache = Cache(options.out + ".native", options.native_from)
    context = Context(options, place, record, cache, daemon, images, before)
    complete = []

    def on_signal(_number, _frame):
        # Rows that run now end as failed, those to come find no time left.
        context.clock.until = 0.0
        execute.kill_all()
        context.guests.kill()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        schedule.run(chosen, context, max(1, options.jobs))
        complete.append(True)
    finally:
        execute.kill_all()
        end = {"complete": bool(complete) and all(row.key in record.ended for row in chosen), **record.counts}
        images.join()
        guests = context.guests.stop()
        if guests:
            end["guests"] = guests
        if daemon:
            end["totals"] = daemon.settle()
            # The daemon keeps a few processes ready for sessions to come, as many as at the beginning.
            end["workers_before"], end["workers_after"] = workers, len(daemon.settled_workers())
            end["left_before_stop"] = gpu.left_over(before)
            end["daemon"] = daemon.stop()
        end["left"] = gpu.left_over(before)
        record.write({"end": end})
        totals = end.get("totals", {})
        record.say(f"{end['same']} the same, {end['different']} different, {end['not run']} not run; deferred errors:"
                   f" {totals.get('posted_errors')}, sessions left: {totals.get('sessions_open')}, left on the GPU: {end['left']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
