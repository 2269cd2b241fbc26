"""What the router is worth: `auto` between the best static plan and the per-prompt oracle, with bootstrap intervals over prompts.

usage: routing.py PACELINE TARGET --draft DIR.. [--static exit:2 model:tiny ..] [--tasks datasets/tasks/test.jsonl] [--choose datasets/tasks/validation.jsonl]
                  [--each 8] [--rounds 8] [--precision auto] [--temperature 0] [--threads 2] [--lossy NAME=FLAGS ..]

All sides run in turns, each over the same prompts, in another order every round; a value is a prompt's decode time per token (latency without reading
the prompt; routing is in it), its median over rounds. The best static plan is chosen on the prompts of --choose by the same measure. The oracle's plan
for a prompt is chosen on the even rounds and scored on the odd ones, and the other way round, so that noise is not taken for insight; the static plan and
`auto` are scored on the same halves. `random` is the mean of all plans, plain decoding among them. --lossy adds sides with flags of their own, whose
answers may differ: their task accuracy is compared with plain decoding's.

Bytes read are of weights, per token; energy is not measured here: with all threads busy in every step it goes with time.
"""
import argparse
import json
import os
import random
import statistics
import sys
import tempfile

from common import count, machine
from drafting import LEVELS, Side, answers, chosen, decode_ms, latency_ms, order, work

RESAMPLES = 2000


def run(a, rows, sides, rounds, what):
    """For each side, per prompt, its decode milliseconds per token in every round; and its last answers."""
    times, last = {side: [[] for _ in rows] for side in sides}, {}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as prompts:
        prompts.writelines(json.dumps(row) + "\n" for row in rows)
        prompts.flush()
        for number in range(rounds):
            for side in order(list(sides), number, rounds):
                last[side] = answers(a, prompts.name, sides[side])
                for place, answer in enumerate(last[side]):
                    times[side][place].append(decode_ms(answer))
            print(f"{what}: round {number + 1} of {rounds}", file=sys.stderr)
    return times, last


def halves(values):
    return values[0::2], values[1::2]


def oracle(times, plans, place):
    """The time of the plan that is best in one half of the rounds, in the other; the mean of both ways."""
    scores = []
    for this, other in ((0, 1), (1, 0)):
        best = min(plans, key=lambda plan: statistics.median(halves(times[plan][place])[this]))
        scores.append(statistics.median(halves(times[best][place])[other]))
    return statistics.mean(scores)


def scored(values):
    """A plan's time as the oracle's is scored: the mean of the medians of both halves."""
    return statistics.mean(statistics.median(half) for half in halves(values))


def interval(places, statistic):
    """The statistic, and the 95% interval of it over resampled prompts."""
    generator = random.Random(0)
    drawn = sorted(statistic(generator.choices(places, k=len(places))) for _ in range(RESAMPLES))
    return statistic(places), drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)]


