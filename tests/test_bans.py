"""Bans: the bundled lists say what they should, names are compared as people spell them, the mip stage refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import manifests
from glm_data.bans import ALL, Bans, Benchmark, check_bans, find_banned, load_bans, load_evaluation
from glm_data.errors import ConfigError, StageMismatchError, UsageError
from glm_data.mip import MipOptions, render_stage
from glm_data.stage import ShardRecord, ShardTask, Stage, Success, write_shard_record
from pipelines import render_mip

TEMPLATES = """
dataset: {name}
templates:
  aaaa: !Template
    answer_choices: null
    id: aaaa
    jinja: '{{{{text}}}}? ||| {{{{text}}}}'
    metadata: !TemplateMetadata {{languages: [en]}}
    name: ask
    reference: ''
"""
_TABLE_12 = """
super_glue/wsc.fixed winogrande/winogrande_xl super_glue/cb super_glue/rte anli glue/mrpc glue/qqp paws/labeled_final
ai2_arc/ARC-Challenge ai2_arc/ARC-Easy kilt_tasks/hotpotqa trivia_qa/unfiltered web_questions wiki_qa
adversarial_qa/dbidaf adversarial_qa/dbert adversarial_qa/droberta duorc/SelfRC duorc/ParaphraseRC ropes squad_v2
super_glue/record quoref amazon_polarity app_reviews imdb rotten_tomatoes yelp_review_full super_glue/copa hellaswag
common_gen wiki_bio cnn_dailymail/3.0.0 gigaword multi_news samsum xsum cos_e/v1.11 cosmos_qa dream openbookqa/main qasc
quail quarel quartz race/high race/middle sciq social_i_qa super_glue/boolq super_glue/multirc wiki_hop/original wiqa
piqa ag_news dbpedia_14 trec super_glue/wic multiwoz_2.1 ace05 conll03 genia ontonotes5.0 ace2005 conll04 nyt29 kelm
tacred conll05 conll12 propbank
"""
GLM_130B_MIP = _TABLE_12.split()
"""Table 12 of the GLM-130B paper."""


def banned_names(names: Sequence[str], bans: str = "glm-130b") -> set[str]:
    return {item.dataset for item in find_banned(names, load_bans(bans))}


def test_of_its_own_instruction_data_the_list_of_glm_130b_bans_two_sets_and_says_so() -> None:
    found = find_banned(GLM_130B_MIP, load_bans())
    assert {item.dataset for item in found} == {"super_glue/wsc.fixed", "cos_e/v1.11"}
    assert all("GLM-130B's own instruction data holds" in item.reason for item in found)


def test_the_list_of_t0_bans_what_t0_held_out_and_all_of_its_inference_sets() -> None:
    held_out = ["super_glue/cb", "super_glue/rte", "anli", "super_glue/copa", "hellaswag", "story_cloze/2016"]
    held_out += ["super_glue/wsc.fixed", "winogrande/winogrande_xl", "super_glue/wic"]
    inference = ["snli", "multi_nli", "glue/mnli", "scitail", "hans"]
    assert banned_names([*held_out, *inference], "t0") == {*held_out, *inference}
    assert not banned_names(["imdb", "glue/mrpc", "super_glue/boolq"], "t0")


@pytest.mark.parametrize(
    ("name", "benchmark"),
    [
        ("EleutherAI/lambada_openai", "LAMBADA"), ("cais/mmlu/anatomy", "MMLU"), ("kilt_tasks/nq", "Natural Questions"),
        ("tau/commonsense_qa", "CommonsenseQA"), ("clue/c3", "CLUE"), ("C3", "CLUE"), ("CLUEWSC2020", "CLUE"),
        ("fewclue/eprstmt", "FewCLUE"), ("pCLUE", "CLUE"), ("winograd_wsc/wsc273", "Winograd273"),
        ("tweet_eval/hate", "ETHOS"), ("glue/qnli", "GLUE without its training sets"),
    ],
)  # fmt: skip
def test_known_spellings(name: str, benchmark: str) -> None:
    (found,) = find_banned([name], load_bans())
    assert (found.dataset, found.benchmark) == (name, benchmark)
    assert found.reason


@pytest.mark.parametrize(
    "name", ["clue/tnews", "fewclue/csldcp", "tweet_eval/emotion", "glue/sst2", "kilt_tasks/hotpotqa"]
)
def test_a_banned_part_does_not_ban_the_others(name: str) -> None:
    assert not banned_names([name])


def test_a_set_that_may_hold_a_banned_part_must_say_its_subset() -> None:
    (found,) = find_banned(["glue"], load_bans())
    assert found.reason == "it may hold glue/qnli; say which subset it is"


BANS = Bans(name="x", benchmarks=(Benchmark(name="E", datasets=("ai2_arc/ARC-Challenge", "wsc.1")),))


@given(st.data())
def test_case_and_separators_make_no_difference(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["ai2_arc/ARC-Challenge", "wsc.1"]))
    marks = [data.draw(st.sampled_from(["-", "_", ".", " ", ""])) if mark in "-_. " else mark for mark in name]
    spelt = "".join(data.draw(st.sampled_from([mark.lower(), mark.upper()])) for mark in marks)
    owner = data.draw(st.sampled_from(["", "someone/"]))
    below = data.draw(st.sampled_from(["", "/2016"]))
    assert [item.dataset for item in find_banned([owner + spelt + below], BANS)] == [owner + spelt + below]
    assert not find_banned([spelt + "x"], BANS)


def test_check_names_the_first_its_reason_and_the_others() -> None:
    names = ["imdb", "lambada", "mmlu", "c3", "drcd", "chid", "ethos", "mc_taco"]
    with pytest.raises(UsageError) as raised:
        check_bans(names, load_bans(), {"c3": "not reported"}, where="here")
    assert str(raised.value) == (
        "here: data set 'lambada' is banned for the sake of LAMBADA (its passages are from novels, and the answer is a "
        "word of the passage), by the list 'glm-130b'. So are mmlu, drcd, chid, ethos, mc_taco. Leave it out, give its "
        "entry in the mixture 'allowed: <your reason>', or choose another list with --bans (a path, or none)."
    )
    check_bans(names, load_bans("none"))
    check_bans(["imdb"], load_bans(ALL))


def test_every_ban_of_the_bundled_lists_is_unique_has_a_reason_and_a_list() -> None:
    for benchmark in load_evaluation(manifests.path("evaluation.yaml")).benchmarks:
        assert benchmark.lists
        assert benchmark.why
        assert benchmark.task
        assert benchmark.language in ("en", "zh")
        assert benchmark.labels == "free" or benchmark.related or "no other set" in benchmark.why
        assert all(related.why and related.datasets for related in benchmark.related)


def test_the_bundled_lists_are_no_recipe() -> None:
    assert "evaluation" not in manifests.names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("benchmarks: [{name: a}, {name: a}]", "two benchmarks are called 'a'"),
        ("benchmarks: [{name: a, datasets: ['!!']}]", "'!!' is no name of a data set"),
        ("benchmarks: [{name: a, dataset: [b]}]", "Did you mean 'datasets'?"),
        ("benchmarks: [{name: a, labels: many}]", "labels"),
    ],
)
def test_lists_that_cannot_be_meant(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml") as raised:
        load_bans(str(path))
    assert message in str(raised.value)


def test_an_unknown_list_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"there is no list of bans 'glm130b'\. Did you mean 'glm-130b'\?"):
        load_bans("glm130b")


# --- the mip stage ----------------------------------------------------------------------------------------------------


def write_mixture(folder: Path, name: str, **entry: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "templates.yaml").write_text(TEMPLATES.format(name=name), encoding="utf-8")
    (folder / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    described = {"name": name, "rows": "rows.jsonl", "templates": "templates.yaml", **entry}
    (folder / "mixture.yaml").write_text(json.dumps({"datasets": [described]}), encoding="utf-8")
    return folder / "mixture.yaml"


def run_here(manifest: Path, out: Path, bans: str = "glm-130b") -> Success:
    def perform(stage: Stage, function: Callable[[ShardTask], ShardRecord], tasks: Sequence[ShardTask]) -> None:
        for task in tasks:
            write_shard_record(out, function(task), 0.0)

    return render_stage(manifest, out, MipOptions(bans=bans), perform)


def test_a_banned_data_set_stops_the_stage_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_mixture(tmp_path / "in", "commonsense_qa")
    assert render_mip.main([str(manifest), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: '{manifest}': data set 'commonsense_qa' is banned for the sake of CommonsenseQA")
    assert "allowed: <your reason>" in said
    assert not (tmp_path / "out").exists()


def test_an_entry_lets_its_data_set_in_with_a_reason_which_is_recorded(tmp_path: Path) -> None:
    allowed = run_here(write_mixture(tmp_path / "in", "mmlu", allowed="not reported"), tmp_path / "out")
    assert allowed.kept == 2
    assert allowed.facts["allowed"] == {"mmlu": "not reported"}
    free = run_here(write_mixture(tmp_path / "free", "chatter", allowed="not reported"), tmp_path / "free" / "out")
    assert free.facts["allowed"] == {}
    with pytest.raises(UsageError, match="is banned"):
        run_here(write_mixture(tmp_path / "in", "mmlu", allowed=" "), tmp_path / "other")


def test_another_list_or_none_is_another_plan(tmp_path: Path) -> None:
    manifest = write_mixture(tmp_path / "in", "mmlu")
    assert run_here(manifest, tmp_path / "out", "none").kept == 2
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"benchmarks": [{"name": "Own", "datasets": ["quiz"]}]}), encoding="utf-8")
    assert run_here(manifest, tmp_path / "own", str(own)).kept == 2
    with pytest.raises(StageMismatchError, match="bans"):
        run_here(manifest, tmp_path / "out", str(own))
    own.write_text(yaml.safe_dump({"benchmarks": [{"name": "Own", "datasets": ["MMLU"]}]}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"for the sake of Own \(it is the evaluation itself\)"):
        run_here(manifest, tmp_path / "own", str(own))
