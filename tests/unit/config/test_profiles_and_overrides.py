from vitops.config.load import load
from vitops.config.merge import Tree


def test_quick_is_the_default_profile(project) -> None:
    loaded = project.load()
    assert loaded.profiles("first") == ("quick", "paper")
    assert loaded.pipeline("first").student.epochs == 2
    assert loaded.pipeline("first").student.objective.alpha == 0.5


def test_without_a_quick_profile_the_base_stands(project) -> None:
    project.write("      quick: {student: {epochs: 2}}\n", "")
    assert project.load().pipeline("first").student.epochs == 4


def test_a_profile_with_another_kind_replaces_the_whole_mapping(project) -> None:
    student = project.load(profile="paper").pipeline("first").student
    assert (student.epochs, student.objective.kind) == (1200, "cross_entropy")
    assert student.micro_batch_size == 16


def test_a_teacher_that_is_trained_replaces_one_with_weights_and_the_other_way_round() -> None:
    given = {"model": {"name": "a"}, "weights": {"timm": "a.b"}, "preprocessing": {"size": 224}}
    trained = {"model": {"name": "c"}, "objective": {"kind": "ldam"}, "epochs": 3}
    for base, top in ((given, trained), (trained, given)):
        assert Tree({"teacher": base}, {}).overlaid(Tree({"teacher": top}, {})).value == {"teacher": top}
    assert Tree(given, {}).overlaid(Tree({"preprocessing": {"size": 32}}, {})).value["weights"] == given["weights"]


def test_an_empty_profile_changes_nothing(project) -> None:
    project.write("quick: {student: {epochs: 2}}", "quick:")
    assert project.load().pipeline("first").student.epochs == 4


def test_an_unknown_profile_names_those_that_exist(project, refused) -> None:
    loaded = project.load(profile="papre")
    said = refused(loaded.pipeline, "first")
    assert said == f"pipelines.yaml:{project.line('first:')}: pipelines.first: no profile 'papre'; it has quick, paper"


def test_other_pipelines_may_lack_the_selected_profile(project, refused) -> None:
    text = project.text
    second = text[text.index("  first:") : text.index("    profiles:")].replace("first:", "second:")
    (project.root / "pipelines.yaml").write_text(text + second.replace("&teacher", ""))
    loaded = project.load(profile="paper")
    assert loaded.every().pipelines["second"].student.epochs == 4
    assert loaded.every().pipelines["first"].student.epochs == 1200
    assert "no profile 'paper'; it has none" in refused(loaded.pipeline, "second")


def test_a_mistake_in_a_profile_has_the_profiles_line(project, refused) -> None:
    where = project.line("epochs: 1200")
    project.write("epochs: 1200", "epoch: 1200")
    said = refused(project.load(profile="paper").pipeline, "first")
    assert said == (
        f"pipelines.yaml:{where}: pipelines.first.student.epoch: unknown key 'epoch'; did you mean 'epochs'?"
    )


def test_check_looks_into_every_profile(project, refused) -> None:
    project.load().check()
    project.write("epochs: 1200", "epochs: 0")
    assert project.load().pipeline("first")
    assert "student.epochs: must be at least 1, got 0" in refused(project.load().check)


def test_profiles_must_be_mappings(project, refused) -> None:
    project.write("quick: {student: {epochs: 2}}", "quick: 3")
    assert "pipelines.first.profiles.quick: must be a mapping" in refused(project.load().pipeline, "first")


def test_set_overrides_the_profile_in_order(project) -> None:
    pipeline = project.load("student.epochs=7", "student.epochs=8", "teacher.sam=null").pipeline("first")
    assert pipeline.student.epochs == 8
    assert pipeline.teacher.sam is None


def test_set_reads_yaml_values(project) -> None:
    pipeline = project.load(
        "prune.structures=[h, mlp]", "student.mixup={mixup: 0.2}", "teacher.optimizer.lr=1e-2", "evaluate.many=7",
        "evaluate.few=3",
    ).pipeline("first")  # fmt: skip
    assert pipeline.prune.structures == ("h", "mlp")
    assert pipeline.student.mixup.mixup == 0.2
    assert pipeline.teacher.optimizer.lr == 0.01
    assert pipeline.evaluate.many == 7


def test_set_of_another_kind_replaces_the_whole_mapping(project) -> None:
    objective = project.load("student.objective.kind=cross_entropy").pipeline("first").student.objective
    assert objective.parameters() == {"kind": "cross_entropy", "drw": None}


