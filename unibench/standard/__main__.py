"""See `unibench.standard`."""

from __future__ import annotations

import argparse
import json
import sys

from openuni.storage import write_atomic
from unibench.standard import SETS, fingerprint, get, key, recorded


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m unibench.standard", description="Check or freeze a standard set.")
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("--write", action="store_true", help="replace the record")
    options = parser.parse_args()
    standard = get(options.name)
    frozen = {} if options.write else recorded(standard)
    made, wrong = {}, 0
    for spec in standard.specs():
        made[key(spec)] = fingerprint(spec)
        if not options.write and frozen.get(key(spec)) != made[key(spec)]:
            wrong += 1
            print(f"{key(spec)} differs from the record", file=sys.stderr)
    if options.write:
        write_atomic(standard.record, (json.dumps(made, indent=1) + "\n").encode(), "standard")
    print(f"{len(made)} scenes, {wrong} differ from the record")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
