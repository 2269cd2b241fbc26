"""What drafting brings on the task sets: every drafter and `auto` against plain decoding with the same kernels, by category and level.

usage: drafting.py PACELINE TARGET --draft DIR.. [--drafters auto lookup model:NAME exit:6 ..] [--tasks datasets/tasks/test.jsonl] [--each 8]
                   [--precision auto] [--temperature 0] [--rounds 5] [--threads 2]

All sides run in turns, `--rounds` times, each over the same prompts: the first `--each` of every category and level. Every round has another order,
and plain decoding runs twice in it, so that no side has a place of its own. A prompt's speed is the ratio of decode times per token, the mean of plain
decoding's two over the drafter's, of the same round; decode time is latency without prefill. Medians over rounds are averaged over prompts; the two rows
of plain decoding show what is noise. Tokens of all drafters are compared with those of plain decoding; a difference ends the script.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from common import count, machine

LEVELS = ["simple", "medium", "complex"]
PLAIN = ["none", "none again"]


def chosen(path, each):
    """The first prompts of every category and level."""
    taken, rows = {}, []
    with open(path) as lines:
        for row in map(json.loads, lines):
            cell = row["category"], row["level"]
            taken[cell] = taken.get(cell, 0) + 1
            if taken[cell] <= each:
                rows.append(row)
    return rows


def answers(a, prompts, flags):
    command = [a.paceline, "generate", "--model", a.target, "--prompts", prompts, "--json", "--precision", a.precision,
               "--temperature", str(a.temperature), "--threads", str(a.threads), "--max-new-tokens", str(a.max_new_tokens), *flags]
    for draft in a.draft:
        command += ["--draft", draft]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


def decode_ms(answer):
    """Milliseconds per token after the prompt was read."""
    report = answer["report"]
    return (report["latency_ms"] - report["prefill_ms"]) / len(answer["tokens"])


def latency_ms(answer):
    return answer["report"]["latency_ms"]


class Side:
    """What was measured of a drafter: per prompt, a value for each round."""

    def __init__(self, prompts):
        self.speed, self.latency, self.last = [[] for _ in range(prompts)], [[] for _ in range(prompts)], None

    def add(self, plain, found):
        """`plain` is all runs of plain decoding in the round."""
        for place, (now, *before) in enumerate(zip(found, *plain)):
            self.speed[place].append(statistics.mean(map(decode_ms, before)) / decode_ms(now))
            self.latency[place].append(statistics.mean(map(latency_ms, before)) / latency_ms(now))
        self.last = found

    def over(self, places, values):
        return statistics.mean(statistics.median(values[place]) for place in places)

    def tokens_per_step(self, places):
        steps = sum(self.last[place]["report"]["speculation"]["steps"] for place in places)
        return sum(len(self.last[place]["tokens"]) for place in places) / max(1, steps)


def work(a, side, places):
    """Megabytes of weights read, and millions of multiply-adds, per token. A step reads the target once and multiplies every row; a draft reads and
    multiplies what its drafter has: a model all of itself, an exit its layers and the output matrix (its layers are not run again in the step), the
    rounded target all of it. `None` where a plan left parts out, which this script does not know."""
    inspected = lambda directory: json.loads(subprocess.run([a.paceline, "inspect", directory, "--json"], check=True, capture_output=True, text=True).stdout)
    target = inspected(a.target)
    config, precision = target["config"], target["stored_precision"] if a.precision == "auto" else a.precision
    output = config["vocab_size"] * config["hidden_size"]
    drafts = {os.path.basename(os.path.normpath(directory)): inspected(directory) for directory in a.draft}
    read = multiplied = tokens = 0
    for answer in (side.last[place] for place in places):
        said = answer["report"]["speculation"]
        tokens += len(answer["tokens"])
        read += said["steps"] * target["weight_bytes"][precision]
        multiplied += (said["steps"] + said["drafted"]) * target["parameters"]
        for drafter, part in said["by_drafter"].items():
            kind, _, name = drafter.partition(":")
            if kind == "model":
                draft = drafts[name]
                read += part["drafted"] * draft["weight_bytes"][draft["stored_precision"]]
                multiplied += part["drafted"] * draft["parameters"]
            elif kind == "exit":
                of_layers = (target["parameters"] - output) * int(name) / config["layers"]
                read += part["drafted"] * target["weight_bytes"][precision] * (of_layers + output) / target["parameters"]
                multiplied += part["drafted"] * output
            elif kind == "self":
                read += part["drafted"] * target["weight_bytes"][name]
                multiplied += part["drafted"] * target["parameters"]
            elif kind == "skip":
                return None
    return read / tokens / 1e6, multiplied / tokens / 1e6


def table(a, rows, sides):
    categories = list(dict.fromkeys(row["category"] for row in rows))
    cells = [("all", lambda row: True)]
    cells += [(level, lambda row, level=level: row["level"] == level) for level in LEVELS]
    cells += [(category, lambda row, category=category: row["category"] == category) for category in categories]
    print("Speed on plain decoding (decode time per token), and tokens per step in brackets:\n")
    print("| drafter | " + " | ".join(name for name, _ in cells) + " |")
    print("|---|" + "---|" * len(cells))
    for drafter, side in sides.items():
        texts = []
        for _, wanted in cells:
            places = [place for place, row in enumerate(rows) if wanted(row)]
            texts.append(f"{side.over(places, side.speed):.2f} ({side.tokens_per_step(places):.2f})")
        print(f"| {drafter} | " + " | ".join(texts) + " |")
    everything = range(len(rows))
    print("\n| drafter | whole latency, times as fast | acceptance | MB of weights read a token | million multiply-adds a token |")
    print("|---|---|---|---|---|")
    for drafter, side in sides.items():
        said = [answer["report"]["speculation"] for answer in side.last]
        accepted, evaluated = sum(one["accepted"] for one in said), sum(one["evaluated"] for one in said)
        costs = work(a, side, everything)
        costs = " | ".join(f"{cost:.1f}" for cost in costs) if costs else "- | -"
        acceptance = f"{100 * accepted / evaluated:.0f}%" if evaluated else "-"
        print(f"| {drafter} | {side.over(everything, side.latency):.2f} | {acceptance} | {costs} |")


def order(sides, number, rounds):
    """The sides in the order of round `number`: each round begins elsewhere, and every other goes backwards."""
    shift = number * len(sides) // rounds
    sides = sides[shift:] + sides[:shift]
    return sides[::-1] if number % 2 else sides


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline", help="the built program")
    parser.add_argument("target", help="the target's directory")
    parser.add_argument("--draft", action="append", default=[], help="a draft model's directory; may be given several times")
    parser.add_argument("--drafters", nargs="+", default=["auto"])
    parser.add_argument("--tasks", default=os.path.join(os.path.dirname(__file__), "..", "datasets", "tasks", "test.jsonl"))
    parser.add_argument("--each", type=count, default=8, help="prompts of every category and level")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--max-new-tokens", type=count, default=256)
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--threads", type=count, default=2)
    a = parser.parse_args()

    rows = chosen(a.tasks, a.each)
    sides = {side: Side(len(rows)) for side in [*PLAIN, *a.drafters]}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as prompts:
        prompts.writelines(json.dumps(row) + "\n" for row in rows)
        prompts.flush()
        for number in range(a.rounds):
            found = {side: answers(a, prompts.name, ["--drafter", "none" if side in PLAIN else side]) for side in order(list(sides), number, a.rounds)}
            plain = [found[side] for side in PLAIN]
            for side in sides:
                if [answer["tokens"] for answer in found[side]] != [answer["tokens"] for answer in plain[0]]:
                    sys.exit(f"{side} prints other tokens than plain decoding")
                sides[side].add(plain, found[side])
            print(f"round {number + 1} of {a.rounds}", file=sys.stderr)
    print(f"{machine()}; {a.threads} threads; precision {a.precision}; temperature {a.temperature:g}; {len(rows)} prompts; {a.rounds} rounds\n")
    table(a, rows, sides)


if __name__ == "__main__":
    main()
