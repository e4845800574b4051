import itertools
import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import write_small_model

from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.generation.beam import search
from glm_data.generation.blanks import GMASK, MASK
from glm_data.generation.decoder import Decoder
from glm_data.generation.glm import Glm, load_model
from glm_data.generation.options import GenerationOptions
from glm_data.generation.sampling import choose, repeated, shares
from glm_data.generation.texts import text_of
from glm_data.generation.write import Job, Rules, Task, write
from glm_data.int4 import QuantizeOptions
from glm_data.int4.stage import quantize_stage
from glm_data.model.attention import PieceAttention, lay_out
from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.model.store import Description, read_description, read_tensors, save_model
from tokenizer import SPECIAL, SPECIAL_PIECES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def glm(folder):
    return Glm.load(folder)


def forward(glm, context, spans, running=False):
    """Logits of one training-like forward at the part-B tokens; ``spans`` are (mask position, tokens)."""
    part_b = [token for _, tokens in spans for token in tokens]
    positions = list(range(len(context)))
    for mask, tokens in spans:
        positions += [mask + running * (1 + i) for i in range(len(tokens))]
    ids = torch.tensor([*context, *part_b])
    layout = lay_out([np.array([[0, len(context), len(ids), 1]])], len(ids))
    with torch.inference_mode():
        return glm.model(ids, torch.tensor(positions), PieceAttention(layout.groups))[len(context) :]


@pytest.mark.parametrize("running", [False, True])
def test_step_by_step_decoding_equals_the_trainers_forward(glm, running):
    rng = np.random.default_rng(1)
    context = rng.integers(8, 500, 20).tolist()
    first, second = [SPECIAL.sop, *rng.integers(8, 500, 5).tolist()], [SPECIAL.sop, *rng.integers(8, 500, 3).tolist()]
    spans = [(19, first)] if running else [(4, first), (11, second)]
    decoder = Decoder(glm.model, [context], 64)
    with torch.inference_mode():
        found = [
            decoder.step([token], [mask + running * (1 + i)])[0]
            for mask, tokens in spans
            for i, token in enumerate(tokens)
        ]
    expected = forward(glm, context, spans, running)
    assert torch.allclose(torch.stack(found), expected, atol=1e-4)
    assert expected.std() > 0.5  # not equal because everything is flat


def greedy_twin(glm, context, blanks, options, running=False):
    """Greedy answers with a whole forward for every token."""
    spans = []
    for blank in blanks:
        tokens = [SPECIAL.sop]
        spans.append((blank, tokens))
        while True:
            logits = forward(glm, context, spans, running)[-1].double()
            logits[[i for i in SPECIAL if i not in (SPECIAL.eop, SPECIAL.eos)]] = -torch.inf
            logits[glm.tokenizer.pieces :] = -torch.inf
            if len(tokens) - 1 < options.min_length:
                logits[[SPECIAL.eop, SPECIAL.eos]] = -torch.inf
            best = int(logits.argmax())
            if len(tokens) - 1 == options.max_length or best in (SPECIAL.eop, SPECIAL.eos):
                break
            tokens.append(best)
    return [text_of(glm.tokenizer, tokens[1:]) for _, tokens in spans]


OPTIONS = GenerationOptions(max_length=6, no_repeat_ngram=0)


def test_infill_fills_blanks_from_left_to_right(glm):
    encode = glm.tokenizer.encode
    parts = [encode(part).tolist() for part in ("the fox", " the", "。")]
    context = [*parts[0], SPECIAL.mask, *parts[1], SPECIAL.mask, *parts[2]]
    blanks = [len(parts[0]), len(parts[0]) + 1 + len(parts[1])]
    expected = greedy_twin(glm, context, blanks, OPTIONS)
    found = glm.infill("the fox [MASK] the[MASK]。", OPTIONS)
    assert list(found.answers) == [answer.strip(" ") for answer in expected]
    first = expected[0] if expected[0].startswith(" ") else " " + expected[0]
    assert found.text == f"the fox{first} the{expected[1]}。"