def right(task, answer):
    """As `paceline-train score`: equal but for white space, in code at the ends of lines alone."""
    if task["category"] == "code":
        lines = lambda text: [line.rstrip() for line in text.strip("\n").split("\n")]
        return lines(task["answer"]) == lines(answer)
    return task["answer"].split() == answer.split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline", help="the built program")
    parser.add_argument("target", help="the target's directory, with its router")
    parser.add_argument("--draft", action="append", default=[], help="a draft model's directory; may be given several times")
    parser.add_argument("--static", nargs="+", default=["lookup", "model:small", "model:tiny", "exit:2", "exit:3", "exit:4", "exit:6", "exit:9"])
    folder = os.path.join(os.path.dirname(__file__), "..", "datasets", "tasks")
    parser.add_argument("--tasks", default=os.path.join(folder, "test.jsonl"))
    parser.add_argument("--choose", default=os.path.join(folder, "validation.jsonl"))
    parser.add_argument("--each", type=count, default=8, help="prompts of every category and level")
    parser.add_argument("--choose-each", type=count, default=4)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--max-new-tokens", type=count, default=256)
    parser.add_argument("--rounds", type=count, default=8)
    parser.add_argument("--choose-rounds", type=count, default=2)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--lossy", nargs="*", default=[], metavar="NAME=FLAGS")
    a = parser.parse_args()

    static = {plan: ["--drafter", plan] for plan in a.static}
    rows = chosen(a.choose, a.choose_each)
    times, _ = run(a, rows, {"none": ["--drafter", "none"], **static}, a.choose_rounds, "choosing the static plan")
    mean = lambda plan: statistics.mean(statistics.median(values) for values in times[plan])
    best = min([*static, "none"], key=mean)
    print(f"{machine()}; {a.threads} threads; precision {a.precision}; temperature {a.temperature:g}\n")
    print(f"Best static plan on {len(rows)} prompts of {os.path.basename(a.choose)}: `{best}`\n")

    rows = chosen(a.tasks, a.each)
    lossy = {name: flags.split() for name, _, flags in (side.partition("=") for side in a.lossy)}
    sides = {"none": ["--drafter", "none"], "auto": [], "auto, no router": ["--no-router"], **static, **lossy}
    times, last = run(a, rows, sides, a.rounds, "measuring")
    for side in sides:
        if side not in lossy and [answer["tokens"] for answer in last[side]] != [answer["tokens"] for answer in last["none"]]:
            sys.exit(f"{side} prints other tokens than plain decoding")
    plans = [*static, "none"]
    everything = list(range(len(rows)))
    per_prompt = {side: [scored(values) for values in times[side]] for side in sides}
    per_prompt["oracle"] = [oracle(times, plans, place) for place in everything]
    per_prompt["random"] = [statistics.mean(per_prompt[plan][place] for plan in plans) for place in everything]
    per_prompt["static"] = per_prompt[best]

    over = lambda side, places: statistics.mean(per_prompt[side][place] for place in places)
    speed = lambda side, places: statistics.mean(per_prompt["none"][place] / per_prompt[side][place] for place in places)
    shown = lambda values: "{:.3f} ({:.3f} to {:.3f})".format(*values)
    print(f"{len(rows)} prompts of {os.path.basename(a.tasks)}, {a.rounds} rounds; decode time per token, 95% intervals by bootstrap over prompts:\n")
    print("| side | time of plain decoding's | times as fast, mean over prompts | simple | medium | complex |\n|---|---|---|---|---|---|")
    for side in ["none", "random", "auto, no router", *static, "static", "auto", "oracle", *lossy]:
        share = interval(everything, lambda places: over(side, places) / over("none", places))
        faster = interval(everything, lambda places: speed(side, places))
        levels = [f"{speed(side, [place for place in everything if rows[place]['level'] == level]):.2f}" for level in LEVELS]
        print(f"| {side} | {shown(share)} | {shown(faster)} | " + " | ".join(levels) + " |")
    gap = interval(everything, lambda places: 1 - over("oracle", places) / over("static", places))
    closed = interval(everything, lambda places: (over("static", places) - over("auto", places)) / (over("static", places) - over("oracle", places)))
    beside = interval(everything, lambda places: over("auto", places) / over("static", places))
    print(f"\nGap from static to oracle: {shown(gap)} of the static plan's time. `auto` closes {shown(closed)} of it; its time is {shown(beside)} of the static plan's.\n")

    print("| | " + " | ".join(dict.fromkeys(row["category"] for row in rows)) + " |")
    categories = list(dict.fromkeys(row["category"] for row in rows))
    print("|---|" + "---|" * len(categories))
    for side in ["static", "auto", "oracle"]:
        cells = [f"{speed(side, [place for place in everything if rows[place]['category'] == category]):.2f}" for category in categories]
        print(f"| {side} | " + " | ".join(cells) + " |")

    print("\n| side | MB of weights read a token | million multiply-adds a token | simple prompts' decode time | routing, ms |\n|---|---|---|---|---|")
    for side in ["none", "static", "auto"]:
        own = Side(len(rows))
        own.last = last[best if side == "static" else side]
        costs = work(a, own, everything)
        simple = [place for place in everything if rows[place]["level"] == "simple"]
        routing = [answer["report"]["routing_ms"] for answer in own.last if answer["report"]["routing_ms"] is not None]
        routing = f"{statistics.median(routing):.3f}" if routing else "-"
        print(f"| {side} | {costs[0]:.1f} | {costs[1]:.1f} | {over(side, simple) / over('none', simple) - 1:+.0%} | {routing} |")
    whole = statistics.mean(latency_ms(plain) / latency_ms(auto) for plain, auto in zip(last["none"], last["auto"]))
    print(f"\nWhole latency, reading the prompt included: `auto` {whole:.2f} times as fast (last round).")
    for name in lossy:
        is_right = lambda side: statistics.mean(right(row, answer["text"]) for row, answer in zip(rows, last[side]))
        same = statistics.mean(mine["tokens"] == plain["tokens"] for mine, plain in zip(last[name], last["none"]))
        evaluations = lambda side: sum(answer["report"]["layer_evaluations"] for answer in last[side])
        print(f"`{name}`: {is_right(name):.1%} right, plain decoding {is_right('none'):.1%}; {same:.1%} of answers the same; layers run {evaluations(name) / evaluations('none'):.2f} of plain decoding's; "
              f"time {over(name, everything) / over('auto', everything):.3f} of exact `auto`'s.")


if __name__ == "__main__":
    main()
