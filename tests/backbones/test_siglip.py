"""Towers with a tokeniser of Hugging Face's: as open_clip encodes, and told where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from raycl.backbones.content import backbone_digests
from raycl.backbones.encoder import load_encoder
from raycl.config.backbones import Backbone
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.methods import CGIL, NCM, MappedTokens, ZeroShot
from raycl.config.streams import FolderStream
from raycl.engine.run import run
from raycl.errors import ConfigError, DataError
from tests.backbones.made_backbones import save_siglip
from tests.streams.made_images import save_folder

CPU = torch.device("cpu")
TEXTS = ["a photo of a Cat.", "a very old dog", "cat", "something else entirely"]


def test_texts_and_images_are_encoded_as_open_clip_does(tmp_path: Path) -> None:
    import open_clip

    backbone = save_siglip(tmp_path / "siglip")
    encoder = load_encoder(backbone, CPU)
    assert not encoder.text.has_start and not encoder.text.can_truncate
    model, _, transform = open_clip.create_model_and_transforms(backbone.name)
    tokens = open_clip.get_tokenizer(backbone.name)(TEXTS)
    assert torch.equal(encoder.text.tokenise(TEXTS), tokens)
    with torch.no_grad():
        theirs = model.eval().encode_text(tokens)
        assert torch.allclose(encoder.encode_texts(TEXTS), theirs, atol=1e-5)
        picture = Image.new("RGB", (40, 50), "red")
        expected = model.encode_image(transform(picture)[None])
    ours = encoder.encode_images(encoder.preprocess(picture)[None])
    assert torch.allclose(ours, expected, atol=1e-5)


def test_a_text_is_never_cut(tmp_path: Path) -> None:
    encoder = load_encoder(save_siglip(tmp_path / "siglip"), CPU)
    with pytest.raises(DataError, match="17 tokens of at most 16"):
        encoder.encode_texts([" ".join(["cat"] * 16)])


def test_its_tokeniser_is_part_of_the_key(tmp_path: Path) -> None:
    one, other = save_siglip(tmp_path / "a"), save_siglip(tmp_path / "b")
    file = tmp_path / "b" / "tokenizer.json"
    # The folder's name stands in the configuration, so only the third part is compared.
    assert backbone_digests(one)[2] == backbone_digests(other)[2]
    file.write_text(file.read_text().replace('"dog"', '"hound"'))
    assert backbone_digests(one)[2] != backbone_digests(other)[2]
    file.write_text("{")
    with pytest.raises(DataError, match="tokeniser cannot be read"):
        load_encoder(other, CPU)


def test_methods_run_on_it_and_soft_tokens_are_refused_in_words(tmp_path: Path) -> None:
    stream = FolderStream(paths=(str(save_folder(tmp_path / "pets", {"cat": 8, "dog": 8})),))
    backbone = save_siglip(tmp_path / "siglip")
    execution = Execution(store=str(tmp_path / "store"))
    for method in (ZeroShot(), NCM()):
        result = run(Experiment(method=method, stream=stream, backbone=backbone), execution)
        assert result.metrics["last_pooled"] is not None
    tokens = Experiment(method=CGIL(prompt=MappedTokens()), stream=stream, backbone=backbone)
    with pytest.raises(ConfigError, match=r"method\.prompt\.kind=residual"):
        run(tokens, execution)


def test_it_is_found_below_the_root_or_told_where_to_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="the tokeniser of ViT-B-16-SigLIP:random") as caught:
        backbone_digests(Backbone(name="ViT-B-16-SigLIP:random"))
    assert "$RAYCL_DATA/backbones/timm--ViT-B-16-SigLIP/" in str(caught.value)
    save_siglip(tmp_path / "made")
    place = tmp_path / "backbones" / "timm--ViT-B-16-SigLIP"
    place.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "made" / name).rename(place / name)
    assert len(backbone_digests(Backbone(name="ViT-B-16-SigLIP:random"))) == 3