def test_generate_continues_with_running_positions(glm):
    context = [*glm.tokenizer.encode("床前明月光，the").tolist(), SPECIAL.gmask]
    expected = greedy_twin(glm, context, [len(context) - 1], OPTIONS, running=True)[0]
    assert glm.generate("床前明月光，the", OPTIONS) == expected
    assert glm.generate("床前明月光，the[gMASK]", OPTIONS) == expected


def test_draws_are_a_function_of_the_seed(glm):
    options = [GenerationOptions(temperature=2.0, seed=seed, max_length=12) for seed in (1, 1, 2)]
    texts = [glm.generate("the fox", option) for option in options]
    assert texts[0] == texts[1] != texts[2]


def answers_of(glm, tasks, options):
    found = [[[] for _ in task.blanks] for task in tasks]
    with torch.inference_mode():
        for written in write(glm.model, [glm.job(task, options) for task in tasks]):
            for item in written:
                if item.token is not None:
                    found[item.text][item.blank].append(item.token)
    return found


def test_lengths_are_kept(glm):
    tasks = [Task([9, 10, SPECIAL.mask, 11, SPECIAL.mask], (2, 4), False), Task([9, SPECIAL.gmask], (1,), True)]
    for length in (1, 4):
        options = GenerationOptions(min_length=length, max_length=length, no_repeat_ngram=0)
        assert [[len(ids) for ids in answers] for answers in answers_of(glm, tasks, options)] == [
            [length] * 2,
            [length],
        ]


def pairs_of(glm, options):
    (((answer,),)) = answers_of(glm, [Task([9, 10, SPECIAL.gmask], (2,), True)], options)
    assert len(answer) == 60
    return list(itertools.pairwise(answer))


def test_no_ngram_comes_twice(glm):
    options = GenerationOptions(min_length=60, max_length=60, no_repeat_ngram=2)
    pairs = pairs_of(glm, options)
    assert len(set(pairs)) == len(pairs)
    free = pairs_of(glm, msgspec.structs.replace(options, no_repeat_ngram=0))
    assert len(set(free)) < len(free)


TEXTS = ["the [MASK] fox", "床前[MASK]", "the fox [MASK] the[MASK]。 the fox the fox [MASK]"]


def test_a_short_text_of_many_blanks_beside_a_long_one_of_one(glm):
    options = GenerationOptions(max_length=9, min_length=9)
    texts = ["the fox " * 12 + "[MASK]", "the[MASK]the[MASK]the[MASK]the[MASK]the[MASK]the[MASK]"]
    assert glm.infill_many(texts, options) == [glm.infill(text, options) for text in texts]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_batch_of_different_lengths_writes_what_each_text_alone_gets(glm, temperature):
    options = GenerationOptions(max_length=7, temperature=temperature, seed=3)
    assert glm.infill_many(TEXTS, options) == [glm.infill(text, options) for text in TEXTS]
    starts = ["the", "床前明月光，the fox the", ""]
    assert glm.generate_many(starts, options) == [glm.generate(start, options) for start in starts]


def test_logits_of_a_batch_are_those_of_each_text_alone(glm):
    contexts = [[9, 10, 11, SPECIAL.gmask], [12, SPECIAL.gmask], [13] * 9]
    with torch.inference_mode():
        together = Decoder(glm.model, contexts, 20)
        alone = [Decoder(glm.model, [context], 20) for context in contexts]
        for step in range(3):
            if step == 2:
                together.select([2, 0])
                alone = [alone[2], alone[0]]
            tokens, positions = [20 + step] * len(alone), [5 + step] * len(alone)
            found = together.step(tokens, positions)
            for row, decoder in zip(found, alone, strict=True):
                assert torch.allclose(row, decoder.step(tokens[:1], positions[:1])[0], atol=1e-4)


def test_parallel_blanks_do_not_see_each_other(glm):
    options = msgspec.structs.replace(OPTIONS, parallel=True)
    text = "the fox [MASK] the[MASK]。"
    encode = glm.tokenizer.encode
    parts = [encode(part).tolist() for part in ("the fox", " the", "。")]
    context = [*parts[0], SPECIAL.mask, *parts[1], SPECIAL.mask, *parts[2]]
    blanks = [len(parts[0]), len(parts[0]) + 1 + len(parts[1])]
    expected = [greedy_twin(glm, context, [blank], OPTIONS)[0].strip(" ") for blank in blanks]
    assert list(glm.infill(text, options).answers) == expected


