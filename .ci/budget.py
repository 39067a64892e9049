"""Counts the instructions of the hot functions and holds them to benches/budget.toml: what costs more fails and says so.

`--record` writes what was counted as the new budget: for a change that is worth its price, or that makes something cheaper."""

import os
import re
import subprocess
import sys
import tomllib

RUNNER = "0.20.0"
TOOLS = os.path.abspath("target/tools")
BUDGET = "benches/budget.toml"


def count():
    """Instructions of each benchmark, by name."""
    version = [os.path.join(TOOLS, "bin", "gungraun-runner"), "--version"]
    if not os.path.exists(version[0]) or RUNNER not in subprocess.check_output(version, text=True):
        # Its own dependencies, its own lock file; without optimization it is built in a quarter of the time.
        install = [os.environ.get("CARGO", "cargo"), "install", "gungraun-runner", "--version", RUNNER, "--locked", "--profile", "dev", "--root", TOOLS]
        subprocess.run([*install, "--quiet"], check=True)
    environment = os.environ | {"GUNGRAUN_RUNNER": version[0], "GUNGRAUN_COLOR": "never"}
    bench = [os.environ.get("CARGO", "cargo"), "bench", "--locked", "--quiet", "--profile", "instructions", "-p", "benches", "--bench", "instructions"]
    ran = subprocess.run(bench, env=environment, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(f"{ran.stdout}\nthe benchmarks did not run")
    found = re.findall(r"^instructions::hot::(\w+) (\w+):.*\n\s*Instructions:\s*(\d+)", ran.stdout, re.MULTILINE)
    return {f"{function}.{case}": int(instructions) for function, case, instructions in found}


def write(counted, slack):
    lines = [
        "# What the hot functions may cost, in instructions, as `python3 .ci/budget.py --record` counted them; and by how much a",
        "# change may pass that before CI fails.",
        f'compiler = "{compiler()}"',
        f"slack_percent = {slack}",
        "",
        "[instructions]",
        *(f'"{name}" = {instructions}' for name, instructions in counted.items()),
    ]
    with open(BUDGET, "w") as file:
        file.write("\n".join(lines) + "\n")


def compiler():
    return subprocess.check_output(["rustc", "--version"], text=True).split(" ")[1]


def judge(counted, budget):
    """What is wrong with what was counted, and what is worth saying."""
    slack, allowed = budget["slack_percent"], budget["instructions"]
    wrong, said = [], []
    for name, instructions in counted.items():
        if name not in allowed:
            wrong.append(f"{name}: {instructions} instructions, and no budget; give it one with --record")
            continue
        percent = 100 * (instructions / allowed[name] - 1)
        told = f"{name}: {instructions} instructions, {percent:+.1f} % of the {allowed[name]} in {BUDGET}"
        if percent > slack:
            wrong.append(f"{told}, of which {slack} % are free. Make it cheaper, or record the price and say in the commit what for")
        elif percent < -slack:
            said.append(f"{told}: cheaper; keep it so with --record")
    wrong += [f"{name}: in {BUDGET}, and not counted" for name in allowed if name not in counted]
    return wrong, said


def main():
    counted = count()
    with open(BUDGET, "rb") as file:
        budget = tomllib.load(file)
    if "--record" in sys.argv:
        write(counted, budget["slack_percent"])
        return
    wrong, said = judge(counted, budget)
    if budget["compiler"] != compiler():
        said.append(f"counted with rustc {compiler()}, recorded with {budget['compiler']}")
    print("\n".join(wrong + said) or f"{len(counted)} functions within their budget")
    sys.exit(bool(wrong))


main()
