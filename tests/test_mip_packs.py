"""The bundled packs: every template renders, answers by its choices, and the tasks and mixtures that were promised."""

from __future__ import annotations

from pathlib import Path

import pytest

import manifests
from glm_data.bans import check_bans, find_banned, load_bans
from glm_data.errors import UsageError
from glm_data.mip import Refused, Rendered, Renderer, find_templates, load_mixture, packs, prepare_row, read_templates
from glm_data.mip.lint import lint
from glm_data.mip.mixture import find_mixture
from glm_data.mip.subjects import first_rows, subject
from glm_data.mip.templates import TemplateFile

PROMISED_ZH = {
    "topic", "natural_language_inference", "paraphrase", "reading_comprehension", "summarization", "keywords",
    "translation", "named_entity_recognition", "relation_extraction", "dialogue", "common_sense", "chain_of_thought",
}  # fmt: skip
PROMISED_EN = {
    "dialogue_state_tracking", "event_extraction", "named_entity_recognition", "relation_extraction",
    "relation_classification", "semantic_role_labelling",
}  # fmt: skip


def pack(name: str) -> TemplateFile:
    return read_templates(find_templates(f"pack:{name}", Path()))


def outcomes(file: TemplateFile) -> list[tuple[str, list[Rendered | Refused]]]:
    made = Renderer(file.templates.values(), dataset=file.task)
    rows = [prepare_row(row) for row in file.examples]
    return [
        (template.name, [made.render(place, row, number) for number, row in enumerate(rows)])
        for place, template in enumerate(made.templates)
    ]


@pytest.mark.parametrize("name", packs())
def test_every_template_of_a_pack_renders_its_examples(name: str) -> None:
    file = pack(name)
    assert len(file.templates) >= 4
    assert len(file.examples) >= 3
    for row in file.examples:
        assert set(row) <= set(file.fields)
    for template, results in outcomes(file):
        assert any(isinstance(item, Rendered) for item in results), template
        assert {item.reason for item in results if isinstance(item, Refused)} <= {"not_applicable"}, template
    assert not [item for item in lint(file, rows=first_rows(subject(name), 9)) if item.level != "note"]


@pytest.mark.parametrize("name", packs())
def test_templates_answer_by_their_choices_and_say_what_is_in_the_prompt(name: str) -> None:
    file = pack(name)
    for template in file.templates.values():
        if template.answer_choices is not None:
            assert template.metadata.choices_in_prompt is not None, template.id
            assert template.answers_by_choice, template.id
        assert template.id.startswith(f"{name.split('/')[0]}-{name.split('/')[1].replace('_', '-')}-")
    for template, results in outcomes(file):
        for item in results:
            if isinstance(item, Rendered) and item.choices is not None:
                assert item.target in item.choices, template


def test_chinese_packs_cover_the_promised_tasks_in_chinese() -> None:
    files = [pack(name) for name in packs() if name.startswith("zh/")]
    assert {file.task for file in files} >= PROMISED_ZH
    assert len({file.task for file in files}) >= 10
    for file in files:
        for template in file.templates.values():
            assert template.language == "zh-Hans"
            written = [character for character in template.jinja if "一" <= character <= "鿿"]
            assert len(written) >= 2, template.id
    assert {file.task for name in packs() if name.startswith("en/") for file in [pack(name)]} >= PROMISED_EN


def test_structured_targets_have_the_form_of_triples() -> None:
    row = {"text": "Ann met Bo.", "entities": [{"text": "Ann", "type": "person"}, {"text": "Bo", "type": "person"}]}
    file = pack("en/entities")
    made = Renderer([file.templates["en-entities-1"]], dataset="d")
    assert made.render(0, prepare_row(row), 0)[1] == "( Ann ; instance of ; person ) ( Bo ; instance of ; person )"
    assert made.render(0, prepare_row({"text": "Rain.", "entities": []}), 0)[1] == "not given"
    chinese = Renderer([pack("zh/relations").templates["zh-relations-1"]], dataset="d")
    row = {"text": "甲是乙的父亲。", "triples": [{"head": "乙", "relation": "父亲", "tail": "甲"}]}
    assert chinese.render(0, prepare_row(row), 0)[1] == "( 乙 ; 父亲 ; 甲 )"


def test_ids_are_unique_over_all_packs() -> None:
    ids = [template for name in packs() for template in pack(name).templates]
    assert len(ids) == len(set(ids)) >= 100


def test_the_mixture_of_glm_130b_lists_its_74_data_sets() -> None:
    datasets = load_mixture(find_mixture("mip-74")).datasets
    sides = [item.side for item in datasets]
    assert (len(datasets), sides.count("t0"), sides.count("deepstruct")) == (74, 58, 16)
    caps = {item.whole_name: item.cap for item in datasets}
    assert (caps["imdb"], caps["conll03"], caps["kelm"], caps["propbank"]) == (100_000, 200_000, 500_000, 500_000)
    assert all(item.status for item in datasets)
    assert sum(int(item.status.split()[0]) for item in datasets if item.side == "t0") == 510
    own = [item for item in datasets if item.side == "deepstruct"]
    assert {item.templates.partition("/")[0] for item in own} == {"pack:en"}
    for item in own:
        assert find_templates(item.templates, Path()).is_file()
    check_bans(
        [item.whole_name for item in datasets], load_bans(), {i.whole_name: i.allowed for i in datasets if i.allowed}
    )


def test_the_mixture_of_fewclue_leads_every_set_to_a_pack_and_is_banned_by_name() -> None:
    datasets = load_mixture(find_mixture("mip-fewclue")).datasets
    assert len(datasets) == 9
    for item in datasets:
        fields = pack(item.templates.removeprefix("pack:")).fields
        assert set(item.columns) | set(item.add) | set(item.values) <= set(fields)
        if "labels" in item.add:
            assert sorted(item.values.get("label", {}).values()) == list(range(len(item.add["labels"])))
    banned = find_banned([item.whole_name for item in datasets], load_bans())
    assert {item.dataset for item in banned} >= {"fewclue/bustm", "fewclue/chid", "fewclue/ocnli", "fewclue/eprstmt"}


def test_bundled_mixtures_and_packs_are_found_by_name(tmp_path: Path) -> None:
    assert manifests.mixtures() == ("mip-74", "mip-fewclue")
    assert "mip-74" not in manifests.names()
    assert find_mixture("mip-74.yaml") == manifests.path("mip-74.yaml")
    with pytest.raises(UsageError, match="Did you mean 'mip-74'"):
        find_mixture("mip-47")
    with pytest.raises(UsageError, match="Did you mean 'zh/sentiment'"):
        subject("zh/sentimant")
    with pytest.raises(UsageError, match="no pack of templates 'zh/none'"):
        find_templates("pack:zh/none", tmp_path)
