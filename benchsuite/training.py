#!/usr/bin/env python3
"""Training steps a second, ours and torch's, on the same shape in turns.

    training.py PACELINE_TRAIN PYTHON_WITH_TORCH [--rounds N] [--threads N]

The shape is that of training.toml beside this file: a Llama of 12 layers, 256 wide, tied output, vocabulary 4096,
batches of 16 sequences of 256 tokens, AdamW. torch computes with transformers' Llama in f32, and with bf16 autocast."""
import argparse, pathlib, re, statistics, subprocess, sys

TORCH = r"""
import sys, time, statistics, torch
from transformers import LlamaConfig, LlamaForCausalLM
threads, bf16, repeats = int(sys.argv[1]), sys.argv[2] == "bf16", int(sys.argv[3])
torch.set_num_threads(threads); torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=12,
    num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True, max_position_embeddings=1024))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
tokens = (torch.arange(16 * 256) * 7919 % 4096).view(16, 256)
seconds = []
for step in range(repeats + 1):
    start = time.time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward(); torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0); optimizer.step(); optimizer.zero_grad()
    seconds.append(time.time() - start)
print(16 * 256 / statistics.median(seconds[1:]))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline_train")
    parser.add_argument("python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    recipe = pathlib.Path(__file__).with_name("training.toml")

    def ours():
        command = [a.paceline_train, "speed", recipe, "--threads", str(a.threads), "--repeats", str(a.repeats)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return float(re.search(r"([\d,]+) tokens a second", out)[1].replace(",", ""))

    def torch(precision):
        command = [a.python, "-c", TORCH, str(a.threads), precision, str(a.repeats)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    sides = {"Paceline, f32": ours, "torch, f32": lambda: torch("f32"), "torch, bf16 autocast": lambda: torch("bf16")}
    rates = {name: [] for name in sides}
    for number in range(a.rounds):
        print(f"round {number + 1} of {a.rounds}", file=sys.stderr)
        for name, side in sides.items():
            rates[name].append(side())
    print(f"{a.threads} threads, {a.rounds} rounds in turns; medians, [smallest, largest]\n")
    print("| engine | tokens a second | Paceline is faster by |\n|---|---|---|")
    for name, values in rates.items():
        ratio = statistics.median(own / other for own, other in zip(rates["Paceline, f32"], values))
        print(f"| {name} | {statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}] | {ratio:.2f} |")


if __name__ == "__main__":
    main()
