"""Ends every program that writes files by `kill -9`, at random moments, and looks at what is left: everything that was complete
must be readable, nothing torn, nothing lost, and a run that is called again must end as one that nobody disturbed.

  cargo build --release --workspace
  python3 scripts/kills.py target/release --kills 500
"""
import argparse
import glob
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = os.path.join(ROOT, "models", "target")
FIXTURES = os.path.join(ROOT, "tests", "fixtures")


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def complete_lines(path):
    """The lines of a file that have an end."""
    return read(path).split(b"\n")[:-1]


def check_safetensors(path):
    """That a file, where there is one, has all that its header says."""
    data = read(path)
    if not data:
        assert not os.path.exists(path), f"{path} is empty"
        return
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert len(data) == 8 + length + end, f"{path} is torn"


class Writer:
    """A program that is killed, in a folder of its own."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        self.environment = {**os.environ, "XDG_STATE_HOME": os.path.join(folder, "state")}

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def program(self, name):
        return os.path.join(self.programs, name)

    def run(self, command):
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, check=True)

    def begin(self):
        """Before a run."""

    def killed(self):
        """Looks at what a killed run left."""

    def done(self):
        """Looks at what a run left that was over before it was killed."""
        self.killed()


class Journal(Writer):
    """Answers in the journal: as many as were printed at least, none torn. Every other time the journal is about to be shortened."""

    LARGEST = 4 << 20

    def __init__(self, *place):
        super().__init__(*place)
        self.journal, self.out, self.rounds = self.path("journal.jsonl"), self.path("out"), 0
        with open(self.path("prompts.jsonl"), "w") as file:
            file.writelines(json.dumps({"prompt": f"a b c {number % 7}"}) + "\n" for number in range(400))
        command = ["generate", "--model", os.path.join(FIXTURES, "micro"), "--prompts", "prompts.jsonl", "--json", "--max-new-tokens", "2",
                   "--threads", "1", "--journal", "journal.jsonl"]
        self.command = [self.program("paceline"), *command]

    def begin(self):
        self.rounds += 1
        lines = [line for line in complete_lines(self.journal) if line.startswith(b'{"at"')]
        if self.rounds % 2 and lines:
            filler = (lines[-1] + b"\n") * ((self.LARGEST - 3000) // (len(lines[-1]) + 1))
            with open(self.journal, "wb") as file:
                file.write(filler)
        self.before = self.answers()

    def answers(self):
        parsed = [json.loads(line) for line in complete_lines(self.journal)]
        return sum(entry.get("dropped", 1) for entry in parsed)

    def killed(self):
        data = read(self.journal)
        assert not data or data.endswith(b"\n"), "the last line is torn"
        printed = sum(1 for line in complete_lines(self.out) if b'"answer"' in line or line.startswith(b"{"))
        assert self.answers() >= self.before + printed, f"{self.answers()} answers are noted of {self.before} and {printed}"
        if self.rounds % 20 == 0:
            stats = self.run([self.program("paceline"), "stats", "--journal", "journal.jsonl", "--json"])
            assert b"damaged" not in stats.stdout + stats.stderr, stats.stdout


class OnlineState(Writer):
    """What was learned while serving: a whole state, and never less than before."""

    def __init__(self, *place):
        super().__init__(*place)
        self.state, self.known = self.path("learned.json"), 0
        command = ["generate", "--model", MODEL, "--prompt", "2 + 3", "--max-new-tokens", "2", "--threads", "1", "--no-journal", "--online-state", "learned.json"]
        self.command = [self.program("paceline"), *command]

    def answers(self):
        return json.loads(read(self.state))["answers"] if os.path.exists(self.state) else 0

    def killed(self):
        assert self.answers() >= self.known, f"{self.known} answers were learned from, and {self.answers()} are left"
        self.known = self.answers()

    def done(self):
        assert self.answers() >= self.known + 1, "a run that ended has not kept what it learned"
        self.killed()


class Cache(Writer):
    """The models that ship, in the user's cache: a whole directory or none."""

    def __init__(self, *place):
        super().__init__(*place)
        self.environment["XDG_CACHE_HOME"] = self.path("cache")
        self.command = [self.program("paceline"), "generate", "--prompt", "2 + 3", "--max-new-tokens", "2", "--threads", "1", "--no-journal"]

    def begin(self):
        shutil.rmtree(self.path("cache"), ignore_errors=True)

    def killed(self):
        for model in glob.glob(self.path("cache", "paceline", "*", "target")):
            for folder, _, names in os.walk(model):
                for name in names:
                    path = os.path.join(folder, name)
                    assert read(path) == read(os.path.join(MODEL, os.path.relpath(path, model))), f"{path} is torn"

    def done(self):
        assert glob.glob(self.path("cache", "paceline", "*", "target", "model.safetensors")), "the models were not written"
        self.killed()


class Resumed(Writer):
    """A run that goes on where it was ended, to what an undisturbed one makes."""

    # Files to which complete lines are added, and files of tensors.
    growing = []
    tensors = []
    # Files that are the same bytes at the end.
    same = []

    def __init__(self, *place):
        super().__init__(*place)
        self.prepare()
        self.clear()
        self.run(self.command)
        self.expected = self.result()
        self.clear()
        self.begin()

    def prepare(self):
        raise NotImplementedError

    def clear(self):
        shutil.rmtree(self.path("made"), ignore_errors=True)

    def result(self):
        return {name: read(self.path("made", name)) for name in self.same}

    def begin(self):
        self.before = {name: complete_lines(self.path("made", name)) for name in self.growing}

    def killed(self):
        for name, lines in self.before.items():
            now = complete_lines(self.path("made", name))
            assert now[:len(lines)] == lines, f"{name} has lost or changed lines"
        for name in self.tensors:
            check_safetensors(self.path("made", name))

    def done(self):
        self.killed()
        assert self.result() == self.expected, "the result is another one than that of a run that nobody disturbed"
        self.clear()


