"""What comes of a run: lines of JSON, each written and flushed when its row has ended, so that a run cut short loses nothing that it
had found out. `cargo xtask gpu-merge` reads them.

    {"header": {…}}     the machine, the date, the bundle
    {"program": …}      a row, or one case of a parity program
    {"summary": …}      a parity program's times and the daemon's counts
    {"end": {…}}        what was left over; whether the run came to its end
"""

import json
import sys
import threading
import time


class Record:
    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")
        self.turn, self.begin = threading.Lock(), time.monotonic()
        self.ended, self.counts = set(), {"same": 0, "different": 0, "not run": 0}

    def write(self, value):
        line = json.dumps(value, ensure_ascii=False)
        with self.turn:
            self.file.write(line + "\n")
            self.file.flush()

    def say(self, text):
        print(f"[{time.monotonic() - self.begin:6.1f} s] {text}", file=sys.stderr, flush=True)

    def row(self, row, *, same, case=None, native=None, ours=None, difference=(), **more):
        value = {"program": row.name, "transport": row.transport, "native": native, "ours": ours, "same": same}
        if case is not None:
            value["case"] = case
        if difference:
            value["difference"] = list(difference)
        self.write({**value, **more})
        with self.turn:
            self.ended.add(row.key)
            self.counts["same" if same is True else "different" if same is False else "not run"] += 1
        if case is None or same is False:
            self._tell(row.key + (" " + case if case else ""), value, more)

    def _tell(self, name, value, more):
        same = value["same"]
        text = "the same" if same is True else "DIFFERENT" if same is False else "not compared" if (value["ours"] or {}).get("status") == "ok" else "not run"
        seconds = [side["seconds"] for side in (value["native"], value["ours"]) if side and "seconds" in side]
        times = " (" + " / ".join(f"{s:.1f} s" for s in seconds) + ")" if seconds else ""
        status = value["ours"]["status"] if value["ours"] else None
        why = more.get("reason") or ("" if status in (None, "ok") else status) or "; ".join(value.get("difference", [])[:2])
        self.say(f"{name}: {text}{times}{': ' + why.splitlines()[0][:160] if why and same is not True else ''}")

    def summary(self, row, value):
        self.write({"summary": row.name, "transport": row.transport, **value})
        with self.turn:
            self.ended.add(row.key)
        self.say(f"{row.key}: {value['cases']} cases ({value['native_seconds']:.1f} s / {value['ours_seconds']:.1f} s)")


class Cache:
    """What native runs said, by row, kept in a file so that a later run with `--native-from` need not repeat them."""

    def __init__(self, path, earlier=None):
        self.kept, self.turn = {}, threading.Lock()
        if earlier:
            with open(earlier, encoding="utf-8") as file:
                for line in file:
                    try:
                        value = json.loads(line)
                        self.kept[value["row"]] = value["native"]
                    except (ValueError, KeyError):
                        continue  # the last line of a run that was cut short
        self.file = open(path, "w", encoding="utf-8") if path else None
        for name, value in self.kept.items():
            self._write(name, value)

    def _write(self, name, value):
        if self.file:
            self.file.write(json.dumps({"row": name, "native": value}) + "\n")
            self.file.flush()

    def get(self, name):
        return self.kept.get(name)

    def put(self, name, value):
        with self.turn:
            self.kept[name] = value
            self._write(name, value)
