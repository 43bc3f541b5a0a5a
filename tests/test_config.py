import dataclasses

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tfrec.errors import UsageError
from tfrec.experiments import config, flags
from tfrec.experiments.config import make_config
from tfrec.experiments.tables import MODELS, TABLES
from tfrec.models.hybrid import TERMS
from tfrec.settings import fields, kind_of

FIELDS = config.known_fields()


def parse(*arguments):
    return flags.from_args(list(arguments))


def test_flags_without_arguments_are_the_defaults():
    assert parse() == make_config()


def test_every_setting_has_one_line_of_help():
    assert all(
        spec.metadata["help"] and "\n" not in spec.metadata["help"] for spec in FIELDS.values()
    )


CHOICES = [
    {"model": name, "task": task, **more}
    for name, model in MODELS.items()
    for task in model.tasks
    for more in ({}, {"split": "kfold"}, {"dataset": "synthetic"}, {"dataset": "blocks:x"})
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice.values()))
def test_a_setting_is_taken_where_a_part_of_the_run_has_it_and_refused_elsewhere(choice):
    """Its default, too: who names it means something by it."""
    parts = config.parts_of(choice)
    owned = {name for part in parts.values() for name in fields(part)}
    for name, spec in FIELDS.items():
        given = choice | ({} if name in choice else {name: spec.default})
        if name == "shared_negatives":  # whose default of 0 is not that of a softmax
            given |= {name: 9}
        if name in owned:
            made = make_config(**given).flat()[name]
            assert made == given[name] or made in spec.metadata["by_task"].values()
            continue
        with pytest.raises(UsageError) as error:
            make_config(**given)
        text = str(error.value)
        assert text.startswith(f"--{name}: no part of this run has it. It goes with ")
        assert "\n" not in text


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice.values()))
def test_no_two_parts_of_a_run_declare_the_same_setting(choice):
    names = [name for part in config.parts_of(choice).values() for name in fields(part)]
    assert len(names) == len(set(names))


