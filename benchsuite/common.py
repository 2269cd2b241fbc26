"""What the scripts that run Paceline beside llama.cpp share: their arguments, running both sides, and the sizes of a GGUF file."""
import argparse
import json
import os
import platform
import statistics
import struct
import subprocess
import sys

PEER = {"bf16": "f16", "int8": "Q8_0", "int4": "Q4_0"}


def arguments(description, shapes, rounds):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paceline", help="the built program")
    parser.add_argument("llama_bench", help="llama.cpp's llama-bench; its libraries may lie beside it")
    parser.add_argument("shapes_dir", help="holds SHAPE/ and SHAPE.f16.gguf, SHAPE.Q8_0.gguf and SHAPE.Q4_0.gguf for each shape")
    if shapes:
        parser.add_argument("--shapes", nargs="+", default=shapes)
        parser.add_argument("--precisions", nargs="+", default=list(PEER), choices=list(PEER))
    parser.add_argument("--rounds", type=count, default=rounds)
    parser.add_argument("--kv-cache", default="f16", choices=["f16", "f32"], help="the cache's precision on both sides")
    return parser


def count(text):
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


class Sides:
    """Both engines on the models of a directory, with the same cache precision."""

    def __init__(self, a):
        self.paceline_binary, self.llama_binary, self.shapes_dir = a.paceline, a.llama_bench, a.shapes_dir
        self.cache = f"caches in {a.kv_cache}"
        self.llama_cache_bytes = 4 if a.kv_cache == "f32" else 2
        self.paceline_cache = ["--kv-cache", a.kv_cache]
        self.llama_cache = ["-ctk", a.kv_cache, "-ctv", a.kv_cache]

    def model(self, shape):
        return os.path.join(self.shapes_dir, shape)

    def gguf(self, shape, precision):
        return os.path.join(self.shapes_dir, f"{shape}.{PEER[precision]}.gguf")

    def decode(self, shape, precision, threads, tokens):
        """Paceline's milliseconds per token of an answer after its prefill, sampling and text included."""
        command = ["generate", "--model", self.model(shape), "--prompt", "a", "--drafter", "none", "--ignore-eos", "--json", "--precision", precision,
                   "--max-new-tokens", str(tokens), "--threads", str(threads)]
        answer = run([self.paceline_binary, *command, *self.paceline_cache])
        report = answer["report"]
        return (report["latency_ms"] - report["prefill_ms"]) / len(answer["tokens"])

    def bench(self, shape, precision, threads, repeats):
        """What `paceline bench` measured: of loading and of steps, and how far its threads were from each other (nanoseconds)."""
        command = ["bench", "--model", self.model(shape), "--precision", precision, "--repeats", str(repeats), "--threads", str(threads), "--json"]
        measured = run([self.paceline_binary, *command, *self.paceline_cache])
        return measured["loads"][0], measured["steps"][0], [1e9 * seconds for seconds in measured["exchange_seconds"]]

    def llama(self, shape, precision, threads, *flags):
        """llama-bench's runs, in the order of the flags."""
        command = [self.llama_binary, "-m", self.gguf(shape, precision), "-t", str(threads), "-o", "json", *self.llama_cache, *flags]
        return run(command, LD_LIBRARY_PATH=os.path.dirname(os.path.abspath(self.llama_binary)))

    def llama_sizes(self, shape, precision):
        """Bytes of weights that llama.cpp reads for a token, and bytes that a token takes in its cache."""
        gguf = Gguf(self.gguf(shape, precision))
        return gguf.step_bytes, gguf.cache_values_per_token * self.llama_cache_bytes

    def llama_decode(self, shape, precision, threads, tokens):
        """llama.cpp's milliseconds per token of llama-bench's text generation (no sampling)."""
        return 1e3 / self.llama(shape, precision, threads, "-p", "0", "-n", str(tokens), "-r", "1")[0]["avg_ts"]

    def llama_prefill(self, shape, precision, threads, tokens):
        """llama.cpp's prompt tokens per second."""
        return self.llama(shape, precision, threads, "-p", str(tokens), "-n", "0", "-r", "3")[0]["avg_ts"]


def run(command, **environment):
    """The JSON that a command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, **environment))
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error}.")
    if done.returncode != 0:
        sys.exit(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def seconds_by_rows(step_bench):
    """Median seconds of a step by its number of rows, of a `steps` object of `paceline bench --json`."""
    return {rows: spread["median"] for rows, spread in step_bench["rows"]}


def show(values, digits=3):
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def machine():
    try:
        with open("/proc/cpuinfo") as info:
            names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    except OSError:
        names = []
    processor = f"{names[0]}, {len(names)} cores visible" if names else platform.processor() or platform.machine()
    return f"{processor}; {platform.system()} {platform.release()}"


class Gguf:
    """Sizes of a GGUF file (versions 2 and 3): what llama.cpp reads for a token, and what a token takes in its cache."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    STRING, ARRAY = 8, 9

    def __init__(self, path):
        try:
            with open(path, "rb") as self.file:
                self.read_all(os.path.getsize(path))
        except OSError as error:
            sys.exit(f"{path} cannot be read: {error}.")
        except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
            sys.exit(f"{path} is no GGUF file of version 2 or 3 with a Llama model: {error!r}.")

    def read_all(self, size):
        if self.file.read(4) != b"GGUF" or self.number("I") not in (2, 3):
            raise ValueError("magic or version")
        tensors, pairs = self.number("Q"), self.number("Q")
        facts = {}
        for _ in range(pairs):
            key = self.string()
            facts[key] = self.value(self.number("I"))
        starts = {}
        for _ in range(tensors):
            name = self.string()
            self.file.seek(8 * self.number("I") + 4, os.SEEK_CUR)  # dimensions and type
            starts[name] = self.number("Q")
        alignment = facts.get("general.alignment", 32)
        data = -(-self.file.tell() // alignment) * alignment
        # A tensor ends where the next begins, up to its padding.
        ends = sorted(starts.values())[1:] + [size - data]
        sizes = {name: end - starts[name] for name, end in zip(sorted(starts, key=starts.get), ends)}
        # Without an output matrix of its own, the embedding is read as one; otherwise rows are looked up in it.
        looked_up = sizes["token_embd.weight"] if "output.weight" in sizes else 0
        self.step_bytes = sum(sizes.values()) - looked_up
        fact = lambda name: facts[f"{facts['general.architecture']}.{name}"]
        heads = fact("attention.head_count_kv")
        width = fact("embedding_length") // fact("attention.head_count")
        lengths = [facts.get(f"{facts['general.architecture']}.attention.{part}_length", width) for part in ("key", "value")]
        self.cache_values_per_token = fact("block_count") * heads * sum(lengths)

    def number(self, kind):
        return struct.unpack("<" + kind, self.file.read(struct.calcsize("<" + kind)))[0]

    def string(self):
        return self.file.read(self.number("Q")).decode()

    def value(self, kind):
        if kind == self.STRING:
            return self.string()
        if kind == self.ARRAY:
            inner, length = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(length)]
        return self.number(self.SCALARS[kind])