@pytest.mark.parametrize("running", [False, True])
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(running):
    model = build(ModelConfig(vocab=12, layers=2, hidden=16, heads=2, ffn=24, embedding_std=0.7), 3).eval()
    letters, longest = (8, 9, 10), 3
    rules = Rules(frozenset({SPECIAL.eop}), frozenset(range(12)) - {SPECIAL.eop, *letters}, lambda answer: False)
    context = [8, 10, SPECIAL.mask, 9]
    best = None
    for size in range(1, longest + 1):
        for answer in itertools.product(letters, repeat=size):
            ids = torch.tensor([*context, SPECIAL.sop, *answer])
            places = [0, 1, 2, 3, *(2 + running * (1 + i) for i in range(size + 1))]
            layout = lay_out([np.array([[0, 4, len(ids), 1]])], len(ids))
            with torch.inference_mode():
                chances = model(ids, torch.tensor(places), PieceAttention(layout.groups))[4:].double().log_softmax(-1)
            tokens = [*answer] if running and size == longest else [*answer, SPECIAL.eop]  # a continuation is cut there
            score = sum(chances[i, token].item() for i, token in enumerate(tokens)) / len(tokens)
            best = max(best or (-9e9, ()), (score, answer))
    options = GenerationOptions(beams=27, max_length=longest, no_repeat_ngram=0)
    with torch.inference_mode():
        assert search(model, [Job(Task(context, (2,), running), rules, options)]) == [[list(best[1])]]


@pytest.mark.parametrize("beams", [1, 3])
def test_where_every_token_would_repeat_an_ngram_the_answer_goes_on(glm, beams):
    options = GenerationOptions(beams=beams, min_length=5, max_length=5, no_repeat_ngram=1)
    never = frozenset(range(glm.model.config.vocab)) - {SPECIAL.eop, 10, 11}
    rules = Rules(frozenset({SPECIAL.eop}), never, lambda answer: False)
    job = Job(Task([20, SPECIAL.mask, 21], (1,), False), rules, options)
    ((answer,),) = search(glm.model, [job]) if beams > 1 else glm._draw([job])
    assert len(answer) == 5
    assert sorted(answer[:2]) == [10, 11]


def test_beam_search_of_many_texts_finds_what_it_finds_of_each_alone(glm):
    options = GenerationOptions(beams=3, max_length=5)
    assert glm.infill_many(TEXTS, options) == [glm.infill(text, options) for text in TEXTS]
    starts = ["the", "床前明月光，the fox the", "", "fox"]
    assert glm.generate_many(starts, options) == [glm.generate(start, options) for start in starts]
    parallel = msgspec.structs.replace(options, parallel=True)
    alone = glm.infill("the fox [MASK] the[MASK]。", parallel).answers
    assert glm.infill_many(["the[MASK]", "the fox [MASK] the[MASK]。"], parallel)[1].answers == alone


def test_a_stop_text_ends_a_beam_however_short(glm):
    options = GenerationOptions(beams=3, max_length=6, min_length=4, no_repeat_ngram=0)
    free = glm.generate("the fox", options)
    stop = free[1]
    found = glm.generate("the fox", msgspec.structs.replace(options, stop=(stop,)))
    assert stop not in found


def test_more_texts_than_are_written_at_once(glm, monkeypatch):
    monkeypatch.setattr("glm_data.generation.glm.MOST_TEXTS", 2)
    starts = ["the", "床前明月光，the fox the", "", "fox", "a"]
    assert glm.generate_many(starts, OPTIONS) == [glm.generate(start, OPTIONS) for start in starts]


def test_no_answer_begins_with_what_may_not_come_first(glm):
    comma = "，"
    assert set(glm.tokenizer.encode(comma).tolist()) & glm._punctuation
    assert not set(glm.tokenizer.encode("the fox").tolist()) & glm._punctuation
    tasks = [Task([9, SPECIAL.gmask], (1,), True)]
    for options in (
        OPTIONS,
        GenerationOptions(beams=4, max_length=3),
        GenerationOptions(temperature=5.0, max_length=3),
    ):
        ((answer,),) = glm.write(tasks, options, words_first=True)
        assert answer[0] not in glm._punctuation


