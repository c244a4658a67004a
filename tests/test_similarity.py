"""Claims about similarity maps and layer matches."""

import itertools

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.testing import assert_close

from lightning_kd.errors import ShapeError, TapError, TermError
from lightning_kd.losses import cka
from lightning_kd.similarity import LayerMatch, SimilarityMap, match_layers, similarity_map
from lightning_kd.teachers import FrozenTeacher

EXACT = {"rtol": 1e-5, "atol": 1e-6}


class Block(nn.Module):
    """A residual block that distorts what it gets."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.normal_(self.linear.weight, std=2 / width**0.5)

    def forward(self, x):
        return x + torch.relu(self.linear(x))


class Chain(nn.Module):
    """A stem and blocks applied in a given order."""

    def __init__(self, depth=4, width=12, order=None):
        super().__init__()
        self.stem = nn.Linear(6, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.order = order or range(depth)

    def forward(self, x):
        x = self.stem(x)
        for index in self.order:
            x = self.blocks[index](x)
        return x


class Parallel(nn.Module):
    """Blocks side by side, so that their order of running is free."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        return torch.stack([block(x) for block in self.blocks]).sum(dim=0)


def inputs(count=4, size=32, width=6):
    return list(torch.randn(count, size, width))


def a_map(values):
    values = torch.as_tensor(values, dtype=torch.float64)
    names = [tuple(f"{whose}{index}" for index in range(size)) for whose, size in zip("st", values.shape, strict=True)]
    return SimilarityMap(*names, values, samples=100)


def indices(matches):
    return [(int(match.student[1:]), int(match.teacher[1:])) for match in matches]


def test_values_are_the_cka_of_the_flattened_features():
    student, teacher = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh())
    images = torch.randn(20, 1, 6, 6)
    with torch.no_grad():
        features = [[model[:1](images), model(images)] for model in (student, teacher)]
    similarity = similarity_map(student, teacher, [images])
    expected = torch.tensor([[cka(s.flatten(1), t.flatten(1)) for t in features[1]] for s in features[0]])
    assert similarity.student_layers == similarity.teacher_layers == ("0", "1")
    assert_close(similarity.values.float(), expected, **EXACT)


def test_layers_with_positions_are_those_that_return_maps_or_tokens():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 4), nn.Flatten(), nn.Linear(4, 3))
    similarity = similarity_map(net, net, [torch.randn(8, 1, 6, 6)])
    assert similarity.student_layers == ("0", "1", "2", "4")
    assert similarity.student_positions == similarity.teacher_positions == (True, True, False, False)
    part = similarity.with_positions()
    assert part.student_layers == part.teacher_layers == ("0", "1")
    assert_close(part.values, similarity.values[:2, :2])


def test_a_network_without_positions_cannot_be_reduced_to_them():
    similarity = similarity_map(Chain(), nn.Sequential(nn.Linear(6, 6), nn.ReLU()), inputs())
    with pytest.raises(TapError, match="none of the student's layers that can be compared returns them"):
        similarity.with_positions()
    assert (unknown := a_map([[0.5]])).with_positions() is unknown


def test_a_network_matches_itself_along_the_diagonal():
    net = Chain()
    similarity = similarity_map(net, net, inputs())
    assert_close(similarity.values.diagonal(), torch.ones(4, dtype=torch.float64), **EXACT)
    diagonal = [(f"blocks.{i}", f"blocks.{i}") for i in range(4)]
    for monotone in (False, True):
        matches = match_layers(similarity, monotone=monotone)
        assert [(match.student, match.teacher) for match in matches] == diagonal


def test_a_copy_with_permuted_layers_matches_along_the_permutation():
    blocks, order = [Block(6) for _ in range(5)], [3, 0, 4, 1, 2]
    student, teacher = Parallel(blocks), Parallel([blocks[index] for index in order])
    matches = match_layers(similarity_map(student, teacher, inputs()))
    assert [match.teacher for match in matches] == [f"blocks.{order.index(index)}" for index in range(5)]


def test_layers_are_listed_in_the_order_in_which_they_run():
    order = [2, 0, 3, 1]
    net = Chain(order=order)
    assert similarity_map(net, Chain(), inputs()).student_layers == tuple(f"blocks.{index}" for index in order)


