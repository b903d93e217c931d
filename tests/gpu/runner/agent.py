"""The host's end of the guest agent's port. tests/guest-agent/src/lib.rs has the frames and what may be asked."""

import json
import queue
import socket
import struct
import threading
import time

from . import execute

# The agent's first message answers this; requests have the next numbers.
HELLO = 0
LENGTHS = struct.Struct("<II")
# How long a killed command's end may take to arrive.
KILL_LIMIT = 20.0
SIGKILL = 9


class Gone(Exception):
    """The guest says nothing any more."""


class Agent:
    def __init__(self, path, alive, limit=30.0):
        """Connects to QEMU's socket `path`, which appears while `alive()`."""
        until = time.monotonic() + limit
        self.port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while True:
            try:
                self.port.connect(path)
                break
            except OSError as error:
                if not alive() or time.monotonic() > until:
                    raise Gone(f"QEMU has no port for the agent: {error.strerror}") from error
                time.sleep(0.05)
        self.first = queue.Queue()
        # Who waits for answers; nobody once the port is closed.
        self.turn, self.next, self.waiting = threading.Lock(), HELLO + 1, {HELLO: self.first}
        threading.Thread(target=self._read, daemon=True).start()

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.port.recv(count - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return bytes(data)

    def _read(self):
        try:
            while True:
                text, body = LENGTHS.unpack(self._exactly(LENGTHS.size))
                envelope, data = json.loads(self._exactly(text)), self._exactly(body)
                listener = self.waiting.get(envelope["id"])
                if listener is not None:
                    listener.put((envelope["message"], data))
        except (OSError, ValueError):
            pass
        with self.turn:
            for listener in self.waiting.values():
                listener.put((None, b""))
            self.waiting = None

    def _send(self, message, body=b"", number=None):
        """Sends a request; its number and where its answers come."""
        with self.turn:
            if self.waiting is None:
                raise Gone("the guest has ended")
            if number is None:
                number, self.next = self.next, self.next + 1
                self.waiting[number] = queue.Queue()
            text = json.dumps({"id": number, "message": message}).encode()
            try:
                self.port.sendall(LENGTHS.pack(len(text), len(body)) + text + body)
            except OSError as error:
                raise Gone("the guest takes no requests") from error
            return number, self.waiting[number]

    def _forget(self, number):
        with self.turn:
            if self.waiting is not None:
                self.waiting.pop(number, None)

    def hello(self, limit):
        """Waits for its first word: the kernel's release."""
        try:
            message, _ = self.first.get(timeout=limit)
        except queue.Empty:
            raise Gone(f"the guest did not come up in {limit:.0f} s") from None
        if message is None:
            raise Gone("the guest ended before it came up")
        return message["Hello"]["kernel"]

    def run(self, argv, env, limit, cwd="/", silence=None, heard=None):
        """`execute.run`, in the guest. `heard` is given each line of standard output as it comes."""
        begin = time.monotonic()
        outputs = {"Stdout": bytearray(), "Stderr": bytearray()}

        def ended(status):
            texts = [bytes(outputs[name][:execute.MOST_OUTPUT]).decode("utf-8", "replace") for name in ("Stdout", "Stderr")]
            return execute.Ended(status, time.monotonic() - begin, *texts)

        try:
            command = {"argv": list(argv), "uid": 0, "env": [[k, v] for k, v in env.items()], "cwd": cwd}
            number, answers = self._send({"Run": command})
        except Gone as why:
            return ended(f"failed: {why}")
        until, last, late, begun = begin + limit, begin, None, b""
        while True:
            now = time.monotonic()
            wait = until - now if silence is None or late else min(until, last + silence) - now
            try:
                message, data = answers.get(timeout=max(0.0, wait))
            except queue.Empty:
                if late:
                    return ended(late + ", and its kill was not answered")
                late = f"no end in {limit:.0f} s" if time.monotonic() >= until else f"nothing said for {silence:.0f} s"
                until = time.monotonic() + KILL_LIMIT
                try:
                    self._send({"Signal": SIGKILL}, number=number)
                except Gone as why:
                    return ended(f"{late}; {why}")
                continue
            if message is None:
                return ended(late or "failed: the guest has ended")
            kind, value = next(iter(message.items())) if isinstance(message, dict) else (message, None)
            if kind == "Output":
                outputs[value] += data
                if value == "Stdout":
                    last = time.monotonic()
                    if heard:
                        *lines, begun = (begun + data).split(b"\n")
                        for line in lines:
                            heard(line.decode("utf-8", "replace"))
            elif kind == "Exit":
                self._forget(number)
                code = value["Code"] if "Code" in value else -value["Signal"]
                return ended(late or execute.status_of(code))
            else:
                return ended(f"failed: {value or kind}")

    def power_off(self):
        try:
            self._send("PowerOff")
        except Gone:
            pass

    def close(self):
        try:
            self.port.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.port.close()
