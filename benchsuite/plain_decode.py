"""Plain decoding, side by side with llama.cpp: milliseconds per token by precision and threads.

usage: plain_decode.py PACELINE LLAMA_BENCH SHAPES_DIR [--shapes tiny18 smol135] [--precisions bf16 int8 int4] [--threads 1 2] [--rounds 7] [--tokens 128]

benchsuite/README.md says how to get the other side and how to read the ratios.
"""
import statistics

from common import PEER, Sides, arguments, count, machine, show


def main():
    parser = arguments(__doc__, ["tiny18", "smol135"], 7)
    parser.add_argument("--threads", nargs="+", type=count, default=[1, 2])
    parser.add_argument("--tokens", type=count, default=128)
    a = parser.parse_args()
    sides = Sides(a)

    print(f"Machine: {machine()}. {a.rounds} rounds, alternating, {a.tokens} tokens each from an empty cache, {sides.cache}; medians, [smallest, largest].\n")
    print("| shape | precision | weights a step reads, MB | threads | Paceline, ms a token | llama.cpp, ms a token | llama.cpp / Paceline, median of the rounds' ratios |")
    print("|---|---|---|---|---|---|---|")
    for shape, precision in [(shape, precision) for shape in a.shapes for precision in a.precisions]:
        own, peer = sides.bench(shape, precision, a.threads[0], 1)[1]["bytes_per_step"], sides.llama_sizes(shape, precision)[0]
        for threads in a.threads:
            sides.decode(shape, precision, threads, a.tokens)  # both files into the page cache
            sides.llama_decode(shape, precision, threads, a.tokens)
            ours, theirs = [], []
            for _ in range(a.rounds):
                ours.append(sides.decode(shape, precision, threads, a.tokens))
                theirs.append(sides.llama_decode(shape, precision, threads, a.tokens))
            ratio = statistics.median(t / o for o, t in zip(ours, theirs))
            sizes = f"{own / 1e6:.1f}, {peer / 1e6:.1f}"
            print(f"| {shape} | {precision}, {PEER[precision]} | {sizes} | {threads} | {show(ours)} | {show(theirs)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
