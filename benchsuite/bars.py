"""Everything that is aimed at for speed and memory, measured beside llama.cpp: one table of bars and what was reached.

usage: bars.py PACELINE LLAMA_BENCH SHAPES_DIR [--rounds 7] [--repeats 5] [--tokens 128] [--threads 2]

SHAPES_DIR must hold the shapes tiny18 and smol135. Exits with 1 where a bar is missed. benchsuite/README.md says how to get the other side and how to
read the ratios.
"""
import statistics
import sys

from common import PEER, Sides, arguments, count, machine, seconds_by_rows

# What is aimed at, not what is claimed: whether a bar is met, the run says. A bar is never moved to where a run ends.
# What is measured, of which shape and precision, against what or over how many rows, and the bar.
BARS = [
    ("decode", "smol135", "int8", "peer", ">=", 1.35),
    ("decode", "tiny18", "int8", "peer", ">=", 1.3),
    ("decode", "smol135", "int4", "peer", ">=", 1.25),
    ("decode", "tiny18", "int4", "peer", ">=", 1.0),
    ("decode", "smol135", "bf16", "peer", ">=", 1.2),
    ("decode", "smol135", "int4", "int8", ">=", 1.4),
    ("share", "smol135", "int8", None, ">=", 0.85),
    ("v", "smol135", "int8", 4, "<=", 1.15),
    ("v", "smol135", "int8", 8, "<=", 1.35),
    ("v", "smol135", "int8", 16, "<=", 2.0),
    ("v", "smol135", "int4", 4, "<=", 1.2),
    ("v", "smol135", "int4", 8, "<=", 1.6),
    ("v", "smol135", "bf16", 4, "<=", 1.15),
    ("v", "smol135", "bf16", 8, "<=", 1.5),
    ("prefill", "smol135", "int8", "peer", ">=", 1.5),
    ("load", "smol135", "int8", None, "<=", 1.0),
    ("memory", "smol135", "int8", None, "<=", 1.25),
    ("idle", "smol135", "int8", None, "<=", 0.001),
]
PROMPT = 256
# Nanoseconds that a cache line takes between two threads and back, from which on their cores are taken to share no cache.
FAR = 200


class Round:
    """One round's measurements, each side after the other."""

    def __init__(self, sides, a):
        self.ours, self.theirs, self.benches = {}, {}, {}
        decoded = sorted({(shape, precision) for what, shape, precision, *_ in BARS if what == "decode"})
        # Our precisions of a shape one after the other: they are compared too.
        for shape in sorted({shape for shape, _ in decoded}):
            for precision in [precision for of, precision in decoded if of == shape]:
                self.ours[shape, precision] = sides.decode(shape, precision, a.threads, a.tokens)
            for precision in [precision for of, precision in decoded if of == shape]:
                self.theirs[shape, precision] = sides.llama_decode(shape, precision, a.threads, a.tokens)
        for shape, precision in sorted({(shape, precision) for what, shape, precision, *_ in BARS if what != "decode"}):
            self.benches[shape, precision] = sides.bench(shape, precision, a.threads, a.repeats)
        self.exchanges = [ns for *_, exchanges in self.benches.values() for ns in exchanges]
        self.prefill = {(shape, precision): sides.llama_prefill(shape, precision, a.threads, PROMPT)
                        for what, shape, precision, *_ in BARS if what == "prefill"}

    def value(self, what, shape, precision, other):
        """The number that a bar is about; `None` where this system does not tell it."""
        if what == "decode":
            against = self.theirs[shape, precision] if other == "peer" else self.ours[shape, other]
            return against / self.ours[shape, precision]
        load, steps, _ = self.benches[shape, precision]
        if what == "share":
            return steps["share_of_read"]["median"]
        if what == "v":
            seconds = seconds_by_rows(steps)
            return seconds[other] / seconds[1]
        if what == "prefill":
            return steps["prefill_tokens_per_second"] / self.prefill[shape, precision]
        if what == "load":
            return load["seconds_to_first_token"]
        if what == "memory":
            resident = load["resident"]
            return resident and (resident["anonymous"] + resident["file"] - load["cache_bytes"]) / load["weight_bytes"]
        return load["idle_share"]


