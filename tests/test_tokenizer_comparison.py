"""The report's figures against plain counts, a smaller vocabulary against its training, and the page."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from click.testing import CliRunner

from glm_data.cli import main
from glm_data.cli.tokenizer_report import report as command
from glm_data.stage import find_inputs
from glm_data.vocabulary.report import kind_of, page, sample, show_piece
from glm_data.vocabulary.report import report as make_report
from tokenizer import Tokenizer, TokenizerError, TrainOptions, train
from tokenizer.comparison import OtherModel, Text, by_script, han_coverage, measure, smaller, spans, worst_documents
from tokenizer.train import count_texts, train_counted

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
STORIES = [(CORPUS / lang / "story.txt").read_text(encoding="utf-8") for lang in ("en", "zh")]
TEXTS = {"en": [Text("a", STORIES[0][:3000])], "zh-Hans": [Text("b", STORIES[1][:3000]), Text("c", "龘𠮷" * 40)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train(STORIES, path, TrainOptions(vocab_size=2000))
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with SentencePiece's own settings: no byte pieces, white space folded."""
    model = io.BytesIO()
    lines = (line for story in STORIES for line in story.splitlines())
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=1500, model_type="bpe", minloglevel=2
    )
    path = tmp_path_factory.mktemp("other") / "other.model"
    path.write_bytes(model.getvalue())
    return path


def test_figures_are_those_of_a_plain_count(folder: Path, other: Path) -> None:
    for model in (Tokenizer.load(folder), OtherModel(other)):
        for kind, found in measure(model, TEXTS).items():
            ids = [id for _, text in TEXTS[kind] for id in model.encode(text).tolist()]
            names = [model.piece(id) for id in ids]
            whole = "".join(text for _, text in TEXTS[kind])
            assert found["bytes"] == len(whole.encode())
            assert found["bytes_per_token"] == len(whole.encode()) / len(ids)
            assert found["characters_per_token"] == len(whole) / len(ids)
            assert found["byte_pieces"] == sum(name.startswith("<0x") for name in names) / len(ids)
            assert found["unknown"] == names.count("<unk>") / len(ids)
            assert found["documents"] == len(TEXTS[kind])


def test_what_is_lost_is_seen(folder: Path, other: Path) -> None:
    ours, theirs = measure(Tokenizer.load(folder), TEXTS), measure(OtherModel(other), TEXTS)
    assert all(found["round_trips"] == found["documents"] for found in ours.values())
    assert ours["zh-Hans"]["unknown"] == 0 < ours["zh-Hans"]["byte_pieces"]
    assert theirs["en"]["round_trips"] == 0  # line ends are gone
    assert theirs["zh-Hans"]["unknown"] > 0


@pytest.mark.parametrize("size", [900, 1400])
def test_a_smaller_vocabulary_is_the_one_that_training_makes(folder: Path, size: int) -> None:
    whole = Tokenizer.load(folder)
    part = smaller(whole, size)
    assert part.pieces == size
    trained = train_counted(count_texts(STORIES), TrainOptions(vocab_size=size))
    letters = {n for n in map(trained.piece, range(size)) if len(n) == 1}
    if letters == {n for n in map(part.piece, range(size)) if len(n) == 1}:
        assert [part.piece(id) for id in range(size)] == [trained.piece(id) for id in range(size)]
    assert part.decode(part.encode(STORIES[1])) == STORIES[1]
    assert len(part.encode(STORIES[0])) > len(whole.encode(STORIES[0]))


def test_no_vocabulary_is_part_of_a_smaller_one(folder: Path) -> None:
    for size in (5000, 300):
        with pytest.raises(TokenizerError, match="vocabulary of"):
            smaller(Tokenizer.load(folder), size)


