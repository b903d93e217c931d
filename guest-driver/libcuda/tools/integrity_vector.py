#!/usr/bin/env python3
"""Computes the expected values of src/integrity.rs's tests, independently of the crates used there.

MD2 is written from RFC 1319 and checked against its test suite; HMAC from RFC 2104 with MD2's block size, 16 bytes.
"""

import struct

SUITE = {
    b"": "8350e5a3e24c153df2275c9f80692773",
    b"a": "32ec01ec4a6dac72c0ab96fb34c0b5d1",
    b"abc": "da853b0d3f88d99b30283a69e6ded6bb",
    b"message digest": "ab4f496bfb2a530b219ff33031fe06b0",
    b"abcdefghijklmnopqrstuvwxyz": "4e8ddff3650292ab5a4108c3aa47940b",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789": "da33def2a42df13975352846c30338cd",
    b"1234567890" * 8: "d5976f79d83d3a0dc9806c3c66f3efd8",
}
KEY = bytes.fromhex("146addae53a9a752aa0841360bf55a9f")
BLOCK = 16


def pi_digits():
    """The decimal digits of pi, 3 first (Gibbons' spigot)."""
    q, r, t, k, n, l = 1, 0, 1, 1, 3, 3
    while True:
        if 4 * q + r - t < n * t:
            yield n
            q, r, n = 10 * q, 10 * (r - n * t), 10 * (3 * q + r) // t - 10 * n
        else:
            q, r, t, k, n, l = q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) // (t * l), l + 2


def substitution():
    """MD2's table: 0…255 shuffled by the digits of pi."""
    digits, table = pi_digits(), list(range(256))

    def below(n):
        x, y = next(digits), 10
        if n > 10:
            x, y = x * 10 + next(digits), 100
        if n > 100:
            x, y = x * 10 + next(digits), 1000
        return x % n if x < n * (y // n) else below(n)

    for i in range(2, 257):
        j = below(i)
        table[j], table[i - 1] = table[i - 1], table[j]
    return table


S = substitution()


def md2(data):
    pad = BLOCK - len(data) % BLOCK
    data += bytes([pad]) * pad
    checksum, last = bytearray(BLOCK), 0
    for at in range(0, len(data), BLOCK):
        for j in range(BLOCK):
            checksum[j] ^= S[data[at + j] ^ last]
            last = checksum[j]
    data += bytes(checksum)
    state = bytearray(BLOCK)
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        x = bytearray(state + block + bytes(a ^ b for a, b in zip(state, block)))
        t = 0
        for j in range(18):
            for k in range(48):
                x[k] ^= S[t]
                t = x[k]
            t = (t + j) % 256
        state = x[:BLOCK]
    return bytes(state)


def hmac_md2(key, message):
    key = key.ljust(BLOCK, b"\0")
    inner = md2(bytes(b ^ 0x36 for b in key) + message)
    return md2(bytes(b ^ 0x5C for b in key) + inner)


for text, digest in SUITE.items():
    assert md2(text).hex() == digest, text

header = struct.pack("<IIIIQQQQ", 13000, 13002, 4242, 0xDEADBEEF, 0x7F0000001000, 0x7F0000002000, 0x7F0000003000, 1795408034)
device = bytes.fromhex("66855d6af07d72bda2506c13da90fcc0") + struct.pack("<iii", 0, 0, 6)
second = bytes(range(16)) + struct.pack("<iii", 1, 0x81, 31)
print("one device: ", hmac_md2(KEY, header + device).hex())
print("two devices:", hmac_md2(KEY, header + device + second).hex())
print("no device:  ", hmac_md2(KEY, header).hex())
print("fixed:      ", struct.pack("<QQ", 0x3341181C03CB675C, 0x8ED383AA1F4CD1E8).hex(), struct.pack("<QQ", 0x1841181C03CB675C, 0x8ED383AA1F4CD1E8).hex())