def test_a_device_that_is_not_there_is_one_sentence(folder):
    with pytest.raises(UsageError, match=r"no device 'tpu9x'"):
        Glm.load(folder, "tpu9x")
    with pytest.raises(UsageError, match=r"'cuda:99': this machine has .*--device cpu"):
        Glm.load(folder, "cuda:99")


def test_beam_search_fills_several_blanks_and_is_no_worse_than_greedy(glm):
    text = "the fox [MASK] the[MASK]。"
    options = GenerationOptions(beams=4, max_length=4)
    assert glm.infill(text, options) == glm.infill(text, options)
    assert len(glm.infill(text, options).answers) == 2


def test_stop_text_ends_an_answer_and_is_left_out(glm):
    whole = glm.generate("the fox", OPTIONS)
    stop = whole[2:4]
    options = msgspec.structs.replace(OPTIONS, stop=(stop,))
    assert glm.generate("the fox", options) == whole[: whole.index(stop)]
    assert "".join(glm.stream("the fox", options)) == whole[: whole.index(stop)]


def test_streamed_pieces_are_the_text_and_cut_no_character(glm):
    options = GenerationOptions(temperature=3.0, max_length=60, seed=5)
    pieces = list(glm.stream("床前明月光", options))
    assert "".join(pieces) == glm.generate("床前明月光", options)
    assert len(pieces) > 10
    assert all(pieces)


def test_a_stream_that_waits_leaves_its_caller_in_no_mode(glm):
    stream = glm.stream("the fox", OPTIONS)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    stream.close()


def test_scores_are_the_sums_of_the_forwards_log_probabilities(glm):
    choices = ["the fox", "床", "aЖ b", ""]
    for text, running in (("the [MASK] fox", False), ("the fox", True), ("[MASK]", False)):
        head, _, tail = text.partition("[MASK]")
        space, head = head[len(head.rstrip()) :], head.rstrip()
        encode = glm.tokenizer.encode
        start = encode(head).tolist()
        context = [*start, SPECIAL.gmask] if running else [*start, SPECIAL.mask, *encode(tail).tolist()]
        for choice, found in zip(choices, glm.score(text, choices), strict=True):
            target = encode(space + choice).tolist() + ([] if running else [SPECIAL.eop])
            if not target:
                assert found == 0
                continue
            logits = forward(glm, context, [(len(start), [SPECIAL.sop, *target[:-1]])], running)
            chances = logits.double().log_softmax(-1)
            expected = sum(chances[i, token].item() for i, token in enumerate(target))
            assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("group", [0, 32])
def test_quantised_folder_is_loaded_packed_and_answers_like_its_levels(folder, tmp_path, group):
    quantize_stage(folder, tmp_path / "q", QuantizeOptions(group=group))
    packed = Glm.load(tmp_path / "q")
    assert packed.model.layers[0].mlp.dense_4h_to_h.qweight.dtype == torch.uint8
    logits = forward(packed, [9, 10, 11], [(1, [SPECIAL.sop])])
    plain = forward(Glm.load(folder), [9, 10, 11], [(1, [SPECIAL.sop])])
    assert 0 < (logits - plain).norm() / plain.norm() < 0.5
    assert packed.infill("the [MASK] fox", OPTIONS).answers[0]


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 4))
@settings(deadline=None)
def test_repeated_ngrams_against_a_search(answer, size):
    def repeats(token):
        longer = [*answer, token]
        grams = [tuple(longer[i : i + size]) for i in range(len(longer) - size + 1)]
        return size > 0 and bool(grams) and grams[-1] in grams[:-1]

    assert set(repeated(answer, size)) == {token for token in range(4) if repeats(token)}


@given(st.integers(0, 6), st.floats(0.05, 1.0), st.integers(0, 100))
@settings(deadline=None)
def test_shares_keep_the_likeliest_and_sum_to_one(top_k, top_p, seed):
    scores = torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = shares(scores, top_k, top_p)
    assert found.sum().item() == pytest.approx(1)
    ranked = sorted(range(8), key=lambda i: -scores[i].item())
    full = scores.softmax(0)
    keep, held = [], 0.0
    for token in ranked:
        if held >= top_p or (top_k and len(keep) == top_k):
            break
        keep.append(token)
        held += full[token].item()
    assert {i for i in range(8) if found[i] > 0} == set(keep)


