"""Every kind of mistake in pipelines.yaml gives one line: FILE:LINE: key: what is wrong and what would be right."""

import re
from pathlib import Path

import pytest

from vitops.config.load import find_root, load, store_home
from vitops.errors import UsageError

MISTAKES = {
    "unknown key": ("alpha: 0.5", "alhpa: 0.5", "student.objective.alhpa: unknown key 'alhpa'; did you mean 'alpha'?"),
    "unknown key, nothing near": (
        "sam: {rho: 0.05}",
        "sam: {zzz: 1}",
        "teacher.sam.zzz: unknown key 'zzz'; known: rho, later, adaptive",
    ),
    "unknown stage": ("    prune:\n", "    prun:\n", "prun: unknown key 'prun'; did you mean 'prune'?"),
    "missing key": ("      epochs: 4\n", "", "student: the key 'epochs' is missing"),
    "unknown kind": (
        "kind: deit_lt",
        "kind: deit_tl",
        "student.objective.kind: unknown kind 'deit_tl'; did you mean 'deit_lt'?",
    ),
    "missing kind": (
        "        kind: deit_lt\n",
        "",
        "student.objective: the key 'kind' is missing; known: cross_entropy, ldam, deit_lt, nvit, "
        "label_smoothing, tfkd_reg, logit_adjustment, kd, dkd, nkd, deit_soft, fitnets, attention_transfer, uskd",
    ),
    "unknown choice": (
        "name: sgd",
        "name: sdg",
        "teacher.optimizer.name: must be one of sgd, adamw, got \"sdg\"; did you mean 'sgd'?",
    ),
    "text for a number": ("epochs: 4", "epochs: four", 'student.epochs: must be a whole number, got "four"'),
    "quoted number": ("epochs: 4", "epochs: '4'", 'student.epochs: must be a whole number, got "4"'),
    "boolean for a number": ("epochs: 4", "epochs: true", "student.epochs: must be a whole number, got true"),
    "fraction for a whole number": ("epochs: 4", "epochs: 4.5", "student.epochs: must be a whole number, got 4.5"),
    "scalar for a mapping": (
        "sam: {rho: 0.05}",
        "sam: 0.05",
        "teacher.sam: must be a mapping (key: value), got 0.05",
    ),
    "list in arguments": (
        "args: {depth: 2}",
        "args: {depth: [2]}",
        "student.model.args.depth: must be true or false or a whole number or a number or text, got [2]",
    ),
    "out of range": ("alpha: 0.5", "alpha: 1.5", "student.objective.alpha: must be at most 1, got 1.5"),
    "not finite": ("alpha: 0.5", "alpha: 1e999", "student.objective.alpha: must be a finite number"),
    "unknown dataset": ("dataset: digits", "dataset: digist", "dataset: no dataset 'digist'; did you mean 'digits'?"),
    "unknown split": (
        "split: longtail",
        "split: longtial",
        "split: dataset 'digits' has no split 'longtial'; did you mean 'longtail'?",
    ),
    "contradiction": ("epoch: 2}", "epoch: 3}", "teacher.objective.drw.epoch: must be below epochs (3), got 3"),
    "wrong depth": ("depth: 8", "depth: 9", "teacher.model.depth: must be 6n + 2: 8 or 14, got 9"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_pipeline_names_file_line_key_and_the_way_out(project, refused, mistake: str) -> None:
    old, new, message = MISTAKES[mistake]
    project.write("    profiles:\n      quick: {student: {epochs: 2}}\n      paper:\n", "    profiles:\n      paper:\n")
    where = project.line(old.strip("\n") if mistake != "missing key" else "    student:")
    if mistake == "missing kind":
        where -= 1
    project.write(old, new)
    said = refused(project.load().pipeline, "first")
    assert said.startswith(f"pipelines.yaml:{where}: pipelines.first.{message}"), said


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-1", ": must be at least 0, got -1"),
        ("0", ": must be greater than 0"),
        ("hot", ': must be a number, got "hot"'),
        ("{start: 4}", ": the key 'end' is missing"),
        ("{start: 4, end: 1, epochs: 0}", ".epochs: must be at least 1, got 0"),
        ("{start: 4, end: 1, epochs: 4}", ".epochs: must be below epochs (4), got 4"),
    ],
)
def test_a_number_that_may_move_is_told_by_its_key(project, refused, value: str, message: str) -> None:
    project.write("    profiles:\n      quick: {student: {epochs: 2}}\n      paper:\n", "    profiles:\n      paper:\n")
    project.write("kind: deit_lt\n        alpha: 0.5", f"kind: kd\n        temperature: {value}")
    said = refused(project.load().pipeline, "first")
    assert f"pipelines.first.student.objective.temperature{message}" in said


def test_each_of_several_mistakes_has_its_line(project, refused) -> None:
    project.write("alpha: 0.5", "alpha: 2").write("rho: 0.05", "rho: -1")
    said = refused(project.load().pipeline, "first").split("\n")
    assert [line.split(": ")[1] for line in said] == [
        "pipelines.first.teacher.sam.rho",
        "pipelines.first.student.objective.alpha",
    ]