def test_compares_blocks_and_stages_of_networks_of_different_families():
    student, teacher = timm.create_model("resnet10t"), timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3)
    similarity = similarity_map(student, teacher, [torch.randn(8, 3, 32, 32)])
    assert similarity.student_layers == ("layer1.0", "layer2.0", "layer3.0", "layer4.0")
    assert similarity.teacher_layers == ("blocks.0", "blocks.1", "blocks.2")
    assert similarity.values.isfinite().all()


def test_blocks_are_found_as_siblings_of_one_class():
    net = timm.create_model("regnety_002")
    layers = similarity_map(net, net, [torch.randn(4, 3, 32, 32)]).student_layers
    # Stages s1 and s2 have one block each; s3 and s4 return the tensor of their last block.
    assert layers == ("s1", "s2", *(f"s3.b{i}" for i in range(1, 5)), *(f"s4.b{i}" for i in range(1, 8)))


def test_a_plain_network_is_compared_leaf_by_leaf():
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 2))
    # In-place activations change the tensor after it was compared; dropout neither has parameters nor activates.
    assert similarity_map(net, net, inputs()).student_layers == ("0", "1", "2", "4")


def test_of_two_layers_that_return_the_same_tensor_the_inner_one_is_kept():
    net = nn.Sequential(nn.Sequential(Block(6), Block(6)), Parallel([Block(6)]))

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([net, Parallel([Block(6)])])

        def forward(self, x):
            return self.stages[1](self.stages[0](x))

    layers = similarity_map(Outer(), Outer(), inputs()).student_layers
    assert "stages.0.0.1" in layers
    assert "stages.0" not in layers
    assert len(set(layers)) == len(layers)


def test_any_split_into_batches_gives_about_the_same_value():
    student, teacher, data = Chain(depth=2), Chain(depth=3), torch.randn(1024, 6)
    whole = similarity_map(student, teacher, [data])
    for size in (16, 100):
        split = similarity_map(student, teacher, data.split(size))
        assert split.samples == 1024
        assert_close(split.values, whole.values, rtol=0.0, atol=0.05)


def test_batches_too_small_to_be_compared_are_left_out():
    net, batches = Chain(depth=2), inputs(2)
    expected = similarity_map(net, net, batches)
    similarity = similarity_map(net, net, [*batches, torch.randn(3, 6)])
    assert similarity.samples == expected.samples == 64
    assert_close(similarity.values, expected.values, rtol=0.0, atol=0.0)


def test_both_networks_get_their_modes_back_and_keep_no_hook():
    student, teacher = nn.Sequential(Block(6), nn.Dropout(), Block(6)), FrozenTeacher(Chain())
    student[2].eval()
    modes = [module.training for module in student.modules()]
    batches = inputs()
    first, second = (similarity_map(student, teacher, batches).values for _ in range(2))
    assert_close(first, second, rtol=0.0, atol=0.0)  # dropout was off
    assert [module.training for module in student.modules()] == modes
    assert not any(module._forward_hooks for model in (student, teacher) for module in model.modules())


def test_hooks_are_removed_when_a_network_fails():
    net = Chain()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        similarity_map(net, Chain(), [torch.randn(8, 5)])
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_batch_statistics_stay_as_they_are():
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    similarity_map(net, net, inputs())
    assert net[1].num_batches_tracked == 0


def test_takes_positional_and_keyword_arguments():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Block(6), Block(6)])

        def forward(self, x, offset):
            return self.blocks[1](self.blocks[0](x + offset))

    net, (x, offset) = Sum(), inputs(2)
    by_position, by_name = (similarity_map(net, net, [batch]) for batch in ((x, offset), {"x": x, "offset": offset}))
    assert_close(by_position.values, by_name.values, rtol=0.0, atol=0.0)


def test_a_frozen_teacher_sees_its_transformed_input():
    class Reversed(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.flip(1))

    student, teacher, batches = Chain(), Chain(), inputs()
    similarity = similarity_map(student, FrozenTeacher(teacher, input_transform=lambda x: x.flip(1)), batches)
    assert similarity.teacher_layers == tuple(f"blocks.{index}" for index in range(4))
    assert_close(similarity.values, similarity_map(student, Reversed(teacher), batches).values, rtol=0.0, atol=0.0)


def test_half_precision_networks_are_compared_in_single_precision():
    net = Chain().bfloat16()
    similarity = similarity_map(net, net, [batch.bfloat16() for batch in inputs()])
    assert_close(similarity.values.diagonal(), torch.ones(4, dtype=torch.float64), **EXACT)


