import math

import msgspec
import numpy as np
import pytest
import torch

from glm_data.errors import ConfigError
from glm_data.model.attention import PieceAttention, lay_out, mask_of_pieces, scaled_softmax
from glm_data.model.config import PRESETS, ModelConfig, count_parameters, preset
from glm_data.model.model import GLM, build, rotary_table, rotate, shrink_gradient, valueless
from glm_data.model.neighbours import OFFSETS

TOY = ModelConfig(vocab=23, layers=2, hidden=8, heads=2, ffn=6, norm="deepnorm", shrink=0.1, embedding_std=0.5)
PRE = msgspec.structs.replace(TOY, norm="pre", shrink=1.0)
RMS = msgspec.structs.replace(TOY, norm="rms", positions="learned-2d", longest=9, feed_forward="gelu", shrink=0.5)
OWN_SOFTMAX = msgspec.structs.replace(TOY, softmax="glm-130b")
PIECES = np.array([[0, 5, 9, 1], [9, 12, 15, 0]])
POSITIONS = torch.tensor([0, 1, 2, 3, 4, 2, 2, 1, 1, 0, 1, 2, 3, 4, 5])
BLOCKS = torch.tensor([0, 0, 0, 0, 0, 1, 2, 1, 2, 0, 0, 0, 1, 2, 3])
PREDICT = torch.tensor([5, 6, 7, 8, 12, 13, 14])