def test_many_mistakes_are_cut_at_ten(project, refused) -> None:
    project.write("args: {depth: 2}", "args: {depth: 2}, " + ", ".join(f"wrong{n}: 1" for n in range(14)))
    said = refused(project.load().pipeline, "first").split("\n")
    assert len(said) == 11 and said[-1] == "... and 4 more"


DATASET_MISTAKES = {
    "imbalance factor as a fraction": (
        "imbalance_factor: 5",
        "imbalance_factor: 0.01",
        "digits.splits.longtail.imbalance_factor: is the largest over the smallest class count, at least 1: "
        "write 100 instead of 0.01",
    ),
    "imbalance factor of nothing": (
        "imbalance_factor: 5",
        "imbalance_factor: 0",
        "digits.splits.longtail.imbalance_factor: must be at least 1, got 0",
    ),
    "empty class": (
        "imbalance_factor: 5",
        "imbalance_factor: 5, n_max: 4",
        "digits.splits.longtail.n_max: must be at least imbalance_factor (5)",
    ),
    "unknown key": ("shard_size: 500", "shardsize: 500", "digits.shardsize: unknown key 'shardsize'; did you mean"),
    "unknown source": (
        "kind: arrays",
        "kind: array",
        "digits.source.kind: unknown kind 'array'; did you mean 'arrays'?",
    ),
    "name of a split": ("longtail: {", "Long Tail: {", "digits.splits.Long Tail: a name has lower-case letters"),
}


@pytest.mark.parametrize("mistake", DATASET_MISTAKES)
def test_a_mistake_in_a_dataset_is_found_on_loading(project, refused, mistake: str) -> None:
    old, new, message = DATASET_MISTAKES[mistake]
    where = project.line(old)
    project.write(old, new)
    assert refused(project.load).startswith(f"pipelines.yaml:{where}: datasets.{message}")


TOP_MISTAKES = {
    "empty": ("", "pipelines.yaml: must hold the mappings datasets: and pipelines:"),
    "a list": ("- a", "pipelines.yaml: must hold the mappings"),
    "no pipelines": ("datasets: {}", "pipelines.yaml: the key 'pipelines' is missing"),
    "unknown": (
        "datasets: {}\npipeline: {}",
        "pipelines.yaml:2: pipeline: unknown key 'pipeline'; did you mean 'pipelines'?",
    ),
    "null": ("datasets:\npipelines: {}", "pipelines.yaml:1: datasets: must be a mapping of names"),
    "name": ("datasets: {}\npipelines:\n  A B: {}", "pipelines.yaml:3: pipelines.A B: a name has lower-case letters"),
    "scalar": ("datasets: {}\npipelines:\n  a: 1", "pipelines.yaml:3: pipelines.a: must be a mapping (key: value)"),
    "twice": ("datasets: {}\ndatasets: {}", "pipelines.yaml:2: datasets: the key stands twice"),
}


@pytest.mark.parametrize("mistake", TOP_MISTAKES)
def test_a_mistake_at_the_top_is_found_on_loading(project, refused, mistake: str) -> None:
    text, message = TOP_MISTAKES[mistake]
    (project.root / "pipelines.yaml").write_text(text)
    assert refused(project.load).startswith(message)


def test_a_broken_pipeline_does_not_disturb_another(project, refused) -> None:
    project.write("pipelines:\n", "pipelines:\n  broken: {flow: retrain, dataset: digits}\n")
    loaded = project.load()
    assert loaded.pipeline("first").dataset == "digits"
    assert "pipelines.broken: the key 'teacher' is missing" in refused(loaded.check)
    assert "pipelines.broken" in refused(loaded.every)


def test_an_unknown_pipeline_is_named_with_its_neighbour(project, refused) -> None:
    assert refused(project.load().pipeline, "frist") == "pipelines.yaml: no pipeline 'frist'; did you mean 'first'?"


def test_the_root_is_the_nearest_ancestor_with_the_file(project, refused) -> None:
    inner = project.root / "a" / "b"
    inner.mkdir(parents=True)
    assert find_root(inner) == project.root
    (inner / "pipelines.yaml").write_text(project.text)
    assert find_root(inner) == inner
    assert "no pipelines.yaml here or in a folder above" in refused(find_root, Path("/proc"))


def test_messages_name_the_file_as_seen_from_the_working_folder(project, refused, monkeypatch) -> None:
    project.write("shard_size: 500", "shard_size: 0")
    assert refused(load, project.root).startswith("pipelines.yaml:4: ")
    inner = project.root / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert re.match(re.escape(f"{project.root}/pipelines.yaml:4: "), refused(load, project.root))


