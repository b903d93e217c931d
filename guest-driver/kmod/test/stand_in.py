#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A stand-in for the device, to test the kernel module alone.

It is a vhost-user back end for `vhost-user-fs-pci` (or, with --generic, for the generic vhost-user device). It answers
control requests and posts events, and has no worker behind it. What it does beyond answering yes:

- A kick: for each ring of the kicked sessions it sets tail to head, and wakes the ring.
- A mapped region whose first word holds its own address is checked page by page (each page's first word must hold
  that page's address), and answered in the second word with the complement.
- Misbehaviour, asked for in the session's environment block as STANDIN=WORD[,WORD…]:
  refuse_open  refuse_ring  refuse_region  refuse_late (a region's second piece)  silent_ring  silent_region
  slow_close (the answer to CLOSE_SESSION takes 3 s)  retry_close (the first one fails)  die_at_kick
- --silent-hello SECONDS answers HELLO late.

Each request, and what is still held at a session's close, is a line on standard output.
"""

import argparse
import mmap
import os
import selectors
import socket
import struct
import sys
import time

PAGE = 4096
HELLO, READ_REGS, READ_INFO, OPEN, ADD_PART, REMOVE_RING, MAP, UNMAP, CLOSE = range(1, 10)
NAMES = "? HELLO READ_REGS READ_INFO OPEN ADD_PART REMOVE_RING MAP UNMAP CLOSE".split()
ERROR_INVALID, ERROR_TIMEOUT, ERROR_CUDA, ERROR_FULL = 1, 4, 5, 7
TAG = b"VGPUSTUB"
INFO = b"stand-in" + bytes(i * 7 & 0xFF for i in range(40000))
RING_BYTES = 331776
OFF_HEAD, OFF_TAIL = 0x000, 0x040
PAGE_STATE, PAGE_REASON, PAGE_EVENT_POSTED, PAGE_WAKE = 0, 4, 12, 64

VIRTIO_F_VERSION_1, INDIRECT, PROTOCOL_FEATURES = 1 << 32, 1 << 28, 1 << 30
PROTO_MQ, PROTO_REPLY_ACK, PROTO_CONFIG = 1 << 0, 1 << 3, 1 << 9


def log(*words):
    print(*words, flush=True)


class Memory:
    """Guest RAM: regions (guest-physical address, size, QEMU's address, mapping)."""

    def __init__(self):
        self.regions = []

    def replace(self, regions):
        self.regions = regions

    def at(self, address, length, column=0):
        for region in self.regions:
            offset = address - region[column]
            if 0 <= offset and offset + length <= region[1]:
                return region[3], region[4] + offset
        raise ValueError(f"{address:#x}+{length:#x} is not in guest memory")

    def read(self, gpa, length):
        ram, offset = self.at(gpa, length)
        return ram[offset:offset + length]

    def write(self, gpa, data):
        ram, offset = self.at(gpa, len(data))
        ram[offset:offset + len(data)] = data

    def word(self, gpa, form="<Q"):
        return struct.unpack(form, self.read(gpa, struct.calcsize(form)))[0]

    def set_word(self, gpa, value, form="<Q"):
        self.write(gpa, struct.pack(form, value))


class Queue:
    def __init__(self, memory):
        self.memory = memory
        self.size = self.last = 0
        self.desc = self.avail = self.used = None
        self.kick = self.call = None
        self.enabled = False

    def ready(self):
        return self.enabled and self.desc is not None and self.kick is not None

    def local(self, address, length):
        return self.memory.at(address, length, column=2)

    def field(self, base, offset, form):
        ram, at = self.local(base + offset, struct.calcsize(form))
        return struct.unpack_from(form, ram, at)[0]

    def pop(self):
        """The next chain: (head, readable bytes, writable [(gpa, len)]), or None."""
        if self.field(self.avail, 2, "<H") == self.last & 0xFFFF:
            return None
        head = self.field(self.avail, 4 + 2 * (self.last % self.size), "<H")
        self.last += 1
        table = lambda index: (self.local(self.desc + 16 * index, 16))
        readable, writable, index = [], [], head
        while True:
            ram, at = table(index)
            gpa, length, flags, following = struct.unpack_from("<QIHH", ram, at)
            if flags & 4:
                table = lambda index, base=gpa: self.memory.at(base + 16 * index, 16)
                index = 0
                continue
            (writable if flags & 2 else readable).append((gpa, length))
            if not flags & 1:
                return head, b"".join(self.memory.read(*part) for part in readable), writable
            index = following

    def push(self, head, length):
        index = self.field(self.used, 2, "<H")
        ram, at = self.local(self.used + 4 + 8 * (index % self.size), 8)
        struct.pack_into("<II", ram, at, head, length)
        ram, at = self.local(self.used + 2, 2)
        struct.pack_into("<H", ram, at, (index + 1) & 0xFFFF)
        if self.call is not None:
            os.write(self.call, struct.pack("<Q", 1))


class Session:
    def __init__(self, slot, page, words):
        self.slot, self.page, self.words = slot, page, words
        self.rings, self.regions = {}, {}
        self.close_failed = False


class Device:
    def __init__(self, options):
        self.options = options
        self.memory = Memory()
        self.queues = [Queue(self.memory), Queue(self.memory)]
        self.sessions = {}
        self.pending = None
        self.later = []  # (time, call)
        self.events = []

    # ---- control queue ----

    def control(self):
        if self.pending is not None:
            self.take_kicks()
        queue = self.queues[0]
        while queue.ready() and (chain := queue.pop()):
            self.request(queue, *chain)

    def request(self, queue, head, data, writable):
        kind, request_id, slot, _ = struct.unpack_from("<IIII", data)

        def answer(error=0, body=b"", cuda=0):
            reply = struct.pack("<IIII", error, request_id, len(body), cuda) + body
            room = sum(length for _, length in writable)
            assert len(reply) <= room, f"{NAMES[kind]}: answer of {len(reply)} bytes, room {room}"
            left = reply
            for gpa, length in writable:
                self.memory.write(gpa, left[:length])
                left = left[length:]
            queue.push(head, len(reply))
            log(f"answer {NAMES[kind]} session {slot} error {error}")

        body = data[16:]
        session = self.sessions.get(slot)
        getattr(self, "on_" + NAMES[kind].lower())(session, slot, body, answer)

    def on_hello(self, _, slot, body, answer):
        abi, _, nonce, pending = struct.unpack("<IIQQ", body)
        log(f"HELLO version {abi} nonce {nonce:#x}")
        reply = struct.pack("<IIII", abi, 1, self.options.sessions, 256)

        def greet():
            self.pending = pending
            answer(0, reply)
        if self.options.silent_hello:
            self.later.append((time.monotonic() + self.options.silent_hello, greet))
        else:
            greet()

    def on_read_regs(self, _, slot, body, answer):
        block = bytearray(256)
        block[0x40:0x48] = TAG
        struct.pack_into("<I", block, 0x70, len(self.sessions))
        answer(0, bytes(block))

    def on_read_info(self, _, slot, body, answer):
        offset, length = struct.unpack("<II", body)
        answer(0, INFO[offset:offset + length])

    def on_open(self, session, slot, body, answer):
        _, pid, _, page, env_len, uid = struct.unpack_from("<II16sQII", body)
        env = body[40:]
        assert session is None, f"slot {slot} is taken"
        assert slot < self.options.sessions, f"slot {slot} is not below the limit"
        assert len(env) == env_len
        assert not any(self.memory.read(page, PAGE)), "session page is not zeroed"
        words = [s[8:] for s in env.decode().split("\0") if s.startswith("STANDIN=")]
        words = words[0].split(",") if words else []
        if "refuse_open" in words:
            return answer(ERROR_CUDA, cuda=100)
        self.sessions[slot] = Session(slot, page, words)
        self.memory.set_word(page + PAGE_STATE, 1, "<I")
        log(f"OPEN session {slot} pid {pid} uid {uid} {' '.join(words)}")
        answer()

    def runs(self, data, count, length):
        runs = [struct.unpack_from("<QQ", data, 16 * i) for i in range(count)]
        assert len(data) == 16 * count, f"{len(data)} bytes for {count} runs"
        assert sum(run[1] for run in runs) == length, "runs do not add up"
        assert all(gpa % PAGE == 0 and size % PAGE == 0 and size for gpa, size in runs), "runs are not pages"
        for run in runs:
            self.memory.at(*run)
        return runs

    def on_add_part(self, session, slot, body, answer):
        ring, part, length, count, _ = struct.unpack_from("<IIQII", body)
        runs = self.runs(body[24:], count, length)
        assert part or length == RING_BYTES
        for run in runs:
            assert not any(self.memory.read(*run)), "ring memory is not zeroed"
        if "silent_ring" in session.words:
            return log("silent")
        if "refuse_ring" in session.words:
            return answer(ERROR_FULL)
        assert (ring, part) not in session.rings, f"ring {ring} part {part} exists"
        session.rings[ring, part] = runs
        log(f"ring {ring} part {part}: {length} bytes in {count} runs")
        answer()

    def on_remove_ring(self, session, slot, body, answer):
        ring = struct.unpack_from("<I", body)[0]
        assert session.rings.pop((ring, 0), None), f"no ring {ring}"
        session.rings.pop((ring, 1), None)
        answer()

    def on_map(self, session, slot, body, answer):
        number, flags, va, length, count, _ = struct.unpack_from("<IIQQII", body)
        runs = self.runs(body[32:], count, length)
        pieces = session.regions.get(number, [])
        log(f"region {number} flags {flags} va {va:#x}: {length} bytes in {count} runs, piece {len(pieces)}")
        if pieces:
            assert pieces[-1][0] + pieces[-1][1] == va, "piece does not continue the region"
        if "silent_region" in session.words:
            return log("silent")
        if "refuse_region" in session.words or "refuse_late" in session.words and pieces:
            return answer(ERROR_CUDA, cuda=712)
        session.regions.setdefault(number, []).append((va, length))
        self.check_region(va, runs, flags)
        answer()

    def check_region(self, va, runs, flags):
        if self.memory.word(runs[0][0]) != va:
            return
        for gpa, size in runs:
            for page in range(gpa, gpa + size, PAGE):
                found = self.memory.word(page)
                assert found == va, f"page of {va:#x} holds {found:#x}"
                if not flags & 1:
                    self.memory.set_word(page + 8, ~va & (1 << 64) - 1)
                va += PAGE

    def on_unmap(self, session, slot, body, answer):
        number = struct.unpack_from("<I", body)[0]
        assert session.regions.pop(number, None), f"no region {number}"
        answer()

    def on_close(self, session, slot, body, answer):
        if session is None:
            return answer(ERROR_INVALID)
        if "retry_close" in session.words and not session.close_failed:
            session.close_failed = True
            return answer(ERROR_TIMEOUT)

        def close():
            del self.sessions[slot]
            log(f"closed session {slot} with {len(session.rings)} parts, {len(session.regions)} regions")
            answer()
        if "slow_close" in session.words:
            self.later.append((time.monotonic() + 3, close))
        else:
            close()

    # ---- kicks and events ----

    def take_kicks(self):
        bits = int.from_bytes(self.memory.read(self.pending, 32), "little")
        self.memory.write(self.pending, bytes(32))
        for slot in [slot for slot in self.sessions if bits >> slot & 1]:
            session = self.sessions[slot]
            log(f"kick session {slot}")
            if "die_at_kick" in session.words:
                self.memory.set_word(session.page + PAGE_REASON, 1, "<I")
                self.memory.set_word(session.page + PAGE_STATE, 2, "<I")
                self.event(2, slot, 1)
                continue
            for ring, part in session.rings:
                if part == 0:
                    header = session.rings[ring, part][0][0]
                    self.memory.set_word(header + OFF_TAIL, self.memory.word(header + OFF_HEAD))
                    self.wake(session, ring)

    def wake(self, session, ring):
        at = session.page + PAGE_WAKE + ring // 64 * 8
        # Not atomic against the guest's exchange, which a real device must be; here the guest is waiting.
        self.memory.set_word(at, self.memory.word(at) | 1 << ring % 64)
        if self.memory.word(session.page + PAGE_EVENT_POSTED, "<I") == 0:
            self.memory.set_word(session.page + PAGE_EVENT_POSTED, 1, "<I")
            self.event(1, session.slot, 0)

    def event(self, kind, slot, reason):
        queue = self.queues[1]
        chain = queue.pop() if queue.ready() else None
        assert chain, "the driver has posted no event buffer"
        head, _, writable = chain
        assert writable[0][1] == 32
        self.memory.write(writable[0][0], struct.pack("<III5I", kind, slot, reason, 0, 0, 0, 0, 0))
        queue.push(head, 32)


class VhostUser:
    """The vhost-user protocol on one connection."""

    def __init__(self, connection, options):
        self.connection, self.options = connection, options
        self.device = Device(options)
        self.selector = selectors.DefaultSelector()
        self.selector.register(connection, selectors.EVENT_READ, self.message)
        self.open = True

    def run(self):
        while self.open:
            now = time.monotonic()
            due = [entry for entry in self.device.later if entry[0] <= now]
            self.device.later = [entry for entry in self.device.later if entry[0] > now]
            for _, call in due:
                call()
            wait = min((entry[0] for entry in self.device.later), default=None)
            for key, _ in self.selector.select(None if wait is None else max(0, wait - time.monotonic())):
                key.data()

    def message(self):
        data, fds, _, _ = socket.recv_fds(self.connection, 12, 8)
        if len(data) < 12:
            log("QEMU has hung up")
            self.open = False
            return
        request, flags, size = struct.unpack("<III", data)
        body = b""
        while len(body) < size:
            body += self.connection.recv(size - len(body))
        reply = self.handle(request, body, fds)
        if reply is None and flags & 8:
            reply = struct.pack("<Q", 0)
        if reply is not None:
            self.connection.sendall(struct.pack("<III", request, 5, len(reply)) + reply)

    def handle(self, request, body, fds):
        u64 = struct.unpack("<Q", body)[0] if len(body) == 8 else None
        index, number = struct.unpack("<II", body) if len(body) == 8 else (0, 0)
        queues = self.device.queues
        if request == 1:
            indirect = 0 if self.options.no_indirect else INDIRECT
            return struct.pack("<Q", VIRTIO_F_VERSION_1 | PROTOCOL_FEATURES | indirect)
        if request == 15:
            config = PROTO_CONFIG if self.options.generic else 0
            return struct.pack("<Q", PROTO_MQ | PROTO_REPLY_ACK | config)
        if request == 17:
            return struct.pack("<Q", 2)
        if request == 5:
            self.set_memory(body, fds)
        elif request == 8:
            queues[index].size = number
        elif request == 9:
            index, _, desc, used, avail, _ = struct.unpack("<IIQQQQ", body)
            queues[index].desc, queues[index].used, queues[index].avail = desc, used, avail
        elif request == 10:
            queues[index].last = number
        elif request == 11:
            return self.stop_queue(index)
        elif request == 12:
            self.set_kick(u64 & 0xFF, fds)
        elif request == 13:
            queues[u64 & 0xFF].call = fds[0] if fds else None
        elif request == 18:
            queues[index].enabled = bool(number)
            if number:
                self.device.control()
        elif request == 24:
            block = bytearray(256)
            block[0x40:0x48] = TAG
            offset, size, _ = struct.unpack_from("<III", body)
            return struct.pack("<III", offset, size, 0) + bytes(block[offset:offset + size])
        elif request not in (2, 3, 4, 14, 16, 25):
            log(f"vhost-user message {request} ignored")
        return None

    def set_memory(self, body, fds):
        count = struct.unpack_from("<I", body)[0]
        regions = []
        for i in range(count):
            gpa, size, user, offset = struct.unpack_from("<QQQQ", body, 8 + 32 * i)
            ram = mmap.mmap(fds[i], size + offset)
            os.close(fds[i])
            regions.append((gpa, size, user, ram, offset))
        self.device.memory.replace(regions)

    def set_kick(self, index, fds):
        queue = self.device.queues[index]
        queue.kick = fds[0] if fds else None
        if queue.kick is None:
            return

        def kicked():
            try:
                os.read(queue.kick, 8)
            except BlockingIOError:
                return  # QEMU was faster: it reads the descriptor itself while it stops the device
            if index == 0:
                self.device.control()
        os.set_blocking(queue.kick, False)
        self.selector.register(queue.kick, selectors.EVENT_READ, kicked)

    def stop_queue(self, index):
        queue = self.device.queues[index]
        if queue.kick is not None:
            self.selector.unregister(queue.kick)
            os.close(queue.kick)
            queue.kick = None
        queue.enabled = False
        if not any(q.enabled for q in self.device.queues):
            held = sorted(self.device.sessions)
            log("device stopped" + (f" with open sessions {held}" if held else ""))
            self.device.sessions.clear()
            self.device.pending = None
            self.device.later.clear()
        last, queue.last = queue.last, 0
        return struct.pack("<II", index, last & 0xFFFF)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket", help="where to listen for QEMU")
    parser.add_argument("--sessions", type=int, default=256, help="session limit that HELLO names")
    parser.add_argument("--silent-hello", type=float, default=0, metavar="SECONDS", help="answer HELLO that late")
    parser.add_argument("--no-indirect", action="store_true", help="do not offer indirect descriptors")
    parser.add_argument("--generic", action="store_true", help="serve config space")
    options = parser.parse_args()
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(options.socket):
        os.unlink(options.socket)
    listener.bind(options.socket)
    listener.listen(1)
    connection, _ = listener.accept()
    VhostUser(connection, options).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
