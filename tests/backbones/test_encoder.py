"""Encoders give what open_clip gives, whatever stands beside a row; and refuse bad input."""

from __future__ import annotations

import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.backbones.files import SAFE_NAME
from raycl.backbones.text_tower import TextTower
from raycl.config.backbones import TINY_CLIP, Backbone
from raycl.config.seeds import rng
from raycl.errors import ConfigError, DataError
from tests.backbones.made_backbones import WIDTH, config, save_backbone

CPU = torch.device("cpu")
TEXTS = ["cat", "a photo of a cat.", "a photo of a very old dog on a bicycle, in the rain.", ""]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def encoder(made: Backbone) -> Encoder:
    return load_encoder(made, CPU)


def theirs(backbone: Backbone) -> tuple[object, object]:
    """The model and the transform as open_clip itself loads them."""
    import open_clip

    assert backbone.name
    model, _, transform = open_clip.create_model_and_transforms(backbone.name)
    return model.eval(), transform


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    noise = rng(seed, "picture").integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def pixels(encoder: Encoder, count: int) -> Tensor:
    return torch.stack([encoder.preprocess(picture(i)) for i in range(count)])


def test_images_are_encoded_as_open_clip_does(made: Backbone, encoder: Encoder) -> None:
    model, transform = theirs(made)
    x = pixels(encoder, 6)
    assert torch.equal(x, torch.stack([transform(picture(i)) for i in range(6)]))
    with torch.no_grad():
        expected = model.encode_image(x)
    found = encoder.encode_images(x)
    assert found.shape == (6, WIDTH) and found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found.norm(dim=1), torch.ones(6)), "not normalised"
    assert encoder.image_size == (32, 32) and encoder.width == WIDTH


@pytest.mark.parametrize("custom", [False, True], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize(
    "text",
    [
        {},
        {"own_bpe": True},
        {"context_length": 40, "pool_type": "eos", "eos_id": 49407},
        {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        {"no_causal_mask": True},
        {"pool_type": "first", "no_causal_mask": True, "proj_type": "none", "width": WIDTH},
    ],
    ids=str,
)
def test_texts_are_encoded_as_open_clip_does(
    tmp_path: Path, text: dict[str, object], custom: bool
) -> None:
    backbone = save_backbone(tmp_path, custom=custom, **text)  # type: ignore[arg-type]
    encoder = load_encoder(backbone, CPU)
    model, _ = theirs(backbone)
    texts = TEXTS * 10
    with torch.no_grad():
        expected = model.encode_text(encoder.text.tokenise(texts))
    found = encoder.encode_texts(texts)
    assert found.shape == (len(texts), WIDTH)
    assert torch.allclose(found, expected, atol=1e-5)
    causal = "no_causal_mask" not in text
    assert encoder.text.can_truncate is causal


def packed_and_not(tower: TextTower) -> tuple[list[Tensor], list[Tensor]]:
    """Vectors and gradients: over rows alone, and through open_clip's modules."""
    tokens = tower.tokenise(TEXTS)
    ends = tower.ends(tokens)
    embedded = tower.embed(tokens[:, : int(ends.max()) + 1])
    packing = tower.pack(ends)
    assert packing is not None and len(packing.place) == int(ends.sum())
    found = []
    for packed in (True, False):
        after = embedded[:, 1:].clone().requires_grad_()
        whole = torch.cat([embedded[:, :1], after], dim=1)
        out = tower.encode_after_start(after, packing) if packed else tower.encode(whole, ends)
        weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
        (gradient,) = torch.autograd.grad((out * weights).sum(), after)
        found.append([out.detach(), gradient])
    return found[0], found[1]


def assert_packed_alike(tower: TextTower) -> None:
    for one, other, error in zip(*packed_and_not(tower), (2e-6, 1e-5), strict=True):
        assert (one - other).abs().max() < error * other.abs().max()


@pytest.mark.parametrize("custom", [False, True], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize(
    "text",
    [
        {},
        {"context_length": 40, "pool_type": "eos", "eos_id": 49407, "proj_bias": True},
        {"ls_init_value": 0.3, "proj_type": "none", "width": WIDTH},
        {"layers": 1, "norm_kwargs": {"eps": 1e-2}, "act_kwargs": {"approximate": "tanh"}},
    ],
    ids=str,
)
def test_packed_prompts_are_encoded_as_whole_ones(
    tmp_path: Path, text: dict[str, object], custom: bool
) -> None:
    backbone = save_backbone(tmp_path, custom=custom, **text)  # type: ignore[arg-type]
    assert_packed_alike(load_encoder(backbone, CPU).text)


@pytest.mark.parametrize("name", [TINY_CLIP, "ViT-B-32-quickgelu:random"])
def test_packed_prompts_of_known_models(name: str) -> None:
    assert_packed_alike(load_encoder(Backbone(name=name), CPU).text)


def test_packed_prompts_in_low_precision(made: Backbone, encoder: Encoder) -> None:
    exact = packed_and_not(encoder.text)[1]
    low = load_encoder(made.model_copy(update={"precision": "bf16"}), CPU).text
    with torch.autocast("cpu", torch.bfloat16):
        cast = packed_and_not(encoder.text)[0]
    for found in (cast, *packed_and_not(low)):
        for one, other in zip(found, exact, strict=True):
            assert one.dtype == torch.float32
            error = (one - other).abs().max() / other.abs().max()
            assert 1e-6 < error < 0.03


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"qk_norm": True}], ids=str)
def test_blocks_of_another_kind_are_not_packed(tmp_path: Path, text: dict[str, object]) -> None:
    tower = load_encoder(save_backbone(tmp_path, **text), CPU).text  # type: ignore[arg-type]
    assert tower.pack(torch.tensor([3])) is None


