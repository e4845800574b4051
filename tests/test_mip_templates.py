"""The reader of promptsource's format: strict, safe, and wide enough for all published files."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm_data.errors import ConfigError
from glm_data.mip import Renderer, Template, TemplateError, read_templates
from glm_data.mip.templates import Metadata, blocked_templates, usable_templates

GOOD = """
dataset: super_glue
subset: copa
templates:
  0ec5e4a5-0000-4000-8000-000000000001: !Template
    answer_choices: '{{choice1}} ||| {{choice2}}'
    id: 0ec5e4a5-0000-4000-8000-000000000001
    jinja: "{{premise}} ||| {{answer_choices[label]}}"
    metadata: !TemplateMetadata
      choices_in_prompt: null
      languages: [en]
      metrics: [Accuracy]
      original_task: true
    name: "choose\\u2026"
    reference: ''
    task_template: true
  0ec5e4a5-0000-4000-8000-000000000002: !Template
    answer_choices: null
    id: 0ec5e4a5-0000-4000-8000-000000000002
    jinja: '{{premise}} ||| x'
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages: [zh-Hans, en]
      metrics: []
      original_task: false
      task: causes
      version: '2'
    name: second
    reference: a paper
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "templates.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_becomes_strict_types(tmp_path: Path) -> None:
    file = read_templates(write(tmp_path, GOOD))
    assert (file.dataset, file.subset, len(file.templates)) == ("super_glue", "copa", 2)
    first, second = file.templates.values()
    assert first == Template(
        id="0ec5e4a5-0000-4000-8000-000000000001",
        name="choose…",
        jinja="{{premise}} ||| {{answer_choices[label]}}",
        answer_choices="{{choice1}} ||| {{choice2}}",
        metadata=Metadata(languages=("en",), metrics=("Accuracy",), original_task=True),
        task_template=True,
    )
    assert (second.metadata.languages, second.metadata.task, second.metadata.version) == (
        ("zh-Hans", "en"),
        "causes",
        "2",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: second", "nmae: second", "unknown field `nmae`"),
        ("dataset: super_glue", "dataset: 3", "Expected `str`"),
        ("languages: [en]", "languages: en", "Expected `array`"),
        ("id: 0ec5e4a5-0000-4000-8000-000000000002", "id: other", "make them equal"),
        ("name: second", "name: choose…", "two templates are named"),
        ("    reference: a paper", "    reference: a\n    reference: b", "key 'reference' twice"),
        ("reference: a paper", "reference: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("reference: a paper", "reference: !Other {}", "not valid YAML"),
        ("!TemplateMetadata\n      choices_in_prompt: false", "!TemplateMetadata x\n", "not valid YAML"),
        ("dataset: super_glue", "dataset: [", "not valid YAML"),
    ],
)
def test_what_does_not_fit_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message) as caught:
        read_templates(write(tmp_path, GOOD.replace(old, new, 1)))
    assert "templates.yaml" in str(caught.value)


def test_a_file_cannot_blow_up_by_aliases_or_hold_half_a_character(tmp_path: Path) -> None:
    bomb = "examples:\n  - {a: &a0 [x, x]}\n"
    bomb += "".join(f"  - {{a: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))
    with pytest.raises(ConfigError, match="more than 1,000,000 values"):
        read_templates(write(tmp_path, GOOD + bomb))
    with pytest.raises(ConfigError, match="recursive"):
        read_templates(write(tmp_path, GOOD + "examples: [{a: &a [*a]}]\n"))
    for name in ('"\\ud800"', '{"\\udc00": 1}'):
        with pytest.raises(ConfigError, match=r"half of a surrogate pair|not valid YAML|does not fit"):
            read_templates(write(tmp_path, GOOD.replace("name: second", f"name: {name}")))


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_templates(tmp_path / "none.yaml")
    (tmp_path / "templates.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_templates(tmp_path / "templates.yaml")


def test_templates_are_blocked_by_name_or_id_and_never_by_accident(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "blocked: {second: two answers fit}\n")
    file = read_templates(path)
    first, second = file.templates
    assert blocked_templates(file, {first: "noisy"}, path) == {first: "noisy", second: "two answers fit"}
    assert [item.name for item in usable_templates(file, {})] == ["choose…", "second"]
    assert [item.name for item in usable_templates(file, {second: ""})] == ["choose…"]
    with pytest.raises(ConfigError, match="Did you mean 'second'"):
        blocked_templates(file, {"secnd": "noisy"}, path)


def test_a_refusal_names_file_template_line_and_reason() -> None:
    template = Template(id="t", name="greeting", jinja="{{ a }}\n{{ b.__class__ }} ||| x")
    with pytest.raises(TemplateError) as caught:
        Renderer([template], dataset="d", where="'templates.yaml'")
    assert str(caught.value) == "'templates.yaml': template 'greeting': line 2: '.__class__' begins with an underscore."


def test_a_misspelt_filter_gets_a_suggestion() -> None:
    template = Template(id="t", name="t", jinja="{{ a | chioce }} ||| x")
    with pytest.raises(TemplateError, match=r"filter 'chioce' is not part of the template dialect.*choice"):
        Renderer([template], dataset="d")


def test_every_template_of_the_demo_is_sound() -> None:
    paths = sorted((Path(__file__).parents[1] / "manifests" / "demo" / "mip" / "templates").rglob("templates.yaml"))
    assert len(paths) == 6
    ids: set[str] = set()
    for path in paths:
        file = read_templates(path)
        assert file.dataset == path.parent.name
        assert 3 <= len(Renderer(file.templates.values(), dataset=file.dataset).templates) <= 4
        for template in file.templates.values():
            assert template.jinja.count("|||") == 1
            assert template.metadata.languages in (("en",), ("zh-Hans",))
            assert template.id not in ids
            ids.add(template.id)
