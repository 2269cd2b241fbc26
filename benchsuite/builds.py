"""Two builds of Paceline on the same answers, in alternating runs: milliseconds a token of whole answers, and the ratio with its interval.

usage: builds.py OLD NEW MODEL_DIR [--rounds 15] [--threads 2]

MODEL_DIR is a model in Hugging Face's form with at least 21 layers, in bf16. The models that ship are compared too. Every run is a process of its own, and
the tokens of both builds must be the same. The interval of the median ratio is from resampling (95%).
"""
import argparse
import json
import random
import statistics
import subprocess

from common import count, machine

TEXT = ["--prompt", "The history of the bicycle begins"]
LIST = ["--prompt", "Copy this list: red, green, blue, red, green, blue, red, green, blue, red, green"]
NUMBERS = ["--prompt", "Sort these numbers: 9, 4, 7, 1."]
NAMED = {
    "int8, plain": [*TEXT, "--precision", "int8", "--drafter", "none", "--max-new-tokens", "128"],
    "int4, plain": [*TEXT, "--precision", "int4", "--drafter", "none", "--max-new-tokens", "192"],
    "bf16, plain": [*TEXT, "--precision", "bf16", "--drafter", "none", "--max-new-tokens", "64"],
    "int8, lookup": [*LIST, "--precision", "int8", "--drafter", "lookup", "--max-new-tokens", "192"],
    "int8, self:int4, 3 tokens": [*TEXT, "--precision", "int8", "--drafter", "self:int4", "--draft-len", "3", "--max-new-tokens", "96"],
    "int8, exit:20, 3 tokens": [*TEXT, "--precision", "int8", "--drafter", "exit:20", "--draft-len", "3", "--max-new-tokens", "64"],
}
SHIPPED = {
    "plain": ["--prompt", "Write a story about a dog.", "--drafter", "none", "--max-new-tokens", "256"],
    "auto": [*NUMBERS, "--max-new-tokens", "256"],
    "model:small, 4 tokens": [*NUMBERS, "--drafter", "model:small", "--draft-len", "4", "--max-new-tokens", "256"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["old", "new", "model"]:
        parser.add_argument(name)
    parser.add_argument("--rounds", type=count, default=15)
    parser.add_argument("--threads", type=count, default=2)
    a = parser.parse_args()
    print(f"Machine: {machine()}. {a.rounds} rounds, alternating, {a.threads} threads; medians of milliseconds a token, whole answers.\n")
    print("| model | drafting | old | new | new / old, median of the rounds' ratios [95%] |\n|---|---|---|---|---|")
    named = ["--model", a.model, "--kv-cache", "f16"]
    for model, settings, cases in [("MODEL_DIR", named, NAMED), ("as shipped", [], SHIPPED)]:
        for name, case in cases.items():
            old, new, ratios = [], [], []
            for index in range(a.rounds):
                sides = [a.old, a.new] if index % 2 == 0 else [a.new, a.old]
                found = {side: answer(side, [*settings, *case], a.threads) for side in sides}
                assert found[a.old][1] == found[a.new][1], f"{name}: other tokens"
                old.append(found[a.old][0])
                new.append(found[a.new][0])
                ratios.append(found[a.new][0] / found[a.old][0])
            low, high = interval(ratios)
            print(f"| {model} | {name} | {statistics.median(old):.3f} | {statistics.median(new):.3f} | {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}] |",
                  flush=True)


def answer(program, settings, threads):
    """Milliseconds a token of an answer, and its tokens."""
    command = [program, "generate", "--json", "--no-journal", "--ignore-eos", "--threads", str(threads), *settings]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found["report"]["latency_ms"] / len(found["tokens"]), found["tokens"]


def interval(values):
    """Where the median lies, by resampling."""
    random.seed(1)
    medians = sorted(statistics.median(random.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[1949]


if __name__ == "__main__":
    main()
