"""Artifacts of every model stage of a pipeline, small and untrained, made by the real code from ``export`` on."""

import hashlib

from synthetic_split import write_split

from vitops.compression.export import export
from vitops.compression.quantization.static import quantize
from vitops.config.compression import Export, Quantize
from vitops.config.models import CifarResNet, TimmModel
from vitops.config.training import Preprocessing
from vitops.models import ModelSpec, build, pruned_vit, save
from vitops.store.canonical import write_json
from vitops.store.job import Job

CLASSES = 3
SIZE = 16
WIDTHS = {"h": [2, 1], "qk": [4, 2], "v": [6, 8], "mlp": [16, 12]}
STUDENT = TimmModel(
    name="deit_tiny_distilled_patch16_224",
    args={"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
)


class FinishedModels:
    """Folders and digests by stage name under ``root``; ``run`` executes one more stage on top of them."""

    def __init__(self, root):
        self.root = root
        self.folders = {"split": write_split(root, classes=CLASSES, size=SIZE)}
        self._teacher()
        self._student()
        self._pruned()
        self.run("export", export, {"model": "prune"}, Export(images=4))
        self.run("quantize", quantize, {"export": "export"}, Quantize(images=8, max_drop=100))

    def run(self, stage, function, roles, config=None, *, out=None, extra=None, **parameters):
        """Execute a stage function with inputs ``roles`` (role -> stage); its folder becomes ``folders[stage]``."""
        folder = self.root / (out or stage)
        folder.mkdir()
        roles = {"split": "split", **roles}
        job = Job(
            stage=stage,
            key=digest_of(stage),
            parameters={"config": config.parameters() if config else {}, "seed": 0, **parameters},
            inputs={role: self.folders[name] for role, name in roles.items()} | (extra or {}),
            digests={role: digest_of(name) for role, name in roles.items()},
            out=folder,
            checkpoints=self.root,
        )
        outcome = function(job)
        self.folders.setdefault(stage, folder)
        return folder, outcome

    def _teacher(self):
        section = CifarResNet(depth=8)
        self._save("teacher", build(section, classes=CLASSES), self._spec(section), epochs=3)

    def _student(self):
        student = build(STUDENT, classes=CLASSES)
        self._save("student", student, self._spec(STUDENT), epochs=4, cosine=0.75)

    def _pruned(self):
        frame = {"img_size": SIZE, "patch_size": 8, "classes": CLASSES, "distilled": True, "emb": 16, "scale": 8**-0.5}
        dims = {**frame, **WIDTHS, "ln": {"mode": "plain", "dense_emb": 16}}
        before = {**dims, "h": [2, 2], "qk": [8, 8], "v": [8, 8], "mlp": [64, 64]}
        folder = self._save("prune", pruned_vit.build(dims), self._spec(STUDENT, dims=dims), epochs=2)
        write_json(folder / "dims.json", {"before": before, "after": dims, "macs_share": 0.5})

    def _save(self, stage, module, spec, *, epochs, **noted):
        folder = self.root / stage
        folder.mkdir()
        save(folder, module, spec)
        rows = [{"epoch": e, "loss": 2.0 / (e + 1), "lr": 0.1, "histogram": [1, 2, 3]} | noted for e in range(epochs)]
        write_json(folder / "history.json", rows)
        self.folders[stage] = folder
        return folder

    def _spec(self, section, dims=None):
        return ModelSpec(
            builder=section.parameters(),
            preprocessing=Preprocessing(size=SIZE).parameters(),
            classes=[f"c{c}" for c in range(CLASSES)],
            train_counts=[8, 8, 8],
            dims=dims,
        )


def digest_of(name):
    """A stand-in for the digest the store would give the artifact of stage ``name``."""
    return hashlib.sha256(name.encode()).hexdigest()
