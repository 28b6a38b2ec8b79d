"""`lab status` in a terminal: a real one, made by the system, over a real sweep."""

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from tiny_notebook import LAB, build
from tiny_series import pretend, runs

from lab.series import locks, plan, status

WAIT = "import pathlib, time\nwhile not pathlib.Path({go!r}).exists(): time.sleep(0.05)"


def _in_front():
    """Nothing; the process has the terminal, and ^C reaches it whatever its parent ignores."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command in a terminal of 100 columns; ``text``: what it has shown so far."""

    def __init__(self, *words, lines=30):
        self.end, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 100, 0, 0))
        variables = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": str(lines)}
        command = [*LAB, *map(str, words)]
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=variables, start_new_session=True,
            preexec_fn=_in_front,
        )  # fmt: skip
        os.close(other)
        self.text = ""

    def read(self, until=None, seconds=60):
        """Reads until ``until(text)`` holds, or to the end of the process."""
        deadline = time.monotonic() + seconds
        while not (until and until(self.text)):
            assert time.monotonic() < deadline, self.text
            if not select.select([self.end], [], [], 0.2)[0]:
                continue
            try:
                chunk = os.read(self.end, 1 << 16)
            except OSError as error:  # how Linux says that the other end is closed
                assert error.errno == errno.EIO
                break
            self.text += chunk.decode()
        return self.text

    def close(self):
        code = self.process.wait(30)
        os.close(self.end)
        return code


def planned(root, text):
    (root / "s.yaml").write_text(text)
    return plan.load(root / "s.yaml", root / "runs")


@pytest.mark.timeout(240)
def test_in_a_terminal_status_follows_the_sweep_to_its_end(tmp_path):
    go = tmp_path / "go"
    build(tmp_path / "01_a.ipynb", WAIT.format(go=str(go)))
    series = planned(tmp_path, runs(a="grid: {n: [1, 2]}"))
    sweep = subprocess.Popen(
        [*LAB, "sweep", str(series.path), "--out", str(series.out), "-j", "2"],
        stdout=subprocess.DEVNULL,
    )
    while not locks.sweeping(series.out):
        assert sweep.poll() is None
        time.sleep(0.05)
    terminal = Terminal("status", series.path, "--out", series.out)
    terminal.read(lambda text: "2 runs: 2 running" in text)
    seen = len(terminal.text)
    terminal.read(lambda text: text[seen:].count("2 running") > 1)  # it is drawn anew
    assert terminal.process.poll() is None
    go.touch()
    shown = terminal.read()
    assert terminal.close() == 0 and sweep.wait(30) == 0
    assert "\x1b[1A" in shown  # the cursor goes up, over what was drawn
    assert "2 runs: 2 ok" in shown.splitlines()[-1]
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


@pytest.mark.timeout(240)
def test_ctrl_c_ends_status_with_5_and_the_sweep_goes_on(tmp_path):
    build(tmp_path / "01_a.ipynb")
    series = planned(tmp_path, runs(a="grid: {n: [1, 2]}"))
    with locks.swept(series.out, "s", ""):
        terminal = Terminal("status", series.path, "--out", series.out)
        terminal.read(lambda text: "2 not run" in text)
        os.write(terminal.end, b"\x03")
        shown = terminal.read(seconds=10)
        assert terminal.close() == 5
        assert locks.sweeping(series.out)
    assert shown.splitlines()[-1].endswith("interrupted") and "Traceback" not in shown
    assert "\x1b[?25h" in shown


@pytest.mark.timeout(240)
def test_without_a_sweep_status_in_a_terminal_shows_every_run_once_and_ends(tmp_path):
    build(tmp_path / "01_a.ipynb")
    series = planned(tmp_path, runs(a=f"grid: {{n: {list(range(30))}}}"))
    terminal = Terminal("status", series.path, "--out", series.out, lines=12)
    shown = terminal.read()
    assert terminal.close() == 0
    assert all(shown.count(f"a[n={n}]") == 1 for n in range(30))


def test_a_screen_too_small_for_all_runs_shows_what_goes_on_and_wrong(tmp_path):
    build(tmp_path / "01_a.ipynb")
    series = planned(tmp_path, runs(a="grid: {n: [1, 2, 3, 4, 5]}"))
    first, second, _, fourth, fifth = series.runs.values()
    pretend(first)
    pretend(second, "failed")
    pretend(fourth, "timeout")
    pretend(fifth)
    standings = status.read(series)
    shown = {room: [one.key[-2] for one in status.telling(standings, room)] for room in range(7)}
    assert shown[1] == shown[0] == ["2"] and shown[2] == ["2", "4"] and shown[3] == ["2", "3", "4"]
    assert shown[5] == shown[6] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("alive", [True, False])
def test_a_run_of_another_host_is_running_while_its_lock_is_held(tmp_path, alive):
    host = "elsewhere"
    build(tmp_path / "01_a.ipynb")
    (run,) = (series := planned(tmp_path, runs(a=""))).runs.values()
    folder = pretend(run, "running", runner={"pid": 1, "host": host})
    with (folder / ".lock").open("w") as lock:
        if alive:
            fcntl.flock(lock, fcntl.LOCK_EX)
        (one,) = status.read(series)
    expected = (
        ("running", None, "") if alive else ("interrupted", 1.5, f"(pid 1 on {host}) is gone")
    )
    assert (one.state, one.seconds) == expected[:2] and one.reason.endswith(expected[2])
