import copy

import pytest
import torch
from pc_2dteachers import Teacher, TeacherConcat, sample_pixels
from torch import nn

from tests.lanes import unchecked_only


def read_network(network, image):
    return network(image)


def tiny_teacher(*, stride=2, channels=4, **options):
    torch.manual_seed(stride)
    network = nn.Sequential(
        nn.Conv2d(3, channels, stride, stride), nn.BatchNorm2d(channels), nn.Dropout(0.5)
    )
    return Teacher(
        network,
        read_network,
        name="tiny",
        out_dim=channels,
        stride=stride,
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.6, 0.7),
        **options,
    )


def image(height=4, width=8):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


class Method(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = nn.Linear(3, 4)
        self.teacher = tiny_teacher()


def test_normalises_inside():
    teacher = tiny_teacher()
    rgb = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(teacher(rgb), teacher.network(torch.zeros(1, 3, 2, 2)))
    plus = rgb + torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    torch.testing.assert_close(teacher(plus), teacher.network(torch.ones(1, 3, 2, 2)))


def test_stays_in_eval_mode_and_frozen_inside_a_method_in_training():
    method = Method()
    method.train()
    assert method.student.training
    assert not any(module.training for module in method.teacher.modules())
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    before = method.teacher.network[1].running_mean.clone()
    assert torch.equal(method.teacher(image()), method.teacher(image()))
    assert torch.equal(method.teacher.network[1].running_mean, before)


def test_gives_no_gradient_even_if_asked_to():
    teacher = tiny_teacher()
    teacher.requires_grad_(True)
    assert not teacher(image().requires_grad_(True)).requires_grad


def test_is_not_part_of_a_methods_checkpoint():
    saved = Method()
    state = saved.state_dict()
    assert set(state) == {"student.weight", "student.bias"}
    method = Method()
    with torch.no_grad():
        method.teacher.network[0].weight.fill_(3.0)
    own = copy.deepcopy(method.teacher.network.state_dict())
    method.load_state_dict(state, strict=True)
    assert torch.equal(method.student.weight, saved.student.weight)
    assert all(torch.equal(v, own[k]) for k, v in method.teacher.network.state_dict().items())


def test_a_methods_own_keys_stay_strict():
    state = Method().state_dict()
    del state["student.bias"]
    with pytest.raises(RuntimeError, match=r"student\.bias"):
        Method().load_state_dict(state)


def test_copies_read_their_own_network():
    teacher = tiny_teacher()
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.network[0].weight.zero_()
    assert not torch.equal(teacher(image()), other(image()))
    nn.ModuleList([other]).load_state_dict({})
    assert not other.network[0].weight.any()


def test_runs_in_the_precision_it_was_moved_to():
    assert tiny_teacher().to(torch.bfloat16)(image()).dtype == torch.bfloat16


@unchecked_only
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3, 4, 4), r"float images of shape \[b, 3, h, w\]"),
        (torch.zeros(1, 1, 4, 4), r"\[b, 3, h, w\]"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"torch.uint8 .*; scale bytes to 0..1"),
        (torch.full((1, 3, 4, 4), 255.0), r"values in 0..1, got 255 to 255"),
        (torch.full((1, 3, 4, 4), float("nan")), r"values in 0..1, got nan"),
        (torch.zeros(1, 3, 5, 8), r"multiples of 2, got 5x8; resize to 4x8"),
        (torch.zeros(1, 3, 4, 0), r"multiples of 2, got 4x0"),
    ],
)
def test_wrong_images_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny_teacher()(wrong)


def test_a_fixed_image_size_is_kept_to():
    teacher = tiny_teacher(image_size=(4, 4))
    assert teacher(image(4, 4)).shape == (2, 4, 2, 2)
    with pytest.raises(ValueError, match=r"images of 4x4 .* only, got 4x8"):
        teacher(image(4, 8))


def test_a_size_is_asked_for_without_an_image():
    both = TeacherConcat([tiny_teacher(stride=2), tiny_teacher(stride=3)])
    both.require_size((12, 18))
    with pytest.raises(ValueError, match="multiples of 3, got 12x16; resize to 12x15"):
        both.require_size((12, 16))
    with pytest.raises(ValueError, match=r"images of 4x4 .* only, got 4x8"):
        tiny_teacher(image_size=(4, 4)).require_size((4, 8))


def test_concatenation_reads_every_teacher_at_the_points():
    teachers = [tiny_teacher(stride=2), tiny_teacher(stride=3, channels=5)]
    both = TeacherConcat(teachers)
    assert (both.out_dim, both.stride) == (9, 6)
    maps = both(image(12, 18))
    assert [tuple(one.shape) for one in maps] == [(2, 4, 6, 9), (2, 5, 4, 6)]
    pixel = torch.tensor([[0.0, 0.0], [17.0, 5.0], [3.0, 11.0]])
    image_index = torch.tensor([0, 1, 1])
    got = sample_pixels(maps, pixel, image_index, image_size=(18, 12))
    want = [
        sample_pixels(t(image(12, 18)), pixel, image_index, image_size=(18, 12)) for t in teachers
    ]
    assert torch.equal(got, torch.cat(want, dim=1))
    assert both.state_dict() == {}
    assert not any(module.training for t in both.train().teachers for module in t.modules())


def test_concatenation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one teacher"):
        TeacherConcat([])
