"""Compares greedy tokens of a GGUF file with transformers' on the same weights, dequantized, in float32.

    python scripts/greedy_gguf.py MODEL.gguf [--binary target/release/paceline] [--tokens 64] [--prompts FILE]

Prints for every prompt how many tokens agree, as stored (activations are rounded to 8 bits) and with `--precision f32` (the same
weights and float activations), and how far apart transformers' two best logits are where the paths part: two correct programs
may differ where that is less than rounding moves them. Needs torch, transformers, accelerate and gguf.
"""

import argparse
import json
import os
import subprocess
import tempfile

import torch
from transformers import AutoModelForCausalLM

PROMPTS = [
    "def fibonacci(n):", "The capital of France is", "import numpy as np\n\n", "Once upon a time", "1, 2, 3, 4,",
    "SELECT name FROM users WHERE", "fn main() {\n    let", "Water boils at", "The three primary colours are", "class Stack:\n",
    "Q: What is 12 times 7?\nA:", "A paceline is a line of riders who", "for (int i = 0; i <", "In 1969, humans first",
    "The quick brown fox", "#include <stdio.h>\n", "To make bread you need", "Dear Sir or Madam,", "def quicksort(arr):\n",
    "The largest planet in the solar system is",
]


def ours(binary, model, prompts, tokens, precision):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as rows:
        for prompt in prompts:
            rows.write(json.dumps({"prompt": prompt}) + "\n")
        rows.flush()
        command = [binary, "generate", "--model", model, "--prompts", rows.name, "--max-new-tokens", str(tokens), "--ignore-eos",
                   "--drafter", "none", "--precision", precision, "--json", "--no-journal"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["tokens"] for line in out.splitlines()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--binary", default="target/release/paceline")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts")
    flags = parser.parse_args()
    prompts = open(flags.prompts).read().splitlines() if flags.prompts else PROMPTS
    stored = ours(flags.binary, flags.model, prompts, flags.tokens, "auto")
    wide = ours(flags.binary, flags.model, prompts, flags.tokens, "f32")
    # Ids by the same rule as ours, so that tokens alone are compared.
    folder, name = os.path.split(os.path.abspath(flags.model))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    same = {"as stored": 0, "f32": 0}
    agreed = {"as stored": 0, "f32": 0}
    for index, prompt in enumerate(prompts):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            path = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=flags.tokens, pad_token_id=0)
            best = model(path[:, :-1]).logits[0, ids.shape[1] - 1:].topk(2).values
        expected, margins = path[0, ids.shape[1]:].tolist(), (best[:, 0] - best[:, 1]).tolist()
        said = []
        for kind, found in (("as stored", stored[index]), ("f32", wide[index])):
            at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), len(expected))
            same[kind] += at == len(expected)
            agreed[kind] += at
            said.append(f"{kind}: {'all' if at == len(expected) else at}" + ("" if at == len(expected) else f" (margin {margins[at]:.4f})"))
        print(f"{prompt[:40]!r:45} {', '.join(said)}", flush=True)
    for kind in same:
        print(f"{kind}: {same[kind]} of {len(prompts)} prompts have all {flags.tokens} tokens; {agreed[kind]} of {len(prompts) * flags.tokens} tokens before a path parts")


if __name__ == "__main__":
    main()
