"""Plain decoding of llama.cpp and transformers as rows for `paceline-eval report --import`: the same model and prompts, decoded greedily.

usage: PYTHON peer_rows.py TARGET OUT.csv [--gguf TARGET.gguf --llama BIN_DIR] [--tasks FILE] [--each 8] [--repeats 3] [--threads 2]

PYTHON must have torch and transformers; without --llama their side alone is measured. BIN_DIR holds llama.cpp's llama-completion. Both sides
answer a prompt one after the other, rendered by the target's chat template. llama.cpp tells the time of the prompt and of decoding; transformers
does not, so a generation of one token is timed beside each. There the prompt's last token is read with the prompt, here with the first token: a step
of decoding is therefore taken off the prompt's time. Every row names its command.
"""
import argparse
import csv
import os
import shlex
import sys

import torch
import transformers as hugging_face
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import count
from drafting import chosen
from drafting_peers import EVALUATED, llama_answer, llama_command, transformers_answer

COLUMNS = ["id", "plan", "repeat", "tokens", "ended", "right", "latency_ms", "prefill_ms", "command"]
LLAMA_FLAGS = ["-no-cnv", "--no-display-prompt"]
PROMPT = r"prompt eval time =\s+(?P<prompt_ms>[\d.]+) ms[\s\S]*?"


def is_right(row, text):
    """As `paceline-eval` checks an answer: the same words, or for code the same lines."""
    lines = lambda given: [line.rstrip() for line in given.rstrip().splitlines()]
    return lines(text) == lines(row["answer"]) if row["category"] == "code" else text.split() == row["answer"].split()


def boolean(value):
    return "true" if value else "false"


def times(tokens, prompt_ms, decode_ms):
    """`prefill_ms` and `latency_ms`, where `decode_ms` are those of all tokens but the first."""
    step = decode_ms / (tokens - 1) if tokens > 1 else 0.0
    return dict(prefill_ms=max(prompt_ms - step, 0.0), latency_ms=prompt_ms + decode_ms)


def of_llama(a, row, text):
    done, fields = llama_answer(a, text, LLAMA_FLAGS, "llama-completion", PROMPT + EVALUATED)
    given, ended, _ = done.stdout.partition(" [end of text]")
    command = shlex.join(["llama-completion", *llama_command(a, "llama-completion", "PROMPT.txt", LLAMA_FLAGS)[1:]])
    # The first token comes with the prompt and is no run.
    tokens = int(fields["tokens"]) + 1
    return dict(tokens=tokens, ended=boolean(ended), right=boolean(is_right(row, given)), command=command.replace(a.gguf, os.path.basename(a.gguf)),
                **times(tokens, fields["prompt_ms"], fields["ms"]))


def of_transformers(a, models, row, text):
    tokenizer, target, _ = models
    made, prompt, whole = transformers_answer(models, text, False)
    ends = target.generation_config.eos_token_id
    ended = bool(made) and made[-1] in (ends if isinstance(ends, list) else [ends])
    given = tokenizer.decode(made, skip_special_tokens=True)
    return dict(tokens=len(made), ended=boolean(ended), right=boolean(is_right(row, given)), **times(len(made), 1e3 * prompt, 1e3 * (whole - prompt)),
                command=f"transformers {hugging_face.__version__}, torch {torch.__version__}: generate(do_sample=False, max_new_tokens=256), bfloat16, {a.threads} threads")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("out")
    parser.add_argument("--llama")
    parser.add_argument("--gguf")
    parser.add_argument("--gguf-format", default="f16", help="what its rows call the precision of the GGUF")
    parser.add_argument("--tasks", default=os.path.join(os.path.dirname(__file__), "..", "datasets", "tasks", "test.jsonl"))
    parser.add_argument("--each", type=count, default=8)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--threads", type=count, default=2)
    a = parser.parse_args()
    if (a.llama is None) != (a.gguf is None):
        parser.error("--llama and --gguf belong together")

    torch.set_num_threads(a.threads)
    tokenizer = AutoTokenizer.from_pretrained(a.target)
    models = tokenizer, AutoModelForCausalLM.from_pretrained(a.target, dtype=torch.bfloat16).eval(), None
    sides = {"transformers, plain (bf16)": lambda row, text: of_transformers(a, models, row, text)}
    if a.llama:
        sides[f"llama.cpp, plain ({a.gguf_format})"] = lambda row, text: of_llama(a, row, text)
    rows = chosen(a.tasks, a.each)
    render = lambda row: tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
    for side in sides.values():
        side(rows[0], render(rows[0]))  # to warm up
    with open(a.out, "w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        for repeat in range(a.repeats):
            for number, row in enumerate(rows):
                text = render(row)
                for name, side in sorted(sides.items(), reverse=(number + repeat) % 2 == 1):
                    writer.writerow(dict(id=row["id"], plan=name, repeat=repeat, **side(row, text)))
            out.flush()
            print(f"repeat {repeat + 1} of {a.repeats}", file=sys.stderr)


if __name__ == "__main__":
    main()
