"""A program that is talked to in lines, over pipes: it may hang, die or flood, and always ends."""
import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
import weakref
from collections import deque

#: Seconds that a program has to leave once it is told to, and then once it is terminated.
PATIENCE = (2, 1)

_KILL = getattr(signal, 'SIGKILL', signal.SIGTERM)   # Windows has the one only
_LINE = 1 << 16      # characters of the longest line that is read; a longer one comes in pieces


class Program:
    """A running program.

    Threads of its own read what it says, so that it never waits for us, nor we for it beyond a
    deadline. One that is forgotten is closed when it is collected or this process ends.

    Args:
        command: the program and its arguments, a list.
        cwd: the folder that it runs in.
        farewell: what it is told to end.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command, cwd=None, farewell=''):
        self._process = subprocess.Popen(
            command, cwd=cwd, text=True, encoding='utf-8', errors='replace',
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)   # so that what it starts ends with it, and Ctrl-C is ours
        # Bounded: a flood stays in the pipe and stops its source.
        self._lines, self._errors = queue.Queue(1000), deque(maxlen=20)
        threads = [threading.Thread(target=_read, args=args, daemon=True)
                   for args in ((self._process.stdout, self._lines.put),
                                (self._process.stderr, self._errors.append))]
        for thread in threads:
            thread.start()
        self._stop = weakref.finalize(self, _stop, self._process, threads, self._lines, farewell)

    def write(self, line):
        """Sends a line of at most 4096 characters, which a pipe takes without blocking."""
        with contextlib.suppress(OSError):   # it has ended: reading will tell
            self._process.stdin.write(line + '\n')
            self._process.stdin.flush()

    def read(self, deadline):
        """The next line that it says, '' at the end of all; TimeoutError at ``deadline``, a time of
        ``time.monotonic()``."""
        if (left := deadline - time.monotonic()) < 0:
            raise TimeoutError
        try:
            line = self._lines.get(timeout=left)
        except queue.Empty:
            raise TimeoutError from None
        if line == '':
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)   # for its exit status
        return line

    def unread(self):
        """The first line that it has said and nobody read, other than empty ones; '' if none."""
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get_nowait()) != '':
                if line.strip():
                    return line
            self._lines.put('')   # the end is for who reads next
        return ''

    @property
    def status(self):
        """Its exit status, None while it runs."""
        return self._process.poll()

    @property
    def errors(self):
        """The end of its error output; call it when the program has ended."""
        return ''.join(self._errors).strip()[-1000:]

    @property
    def closed(self):
        return not self._stop.alive

    def close(self):
        """Ends it: by its farewell and the end of its input, then by request, then by force."""
        self._stop()

    def kill(self):
        """Ends it by force."""
        _signal(self._process, _KILL)
        self._stop()


def _read(stream, put):
    """Passes on a stream's lines, then ''."""
    with contextlib.suppress(OSError, ValueError), stream:
        for line in iter(lambda: stream.readline(_LINE), ''):
            put(line)
    put('')


def _stop(process, threads, lines, farewell):
    """Ends a process and whatever it started, and the threads that read from it."""
    with contextlib.suppress(OSError, ValueError):
        if farewell and process.poll() is None:
            process.stdin.write(farewell + '\n')
        process.stdin.close()
    for patience, then in zip((*PATIENCE, None), (signal.SIGTERM, _KILL, None)):
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            _signal(process, then)
    _signal(process, _KILL)     # what it started and left behind
    deadline = time.monotonic() + 2
    for thread in threads:
        while thread.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                while True:     # the thread may be waiting for room
                    lines.get_nowait()
            thread.join(.02)
    with contextlib.suppress(queue.Full):
        lines.put_nowait('')    # for who may be waiting for an answer in another thread


def _signal(process, number):
    """Sends a signal to a process and to all that it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, 'killpg'):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
