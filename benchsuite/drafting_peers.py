"""Speculative decoding beside llama.cpp and transformers: the same target, drafts and prompts, greedy, tokens per second.

usage: PYTHON drafting_peers.py PACELINE TARGET --draft DIR [--gguf TARGET.gguf --gguf-draft DRAFT.gguf --llama BIN_DIR] [--tasks FILE] [--each 2]
                                [--rounds 3] [--threads 2] [--draft-lengths 3 5 8 16]

PYTHON must have torch and transformers; without --llama their side alone is compared. BIN_DIR holds llama.cpp's llama-completion and
llama-speculative-simple. All sides run in turns over the first `--each` prompts of every category and level, rendered by the target's chat template.
llama.cpp's draft lengths are tried in turns too, and the best is shown; transformers chooses its own.

Rates are tokens of the answers over seconds of decoding, summed over prompts, the median over rounds. Ours and llama.cpp's leave the prompt's time
out; transformers' does not tell it, so a generation of one token is timed beside each and taken off.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import count, machine
from drafting import chosen


def ours(a, rows, drafter):
    """Tokens and seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as prompts:
        prompts.writelines(json.dumps(row) + "\n" for row in rows)
        prompts.flush()
        command = [a.paceline, "generate", "--model", a.target, "--prompts", prompts.name, "--json", "--drafter", drafter, "--threads", str(a.threads)]
        for draft in a.draft:
            command += ["--draft", draft]
        answers = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n").split("\n")]
    reports = [answer["report"] for answer in answers]
    return sum(len(answer["tokens"]) for answer in answers), sum(report["latency_ms"] - report["prefill_ms"] for report in reports) / 1e3


# What llama.cpp says of its decoding. The line of the prompt's time has the same words behind another one.
EVALUATED = r"(?<!prompt )eval time =\s+(?P<ms>[\d.]+) ms /\s+(?P<tokens>\d+) runs"
DECODED = r"decoded\s+(?P<tokens>\d+) tokens in\s+(?P<seconds>[\d.]+) seconds"


def llama_command(a, program, prompt, flags):
    return [os.path.join(a.llama, program), "-m", a.gguf, "-f", prompt, "-n", "256", "-t", str(a.threads), "--temp", "0", "-c", "1024", *flags]


def llama_answer(a, text, flags, program, pattern):
    """What the program printed for a prompt, and what `pattern` found in it, as numbers."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as prompt:
        prompt.write(text)
        prompt.flush()
        command = llama_command(a, program, prompt.name, flags)
        # llama-speculative-simple ends early now and then, on a prompt that works the next time.
        for _ in range(4):
            done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, LD_LIBRARY_PATH=a.llama))
            found = re.search(pattern, done.stdout + done.stderr)
            if done.returncode == 0 and found:
                return done, {name: float(value) for name, value in found.groupdict().items()}
    sys.exit(f"`{' '.join(command)}` failed (exit status {done.returncode}): {done.stderr.strip()[-500:]}")


def llama(a, texts, flags, program, pattern):
    """Tokens and seconds, by what `pattern` finds in the program's output."""
    answers = [llama_answer(a, text, flags, program, pattern)[1] for text in texts]
    return sum(fields["tokens"] for fields in answers), sum(fields.get("seconds", 0) + fields.get("ms", 0) / 1e3 for fields in answers)


def transformers_answer(models, text, assisted):
    """The tokens of an answer, and the seconds of the prompt and of the whole."""
    tokenizer, target, draft = models
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    def timed(most):
        start = time.perf_counter()
        with torch.no_grad():
            made = target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=most, assistant_model=draft if assisted else None)
        return made[0, ids.shape[1]:].tolist(), time.perf_counter() - start
    _, prompt_seconds = timed(1)
    made, whole = timed(256)
    return made, prompt_seconds, max(whole, prompt_seconds)


def transformers(models, texts, assisted):
    answers = [transformers_answer(models, text, assisted) for text in texts]
    return sum(len(made) for made, _, _ in answers), sum(whole - prompt for _, prompt, whole in answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline")
    parser.add_argument("target")
    parser.add_argument("--draft", action="append", required=True, help="may be given several times; peers use the first")
    parser.add_argument("--llama")
    parser.add_argument("--gguf")
    parser.add_argument("--gguf-draft")
    parser.add_argument("--draft-lengths", nargs="+", type=count, default=[3, 5, 8, 16])
    parser.add_argument("--tasks", default=os.path.join(os.path.dirname(__file__), "..", "datasets", "tasks", "test.jsonl"))
    parser.add_argument("--each", type=count, default=2)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--threads", type=count, default=2)
    a = parser.parse_args()

    torch.set_num_threads(a.threads)
    tokenizer = AutoTokenizer.from_pretrained(a.target)
    load = lambda directory: AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    models = tokenizer, load(a.target), load(a.draft[0])
    rows = chosen(a.tasks, a.each)
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True) for row in rows]
    sides = {
        "Paceline, auto": lambda: ours(a, rows, "auto"),
        "Paceline, plain": lambda: ours(a, rows, "none"),
        "transformers (bf16), assisted": lambda: transformers(models, texts, True),
        "transformers (bf16), plain": lambda: transformers(models, texts, False),
    }
    if a.llama:
        for length in a.draft_lengths:
            flags = ["-md", a.gguf_draft, "-td", str(a.threads), "--spec-type", "draft-simple", "--spec-draft-n-max", str(length)]
            sides[f"llama.cpp, drafts of {length}"] = lambda flags=flags: llama(a, texts, flags, "llama-speculative-simple", DECODED)
        sides["llama.cpp, plain"] = lambda: llama(a, texts, ["-no-cnv"], "llama-completion", EVALUATED)
    rates = {name: [] for name in sides}
    for number in range(a.rounds):
        for name, side in sides.items():
            tokens, seconds = side()
            rates[name].append(tokens / seconds)
        print(f"round {number + 1} of {a.rounds}", file=sys.stderr)
    print(f"{machine()}; {a.threads} threads; {len(rows)} prompts, greedy; {a.rounds} rounds\n")
    print("| side | tokens per second | times slower than Paceline's auto |")
    print("|---|---|---|")
    ratio = lambda name: statistics.median(best / rate for best, rate in zip(rates["Paceline, auto"], rates[name]))
    for name, found in sorted(rates.items(), key=lambda pair: -statistics.median(pair[1])):
        print(f"| {name} | {statistics.median(found):.0f} | {ratio(name):.2f} |")


if __name__ == "__main__":
    main()
