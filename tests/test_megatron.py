"""Checkpoints of GLM-130B's and GLM-10B's form, written here by a cutter of its own, read and written back."""

import argparse
import re

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training_loop import tokenizer_folder  # noqa: F401 - a fixture

from glm_data.cli.shell import run
from glm_data.errors import InputError, UsageError
from glm_data.generation.glm import load_model
from glm_data.int4 import QuantizeOptions
from glm_data.int4.linear import QuantizedLinear, is_quantized
from glm_data.int4.quantize import dequantize
from glm_data.int4.stage import quantize_stage
from glm_data.megatron import ImportOptions
from glm_data.megatron.stage import export_stage, import_stage
from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.model.store import Description, Quantization, read_description, read_tensors, save_model

HEADS, WIDTH = 4, 8
SHAPE = {"vocab": 96, "layers": 2, "hidden": HEADS * WIDTH, "heads": HEADS, "dropout": 0.1}
GLM_130B = ModelConfig(**SHAPE, ffn=88, softmax="glm-130b")
GLM_10B = ModelConfig(
    **SHAPE,
    ffn=128,
    norm="pre",
    feed_forward="gelu-tanh",
    positions="learned-2d",
    longest=17,
    shrink=1.0,
    embedding_std=0.02,
)


def weights(config, seed=3):
    """A model's tensors in FP16, none of them constant, so that no mix-up goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    shapes = build(config, 0).state_dict()
    return {name: torch.randn(tensor.shape, generator=generator).half() for name, tensor in shapes.items()}


def cut_130b(name, tensor, rank, parts):
    """What rank ``rank`` of GLM-130B holds of a tensor, row by row."""
    rows, share = list(tensor), len(tensor) // parts
    if "dense_h_to_4h" in name:
        half, share = len(rows) // 2, len(rows) // 2 // parts
        return torch.stack(
            rows[rank * share : (rank + 1) * share] + rows[half + rank * share : half + (rank + 1) * share]
        )
    if re.search(r"(\.dense|dense_4h_to_h)\.weight", name):
        share = tensor.shape[1] // parts
        return torch.stack([row[rank * share : (rank + 1) * share] for row in rows])
    if "query_key_value" in name or "word_embeddings" in name:
        return torch.stack(rows[rank * share : (rank + 1) * share])
    return tensor


def cut_10b(name, tensor, rank, parts):
    """The same of GLM-10B: first all queries of a part, then its keys, then its values; no gate."""
    if "query_key_value" in name:
        mine = range(rank * HEADS // parts, (rank + 1) * HEADS // parts)
        places = [(head * 3 + which) * WIDTH + i for which in range(3) for head in mine for i in range(WIDTH)]
        return torch.stack([tensor[place] for place in places])
    if "dense_h_to_4h" in name:
        share = len(tensor) // parts
        return torch.stack(list(tensor)[rank * share : (rank + 1) * share])
    return cut_130b(name, tensor, rank, parts)


def write_checkpoint(folder, contents, iteration="49300"):
    (folder / iteration).mkdir(parents=True)
    (folder / "latest").write_text(iteration + "\n")
    for rank, content in enumerate(contents):
        torch.save({"module": content}, folder / iteration / f"mp_rank_{rank:02d}_model_states.pt")
    return folder


def parts_130b(tensors, parts):
    contents = []
    for rank in range(parts):
        content = {"transformer." + name: cut_130b(name, tensor, rank, parts) for name, tensor in tensors.items()}
        for layer in range(2):
            content[f"transformer.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(WIDTH // 2)
        contents.append(content)
    return contents


def parts_10b(tensors, parts):
    def theirs(name):
        return name if name.startswith("word") else "transformer." + name

    return [
        {theirs(name): cut_10b(name, tensor, rank, parts) for name, tensor in tensors.items()} for rank in range(parts)
    ]


def official_quantized(content, bits):
    """GLM-130B's tool on one part, number by number in NumPy's FP16: levels, nibbles (the even column high), scales."""
    made = {}
    for name, tensor in content.items():
        if not is_quantized(name.removeprefix("transformer.")):
            made[name] = tensor
            continue
        weight = tensor.numpy()
        scale = np.float16(np.abs(weight).max(1) / np.float16(2 ** (bits - 1) - 1))
        levels = np.round(weight / scale[:, None]).astype(np.int8)
        if bits == 4:
            levels = ((levels[:, 0::2].astype(np.uint8) << 4) | (levels[:, 1::2].astype(np.uint8) & 15)).view(np.int8)
        made[name], made[name + "_scale"] = torch.from_numpy(levels), torch.from_numpy(scale)
    return made


def read_parts(folder, iteration="1"):
    paths = sorted((folder / iteration).glob("mp_rank_*"))
    return [torch.load(path, weights_only=True)["module"] for path in paths]


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize(
    ("config", "cutter", "options"),
    [(GLM_130B, parts_130b, ImportOptions()), (GLM_10B, parts_10b, ImportOptions(heads=HEADS))],
    ids=["130b", "10b"],
)
def test_parts_merge_into_the_model_and_are_cut_again(tmp_path, config, cutter, options, parts):
    tensors = weights(config)
    checkpoint = write_checkpoint(tmp_path / "theirs", cutter(tensors, parts))
    success = import_stage(checkpoint, tmp_path / "ours", options)
    found, description = load_file(tmp_path / "ours" / "model.safetensors"), read_description(tmp_path / "ours")
    assert description.model == config
    assert description.quantization is None
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert success.facts["parts"] == parts
    assert load_model(tmp_path / "ours").config.heads == HEADS
    for other in (4, 1):
        export_stage(tmp_path / "ours", tmp_path / f"back-{other}", other)
        expected = cutter(tensors, other)
        for content, wanted in zip(read_parts(tmp_path / f"back-{other}"), expected, strict=True):
            wanted = {name: tensor for name, tensor in wanted.items() if "inv_freq" not in name}
            assert content.keys() == wanted.keys()
            assert all(torch.equal(content[name], wanted[name]) for name in wanted)


def test_queries_keys_and_values_of_glm_10b_reach_their_heads(tmp_path):
    tensors = weights(GLM_10B)
    (content,) = parts_10b(tensors, 1)
    import_stage(write_checkpoint(tmp_path / "c", [content]), tmp_path / "ours", ImportOptions(heads=HEADS))
    x, name = torch.randn(5, HEADS * WIDTH), "layers.1.attention.query_key_value.weight"
    official = (x @ content["transformer." + name].float().T).chunk(3, dim=-1)  # GLM's way: thirds, then heads
    ours = (x @ load_file(tmp_path / "ours" / "model.safetensors")[name].float().T).view(5, HEADS, 3, WIDTH)
    for which in range(3):
        assert torch.allclose(ours[:, :, which], official[which].view(5, HEADS, WIDTH), atol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("parts", [1, 2])
def test_quantised_parts_are_read_and_written_to_the_bit(tmp_path, bits, parts):
    tensors = weights(GLM_130B)
    contents = [official_quantized(content, bits) for content in parts_130b(tensors, parts)]
    import_stage(write_checkpoint(tmp_path / "theirs", contents), tmp_path / "ours", ImportOptions())
    groups = {"dense": 16, "dense_4h_to_h": 44} if parts == 2 else {}
    assert read_description(tmp_path / "ours").quantization == Quantization(bits=bits, scale="absmax", groups=groups)
    model = load_model(tmp_path / "ours")
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            x = torch.randn(3, layer.columns)
            shares = [tensor.float() for tensor in x.chunk(parts, 1)]
            exact = tensors[name + ".weight"].float()
            assert float((layer(x) - layer.bias - x @ exact.T).norm() / (x @ exact.T).norm()) < (
                0.2 if bits == 4 else 0.03
            )
            if "dense_4h" in name:  # each part with scales of its own
                found = [
                    share @ official_matrix(content, "transformer." + name + ".weight", bits).T
                    for share, content in zip(shares, contents, strict=True)
                ]
                assert torch.allclose(layer(x) - layer.bias, sum(found), atol=0.3)
    export_stage(tmp_path / "ours", tmp_path / "back", parts)
    for content, wanted in zip(read_parts(tmp_path / "back"), contents, strict=True):
        wanted = {name: tensor for name, tensor in wanted.items() if "inv_freq" not in name}
        assert content.keys() == wanted.keys()
        assert all(torch.equal(content[name], wanted[name]) for name in wanted)
        assert all(content[name].dtype == wanted[name].dtype for name in wanted)


def official_matrix(content, name, bits):
    packed, scale = content[name].numpy(), content[name + "_scale"].float()
    if bits == 8:
        return torch.from_numpy(packed).float() * scale[:, None]
    levels = np.stack([packed >> 4, ((packed << 4).astype(np.int8)) >> 4], -1).reshape(len(packed), -1)
    return torch.from_numpy(levels).float() * scale[:, None]


def write_model(folder, tensors):
    """A trained model's folder, as far as quantising reads it."""
    folder.mkdir()
    save_model(folder, tensors, Description(model=GLM_130B))
    for name in ("tokenizer.model", "tokenizer.json"):
        (folder / name).write_bytes(b"{}")


