#!/usr/bin/env python3
"""Checks from `cargo metadata` that no crate reaches across the layers of docs/ARCHITECTURE.md."""

import json
import subprocess
import sys

CORE = {"lsm-core"}
ALLOWED = {
    "lsm-core": set(),
    "lsm-wal": CORE,
    "lsm-memtable": CORE,
    "lsm-sstable": CORE,
    "lsm-compaction": CORE,
}

metadata = json.loads(
    subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"])
)
packages = {package["name"]: package for package in metadata["packages"]}
failed = [f"{name} is missing" for name in ALLOWED if name not in packages]
for name, allowed in ALLOWED.items():
    for dependency in packages.get(name, {}).get("dependencies", []):
        other = dependency["name"]
        # A crate may test itself beside others; what it ships may not know them.
        if other.startswith("lsm-") and dependency["kind"] != "dev" and other not in allowed:
            failed.append(f"{name} depends on {other}")
print("\n".join(failed) or "layers hold")
sys.exit(bool(failed))
