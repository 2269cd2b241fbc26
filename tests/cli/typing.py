"""Runs a program on a pseudo terminal and types into it, for tests of what a person sees.

usage: typing.py STEPS COMMAND..
STEPS is a JSON list of ["see", text]: wait until the terminal shows it, behind what was seen before;
["type", text]; ["type", text, times]; ["signal", number]. Afterwards it waits for the end and prints a JSON object with the
exit code (null after a signal's default action), all that the terminal showed, and the step that never came, if one did not.
"""
import json
import os
import pty
import select
import sys
import time

PATIENCE = 100  # seconds; longer than any of it takes on a busy machine


def main():
    steps, command = json.loads(sys.argv[1]), sys.argv[2:]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    os.set_blocking(terminal, False)
    shown, seen, pending, ended, missing = b"", 0, b"", False, None
    deadline = time.monotonic() + PATIENCE

    def exchange():
        """Lets the terminal show and take what it will."""
        nonlocal shown, pending, ended
        readable, writable, _ = select.select([terminal], [terminal] if pending else [], [], 0.05)
        if readable:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                data = b""
            ended = not data
            shown += data
        if writable and not ended:
            try:
                pending = pending[os.write(terminal, pending[:4096]) :]
            except BlockingIOError:
                pass

    for step in steps:
        if step[0] == "see":
            text = step[1].encode()
            while text not in shown[seen:]:
                if ended or time.monotonic() > deadline:
                    missing = step[1]
                    break
                exchange()
            if missing:
                break
            seen = shown.index(text, seen) + len(text)
        elif step[0] == "type":
            pending += step[1].encode() * (step[2] if len(step) > 2 else 1)
        else:
            os.kill(child, step[1])
    while not ended and time.monotonic() < deadline and not missing:
        exchange()
    if not ended:
        os.kill(child, 9)
    status = os.waitpid(child, 0)[1]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    print(json.dumps({"code": code, "shown": shown.decode("utf-8", "replace"), "missing": missing}))


main()