def test_choice_of_the_likeliest_of_what_is_allowed():
    logits = torch.tensor([3.0, 5.0, 5.0, 4.0])
    draws = torch.Generator()
    assert choose(logits, [], {1}, GenerationOptions(), draws) == 2
    assert choose(logits, [], set(), GenerationOptions(), draws) == 1
    assert choose(logits, [1, 1], set(), GenerationOptions(no_repeat_ngram=2), draws) == 2
    only = GenerationOptions(no_repeat_ngram=1)
    assert choose(logits, [1, 2], {0, 3}, only, draws) == 1  # everything else is banned: the n-gram rule gives way


def test_a_temperature_near_zero_takes_the_likeliest():
    logits = torch.tensor([3.0, 5.0, -1e30, 4.0])
    assert choose(logits, [], {0}, GenerationOptions(temperature=5e-324), torch.Generator()) == 1


def test_cut_characters_are_left_out(glm):
    ids = glm.tokenizer.encode("aЖ")  # Ж is two byte pieces
    assert len(ids) >= 3
    assert text_of(glm.tokenizer, ids) == "aЖ"
    assert text_of(glm.tokenizer, ids[:-1]) == "a"


def test_an_imported_model_without_a_tokenizer_says_what_can_be_done_with_it(folder, tmp_path):
    description = read_description(folder)
    imported = msgspec.structs.replace(description, training={"imported": {}}, tokenizer="")
    save_model(tmp_path, read_tensors(folder), imported)
    with pytest.raises(InputError, match=r"icetk.*quantised.*--tokenizer"):
        Glm.load(tmp_path)
    assert load_model(tmp_path).config.layers == description.model.layers, "its network runs"


def test_what_cannot_be_meant_is_one_sentence(glm, folder, tmp_path):
    with pytest.raises(UsageError, match="no \\[MASK\\]"):
        glm.infill("nothing to fill")
    with pytest.raises(UsageError, match=r"\[MASK\] blanks and \[gMASK\] at its end"):
        glm.infill("a [MASK] b [gMASK]")
    with pytest.raises(UsageError, match="fill them with infill"):
        glm.generate("a [MASK] b")
    with pytest.raises(UsageError, match="2048 fit"):
        glm.generate("the fox " * 3000)
    with pytest.raises(UsageError, match=r"config\.json is missing"):
        Glm.load(tmp_path)
    for change in (
        {"temperature": -1.0},
        {"temperature": math.inf},
        {"seed": -1},
        {"seed": 2**63},
        {"top_p": 0.0},
        {"max_length": 0},
        {"min_length": 65},
        {"stop": ("",)},
    ):
        with pytest.raises(ConfigError):
            GenerationOptions(**change)
    for change in ({"beams": 0}, {"beams": 2, "temperature": 1.0}):
        with pytest.raises(ConfigError):
            GenerationOptions(**change)
    with pytest.raises(UsageError, match="beams 1"):
        list(glm.stream("a", GenerationOptions(beams=2)))
    with pytest.raises(UsageError, match="at most one"):
        glm.score("[MASK] and [MASK]", ["a"])
    save_model(tmp_path, {"final_layernorm.bias": torch.zeros(3)}, Description(model=glm.model.config))
    with pytest.raises(InputError, match="do not fit"):
        load_model(tmp_path)
    small = build(ModelConfig(vocab=64, layers=1, hidden=8, heads=1, ffn=8), 0)
    with pytest.raises(InputError, match="belong together"):
        Glm(small, glm.tokenizer)
    tables = build(ModelConfig(vocab=576, layers=1, hidden=8, heads=1, ffn=8, positions="learned-2d"), 0)
    with pytest.raises(InputError, match="rotary positions"):
        Glm(tables, glm.tokenizer)


def test_blanks_are_written_as_the_task_tokens_are_called():
    assert (SPECIAL_PIECES[SPECIAL.mask], SPECIAL_PIECES[SPECIAL.gmask]) == (MASK, GMASK)