def test_tokens_are_open_clips(tmp_path: Path, encoder: Encoder) -> None:
    import open_clip

    assert torch.equal(encoder.text.tokenise(TEXTS), open_clip.get_tokenizer("ViT-B-32")(TEXTS))
    own = load_encoder(save_backbone(tmp_path, own_bpe=True), CPU).text
    reference = open_clip.SimpleTokenizer(str(tmp_path / "bpe.txt.gz"))
    assert torch.equal(own.tokenise(TEXTS), reference(TEXTS))
    assert own.ends(own.tokenise(["cat"])).tolist() == [2], "its merges make one token of cat"


def test_neighbours_do_not_move_a_bit(encoder: Encoder) -> None:
    x = pixels(encoder, 7)
    together = encoder.encode_images(x)
    others = x.flip(0).clone()
    for i in range(len(x)):
        others[:] = torch.randn(others.shape, generator=torch.Generator().manual_seed(i))
        others[i] = x[i]
        assert torch.equal(encoder.encode_images(others)[i], together[i])
        assert torch.equal(encoder.encode_images(x[: i + 1])[i], together[i])
    texts = [f"number {i} of a {'very ' * (i % 5)}long row" for i in range(70)]
    all_texts = encoder.encode_texts(texts)
    assert torch.equal(encoder.encode_texts(texts[:1])[0], all_texts[0])
    assert torch.equal(encoder.encode_texts([*texts[:1], "x " * 60])[0], all_texts[0])
    assert encoder.encode_images(x[:0]).shape == (0, WIDTH)
    assert encoder.encode_texts([]).shape == (0, WIDTH)


def test_loading_twice_gives_one_encoder_and_new_weights_another(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path)
    first = load_encoder(backbone, CPU)
    assert load_encoder(backbone.model_copy(update={"template": "{}"}), CPU) is first
    before = first.encode_texts(["cat"])
    save_backbone(tmp_path, seed=1)
    assert not torch.equal(load_encoder(backbone, CPU).encode_texts(["cat"]), before)


def test_random_weights_are_the_same_ones_and_leave_the_generator_alone() -> None:
    from raycl.backbones import encoder as module

    backbone = Backbone(name="ViT-S-32-alt:random")
    torch.manual_seed(3)
    first = load_encoder(backbone, CPU).encode_texts(["cat"])
    after = torch.rand(1)
    module._load.cache_clear()
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(load_encoder(backbone, CPU).encode_texts(["cat"]), first)


