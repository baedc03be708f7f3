"""Kept sequences: reuse changes no token, budgets hold, bad files are ignored."""

from __future__ import annotations

import gc
import os
import time
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_generate import GREEDY, PROMPT, by_hand, ids_of

from glm_rag.engine.fingerprint import fingerprint
from glm_rag.engine.prefix_index import PrefixIndex, id_key
from glm_rag.errors import GenerationError
from glm_rag.types import CacheLimits, SamplingParams
from tiny_checkpoints import tiny_engine

MB = 10**6
LONG = [(9 * i + i // 50) % 250 for i in range(300)]
ONE = SamplingParams(max_tokens=1, temperature=0)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cache"
    path.mkdir()
    return path


def engine_of(folder=None, memory=100 * MB, disk=100 * MB, kv_dtype=None, **options):
    """An engine that keeps sequences; one with the same folder stands for another process."""
    engine = tiny_engine(**options)
    engine.model.kv_dtype = kv_dtype
    engine.keep_sequences(CacheLimits(memory, disk, folder))
    return engine


def ask(engine, prompt, params=GREEDY):
    deltas = list(engine.generate(prompt, params))
    return ids_of(deltas), deltas[-1].usage.cached_tokens


def files(folder):
    return sorted(folder.glob("*/*"))


# ---------------------------------------------------------------- exactness


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", ["memory", "files"])
def test_a_prompt_that_begins_like_a_kept_one_gets_the_tokens_of_a_cold_run(dtype, where, folder):
    asked = engine_of(folder, dtype=dtype)
    ask(asked, LONG)
    if where == "files":
        asked = engine_of(folder, dtype=dtype)
    for shared in (299, 200, 150, 1):
        prompt = [*LONG[:shared], *b"another end"]
        expected, _ = ask(tiny_engine(dtype=dtype), prompt)
        found, cached = ask(asked, prompt)
        assert found == expected
        assert cached >= shared


def test_in_8_bit_reuse_gives_the_tokens_of_a_cold_8_bit_run(folder):
    ask(engine_of(folder, kv_dtype=torch.int8), LONG)
    prompt = [*LONG[:250], *b"another end"]
    cold = engine_of(kv_dtype=torch.int8)
    assert ask(engine_of(folder, kv_dtype=torch.int8), prompt) == (ask(cold, prompt)[0], 250)


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=2, max_size=5))
def test_any_order_of_prompts_is_exact_in_any_budget(prompts):
    params = SamplingParams(max_tokens=3, temperature=0)
    for memory in (0, 5000, 100 * MB):
        _SHARED.keep_sequences(None)
        _SHARED.keep_sequences(CacheLimits(memory))
        for prompt in prompts:
            assert ask(_SHARED, prompt, params)[0] == by_hand(_SHARED, prompt, 3)
            assert _SHARED.store.num_bytes <= memory


_SHARED = tiny_engine()


def test_the_longest_common_beginning_is_found_among_many():
    index: PrefixIndex[int] = PrefixIndex()
    source = torch.Generator().manual_seed(0)
    kept = torch.randint(0, 3, (200, 12), generator=source).tolist()
    for number, ids in enumerate(kept):
        index.put(id_key(ids), number)
    for wanted in torch.randint(0, 3, (100, 14), generator=source).tolist():
        expected = max(_common(wanted, ids) for ids in kept)
        length, entry = index.longest(id_key(wanted))
        assert length == expected
        assert _common(wanted, kept[index.get(entry)]) == expected


