import json

import pytest
import torch

from vitops.config.models import CifarResNet, TimmModel
from vitops.config.training import Preprocessing
from vitops.errors import VerificationError
from vitops.models import ModelSpec, build, heads, load, pruned_vit, save

CLASSES = ["null", "eins", "zwei"]
SMALL_VIT = TimmModel(
    name="deit_tiny_distilled_patch16_224",
    args={"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
)
DIMS = {
    "img_size": 16,
    "patch_size": 8,
    "classes": 3,
    "distilled": True,
    "emb": 12,
    "h": [2, 1],
    "qk": [4, 2],
    "v": [3, 5],
    "mlp": [8, 6],
    "scale": 0.25,
    "ln": {"mode": "exact", "dense_emb": 16},
}


def spec_of(section, **more):
    return ModelSpec(
        builder=section.parameters(),
        preprocessing=Preprocessing(size=16).parameters(),
        classes=CLASSES,
        train_counts=[5, 2, 1],
        **more,
    )


def cases():
    resnet = CifarResNet(depth=8)
    return {
        "resnet": (lambda: build(resnet, classes=3), spec_of(resnet)),
        "distilled": (lambda: build(SMALL_VIT, classes=3), spec_of(SMALL_VIT)),
        "pruned": (lambda: pruned_vit.build(DIMS), spec_of(SMALL_VIT, dims=DIMS)),
    }


@pytest.fixture(params=["resnet", "distilled", "pruned"])
def case(request):
    make, spec = cases()[request.param]
    torch.manual_seed(3)
    module = make()
    module.train()(torch.randn(4, 3, 16, 16))  # moves BatchNorm's running statistics off their start
    return module.eval(), spec


def test_a_loaded_model_gives_the_same_bits(tmp_path, case):
    module, spec = case
    save(tmp_path, module, spec)
    loaded, found = load(tmp_path)
    assert found == spec and loaded.vitops_spec == spec and not loaded.training
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    x = torch.randn(5, 3, 16, 16)
    ours, theirs = heads(module, x), heads(loaded, x)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[head], theirs[head]) for head in ours)


def test_saving_twice_gives_the_same_bytes(tmp_path, case):
    module, spec = case
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, module, spec)
    for file in ("weights.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_model_json_is_canonical(tmp_path, case):
    module, spec = case
    save(tmp_path, module, spec)
    text = (tmp_path / "model.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def test_loading_leaves_the_random_state_alone(tmp_path, case):
    save(tmp_path, *case)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_another_architecture_are_refused(tmp_path, case):
    module, spec = case
    save(tmp_path, module, spec.model_copy(update={"classes": [*CLASSES, "drei"], "dims": None}))
    with pytest.raises(VerificationError, match=r"weights\.safetensors does not fit model\.json"):
        load(tmp_path)


@pytest.mark.parametrize("file", ["weights.safetensors", "model.json"])
def test_a_truncated_or_missing_file_is_named(tmp_path, case, file):
    save(tmp_path, *case)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(VerificationError, match=file.replace(".", r"\.")):
        load(tmp_path)
    path.unlink()
    with pytest.raises(VerificationError, match=file.replace(".", r"\.")):
        load(tmp_path)


def test_an_unknown_architecture_in_model_json_is_refused(tmp_path, case):
    module, spec = case
    save(tmp_path, module, spec.model_copy(update={"builder": {"kind": "exec"}, "dims": None}))
    with pytest.raises(VerificationError, match="does not describe a model"):
        load(tmp_path)
