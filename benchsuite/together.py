"""Answers at once: tokens a second of one answer after the other and of several together, side by side with llama.cpp's batches.

usage: together.py PACELINE LLAMA_BATCHED_BENCH MODEL_DIR PRECISION MODEL.gguf [--answers 8] [--threads 2] [--tokens 128] [--rounds 5]

MODEL_DIR and MODEL.gguf are the same weights, in Hugging Face's form and in llama.cpp's. Token lists of answers made together are compared with those
of each alone. benchsuite/README.md says how to get the other side and how to read the ratios.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

from common import count, machine

PROMPTS = ["The history of the bicycle begins", "A recipe for bread needs", "Photosynthesis is the process", "The capital of France is",
           "Once upon a time there was", "In mathematics, a prime number", "The ocean covers most of", "Computers work by"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["paceline", "llama_batched_bench", "model", "precision", "gguf"]:
        parser.add_argument(name)
    parser.add_argument("--answers", type=count, default=8)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--tokens", type=count, default=128)
    parser.add_argument("--rounds", type=count, default=5)
    a = parser.parse_args()
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        prompts = os.path.join(folder, "prompts.jsonl")
        with open(prompts, "w") as file:
            for index in range(a.answers):
                file.write(json.dumps({"prompt": PROMPTS[index % len(PROMPTS)]}) + "\n")
        for _ in range(a.rounds):
            for batch, rate in llama(a).items():
                rates.setdefault(("llama.cpp", batch), []).append(rate)
            for drafter in ["none", "auto"]:
                alone, expected = ours(a, drafter, 1, prompts)
                together, found = ours(a, drafter, a.answers, prompts)
                assert found == expected, "answers made together have other tokens than each alone"
                rates.setdefault((f"Paceline, {drafter}", 1), []).append(alone)
                rates.setdefault((f"Paceline, {drafter}", a.answers), []).append(together)
    print(f"Machine: {machine()}. {a.rounds} rounds, alternating, {a.threads} threads, {a.tokens} tokens an answer, {a.precision}, {os.path.basename(a.gguf)}.\n")
    print("| engine | answers at once | tokens a second, median [smallest, largest] |\n|---|---|---|")
    for (engine, batch), values in rates.items():
        print(f"| {engine} | {batch} | {statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}] |")


def llama(a):
    """Tokens a second of llama.cpp, by the number of sequences."""
    command = [a.llama_batched_bench, "-m", a.gguf, "-c", "4096", "-npp", "8", "-ntg", str(a.tokens), "-npl", f"1,{a.answers}", "-t", str(a.threads),
               "-tb", str(a.threads), "--output-format", "jsonl"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {row["pl"]: row["speed_tg"] for row in map(json.loads, (line for line in lines if line.startswith("{")))}


def ours(a, drafter, parallel, prompts):
    """Tokens a second of all answers, and their tokens."""
    command = [a.paceline, "generate", "--model", a.model, "--precision", a.precision, "--kv-cache", "f16", "--drafter", drafter, "--ignore-eos",
               "--max-new-tokens", str(a.tokens), "--prompts", prompts, "--parallel", str(parallel), "--json", "--no-journal", "--threads", str(a.threads)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    answers = [json.loads(line) for line in output.splitlines()]
    milliseconds = [answer["report"]["latency_ms"] for answer in answers]
    # One after the other their times add up; together they begin at once.
    whole = sum(milliseconds) if parallel == 1 else max(milliseconds)
    return 1e3 * sum(len(answer["tokens"]) for answer in answers) / whole, [answer["tokens"] for answer in answers]


if __name__ == "__main__":
    main()
