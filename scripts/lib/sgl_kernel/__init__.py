"""Stands in for SGLang's package of CUDA kernels, which cannot be imported without a driver.

On a CPU every operation that SGLang needs has a way through plain torch; the
kernels are imported and never called. One that is called says so.
"""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*_args, **_kwargs):
        raise NotImplementedError(f"{name} is a CUDA kernel, and this set-up has none")

    kernel.__name__ = name
    return kernel
