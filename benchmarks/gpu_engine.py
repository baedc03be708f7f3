"""How fast is the engine on a GPU, beside transformers' implementation of the same network?

    python benchmarks/gpu_engine.py [--turns N] [--shape tiny] [--device cuda] [--passes]

ChatGLM2-6B's shape with random weights, made on the device: 16 GB of it are needed per 16-bit
model, about 45 GB for all at once. transformers' `GlmForCausalLM` in bfloat16 with its own KV cache
(`DynamicCache`) is what a user would run otherwise. All models are in memory; every figure is the
median of some turns, in which the models take their turns one after another. *Decode*: greedy, one
sequence, behind a KV cache of random values; each token's id is read back before the next one.
*Answers*: the same through `Engine.generate` (sampling on the CPU, text, loop guard). *Memory*: of
the weights, and how far a prompt of the whole window raises the peak above them. *New lengths*:
run once, without warming up: a library may plan its attention anew for every length it meets.
`--passes` measures only what passes of several rows cost.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from support.random_models import SHAPES, Shape, byte_tokenizer
from support.record import RESULTS, print_table, progress, save

from glm_rag.engine.chatml_tokenizer import ChatMLTokenizer
from glm_rag.engine.config import ModelConfig, Quantization
from glm_rag.engine.decode_graph import ROW_COUNTS, attach_graphs
from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import decode, prefill
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.weights import attach_kernels, attach_tables
from glm_rag.models.bench import filled_cache
from glm_rag.types import SamplingParams

ROOM = 64  # left of the window for the answer
DECODE_TOKENS = 24
BATCH = 8
VARIANTS: dict[str, tuple[torch.dtype, Quantization | None, torch.dtype | None]] = {
    "bfloat16": (torch.bfloat16, None, None),
    "int8, group 128": (torch.bfloat16, Quantization(8, 128), None),
    "int4, group 32": (torch.bfloat16, Quantization(4, 32), None),
    "int4, group 32, int8 KV": (torch.bfloat16, Quantization(4, 32), torch.int8),
}
REFERENCE = "transformers, bfloat16"


@dataclass(frozen=True, slots=True)
class Subject:
    """One implementation: functions that run once and return seconds.

    Attributes:
        read: seconds of a prompt of so many tokens, to the logits of its last one.
        write: median seconds per token behind so many others.
        write_batch: seconds per step of 8 sequences behind so many tokens each.
        answer: seconds per token of a whole answer; None where there is no such thing.
    """

    name: str
    weight_bytes: int
    read: Callable[[int], float]
    write: Callable[[int], float]
    write_batch: Callable[[int], float]
    answer: Callable[[int], float] | None = None


def config_of(shape: Shape, quantization: Quantization | None) -> ModelConfig:
    return ModelConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        ffn_hidden_size=shape.ffn,
        kv_channels=shape.head_dim,
        num_attention_heads=shape.heads,
        num_kv_groups=shape.kv_groups,
        padded_vocab_size=shape.vocab,
        seq_length=shape.window,
        rope_ratio=16.0,
        quantization=quantization,
        name="random",
    )


@torch.inference_mode()
def random_engine(
    config: ModelConfig, dtype: torch.dtype, kv_dtype: torch.dtype | None, device: str
) -> Engine:
    """A model of random weights, made where it runs."""
    source = torch.Generator(device).manual_seed(0)
    with torch.device("meta"):
        model = ChatGLM2Model(config)
    state = {}
    for name, empty in model.state_dict().items():
        if empty.dtype == torch.uint8:
            value = torch.randint(0, 256, empty.shape, generator=source, dtype=torch.uint8,
                                  device=device)  # fmt: skip
        elif name.endswith(".scales"):
            bits = 8 if config.quantization.bits == 8 or "layers" not in name else 4
            value = torch.full(empty.shape, 0.05 / 2**bits, dtype=torch.float16, device=device)
        elif "layernorm" in name:
            value = torch.ones(empty.shape, dtype=dtype, device=device)
        else:
            value = torch.empty(empty.shape, dtype=dtype, device=device)
            value.normal_(0, 0.02, generator=source)
        state[name] = value
    model.load_state_dict(state, assign=True)
    attach_tables(model)
    if config.quantization:
        attach_kernels(model)
    model.kv_dtype = kv_dtype
    attach_graphs(model)
    tokenizer = ChatMLTokenizer(byte_tokenizer())
    tokenizer.eos_token_ids = frozenset()  # every answer has its full length
    return Engine(config, model, tokenizer)


def timed(run: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def per_token(step: Callable[[], Any]) -> float:
    """Median seconds of a step that reads its result back; the first two warm up."""
    return statistics.median([timed(step) for _ in range(DECODE_TOKENS + 2)][2:])


def our_subject(name: str, shape: Shape, device: str) -> tuple[Subject, Engine]:
    dtype, quantization, kv_dtype = VARIANTS[name]
    before = torch.cuda.memory_allocated()
    engine = random_engine(config_of(shape, quantization), dtype, kv_dtype, device)
    if engine.model.graphs is None:
        raise SystemExit(f"{name}: no recorded steps; see the warning above")
    num_bytes = torch.cuda.memory_allocated() - before
    read, write = partial(our_read, engine), partial(our_write, engine)
    batch, answer = partial(our_batch, engine), partial(our_answer, engine)
    return Subject(f"glm-rag, {name}", num_bytes, read, write, batch, answer), engine


def our_read(engine: Engine, length: int) -> float:
    cache = engine.model.new_cache(capacity=length)
    ids = [token % 250 for token in range(length)]
    return timed(lambda: int(prefill(engine.model, ids, cache, engine.prefill_chunk).argmax()))


def our_write(engine: Engine, context: int, rows: int = 1) -> float:
    """Seconds per pass of `rows` tokens, of which the first is kept."""
    cache = filled_cache(engine, context, room=DECODE_TOKENS * rows + 64)

    def step() -> int:
        token = int(decode(engine.model, [1] * rows, cache)[0].argmax())
        cache.truncate(cache.num_tokens - rows + 1)
        return token

    return per_token(step)


def our_batch(engine: Engine, context: int) -> float:
    """Seconds per step of a whole batch, through `generate_batch`."""
    prompts = [[(token + row) % 250 for token in range(context)] for row in range(BATCH)]
    params = greedy(DECODE_TOKENS * 2)
    ticks: list[float] = []
    for number, _delta in engine.generate_batch(prompts, params):
        if number == 0:
            ticks.append(time.perf_counter())
    return statistics.median(end - start for start, end in pairwise(ticks[2:]))


def our_answer(engine: Engine, context: int) -> float:
    """Seconds per token of a streamed answer, from the first token on."""
    prompt = [token % 250 for token in range(context)]
    ticks = [time.perf_counter() for _ in engine.generate(prompt, greedy(4 * DECODE_TOKENS))]
    return (ticks[-1] - ticks[1]) / (len(ticks) - 2)


def greedy(max_tokens: int) -> SamplingParams:
    """Without drafts and the loop guard: a random model repeats itself."""
    return SamplingParams(max_tokens=max_tokens, temperature=0, speculate=False, loop_guard=False)


def reference_subject(shape: Shape, device: str) -> Subject:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import DynamicCache, GlmConfig, GlmForCausalLM

    before = torch.cuda.memory_allocated()
    config = GlmConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_groups,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.window,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        attention_bias=True,
        pad_token_id=None,
        eos_token_id=None,
        rope_parameters={
            "rope_type": "linear", "factor": 16.0,
            "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
        },
        attn_implementation="sdpa",
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = GlmForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    num_bytes = torch.cuda.memory_allocated() - before

    @torch.inference_mode()
    def forward(ids: torch.Tensor, cache: Any) -> torch.Tensor:
        return model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    def read(length: int) -> float:
        ids = (torch.arange(length, device=device) % 250).unsqueeze(0)
        return timed(lambda: int(forward(ids, DynamicCache()).argmax()))

    def write(context: int, batch: int = 1) -> float:
        cache = DynamicCache()
        size = (batch, shape.kv_groups, context, shape.head_dim)
        for layer in range(shape.layers if context else 0):
            keys, values = torch.randn(2, *size, device=device, dtype=torch.bfloat16)
            cache.update(keys, values, layer)
        ids = torch.ones(batch, 1, dtype=torch.long, device=device)
        return per_token(lambda: forward(ids, cache).argmax(-1).tolist())

    return Subject(REFERENCE, num_bytes, read, write, partial(write, batch=BATCH))


def peak(subject: Subject, length: int) -> int:
    """How far reading raises the peak of allocated memory above what is held before."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    subject.read(length)
    return torch.cuda.max_memory_allocated() - before


