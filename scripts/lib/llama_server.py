"""llama.cpp's own HTTP server, with the command line of its `llama-server`.

The prebuilt wheel `xllamacpp` has the server but no program that starts it.
This one takes a part of llama-server's flags under their own names, and sets
nothing that was not asked for, so llama.cpp's defaults hold. It never looks
beyond the model file it is given.

Exit codes: 0 stopped by SIGTERM or SIGINT after loading, 1 the server could
not start, 2 a bad command line. A signal while the model loads ends the
process by that signal, as it does llama-server itself.
"""

import argparse
import os
import signal
import sys
from typing import NoReturn


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llama-server",
        description="llama.cpp's HTTP server, from the wheel xllamacpp.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("-m", "--model", metavar="FILE", help="the model, a GGUF file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument("--alias", metavar="NAME", help="the model's name in the API (default: the model's path)")
    parser.add_argument("-c", "--ctx-size", type=int, metavar="N", help="context in tokens, shared by all slots (default: the model's)")
    parser.add_argument("-np", "--parallel", type=int, metavar="N", help="slots: requests decoded together (default: 1)")
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads that compute (default: one a core)")
    parser.add_argument("-tb", "--threads-batch", type=int, metavar="N", help="threads that read prompts (default: as --threads)")
    parser.add_argument("-b", "--batch-size", type=int, metavar="N", help="logical batch in tokens (default: 2048)")
    parser.add_argument("-ub", "--ubatch-size", type=int, metavar="N", help="physical batch in tokens (default: 512)")
    parser.add_argument("--metrics", action="store_true", help="serve Prometheus metrics under /metrics")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


def arguments() -> argparse.Namespace:
    """The command line, or the end in llama-server's own words: one rule finds both in a log."""
    try:
        args, unknown = command_line().parse_known_args()
    except argparse.ArgumentError as error:
        refuse(f'error while handling argument "{error.argument_name}": {error.message}')
    if unknown:
        refuse(f"error: invalid argument: {unknown[0]}")
    if not args.version and not args.model:
        refuse("error: --model is required")
    return args


def parameters(xllamacpp, args: argparse.Namespace):
    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.hostnames = [args.host]
    params.port = args.port
    params.endpoint_metrics = args.metrics
    if args.alias is not None:
        params.model_alias = {args.alias}
    for name, value in [
        ("n_ctx", args.ctx_size),
        ("n_parallel", args.parallel),
        ("n_batch", args.batch_size),
        ("n_ubatch", args.ubatch_size),
    ]:
        if value is not None:
            setattr(params, name, value)
    if args.threads is not None:
        params.cpuparams.n_threads = args.threads
    batch_threads = args.threads_batch if args.threads_batch is not None else args.threads
    if batch_threads is not None:
        params.cpuparams_batch.n_threads = batch_threads
    return params


def wait_for_stop(read_end: int) -> None:
    """Returns once a signal has come, whichever thread the kernel gave it to."""
    while not os.read(read_end, 1):
        pass


def main() -> None:
    args = arguments()
    # Constructing the server blocks in C++ until the model is loaded, and
    # Python would not run a handler before that: leave these to the kernel.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    import xllamacpp  # not before the flags are known to be good: it takes a while

    if args.version:
        print(f"version: {xllamacpp.__version__} (xllamacpp)")
        return

    try:
        server = xllamacpp.Server(parameters(xllamacpp, args))
    except Exception as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    print(f"llama-server: ready on {server.listening_address}", flush=True)
    wait_for_stop(read_end)
    # The server's destructor can wait for ever when it is stopped just after
    # its start, so it must not run.
    os._exit(0)


if __name__ == "__main__":
    main()