def name(what, shape, precision, other):
    peer = f"llama.cpp's {PEER[precision]}" if other == "peer" else f"our own {other}"
    return {
        "decode": f"plain decoding, {precision} against {peer}, times as fast",
        "share": f"share of the read bandwidth at one row, {precision}",
        "v": f"v({other}), {precision}",
        "prefill": f"prompt of {PROMPT} tokens, {precision} against {peer}, times as fast",
        "load": f"load and pack to the first token, {precision}, seconds, file in the page cache",
        "memory": f"resident memory after the first token but for the cache, {precision}, over the weights with their embedding",
        "idle": f"processor time of an idle loaded engine, {precision}, share of a core",
    }[what]


def judge(values, relation, bar):
    """The row's cells of what was measured and whether it meets the bar, and whether it misses it."""
    if any(value is None for value in values):
        return "this system does not tell", "-", False
    median = statistics.median(values)
    met = median >= bar if relation == ">=" else median <= bar
    digits = 5 if bar < 0.1 else 3
    return f"{median:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]", "yes" if met else "no", not met


def by_distance(rounds):
    """What depends on one run of steps alone, by where the threads were before it and after it."""
    said = "; ".join(" ".join(f"{ns:.0f}" for ns in round.exchanges) for round in rounds)
    print(f"\nA cache line between two threads, there and back, before and after each run of steps, by rounds, ns: {said}.")
    print(f"\n| what, by where the threads were | near: under {FAR} ns | far: {FAR} ns and more |\n|---|---|---|")
    for what, shape, precision, other, *_ in BARS:
        if what not in ("share", "v"):
            continue
        near, far = [], []
        for round in rounds:
            exchanges = round.benches[shape, precision][2]
            value = round.value(what, shape, precision, other)
            if max(exchanges) < FAR:
                near.append(value)
            elif min(exchanges) >= FAR:
                far.append(value)
        cell = lambda values: f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}], {len(values)} runs" if values else "-"
        print(f"| {name(what, shape, precision, other)} | {cell(near)} | {cell(far)} |")


def main():
    parser = arguments(__doc__, None, 7)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--repeats", type=count, default=5, help="how often `paceline bench` times everything in a round")
    parser.add_argument("--tokens", type=count, default=128)
    a = parser.parse_args()
    sides = Sides(a)

    rounds = []
    for index in range(a.rounds):
        print(f"round {index + 1} of {a.rounds}", file=sys.stderr, flush=True)
        rounds.append(Round(sides, a))
    print(f"Machine: {machine()}. {a.threads} threads, {a.rounds} rounds, alternating, {sides.cache}; medians, [smallest, largest]; "
          "of ratios, the median of the rounds' ratios.\n")
    print("| what | shape | bar | measured | met? |\n|---|---|---|---|---|")
    missed = 0
    for *about, relation, bar in BARS:
        measured, met, misses = judge([round.value(*about) for round in rounds], relation, bar)
        missed += misses
        print(f"| {name(*about)} | {about[1]} | {'at least' if relation == '>=' else 'at most'} {bar:g} | {measured} | {met} |")

    if any(round.exchanges for round in rounds):
        by_distance(rounds)
    print("\n| shape, precision | weights a step reads, MB: Paceline, llama.cpp | cache, kB a token: Paceline, llama.cpp | resident, MB: anonymous, files |")
    print("|---|---|---|---|")
    for (shape, precision), (load, steps, _) in rounds[-1].benches.items():
        weights, cache = sides.llama_sizes(shape, precision)
        resident = load["resident"]
        resident = f"{resident['anonymous'] / 1e6:.1f}, {resident['file'] / 1e6:.1f}" if resident else "-"
        print(f"| {shape}, {precision} | {steps['bytes_per_step'] / 1e6:.1f}, {weights / 1e6:.1f} | "
              f"{steps['cache_bytes_per_token'] / 1e3:.1f}, {cache / 1e3:.1f} | {resident} |")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