def test_coverage_scripts_and_worst_documents(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    bands = han_coverage(tokenizer, TEXTS["zh-Hans"])
    assert bands[0]["from"] == 1
    letters = {letter for _, text in TEXTS["zh-Hans"] for letter in text if letter >= "\u4e00" or letter == "𠮷"}
    letters = {letter for letter in letters if letter.isalpha()}
    known = set(map(tokenizer.piece, range(tokenizer.pieces)))
    assert bands[-1]["to"] == len(letters)
    assert sum(band["covered"] for band in bands) == len(letters & known)
    scripts = by_script(tokenizer)
    assert scripts["bytes"] == 256
    assert scripts["special"] == 8
    assert sum(scripts.values()) == tokenizer.pieces
    assert scripts["Han"] > scripts["Latin"] > 100
    worst = worst_documents(tokenizer, TEXTS)
    assert (worst[0]["id"], worst[0]["begins"][:2]) == ("c", "龘𠮷")


def test_spans_are_the_text_and_bytes_stand_together(folder: Path) -> None:
    parts = spans(Tokenizer.load(folder), "The 龘 of\n  it𠮷")
    assert "".join(piece for piece, _ in parts) == "The 龘 of\n  it𠮷"
    assert [piece for piece, is_byte in parts if is_byte] == ["龘", "𠮷"]
    assert show_piece("a b\t\n\x00") == "a·b⇥⏎\n\\u0000"


def test_kinds_of_text() -> None:
    assert kind_of("x = 1", "Github") == "code"
    assert kind_of("A fox, and 3 dogs.", "Books") == "en"
    assert kind_of("这是简体中文的书", "") == "zh-Hans"
    assert kind_of("這是繁體中文的書", "") == "zh-Hant"
    assert kind_of("Beam 的 runner 是什么", "") == "mixed"
    assert kind_of("3.14159 2.71828 =", "") == "digits"


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "held-out.jsonl"
    texts = [*STORIES[0].split("\n\n")[:30], *STORIES[1].split("\n\n")[:30], "<script>alert(1)</script> & more of it"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_the_sample_is_bounded_and_follows_ids_alone(documents: Path) -> None:
    inputs = find_inputs([documents])
    whole, part = sample(inputs, "auto", 10**9), sample(inputs, "auto", 1500)
    assert sum(map(len, whole.values())) == 61
    for kind, texts in part.items():
        assert set(texts) <= set(whole[kind])
        assert sum(len(text.encode()) for _, text in texts[:-1]) < 1500


def test_the_page_escapes_what_it_shows(folder: Path, other: Path, documents: Path) -> None:
    texts = {"en": [Text("<b>", "<script>alert(1)</script> & so on, and so on" * 9)]}
    made = page(make_report(Tokenizer.load(folder), "<i>name", [other], texts))
    assert "<script" not in made
    assert "<i>" not in made
    assert "&lt;" in made
    assert "http" not in made.split("</head>")[1]


def test_the_command_prints_tables_json_and_a_page(folder: Path, other: Path, documents: Path, tmp_path: Path) -> None:
    arguments = [str(folder), str(documents), "--beside", str(other), "--html", str(tmp_path / "page.html")]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    for said in ("bytes a token", "other.model", "icetk, published", "come back exactly", "Han", "longest pieces"):
        assert said in done.output
    assert 'class="byte"' in (tmp_path / "page.html").read_text(encoding="utf-8") or "p0" in done.output
    found: dict[str, Any] = json.loads(CliRunner().invoke(command, [*arguments[:2], "--json"]).output)
    assert list(found["curve"]) == ["2000"]
    assert found["kinds"][str(folder)]["en"]["round_trips"] == found["kinds"][str(folder)]["en"]["documents"]


def test_models_of_one_file_name_stand_beside_each_other(folder: Path, other: Path, tmp_path: Path) -> None:
    beside = [tmp_path / name / folder.name for name in ("first", "second")]
    for path in beside:
        path.mkdir(parents=True)
        (path / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    made = make_report(Tokenizer.load(folder), folder.name, [*beside, other], TEXTS)
    assert list(made["models"]) == list(made["kinds"]) == [folder.name, *map(str, beside), str(other)]


def test_a_model_that_sentencepiece_refuses_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "tokenizer.model").read_bytes()
    path = tmp_path / "damaged.model"
    for damaged in (whole.replace(b"<0x41>", b"<0x4Z>"), whole.replace(b"<0x41>", b"<0x4\xff>")):
        path.write_bytes(damaged)
        for load in (Tokenizer.load, OtherModel):
            with pytest.raises(TokenizerError, match=r"damaged\.model.*not a SentencePiece model"):
                load(path)


@pytest.mark.parametrize("size", ["-1", "0", "inf"])
def test_a_sample_of_no_size_is_a_usage_error(folder: Path, documents: Path, size: str) -> None:
    refused = CliRunner().invoke(command, [str(folder), str(documents), "--sample", size])
    assert refused.exit_code == 2


def test_what_is_no_model_is_a_usage_error(folder: Path, documents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tokenizer", "report", str(folder), str(documents), "--beside", str(documents)]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "not a SentencePiece model" in capsys.readouterr().err
