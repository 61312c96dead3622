"""The miniature project: rooms added to a copy of vitops, with every shape in which code reaches other code.

``$n_...$`` is a number, ``$l_...$`` a local name, ``$v_...$`` one of the texts in ``VARIANTS``. Every number that a
stage can feel goes through a hash into its output, so an edit that matters shows. Names that begin with ``n_dead``
stand where no stage looks.
"""

FILES = {
    "config/mini.py": '''
        """Sections of the miniature pipeline."""

        from typing import Annotated, ClassVar, Literal

        from pydantic import Field, PrivateAttr

        from vitops.config.base import Section, later_field

        LIMIT = $n_limit$


        class Alpha(Section):
            implementation: ClassVar[str] = "vitops.mini.methods.alpha:apply"
            kind: Literal["alpha"] = "alpha"
            gain: int = $n_default_alpha$


        class Beta(Section):
            implementation: ClassVar[str] = "vitops.mini.methods.beta:apply"
            kind: Literal["beta"] = "beta"
            gain: int = $n_default_beta$


        class Warmup(Section):
            steps: int = $n_warmup$
            SHARE: ClassVar[int] = $n_share$


        class Train(Section):
            method: Annotated[Alpha | Beta, Field(discriminator="kind")] = Alpha()
            epochs: int = $n_default_epochs$
            width: int = $n_default_width$
            $v_neutral$
            _slope: int = PrivateAttr($n_private$)

            def budget(self):
                return [self.epochs * LIMIT + self.width, self._slope]


        class Prune(Section):
            ratio: int = $n_default_ratio$


        class Export(Section):
            opset: int = $n_default_opset$
        ''',
    "mini/__init__.py": '"""Toy stages."""\n',
    "mini/reading.py": '''
        """Inputs and outputs of the toy stages."""

        import hashlib
        import json

        MODULUS = $n_modulus$


        def mix(*parts):
            text = json.dumps(parts)
            return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


        def read(job, role):
            $l_folder$ = job.inputs[role]
            names = sorted(path.name for path in $l_folder$.iterdir() if path.suffix == ".txt")
            return mix(MODULUS, [($l_folder$ / name).read_text() for name in names])


        def write(job, name, value):
            (job.out / f"{name}.txt").write_text(str(value))


        def unused(path):
            return path, $n_dead_reading$
        ''',
    "mini/figures.py": '''
        """Decorators, closures, defaults."""

        import functools

        STEP = $n_step$


        def scaled(factor):
            def wrap(function):
                @functools.wraps(function)
                def inner(*args, **kwargs):
                    return [factor, STEP, function(*args, **kwargs)]

                return inner

            return wrap


        def counted(function):
            return function


        @scaled($n_decorated$)
        def decorated(x, *, gain=$n_gain$):
            $l_total$ = x + gain
            $l_total$ += $n_body$
            return $l_total$


        def closure(x):
            shift = $n_shift$

            def inner(y):
                return [y, shift, $n_inner$]

            return inner(x)


        def annotated(x: $v_annotation$) -> int:
            return x + $n_annotated$


        def dead(x):
            return x * $n_dead_figures$ + STEP
        ''',
    "mini/nets.py": '''
        """Classes, bases, class attributes, a registry by subclass."""

        from dataclasses import dataclass

        from vitops.mini import reading


        class Base:
            known = {}
            width = $n_base_width$

            def __init_subclass__(cls):
                Base.known[cls.__name__] = cls

            def run(self, x):
                return [self.width, self.step(x)]

            def step(self, x):
                return x + $n_base_step$


        class Narrow(Base):
            width = $n_narrow$


        class Wide(Base):
            width = $n_wide$

            def step(self, x):
                return x - $n_wide_step$


        class Net($v_base$):
            depth: int = $n_net_depth$

            @property
            def size(self):
                return self.depth * $n_size$

            @staticmethod
            def fold(x):
                return reading.mix(x, $n_fold$)


        @dataclass
        class Setting:
            rate: int = $n_setting$


        class Lonely:
            rate = $n_dead_nets$
        ''',
    "mini/families.py": '''
        """Classes that reach each other's members in hidden ways, each with nothing but its own objects."""


        class Root:
            share = $n_super_share$

            def step(self):
                return [$n_super_root$]


        class Left(Root):
            share = $n_super_left_share$

            def step(self):
                return [$n_super_left$, super().step()]


        class Right(Root):
            share = $n_super_hidden$

            def step(self):
                return [$n_super_right$, super().step()]


        class Both(Left, Right):
            def step(self):
                return [self.share, super(Right, self).share, super().step()]


        class Typed:
            width = $n_typed$

            def run(self):
                return type(self).width


        class TypedLow(Typed):
            width = $n_typed_low$


        class Named:
            low_rate = $n_named_low$
            high_rate = $n_named_high$

            def read(self, which):
                return getattr(self, f"{which}_rate")


        class NamedMore(Named):
            high_rate = $n_named_more$


        class Plugin:
            kept = {}

            def __init_subclass__(cls, **options):
                super().__init_subclass__(**options)
                cls.kept[cls.__name__] = cls

            @classmethod
            def make(cls, name):
                return cls.kept[name]()


        class First(Plugin):
            rate = $n_plugin_first$


        class Second(Plugin):
            rate = $n_plugin_second$


        class Shelf:
            books = {}

            @classmethod
            def __init_subclass__(cls):
                Shelf.books[cls.__name__] = cls


        class Novel(Shelf):
            pages = $n_novel$


        class Atlas(Shelf):
            pages = $n_atlas$


        def felt(names):
            shelf = Shelf.books
            plugins = [Plugin.make(name).rate for name in names]
            rates = [NamedMore().read("low"), NamedMore().read("high"), Named().read("high")]
            widths = [TypedLow().run(), Typed().run(), TypedLow.extra]
            return [Both().step(), widths, rates, plugins, shelf["Novel"].pages]
        ''',
    "mini/peeks.py": '''
        """Code that looks behind the attributes of whatever class it is given."""

        import inspect


        class Deep:
            rate = $n_deep$


        class Deeper(Deep):
            rate = $n_deeper$


        class Covered:
            rate = $n_covered$


        class Uncovered(Covered):
            rate = 0


        del Uncovered.rate


        class Holder:
            held = {}

            def __init_subclass__(cls):
                Holder.held[cls.__name__] = cls


        class Inner(Holder):
            size = $n_held$


        class Other(Holder):
            size = $n_held_other$


        class Bare:
            tone = $n_bare$


        class Loud(Bare):
            tone = $n_loud$


        def felt():
            orders = [vars(kind)["rate"] for kind in inspect.getmro(Deeper) if "rate" in vars(kind)]
            held = vars(Holder)["held"]["Inner"].size
            found = getattr(Holder, "he" + "ld")["Other"].size
            return [orders, Uncovered().rate, held, found, getattr(Loud, "__base__").tone, Loud.tone]
        ''',
    "mini/tables.py": '''
        """Tables that statements and other modules fill."""

        TABLE = {"first": $n_first$}
        ORDER = []
        CHOSEN = {"alpha": "vitops.mini.methods.alpha:apply", "beta": "vitops.mini.methods.beta:apply"}

        ORDER.append($n_order$)
        TABLE["second"] = $n_second$

        if len(TABLE) > $v_few$:
            def conditional(x):
                return x + $n_conditional$
        else:
            def conditional(x):
                return x - $n_otherwise$


        def note(name, value):
            TABLE[name] = value
            return value


        UNUSED = [$n_dead_tables$]
        ''',
    "mini/filled.py": '''
        """Runs when it is imported."""

        from vitops.mini import families, nets, tables
        from vitops.mini.figures import counted

        handle = tables.note("third", $n_third$)
        handles = list(map(tables.ORDER.append, [$n_handed$]))
        nets.Setting.scale = $n_patched$
        families.Typed.extra = $n_patched_class$


        class Found(nets.Base):
            width = $n_found$


        @counted
        def marked(x):
            return x
        ''',
    "mini/shapes.py": '''
        """What a star import brings."""

        from vitops.mini.lengths import *

        AREA = $n_area$


        def area(x):
            return [x, AREA, length(x)]


        def volume(x):
            return x * $n_dead_shapes$
        ''',
    "mini/lengths.py": """
        UNIT = $n_unit$


        def length(x):
            return x + UNIT


        def weight(x):
            return x - $n_dead_lengths$
        """,
    "mini/named.py": '''
        """Functions that are found by their names."""


        def op_add(x):
            return x + $n_add$


        def op_sub(x):
            return x - $n_sub$


        def run(name, x):
            return globals()[f"op_{name}"](x)
        ''',
    "mini/late.py": "def late(x):\n    return x + $n_late$\n",
    "mini/plain.py": "def factor(x):\n    return x + $n_plain$\n",
    "mini/other.py": "def factor(x):\n    return x + $n_other$\n",
    "mini/again/__init__.py": """
        from vitops.mini.again.deep import reexported as shown

        OPEN = {"value": $n_open$}
        OPEN["more"] = $n_more$
        """,
    "mini/again/deep.py": """
        def reexported(x):
            return x + $n_reexported$


        def hidden(x):
            return x + $n_dead_deep$
        """,
    "mini/methods/__init__.py": "",
    "mini/methods/alpha.py": """
        BETA = $n_alpha_constant$


        def apply(section, x):
            return [x, section.gain, BETA, $n_alpha$]
        """,
    "mini/methods/beta.py": """
        def apply(section, x):
            return [section.gain, x + $n_beta$]
        """,
    "mini/train.py": '''
        """Training."""

        import importlib

        from vitops.config.mini import Train, Warmup
        from vitops.mini import families, figures, named, tables
        from vitops.mini.again import OPEN, shown
        from vitops.mini.$v_origin$ import factor
        from vitops.mini.nets import Net, Setting
        from vitops.mini.reading import mix, read, write
        from vitops.mini.shapes import *
        from vitops.store.job import Outcome
        import vitops.mini.filled

        OFFSET = $n_offset$
        OFFSETS = [OFFSET, $n_offsets$]


        def train(job):
            config = Train.model_validate(job.parameters["config"])
            module, _, attribute = config.method.implementation.partition(":")
            method = getattr(importlib.import_module(module), attribute)
            $l_seen$ = [read(job, role) for role in sorted(job.inputs)]
            net, start = Net(), Warmup()
            $l_parts$ = [
                config.budget(), method(config.method, 3), figures.decorated(5), figures.closure(2),
                figures.annotated(1), net.run(4), net.size, net.fold(8), Setting().rate, Setting.scale,
                tables.TABLE, tables.ORDER, tables.conditional(6), area(7), factor(9), shown(10), OPEN,
                named.run("add", 11), start.steps, Warmup.model_validate({}).steps, Warmup.SHARE,
                OFFSETS, Net.known["Found"].width, families.felt(["First", "Second"]),
            ]
            write(job, "model", mix($l_seen$, $l_parts$, $n_train$))
            write(job, "coarse", mix($l_seen$) % $n_coarse$)
            return Outcome()


        def helper(x):
            return x + $n_dead_train$
        ''',
    "mini/prune.py": '''
        """Pruning: fills in a section by itself, and imports where it needs to."""

        from vitops.config.mini import Prune, Warmup
        from vitops.mini import reading
        from vitops.store.job import Outcome

        FIRST = (second := $n_walrus$)


        def prune(job):
            from vitops.mini.late import late

            config = Prune.model_validate(job.parameters["config"])
            section = Warmup(steps=$n_steps$)
            chosen = {kind: value + late(1) for kind, value in enumerate([$n_list$, section.steps, second])}
            value = reading.mix(reading.read(job, "model"), config.ratio, chosen[0], chosen[1], chosen[2])
            reading.write(job, "model", value)
            return Outcome()
        ''',
    "mini/export.py": '''
        """Export: its output depends on little of its input, so that much ends here."""

        from vitops.config.mini import Export
        from vitops.mini import peeks
        from vitops.mini.reading import mix, read, write
        from vitops.store.job import Outcome


        class Graph:
            """A graph."""

            def __init__(self, opset):
                self.opset = opset + $n_opset$

            def text(self, value):
                return mix(value % 2, self.opset, $n_graph$, peeks.felt())


        def export(job):
            config = Export.model_validate(job.parameters["config"])
            write(job, "graph", Graph(config.opset).text(read(job, "model")))
            return Outcome()
        ''',
    "mini/evaluate.py": '''
        """Evaluation, and a report that is measured."""

        import time

        from vitops.mini.reading import mix, read, write
        from vitops.store.job import Outcome


        def score(values, *, weight=$n_weight$):
            match values:
                case [first, *rest]:
                    return mix(first, rest, weight)
                case _:
                    return $n_dead_score$ * 0


        def evaluate(job):
            write(job, "metrics", score([read(job, role) for role in sorted(job.inputs)]))
            return Outcome()


        def report(job):
            write(job, "page", f"{time.time_ns()} {read(job, 'evaluate')} {$n_report$}")
            return Outcome()
        ''',
    "mini/pipeline.py": '''
        """The stages of the miniature pipeline, as ``vitops.plan.stages`` makes those of a real one."""

        from vitops.config.mini import Export, Prune, Train
        from vitops.plan.stages import Stage

        KINDS = {"teacher": Train, "student": Train, "prune": Prune, "export": Export}


        def stages(document):
            sections = {name: kind.model_validate(document[name]) for name, kind in KINDS.items()}

            def stage(name, function, exactness="exact", **inputs):
                section = sections.get(name)
                roots = {f"vitops.mini.{function}": None}
                for inner in section.sections() if section else ():
                    roots[f"{type(inner).__module__}:{type(inner).__name__}"] = None
                    roots |= {inner.implementation: None} if inner.implementation else {}
                return Stage(
                    name=name,
                    kind=function.split(":")[1],
                    parameters={"config": section.parameters() if section else {}, "seed": document["seed"]},
                    roots=tuple(roots),
                    libraries=("pydantic",),
                    environment={"mode": "exact", "device": "cpu", "threads": 1},
                    inputs=inputs,
                    exactness=exactness,
                )

            return (
                Stage(
                    name="split",
                    kind="split",
                    parameters={"dataset": "toy", "split": "all"},
                    roots=("vitops.mini.reading:read",),
                    libraries=(),
                    environment={},
                ),
                stage("teacher", "train:train", split="split"),
                stage("student", "train:train", split="split", teacher="teacher"),
                stage("prune", "prune:prune", split="split", model="student"),
                stage("export", "export:export", model="prune"),
                stage("evaluate", "evaluate:evaluate", split="split", student="student", export="export"),
                stage("report", "evaluate:report", "measured", evaluate="evaluate"),
            )
        ''',
}

VARIANTS = {
    "v_base": ["Narrow", "Wide", "Base"],
    "v_origin": ["plain", "other"],
    "v_few": ["1", "9"],
    "v_annotation": ["int", "float", '"int"'],
    "v_neutral": ["", "later: int = later_field(0)"],
}
"""The texts between which an edit may choose; the first one is where the project begins."""
NEUTRAL_VARIANTS = {"v_annotation", "v_neutral"}

PARAMETERS = {
    "seed": 0,
    "teacher": {"method": {"kind": "alpha"}},
    "student": {"method": {"kind": "beta", "gain": 4}, "epochs": 2},
    "prune": {},
    "export": {},
}
DATA = {"train.txt": "1 2 3 4", "test.txt": "5 6 7 8"}