def test_low_precision_is_near_and_comes_back_as_float32(made: Backbone, encoder: Encoder) -> None:
    low = load_encoder(made.model_copy(update={"precision": "bf16"}), CPU)
    x = pixels(encoder, 5)
    for found, exact in (
        (low.encode_images(x), encoder.encode_images(x)),
        (low.encode_texts(TEXTS), encoder.encode_texts(TEXTS)),
    ):
        assert found.dtype == torch.float32
        cosine = torch.nn.functional.cosine_similarity(found, exact)
        assert cosine.min() > 0.99
        assert not torch.equal(found, exact)
    with pytest.raises(ConfigError, match="half precision is for GPUs"):
        load_encoder(made.model_copy(update={"precision": "fp16"}), CPU)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_images_of_any_shape_and_kind(tmp_path: Path, mode: str) -> None:
    import json

    backbone = save_backbone(tmp_path)
    described = config()
    described["preprocess_cfg"]["resize_mode"] = mode
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    encoder = load_encoder(backbone, CPU)
    for size in ((1, 1), (5000, 3), (3, 5000), (20_000, 1), (300, 200)):
        if mode == "longest" and max(size) > 32 * min(size):
            with pytest.raises(DataError, match="cannot be brought to"):
                encoder.preprocess(Image.new("RGB", size))
            continue
        assert encoder.preprocess(Image.new("RGB", size)).shape == (3, 32, 32)
    for kind in ("L", "LA", "P", "RGBA", "CMYK", "1"):
        image = picture(0).convert(kind)
        expected = encoder.preprocess(image.convert("RGB"))
        assert torch.equal(encoder.preprocess(image), expected), kind
    with pytest.raises(DataError, match="without pixels"):
        encoder.preprocess(Image.new("RGB", (0, 5)))


def test_cropping_a_long_image_first_changes_nothing_that_is_kept(encoder: Encoder) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    long = picture(0, width=1200, height=60)
    whole = image_transform_v2(
        PreprocessCfg(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), is_train=False
    )
    assert torch.equal(encoder.preprocess(long), whole(long))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat " * 76, r"78 tokens of at most 77: 'cat cat"),
        ("a <end_of_text> b", "only marks its start or end"),
        ("a <start_of_text>", "only marks its start or end"),
    ],
)
def test_texts_that_do_not_fit_are_refused(encoder: Encoder, text: str, said: str) -> None:
    assert encoder.encode_texts(["cat " * 75]).shape == (1, WIDTH), "75 words just fit"
    with pytest.raises(DataError, match=said):
        encoder.encode_texts(["cat", text])


def test_a_tokeniser_of_other_weights_is_refused(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path, own_bpe=True)
    (tmp_path / "bpe.txt.gz").unlink()
    with pytest.raises(DataError, match="does not know"):
        load_encoder(backbone, CPU)
    other = save_backbone(tmp_path / "eos", pool_type="eos", eos_id=7)
    with pytest.raises(DataError, match="reads at another token"):
        load_encoder(other, CPU)
    broken = save_backbone(tmp_path / "broken", own_bpe=True)
    (tmp_path / "broken" / "bpe.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="tokeniser cannot be read"):
        load_encoder(broken, CPU)


def test_weights_that_do_not_fit_or_are_not_whole(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path)
    weights = tmp_path / SAFE_NAME
    with pytest.raises(DataError, match="do not fit the model"):
        load_encoder(Backbone(name=f"ViT-S-32-alt:{weights}"), CPU)
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="do not fit the model"):
        load_encoder(backbone, CPU)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "made")
    safe = tmp_path / "made" / SAFE_NAME
    expected = load_encoder(backbone, CPU).encode_texts(["cat"])
    from safetensors.torch import load_file

    plain = safe.with_name("weights.pt")
    torch.save(load_file(safe), plain)
    safe.unlink()
    assert torch.equal(load_encoder(backbone, CPU).encode_texts(["cat"]), expected)

    harm = tmp_path / "harm"
    torch.save({"state_dict": Harm(harm)}, plain)
    with pytest.raises(DataError, match="other things than tensors"):
        load_encoder(backbone, CPU)
    assert not harm.exists()

    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("ViT/code/__torch__.py", "")
        archive.writestr("ViT/data.pkl", b"")
    with pytest.raises(DataError, match="TorchScript"):
        load_encoder(backbone, CPU)
    shutil.rmtree(tmp_path / "made")


class Harm:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_a_configuration_that_open_clip_refuses(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path)
    described = (tmp_path / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(described.replace('"heads": 4', '"heads": 5'))
    with pytest.raises(DataError, match="open_clip cannot build this model"):
        load_encoder(backbone, CPU)


def test_the_root_logger_is_left_as_it_was(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    load_encoder(save_backbone(tmp_path, seed=5), CPU)
    assert (root.level, list(root.handlers)) == before
