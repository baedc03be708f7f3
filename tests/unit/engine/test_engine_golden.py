"""The engine computes what the published ChatGLM2-6B-32K code computes."""

from __future__ import annotations

import pytest
import torch
from golden_values import (
    GOLDEN,
    INPUT_IDS,
    RESULTS,
    TOLERANCE,
    golden_config,
    golden_tensor,
    golden_weights,
)

from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import all_logits, decode_together, prefill
from glm_rag.engine.model import RMSNorm
from glm_rag.engine.rotary import rotary_table, rotate
from glm_rag.types import SamplingParams
from tiny_checkpoints import build_model, byte_tokenizer

ROPE_TABLES = next(v for k, v in GOLDEN.items() if k.startswith("official_rope_table"))


@pytest.fixture(scope="module")
def model():
    return build_model(golden_config(), golden_weights())


def close(actual: torch.Tensor, expected: list[float]) -> None:
    wanted = torch.tensor(expected)
    torch.testing.assert_close(actual.detach(), wanted, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def run(model, ids, **options) -> torch.Tensor:
    return model.logits(model(torch.tensor([ids]), model.new_cache(), **options))


def test_weights_follow_the_stated_formula():
    for name, expected in RESULTS["first_weights"].items():
        close(golden_tensor(name, RESULTS["tensor_shapes"][name]).flatten()[:3], expected)


def test_module_names_and_shapes_are_those_of_the_checkpoint(model):
    ours = {f"transformer.{name}": list(v.shape) for name, v in model.state_dict().items()}
    assert ours == RESULTS["tensor_shapes"]


def test_logits_equal_the_published_ones(model):
    logits = all_logits(model, INPUT_IDS)
    close(logits[-1, :16], RESULTS["last_logits_first16"])
    close(logits[0, :8], RESULTS["first_pos_logits_first8"])
    assert logits.argmax(-1).tolist() == RESULTS["argmax_per_position"]
    assert logits[-1].norm().item() == pytest.approx(RESULTS["last_logits_l2"], abs=1e-3)


def test_hidden_state_after_the_first_block_equals_the_published_one(model):
    seen = []
    hook = model.encoder.layers[0].register_forward_hook(lambda *args: seen.append(args[2]))
    run(model, INPUT_IDS)
    hook.remove()
    close(seen[0][0, -1, :8], RESULTS["hidden_after_layer0_last_token_first8"])


def test_greedy_decoding_continues_with_the_published_ids(model):
    engine = Engine(golden_config(), model, _IdsOnly(model.config.padded_vocab_size))
    params = SamplingParams(max_tokens=16, temperature=0)
    ids = [i for delta in engine.generate(INPUT_IDS, params) for i in delta.token_ids]
    assert ids == RESULTS["greedy16"]


@torch.inference_mode()
def test_cache_after_decoding_has_the_published_shape(model):
    cache = model.new_cache()
    prefill(model, INPUT_IDS + RESULTS["greedy16"][:15], cache)
    length, batch, groups, head_dim = RESULTS["kv_cache_shape_per_tensor"]
    new = torch.zeros(batch, groups, 0, head_dim)
    view = cache.write(0, new, new)
    keys, values = view.keys, view.values
    assert keys.shape == values.shape == (batch, groups, length, head_dim)


@pytest.mark.parametrize("chunk", [1, 5, 7, 12])
def test_chunked_prefill_equals_one_pass(model, chunk):
    close(all_logits(model, INPUT_IDS, chunk)[-1, :16], RESULTS["last_logits_first16"])


def test_shifting_all_positions_leaves_logits_unchanged(model):
    logits = run(model, INPUT_IDS, positions=torch.arange(300, 312).unsqueeze(0))
    close(logits[0, -1, :8], RESULTS["last_logits_first8_positions_300_311"])


def test_stretched_positions_follow_the_interpolated_rule(model):
    positions = torch.arange(12).unsqueeze(0) * 37
    close(
        run(model, INPUT_IDS, positions=positions)[0, -1, :8],
        RESULTS["last_logits_first8_positions_times37"],
    )
    plain = build_model(golden_config(rope_ratio=1), golden_weights())
    close(
        run(plain, INPUT_IDS, positions=positions)[0, -1, :8],
        RESULTS["contrast_ratio1_positions_times37_first8"],
    )


@torch.inference_mode()
@pytest.mark.parametrize("read", [0, 4, 6])
def test_sequences_of_one_pass_get_the_published_logits(model, read):
    """The published values are those of a left-padded batch of the two."""
    asked = [INPUT_IDS[:7], INPUT_IDS]
    caches = [model.new_cache() for _ in asked]
    if read:
        for ids, cache in zip(asked, caches, strict=True):
            prefill(model, ids[:read], cache)
    rests = [ids[read:] for ids in asked]
    logits = decode_together(model, list(zip(rests, caches, strict=True)))
    close(logits[len(rests[0]) - 1, :8], RESULTS["left_pad_row0_last_logits_first8"])
    close(logits[-1, :16], RESULTS["last_logits_first16"])
    assert [cache.token_ids for cache in caches] == asked


@pytest.mark.parametrize("kind", ["plain", "projection"])
@pytest.mark.parametrize("chunk", [4, 512])
def test_p_tuning_prefix_gives_the_published_logits(kind, chunk):
    expected = RESULTS[f"ptuning_pre4_{kind}"]
    config = golden_config(pre_seq_len=4, prefix_projection=kind == "projection")
    tuned = build_model(config, golden_weights(expected["extra_tensors"]))
    logits = all_logits(tuned, INPUT_IDS, chunk)
    close(logits[-1, :8], expected["last_logits_first8"])
    assert logits.argmax(-1).tolist() == expected["argmax_per_position"]


def test_a_prefix_stays_in_front_when_a_cache_is_reused():
    expected = RESULTS["ptuning_pre4_plain"]
    config = golden_config(pre_seq_len=4)
    tuned = build_model(config, golden_weights(expected["extra_tensors"]))
    engine = Engine(config, tuned, _IdsOnly(config.padded_vocab_size))
    params = SamplingParams(max_tokens=8, temperature=0)
    cache = engine.new_cache()
    for _ in range(2):
        first = next(engine.generate(INPUT_IDS, params, cache=cache)).token_ids[0]
        assert first == expected["argmax_per_position"][-1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_checkpoint_table_repeats_the_published_rounding(dtype):
    config = golden_config(kv_channels=128, seq_length=32768)
    table = rotary_table(config, "checkpoint", getattr(torch, dtype))
    expected = ROPE_TABLES[dtype]
    assert list(table.shape) == expected["shape"]
    assert table.dtype == getattr(torch, dtype)
    atol = {"float32": 2e-4, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    for position, by_index in expected["samples"].items():
        for index, cos_sin in by_index.items():
            actual = table[int(position), int(index)].float()
            torch.testing.assert_close(actual, torch.tensor(cos_sin), atol=atol, rtol=0)


def test_default_table_is_exact_whatever_the_model_dtype():
    config = golden_config(kv_channels=128, seq_length=32768)
    table = rotary_table(config, "float32", torch.bfloat16)
    assert table.dtype == torch.float32
    for sample in GOLDEN["derived_rope"]["values"]:
        for column, part in enumerate(("cos", "sin")):
            for index, value in sample[part].items():
                # float32 angles near 2,048 are exact to 1.2e-4
                actual = table[sample["pos"], int(index), column].item()
                assert actual == pytest.approx(value, abs=2e-4)


def test_rotation_turns_adjacent_pairs_of_the_first_half():
    unit = RESULTS["rotary_unit"]
    config = golden_config(kv_channels=unit["head_dim"], rope_ratio=unit["rope_ratio"])
    row = rotary_table(config, "float32", torch.float32)[unit["position"]]
    turned = rotate(torch.tensor(unit["x"]).view(1, 1, 1, -1), row.view(1, 1, -1, 2))
    torch.testing.assert_close(turned.flatten(), torch.tensor(unit["y"]), atol=1e-5, rtol=0)


def test_rms_norm_equals_the_published_one():
    unit = RESULTS["rmsnorm_unit"]
    norm = RMSNorm(len(unit["w"]), 1e-5)
    norm.weight.data = torch.tensor(unit["w"])
    torch.testing.assert_close(
        norm(torch.tensor(unit["x"])), torch.tensor(unit["y"]), atol=1e-5, rtol=0
    )


class _IdsOnly:
    """A tokenizer for vocabularies without text: no id ends an answer."""

    eos_token_ids: frozenset[int] = frozenset()

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def decode(self, ids) -> str:
        return byte_tokenizer().decode(list(ids))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_checkpoint_table_of_a_scaled_base_is_only_stored_in_the_model_dtype(dtype):
    config = golden_config(
        kv_channels=128,
        seq_length=32768,
        rope_mode="scale_base",
        rope_ratio=50.0,
        rope_theta=500000.0,
    )
    exact = rotary_table(config, "float32", dtype)
    torch.testing.assert_close(rotary_table(config, "checkpoint", dtype), exact.to(dtype))