def in_turns(runs: dict[str, Callable[[], float]], turns: int) -> dict[str, float]:
    """Medians; A B A B, after one run of each that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            if turn == 0:
                run()
            else:
                seconds[name].append(run())
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(subjects: list[Subject], shape: Shape, turns: int) -> list[dict[str, Any]]:
    """A row of each subject."""
    whole = shape.window - ROOM
    rows: dict[str, dict[str, Any]] = {one.name: {"model": one.name} for one in subjects}

    def fill(column: str, tokens: int, chosen: Callable[[Subject], Any], *arguments: int) -> None:
        found = {one.name: partial(run, *arguments) for one in subjects if (run := chosen(one))}
        for name, seconds in in_turns(found, turns).items():
            rows[name][column] = round(tokens / seconds, 1)
        progress(f"{column}: {[row.get(column) for row in rows.values()]}")

    for length in (512, min(8192, whole // 2), whole):
        fill(f"prefill {length}", length, lambda one: one.read, length)
    for context in (8, 2048, 30000):
        length = min(context, shape.window - 2 * ROOM)
        fill(f"decode at {context}", 1, lambda one: one.write, length)
    for number, one in enumerate(subjects):  # the first answer of this length in the process
        new = 1000 + 100 * number
        rows[one.name]["prefill, new length"] = round(new / one.read(new), 1)
        rows[one.name]["decode, new lengths"] = round(1 / one.write(new), 1)
    fill("answers at 512", 1, lambda one: one.answer, 512)
    fill(f"batch of {BATCH} at 512", BATCH, lambda one: one.write_batch, 512)
    for one in subjects:
        rows[one.name]["weights, GB"] = round(one.weight_bytes / 1e9, 2)
        rows[one.name]["whole window, GB more"] = round(peak(one, whole) / 1e9, 2)
    return list(rows.values())


def pass_costs(engines: dict[str, Engine]) -> list[dict[str, Any]]:
    """What verifying drafts costs: passes of several rows in passes of one, behind 512 tokens."""
    rows = []
    for name, engine in engines.items():
        seconds = {count: our_write(engine, 512, count) for count in ROW_COUNTS}
        row: dict[str, Any] = {"model": name, "one, ms": round(1000 * seconds[1], 2)}
        rows.append(row | {f"{n} rows": round(s / seconds[1], 2) for n, s in seconds.items()})
    return rows


def without_graphs(engines: dict[str, Engine]) -> dict[str, float]:
    """Decoded tokens per second, kernel by kernel through the modules, behind 8 tokens."""
    found = {}
    for name, engine in engines.items():
        graphs, engine.model.graphs = engine.model.graphs, None
        found[name] = round(1 / our_write(engine, 8), 1)
        engine.model.graphs = graphs
    return found


def only_passes(options: argparse.Namespace) -> None:
    """Without the reference, one model after another."""
    costs = []
    for name in VARIANTS:
        _, engine = our_subject(name, SHAPES[options.shape], options.device)
        costs += pass_costs({name: engine})
        del engine
        gc.collect()
        torch.cuda.empty_cache()
    gpu = torch.cuda.get_device_properties(options.device)
    values = {"gpu": gpu.name, "cuda": torch.version.cuda, "pass_costs": costs}
    name = "gpu_engine_passes" + ("" if options.shape == "6b" else f"_{options.shape}")
    save(options.out, name, ("glm-rag", "torch", "triton"), values)
    print_table(costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=SHAPES, default="6b", help="tiny: to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--passes", action="store_true", help="only what several rows cost")
    options = parser.parse_args()
    if options.passes:
        only_passes(options)
        return
    shape = SHAPES[options.shape]
    engines, subjects = {}, []
    for name in VARIANTS:
        subject, engines[name] = our_subject(name, shape, options.device)
        subjects.append(subject)
    subjects.append(reference_subject(shape, options.device))
    rows = measure(subjects, shape, options.turns)
    costs, eager = pass_costs(engines), without_graphs(engines)
    gpu = torch.cuda.get_device_properties(options.device)
    values = {"gpu": gpu.name, "cuda": torch.version.cuda, "turns": options.turns, "rows": rows}
    values |= {"pass_costs": costs, "decode_without_graphs": eager}
    name = "gpu_engine" + ("" if options.shape == "6b" else f"_{options.shape}")
    save(options.out, name, ("glm-rag", "torch", "triton", "transformers"), values)
    print_table(rows)
    print_table(costs)
    print(eager)


if __name__ == "__main__":
    main()
