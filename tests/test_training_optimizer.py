import pytest
import torch
import torch.nn.functional as F

from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.training import head_loss
from glm_data.training.optimizer import Muon, Optimizers, join_matrices, orthogonalise, split_matrices
from glm_data.training.options import TrainOptions

CONFIG = ModelConfig(vocab=32, layers=2, hidden=16, heads=2, ffn=24)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_update_is_nearly_the_orthogonal_factor(shape):
    matrix = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrix) / max(1.0, shape[0] / shape[1]) ** 0.5
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    cosine = (found * (u @ v)).sum((1, 2)) / (found.norm(dim=(1, 2)) * (u @ v).norm(dim=(1, 2)))
    assert cosine.min() > 0.97


def test_fused_matrices_are_taken_apart_per_head_and_half():
    qkv = torch.arange(2 * 3 * 4).repeat_interleave(8).view(24, 8)  # row r holds r everywhere
    parts = split_matrices(qkv, 2)
    assert parts[:, :, 0].tolist() == [
        [0, 1, 2, 3, 12, 13, 14, 15],
        [4, 5, 6, 7, 16, 17, 18, 19],
        [8, 9, 10, 11, 20, 21, 22, 23],
    ]
    assert torch.equal(join_matrices(parts, 2), qkv)
    glu = torch.randn(10, 3)
    assert torch.equal(split_matrices(glu, "glu")[1], glu[5:])
    assert torch.equal(join_matrices(split_matrices(glu, "glu"), "glu"), glu)
    assert torch.equal(join_matrices(split_matrices(glu, "whole"), "whole"), glu)


def test_muon_step_written_out():
    weight = torch.nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)))
    start = weight.detach().clone()
    muon = Muon([{"params": [weight]}], momentum=0.9, weight_decay=0.1)
    muon.param_groups[0]["lr"] = 0.02
    gradients = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2))
    momentum, expected = torch.zeros(4, 6), start
    for gradient in gradients:
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        direction = orthogonalise((0.1 * gradient + 0.9 * momentum)[None])[0]
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * direction
    assert torch.allclose(weight, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_is_moved_by_exactly_one_part_and_saved_once(kind):
    model = build(CONFIG, 0)
    options = TrainOptions(optimizer=kind, lr=0.01, embedding_lr=0.03, matrix_lr=0.05, weight_decay=0.1)
    optimizers = Optimizers(dict(model.named_parameters()), 2, options)
    owned = [p for part in optimizers.parts for group in part.param_groups for p in group["params"]]
    assert len(owned) == len({id(p) for p in owned}) == len(list(model.parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers.step(0.5)
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    moved = (before["word_embeddings.weight"] * (1 - 0.015 * 0.1) - model.word_embeddings.weight).abs().max()
    assert moved.item() == pytest.approx(0.015, rel=1e-3)
    names = [name for name, _ in model.named_parameters()]
    in_layers = {name for name in names if name.endswith(("dense.weight", "value.weight", "4h.weight", "to_h.weight"))}
    expected = {f"momentum/{name}" for name in in_layers} if kind == "muon" else set()
    adam = set(names) - in_layers if kind == "muon" else set(names)
    expected |= {f"{moment}/{name}" for name in adam for moment in ("exp_avg", "exp_avg_sq")}
    assert set(optimizers.tensors()) == expected


def test_vectors_do_not_decay():
    model = build(CONFIG, 0)
    optimizers = Optimizers(dict(model.named_parameters()), 2, TrainOptions(weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(1.0)
    assert torch.equal(model.final_layernorm.weight, torch.ones(16))


@pytest.mark.parametrize("tokens", [1, 7, 20])
def test_loss_in_chunks_equals_head_and_cross_entropy(monkeypatch, tokens):
    monkeypatch.setattr(head_loss, "CHUNK", 7)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(tokens, 5, generator=generator, dtype=torch.float64)
    weight = 30 * torch.randn(11, 5, generator=generator, dtype=torch.float64)  # scores that overflow without care
    weights = torch.rand(tokens, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 11, (tokens,), generator=generator)

    def gradients(function):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        loss, losses = function(*leaves)
        (3 * loss).backward()
        return loss.detach(), losses.detach(), *(leaf.grad for leaf in leaves)

    def plain(x, weight):
        losses = F.cross_entropy(x @ weight.T, targets, reduction="none")
        return losses @ weights, losses

    found = gradients(lambda x, weight: head_loss.head_loss(x, weight, targets, weights))
    for one, other in zip(found, gradients(plain), strict=True):
        assert torch.allclose(one, other, atol=1e-12)
