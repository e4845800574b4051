"""The promises of de-duplication on a small labelled set of our own: families of revisions and changed copies."""

import functools
import itertools
import random

import pytest
import text_twin
from dedupe_runs import removals, run, run_in_process, write_jsonl
from dedupe_texts import PERTURBATIONS, noisy, other_numbers, write_documents
from text_twin import jaccard

from pipelines import dedupe_steps

shingles = functools.partial(text_twin.shingles, unit="auto")


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr(dedupe_steps, "run_tasks", run_in_process)


def write_revisions(language, families, seed):
    """Texts in families: each of seven revisions rewrites a few sentences of the one before."""
    random_ = random.Random(seed)
    found = []
    for lines in (text.split("\n") for text in write_documents(language, families, seed=seed, sentences=16)):
        fresh = iter(write_documents(language, 7, seed=random_.random(), sentences=16))
        for _ in range(7):
            found.append("\n".join(lines))
            others = next(fresh).split("\n")
            for place in random_.sample(range(len(lines)), random_.randrange(5)):
                lines[place] = others[place]
    return found


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_pair_above_the_threshold_is_left_and_no_document_goes_without_a_proof(language, tmp_path):
    texts = write_revisions(language, 30, seed=11)
    sets = [shingles(text) for text in texts]
    families = [range(start, start + 7) for start in range(0, len(texts), 7)]
    pairs = {
        pair: jaccard(sets[pair[0]], sets[pair[1]]) for rows in families for pair in itertools.combinations(rows, 2)
    }
    run([write_jsonl(tmp_path / "in.jsonl", texts)], tmp_path / "out")
    partner = {int(row["removed"].split("#")[1]): int(row["kept"].split("#")[1]) for row in removals(tmp_path / "out")}
    near = [pair for pair, similarity in pairs.items() if similarity >= 0.8]
    left = [pair for pair in near if pair[0] not in partner and pair[1] not in partner]
    assert len(near) > 200
    assert len(left) <= len(near) / 1000
    assert all(kept not in partner and jaccard(sets[key], sets[kept]) >= 0.8 for key, kept in partner.items())
    middling = sum(0.5 < similarity < 0.8 for similarity in pairs.values())
    assert middling > 50  # there was something to be wrong about


def found_share(originals, copies, folder, **options):
    count = len(originals)
    run([write_jsonl(folder / "in.jsonl", originals + copies)], folder / "out", **options)
    rows = ((int(row["removed"].split("#")[1]), int(row["kept"].split("#")[1])) for row in removals(folder / "out"))
    return sum(removed == kept + count for removed, kept in rows) / count


@pytest.mark.parametrize("language", ["zh", "en"])
def test_changed_copies_are_found_for_what_they_are_copies_of(language, tmp_path):
    originals = write_documents(language, 100, seed=12, sentences=16)
    for name, change in PERTURBATIONS.items():
        share = found_share(originals, [change(text) for text in originals], tmp_path / name)
        assert share >= 0.98, name
    numbers = [other_numbers(text) for text in originals]
    assert found_share(originals, numbers, tmp_path / "numbers", fold_digits=True) >= 0.98
    parts = [text[: len(text) * 7 // 10] for text in originals]
    assert found_share(originals, parts, tmp_path / "parts", containment=0.9, bands=40, rows=3) >= 0.9


def test_chinese_with_one_wrong_character_in_a_hundred_is_found(tmp_path):
    texts = write_documents("zh", 120, seed=13, sentences=16)
    assert found_share(texts, [noisy(text) for text in texts], tmp_path) >= 0.95


def test_latin_words_in_chinese_are_taken_by_letters_so_that_noise_in_them_is_found(tmp_path):
    pairs = zip(write_documents("zh", 120, seed=14), write_documents("en", 120, seed=14), strict=True)
    texts = [f"{zh}\n{en[: 3 * len(zh)]}" for zh, en in pairs]
    noise = [noisy(text) for text in texts]
    assert found_share(texts, noise, tmp_path / "auto") >= 0.95
    assert found_share(texts, noise, tmp_path / "word", unit="word") < 0.6
