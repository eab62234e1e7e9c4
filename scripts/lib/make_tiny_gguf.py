"""Makes a tiny Llama of random weights: FOLDER/tiny.gguf and FOLDER/tokenizer.json.

It writes nonsense, but a server computes with it as with any other model, and
nothing has to be downloaded. The vocabulary is a byte-level BPE learned from
the docstrings of Python's own library. Both files describe the same tokenizer:
a text has as many tokens by tokenizer.json as the server counts, the BOS
token included.

The same arguments under the same Python and numpy give the same bytes.
"""

import argparse
import ast
import collections
import heapq
import json
import pathlib
import re
import sysconfig

import gguf
import numpy

BOS, EOS, PAD, TURN, END_OF_TURN = "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"
SPECIAL = [PAD, BOS, EOS, TURN, END_OF_TURN]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# How a text is cut before merging, nearly as GPT-2 does. It decides only which
# merges are learned; the tokenizers themselves cut by GPT-2's own rule.
WORD = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+")
CORPUS_CHARS = 200_000


def byte_alphabet() -> list[str]:
    """GPT-2's visible stand-in for each byte: itself, or one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    stand_ins = {byte: chr(byte) for byte in visible}
    stand_ins |= {byte: chr(0x100 + n) for n, byte in enumerate(hidden)}
    return [stand_ins[byte] for byte in range(256)]


def docstrings() -> str:
    """Text of the standard library's docstrings, up to CORPUS_CHARS."""
    texts: list[str] = []
    total = 0
    for path in sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                texts.append(text)
                total += len(text)
        if total >= CORPUS_CHARS:
            break
    if total == 0:
        raise SystemExit("error: this Python has no library sources to learn words from")
    return "\n".join(texts)[:CORPUS_CHARS]


def merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with each occurrence of the pair made one, from the left."""
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def learn_merges(text: str, count: int) -> list[tuple[str, str]]:
    """The `count` most useful merges: each time the most frequent pair, then the least."""
    alphabet = byte_alphabet()
    counted = collections.Counter(WORD.findall(text))
    words = [([alphabet[b] for b in word.encode()], n) for word, n in sorted(counted.items())]
    frequency: collections.Counter = collections.Counter()
    homes = collections.defaultdict(set)
    for home, (symbols, n) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            frequency[pair] += n
            homes[pair].add(home)
    # Entries go stale when a frequency changes; a stale one is met and dropped.
    queue = [(-n, pair) for pair, n in frequency.items()]
    heapq.heapify(queue)
    merges: list[tuple[str, str]] = []
    while queue and len(merges) < count:
        negative, best = heapq.heappop(queue)
        if frequency[best] != -negative:
            continue
        merges.append(best)
        touched = set()
        for home in homes.pop(best):
            symbols, n = words[home]
            for pair in zip(symbols, symbols[1:]):
                frequency[pair] -= n
                touched.add(pair)
            symbols = merged(symbols, best)
            for pair in zip(symbols, symbols[1:]):
                frequency[pair] += n
                homes[pair].add(home)
                touched.add(pair)
            words[home] = (symbols, n)
        for pair in touched:
            if frequency[pair] > 0:
                heapq.heappush(queue, (-frequency[pair], pair))
    return merges


def vocabulary(merges: list[tuple[str, str]]) -> list[str]:
    """Tokens in the order of their ids. Two merges may give the same token."""
    return list(dict.fromkeys([*SPECIAL, *byte_alphabet(), *(left + right for left, right in merges)]))


def stands_alone(token: str) -> bool:
    """Whether the token is text by itself: not a special one, no part of a longer character."""
    return token not in SPECIAL and all(byte_alphabet().index(char) < 0x80 for char in token)


def tokenizer_json(tokens: list[str], merges: list[tuple[str, str]]) -> dict:
    bos = tokens.index(BOS)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": tokens.index(text), "content": text, **plain} for text in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": BOS, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": BOS, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BOS: {"id": BOS, "ids": [bos], "tokens": [BOS]}},
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def describe(writer: gguf.GGUFWriter, args: argparse.Namespace, tokens: list[str]) -> None:
    writer.add_name("tiny random Llama")
    writer.add_license("CC0-1.0")
    writer.add_context_length(args.ctx)
    writer.add_embedding_length(args.hidden)
    writer.add_block_count(args.layers)
    writer.add_feed_forward_length(args.inter)
    writer.add_head_count(args.heads)
    writer.add_head_count_kv(args.kv_heads)
    writer.add_rope_dimension_count(args.hidden // args.heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], merges: list[tuple[str, str]]) -> None:
    kind = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kind.CONTROL if token in SPECIAL else kind.NORMAL for token in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_pad_token_id(tokens.index(PAD))
    writer.add_bos_token_id(tokens.index(BOS))
    writer.add_eos_token_id(tokens.index(EOS))
    writer.add_eot_token_id(tokens.index(END_OF_TURN))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_weights(writer: gguf.GGUFWriter, args: argparse.Namespace, tokens: list[str]) -> None:
    random = numpy.random.default_rng(args.seed)

    def matrix(rows: int, columns: int) -> numpy.ndarray:
        return (random.standard_normal((rows, columns), numpy.float32) * 0.2).astype(numpy.float16)

    keys = args.hidden // args.heads * args.kv_heads
    writer.add_tensor("token_embd.weight", matrix(len(tokens), args.hidden))
    output = matrix(len(tokens), args.hidden)
    # A logit of zero never wins, so each generated token is text that a server
    # sends at once: it holds back the parts of a longer character.
    output[[not stands_alone(token) for token in tokens]] = 0
    writer.add_tensor("output.weight", output)
    ones = numpy.ones(args.hidden, numpy.float32)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(args.layers):
        for name, tensor in [
            ("attn_norm", ones),
            ("attn_q", matrix(args.hidden, args.hidden)),
            ("attn_k", matrix(keys, args.hidden)),
            ("attn_v", matrix(keys, args.hidden)),
            ("attn_output", matrix(args.hidden, args.hidden)),
            ("ffn_norm", ones),
            ("ffn_gate", matrix(args.inter, args.hidden)),
            ("ffn_up", matrix(args.inter, args.hidden)),
            ("ffn_down", matrix(args.hidden, args.inter)),
        ]:
            writer.add_tensor(f"blk.{layer}.{name}.weight", tensor)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=pathlib.Path)
    for flag, default in [
        ("hidden", 64),
        ("layers", 2),
        ("heads", 4),
        ("kv-heads", 2),
        ("inter", 128),
        ("merges", 2048),
        ("ctx", 8192),
        ("seed", 0),
    ]:
        parser.add_argument(f"--{flag}", type=int, default=default, help=f"default: {default}")
    args = parser.parse_args()
    if args.hidden % args.heads or args.heads % args.kv_heads:
        parser.error("--hidden must be a multiple of --heads, and --heads of --kv-heads")
    return args


def main() -> None:
    args = arguments()
    merges = learn_merges(docstrings(), args.merges)
    tokens = vocabulary(merges)
    args.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tokenizer_json(tokens, merges), ensure_ascii=False, indent=1)
    (args.folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    writer = gguf.GGUFWriter(args.folder / "tiny.gguf", "llama")
    describe(writer, args, tokens)
    add_tokenizer(writer, tokens, merges)
    add_weights(writer, args, tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
