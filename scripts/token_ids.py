"""Compares the ids that we have for texts with those of transformers, text by text, and the texts that both make of the ids: the
tokenizer of a GGUF file (or of a directory) with that of the directory in the Hugging Face layout that it belongs to.

Texts are the files given, cut into pieces, and made-up ones: numbers, code, emoji, many scripts, odd spaces, control characters,
special tokens, and noise. All of it is the same every time. The Python that runs this needs transformers.

  python3 scripts/token_ids.py model.gguf directory --texts DIRECTORY

transformers 5 makes directories from GGUF files without the cut around digits that SmolLM's tokenizer.json has; with --digits the
directory is compared as if it had it. Its Qwen has the composition of characters (NFC) whatever the directory says.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unicodedata

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TEST = "text::gguf::tests::real::ids_are_written_for_comparison"
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\x0b",
          "\x0c", "\x85", "\ufeff", " " * 17, "\t\t\t", "\n" * 5]
SCRIPTS = [(0x21, 0x7e), (0xa1, 0x17f), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x4ff), (0x5d0, 0x5ea), (0x620, 0x6ff),
           (0x900, 0x97f), (0xe00, 0xe5b), (0x1100, 0x11ff), (0x1e00, 0x1eff), (0x2000, 0x206f), (0x2100, 0x218f),
           (0x2200, 0x22ff), (0x2460, 0x24ff), (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xf900, 0xfaff),
           (0xfb00, 0xfb4f), (0xff00, 0xffef), (0x10400, 0x1044f), (0x1d400, 0x1d7ff), (0x1f300, 0x1faff), (0x20000, 0x2a6df)]
EMOJI = ["😀", "🦙", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "❤️", "🏴‍☠️", "1️⃣"]
CODE = ["fn", "let", "def", "return", "==", "!=", "->", "=>", "::", "{", "}", "(", ")", "[", "]", ";", "//", "/*", "*/", "#", "\"", "'",
        "x_1", "fooBar", "HTTPServer", "__init__", "0x1F", "1e-9", "'s", "'LL", "don't", "'ſ", "\\n", "<div>", "</div>", "&&", "|=", "…"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<|fim_pad|>", "<repo_name>", "<|im_start",
           "[PAD151665]", "</s>", "<s>", "▁", "Ġ", "ġ"]
WORDS = "the of and to in is that with as was for it on be at by I this had not are but from or have an they which one you were her".split()


def made_up(rng):
    """One text of a kind drawn by chance."""
    kind = rng.randrange(8)
    pieces = []
    for _ in range(rng.randrange(1, 120)):
        if kind == 0 or rng.random() < 0.1:
            pieces.append(str(rng.randrange(10 ** rng.randrange(1, 20))))
            pieces.append(rng.choice(["", " ", "  ", ".", ",", "-", "/", ":", "%", "²", "½", "٣", "Ⅷ", "４"]))
        elif kind == 1:
            pieces.append(rng.choice(CODE) + rng.choice(["", "", " ", "\n", "\n    ", "\t"]))
        elif kind == 2:
            pieces.append(rng.choice(EMOJI) * rng.randrange(1, 4) + rng.choice(["", " ", "a"]))
        elif kind == 3:
            low, high = rng.choice(SCRIPTS)
            pieces.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 9))))
            pieces.append(rng.choice(["", " ", "\n"]))
        elif kind == 4:
            pieces.append(rng.choice(SPACES) + rng.choice(["", rng.choice(WORDS), rng.choice(CODE)]))
        elif kind == 5:
            pieces.append(chr(rng.randrange(32)) + rng.choice(["", rng.choice(WORDS), " ", "\x7f", "\x80"]))
        elif kind == 6:
            pieces.append(rng.choice(SPECIAL) + rng.choice(["", " ", "\n", rng.choice(WORDS)]))
        else:
            letter = chr(rng.choice([rng.randrange(0x300), rng.randrange(0x110000)]))
            pieces.append("" if "\ud800" <= letter <= "\udfff" else letter)
    text = "".join(pieces)
    return unicodedata.normalize("NFD", text) if rng.random() < 0.1 else text


def stored(directory, rng):
    """The files of a directory in pieces of some lines."""
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            with open(os.path.join(folder, name), "rb") as file:
                lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
            at = 0
            while at < len(lines):
                count = rng.randrange(1, 30)
                yield "".join(lines[at:at + count])[:rng.choice([100, 1000, 20000])]
                at += count


def texts(directory, size):
    """Texts of so many bytes together, half of them stored ones as far as there are enough."""
    rng, chosen, total = random.Random(7), [], 0
    for text in stored(directory, rng) if directory else ():
        if total >= size / 2:
            break
        chosen.append(text)
        total += len(text.encode())
    while total < size:
        text = made_up(rng)
        chosen.append(text)
        total += len(text.encode())
    return chosen, total


def ours(model, path, out, binary):
    """Ids and texts of our tokenizer, by way of the test that writes them."""
    command = [binary, "--exact", TEST] if binary else ["cargo", "test", "--release", "-p", "paceline", "--lib", "--", "--exact", TEST]
    variables = {"PACELINE_IDS_MODEL": os.path.abspath(model), "PACELINE_IDS_TEXTS": path, "PACELINE_IDS_OUT": out}
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    if run.returncode or not os.path.exists(out):
        sys.exit(run.stdout + run.stderr)
    with open(out, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def reference(directory, digits, folder):
    """transformers' tokenizer of a directory."""
    from transformers import AutoTokenizer

    if digits:
        copy = os.path.join(folder, "directory")
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.safetensors"))
        path = os.path.join(copy, "tokenizer.json")
        with open(path, encoding="utf-8") as file:
            tokenizer = json.load(file)
        cut = {"type": "Digits", "individual_digits": True}
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, tokenizer["pre_tokenizer"]]}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(tokenizer, file)
        directory = copy
    return AutoTokenizer.from_pretrained(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file, or directory")
    parser.add_argument("directory", help="the same model's directory")
    parser.add_argument("--texts", help="directory of texts")
    parser.add_argument("--bytes", type=int, default=10 << 20)
    parser.add_argument("--digits", action="store_true", help="put SmolLM's cut around digits back")
    parser.add_argument("--binary", help="the built test program; cargo builds it otherwise")
    arguments = parser.parse_args()
    chosen, total = texts(arguments.texts, arguments.bytes)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "texts")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\n" for text in chosen)
        found = ours(arguments.model, path, os.path.join(folder, "ids"), arguments.binary)
        tokenizer = reference(arguments.directory, arguments.digits, folder)
        expected = tokenizer(chosen)["input_ids"]
    assert len(found) == len(expected) == len(chosen)
    ids = decoded = 0
    for text, (ours_ids, ours_text), theirs in zip(chosen, found, expected):
        if ours_ids != theirs:
            ids += 1
            if ids <= 5:
                at = next((i for i, (a, b) in enumerate(zip(ours_ids, theirs)) if a != b), min(len(ours_ids), len(theirs)))
                around = (ours_ids[max(0, at - 2):at + 6], theirs[max(0, at - 2):at + 6])
                print("ids:", around[0], "instead of", around[1], repr(tokenizer.decode(around[1])))
        elif ours_text != tokenizer.decode(theirs, skip_special_tokens=True, clean_up_tokenization_spaces=False):
            decoded += 1
            if decoded <= 5:
                print("text:", repr(ours_text[:80]))
    lines = sum(text.count("\n") + 1 for text in chosen)
    tokens = sum(map(len, expected))
    print(f"{len(chosen)} texts, {lines} lines, {total} bytes, {tokens} tokens: {ids} with other ids, {decoded} with another text")
    return 1 if ids or decoded else 0


if __name__ == "__main__":
    sys.exit(main())
