"""Makes a tiny Llama of random weights in Hugging Face's layout: FOLDER/config.json and the rest.

It writes nonsense, but an engine computes with it as with any other model, and
nothing has to be downloaded. The vocabulary is a byte-level BPE learned from
Python's own library. The same arguments under the same Python give the same
bytes. Needs numpy and tokenizers; safetensors is simple enough to be written
here: the header's length, the header as JSON, the tensors.
"""

import argparse
import json
import pathlib
import struct
import sysconfig

import numpy
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

PAD, BOS, EOS, TURN, END_OF_TURN = "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"
SPECIAL = [PAD, BOS, EOS, TURN, END_OF_TURN]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS_FILES = 120
CORPUS_FILE_BYTES = 50_000
# Random weights of this spread give an even choice among many tokens.
SPREAD = 0.2


def corpus() -> list[str]:
    """Modules of Python's library, small ones, in the order of their names."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    small = [path for path in sorted(library.glob("*.py")) if path.stat().st_size <= CORPUS_FILE_BYTES]
    return [str(path) for path in small[:CORPUS_FILES]]


def make_tokenizer(vocabulary: int) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train(corpus(), trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
    )
    return tokenizer


def make_config(shape: argparse.Namespace, tokenizer: tokenizers.Tokenizer) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": shape.context,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "initializer_range": SPREAD,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(EOS),
        "pad_token_id": tokenizer.token_to_id(PAD),
        "torch_dtype": "bfloat16",
    }


def make_weights(config: dict, seed: int) -> dict[str, numpy.ndarray]:
    random = numpy.random.default_rng(seed)
    hidden, inter, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key = config["num_key_value_heads"] * config["head_dim"]

    def matrix(rows: int, columns: int) -> numpy.ndarray:
        return (random.standard_normal((rows, columns)) * SPREAD).astype(numpy.float32)

    weights = {
        "model.embed_tokens.weight": matrix(vocabulary, hidden),
        "lm_head.weight": matrix(vocabulary, hidden),
        "model.norm.weight": numpy.ones(hidden, numpy.float32),
    }
    for layer in range(config["num_hidden_layers"]):
        for name, rows, columns in [
            ("self_attn.q_proj", query, hidden),
            ("self_attn.k_proj", key, hidden),
            ("self_attn.v_proj", key, hidden),
            ("self_attn.o_proj", hidden, query),
            ("mlp.gate_proj", inter, hidden),
            ("mlp.up_proj", inter, hidden),
            ("mlp.down_proj", hidden, inter),
        ]:
            weights[f"model.layers.{layer}.{name}.weight"] = matrix(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = numpy.ones(hidden, numpy.float32)
    return weights


def bfloat16(values: numpy.ndarray) -> bytes:
    """The upper half of a float32, rounded to the nearest even."""
    bits = values.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def write_safetensors(path: pathlib.Path, weights: dict[str, numpy.ndarray]) -> None:
    header: dict = {"__metadata__": {"format": "pt"}}
    blobs, at = [], 0
    for name in sorted(weights):
        blob = bfloat16(weights[name])
        shape = list(weights[name].shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=pathlib.Path)
    for name, default in [
        ("hidden", 128), ("layers", 2), ("heads", 4), ("kv-heads", 2), ("inter", 256),
        ("vocabulary", 2048), ("context", 8192), ("seed", 0),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    shape = parser.parse_args()
    if shape.hidden % shape.heads or shape.heads % shape.kv_heads:
        parser.error("--hidden must be a multiple of --heads, and --heads of --kv-heads")
    shape.folder.mkdir(parents=True, exist_ok=True)

    tokenizer = make_tokenizer(shape.vocabulary)
    tokenizer.save(str(shape.folder / "tokenizer.json"))
    config = make_config(shape, tokenizer)
    end_of_turn = tokenizer.token_to_id(END_OF_TURN)
    files = {
        "config.json": config,
        "generation_config.json": {
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": [config["eos_token_id"], end_of_turn],
            "pad_token_id": config["pad_token_id"],
            "do_sample": True,
            "temperature": 1.0,
            "top_p": 1.0,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
        "special_tokens_map.json": {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD},
    }
    for name, content in files.items():
        (shape.folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (shape.folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_safetensors(shape.folder / "model.safetensors", make_weights(config, shape.seed))


if __name__ == "__main__":
    main()
