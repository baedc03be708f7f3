"""Put on PYTHONPATH by the fault tests: `.evil` files are read by a parser that does what they say.

Python imports this at start, so the reading processes know the format.
"""

import os
import signal
import socket
import stat
import struct
import sys
import time
from types import ModuleType


def socket_descriptor():
    """The descriptor of the connection to the run, as a bad parser might stumble upon it."""
    for number in range(3, 4096):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return number
        except OSError:
            continue
    raise AssertionError("no socket")


def fork_a_sleeper():
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    return pid


def hang():
    time.sleep(600)


def spin():
    while True:
        pass


def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def leave():
    os._exit(3)


def eat():
    held = []
    while True:
        held.append(bytearray(1 << 24))


def fork_and_crash():
    fork_a_sleeper()
    segfault()


def fork_and_go_on():
    return f"sleeper {fork_a_sleeper()}"


def write_to_stdout():
    os.write(1, b"garbage" * 1000)
    os.write(2, b"garbage" * 1000)
    print("garbage", file=sys.__stdout__)
    return "wrote"


def hang_up():
    os.closerange(3, 4096)
    return "closed"


def send_half():
    os.write(socket_descriptor(), struct.pack("!Q", 1000) + b"half")
    time.sleep(600)


def send_garbage():
    with socket.socket(fileno=os.dup(socket_descriptor())) as end:
        end.sendall(struct.pack("!Q", 9) + b"not json!")
    return "sent"


ACTS = {
    name: act
    for name, act in globals().items()
    if callable(act) and getattr(act, "__module__", "") == __name__
}


def extract(data):
    from glm_rag_ingest.loaders.base import Extracted

    said = ACTS[data.decode().strip()]()
    return Extracted(said or "It went on.")


def register():
    from glm_rag_ingest.loaders import factory

    module = ModuleType("glm_rag_ingest.loaders.evil")
    module.VERSION, module.MEDIA_TYPE, module.extract = "evil/1", "text/plain", extract
    sys.modules[module.__name__] = module
    factory.BY_SUFFIX[".evil"] = "evil"


register()
