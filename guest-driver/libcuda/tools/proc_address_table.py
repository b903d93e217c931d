#!/usr/bin/env python3
"""Makes src/proc_address/table.rs from what a real driver answered.

usage: proc_address_table.py MEASURED.tsv > src/proc_address/table.rs

MEASURED.tsv has one row per change of cuGetProcAddress_v2's answer along a list of versions, tab separated: base name,
flags (0, 1, 2), version, result code, symbol status, exported symbol or NULL. Lines that start with # are comments.
Every (name, flags, version) at which the answer changes must be there, and the rows must stand in the order of the names.
The line that the script prints to stderr holds the numbers that src/proc_address/tests.rs compares with.
"""

import sys
from collections import defaultdict

HEADER = '''\
//! What driver 580 exports under which base name from which CUDA version on: facts measured with its cuGetProcAddress_v2.
//! Made by tools/proc_address_table.py; edit that, not this.

/// From this `cudaVersion` on, the base name means the symbol with this suffix.
pub(super) type Variant = (u32, &'static str);

/// Base name, its variants by ascending version, and its variants where a per-thread default stream is asked for (empty:
/// the same).
pub(super) type Entry = (&'static str, &'static [Variant], &'static [Variant]);

/// Sorted by base name, for binary search.
#[rustfmt::skip]
pub(super) static TABLE: &[Entry] = &['''


def fail(text):
    sys.exit(f"proc_address_table.py: {text}")


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    names, answers, lines = [], defaultdict(list), []
    with open(sys.argv[1], encoding="ascii") as measured:
        for line in measured:
            if line.startswith("#"):
                continue
            name, flags, version, code, status, symbol = line.rstrip("\n").split("\t")
            lines.append(line.rstrip("\n"))
            if name not in names[-1:]:
                names.append(name)
            if code != "0":
                fail(f"{name}: result {code}")
            answers[name, int(flags)].append((int(version), int(status), symbol))
    if len(set(names)) != len(names):
        fail("the rows of a name do not stand together")

    def variants(name, flags):
        found = []
        for version, status, symbol in answers[name, flags]:
            if status == 0:
                if not symbol.startswith(name):
                    fail(f"{name} means {symbol}")
                found.append((version, symbol[len(name):]))
            elif found:
                fail(f"{name} disappears at {version}")
        return found

    def text(found):
        return "&[" + ", ".join(f'({version}, "{suffix}")' for version, suffix in found) + "]"

    print(HEADER)
    unknown = 0
    for name in sorted(names):
        plain, legacy, per_thread = (variants(name, flags) for flags in (0, 1, 2))
        if plain != legacy:
            fail(f"{name}: the legacy stream flag makes a difference")
        if not plain:
            unknown += 1
            continue
        print(f'    ("{name}", {text(plain)}, {text([] if per_thread == plain else per_thread)}),')
    print("];")
    # The replay in tests.rs makes the same rows in the order of the names and compares.
    rows = "".join(line + "\n" for line in sorted(lines, key=lambda l: (l.split("\t")[0], *map(int, l.split("\t")[1:3]))))
    versions = sorted({int(line.split("\t")[2]) for line in lines})
    print(f"{len(lines)} rows, {len(names)} names, {unknown} unknown, versions {versions}, "
          f"FNV-1a {fnv1a(rows.encode()):#018x}", file=sys.stderr)


main()
