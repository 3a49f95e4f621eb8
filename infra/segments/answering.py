"""The kernel's requests to one FUSE mount, read one after the other and answered; see infra/segments/protocol.py."""

import errno
import os
import select
from collections.abc import Callable
from typing import TypeVar

from infra.segments.protocol import IN_HEADER, OUT_HEADER, REQUEST_BYTES, Op, init_reply

T = TypeVar("T")
Answer = Callable[[int, int, bytes], bytes | memoryview]
"""The content of the answer to an operation on a node with this body. Raises OSError for a refusal."""

_SILENT = {Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT}  # these get no answer


def answer_requests(device: int, answer: Answer, *, until: int | None = None) -> None:
    """Answer requests until the mount is taken away, or the descriptor `until` can be read or its other end is closed.

    INIT and DESTROY are answered here. Raises OSError when the kernel cannot be talked to.
    """
    buffer = bytearray(REQUEST_BYTES)
    poll = select.poll()
    poll.register(device, select.POLLIN)
    if until is not None:
        poll.register(until, select.POLLIN)
    while True:
        if any(descriptor == until for descriptor, _ in poll.poll()):
            return
        try:
            length = os.readv(device, [buffer])
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:  # the request was taken back
                continue
            if error.errno == errno.ENODEV:  # unmounted
                return
            raise
        _handle(device, answer, memoryview(buffer)[:length])


def _handle(device: int, answer: Answer, request: memoryview) -> None:
    _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
    if opcode in _SILENT:
        return
    body = bytes(request[IN_HEADER.size :])
    number: int = 0
    content: bytes | memoryview = b""
    try:
        if opcode == Op.INIT:
            content = required(init_reply(body), errno.EPROTO)
        elif opcode != Op.DESTROY:
            content = answer(opcode, node, body)
    except OSError as error:
        number = error.errno or errno.EIO
    try:
        os.writev(device, [OUT_HEADER.pack(OUT_HEADER.size + len(content), -number, unique), content])
    except OSError as error:
        if error.errno != errno.ENOENT:  # whoever asked does not wait for it any more
            raise


def required(value: T | None, number: int) -> T:
    """The value; None is refused with this errno. Raises OSError."""
    if value is None:
        raise OSError(number, os.strerror(number))
    return value
