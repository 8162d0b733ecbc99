"""What a backbone is in a key: its bytes, wherever they lie; and what names are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raycl.backbones.content import backbone_digests
from raycl.backbones.files import SAFE_NAME, backbone_files
from raycl.config.backbones import GIVEN, TINY_CLIP, Backbone
from raycl.config.spec import identity
from raycl.errors import ConfigError, DataError, RayclError
from tests.backbones.made_backbones import config, save_backbone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_backbone(tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An address where nothing listens, and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("RAYCL_DATA", raising=False)


def digests(name: str) -> tuple[str, ...]:
    return backbone_digests(Backbone(name=name))


def test_given_vectors_are_their_own_content() -> None:
    assert digests(GIVEN) == ()


def test_a_copy_has_the_same_digests_and_an_edit_others(folder: Path, tmp_path: Path) -> None:
    first = digests(f"local-dir:{folder}")
    shutil.copytree(folder, tmp_path / "copy")
    assert digests(f"local-dir:{tmp_path / 'copy'}") == first

    described = config()
    described["preprocess_cfg"]["mean"] = [0.0, 0.0, 0.0]
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    preprocessed = digests(f"local-dir:{folder}")
    save_backbone(folder, seed=1)
    reweighted = digests(f"local-dir:{folder}")
    save_backbone(folder, own_bpe=True)
    retokenised = digests(f"local-dir:{folder}")
    assert len({first, preprocessed, reweighted, retokenised}) == 4


def test_a_name_is_in_no_key_and_what_changes_numbers_is() -> None:
    assert identity(Backbone(name="local-dir:/a")) == identity(Backbone(name="local-dir:/b"))
    changed = (Backbone(precision="bf16"), Backbone(batch=8), Backbone(template="{}"))
    assert all(identity(b) != identity(Backbone()) for b in changed)


def test_random_weights_need_no_file_and_differ_by_architecture() -> None:
    assert digests("ViT-B-32:random") == digests("ViT-B-32:random")
    assert digests("ViT-B-32:random") != digests("ViT-B-16:random")


def test_weights_in_a_file_and_in_the_data_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = folder / SAFE_NAME
    named = backbone_files(Backbone(name=f"ViT-B-32:{weights}"))
    assert named.weights == weights
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path))
    placed = tmp_path / "backbones" / "ViT-B-32-laion2b_s34b_b79k.safetensors"
    placed.parent.mkdir()
    shutil.copy(weights, placed)
    found = backbone_files(Backbone(name="ViT-B-32:laion2b-s34b-b79k"))
    assert found.weights == placed
    shutil.copy(weights, placed.with_name("ViT-B-32-openai.safetensors"))
    openai = backbone_files(Backbone(name="ViT-B-32:openai"))
    assert openai.model["quick_gelu"], "OpenAI trained with it, whatever the architecture says"
    assert not found.model["quick_gelu"]
    relative = backbone_files(Backbone(name="local-dir:$RAYCL_DATA/made"))
    assert relative.weights == weights


def test_what_the_hugging_face_cache_holds_is_found(folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--some--model"
    snapshot = repo / "snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    assert digests("hf-hub:some/model") == digests(f"local-dir:{folder}")


def test_missing_weights_say_what_to_place_where() -> None:
    with pytest.raises(DataError) as caught:
        digests("ViT-B-32:openai")
    said = str(caught.value)
    assert "$RAYCL_DATA/backbones/ViT-B-32-openai.safetensors" in said
    assert "timm/vit_base_patch32_clip_224.openai open_clip_model.safetensors" in said
    assert "does not answer" in said


def test_an_offline_setting_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        digests("hf-hub:laion/some-model")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        (None, ConfigError, "no encoder"),
        ("tinyclip", ConfigError, "did you mean tiny-clip"),
        ("ViT-B32:openai", ConfigError, "did you mean ViT-B-32"),
        ("ViT-B-32", ConfigError, "needs a tag"),
        ("ViT-B-32:opnai", ConfigError, "did you mean ViT-B-32:openai"),
        ("ViT-B-32:/nowhere/x.safetensors", DataError, "no such file of weights"),
        ("hf-hub:laion", ConfigError, "ORG/REPO"),
        ("local-dir:/nowhere", DataError, "no such folder"),
        ("local-dir:$RAYCL_DATA/x", DataError, "RAYCL_DATA, which is not set"),
        ("ViT-B-16-SigLIP:random", DataError, "the tokeniser of ViT-B-16-SigLIP:random is not on"),
        ("coca_ViT-B-32:random", ConfigError, "captioning"),
        ("roberta-ViT-B-32:random", ConfigError, "roberta-base"),
    ],
)
def test_bad_names_are_refused_in_words(
    name: str | None, error: type[RayclError], said: str
) -> None:
    with pytest.raises(error, match=said):
        backbone_files(Backbone(name=name))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("open_clip_config.json", None, "holds no open_clip_config.json"),
        ("open_clip_config.json", "{", "cannot be understood"),
        ("open_clip_config.json", "[]", "cannot be understood"),
        ("open_clip_config.json", '{"vision_cfg": {}}', "cannot be understood"),
        ("open_clip_config.json", '{"model_cfg": {"embed_dim": 3}}', "lacks text_cfg"),
        (SAFE_NAME, None, "must hold one file of weights"),
    ],
)
def test_bad_folders_are_refused_in_words(
    folder: Path, file: str, content: str | None, said: str
) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(DataError, match=said):
        digests(f"local-dir:{folder}")


def test_two_files_of_weights_must_be_told_apart(folder: Path) -> None:
    shutil.copy(folder / SAFE_NAME, folder / "other.safetensors")
    assert backbone_files(Backbone(name=f"local-dir:{folder}")).weights == folder / SAFE_NAME
    (folder / SAFE_NAME).rename(folder / "one.safetensors")
    with pytest.raises(DataError, match="one file of weights"):
        digests(f"local-dir:{folder}")


def test_names_without_a_tag_of_open_clip_need_no_torch(folder: Path) -> None:
    script = f"""
import sys
from raycl.backbones.content import backbone_digests
from raycl.config.backbones import Backbone

for name in ("local-dir:{folder}", "ViT-B-32:random", "ViT-B-32:{folder / SAFE_NAME}", "given"):
    backbone_digests(Backbone(name=name))
assert "torch" not in sys.modules and "open_clip" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_shipped_backbone_is_whole() -> None:
    assert len(digests(TINY_CLIP)) == 3