def test_what_we_quantise_by_absmax_is_what_glm_130b_reads(tmp_path):
    tensors = weights(GLM_130B)
    write_model(tmp_path / "model", tensors)
    quantize_stage(tmp_path / "model", tmp_path / "q", QuantizeOptions(scale="absmax", embedding_bits=16))
    export_stage(tmp_path / "q", tmp_path / "out", 1)
    (content,) = read_parts(tmp_path / "out")
    wanted = official_quantized(parts_130b(tensors, 1)[0], 4)
    assert all(torch.equal(content[name], wanted[name]) for name in wanted if "inv_freq" not in name)
    # A row's one scale serves every part; groups within a part do not exist there.
    export_stage(tmp_path / "q", tmp_path / "out-4", 4)
    quantised = load_file(tmp_path / "q" / "model.safetensors")
    stem = "layers.0.mlp.dense_4h_to_h"
    whole = dequantize(quantised[stem + ".qweight"], quantised[stem + ".scales"], 0)
    found = [official_matrix(part, f"transformer.{stem}.weight", 4) for part in read_parts(tmp_path / "out-4")]
    assert torch.equal(torch.cat(found, 1), whole)
    narrow = msgspec.structs.replace(GLM_130B, ffn=44)
    save_model(tmp_path / "model", weights(narrow), Description(model=narrow))
    quantize_stage(tmp_path / "model", tmp_path / "narrow", QuantizeOptions())
    with pytest.raises(UsageError, match="even widths"):
        export_stage(tmp_path / "narrow", tmp_path / "no", 4)  # 11 columns each
    (tmp_path / "narrow" / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(InputError, match="damaged"):
        export_stage(tmp_path / "narrow", tmp_path / "no", 2)
    quantize_stage(tmp_path / "model", tmp_path / "grouped", QuantizeOptions(group=32))
    with pytest.raises(UsageError, match="group 0"):
        export_stage(tmp_path / "grouped", tmp_path / "neither", 1)


def test_a_packed_embedding_goes_out_unpacked(tmp_path):
    tensors = weights(GLM_130B)
    write_model(tmp_path / "model", tensors)
    quantize_stage(tmp_path / "model", tmp_path / "q", QuantizeOptions())
    export_stage(tmp_path / "q", tmp_path / "out", 2)
    parts = read_parts(tmp_path / "out")
    quantised = load_file(tmp_path / "q" / "model.safetensors")
    packed = quantised["word_embeddings.qweight"], quantised["word_embeddings.scales"]
    merged = torch.cat([part["transformer.word_embeddings.weight"] for part in parts])
    assert torch.equal(merged, dequantize(*packed, 0, torch.float16))
    assert not any("word_embeddings" in name and "scale" in name for name in parts[0])
    import_stage(tmp_path / "out", tmp_path / "again", ImportOptions(heads=HEADS))
    assert read_description(tmp_path / "again").quantization.embedding_bits == 16


def test_commands_and_tokenizer(tmp_path, tokenizer_folder, capsys):  # noqa: F811
    checkpoint = write_checkpoint(tmp_path / "theirs", parts_130b(weights(GLM_130B), 2))
    words = ["import", str(checkpoint), "--tokenizer", str(tokenizer_folder), "--out", str(tmp_path / "ours")]
    assert run(words) == 0
    assert (tmp_path / "ours" / "tokenizer.model").read_bytes() == (tokenizer_folder / "tokenizer.model").read_bytes()
    assert read_description(tmp_path / "ours").tokenizer
    assert run(words) == 0, "a finished import is found finished"
    assert run(["export-checkpoint", str(tmp_path / "ours"), "--parts", "2", "--out", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "latest").read_text() == "1"
    again = import_stage(tmp_path / "back", tmp_path / "again", ImportOptions(heads=HEADS))
    assert again.facts["family"] == "glm-130b"
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == read_tensors(tmp_path / "ours").keys()
    assert run(["export-checkpoint", str(tmp_path / "ours"), "--parts", "3", "--out", str(tmp_path / "no")]) == 2
    assert "heads is 4, which 3 parts do not divide" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda parts, path: torch.save({"module": parts[1], "args": argparse.Namespace(a=1)}, path),
            "argparse.Namespace",
        ),
        (lambda parts, path: torch.save({"module": parts[1], "more": Evil()}, path), "could run code"),
        (
            lambda parts, path: torch.save(parts[1], path, _use_new_zipfile_serialization=False),
            "no file of torch 1.6 or newer",
        ),
        (lambda parts, path: torch.save({"module": [1, 2]}, path), "no mapping"),
        (lambda parts, path: path.write_bytes(b""), "cut short"),
        (lambda parts, path: path.write_bytes(b"PK\x03\x04 nothing"), "damaged"),
        (lambda parts, path: path.write_bytes(path.read_bytes()[:-900]), "damaged"),
        (lambda parts, path: path.rename(path.with_name("mp_rank_02_model_states.pt")), "has no 'mp_rank_01"),
        (lambda parts, path: torch.save({"module": dict(list(parts[1].items())[1:])}, path), "differ in"),
        (lambda parts, path: torch.save({"module": narrowed(parts[1])}, path), "one part in 2 has"),
    ],
    ids=["namespace", "code", "old", "list", "empty", "no zip", "cut", "missing", "another", "shape"],
)
def test_bad_parts_are_refused_in_a_sentence_and_nothing_is_run(tmp_path, capsys, change, words):
    parts = parts_130b(weights(GLM_130B), 2)
    checkpoint = write_checkpoint(tmp_path / "c", parts)
    change(parts, checkpoint / "49300" / "mp_rank_01_model_states.pt")
    with pytest.raises(InputError, match=re.escape(words)):
        import_stage(checkpoint, tmp_path / "out", ImportOptions())
    assert "this ran" not in capsys.readouterr().out
    assert not (tmp_path / "out" / "model.safetensors").exists()


