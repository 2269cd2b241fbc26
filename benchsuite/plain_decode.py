"""Plain decoding, side by side with llama.cpp: milliseconds per token by precision and threads.

Both sides run the same random weights (bf16 beside F16, int8 beside Q8_0, int4 beside Q4_0), alternating, so that a machine
whose speed drifts does not favour one. Quote the ratios; absolute numbers hold for this machine and hour.

usage: plain_decode.py PACELINE LLAMA_BENCH SHAPES_DIR [--shapes tiny18 smol135] [--precisions bf16 int8 int4] [--threads 1 2] [--rounds 7] [--tokens 128]

SHAPES_DIR holds, for each shape, a Hugging Face directory SHAPE/ and SHAPE.f16.gguf, SHAPE.Q8_0.gguf and SHAPE.Q4_0.gguf with the same
weights (llama-quantize makes the last two of the first).
"""
import argparse
import json
import os
import platform
import statistics
import subprocess


PEER = {"bf16": "f16", "int8": "Q8_0", "int4": "Q4_0"}


def paceline(binary, model, precision, threads, tokens):
    """Milliseconds per token of an answer after its prefill, sampling and text included."""
    command = [binary, "generate", "--model", model, "--prompt", "a", "--drafter", "none", "--ignore-eos", "--json", "--precision", precision,
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
    parser.add_argument("--precisions", nargs="+", default=["bf16", "int8", "int4"], choices=list(PEER))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    a = parser.parse_args()

    print(f"Machine: {processor()}; {platform.system()} {platform.release()}. {a.rounds} rounds, alternating, {a.tokens} tokens each; medians, [smallest, largest].\n")
    print("| shape | precision | threads | Paceline, ms a token | llama.cpp, ms a token | llama.cpp / Paceline, median of the rounds' ratios |")
    print("|---|---|---|---|---|---|")
    for shape, precision in [(shape, precision) for shape in a.shapes for precision in a.precisions]:
        model, gguf = os.path.join(a.shapes_dir, shape), os.path.join(a.shapes_dir, f"{shape}.{PEER[precision]}.gguf")
        for threads in a.threads:
            paceline(a.paceline, model, precision, threads, a.tokens)  # both files into the page cache
            llama(a.llama_bench, gguf, threads, a.tokens)
            ours, theirs = [], []
            for _ in range(a.rounds):
                ours.append(paceline(a.paceline, model, precision, threads, a.tokens))
                theirs.append(llama(a.llama_bench, gguf, threads, a.tokens))
            ratio = statistics.median(t / o for o, t in zip(ours, theirs))
            show = lambda times: f"{statistics.median(times):.3f} [{min(times):.3f}, {max(times):.3f}]"
            print(f"| {shape} | {precision}, {PEER[precision]} | {threads} | {show(ours)} | {show(theirs)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
