"""Validation with stages left out, and text: which stages are visited, and what is computed with them."""

import itertools
import math

import pytest
import torch

from skippipe.config import ModelConfig
from skippipe.errors import UserError
from skippipe.model.generation import generate, stream_text
from skippipe.model.inference import all_stages, early_exit, leave_out, leave_out_at_random, validate, validation_loss
from skippipe.model.stage import Stage

VOCABULARY = 61


@pytest.fixture(scope="module")
def stages():
    config = ModelConfig(d_model=16, heads=2, context=12)
    return [Stage(config, stage, VOCABULARY, 0) for stage in range(4)]


def batches(samples=(2, 2, 1)):
    generator = torch.Generator().manual_seed(0)
    for count in samples:
        rows = torch.randint(VOCABULARY, (count, 13), generator=generator)
        yield rows[:, :-1], rows[:, 1:]


def test_choices_of_stages():
    assert all_stages(4) == (0, 1, 2, 3)
    assert leave_out(4, [2]) == (0, 1, 3)
    assert early_exit(4, 1) == (0, 1)
    assert early_exit(4, 0) == (0,)


@pytest.mark.parametrize(
    ("choose", "named"),
    [
        (lambda: leave_out(4, [0, 1]), "stage 0 can't be left out"),
        (lambda: leave_out(4, [4]), "stage 4 can't be left out: the model has stages 0 to 3"),
        (lambda: early_exit(4, 4), "no exit after stage 4"),
        (lambda: leave_out_at_random(4, 0.9, 3, 0), r"ratio 0\.9 .* at most 0\.75"),
        (lambda: leave_out_at_random(4, -0.1, 3, 0), "ratio"),
    ],
)
def test_impossible_choices_are_refused(choose, named):
    with pytest.raises(UserError, match=named):
        choose()


@pytest.mark.parametrize(
    ("stages", "ratio", "counts"),
    [(6, 0.5, {3}), (6, 0.25, {1, 2}), (4, 0.75, {3}), (4, 0.0, {0}), (6, 1 / 3, {2})],
)
def test_random_draws_leave_out_the_ratio_in_the_mean_and_never_stage_0(stages, ratio, counts):
    draws = leave_out_at_random(stages, ratio, 40, seed=1)
    omitted = [stages - len(visited) for visited in draws]
    assert set(omitted) == counts
    assert sum(omitted) / len(omitted) == pytest.approx(ratio * stages)
    assert all(visited[0] == 0 and list(visited) == sorted(visited) for visited in draws)
    assert draws == leave_out_at_random(stages, ratio, 40, seed=1)
    if 0 < ratio < 0.75:
        assert draws != leave_out_at_random(stages, ratio, 40, seed=2)


def test_loss_is_the_mean_over_tokens_whatever_the_batches(stages):
    whole = [tuple(torch.cat(part) for part in zip(*batches(), strict=True))]
    assert validation_loss(stages, (0, 2), batches()) == pytest.approx(validation_loss(stages, (0, 2), whole), rel=1e-6)
    by_hand = stages[0].loss(stages[2](stages[0](whole[0][0])), whole[0][1])
    assert validation_loss(stages, (0, 2), whole) == pytest.approx(by_hand.item(), rel=1e-6)


def test_mean_and_deviation_are_over_the_choices(stages):
    losses = [validation_loss(stages, choice, batches()) for choice in ((0, 1), (0, 3))]
    result = validate(stages, [(0, 1), (0, 3), (0, 1)], batches())
    assert result.loss == pytest.approx((2 * losses[0] + losses[1]) / 3)
    assert result.perplexity == pytest.approx((2 * math.exp(losses[0]) + math.exp(losses[1])) / 3)
    assert result.loss_deviation == pytest.approx(abs(losses[0] - losses[1]) / 3**0.5)
    assert validate(stages, [(0, 1)], batches()).perplexity_deviation == 0


@pytest.mark.parametrize("visited", [(0, 1, 2, 3), (0, 2), (0,)])
def test_the_cache_gives_the_tokens_that_recomputing_gives(stages, visited):
    ids = [5, 7, 11]
    with torch.no_grad():
        for _ in range(9):
            hidden = torch.tensor([ids])
            for stage in visited:
                hidden = stages[stage](hidden)
            ids.append(int(stages[0].logits(hidden)[0, -1].argmax()))
    assert list(generate(stages, visited, ids[:3], temperature=0, seed=0)) == ids[3:]


def test_drawn_tokens_follow_the_seed(stages):
    def drawn(seed):
        return list(generate(stages, (0, 1), [3], temperature=1.0, seed=seed))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(drawn(1)) == 11


@pytest.mark.parametrize("prompt", [[], list(range(12))])
def test_prompts_that_do_not_fit_are_refused(stages, prompt):
    with pytest.raises(UserError, match="the model takes 1 to 11"):
        next(generate(stages, (0,), prompt, 0, 0))


class Bytes:
    """Stands where a tokenizer does, a token a byte; 0 ends a document."""

    eos_id = 0

    def decode(self, ids):
        return bytes(ids).decode("utf-8", errors="replace")


def test_text_streams_in_whole_characters_and_stops_at_the_end_of_a_document():
    tokens = "na\u00efve \U0001f600!".encode()
    pieces = list(stream_text(Bytes(), list(b"so "), iter([*tokens, 0, 65])))
    assert "".join(pieces) == "na\u00efve \U0001f600!"
    assert pieces == list("na\u00efve \U0001f600!")
    assert "".join(stream_text(Bytes(), [65], iter(tokens[:3]))) == "na\N{REPLACEMENT CHARACTER}"
    assert "".join(stream_text(Bytes(), [65], itertools.islice(iter(tokens), 2))) == "na"
