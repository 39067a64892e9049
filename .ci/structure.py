"""Checks what the compiler does not: arrows between crates point downwards only, the sidecar carries no example's and no
second TLS provider's code, and every licence is one we may use."""

import json
import subprocess
import sys

# What each crate of ours may use of ours.
ALLOWED = {
    "model": set(),
    "h1": set(),
    "net": {"model"},
    "geo": {"model"},
    "telemetry": {"model"},
    "redirect": {"model"},
    "proxy": {"model", "h1", "net", "geo", "telemetry"},
    "outrigger": {"model", "net", "geo", "telemetry", "redirect", "proxy"},
    "login-service": set(),
    "demo": {"outrigger", "login-service"},
    "benches": {"h1"},
}
# Nothing of these in the sidecar.
NOT_IN_THE_SIDECAR = {"ring", "openssl", "native-tls", "argon2", "kube", "rcgen"}
LICENCES = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0", "Unlicense", "0BSD", "MIT-0", "CC0-1.0", "BSL-1.0", "Apache-2.0 WITH LLVM-exception"}

metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"]))
ours = {p["id"]: p for p in metadata["packages"] if p["id"] in metadata["workspace_members"]}
wrong = []
for package in ours.values():
    name = package["name"]
    if name not in ALLOWED:
        wrong.append(f"{name}: not in the house; give it a place in .ci/structure.py")
        continue
    names = {p["name"] for p in ours.values()}
    used = {d["name"] for d in package["dependencies"] if d["kind"] is None and d["name"] in names}
    for other in sorted(used - ALLOWED[name]):
        wrong.append(f"{name} uses {other}: arrows point downwards only")

nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
packages = {p["id"]: p for p in metadata["packages"]}


def reach(root):
    seen, todo = set(), [root]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        for dep in nodes[here]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                todo.append(dep["pkg"])
    return seen


for root in (i for i, p in ours.items() if p["name"] == "outrigger"):
    for name in sorted({packages[i]["name"] for i in reach(root)} & NOT_IN_THE_SIDECAR):
        wrong.append(f"{name} is in the sidecar")

for i in set().union(*(reach(root) for root in ours)):
    licence = packages[i]["license"] or ""
    choices = [c.strip(" ()") for c in licence.replace("/", " OR ").split(" OR ")]
    if not any(all(part.strip(" ()") in LICENCES for part in choice.split(" AND ")) for choice in choices):
        wrong.append(f"{packages[i]['name']}: licence {licence!r} is not one of ours")

print("\n".join(wrong) or f"{len(ours)} crates in order")
sys.exit(bool(wrong))