def narrowed(part):
    return {name: tensor[:, :-1] if name.endswith("4h_to_h.weight") else tensor for name, tensor in part.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scale: None, "lacks 'layers.1.mlp.dense_4h_to_h.weight_scale'"),
        (lambda scale: scale.float(), "with torch.float32 scales"),
        (lambda scale: scale[:-1], "with 32 scales of float16"),
    ],
    ids=["missing", "float32", "short"],
)
def test_scales_that_do_not_fit_are_refused(tmp_path, change, words):
    contents = [official_quantized(content, 4) for content in parts_130b(weights(GLM_130B), 2)]
    name = "transformer.layers.1.mlp.dense_4h_to_h.weight_scale"
    for content in contents:
        content[name] = change(content[name])
        if content[name] is None:
            del content[name]
    with pytest.raises(InputError, match=re.escape(words)):
        import_stage(write_checkpoint(tmp_path / "c", contents), tmp_path / "out", ImportOptions())


def test_models_that_are_of_neither_kind_are_refused(tmp_path):
    tensors = weights(GLM_130B)
    content = {name: tensor for name, tensor in parts_130b(tensors, 1)[0].items() if "inv_freq" not in name}
    checkpoint = write_checkpoint(tmp_path / "c", [content])
    with pytest.raises(UsageError, match="give --heads"):
        import_stage(checkpoint, tmp_path / "out", ImportOptions())
    with pytest.raises(UsageError, match="5 heads"):
        import_stage(checkpoint, tmp_path / "out", ImportOptions(heads=5))
    odd = ("layers.0.gate.weight", "layers.first.weight", "layers.weight", "layers.-1.bias", "layers.9999999999.bias")
    for place, name in enumerate(odd):
        extra = write_checkpoint(tmp_path / f"extra{place}", [{**content, f"transformer.{name}": torch.ones(2)}])
        with pytest.raises(InputError, match=r"the checkpoint (has|lacks) 'layers"):
            import_stage(extra, tmp_path / "out", ImportOptions(heads=HEADS))
    for place, name in enumerate(("word_embeddings.weight", "layers.0.attention.query_key_value.weight")):
        flat = write_checkpoint(tmp_path / f"flat{place}", [{**content, f"transformer.{name}": torch.ones(8)}])
        with pytest.raises(InputError, match=r"of shape .8.; it has to be a matrix"):
            import_stage(flat, tmp_path / "out", ImportOptions(heads=HEADS))
    (tmp_path / "c" / "latest").write_text("../c/49300")
    with pytest.raises(InputError, match="which is not there"):
        import_stage(checkpoint, tmp_path / "out", ImportOptions(heads=HEADS))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no 'mp_rank_00"):
        import_stage(tmp_path / "empty", tmp_path / "out", ImportOptions())
    (tmp_path / "rms").mkdir()
    config = msgspec.structs.replace(GLM_130B, norm="rms")
    save_model(tmp_path / "rms", build(config, 0).state_dict(), Description(model=config))
    with pytest.raises(UsageError, match="rms norm"):
        export_stage(tmp_path / "rms", tmp_path / "out", 1)
