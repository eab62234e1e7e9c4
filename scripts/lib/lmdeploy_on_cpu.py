"""Lets LMDeploy's PyTorch engine run on a machine without a GPU, for trying sweepd on it.

LMDeploy knows no CPU. Its command line, server, engine process, scheduler,
paged KV cache and sampler are used as they are; what is replaced is the device
below them: `torch.cuda` is answered by CPU tensors, and the attention kernels
by torch's own attention. Speeds measured so say nothing about LMDeploy.

A .pth file of the environment imports this module at every start; it does
nothing unless LMDEPLOY_ON_CPU=1. Further variables: LMDEPLOY_CPU_MEMORY_MIB
(memory of the pretended GPU, of which the KV cache is really allocated; 256),
LMDEPLOY_CPU_STEP_MS (slows each step down; 0).

Written for LMDeploy 0.18.0.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import threading
import time

MEMORY = int(os.environ.get("LMDEPLOY_CPU_MEMORY_MIB", "256")) << 20
STEP_S = float(os.environ.get("LMDEPLOY_CPU_STEP_MS", "0")) / 1e3
DEVICE_NAME = "CPU in place of a GPU"


# --- hooks: something is done before or after a module is executed ------------


class Hooks(importlib.abc.MetaPathFinder):
    """Finds the hooked modules as usual, and wraps their execution."""

    def __init__(self, hooks):
        self.hooks = hooks
        self.looking_for = threading.local()

    def find_spec(self, name, path=None, target=None):
        if name not in self.hooks or getattr(self.looking_for, "name", None) == name:
            return None
        self.looking_for.name = name
        try:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
        finally:
            self.looking_for.name = None
        if spec is None or spec.loader is None:
            return None
        before, after = self.hooks[name]
        execute = spec.loader.exec_module

        def exec_module(module):
            if before:
                before()
            execute(module)
            if after:
                after(module)

        spec.loader.exec_module = exec_module
        return spec


# --- torch.cuda, answered by CPU tensors ---------------------------------------


class Context:
    """Anything that is only entered and left: a stream, a device."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        return False


class Event:
    """Everything has happened at once: the CPU works in order."""

    def __init__(self, *_args, **_kwargs):
        self.at = 0.0

    def record(self, *_args):
        self.at = time.perf_counter()

    def query(self):
        return True

    def synchronize(self):
        pass

    def wait(self, *_args):
        pass

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


class Stream(Context):
    cuda_stream = 0
    stream_id = 0

    def query(self):
        return True

    def synchronize(self):
        pass

    def wait_stream(self, _stream):
        pass

    def wait_event(self, _event):
        pass

    def record_event(self, event=None):
        return event or Event()


def on_cpu(torch, device):
    """The CPU for whatever names a CUDA device."""
    if isinstance(device, str) and device.startswith("cuda"):
        return "cpu"
    if isinstance(device, torch.device) and device.type == "cuda":
        return torch.device("cpu")
    if isinstance(device, int) and not isinstance(device, bool):
        return "cpu"
    return device


def redirect_tensors(torch):
    """Tensors that are made on, or moved to, a CUDA device are CPU tensors."""
    import functools

    def making(function):
        @functools.wraps(function)
        def make(*args, **kwargs):
            if kwargs.get("device") is not None:
                kwargs["device"] = on_cpu(torch, kwargs["device"])
            if kwargs.get("pin_memory"):
                kwargs["pin_memory"] = False
            return function(*args, **kwargs)

        return make

    def moving(function):
        @functools.wraps(function)
        def move(self, *args, **kwargs):
            if args and isinstance(args[0], (str, torch.device, int)):
                args = (on_cpu(torch, args[0]), *args[1:])
            if kwargs.get("device") is not None:
                kwargs["device"] = on_cpu(torch, kwargs["device"])
            return function(self, *args, **kwargs)

        return move

    for name in (
        "empty zeros ones full tensor arange randn rand randint as_tensor empty_like zeros_like ones_like"
        " full_like rand_like randn_like linspace eye tril_indices triu_indices empty_strided scalar_tensor"
        " randperm logspace"
    ).split():
        setattr(torch, name, making(getattr(torch, name)))
    for name in "new_empty new_zeros new_ones new_full new_tensor".split():
        setattr(torch.Tensor, name, making(getattr(torch.Tensor, name)))
    for kind in (torch.Tensor, torch.nn.Module):
        kind.to = moving(kind.to)
        kind.cuda = lambda self, *_args, **_kwargs: self
    torch.Tensor.pin_memory = lambda self, *_args, **_kwargs: self
    torch.Tensor.record_stream = lambda self, _stream: None


