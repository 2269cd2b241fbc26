"""How fast routing follows a change of the workload: expected against shown acceptance, request by request.

usage: shift.py PACELINE TARGET TEXT.txt --draft DIR.. [--tasks datasets/tasks/test.jsonl] [--requests 60] [--threads 2]

One process answers --requests tasks, then as many beginnings of another kind of text, which the drafts and the router hardly know, then tasks again. What
the router expected of the drafter that drafted most (its acceptance, corrected by what was learned so far) is set against what was accepted, as means over
ten requests, with learning on and frozen. The table is the curve.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from common import count, machine
from drafting import chosen

WINDOW = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline")
    parser.add_argument("target")
    parser.add_argument("text", help="plain text of another kind")
    parser.add_argument("--draft", action="append", default=[])
    parser.add_argument("--tasks", default=os.path.join(os.path.dirname(__file__), "..", "datasets", "tasks", "test.jsonl"))
    parser.add_argument("--requests", type=count, default=60)
    parser.add_argument("--threads", type=count, default=2)
    a = parser.parse_args()
    tasks = chosen(a.tasks, 1 + 2 * a.requests // 24)[: 2 * a.requests]
    with open(a.text) as file:
        paragraphs = [part.strip() for part in file.read().split("\n\n") if 60 < len(part.strip()) < 2000]
    step = max(1, len(paragraphs) // a.requests)
    texts = [{"prompt": part[: len(part) // 2]} for part in paragraphs[::step][: a.requests]]
    rows = tasks[: a.requests] + texts + tasks[a.requests :]
    results = {}
    for name, flags in (("learning", []), ("frozen", ["--frozen"])):
        with tempfile.TemporaryDirectory() as folder:
            prompts = os.path.join(folder, "prompts.jsonl")
            with open(prompts, "w") as file:
                file.writelines(json.dumps({"messages": row["messages"]} if "messages" in row else row) + "\n" for row in rows)
            command = [a.paceline, "generate", "--model", a.target, "--prompts", prompts, "--json", "--threads", str(a.threads), "--max-new-tokens", "64",
                       "--online-state", os.path.join(folder, "state.json"), *flags]
            for draft in a.draft:
                command += ["--draft", draft]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr.strip())
            results[name] = [json.loads(line)["report"] for line in done.stdout.rstrip("\n").split("\n")]
    print(f"{machine()}; {a.threads} threads; {a.requests} tasks, {len(texts)} of {os.path.basename(a.text)}, tasks again\n")
    print("| requests | kind | shown | expected, learning | expected, frozen | off by, learning | off by, frozen |\n|---|---|---|---|---|---|---|")

    def seen(report):
        """What was expected of, and shown by, the drafter that drafted most."""
        drafter = report["plan"]["drafter"]
        expected = (report["plan"]["expected_acceptance"] or {}).get(drafter)
        counts = report["speculation"]["by_drafter"].get(drafter)
        return (expected, counts["accepted"] / counts["evaluated"]) if expected is not None and counts and counts["evaluated"] else None

    for start in range(0, len(rows), WINDOW):
        kind = "tasks" if "messages" in rows[start] else "text"
        cells = {}
        for name, reports in results.items():
            pairs = [pair for pair in map(seen, reports[start : start + WINDOW]) if pair]
            cells[name] = [statistics.mean(values) for values in zip(*pairs)] if pairs else None
        if not all(cells.values()):
            print(f"| {start + 1} to {start + WINDOW} | {kind} | nothing drafted | | | | |")
            continue
        (mine, shown), (cold, cold_shown) = cells["learning"], cells["frozen"]
        print(f"| {start + 1} to {start + WINDOW} | {kind} | {shown:.2f} | {mine:.2f} | {cold:.2f} | {abs(mine - shown):.2f} | {abs(cold - cold_shown):.2f} |")


if __name__ == "__main__":
    main()
