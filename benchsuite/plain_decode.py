"""Plain decoding, side by side with llama.cpp: milliseconds per token at one and two threads.

Both sides run the same random weights (f16 for llama.cpp, bf16 for Paceline: the same bytes per token), alternating, so that a machine
whose speed drifts does not favour one. Quote the ratios; absolute numbers hold for this machine and hour.

usage: plain_decode.py PACELINE LLAMA_BENCH SHAPES_DIR [--shapes tiny18 smol135] [--threads 1 2] [--rounds 7] [--tokens 128]

SHAPES_DIR holds, for each shape, a Hugging Face directory SHAPE/ and SHAPE.f16.gguf with the same weights.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess


def paceline(binary, model, threads, tokens):
    """Milliseconds per token of an answer after its prefill, sampling and text included; and the step costs it reports."""
    command = [binary, "generate", "--model", model, "--prompt", "a", "--drafter", "none", "--ignore-eos", "--json",
               "--max-new-tokens", str(tokens), "--threads", str(threads)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    report = answer["report"]
    return (report["latency_ms"] - report["prefill_ms"]) / len(answer["tokens"])


def llama(binary, model, threads, tokens):
    """Milliseconds per token of llama-bench's text generation test (no sampling)."""
    command = [binary, "-m", model, "-p", "0", "-n", str(tokens), "-t", str(threads), "-r", "1", "-o", "json"]
    environment = dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(os.path.abspath(binary)))
    runs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    return 1e3 / runs[0]["avg_ts"]


def processor():
    with open("/proc/cpuinfo") as info:
        names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores visible" if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline")
    parser.add_argument("llama_bench")
    parser.add_argument("shapes_dir")
    parser.add_argument("--shapes", nargs="+", default=["tiny18", "smol135"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    a = parser.parse_args()

    print(f"Machine: {processor()}; {platform.system()} {platform.release()}. {a.rounds} rounds, alternating, {a.tokens} tokens each; medians, [smallest, largest].\n")
    print("| shape | threads | Paceline bf16, ms a token | llama.cpp F16, ms a token | llama.cpp / Paceline, median of the rounds' ratios |")
    print("|---|---|---|---|---|")
    for shape in a.shapes:
        model, gguf = os.path.join(a.shapes_dir, shape), os.path.join(a.shapes_dir, f"{shape}.f16.gguf")
        for threads in a.threads:
            paceline(a.paceline, model, threads, a.tokens)  # both files into the page cache
            llama(a.llama_bench, gguf, threads, a.tokens)
            ours, theirs = [], []
            for _ in range(a.rounds):
                ours.append(paceline(a.paceline, model, threads, a.tokens))
                theirs.append(llama(a.llama_bench, gguf, threads, a.tokens))
            ratio = statistics.median(t / o for o, t in zip(ours, theirs))
            show = lambda times: f"{statistics.median(times):.3f} [{min(times):.3f}, {max(times):.3f}]"
            print(f"| {shape} | {threads} | {show(ours)} | {show(theirs)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
