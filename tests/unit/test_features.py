"""Networks of features: found by name, checked by hash, fed as their protocol says."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from colddiff.errors import CheckpointError, ColddiffError, DataError, SpecError
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.features.cleanfid_inception import InceptionFeatures
from colddiff.features.open import open_features
from colddiff.features.published import INCEPTION, RESNET20
from colddiff.features.resnet20 import Resnet20Features
from colddiff.features.spec import InceptionFeaturesSpec, LenetFeaturesSpec
from colddiff.spec import parse
from colddiff.stores.open import open_store


class Means(nn.Module):
    """Means of 2x2 blocks of each channel, repeated to as many features as are asked for."""

    def __init__(self, repeats: int) -> None:
        super().__init__()
        self.repeats = repeats

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, (2, 2)).flatten(1)
        return pooled.repeat(1, self.repeats)[:, :2048]


class StandIn(nn.Module):
    """The signature of the published Inception file: ``layers`` from [B, 3, 299, 299] to 2048."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Means(200)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        features: Tensor = self.layers(x)
        return features


def saved(network: nn.Module, path: Path) -> str:
    """Writes ``network`` as TorchScript; its sha256."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def eight_bit(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))


def test_a_name_is_a_spec_and_both_forms_are_the_same() -> None:
    assert EvaluationSpec().features == LenetFeaturesSpec()
    by_name = parse(EvaluationSpec, {"features": "inception"})
    assert by_name.features == InceptionFeaturesSpec()
    assert parse(EvaluationSpec, by_name.to_dict()) == by_name


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("inceptoin", "features.kind: no 'inceptoin'; did you mean 'inception'"),
        ({"kind": "torchscript"}, "features.path: is required"),
        ({"kind": "torchscript", "path": "x", "sha256": "ab", "name": "x"}, "features.sha256"),
        ({"kind": "lenet", "path": "x"}, "features.path: no such field"),
    ],
)
def test_what_cannot_be_meant(features: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse(EvaluationSpec, {"features": features})


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_sees_what_clean_fid_would_hand_it(tmp_path: Path, channels: int) -> None:
    path = tmp_path / INCEPTION.file
    sha256 = saved(StandIn(), path)
    extractor = InceptionFeatures(path.read_bytes(), str(path), sha256=sha256)
    assert (extractor.metric, extractor.weights_sha256) == ("fid", sha256)
    images = eight_bit(35, channels, 20, 20)
    found = extractor.features(images)
    assert found.shape == (35, 2048)
    assert found.dtype == np.float64
    # Pillow by hand, one channel at a time: floats, bicubic, no rounding to 8 bit after.
    one = images[34].expand(3, -1, -1).numpy().astype(np.float32)
    resized = [
        np.asarray(Image.fromarray(c).resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        for c in one
    ]
    x = (torch.from_numpy(np.stack(resized))[None] - 128) / 128
    np.testing.assert_allclose(found[34], Means(200)(x)[0].numpy(), atol=1e-6)


def test_inception_is_never_downloaded_and_the_error_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDDIFF_FEATURES", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        open_features("inception")
    said = str(caught.value)
    assert f"no weights at {tmp_path}/{INCEPTION.file}" in said
    assert "https://nvlabs-fi-cdn.nvidia.com" in said
    assert "path: s3://bucket/" in said
    assert not list(tmp_path.iterdir())
    (tmp_path / INCEPTION.file).write_bytes(b"half a download")
    with pytest.raises(CheckpointError, match=f"15 bytes.*expected {INCEPTION.sha256}"):
        open_features("inception")


def test_weights_may_lie_in_any_store(s3_service: Any, tmp_path: Path) -> None:
    sha256 = saved(Means(1), tmp_path / "net.pt")
    place = f"s3://{s3_service.new_bucket()}/nets"
    open_store(place).put("net.pt", (tmp_path / "net.pt").read_bytes())
    spec = {"kind": "torchscript", "path": f"{place}/net.pt", "sha256": sha256, "name": "blocks"}
    extractor = open_features(parse(EvaluationSpec, {"features": spec}).features)
    assert extractor.metric == "fd_blocks"
    assert extractor.features(eight_bit(2, 3, 8, 8)).shape == (2, 12)


def torchscript(path: Path, sha256: str, **fields: Any) -> Any:
    spec = {"kind": "torchscript", "path": str(path), "sha256": sha256, "name": "own", **fields}
    return open_features(parse(EvaluationSpec, {"features": spec}).features)


def test_a_torchscript_network_is_fed_as_its_spec_says(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    sha256 = saved(Means(1), path)
    images = eight_bit(3, 3, 16, 16)
    plain = torchscript(path, sha256).features(images)
    expected = Means(1)(images.float() / 255).double().numpy()
    np.testing.assert_allclose(plain, expected, atol=1e-6)
    centred = torchscript(path, sha256, range=[-1, 1]).features(images)
    np.testing.assert_allclose(centred, expected * 2 - 1, atol=1e-5)
    grey = torchscript(path, sha256, channels=1, image_size=8)
    assert grey.features(images).shape == (3, 4)
    assert "8 px" in grey.protocol
    assert "mean of channels" in grey.protocol
    with pytest.raises(DataError, match="fd_own: expected uint8 images"):
        grey.features(images.float())


class Scalar(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


def test_networks_that_are_others_or_none(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    sha256 = saved(Means(1), path)
    with pytest.raises(CheckpointError, match=f"sha256 {sha256}, expected {'0' * 64}"):
        torchscript(path, "0" * 64)
    with pytest.raises(CheckpointError, match=r"no weights at .*gone\.pt; put the file there"):
        torchscript(tmp_path / "gone.pt", sha256)
    path.write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match="is not a network of its kind") as caught:
        torchscript(path, hashlib.sha256(b"not a network").hexdigest())
    assert "\n" not in str(caught.value)
    sha256 = saved(Scalar(), path)
    with pytest.raises(DataError, match=r"expected features \[2, F\]"):
        torchscript(path, sha256).features(eight_bit(2, 3, 8, 8))


def test_resnet20_is_right_about_cifar10(shared: Path) -> None:
    data = (shared / "data/cifar10_resnet20" / RESNET20.file).read_bytes()
    extractor = Resnet20Features(data, RESNET20.file)
    sheet = np.asarray(Image.open(shared / "data/cifar10/test_00.webp").convert("RGB"))
    rows = [
        sheet[y : y + 32, x : x + 32]
        for y in range(0, 160, 32)
        for x in range(0, sheet.shape[1], 32)
    ]
    images = torch.from_numpy(np.stack(rows).transpose(0, 3, 1, 2).copy())
    with np.load(shared / "data/cifar10/labels.npz") as arrays:
        labels = arrays["test"][: len(images)]
    with torch.inference_mode():
        scores = extractor.network(extractor.preprocess(images))
    assert float((scores.argmax(dim=1).numpy() == labels).mean()) > 0.85
    assert extractor.features(images[:4]).shape == (4, 64)
    assert extractor.features(eight_bit(2, 1, 20, 28)).shape == (2, 64)
    assert extractor.weights_sha256 == RESNET20.sha256
    with pytest.raises(ColddiffError, match=f"expected {RESNET20.sha256}"):
        Resnet20Features(data[:-1], RESNET20.file)
