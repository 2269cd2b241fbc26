"""What the router's judgement is worth on prompts of other kinds: rank correlations of what it expects with what is measured.

usage: difficulty.py PACELINE TARGET PROMPTS.. --draft DIR.. [--drafter exit:2] [--max-new-tokens 64] [--threads 2]

PROMPTS are files of JSON lines or JSON lists with `prompt`, `problem`, `turns` or `messages`, and optionally `category` or `level`. Each prompt is answered
twice, routed and by --drafter alone. Spearman's correlation over prompts: of the acceptance that the router expects of that drafter (nothing learned on the
way) with the tokens per step that it reaches; of the predicted level with the file's level, where that is a number. With 95% intervals by Fisher's z.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

from common import count, machine

LEVELS = {"simple": 1, "medium": 2, "complex": 3}


def rows_of(path):
    with open(path) as file:
        text = file.read()
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    for row in rows:
        if "messages" in row:
            yield {"messages": row["messages"]}, row
        else:
            prompt = row.get("prompt") or row.get("problem") or row.get("question") or row["turns"][0]
            yield {"messages": [{"role": "user", "content": prompt}]}, row


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            rank[place] = (start + end - 1) / 2
        start = end
    return rank


def spearman(a, b):
    x, y = ranks(a), ranks(b)
    mx, my = statistics.mean(x), statistics.mean(y)
    spread = math.sqrt(sum((p - mx) ** 2 for p in x) * sum((q - my) ** 2 for q in y))
    return sum((p - mx) * (q - my) for p, q in zip(x, y)) / spread if spread else float("nan")


def shown(a, b):
    rho, n = spearman(a, b), len(a)
    if n < 10 or rho != rho:
        return f"- (n = {n})"
    z, width = math.atanh(max(-0.999, min(0.999, rho))), 1.96 / math.sqrt(n - 3)
    return f"{rho:+.2f} ({math.tanh(z - width):+.2f} to {math.tanh(z + width):+.2f}), n = {n}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline")
    parser.add_argument("target")
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--draft", action="append", default=[])
    parser.add_argument("--drafter", default="exit:2")
    parser.add_argument("--max-new-tokens", type=count, default=64)
    parser.add_argument("--threads", type=count, default=2)
    a = parser.parse_args()
    print(f"{machine()}; {a.threads} threads; greedy, {a.max_new_tokens} tokens\n")
    print(f"| prompts | answered | expected acceptance of `{a.drafter}` with its tokens per step | the same within categories, mean | predicted with given level |\n|---|---|---|---|---|")
    for path in a.prompts:
        rows = list(rows_of(path))
        found = {}
        for name, flags in (("routed", ["--frozen"]), ("alone", ["--drafter", a.drafter])):
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as prompts:
                prompts.writelines(json.dumps(prompt) + "\n" for prompt, _ in rows)
                prompts.flush()
                command = [a.paceline, "generate", "--model", a.target, "--prompts", prompts.name, "--json", "--ignore-eos", "--threads", str(a.threads),
                           "--max-new-tokens", str(a.max_new_tokens), *flags]
                for draft in a.draft:
                    command += ["--draft", draft]
                done = subprocess.run(command, capture_output=True, text=True)
                found[name] = [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]
                if len(found[name]) != len(rows):
                    sys.exit(done.stderr.strip())
        # Prompts beyond the context have no answer.
        kept = [place for place in range(len(rows)) if "error" not in found["routed"][place]]
        expected = {place: found["routed"][place]["report"]["plan"]["expected_acceptance"][a.drafter] for place in kept}
        reached = {place: found["alone"][place]["report"]["speculation"]["tokens_per_step"] for place in kept}
        predicted = {place: LEVELS[found["routed"][place]["report"]["plan"]["difficulty"]] for place in kept}
        by_category = {}
        for place in kept:
            by_category.setdefault(str(rows[place][1].get("category", "")), []).append(place)
        within = [spearman([expected[p] for p in places], [reached[p] for p in places]) for places in by_category.values() if len(places) >= 10]
        within = [rho for rho in within if rho == rho]
        levels = [place for place in kept if isinstance(rows[place][1].get("level"), (int, float))]
        level = shown([predicted[p] for p in levels], [rows[p][1]["level"] for p in levels]) if levels else "-"
        inside = f"{statistics.mean(within):+.2f}, of {len(within)}" if within else "-"
        print(f"| {os.path.basename(path)} | {len(kept)} of {len(rows)} | {shown([expected[p] for p in kept], [reached[p] for p in kept])} | {inside} | {level} |")


if __name__ == "__main__":
    main()