class Training(Resumed):
    """Checkpoints, the answers that drafts learn from, and the models that come of them."""

    growing = ["answers/answers-64.jsonl"]
    tensors = ["target/checkpoint.safetensors", "drafts/small/checkpoint.safetensors", "models/target/model.safetensors", "models/small/model.safetensors"]
    same = ["models/target/model.safetensors", "models/small/model.safetensors", "answers/answers-64.jsonl"]

    def prepare(self):
        with open(os.path.join(ROOT, "training", "recipes", "smoke.toml")) as file:
            recipe = file.read()
        changes = [("${RECIPE}/../..", ROOT), ("steps = 40\n", "steps = 4\n"), ("steps = 20\n", "steps = 2\n"), ("train = 2000", "train = 200"),
                   ("steps = 200", "steps = 30"), ("steps = 100", "steps = 30"), ("answers = 200", "answers = 60"), ("save_every = 5", "save_every = 1")]
        for old, new in changes:
            assert old in recipe, f"the smoke recipe has no `{old}`"
            recipe = recipe.replace(old, new)
        with open(self.path("smoke.toml"), "w") as file:
            file.write(recipe)
        train = self.program("paceline-train")
        steps = " && ".join(f"{train} {step} smoke.toml --out made" for step in ["tokenizer", "tokens", "pretrain", "distill"])
        self.command = ["sh", "-c", steps]


class Rows(Resumed):
    """The rows of a measured suite."""

    growing = ["rows.csv"]

    def prepare(self):
        with open(self.path("prompts.jsonl"), "w") as file:
            file.writelines(json.dumps({"id": f"q{n}", "prompt": f"a b c {n}", "answer": "x"}) + "\n" for n in range(20))
        micro = os.path.join(FIXTURES, "micro")
        with open(self.path("suite.toml"), "w") as file:
            file.write(f'name = "tiny"\nrepeats = 40\nwarm-up = 1\n[engine]\nmodel = "{micro}"\nthreads = 1\n[answer]\nmax-new-tokens = 8\n'
                       '[[prompts]]\npath = "prompts.jsonl"\n[[plan]]\nname = "plain"\ndrafter = "none"\n[[plan]]\nname = "lookup"\ndrafter = "lookup"\n')
        self.command = [self.program("paceline-eval"), "run", "suite.toml", "--out", "made"]

    def result(self):
        lines = complete_lines(self.path("made", "rows.csv"))
        return len(lines), all(line.count(b",") >= lines[0].count(b",") for line in lines)


class Losses(Resumed):
    """The losses that certificates are made of, and the certificates."""

    growing = ["losses.csv"]
    same = ["losses.csv", "floor-0.6.json"]

    def prepare(self):
        with open(os.path.join(ROOT, "datasets", "tasks", "calibration.jsonl")) as file:
            lines = file.readlines()[::61]
        with open(self.path("calibration.jsonl"), "w") as file:
            file.writelines(lines)
        self.command = [self.program("paceline-eval"), "certify", "calibration.jsonl", "--model", MODEL, "--out", "made", "--bundle", "int8", "--floor", "0.6",
                        "--delta", "0.4", "--threads", "1", "--max-new-tokens", "8"]


WRITERS = {"journal": Journal, "online-state": OnlineState, "training": Training, "rows": Rows, "losses": Losses, "cache": Cache}


def end(running):
    """Kills a program with all that it started, and waits until the last of them is gone."""
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    while True:
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.001)


def attack(name, programs, kills, numbers):
    """Kills a writer so often; its counts."""
    with tempfile.TemporaryDirectory() as folder:
        writer = WRITERS[name](programs, folder)
        killed = done = 0
        # About as long as a run takes, learned from the runs that end before they are killed.
        longest, started = 0.4, time.monotonic()
        while killed < kills:
            writer.begin()
            with open(writer.path("out"), "wb") as out, open(writer.path("err"), "wb") as err:
                running = subprocess.Popen(writer.command, cwd=folder, env=writer.environment, stdout=out, stderr=err, start_new_session=True)
                try:
                    code = running.wait(timeout=numbers.uniform(0.0, longest))
                except subprocess.TimeoutExpired:
                    end(running)
                    code = None
            if code is None:
                killed += 1
                longest = min(longest * 1.02, 1.2)
                writer.killed()
            else:
                assert code == 0, read(writer.path("err")).decode(errors="replace")
                done += 1
                longest = max(longest * 0.8, 0.05)
                writer.done()
        # A run that nobody disturbs tidies up what killed ones left.
        writer.begin()
        writer.run(writer.command)
        writer.done()
        left = [path for path in glob.glob(writer.path("**"), recursive=True) if path.endswith((".part", ".old"))]
        assert not left, f"unfinished files are left: {left}"
        print(f"{name}: {killed} kills and {done} runs that ended, nothing unfinished left, {time.monotonic() - started:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", help="the folder of the built programs")
    parser.add_argument("--kills", type=int, default=5, help="of each writer")
    parser.add_argument("--only", nargs="+", default=list(WRITERS), choices=list(WRITERS))
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    for name in a.only:
        attack(name, os.path.abspath(a.programs), a.kills, random.Random(a.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