def test_a_value_in_its_equivalent_form_gives_the_same_parameters(project) -> None:
    one = project.load("student.optimizer.lr=1").pipeline("first").parameters()
    assert one == project.load("student.optimizer.lr=1.0").pipeline("first").parameters()
    assert repr(one["student"]["optimizer"]["lr"]) == "1.0"


REFUSED_SETS = {
    "teacher.epoch=3": "--set teacher.epoch=3: pipelines.first.teacher.epoch: unknown key 'epoch'; did you mean",
    "teachr.epochs=3": "--set teachr.epochs=3: pipelines.first.teachr: unknown key 'teachr'; did you mean 'teacher'?",
    "teacher.sam={r: 1}": "--set teacher.sam={r: 1}: pipelines.first.teacher.sam.r: unknown key 'r'; ",
    "teacher.epochs=x": '--set teacher.epochs=x: pipelines.first.teacher.epochs: must be a whole number, got "x"',
    "seed.x=3": "--set seed.x=3: pipelines.first.seed: must be a whole number",
    "dataset=digist": "--set dataset=digist: pipelines.first.dataset: no dataset 'digist'; did you mean 'digits'?",
}


def test_a_wrong_set_is_named_as_it_was_typed(project, refused) -> None:
    for override, message in REFUSED_SETS.items():
        assert refused(project.load(override).pipeline, "first").startswith(message)


REFUSED_FORMS = {
    "teacher": "--set teacher: must read key.path=value, e.g. teacher.epochs=3",
    "=3": "--set =3: must read key.path=value",
    "a..b=3": "--set a..b=3: must read key.path=value",
    "a=[1,": "--set a=[1,: is not YAML: ",
    "a=!x 1": "--set a=!x 1: the tag '!x' is not read",
    "profiles.quick.seed=1": "--set profiles.quick.seed=1: profiles.quick.seed: a profile is chosen with --profile",
}


def test_a_set_that_is_no_assignment_is_refused_on_loading(project, refused) -> None:
    for override, message in REFUSED_FORMS.items():
        assert refused(project.load, override).startswith(message)


def test_set_may_not_change_datasets(project, refused) -> None:
    said = refused(project.load, "datasets.digits.shard_size=7")
    assert said.startswith(
        "--set datasets.digits.shard_size=7: datasets.digits.shard_size: --set may not change datasets"
    )


def test_a_profile_may_not_change_datasets(project, refused) -> None:
    project.write("quick: {student: {epochs: 2}}", "quick: {datasets: {digits: {shard_size: 7}}}")
    said = refused(project.load().pipeline, "first")
    where = project.line("quick:")
    assert said.startswith(f"pipelines.yaml:{where}: pipelines.first.profiles.quick.datasets: a profile may not change")


def test_another_file_may_bring_pipelines_with_the_same_datasets(project, refused) -> None:
    other = project.root / "other.yaml"
    other.write_text(project.text.replace("epochs: 2}", "epochs: 3}"))
    assert project.load(file=other).pipeline("first").student.epochs == 3
    other.write_text(project.text[project.text.index("pipelines:") :])
    assert load(project.root, file=other).pipeline("first").dataset == "digits"


def test_another_file_may_not_change_datasets(project, refused) -> None:
    other = project.root / "other.yaml"
    changed = {
        "shard_size: 500": ("shard_size: 501", "other.yaml:4: datasets.digits.shard_size"),
        "    shard_size: 500\n": ("", "other.yaml:2: datasets.digits.shard_size"),
        "imbalance_factor: 5": ("imbalance_factor: 5, seed: 0", "other.yaml:6: datasets.digits.splits.longtail.seed"),
        "  digits:": ("  more: {}\n  digits:", "other.yaml:2: datasets.more"),
    }
    for old, (new, message) in changed.items():
        other.write_text(project.text.replace(old, new))
        said = refused(project.load, file=other)
        assert said.startswith(f"{message}: another file may not change datasets"), said


def test_a_missing_other_file_is_refused(project, refused) -> None:
    assert (
        refused(project.load, file=project.root / "nope.yaml") == "nope.yaml: cannot be read: No such file or directory"
    )


def test_a_profile_turns_a_model_from_elsewhere_into_a_training_and_back_as_a_whole(project):
    weights = "{model: {kind: cifar_resnet}, preprocessing: {size: 32}, weights: {timm: resnet34.a1_in1k}}"
    trained = project.load().pipeline("first").teacher
    file = "teacher.weights={file: a.safetensors, sha256: %s}" % ("a" * 64)
    imported = project.load(f"teacher={weights}", file).pipeline("first").teacher
    assert imported.weights.file == "a.safetensors"
    again = f"teacher={trained.model_dump_json()}"
    assert project.load(f"teacher={weights}", file, again).pipeline("first").teacher == trained
