"""Calls the service of grpc.rs through the gateway with grpcio, without generated code.

The argument is the gateway's address. The script prints the names of the checks that have passed; it waits for a line on
stdin after each cancelled call, so that the end of the process doesn't cancel the call instead.
"""

import queue
import sys

import grpc

#: Only a fault lasts longer.
TIMEOUT = 60


def text(encoded: bytes) -> str:
    return encoded.decode()


class Stub:
    """Methods of the service, whose messages are text. The first part of the path is the gateway's route."""

    def __init__(self, channel: grpc.Channel) -> None:
        def method(kind, name):
            return kind(f"/test/test.Test/{name}", str.encode, text)

        self.upper = method(channel.unary_unary, "Upper")
        self.missing = method(channel.unary_unary, "Missing")
        self.join = method(channel.stream_unary, "Join")
        self.split = method(channel.unary_stream, "Split")
        self.talk = method(channel.stream_stream, "Talk")
        self.fail = method(channel.unary_stream, "Fail")
        self.wait = method(channel.unary_stream, "Wait")


def unary(stub: Stub) -> None:
    answer, call = stub.upper.with_call("hello", timeout=TIMEOUT)
    assert answer == "HELLO", answer
    metadata = dict(call.initial_metadata())
    assert metadata["x-waypost-instance"] == "t", metadata


def client_stream(stub: Stub) -> None:
    answer = stub.join(iter(["a", "b", "c"]), timeout=TIMEOUT)
    assert answer == "a b c", answer


def server_stream(stub: Stub) -> None:
    answers = list(stub.split("d e f", timeout=TIMEOUT))
    assert answers == ["d", "e", "f"], answers


def bidirectional(stub: Stub) -> None:
    messages: queue.Queue[str | None] = queue.Queue()
    answers = stub.talk(iter(messages.get, None), timeout=TIMEOUT)
    for message in ["one", "two", "three"]:
        # Each message is sent after the answer to the one before.
        messages.put(message)
        answer = next(answers)
        assert answer == message + "!", answer
    messages.put(None)
    assert list(answers) == []


def status(stub: Stub) -> None:
    answers = stub.fail("", timeout=TIMEOUT)
    assert next(answers) == "first"
    try:
        next(answers)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert error.details() == "quota of Köln exceeded", error
    else:
        raise AssertionError("no status")
    trailers = dict(answers.trailing_metadata())
    assert trailers["x-retry-after"] == "7", trailers
    try:
        stub.missing("", timeout=TIMEOUT)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    else:
        raise AssertionError("no status")


def deadline(stub: Stub) -> None:
    answers = stub.wait("", timeout=1)
    try:
        list(answers)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    else:
        raise AssertionError("no status")


def deadline_in_the_request(stub: Stub) -> None:
    answers = stub.wait("", timeout=3600)
    seen = next(answers)
    # A number of at most 8 digits and a unit.
    assert seen[:-1].isdigit() and seen[-1] in "HMSmun", seen
    answers.cancel()


def cancellation(stub: Stub) -> None:
    answers = stub.wait("")
    assert next(answers) == ""
    answers.cancel()
    answer = stub.upper("still here", timeout=TIMEOUT)
    assert answer == "STILL HERE", answer


def main() -> None:
    # The tests talk to this machine, whatever proxy is set.
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(sys.argv[1], options) as channel:
        stub = Stub(channel)
        cancelled = [deadline_in_the_request, cancellation]
        for check in [unary, client_stream, server_stream, bidirectional, status, *cancelled, deadline]:
            check(stub)
            print(check.__name__, flush=True)
            if check in cancelled:
                sys.stdin.readline()


if __name__ == "__main__":
    main()