def _common(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def test_a_follow_up_computes_its_own_tokens_alone(folder):
    engine = engine_of(folder)
    answer, _ = ask(engine, LONG)
    follow_up = [*LONG, *answer, *b"and then?"]
    found, cached = ask(engine, follow_up)
    assert cached == len(LONG) + len(answer) - 1  # the last token was sampled, not read
    assert found == ask(tiny_engine(), follow_up)[0]


# ---------------------------------------------------------------- memory


def test_ten_turns_stay_within_the_budget_and_count_what_is_kept():
    engine = engine_of(memory=60_000)
    prompt = list(PROMPT)
    for _ in range(10):
        answer, _ = ask(engine, prompt)
        prompt = [*prompt, *answer, *b"go on"]
        kept = list(engine.store._kept.items())
        assert engine.store.num_bytes == sum(cache.num_bytes for _, cache in kept) <= 60_000
        assert all(cache.capacity == cache.length for _, cache in kept)


def test_a_longer_sequence_takes_the_place_of_its_beginning():
    engine = engine_of()
    answer, _ = ask(engine, PROMPT)
    ask(engine, [*PROMPT, *answer, 1, 2])
    assert len(engine.store) == 1
    ask(engine, PROMPT[:20], ONE)
    assert len(engine.store) == 1


def test_the_least_recently_used_goes_first():
    one, two, three = ([i] * 100 for i in (1, 2, 3))
    size = tiny_engine().new_cache().bytes_per_column * 100
    engine = engine_of(memory=2 * size + size // 2)
    for prompt in (one, two, one, three):
        ask(engine, prompt, ONE)
    assert ask(engine, [*one, 9], ONE)[1] == 100
    assert ask(engine, [*two, 9], ONE)[1] == 0


def test_serving_a_part_of_a_sequence_is_using_it():
    one, two, three = ([i] * 100 for i in (1, 2, 3))
    part = [*one[:10], *b"else"]
    size = tiny_engine().new_cache().bytes_per_column * 100
    engine = engine_of(memory=2 * size + size // 2)
    for prompt in (one, two, part, three):
        ask(engine, prompt, ONE)
    assert ask(engine, [*one, 9], ONE)[1] == 100


def test_breaking_off_keeps_what_was_computed_within_the_budget_and_frees_the_rest(monkeypatch):
    from glm_rag.engine.cache import KVCache

    made = []
    for name in ("__init__", "fork"):
        original = getattr(KVCache, name)

        def remember(self, *args, _original=original, **kwargs):
            result = _original(self, *args, **kwargs)
            made.append(weakref.ref(self if result is None else result))
            return result

        monkeypatch.setattr(KVCache, name, remember)
    for memory, alive in ((0, 0), (MB, 1)):
        engine = engine_of(memory=memory)
        stream = engine.generate(PROMPT, GREEDY)
        next(stream)
        stream.close()
        gc.collect()
        assert sum(ref() is not None for ref in made) == len(engine.store) == alive
        assert engine.store.num_bytes <= memory
        made.clear()


def test_after_breaking_off_the_same_prompt_goes_on(folder):
    engine = engine_of(folder)
    stream = engine.generate(LONG, GREEDY)
    for _ in range(3):
        next(stream)
    stream.close()
    assert ask(engine, LONG) == (ask(tiny_engine(), LONG)[0], len(LONG) - 1)
    assert files(folder)


def test_what_a_broken_computation_left_is_not_kept(folder):
    engine = engine_of(folder)
    weight = engine.model.encoder.final_layernorm.weight
    whole = weight.clone()
    with torch.no_grad():
        weight[0] = float("nan")
    with pytest.raises(GenerationError):
        ask(engine, LONG)
    with torch.no_grad():
        weight.copy_(whole)
    assert len(engine.store) == 0
    assert files(folder) == []


def test_other_limits_forget_and_none_keeps_nothing():
    engine = engine_of()
    ask(engine, PROMPT)
    store = engine.store
    engine.keep_sequences(store.limits)
    assert engine.store is store
    engine.keep_sequences(None)
    assert ask(engine, PROMPT)[1] == 0
    assert ask(engine, PROMPT)[1] == 0


# ---------------------------------------------------------------- files


def test_short_sequences_and_those_mostly_held_are_not_written(folder):
    engine = engine_of(folder)
    ask(engine, PROMPT)
    assert files(folder) == []
    ask(engine, LONG)
    (path,) = files(folder)
    ask(engine, [*LONG[:290], 1, 2, 3])
    assert files(folder) == [path]


def test_another_model_dtype_rotary_rule_or_cache_type_never_gets_the_file(folder):
    ask(engine_of(folder), LONG)
    others = [
        {"seed": 1},
        {"dtype": torch.bfloat16},
        {"kv_dtype": torch.int8},
        {"rope_ratio": 2.0},
        {"seq_length": 2048},
    ]
    assert ask(engine_of(folder), LONG)[1] == len(LONG) - 1
    for other in others:
        assert ask(engine_of(folder, **other), LONG)[1] == 0
    assert len(files(folder)) == 1 + len(others)


def test_one_changed_prefix_value_gives_another_fingerprint():
    engine = tiny_engine()
    engine.model.prefix = torch.zeros(2, 2, 2, 5, 16)
    before = fingerprint(engine.model)
    assert fingerprint(engine.model) == before
    engine.model.prefix[1, 1, 1, 4, 15] = 1
    assert fingerprint(engine.model) != before


@pytest.mark.parametrize("damage", ["bit", "header", "cut", "empty", "text"])
def test_a_damaged_file_is_ignored_removed_and_replaced(folder, damage):
    ask(engine_of(folder), LONG)
    (path,) = files(folder)
    whole = path.read_bytes()
    bad = {
        "bit": whole[:-5] + bytes([whole[-5] ^ 64]) + whole[-4:],
        "header": whole[:40] + b"\xff" + whole[41:],
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"hello",
    }[damage]
    path.write_bytes(bad)
    engine = engine_of(folder)
    assert ask(engine, LONG) == (ask(tiny_engine(), LONG)[0], 0)
    assert files(folder) == [path]
    assert ask(engine_of(folder), LONG)[1] == len(LONG) - 1


def test_a_file_of_another_model_in_this_ones_folder_is_removed(folder):
    ask(engine_of(folder, seed=1), LONG)
    (foreign,) = files(folder)
    engine = engine_of(folder)
    engine.store.files.folder.mkdir()
    moved = engine.store.files.folder / foreign.name
    foreign.rename(moved)
    assert ask(engine, PROMPT, ONE)[1] == 0
    assert not moved.exists()


def test_a_file_that_another_process_writes_or_removes_is_noticed(folder):
    one, two = engine_of(folder, memory=0), engine_of(folder, memory=0)
    one.store.files.folder.mkdir()
    os.utime(one.store.files.folder, (1, 1))  # so long ago that the folder counts as read
    assert ask(one, PROMPT)[1] == 0
    ask(two, LONG)
    assert ask(one, LONG)[1] == len(LONG) - 1
    for path in files(folder):
        path.unlink()
    assert ask(one, LONG) == (ask(tiny_engine(), LONG)[0], 0)


def test_the_folder_stays_within_its_budget_over_all_models_and_pinned_files_go_last(folder):
    size = tiny_engine().new_cache().bytes_per_column * 300
    engine = engine_of(folder, disk=int(3.2 * size))
    pinned = engine.read([9, *LONG[1:]])
    engine.store.files.save(pinned, pinned=True)
    for path in files(folder):
        os.utime(path, (1, 1))
    ask(engine_of(folder, disk=int(3.2 * size), seed=1), LONG)
    for start in range(1, 6):
        ask(engine, [start, *LONG[1:]], ONE)
        assert engine.store.files.num_bytes() <= 3.2 * size
    names = [path.name for path in files(folder)]
    assert sum(name.startswith("w-") for name in names) == 1
    assert len(names) in (2, 3)


def test_a_folder_that_cannot_be_written_costs_the_reuse_only(folder):
    (folder / "file").write_text("")
    engine = engine_of(folder / "file" / "cache")
    assert ask(engine, LONG)[0] == ask(tiny_engine(), LONG)[0]


def test_what_a_killed_writer_left_is_removed_in_time(folder):
    engine = engine_of(folder)
    own = engine.store.files.folder
    own.mkdir()
    old, new = own / ".partial-old", own / ".partial-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    ask(engine, LONG)
    assert (old.exists(), new.exists()) == (False, True)
    assert ask(engine_of(folder), LONG)[1] == len(LONG) - 1
