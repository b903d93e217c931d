#!/usr/bin/env python3
"""Runs programs natively and through libcuda.so.1 of this repository, in turn, and says where they differ.

    python3 run.py --out rows.jsonl --time-limit 240

Needs Python 3 and nothing else of its own; a row needs what its programs need, and says so where that is missing. Standard output
stays empty; progress goes to standard error; each row is one line of JSON in --out as soon as it has ended.
"""

import sys

sys.dont_write_bytecode = True

from runner.main import main  # noqa: E402 - the line above has to come first

if __name__ == "__main__":
    sys.exit(main())
