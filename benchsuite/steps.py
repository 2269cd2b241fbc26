"""Steps by their number of rows and the reading of a prompt, side by side with llama.cpp.

v(r) is a step over r rows of one sequence in units of a step over one row, both with 64 tokens in the cache.

usage: steps.py PACELINE LLAMA_BENCH SHAPES_DIR [--shapes smol135] [--precisions bf16 int8 int4] [--threads 2] [--rounds 7] [--repeats 5]

benchsuite/README.md says how to get the other side and how to read the ratios.
"""
import statistics

from common import PEER, Sides, arguments, count, machine, seconds_by_rows, show

ROWS = [1, 4, 8, 16]
# As many as `paceline bench` has there.
CONTEXT, PROMPT = 64, 256


def llama_steps(sides, shape, precision, threads, repeats):
    """Median seconds of a step by its number of rows, and prompt tokens per second."""
    rows = ",".join(map(str, ROWS))
    runs = sides.llama(shape, precision, threads, "-p", rows, "-n", "0", "-d", str(CONTEXT), "-r", str(repeats))
    seconds = {run["n_prompt"]: statistics.median(run["samples_ns"]) / 1e9 for run in runs}
    return seconds, sides.llama_prefill(shape, precision, threads, PROMPT)


def main():
    parser = arguments(__doc__, ["smol135"], 7)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--repeats", type=count, default=5, help="how often a side times each step in a round")
    a = parser.parse_args()
    sides = Sides(a)

    print(f"Machine: {machine()}. {a.threads} threads, {a.rounds} rounds, alternating, {a.repeats} repeats each; "
          f"{CONTEXT} tokens in the cache, {sides.cache}; medians, [smallest, largest].\n")
    rows = " | ".join(f"v({rows})" for rows in ROWS[1:])
    print(f"| shape | engine, precision | weights a step reads, MB | cache a token, kB | one row, ms | {rows} | prompt of {PROMPT}, tokens a second | prompt, Paceline / llama.cpp |")
    print("|---|---|---|---|---|" + "---|" * len(ROWS[1:]) + "---|---|")
    for shape, precision in [(shape, precision) for shape in a.shapes for precision in a.precisions]:
        ours, theirs = [], []
        for _ in range(a.rounds):
            bench = sides.bench(shape, precision, a.threads, a.repeats)[1]
            ours.append((seconds_by_rows(bench), bench["prefill_tokens_per_second"]))
            theirs.append(llama_steps(sides, shape, precision, a.threads, a.repeats))
        ratio = show([o[1] / t[1] for o, t in zip(ours, theirs)], 2)
        own_sizes = bench["bytes_per_step"], bench["cache_bytes_per_token"]
        peer_sizes = sides.llama_sizes(shape, precision)
        for engine, timed, (weights, cache), ratio in [(f"Paceline, {precision}", ours, own_sizes, ratio), (f"llama.cpp, {PEER[precision]}", theirs, peer_sizes, "")]:
            one = show([1e3 * seconds[1] for seconds, _ in timed])
            relative = " | ".join(show([seconds[rows] / seconds[1] for seconds, _ in timed], 2) for rows in ROWS[1:])
            prefill = show([prefill for _, prefill in timed], 0)
            print(f"| {shape} | {engine} | {weights / 1e6:.1f} | {cache / 1e3:.1f} | {one} | {relative} | {prefill} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
