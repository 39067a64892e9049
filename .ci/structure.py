"""Checks what the compiler does not: arrows between crates point downwards only, the sidecar carries no example's and no
second TLS provider's code, and every licence is one we may use."""

import json
import re
import subprocess
import sys

# What each crate of ours may use of ours.
ALLOWED = {
    "model": set(),
    "h1": set(),
    "net": {"model"},
    "geo": {"model"},
    "identity": {"model"},
    "telemetry": {"model"},
    "redirect": {"model"},
    "proxy": {"model", "h1", "net", "geo", "identity", "telemetry"},
    "outrigger": {"model", "net", "geo", "identity", "telemetry", "redirect", "proxy"},
    "control": {"model"},
    "authority": set(),
    "login-service": set(),
    "shop-service": set(),
    "demo": {"authority", "outrigger", "login-service", "shop-service"},
    "benches": {"authority", "h1", "net"},
}
# Nothing of these in the sidecar.
NOT_IN_THE_SIDECAR = {"argon2", "control", "kube", "rcgen", "authority"}
# Nothing of the data path in the control binary.
NOT_IN_CONTROL = {"proxy", "h1", "net", "geo", "identity", "telemetry", "redirect", "authority"}
PROVIDERS = {"ring", "openssl", "openssl-sys", "native-tls", "boring", "mbedtls"}
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


def reach(package):
    """What a package is built with, as features have it: name and licence. (`cargo metadata` lists what no feature chose.)"""
    tree = ["cargo", "tree", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}|{l}"]
    lines = subprocess.check_output(tree, text=True).splitlines()
    return {(line.split(" ")[0], line.split("|")[1].removesuffix(" (*)")) for line in lines if "|" in line}


def allowed(licence):
    """Evaluates a licence expression with what we may use for true."""
    words = re.findall(r"[()]|[^\s()]+(?: WITH \S+?(?=[)\s]|$))?", licence.replace("/", " OR "))
    known = {"(": "(", ")": ")", "AND": "and", "OR": "or"}
    return bool(licence) and eval(" ".join(known.get(word, str(word in LICENCES)) for word in words))


built = {package["name"]: reach(package["name"]) for package in ours.values()}
for name in sorted({name for name, _ in built["outrigger"]} & NOT_IN_THE_SIDECAR):
    wrong.append(f"{name} is in the sidecar")
for name in sorted({name for name, _ in built["control"]} & NOT_IN_CONTROL):
    wrong.append(f"{name} is in the control binary")
# One cryptography provider in the whole house.
for name in sorted({name for those in built.values() for name, _ in those} & PROVIDERS):
    wrong.append(f"{name} is a second cryptography provider beside aws-lc-rs")
for name, licence in sorted(set().union(*built.values())):
    if name not in ALLOWED and not allowed(licence):
        wrong.append(f"{name}: licence {licence!r} is not one of ours")

print("\n".join(wrong) or f"{len(ours)} crates in order")
sys.exit(bool(wrong))
