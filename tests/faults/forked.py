"""Children forked from this process, which has imported everything that they need and computed nothing.

Law: a child answers with one JSON value or is found dead. One that hangs is ended by its alarm after ``LIMIT`` seconds;
nothing of it is ever waited for longer.
"""

import json
import os
import selectors
import signal
import traceback

LIMIT = 600


def each(tasks, *, jobs):
    """Run every task in a child of its own, ``jobs`` at once; yield (task, its answer, or a dict with ``died``)."""
    waiting, running = iter(tasks), {}
    with selectors.DefaultSelector() as ready:
        while True:
            while len(running) < jobs and (task := next(waiting, None)) is not None:
                pid, pipe = _start(task)
                running[pipe] = (pid, task, [])
                ready.register(pipe, selectors.EVENT_READ)
            if not running:
                return
            for key, _ in ready.select():
                pid, task, parts = running[key.fd]
                if part := os.read(key.fd, 1 << 16):
                    parts.append(part)
                    continue
                ready.unregister(key.fd)
                os.close(key.fd)
                del running[key.fd]
                _, status = os.waitpid(pid, 0)
                yield task, json.loads(b"".join(parts)) if parts else {"died": status}


def answer(task):
    """What the task returns in a child of its own."""
    ((_, found),) = each([task], jobs=1)
    return found


def start(body):
    """Fork a child that calls ``body``; its pid. It exits with the int that returns, else 0, or 1 and a traceback."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(LIMIT)
            found = body()
            code = found if isinstance(found, int) else 0
        except BaseException:  # noqa: BLE001 - the end of a child: nothing may return into the parent's code
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def end(pid):
    """Wait for the child; the signal that killed it (negative) or its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _start(task):
    reading, writing = os.pipe()

    def body():
        os.close(reading)
        try:
            found = task()
        except Exception:  # noqa: BLE001 - it is the answer
            found = {"died": traceback.format_exc()}
        with os.fdopen(writing, "w") as stream:
            json.dump(found, stream)

    pid = start(body)
    os.close(writing)
    return pid, reading
