"""Runs a program on a pseudo terminal and types into it, for tests of what a person sees.

usage: typing.py STEPS COMMAND..
STEPS is a JSON list of ["see", text]: wait until the terminal shows it, behind what was seen before;
["type", text]; ["type", text, times]; ["signal", number]; ["stopped"]: wait until the program is stopped;
["continue"]: let it go on; ["modes"]: note how the terminal is set; ["starve"]: let it have no more memory than it has. Afterwards it waits for the end and prints a JSON object:
the exit code, or the signal that ended the program; all that the terminal showed; whether the terminal collected lines and
showed them by itself (canonical mode with echo), at each "stopped", each "modes" and the end; and the step that never came,
if one did not.

Between this and the program stands what matters of a shell: it leads the terminal's session, so that the end of the program
does not set the terminal anew, and takes the terminal back when the program is stopped.
"""
import json
import os
import pty
import resource
import select
import signal
import sys
import termios
import time

PATIENCE = 100  # seconds; longer than any of it takes on a busy machine


def shell(command, orders, reports):
    """Runs the command as a shell does, reports what becomes of it and waits for orders."""

    def report(**what):
        os.write(reports, (json.dumps(what) + "\n").encode())

    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or the system would stop it when it takes the terminal back
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    program = os.fork()
    if program == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.close(orders)
        os.close(reports)
        os.execvp(command[0], command)
    report(pid=program)
    while True:
        status = os.waitpid(program, os.WUNTRACED)[1]
        os.tcsetpgrp(0, os.getpid())
        if not os.WIFSTOPPED(status):
            break
        report(stopped=True)
        os.read(orders, 1)
        os.tcsetpgrp(0, program)
        os.kill(-program, signal.SIGCONT)
    if os.WIFEXITED(status):
        report(code=os.WEXITSTATUS(status), signal=None)
    else:
        report(code=None, signal=os.WTERMSIG(status))
    os.read(orders, 1)  # until its end the terminal stays as it is


class Session:
    """A program on a terminal."""

    def __init__(self, command):
        orders, self.orders = os.pipe()
        self.reports, reports = os.pipe()
        self.shell, self.terminal = pty.fork()
        if self.shell == 0:
            os.close(self.orders)
            os.close(self.reports)
            shell(command, orders, reports)
            os._exit(0)
        os.close(orders)
        os.close(reports)
        os.set_blocking(self.terminal, False)
        self.shown, self.seen, self.pending, self.heard = b"", 0, b"", b""
        self.pid, self.stopped, self.result, self.gone = None, False, None, False
        self.modes = []
        self.deadline = time.monotonic() + PATIENCE

    def until(self, condition):
        """Lets the terminal show and take what it will until the condition holds; whether it does in time."""
        while not condition() and not self.gone and time.monotonic() < self.deadline:
            self.exchange()
        return condition()

    def exchange(self):
        """Reads what the terminal shows and the shell reports, and types what is pending."""
        sources = [source for source in (self.terminal, self.reports) if source is not None]
        readable, writable, _ = select.select(sources, [self.terminal] if self.pending else [], [], 0.05)
        if self.terminal in readable:
            try:
                data = os.read(self.terminal, 65536)
            except OSError:
                data = b""
            self.gone = not data
            self.shown += data
        if self.reports in readable:
            data = os.read(self.reports, 4096)
            if not data:
                self.reports = None
            self.heard += data
            *lines, self.heard = self.heard.split(b"\n")
            for line in lines:
                self.hear(json.loads(line))
        if writable and not self.gone:
            try:
                self.pending = self.pending[os.write(self.terminal, self.pending[:4096]) :]
            except BlockingIOError:
                pass

    def hear(self, report):
        self.pid = report.get("pid", self.pid)
        if "stopped" in report:
            self.stopped = True
        elif "code" in report:
            self.result = report
            self.note_modes()
            os.close(self.orders)

    def note_modes(self):
        flags = termios.tcgetattr(self.terminal)[3]
        self.modes.append(bool(flags & termios.ICANON and flags & termios.ECHO))

    def follow(self, step):
        """Whether the step could be followed."""
        kind, *values = step
        if kind == "see":
            text = values[0].encode()
            if not self.until(lambda: text in self.shown[self.seen :]):
                return False
            self.seen = self.shown.index(text, self.seen) + len(text)
        elif kind == "type":
            self.pending += values[0].encode() * (values[1] if len(values) > 1 else 1)
        elif kind == "signal":
            if not self.until(lambda: self.pid):
                return False
            os.kill(self.pid, values[0])
        elif kind == "stopped":
            if not self.until(lambda: self.stopped):
                return False
            self.note_modes()
        elif kind == "continue":
            self.stopped = False
            os.write(self.orders, b"!")
        elif kind == "starve":
            resource.prlimit(self.pid, resource.RLIMIT_AS, (1, 1))
        elif kind == "modes":
            self.note_modes()
        return True

    def end(self, missing):
        """Waits for the end of the program and of what the terminal shows."""
        if missing or not self.until(lambda: self.result):
            if self.pid and not self.result:
                os.kill(self.pid, signal.SIGKILL)
                if self.stopped:
                    os.write(self.orders, b"!")
            self.deadline = time.monotonic() + PATIENCE
        self.until(lambda: False)
        os.waitpid(self.shell, 0)


def main():
    steps, command = json.loads(sys.argv[1]), sys.argv[2:]
    session = Session(command)
    missing = next((step for step in steps if not session.follow(step)), None)
    session.end(missing)
    result = session.result or {"code": None, "signal": None}
    found = {"shown": session.shown.decode("utf-8", "replace"), "lines": session.modes, "missing": missing}
    print(json.dumps(result | found))


main()
