"""A cache teaches what the network would, serves what it holds, and says what it has not."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_kd import CKAKD, Distiller, FeatureKD, LogitKD
from lightning_kd.errors import CacheError, SetupError
from lightning_kd.schedules import Progress
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Tap
from lightning_kd.teachers.cache import CropReplay, RegionCalibration, SeededReplay, SelfMix, TeacherCache, Views

FULL = {"top_k": None, "precision": "float32"}


def observe(cache, batch, **options):
    return cache.observe(Inputs((batch[0],)), step=Step(batch=batch), **options)


def batch_of(data, size=4):
    return next(iter(DataLoader(data, batch_size=size)))


def test_stored_logits_come_back_as_they_are(teacher, plain, write):
    cache = TeacherCache(write(teacher, plain, batch_size=4, **FULL))
    batch = batch_of(cache.dataset(plain))
    with torch.no_grad():
        expected = teacher.eval()(batch[0])
    assert torch.equal(observe(cache, batch).output, expected)
    assert cache.serves == ("output",)
    assert cache.module is None


def test_sparse_probabilities_come_back_as_the_logits_of_their_distribution(teacher, plain, write):
    cache = TeacherCache(write(teacher, plain, top_k=2, precision="float32"))
    batch = batch_of(cache.dataset(plain))
    found = observe(cache, batch).output.softmax(1)
    with torch.no_grad():
        expected = teacher.eval()(batch[0]).softmax(1)
    top, classes = expected.topk(2)
    torch.testing.assert_close(found.gather(1, classes), top, rtol=1e-4, atol=1e-6)
    rest = (1 - top.sum(1, keepdim=True)) / 4
    others = torch.ones_like(found).scatter(1, classes, 0).bool()
    torch.testing.assert_close(found[others].reshape(4, 4), rest.expand(4, 4), rtol=1e-4, atol=1e-6)
    renormalized = observe(TeacherCache(cache.reader.storage.url, rest="renormalize"), batch).output.softmax(1)
    assert renormalized[others].max() < 1e-30


def test_unsure_crops_are_taught_by_their_labels(teacher, plain, write):
    folder = write(teacher, plain, top_k=2)
    cache = TeacherCache(folder, calibration=RegionCalibration(low=1.0, smoothing=0.06))
    batch = batch_of(cache.dataset(plain))
    found = observe(cache, batch).output.softmax(1)
    # 0.94 onehot + 0.06 / 6.
    torch.testing.assert_close(found, 0.94 * torch.eye(6)[:4] + 0.01, rtol=1e-5, atol=1e-6)


def test_mixed_crops_are_taught_by_both_labels(teacher, whole, write):
    replay = CropReplay(size=4)
    cache = TeacherCache(write(teacher, whole(), views=2, replay=replay, **FULL))
    mixed = cache.dataset(whole(), replay=replay, views=Views(crops=2, self_mix=SelfMix()))
    batch = batch_of(mixed, size=1)
    stored = [torch.from_numpy(cache.reader.records(view, [0])["logits"].copy()) for view in (0, 1)]
    both = torch.cat(stored).softmax(1)
    share = batch[2][:, 0, :4].clone().view(torch.float32)
    expected = share * both + (1 - share) * both.flip(0)
    torch.testing.assert_close(observe(cache, batch).output.softmax(1), expected, rtol=1e-5, atol=1e-6)


def test_features_come_with_the_layout_that_the_teacher_gave_them(teacher, plain, write):
    cache = TeacherCache(write(teacher, plain, features=["block"], **FULL))
    assert cache.serves == ("output", "features")
    tap = Tap("block")
    cache.tap([tap])
    batch = batch_of(cache.dataset(plain))
    seen = observe(cache, batch, stop=True)
    with torch.no_grad():
        expected = teacher.eval().block(batch[0])
    torch.testing.assert_close(seen.features[tap], expected, rtol=1e-4, atol=1e-6)
    assert seen.output is None
    assert observe(cache, batch, taps=[]).features == {}
    cache.untap()
    assert observe(cache, batch).features == {}


def test_tokens_are_read_without_their_class_token(net, write):
    teacher = net("test_vit", classes=6)
    data = [(image, 0) for image in torch.randn(4, 3, 64, 64)]
    cache = TeacherCache(write(teacher, data, features=["blocks.2"], **FULL))
    student = net("test_resnet", classes=6)
    distiller = Distiller(student, cache, [FeatureKD("layer4", "blocks.2"), CKAKD("layer4", "blocks.2")])
    batch = batch_of(cache.dataset(data))
    distiller.build([batch[0]])
    online = Distiller(student, teacher, [CKAKD("layer4", "blocks.2")])
    online.build([batch[0]])
    terms = []
    student.eval()
    for each in (distiller, online):
        with each.watch() as calls:
            student(batch[0])
        terms.append(each.losses(torch.zeros(()), calls, batch=batch).terms["cka"])
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-4, atol=1e-6)


def test_an_objective_that_reads_what_is_not_there_is_refused(teacher, plain, write, make_teacher):
    logits = TeacherCache(write(teacher, plain, top_k=2))
    with pytest.raises(
        SetupError, match=r"'feature' \(FeatureKD\) reads the teacher's features.*TeacherCache serves output"
    ):
        Distiller(make_teacher(), logits, [FeatureKD("block", "block")])
    features = TeacherCache(write(teacher, plain, name="features", output=False, features=["block"]))
    with pytest.raises(SetupError, match=r"'logit' \(LogitKD\) reads the teacher's output"):
        Distiller(make_teacher(), features, [LogitKD()])
    with pytest.raises(SetupError, match=r"`head` is no feature of the cache .*features, which holds 'block'"):
        features.tap([Tap("head")])
    with pytest.raises(SetupError, match="`block` is no feature"):
        features.tap([Tap("block", at="input")])
    with pytest.raises(SetupError, match="`calibration` needs a cache of class scores"):
        TeacherCache(features.reader.storage.url, calibration=RegionCalibration(low=0.5))


def test_batches_without_records_are_refused(teacher, plain, write):
    cache = TeacherCache(write(teacher, plain, top_k=2))
    images, labels = plain.tensors
    batch = batch_of(cache.dataset(plain))
    for wrong in ((images, labels), images, {"image": images}, (*batch[:2], batch[2][..., 1:], batch[3])):
        with pytest.raises(SetupError, match=r"holds no records of this cache: train on DataLoader\(cache\.dataset"):
            cache.observe(Inputs((images,)), step=Step(batch=wrong))
    with pytest.raises(SetupError, match="called with 3 samples of a batch of 4"):
        cache.observe(Inputs((batch[0][:3],)), step=Step(batch=batch))


def test_records_may_be_elsewhere(teacher, plain, write):
    folder = write(teacher, plain, top_k=2)
    usual = TeacherCache(folder)
    images, _, records, _ = batch = batch_of(usual.dataset(plain))
    expected = observe(usual, batch).output
    for place, moved in ((0, (records, images)), (lambda b: b[1][0], (images, (records,)))):
        cache = TeacherCache(folder, records=place)
        found = cache.observe(Inputs((images,)), step=Step(batch=moved)).output
        assert torch.equal(found, expected)


def test_the_network_that_it_should_be_of_is_compared(teacher, plain, write, make_teacher):
    folder = write(teacher, plain, top_k=2)
    TeacherCache(folder, teacher=teacher)
    with pytest.raises(CacheError, match=r"teacher\.weights_sha256 was .* load the weights"):
        TeacherCache(folder, teacher=make_teacher())
    TeacherCache(folder, teacher=make_teacher(), accept=["teacher"])


def test_views_pass_with_the_epochs_and_are_resumed(teacher, augmented, write):
    replay = SeededReplay()
    cache = TeacherCache(write(teacher, augmented(), top_k=2, views=3, replay=replay))
    data = cache.dataset(augmented(), replay=replay)
    first = data[0][0]
    cache.on_epoch_end(nn.Identity(), Progress(step=5, epoch=1))
    second = data[0][0]
    assert not torch.equal(first, second)
    state = cache.training_state()
    cache.on_epoch_end(nn.Identity(), Progress(step=5, epoch=3))
    assert torch.equal(data[0][0], first)
    cache.load_training_state(state)
    assert torch.equal(data[0][0], second)
    cache.load_training_state({})


def test_several_views_need_the_data_set_of_the_same_cache(teacher, augmented, write):
    cache = TeacherCache(write(teacher, augmented(), top_k=2, views=2, replay=SeededReplay()))
    with pytest.raises(SetupError, match=r"make them by its dataset\(\) method"):
        cache.on_fit_start(nn.Identity())
    cache.dataset(augmented(), replay=SeededReplay())
    cache.on_fit_start(nn.Identity())


def test_the_spread_of_the_rest_must_be_known(tmp_path):
    with pytest.raises(ValueError, match="'zeros'"):
        TeacherCache(tmp_path, rest="zeros")
