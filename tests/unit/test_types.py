"""Values that cross borders: bounds and identities."""

import pytest

from glm_rag.errors import ConfigError
from glm_rag.types import Chunk, SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("repetition_penalty", 0.0),
        ("stop", ("",)),
    ],
)
def test_sampling_parameters_out_of_bounds_are_refused(field, value):
    with pytest.raises(ConfigError, match=field.split("_")[0]):
        SamplingParams(**{field: value})


def test_chunk_ids_depend_on_source_place_and_content_alone():
    chunk = Chunk(start=3, end=6, text="abc", page=1, headings=("A",))
    same = Chunk(start=3, end=6, text="abc")
    assert chunk.id_for("file:///a") == same.id_for("file:///a")
    others = {
        chunk.id_for("file:///b"),
        Chunk(start=4, end=7, text="abc").id_for("file:///a"),
        Chunk(start=3, end=6, text="abd").id_for("file:///a"),
    }
    assert chunk.id_for("file:///a") not in others
    assert len(others) == 3