def pretend_cuda(torch):
    """One device of the Ampere generation, whose memory never changes."""
    import types

    cuda = torch.cuda
    default = Stream()
    default.device = torch.device("cpu")
    properties = types.SimpleNamespace(
        name=DEVICE_NAME, major=8, minor=0, total_memory=MEMORY, multi_processor_count=1, uuid="0",
        warp_size=32, shared_memory_per_block_optin=65536, max_threads_per_multi_processor=1024,
        regs_per_multiprocessor=65536, L2_cache_size=1 << 20,
    )
    cuda.Stream, cuda.Event, cuda.stream, cuda.device = Stream, Event, Context, Context
    answers = {
        "current_stream": default, "default_stream": default, "is_available": True, "device_count": 1,
        "current_device": 0, "mem_get_info": (MEMORY, MEMORY), "memory_allocated": 0,
        "max_memory_allocated": 0, "memory_reserved": 0, "get_device_capability": (8, 0),
        "get_device_name": DEVICE_NAME, "get_device_properties": properties,
        "is_current_stream_capturing": False,
    }
    for name in (
        "set_stream set_device synchronize empty_cache ipc_collect reset_peak_memory_stats manual_seed manual_seed_all"
    ).split():
        answers[name] = None
    for name, answer in answers.items():
        setattr(cuda, name, lambda *_args, _answer=answer, **_kwargs: _answer)
    torch._C._cuda_clearCublasWorkspaces = lambda: None


def prepare_torch():
    import torch

    redirect_tensors(torch)
    pretend_cuda(torch)
    give_the_child_time()


def give_the_child_time():
    """LMDeploy ends a helper process as soon as its engine has published a port, sometimes while
    the engine still talks to the helper; the engine then dies with EOFError. On a slow machine that
    is the rule, so the helper is kept for a moment."""
    from multiprocessing import managers

    leave = managers.BaseManager.__exit__

    def leave_later(self, *args):
        time.sleep(2)
        return leave(self, *args)

    managers.BaseManager.__exit__ = leave_later


# --- attention over the paged KV cache, in plain torch --------------------------


def attention(torch, base):
    class CpuAttention(base):
        """Writes the new keys and values into their blocks, then attends to all of the sequence."""

        def forward(self, query, key, value, k_cache, v_cache, attn_metadata, *_args, **_kwargs):
            block_size = k_cache.size(1)
            blocks = attn_metadata.block_offsets.long()
            query = query.reshape(-1, self.num_heads, self.head_size)
            key = key.reshape(-1, self.num_kv_heads, self.head_size)
            value = value.reshape(-1, self.num_kv_heads, self.v_head_size)
            out = query.new_empty(query.size(0), self.num_heads, self.v_head_size)
            begin = 0
            lengths = zip(attn_metadata.q_seqlens.tolist(), attn_metadata.kv_seqlens.tolist())
            for sequence, (new, total) in enumerate(lengths):
                end = begin + new
                place = torch.arange(total - new, total)
                block = blocks[sequence][place // block_size]
                k_cache[block, place % block_size] = key[begin:end].to(k_cache.dtype)
                v_cache[block, place % block_size] = value[begin:end].to(v_cache.dtype)
                own = blocks[sequence][: (total + block_size - 1) // block_size]
                keys = k_cache[own].flatten(0, 1)[:total].to(query.dtype)
                values = v_cache[own].flatten(0, 1)[:total].to(query.dtype)
                mask = torch.arange(total)[None, :] <= place[:, None]
                out[begin:end] = torch.nn.functional.scaled_dot_product_attention(
                    query[begin:end].transpose(0, 1)[None],
                    keys.transpose(0, 1)[None],
                    values.transpose(0, 1)[None],
                    attn_mask=mask[None, None],
                    scale=self.scale,
                    enable_gqa=True,
                )[0].transpose(0, 1)
                begin = end
            return out

    return CpuAttention


def replace_backend(selector):
    import torch
    from lmdeploy.pytorch.backends.attention import AttentionImpl, AttentionMetadata, PagedAttentionBuildSpec
    from lmdeploy.pytorch.backends.default import DefaultOpsBackend

    cpu_attention = attention(torch, AttentionImpl)

    class Metadata(AttentionMetadata):
        pass

    class CpuBackend(DefaultOpsBackend):
        @staticmethod
        def get_name():
            return "cuda"

        @classmethod
        def build_op(cls, spec, *, enable_deterministic=False):
            if isinstance(spec, PagedAttentionBuildSpec):
                return cpu_attention(
                    num_heads=spec.num_heads,
                    head_size=spec.head_dim,
                    scale=spec.scale,
                    num_kv_heads=spec.num_kv_heads,
                    v_head_size=spec.v_head_dim,
                )
            return super().build_op(spec, enable_deterministic=enable_deterministic)

        @staticmethod
        def get_attention_metadata_cls():
            return Metadata

        @classmethod
        def update_step_context(cls, step):
            if STEP_S:
                time.sleep(STEP_S)
            step.attn_metadata = Metadata(
                is_decoding=step.is_decoding,
                block_offsets=step.block_offsets,
                q_start_loc=step.q_start_loc,
                q_seqlens=step.q_seqlens,
                kv_seqlens=step.kv_seqlens,
                quant_policy=step.kv_quant_policy,
            )
            return step

        @staticmethod
        def device_count():
            return 1

        @staticmethod
        def support_ray():
            return True

    selector._get_backend = lambda: CpuBackend


def skip_kernel_check(module):
    """The check compiles a kernel for a GPU."""
    module.TritonChecker.check = lambda self: self.check_version()


if os.environ.get("LMDEPLOY_ON_CPU") == "1":
    sys.meta_path.insert(
        0,
        Hooks(
            {
                "lmdeploy": (prepare_torch, None),
                "lmdeploy.pytorch.backends.selector": (None, replace_backend),
                "lmdeploy.pytorch.check_env.triton": (None, skip_kernel_check),
            }
        ),
    )