def test_the_store_is_in_the_project_unless_the_environment_moves_it(project, monkeypatch) -> None:
    monkeypatch.delenv("VITOPS_HOME", raising=False)
    assert store_home(project.root) == project.root / ".vitops"
    monkeypatch.setenv("VITOPS_HOME", "elsewhere")
    assert store_home(Path("/somewhere")) == project.root / "elsewhere"


def test_an_unknown_dataset_is_named_with_the_nearest(project, refused) -> None:
    loaded = project.load()
    assert loaded.dataset("digits") is loaded.datasets["digits"]
    said = refused(loaded.dataset, "digit")
    assert said == "pipelines.yaml: datasets: has no 'digit'; did you mean 'digits'?"


def test_a_wrong_worker_count_is_told_as_it_was_typed(project, refused) -> None:
    said = refused(load(project.root, workers=3).only, "first")
    assert said == "--workers 3: pipelines.first.resources.workers: must be a power of two, got 3"
    said = refused(load(project.root, workers=8).only, "first")
    assert "pipelines.first.teacher.micro_batches" in said and "--workers" in said


def test_a_value_that_does_not_fit_its_pattern_is_told_with_an_example(project, refused) -> None:
    said = refused(project.load("teacher.augment.randaugment=augmix-m3").only, "first")
    assert said == (
        "--set teacher.augment.randaugment=augmix-m3: pipelines.first.teacher.augment.randaugment: "
        "must be a policy string of timm, e.g. rand-m9-mstd0.5-inc1 (sections m, n, p, mstd, mmax, inc, each with its "
        'number, and tweights, t3a or t3aw), got "augmix-m3"'
    )


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        ("rand-w0-p0.5", "must be a policy string of timm"),
        ("rand-m9-m5", "must have each section at most once, got m again"),
        ("rand-n15-t3aw", "must ask for at most n14 of the 14 in t3aw, got n15"),
    ],
)
def test_a_policy_string_that_timm_cannot_use_is_named_by_file_line_and_key(policy, wrong, project, refused) -> None:
    project.write("sam: {rho: 0.05}", f"augment: {{randaugment: {policy}}}")
    place = f"pipelines.yaml:{project.line('augment')}: pipelines.first.teacher.augment.randaugment: "
    assert refused(project.load().only, "first").startswith(place + wrong)


def test_a_digest_that_is_none_is_told_where_one_finds_it(project, refused) -> None:
    text = "pipelines:\n  first: {flow: compress, dataset: digits, split: longtail, student: 12ab, teacher: 12ab}\n"
    (project.root / "other.yaml").write_text(text)
    said = refused(project.load(file=project.root / "other.yaml").only, "first")
    assert "pipelines.first.student: must be the 64 hex digits of an artifact's digest" in said
    assert "should match pattern" not in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["resources.min_workers=3"], "must be a power of two, got 3"),
        (["resources.min_workers=4"], "must not be more than workers (2), got 4"),
        (["resources.min_workers=1", "resources.mode=fast"], "must be workers (2) in fast mode: their number changes"),
    ],
)
def test_a_least_number_of_workers_that_cannot_be_is_told_as_it_was_typed(project, refused, overrides, said) -> None:
    answer = refused(load(project.root, workers=2, overrides=overrides).only, "first")
    assert answer.startswith(f"--set {overrides[0]}: pipelines.first.resources.min_workers: {said}")


WEIGHTS = """\
    teacher:
      model: {kind: cifar_resnet, depth: 8}
      preprocessing: {size: 32}
      weights: {file: data/raw/a.safetensors, sha256: %s}
    student:
""" % ("a" * 64)
UNFIT = {
    "unknown key": ("      preproc", "      epochs: 3\n      preproc", "teacher.epochs: unknown key 'epochs'"),
    "another format": ("a.safetensors", "a.pth", "teacher.weights.file: must be a .safetensors file"),
    "no digest": (", sha256: " + "a" * 64, "", "teacher.weights: the key 'sha256' is missing"),
    "half a digest": ("a" * 64, "a" * 32, "teacher.weights.sha256: must be the 64 hex digits that sha256sum prints"),
    "no tag": ("file: data/raw/a.safetensors, ", "timm: resnet34, ", "teacher.weights.timm: must be an architecture"),
    "empty": ("weights: {file: data/raw/a.safetensors, sha256: " + "a" * 64 + "}", "weights: {}",
              "teacher.weights: the key 'file' is missing"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", UNFIT)
def test_mistakes_in_weights_from_elsewhere_are_named_by_their_own_keys(project, mistake):
    project.text = re.sub(r"    teacher: &teacher\n.*?    student:\n", lambda _: WEIGHTS, project.text, flags=re.S)
    project.write()
    assert load(project.root).pipeline("first").teacher.weights.sha256 == "a" * 64
    old, new, said = UNFIT[mistake]
    assert old in project.text
    project.text = project.text.replace(old, new, 1)
    project.write()
    with pytest.raises(UsageError, match=re.escape(f"pipelines.first.{said}")):
        load(project.root).pipeline("first")