def test_named_layers_are_taken_by_path_and_by_pattern():
    similarity = similarity_map(
        Chain(), Chain(), inputs(), student_layers=["blocks.1", "stem"], teacher_layers=["blocks.*.linear"]
    )
    assert similarity.student_layers == ("stem", "blocks.1")
    assert similarity.teacher_layers == tuple(f"blocks.{index}.linear" for index in range(4))


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(TapError, match=r"`block\.1` names no module of the teacher \(Chain\); nearest: 'blocks\.1'"):
        similarity_map(Chain(), Chain(), inputs(), teacher_layers=["block.1"])


def test_a_named_layer_that_does_not_run_once_is_refused():
    with pytest.raises(TapError, match=r"student layer 'blocks\.3' cannot be compared: its module ran 0 times"):
        similarity_map(Chain(order=[0, 1, 2]), Chain(), inputs(), student_layers=["blocks.*"])
    with pytest.raises(TapError, match=r"student layer 'blocks\.0' cannot be compared: its module ran 2 times"):
        similarity_map(Chain(order=[0, 1, 0]), Chain(), inputs(), student_layers=["blocks.0"])


def test_a_named_layer_without_a_row_per_sample_is_refused():
    class Transposing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 5)

        def forward(self, x):
            return self.linear(x.T).T

    with pytest.raises(TapError, match=r"'linear' cannot be compared: it returned .* of shape \(6, 5\) for 32 samples"):
        similarity_map(Transposing(), Chain(), inputs(), student_layers=["linear"])
    with pytest.raises(TapError, match=r"the student \(Transposing\) has no layer that .* name the layers to compare"):
        similarity_map(Transposing(), Chain(), inputs())


def test_features_that_are_not_finite_are_refused():
    net = Chain()
    with torch.no_grad():
        net.blocks[2].linear.bias[0] = torch.nan
    with pytest.raises(TermError, match=r"features of the teacher layer 'blocks\.2' are not finite"):
        similarity_map(Chain(), net, inputs())


def test_fewer_than_four_samples_are_refused():
    for batches in ([], [torch.randn(3, 6)]):
        with pytest.raises(ShapeError, match="`batches` must hold a batch of at least 4 samples, got none"):
            similarity_map(Chain(), Chain(), batches)


def test_batches_without_tensors_are_refused():
    with pytest.raises(ShapeError, match=r"`batches` must hold tensors .*, got \['list'\]"):
        similarity_map(Chain(), Chain(), [[torch.randn(8, 6)]])


matrices = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-8, 8).map(lambda eighths: eighths / 8))
)


@given(matrices)
def test_matching_in_order_is_the_best_of_all_ways(values):
    rows, columns = values.shape
    pairs = indices(match_layers(a_map(values), monotone=True))
    count = min(rows, columns)
    best = max(
        values[list(chosen_rows), list(chosen_columns)].sum()
        for chosen_rows in itertools.combinations(range(rows), count)
        for chosen_columns in itertools.combinations(range(columns), count)
    )
    assert len(pairs) == count
    assert all(s < next_s and t < next_t for (s, t), (next_s, next_t) in itertools.pairwise(pairs))
    assert sum(values[pair] for pair in pairs) == best


@given(matrices)
def test_matching_freely_takes_the_best_of_each_student_layer(values):
    matches = match_layers(a_map(values))
    assert [match.student for match in matches] == [f"s{row}" for row in range(len(values))]
    assert [match.similarity for match in matches] == values.max(axis=1).tolist()


@given(matrices, st.integers(1, 6), st.booleans())
def test_top_keeps_the_most_similar_in_the_order_of_the_network(values, top, monotone):
    every = match_layers(a_map(values), monotone=monotone)
    kept = match_layers(a_map(values), top=top, monotone=monotone)
    assert len(kept) == min(top, len(every))
    assert kept == [match for match in every if match in kept]
    left = [match.similarity for match in every if match not in kept]
    assert min(match.similarity for match in kept) >= max(left, default=-np.inf)


def test_matches_carry_their_similarity():
    assert match_layers(a_map([[0.25, 0.5]])) == [LayerMatch("s0", "t1", 0.5)]


def test_matching_refuses_less_than_one_pair():
    with pytest.raises(ValueError, match="`top` must be at least 1 pair, got 0"):
        match_layers(a_map([[1.0]]), top=0)
