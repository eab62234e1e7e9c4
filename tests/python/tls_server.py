"""A server of completions under TLS, by Python's own ssl module: what it puts into which record is told.

    tls_server.py CERTIFICATE KEY HOW

Prints its port, then a line of JSON for each handshake. Serves until its stdin ends.
"""

import json
import socket
import ssl
import sys
import threading

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENTS = [
    b'data: {"choices":[{"text":" w%d","finish_reason":null}]}\n\n' % n for n in range(3)
] + [
    b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3}}\n\n',
]
DONE = b"data: [DONE]\n\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


# The answer in the parts in which it is sent: one record each.
CHUNKED = [HEAD + b"Transfer-Encoding: chunked\r\n\r\n"]
CHUNKED += [chunk(event) for event in [*EVENTS, DONE]] + [b"0\r\n\r\n"]
WHOLE = b"".join(CHUNKED)
OPEN = b"".join([HEAD, b"Connection: close\r\n\r\n", *EVENTS])
PARTS = {
    "record-per-event": CHUNKED,
    "all-in-one-record": [WHOLE],
    "events-over-records": [part for event in CHUNKED for part in (event[:7], event[7:]) if part],
    "a-byte-a-record": [WHOLE[n : n + 1] for n in range(len(WHOLE))],
    "cut": [WHOLE[: len(WHOLE) // 2]],
    "without-goodbye": [OPEN],
    "with-goodbye": [OPEN],
    "one-answer": [WHOLE],
}
# After one answer the connection ends: with TLS's goodbye, or without.
ENDS = {"cut": False, "without-goodbye": False, "with-goodbye": True, "one-answer": True}


def requests(stream):
    while True:
        length = 0
        while True:
            line = stream.readline()
            if not line:
                return
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            if line == b"\r\n":
                break
        stream.read(length)
        yield


def serve(raw, context, how):
    if how == "close":
        raw.close()
        return
    if how == "silence":
        raw.recv(1 << 16)
        while raw.recv(1 << 16):
            pass
        return
    if how == "no-tls":
        raw.recv(1 << 16)
        raw.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        raw.close()
        return
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        peer = context.wrap_socket(raw, server_side=True)
    except (ssl.SSLError, OSError) as error:
        say({"failed": str(error)})
        return
    say({"alpn": peer.selected_alpn_protocol(), "version": peer.version(), "sni": peer.context.seen})
    for _ in requests(peer.makefile("rb")):
        for part in PARTS[how]:
            peer.sendall(part)
        if how in ENDS:
            if ENDS[how]:
                peer.unwrap()
            # The descriptor alone: no word of TLS.
            socket.socket(fileno=peer.detach()).close()
            return


lock = threading.Lock()


def say(line):
    with lock:
        print(json.dumps(line), flush=True)


def main():
    certificate, key, how = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.seen = None

    def named(_, name, context):
        context.seen = name

    context.sni_callback = named
    if how == "tls-1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        how = "record-per-event"
    listener = socket.create_server(("127.0.0.1", 0))
    say({"port": listener.getsockname()[1]})

    def accept():
        while True:
            raw, _ = listener.accept()
            threading.Thread(target=serve, args=(raw, context, how), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


main()