@settings(deadline=None, max_examples=50)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "split": st.sampled_from(("random", "temporal", "leave_one_out")),
            "k": st.lists(st.integers(1, 99), min_size=1, max_size=4).map(tuple),
            "terms": st.lists(st.sampled_from(TERMS), min_size=1, unique=True).map(tuple),
            "learning_rate": st.floats(0, 10),
            "l2": st.none() | st.floats(0, 10),
            "relevance_threshold": st.none() | st.floats(-5, 5),
            "fallbacks": st.booleans(),
            "epochs": st.integers(1, 1000),
            "profile_steps": st.just(()) | st.tuples(st.integers(1, 9), st.integers(10, 99)),
        },
    )
)
def test_a_flag_file_brings_back_the_config(tmp_path_factory, changes):
    wanted = make_config(model="hybrid", task="ranking", **changes)
    path = tmp_path_factory.mktemp("flags") / "config.flags"
    path.write_text(wanted.flagfile())
    assert parse(f"--flagfile={path}") == wanted


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), max_size=9)
WORDS |= st.text(st.sampled_from(" \",=#-/'\\a\t"), max_size=6)
TEXTS = [
    name
    for name, spec in FIELDS.items()
    if kind_of(spec)[1] is str and not spec.metadata["choices"] and name != "workdir"
]
FREE = [
    name
    for name in TEXTS
    if "_column" in name
    or name.startswith(("users_", "products_"))
    or name in ("interactions", "data_dir")
]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(FREE), st.lists(WORDS, max_size=4))
def test_any_text_is_read_back_as_it_was(tmp_path_factory, name, words):
    value = tuple(words) if kind_of(FIELDS[name])[0] is tuple else "".join(words)
    files = {"dataset": "files", "interactions": "r.csv", "products": "p.csv", "users": "u.csv"}
    try:
        wanted = make_config(**files | {name: value})
    except UsageError:  # such as one column named twice, or no column at all
        reject()
    path = tmp_path_factory.mktemp("flags") / "config.flags"
    path.write_text(wanted.flagfile())
    assert parse(f"--flagfile={path}") == flags.read_flagfile(path) == wanted
    words = [config.flag_line(setting, wanted.flat()[setting]) for setting in files | {name: value}]
    assert parse(*words) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--undefok"], r"^--undefok: it needs a value, as --undefok=NAME\.$"),
        (["--flagfile=UNDEFOK"], r"^--flagfile=.*UNDEFOK, line 3: --undefok: it needs a value"),
        (["--flagfile"], "--flagfile: name the file"),
        (["--flagfile=LATIN"], r"--flagfile=.*: byte 9 is not UTF-8"),
        (
            ["--flagfile=LONG"],
            r"^--flagfile=.*LONG, line 1: --xyyy.{96}\.\.\.: there is no setting whose name has "
            r"10,001 letters\.$",
        ),
        (
            ["--x" + "y" * 10_000],
            r"^--xyyy.*: there is no setting whose name has 10,001 letters\.$",
        ),
        (
            ["--flagfile=UNKNOWN"],
            r"^--flagfile=.*UNKNOWN, line 2: Unknown command line flag 'epoch'",
        ),
        (["--flagfile=OUTER"], r"^--flagfile=.*UNKNOWN, line 2: Unknown command line flag 'epoch'"),
        (["--flagfile=WORDS"], r"^--flagfile=.*WORDS, line 1: flag --epochs=three: "),
        (["--flagfile=RIGHT", "--epochs=four"], r"^flag --epochs=four: "),
        (["--flagfile=QUOTED"], r"^--flagfile=.*QUOTED, line 1: .*expected a JSON string"),
        (["--flagfile=ITSELF"], "it names itself"),
        (["--flagfile=MISSING"], "cannot be read"),
        (['--users_categorical="a'], "quotation mark"),
    ],
)
def test_a_flag_file_that_cannot_be_read_is_told(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LATIN").write_bytes(b"--model=\xe9\n")
    (tmp_path / "LONG").write_text("--x" + "y" * 10_000 + "\n")
    (tmp_path / "UNDEFOK").write_text("# what may lack\n\n--undefok\n")
    (tmp_path / "UNKNOWN").write_text("--model=mf\n--epoch=3\n")
    (tmp_path / "OUTER").write_text(f"--model=mf\n--flagfile={tmp_path / 'UNKNOWN'}\n")
    (tmp_path / "WORDS").write_text("--epochs=three\n")
    (tmp_path / "RIGHT").write_text("--epochs=3\n")
    (tmp_path / "QUOTED").write_text('--interactions="a\n')
    (tmp_path / "ITSELF").write_text("--flagfile=ITSELF\n")
    with pytest.raises(UsageError, match=message):
        parse(*words)


def test_a_line_break_is_no_part_of_a_setting():
    for value in ("a\nb", "a\0", "\udcff"):
        with pytest.raises(UsageError, match=r"--user_column=.*(line break|UTF-8)"):
            make_config(dataset="files", interactions="r.csv", user_column=value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "mf"}, "--modle: there is no such setting. Did you mean model?"),
        ({"strategy": "mirored"}, "Did you mean mirrored?"),
        (
            {"model": "hybrid", "terms": ("dott",)},
            "--terms=dott: expected one of .* Did you mean dot?",
        ),
        ({"epochs": "3"}, "--epochs='3': expected int."),
        ({"epochs": 2.0}, "--epochs=2.0: expected int."),
        ({"epochs": True}, "--epochs=True: expected int."),
        ({"epochs": 0}, "--epochs=0: expected at least 1."),
        ({"test_fraction": 1.5}, "--test_fraction=1.5: expected at most 0.99."),
        ({"learning_rate": float("nan")}, "--learning_rate=nan: expected float."),
        (
            {"k": (5,)},
            "--k: no part of this run has it. It goes with --task=ranking, --full_ranking, "
            "--candidates_file.",
        ),
        (
            {"task": "ranking", "full_ranking": True},
            "--full_ranking: no part of this run has it. It goes with --task=rating.",
        ),
        ({"task": "ranking", "k": ()}, "--k: the list is empty."),
        ({"task": "ranking", "k": (5, 0)}, "--k=0: expected at least 1."),
        ({"task": "ranking", "k": 5.5}, "--k=5.5: expected tuple of int."),
        ({"biases": 1}, "--biases=1: expected bool."),
        ({"split": "files"}, "--split=files needs"),
        (
            {"train_file": "a"},
            "--train_file: no part of this run has it. It goes with --split=files.",
        ),
        ({"split": "files", "train_file": "a"}, "--split=files needs"),
        ({"split": "kfold", "fold": 5}, "--fold=5: with folds=5 the folds are 0 to 4."),
        (
            {"task": "ranking", "loss": "mse"},
            "--loss=mse: it is a loss of --task=rating, and",
        ),
        ({"virtual_devices": 2}, "--virtual_devices goes with strategy=mirrored."),
        *(
            (
                {"strategy": "parameter_server", name: True},
                f"--{name} is not supported with .*strategy=parameter_server.",
            )
            for name in ("jit_compile", "deterministic")
        ),
        ({"confidence_power": 1.0}, "--confidence_power: no part of this run has it. It goes with"),
        ({"profile_steps": (5,)}, "--profile_steps=5: expected two rising numbers"),
        ({"profile_steps": (5, 9, 12)}, "--profile_steps=5,9,12: expected two"),
        ({"profile_steps": (9, 5)}, "--profile_steps=9,5: expected two"),
        ({"profile_steps": (5, 5)}, "--profile_steps=5,5: expected two"),
        ({"profile_steps": (0, 5)}, "--profile_steps=0: expected at least 1."),
        (
            {"loss": "sigmoid"},
            "--loss=sigmoid: it is a loss of --task=ranking, and",
        ),
        (
            {"task": "ranking", "model": "ease", "loss": "bpr"},
            "--loss: no part of this run has it. It goes with models that are trained",
        ),
        (
            {"loss": "ordinal", "target_scaling": "product_minmax"},
            "--loss=ordinal needs the same levels for all products",
        ),
        (
            {"temperature": 0.1},
            "--temperature: no part of this run has it. It goes with --loss=sampled_softmax or",
        ),
        (
            {"task": "ranking", "loss": "in_batch_softmax", "shared_negatives": 5},
            "--shared_negatives: no part of this run has it. It goes with --loss=sigmoid or bpr or",
        ),
        (
            {"task": "ranking", "loss": "sampled_softmax", "hard_negatives": 50},
            "--hard_negatives: no part of this run has it. It goes with --loss=sigmoid or bpr.",
        ),
        (
            {"task": "ranking", "loss": "bpr", "hard_negatives": 50, "shared_negatives": 5},
            "--hard_negatives does not go with shared_negatives. Take one of them.",
        ),
        (
            {"task": "ranking", "negatives": 8, "shared_negatives": 64},
            "--negatives=8 does not go with shared_negatives=64. Give one of them.",
        ),
        (
            {"task": "ranking", "explicit_negatives": True},
            "--explicit_negatives does not go with a softmax. Take loss=bpr, say.",
        ),
        ({"hard_negatives": 50}, "--hard_negatives: no part of this run has it."),
        ({"exclude_positives": True}, "--exclude_positives: no part of this run has it."),
        (
            {"task": "ranking", "model": "item_knn", "confidence_power": 1.0},
            "--confidence_power: no part of this run has it. It goes with --model=ease or ials",
        ),
        (
            {"model": "hybrid", "implicit_factors": ("user",)},
            "--implicit_factors: no part of this run has it. It goes with --model=mf.",
        ),
        (
            {"model": "mf", "gmf_dim": 8},
            "--gmf_dim: no part of this run has it. It goes with --model=ncf.",
        ),
        (
            {"model": "mf", "cosine": False},
            "--cosine: no part of this run has it. It goes with --model=ncf.",
        ),
        (
            {"gmf_dim": 8, "cosine": False},
            "--nocosine: with gmf_dim there is none. Leave one of them out.",
        ),
        ({"gmf_dim": 8, "pretrained": ("one",)}, "--pretrained=WORKDIR,WORKDIR takes two folders"),
        (
            {"pretrained": ("one", "two")},
            "--pretrained: no part of this run has it. It goes with --model=ncf with --gmf_dim.",
        ),
        (
            {"task": "ranking", "loss": "bpr", "hard_negatives": 5},
            "--hard_negatives=5: expected at least negatives, which is 8.",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(changes, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")) as caught:
        make_config(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", ["--k=5,x", "--k="])
def test_a_wrong_list_is_one_line(argument):
    with pytest.raises(UsageError, match="--k"):
        parse("--task=ranking", argument)


def test_help_names_every_setting():
    named = [f"--{flag}={name}" for flag, table in TABLES.items() for name in table]
    texts = [
        flags.help_text([word, f"--task={task}"])
        for word in [*named, "--gmf_dim=8"]
        for task in ("rating", "ranking")
    ]
    text = "".join(texts)
    assert all(f"\n  --{name}" in text or f"\n  --no{name}" in text for name in FIELDS)
    assert max(len(line) for line in text.splitlines()) <= 130


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config().given = {}


def test_replace_checks_like_make_config():
    assert make_config(epochs=2).replace(model="mf") == make_config(epochs=2, model="mf")
    with pytest.raises(UsageError):
        make_config().replace(epochs=0)