def toy(config, seed=3):
    model = build(config, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # biases and norms start at 0 and 1, where mistakes could hide
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    tokens = torch.randint(0, config.vocab, (15,), generator=generator)
    targets = torch.randint(0, config.vocab, (7,), generator=generator)
    return model, tokens, targets


def plain_glm(weights, config, tokens, positions, visible, predict):
    """GLM written out position by position and head by head from the paper, sharing no code with the network."""
    embedding = weights["word_embeddings.weight"]
    seen = embedding * config.shrink + embedding.detach() * (1 - config.shrink)
    width = config.hidden // config.heads
    alpha = math.sqrt(2 * config.layers)

    def norm(vector, name):
        if config.norm == "rms":
            return vector / torch.sqrt((vector**2).mean() + 1e-5) * weights[name + ".weight"]
        centred = vector - vector.mean()
        return centred / torch.sqrt((centred**2).mean() + 1e-5) * weights[name + ".weight"] + weights[name + ".bias"]

    def linear(vector, name):
        return weights[name + ".weight"] @ vector + weights[name + ".bias"]

    def turn(vector, position):
        if config.positions == "learned-2d":
            return vector
        out = list(range(width))
        for i in range(width // 2):
            angle = position * config.rope_base ** (-2 * i / width)
            a, b = vector[i], vector[i + width // 2]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
        return torch.stack(out)

    x = [seen[token] for token in tokens.tolist()]
    if config.positions == "learned-2d":
        places, blocks = weights["position_embeddings.weight"], weights["block_position_embeddings.weight"]
        x = [
            vector + places[p] + blocks[b] for vector, p, b in zip(x, positions.tolist(), BLOCKS.tolist(), strict=True)
        ]
    for layer in range(config.layers):
        at = f"layers.{layer}."
        h = [norm(vector, at + "input_layernorm") for vector in x]
        fused = [linear(vector, at + "attention.query_key_value") for vector in h]
        mixed = []
        for i in range(len(x)):
            heads = []
            for head in range(config.heads):
                q, k, v = ([f[(head * 3 + part) * width :][:width] for f in fused] for part in range(3))
                keys = [j for j in range(len(x)) if visible[i, j]]
                query = turn(q[i], positions[i].item())
                scores = torch.stack([query @ turn(k[j], positions[j].item()) for j in keys]) / math.sqrt(width)
                share = torch.exp(scores - scores.max())
                heads.append(sum(s * v[j] for s, j in zip(share / share.sum(), keys, strict=True)))
            mixed.append(linear(torch.cat(heads), at + "attention.dense"))
        x = [alpha * b + m if config.norm == "deepnorm" else a + m for a, b, m in zip(x, h, mixed, strict=True)]
        h = [norm(vector, at + "post_attention_layernorm") for vector in x]
        for i, vector in enumerate(h):
            inner = linear(vector, at + "mlp.dense_h_to_4h")
            x1, x2 = (inner[: config.ffn], inner[config.ffn :]) if config.feed_forward == "geglu" else (1, inner)
            gelu = x2 * 0.5 * (1 + torch.erf(x2 / math.sqrt(2)))
            out = linear(x1 * gelu, at + "mlp.dense_4h_to_h")
            x[i] = alpha * vector + out if config.norm == "deepnorm" else x[i] + out
    return torch.stack([seen @ norm(x[i], "final_layernorm") for i in predict.tolist()])


def log_loss(logits, targets):
    return -(logits - logits.logsumexp(1, keepdim=True))[torch.arange(len(targets)), targets].mean()


@pytest.mark.parametrize("config", [TOY, PRE, RMS, OWN_SOFTMAX], ids=["deepnorm", "pre", "rms-2d-gelu", "softmax"])
def test_logits_loss_and_every_gradient_equal_the_plain_reference(config):
    model, tokens, targets = toy(config)
    layout = lay_out([PIECES], 15)
    flat = torch.from_numpy(layout.index_T)
    at = {int(place): number for number, place in enumerate(flat)}
    predict = torch.tensor([at[int(place)] for place in PREDICT])
    places = POSITIONS[flat] if config.positions == "rotary" else torch.stack([POSITIONS, BLOCKS])[:, flat]
    logits = model(tokens[flat], places, PieceAttention(layout.groups, softmax=config.softmax), predict)
    log_loss(logits, targets).backward()

    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    expected = plain_glm(weights, config, tokens, POSITIONS, mask_of_pieces(PIECES, 15), PREDICT)
    log_loss(expected, targets).backward()
    assert torch.allclose(logits, expected, atol=1e-11)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, weights[name].grad, atol=1e-11), name


def test_a_piece_does_not_see_another():
    model, tokens, _ = toy(TOY)
    layout = lay_out([PIECES], 15)
    other = tokens.clone()
    other[9:] = (other[9:] + 1) % TOY.vocab
    flat = torch.from_numpy(layout.index_T)
    first, second = (model(t[flat], POSITIONS[flat], PieceAttention(layout.groups)) for t in (tokens, other))
    untouched = flat < 9
    assert torch.equal(first[untouched], second[untouched])
    assert not torch.allclose(first[~untouched], second[~untouched])


def test_part_a_does_not_see_part_b_and_spans_do_not_see_later_ones():
    model, tokens, _ = toy(TOY)
    layout = lay_out([PIECES[:1]], 9)
    other = tokens.clone()
    other[7] = (other[7] + 1) % TOY.vocab
    first, second = (model(t[:9], POSITIONS[:9], PieceAttention(layout.groups)) for t in (tokens, other))
    assert torch.equal(first[:7], second[:7])
    assert not torch.allclose(first[8], second[8])


def test_head_only_at_predicting_places_gives_the_same_logits():
    model, tokens, _ = toy(TOY)
    layout = lay_out([PIECES], 15)
    attend = PieceAttention(layout.groups)
    full = model(tokens, POSITIONS, attend)
    assert torch.allclose(model(tokens, POSITIONS, attend, PREDICT), full[PREDICT], atol=1e-12)


def test_golden_loss_of_a_seeded_tiny_model():
    """Whoever changes the start, the network or the loss changes this figure, and should know it."""
    config = msgspec.structs.replace(TOY, hidden=16, heads=4, ffn=12)
    model = build(config, 5)
    groups = lay_out([PIECES], 15).groups
    tokens = torch.arange(15) * 7 % config.vocab
    logits = model(tokens, POSITIONS, PieceAttention(groups), PREDICT)
    assert log_loss(logits, torch.arange(7)).item() == pytest.approx(6.4155, abs=2e-5)


def test_recomputing_layers_gives_the_same_gradients():
    model, tokens, targets = toy(TOY)
    attend = PieceAttention(lay_out([PIECES], 15).groups)
    gradients = []
    for model.recompute in (False, True):
        model.zero_grad()
        log_loss(model(tokens, POSITIONS, attend, PREDICT), targets).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_scaled_softmax_does_not_overflow_where_plain_scores_do():
    q = k = torch.full((1, 1, 2, 64), 70.0, dtype=torch.float16)
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float16).view(1, 1, 2, 2)
    assert not torch.isfinite(q @ k.mT).all()
    weights = scaled_softmax(q, k, None, 60)
    assert torch.equal(weights @ v, torch.full((1, 1, 2, 2), 0.5, dtype=torch.float16))


def test_published_size_is_counted_without_allocating():
    assert count_parameters(preset("130b")) == 128_697_794_560
    assert round(count_parameters(preset("130b")) / 1e9, 2) == 128.70
    assert round(count_parameters(preset("glm-10b")) / 1e9, 2) == 9.88


@pytest.mark.parametrize("name", PRESETS)
def test_count_equals_the_built_network(name):
    config = preset(name)
    with torch.device("meta"):
        model = GLM(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(config)


def test_preset_takes_a_vocabulary_and_an_unknown_one_suggests():
    assert preset("110m", 512).vocab == 512
    with pytest.raises(ConfigError, match="Did you mean 'tiny'"):
        preset("tinny")


@pytest.mark.parametrize(
    "change",
    [
        {"neighbours": -1.0},
        {"heads": 3},
        {"hidden": 6},
        {"layers": 0},
        {"shrink": 0.0},
        {"shrink": 1.1},
        {"dropout": 1.0},
    ],
)
def test_shapes_that_cannot_be_built_are_refused(change):
    with pytest.raises(ConfigError, match=r"model\."):
        ModelConfig(**{**msgspec.structs.asdict(TOY), **change})


def test_value_gets_its_gain_in_every_head():
    config = ModelConfig(vocab=8, layers=8, hidden=256, heads=4, ffn=512)
    layer = build(config, 0).layers[5]
    qkv = layer.attention.query_key_value.weight.detach().view(4, 3, 64, 256)
    unit = 256**-0.5
    assert torch.allclose(qkv[:, :2].std((2, 3)), torch.tensor(unit), rtol=0.05)
    assert torch.allclose(qkv[:, 2].std((1, 2)), torch.tensor(unit / 4), rtol=0.05)  # (2 x 8)^-1/2
    for weight in (layer.mlp.dense_h_to_4h.weight, layer.mlp.dense_4h_to_h.weight):
        assert weight.std().item() == pytest.approx((2 / 768) ** 0.5 / 4, rel=0.03)


def test_start_is_a_function_of_the_seed_and_biases_are_zero():
    first, second, third = (dict(build(TOY, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["layers.0.mlp.dense_4h_to_h.weight"], third["layers.0.mlp.dense_4h_to_h.weight"])
    assert all(not p.any() for name, p in first.items() if name.endswith("bias"))


def test_heads_can_start_by_looking_at_their_neighbours():
    config = msgspec.structs.replace(TOY, hidden=64, heads=4, layers=2, neighbours=12.0)
    seen = {}

    def attend(layer, q_THK, k_THK, v_THK):
        scores_HTT = torch.einsum("thk,shk->hts", q_THK, k_THK) / 4
        for head in range(4):
            away = scores_HTT[head, 10].argmax().item() - 10
            seen[layer, head] = (away, scores_HTT[head, 10].max().item())
        return v_THK

    model = build(config, 0)
    with torch.no_grad():  # what tokens are must not matter here
        for layer in model.layers:
            layer.attention.query_key_value.weight.zero_()
    model(torch.arange(20), torch.arange(20), attend)
    assert [away for away, _ in seen.values()] == list(OFFSETS)
    assert all(score == pytest.approx(12.0, abs=1e-4) for _, score in seen.values())
    assert not any(layer.attention.query_key_value.bias.any() for layer in build(TOY, 0).layers)


def test_shrink_leaves_the_value_and_shrinks_the_gradient():
    weight = torch.randn(5, 3, requires_grad=True)
    shrunk = shrink_gradient(weight, 0.1)
    assert torch.equal(shrunk, weight)
    shrunk.sum().backward()
    assert torch.allclose(weight.grad, torch.full((5, 3), 0.1))
    assert shrink_gradient(weight, 1.0) is weight


def test_rotary_scores_depend_on_the_distance_only():
    q, k = torch.randn(2, 1, 2, 4, dtype=torch.float64)

    def score(i, j):
        q_cos, q_sin = rotary_table(torch.tensor([i]), TOY, torch.float64)
        k_cos, k_sin = rotary_table(torch.tensor([j]), TOY, torch.float64)
        return (rotate(q[:, :, None], q_cos, q_sin) * rotate(k[:, :, None], k_cos, k_sin)).sum().item()

    assert score(7, 3) == pytest.approx(score(2004, 2000), abs=1e-12)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-6)


@pytest.mark.parametrize("config", [TOY, RMS])
def test_a_valueless_network_has_the_names_and_shapes_and_draws_nothing(config, monkeypatch):
    whole = GLM(config).state_dict()

    def refuse(*_, **__):
        raise AssertionError("nothing is to be initialised")

    monkeypatch.setattr(torch.nn.init, "_no_grad_normal_", refuse)
    found = valueless(config).state_dict()
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in whole.items()}
    assert all(tensor.is_meta for tensor in found.values())
