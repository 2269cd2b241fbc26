"""Acceptance and tokens per step of every drafter, at every temperature, on given prompts: a table for people.

usage: acceptance.py PACELINE MODEL PROMPTS.jsonl DRAFTER.. [--draft DIR] [--draft-len 4] [--temperatures 0 0.7 1 1.5] [--tokens 128]

Acceptance is accepted / evaluated (accepted tokens and the first refused of each draft). Tokens of all drafters are compared with those of
`--drafter none`; a difference ends the script.
"""
import argparse
import json
import subprocess
import sys


def run(a, drafter, temperature):
    command = [a.paceline, "generate", "--model", a.model, "--prompts", a.prompts, "--json", "--ignore-eos", "--max-new-tokens", str(a.tokens),
               "--temperature", str(temperature), "--drafter", drafter, "--draft-len", a.draft_len]
    for draft in a.draft:
        command += ["--draft", draft]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n").split("\n")
    return [json.loads(line) for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline")
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("drafters", nargs="+")
    parser.add_argument("--draft", action="append", default=[])
    parser.add_argument("--draft-len", default="4")
    parser.add_argument("--temperatures", nargs="+", type=float, default=[0, 0.7, 1, 1.5])
    parser.add_argument("--tokens", type=int, default=128)
    a = parser.parse_args()

    print("| drafter | " + " | ".join(f"T = {t:g}" for t in a.temperatures) + " |")
    print("|---|" + "---|" * len(a.temperatures))
    plain = {t: [answer["tokens"] for answer in run(a, "none", t)] for t in a.temperatures}
    for drafter in a.drafters:
        cells = []
        for temperature in a.temperatures:
            answers = run(a, drafter, temperature)
            if [answer["tokens"] for answer in answers] != plain[temperature]:
                sys.exit(f"{drafter} at temperature {temperature} prints other tokens than plain decoding")
            total = lambda field: sum(answer["report"]["speculation"][field] for answer in answers)
            tokens, steps = sum(len(answer["tokens"]) for answer in answers), total("steps")
            cells.append(f"{100 * total('accepted') / max(1, total('evaluated')):.0f}%, {tokens / steps:.2f}")
        print(f"| {drafter} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
