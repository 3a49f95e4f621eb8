"""A signal ends the call wherever it meets it, and cuts nothing short that must not be."""

import sys
from textwrap import dedent

import pytest

from infra.process import run

pytestmark = pytest.mark.integration

PRELUDE = """
    import logging, os, signal, sys, threading, time
    from deployments.cli.signals import Terminated, heed_signals, signal_arrived
    from infra.process import HeldSignals, run

    def sound():
        return True

    def until(moment):
        while time.monotonic() < moment:
            yield

    def after(seconds, *numbers):
        def send():
            for number in numbers:
                time.sleep(seconds)
                os.kill(os.getpid(), number)
        threading.Thread(target=send, daemon=True).start()
"""
ATTEMPTS = """
    def attempt(delay):
        began = time.monotonic()
        try:
            heed_signals()
            after(delay, signal.SIGTERM)
            work(began + 0.03)
            time.sleep(10)
        except Terminated:
            signal_arrived()
            return time.monotonic() - began < 5 and sound()
        return False

    bad = 0
    for number in range({count}):
        if (child := os.fork()) == 0:
            os._exit(not attempt(0.001 + number % 20 / 1000))
        bad += os.waitpid(child, 0)[1] != 0
    print(bad)
"""
PLACES = {
    "finaliser": """
        class Finalised:
            def __del__(self):
                for _ in range(200): pass
        def work(end):
            for _ in until(end): Finalised()
    """,
    "hook around fork": """
        def hook():
            for _ in range(200): pass
        os.register_at_fork(before=hook, after_in_parent=hook)
        def work(end):
            for _ in until(end): run(["true"], timeout=10)
    """,
    "fork by others": """
        def hook():
            for _ in range(20000): pass
        os.register_at_fork(before=hook, after_in_parent=hook)
        def work(end):
            for _ in until(end):
                if (pid := os.fork()) == 0: os._exit(0)
                os.waitpid(pid, 0)
    """,
    "library that drops it": """
        def work(end):
            for _ in until(end):
                try:
                    for _ in range(2000): pass
                except BaseException: pass
    """,
    "error that takes its place": """
        def work(end):
            try:
                try:
                    for _ in until(end): pass
                finally:
                    raise ValueError
            except ValueError: pass
    """,
}  # fmt: skip


def _python(*parts: str, timeout: float = 60) -> list[str]:
    """Run these pieces of a program; return the words that it prints."""
    done = run([sys.executable, "-c", "".join(map(dedent, parts))], timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("place", PLACES)
def test_no_signal_is_lost(place: str) -> None:
    """A signal at any moment ends the call soon, also where Python or a library drops what its handler raises."""
    count = 3 if place in {"library that drops it", "error that takes its place"} else 15  # half a second each
    assert _python(PRELUDE, PLACES[place], ATTEMPTS.format(count=count)) == ["0"]


def test_no_lock_of_logging_is_left_held() -> None:
    """A signal in the middle of a log call leaves the handler to the other threads, that log while the VM goes back."""
    work = """
        class Slow(logging.Handler):
            def acquire(self):
                super().acquire()
                for _ in range(2000): pass
            def emit(self, record): pass
        slow = Slow()
        logging.getLogger("x").addHandler(slow)
        def work(end):
            for _ in until(end): logging.getLogger("x").error("x")
        def sound():
            taken = []
            def take():
                taken.append(slow.lock.acquire(timeout=5))
                slow.lock.release()
            other = threading.Thread(target=take); other.start(); other.join()
            return taken == [True]
    """
    assert _python(PRELUDE, work, ATTEMPTS.format(count=10)) == ["0"]


def test_what_tidies_up_is_not_cut_short() -> None:
    """After the first signal neither the same nor another one interrupts what runs in `finally`, however long."""
    program = """
        heed_signals()
        after(0.1, signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        try:
            try: time.sleep(10)
            finally:
                try: raise OSError  # an error of its own on the way changes nothing
                except OSError: time.sleep(1.2)
                print("tidied")
        except Terminated as ending: print(ending.signal.name)
    """
    assert _python(PRELUDE, program) == ["tidied", "SIGTERM"]


@pytest.mark.parametrize("owner", ["heed_signals()", "signal.signal(signal.SIGTERM, theirs)"])
def test_held_signals_come_afterwards(owner: str) -> None:
    """Signals in a held block change nothing in it, whoever has the handler; the first is raised at the end."""
    program = f"""
        class Theirs(BaseException): pass
        def theirs(*_): raise Theirs
        {owner}
        after(0.1, signal.SIGTERM, signal.SIGTERM)
        try:
            with HeldSignals():
                for _ in until(time.monotonic() + 0.5): pass
                run(["true"], timeout=10)  # holds and releases on its own
                print("whole")
            time.sleep(10)
            print("lost")
        except (Terminated, Theirs): print("ended")
        print(signal.getsignal(signal.SIGTERM).__name__.strip("_"))
    """
    handler = "handle" if "heed" in owner else "theirs"
    assert _python(PRELUDE, program) == ["whole", "ended", handler]


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup SIGHUP is ignored, and stays so while it is held and afterwards."""
    program = """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        heed_signals()
        with HeldSignals(): os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
    """
    assert _python(PRELUDE, program) == ["True"]
