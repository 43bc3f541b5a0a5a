from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec import optimizers
from tfrec.errors import UsageError
from tfrec.experiments.tables import OPTIMIZERS
from tfrec.layers import Lookup
from tfrec.optimizers import updates
from tfrec.optimizers.updates import DENSE_BELOW, Optimizer
from tfrec.training import strategies

# float noise in Keras' own bias correction grows with it: at 0.05 it is 3e-6 off the exact value
# after 12 steps
RATE = 0.01
EVERY = tuple(OPTIMIZERS)
AT_REST = ("sgd", "adagrad", "rowwise_adagrad")  # dense, a row without a gradient stays where it is
EXACT = (
    *AT_REST,
    "momentum",
    "ftrl",
)  # sparse, a touched row is exactly where the dense mode has it


class SlowRowwiseAdagrad:
    """Keras has none."""

    def __init__(self, rate: float) -> None:
        self.rate, self.accumulator = rate, 0.1

    def apply(self, gradients, variables):
        g = np.array(gradients[0])
        self.accumulator = self.accumulator + np.mean(
            g**2, axis=tuple(range(1, g.ndim)), keepdims=True
        )
        variables[0].assign_sub(self.rate * g / (np.sqrt(self.accumulator) + 1e-7))


KERAS = {
    "sgd": tf.keras.optimizers.SGD,
    "momentum": lambda rate: tf.keras.optimizers.SGD(rate, momentum=0.9),
    "adagrad": tf.keras.optimizers.Adagrad,
    "rowwise_adagrad": SlowRowwiseAdagrad,
    "adam": tf.keras.optimizers.Adam,
    "adamw": tf.keras.optimizers.AdamW,
    "ftrl": tf.keras.optimizers.Ftrl,
}


def make(name: str, variables: dict, **options) -> Optimizer:
    l2 = options.pop("l2", 0.0)
    optimizer = OPTIMIZERS[name](RATE, **options)
    optimizer.build(variables, {name: np.float32(1) for name in variables}, l2)
    return optimizer


def apply(
    optimizer: Optimizer,
    gradients: dict,
    variables: dict,
    step: int = 0,
    want_norm: bool = True,
    lookups=None,
) -> tf.Tensor:
    """One update without a strategy.

    Lookups: {table: [Lookup]}, or each index of a gradient once.
    """
    where = tf.distribute.get_strategy()
    slices = {
        name: gradient
        for name, gradient in gradients.items()
        if isinstance(gradient, tf.IndexedSlices)
    }
    each = {
        name: [Lookup(gradient.indices, tf.ones(gradient.indices.shape))]
        for name, gradient in slices.items()
    }
    shares = optimizer.merge(where, dict(gradients), variables, lookups or each)
    return optimizer.apply(
        where, shares, variables, tf.constant(step, tf.int64), tf.constant(want_norm)
    )


def walk(
    name: str, table: np.ndarray, gradients: list, lookups: list | None = None, **options
) -> SimpleNamespace:
    """One update for each gradient (an array, or a pair (ids, values)), whose lookups are Lookups,
    or its ids.
    """
    variables = {"table": tf.Variable(table)}
    optimizer = make(name, variables, **options)
    tables, norms, states = [], [], []
    for step, gradient in enumerate(gradients):
        given = {
            "table": lookup(*gradient) if isinstance(gradient, tuple) else tf.constant(gradient)
        }
        norm = apply(
            optimizer, given, variables, step, lookups=lookups and {"table": lookups[step]}
        )
        norms.append(float(norm))
        tables.append(variables["table"].numpy())
        states.append({path: slot.numpy() for path, slot in optimizer.variables().items()})
    return SimpleNamespace(tables=tables, norms=norms, states=states, mode=optimizer.modes["table"])


def keras_walk(name: str, table: np.ndarray, gradients: list) -> list[np.ndarray]:
    variable, optimizer, tables = tf.keras.Variable(table), KERAS[name](RATE), []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
        tables.append(variable.numpy())
    return tables


def lookup(ids, values) -> tf.IndexedSlices:
    """The gradient of a lookup."""
    ids = np.array(ids, np.int32)
    return tf.IndexedSlices(
        tf.constant(np.float32(values)), tf.constant(ids), tf.constant(np.shape(values))
    )


def as_dense(ids, values, shape) -> np.ndarray:
    dense = np.zeros(shape, np.float32)
    np.add.at(dense, np.array(ids, int), values)
    return dense


def densified(case) -> list[np.ndarray]:
    table, steps = case
    return [as_dense(*step, table.shape) for step in steps]


def dense_steps(shape, count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.RandomState(seed)
    return [random.normal(size=shape).astype(np.float32) for _ in range(count)]


def cases(all_rows: bool = False):
    """(table, [(ids, values)]).

    A few steps of lookups with repeated ids, some without any; or each touches all rows.
    """

    def make(of):
        rows, width, lists, seed = of
        random = np.random.RandomState(seed)
        steps = [[i % rows for i in ids] + (list(range(rows)) if all_rows else []) for ids in lists]
        table = random.normal(size=(rows, width)).astype(np.float32)
        return table, [
            (ids, random.normal(size=(len(ids), width)).astype(np.float32)) for ids in steps
        ]

    ids = st.lists(st.integers(0, 99), max_size=8)
    return st.tuples(
        st.integers(1, 6),
        st.integers(1, 3),
        st.lists(ids, min_size=1, max_size=4),
        st.integers(0, 999),
    ).map(make)


# ---- against Keras ----


@pytest.mark.parametrize(
    "fused_from", (0, 20_000)
)  # Adam: by TensorFlow's kernel, and by small operations
@pytest.mark.parametrize("shape", ((), (3,), (4, 2)))
@pytest.mark.parametrize("name", EVERY)
def test_dense_gradients_do_what_keras_does(name, shape, fused_from, monkeypatch):
    monkeypatch.setattr(optimizers, "FUSED_FROM", fused_from)
    table, gradients = dense_steps(shape, 1, seed=1)[0], dense_steps(shape, 12)
    np.testing.assert_allclose(
        walk(name, table, gradients).tables, keras_walk(name, table, gradients), atol=1e-6
    )


@pytest.mark.parametrize(
    "name, sparse_updates",
    [(name, "never") for name in EVERY] + [(name, "always") for name in AT_REST],
)
@settings(deadline=None, max_examples=10)
@given(cases())
def test_lookups_do_what_keras_does_on_the_dense_gradient(name, sparse_updates, case):
    table, steps = case
    ours = walk(name, table, steps, sparse_updates=sparse_updates)
    np.testing.assert_allclose(ours.tables, keras_walk(name, table, densified(case)), atol=1e-6)
    assert ours.mode == ("sparse" if sparse_updates == "always" else "dense")


@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None, max_examples=10)
@given(cases(all_rows=True))
def test_the_sparse_mode_does_what_keras_does_where_every_step_touches_every_row(name, case):
    table, steps = case
    ours = walk(name, table, steps, sparse_updates="always")
    np.testing.assert_allclose(ours.tables, keras_walk(name, table, densified(case)), atol=1e-6)
    assert ours.mode == "sparse"


@pytest.mark.parametrize("name", EXACT)
@settings(deadline=None, max_examples=10)
@given(cases(), st.integers(0, 20))
def test_a_touched_row_is_where_keras_has_it_after_any_gap(name, case, gap):
    """All rows at first, as Keras' FTRL sets a row that has had no gradient to 0."""
    table, steps = case
    nowhere, everywhere = (
        ([], np.zeros((0, table.shape[1]))),
        (range(len(table)), np.ones(table.shape)),
    )
    steps = [everywhere, *steps, *[nowhere] * gap, everywhere]
    ours, theirs = (
        walk(name, table, steps, sparse_updates="always").tables,
        keras_walk(name, table, densified((table, steps))),
    )
    for (ids, _), here, there in zip(steps, ours, theirs):
        np.testing.assert_allclose(here[list(ids)], there[list(ids)], atol=3e-6)


@pytest.mark.parametrize("sparse_updates", ("never", "always"))
def test_ftrl_with_its_l1(sparse_updates, monkeypatch):
    l1 = 0.05
    monkeypatch.setitem(KERAS, "ftrl", lambda rate: tf.keras.optimizers.Ftrl(rate, -0.5, 0.1, l1))
    table, gradients = (
        np.ones((4, 3), np.float32),
        [0.05 * gradient for gradient in dense_steps((4, 3), 20)],
    )
    tables = walk(
        "ftrl",
        table,
        [(range(4), gradient) for gradient in gradients],
        sparse_updates=sparse_updates,
        l1=l1,
    ).tables
    np.testing.assert_allclose(tables, keras_walk("ftrl", table, gradients), atol=1e-6)
    assert 0 < np.mean(tables[-1] == 0) < 1


# ---- the sparse mode of Adam ----


def slow_adam(table: np.ndarray, steps: list, decay: float) -> np.ndarray:
    """Moments of all rows decay in every step.

    A row makes the movements that it missed when it is touched the next time.
    """
    w, m, v, owed = table.astype(np.float64), *np.zeros((3, *table.shape))
    last, first_missed = np.zeros(len(table)), np.zeros(len(table))
    for t, (ids, values) in enumerate(steps, 1):
        g = as_dense(ids, values, table.shape).astype(np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        correction, movement = np.sqrt(1 - 0.999**t) / (1 - 0.9**t), RATE * m / (np.sqrt(v) + 1e-7)
        for row in range(len(table)):
            if row in ids:
                w[row] = (
                    w[row] * (1 - RATE * decay) ** (t - last[row])
                    - owed[row]
                    - correction * movement[row]
                )
                last[row], first_missed[row], owed[row] = t, 0, 0
            else:
                first_missed[row] = first_missed[row] or correction
                owed[row] += first_missed[row] * movement[row]
    return w


@pytest.mark.parametrize("name, decay", (("adam", 0.0), ("adamw", 0.004)))
@settings(deadline=None, max_examples=10)
@given(cases(), st.integers(0, 20))
def test_sparse_adam_makes_up_for_the_steps_that_a_row_missed(name, decay, case, gap):
    table, steps = case
    steps = [*steps, *[([], np.zeros((0, table.shape[1])))] * gap, *steps]
    ours = walk(name, table, steps, sparse_updates="always").tables[-1]
    np.testing.assert_allclose(ours, slow_adam(table, steps, decay), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("gap", (3, 60))
@pytest.mark.parametrize("name", ("adam", "adamw"))
def test_a_touched_row_is_close_to_where_keras_has_it_after_any_gap(name, gap):
    table, busy = dense_steps((3, 2), 1, seed=1)[0], dense_steps((3, 2), 40)
    gradients = [*busy, *[np.zeros((3, 2), np.float32)] * gap, busy[0]]
    steps = [
        (range(3) if gradient.any() else [], gradient if gradient.any() else gradient[:0])
        for gradient in gradients
    ]
    ours, theirs = (
        walk(name, table, steps, sparse_updates="always").tables,
        keras_walk(name, table, gradients),
    )
    moved = np.linalg.norm(theirs[-1] - theirs[len(busy) - 1])
    assert np.linalg.norm(ours[-1] - theirs[-1]) < 0.1 * moved


@pytest.mark.parametrize("name", ("adam", "adamw"))
def test_a_long_absence_decays_the_moments(name):
    here, elsewhere = ([0], [[1.0]]), ([1], [[1.0]])
    state = walk(
        name,
        np.ones((2, 1), np.float32),
        [here] + [elsewhere] * 6 + [here],
        sparse_updates="always",
    ).states[-1]
    assert state["table/m"][0] == pytest.approx(0.1 * 0.9**7 + 0.1, rel=1e-5)
    assert state["table/v"][0] == pytest.approx(0.001 * 0.999**7 + 0.001, rel=1e-5)
    assert state["table/last_step"].tolist() == [8, 7]


def test_adamw_takes_its_weight_decay():
    variables = {"table": tf.Variable([[2.0]])}
    optimizer = make("adamw", variables, sparse_updates="always", weight_decay=0.5)
    apply(
        optimizer, {"table": lookup([0], [[0.0]])}, variables, step=2
    )  # three steps of decay and no gradient
    np.testing.assert_allclose(variables["table"], [[2 * (1 - RATE * 0.5) ** 3]], rtol=1e-6)


# ---- the sparse mode of each ----


@pytest.mark.parametrize("ids", ([2, 4, 2], [0], []))
@pytest.mark.parametrize("name", EVERY)
def test_rows_that_are_not_touched_keep_every_bit_and_so_do_their_slots(name, ids):
    table = dense_steps((6, 3), 1)[0]
    everything = (range(6), dense_steps((6, 3), 1, seed=1)[0])
    walked = walk(
        name,
        table,
        [everything, everything, (ids, np.ones((len(ids), 3)))],
        sparse_updates="always",
        l2=0.3,
        clip_norm=1.0,
    )
    others = [row for row in range(6) if row not in ids]
    before, after = (
        {"": tables} | state for tables, state in zip(walked.tables[1:], walked.states[1:])
    )
    for path in before:
        np.testing.assert_array_equal(before[path][others], after[path][others], err_msg=path)
        if ids and path != "":
            assert (before[path][ids] != after[path][ids]).all()
    assert walked.mode == "sparse"


@pytest.mark.parametrize("shape", ((5,), (5, 2), (5, 2, 3)))
@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@pytest.mark.parametrize("name", EVERY)
def test_tables_of_any_rank(name, sparse_updates, shape):
    """Rows may be numbers, vectors or matrices."""
    random = np.random.RandomState(0)
    ids = [0, 1, 2, 3, 4, 0, 0]
    table, values = (
        random.normal(size=shape).astype(np.float32),
        random.normal(size=(len(ids), *shape[1:])).astype(np.float32),
    )
    full = as_dense(ids, values, shape)
    theirs = keras_walk(name, table, [full + 0.2 * table])
    weights = [[Lookup(np.arange(5, dtype=np.int32), np.full(5, 0.5, np.float32))]]
    ours = walk(
        name, table, [(ids, values)], lookups=weights, sparse_updates=sparse_updates, l2=0.2
    )
    np.testing.assert_allclose(ours.tables, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "zero", "keras"),
    [
        ("adam", {"beta1": 0.0}, lambda rate: tf.keras.optimizers.Adam(rate, beta_1=0.0)),
        ("momentum", {"momentum": 0.0}, lambda rate: tf.keras.optimizers.SGD(rate)),
    ],
)
@pytest.mark.parametrize("sparse_updates", ["always", "never"])
def test_a_decay_of_0_forgets_at_once(name, zero, keras, sparse_updates, monkeypatch):
    monkeypatch.setitem(KERAS, name, keras)
    table = np.random.RandomState(0).normal(size=(3, 2)).astype(np.float32)
    ids = [0, 1, 2]
    values = [np.random.RandomState(at).normal(size=(3, 2)).astype(np.float32) for at in range(4)]
    ours = walk(
        name, table, [(ids, each) for each in values], sparse_updates=sparse_updates, **zero
    )
    for one, other in zip(ours.tables, keras_walk(name, table, values)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_adam_refuses_decays_under_which_rare_rows_fly_off():
    with pytest.raises(
        UsageError, match=r"^beta1=0\.9: expected less than the root of beta2, 0\.9"
    ):
        optimizers.Adam(beta1=0.9, beta2=0.81)


def test_slots_by_path():
    table = {"a/table": tf.Variable(tf.ones([3, 2])), "b": tf.Variable(1.0)}
    paths = {name: set(make(name, table).variables()) for name in EVERY}
    assert paths == {
        "sgd": set(),
        "momentum": {"a/table/velocity", "a/table/last_step", "b/velocity"},
        "adagrad": {"a/table/accumulator", "b/accumulator"},
        "rowwise_adagrad": {"a/table/accumulator", "b/accumulator"},
        "adam": {"a/table/m", "a/table/v", "a/table/last_step", "b/m", "b/v"},
        "adamw": {"a/table/m", "a/table/v", "a/table/last_step", "b/m", "b/v"},
        "ftrl": {"a/table/accumulator", "a/table/linear", "b/accumulator", "b/linear"},
    }
    assert make("rowwise_adagrad", table).variables()["a/table/accumulator"].shape == 3
    assert "a/table/last_step" not in make("adam", table, sparse_updates="never").variables()


# ---- L2 and clipping ----


@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@pytest.mark.parametrize("name", AT_REST)
@settings(deadline=None, max_examples=10)
@given(cases(), st.booleans(), st.integers(0, 99))
def test_l2_counts_the_weights_of_the_lookups(name, sparse_updates, case, shuffled, seed):
    """In whatever order the lookups come, also where a row is looked up in several places and where
    padding weighs nothing.
    """
    table, steps = case
    random, expected = np.random.RandomState(seed), table
    orders = [random.permutation(len(ids)) if shuffled else np.arange(len(ids)) for ids, _ in steps]
    ids = [np.array(ids, np.int32)[order] for (ids, _), order in zip(steps, orders)]
    weights = [random.randint(0, 3, len(each)).astype(np.float32) for each in ids]
    lookups = [
        [Lookup(*part) for part in ((i[:2], w[:2]), (i[2:], w[2:]))] for i, w in zip(ids, weights)
    ]
    ours = walk(name, table, steps, sparse_updates=sparse_updates, l2=0.3, lookups=lookups)
    gradients = []
    for (i, values), now, each, weight in zip(steps, [table, *ours.tables], ids, weights):
        count = np.bincount(each, weight, len(table))[:, None].astype(np.float32)
        gradients.append(as_dense(i, values, table.shape) + 2 * 0.3 * count * now)
        expected = keras_walk(name, table, gradients)[-1]
    np.testing.assert_allclose(ours.tables[-1], expected, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_l2_leaves_what_is_no_table_alone(name):
    table, gradients = np.ones((3, 2), np.float32), dense_steps((3, 2), 3)
    np.testing.assert_array_equal(
        walk(name, table, gradients, l2=5.0).tables, walk(name, table, gradients).tables
    )


@pytest.mark.parametrize("clip_norm", (0.0, 0.5, 1000.0))
@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@settings(deadline=None, max_examples=10)
@given(cases(), st.integers(0, 99))
def test_clipping_to_the_global_norm_of_the_merged_gradient(sparse_updates, clip_norm, case, seed):
    table, (step, *_) = case
    vector, of_vector = dense_steps((3,), 2, seed)
    variables = {"table": tf.Variable(table), "vector": tf.Variable(vector)}
    gradients = {"table": lookup(*step), "vector": tf.constant(of_vector)}
    optimizer = make("sgd", variables, sparse_updates=sparse_updates, clip_norm=clip_norm)
    norm = apply(optimizer, gradients, variables)
    merged = [as_dense(*step, table.shape), of_vector]
    clipped, expected_norm = tf.clip_by_global_norm(merged, clip_norm or np.inf)
    np.testing.assert_allclose(norm, expected_norm, rtol=1e-5)
    for variable, before, gradient in zip(
        variables.values(), (table, vector), clipped if clip_norm else merged
    ):
        np.testing.assert_allclose(variable, before - RATE * np.asarray(gradient), atol=1e-6)


def test_the_norm_is_only_computed_when_it_is_wanted():
    variables = {"vector": tf.Variable([1.0, 1.0])}
    gradients = {"vector": tf.constant([3.0, 4.0])}
    for clip_norm, want, norm in ((0.0, True, 5), (0.0, False, 0), (1.0, False, 5)):
        optimizer = make("sgd", variables, clip_norm=clip_norm)
        assert float(apply(optimizer, gradients, variables, want_norm=want)) == norm


def test_variables_without_a_gradient_stay():
    variables = {"a": tf.Variable([1.0]), "b": tf.Variable([1.0])}
    optimizer = make("adam", variables)
    apply(optimizer, {"a": tf.constant([1.0])}, variables)
    assert variables["a"].numpy() != 1
    assert (variables["b"].numpy(), optimizer.state["b"]["m"].numpy()) == (1, 0)


# ---- replicas ----

ROWS, WIDTH, BATCH, STEPS = 24, 3, 8, 5


def train(
    strategy: tf.distribute.Strategy, name: str, rows: int = ROWS, batch: int = BATCH, **options
) -> SimpleNamespace:
    """A least-squares fit through a lookup and a dense weight, as loop.Trainer does it."""
    random = np.random.RandomState(0)
    ids = random.randint(0, rows, (STEPS, batch)).astype(np.int32)
    ids[:, 1] = ids[:, 0]  # twice in one replica
    ids[:, -1] = ids[:, 0]  # and in the other one
    y = random.normal(size=(STEPS, batch)).astype(np.float32)
    with strategy.scope():
        variables = {
            "table": tf.Variable(random.normal(size=(rows, WIDTH)).astype(np.float32)),
            "weight": tf.Variable(random.normal(size=WIDTH).astype(np.float32)),
        }
        optimizer = make(name, variables, **options)
        step = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)

    def gradients(ids, y):
        with tf.GradientTape() as tape:
            error = (
                tf.linalg.matvec(
                    tf.nn.embedding_lookup(variables["table"], ids), variables["weight"]
                )
                - y
            )
            loss = tf.reduce_sum(tf.square(error)) / batch
        lookups = {"table": [Lookup(ids, tf.ones(ids.shape) / batch)]}
        return optimizer.merge(strategy, tape.gradient(loss, variables), variables, lookups)

    @tf.function
    def run(iterator):
        norm = 0.0
        for _ in tf.range(STEPS):
            shares = strategy.run(gradients, args=next(iterator))
            norm = optimizer.apply(strategy, shares, variables, step, want_norm=tf.constant(True))
            step.assign_add(1)
        return norm

    norm = run(strategies.iterate(strategy, lambda slices: sliced((ids, y), slices)))
    everything = variables | optimizer.variables()
    copies = {
        path: [copy.numpy() for copy in strategy.experimental_local_results(value)]
        for path, value in everything.items()
    }
    return SimpleNamespace(norm=float(norm), copies=copies, modes=optimizer.modes)


def sliced(columns: tuple, slices: tuple[int, int, int]) -> tf.data.Dataset:
    """Columns [steps, B] -> elements of B / total, as pipeline.training_batches makes them."""
    first, count, total = slices
    parts = [np.split(column, total, axis=1)[first : first + count] for column in columns]
    return tf.data.Dataset.from_tensor_slices(
        tuple(np.stack(part, axis=1).reshape(-1, part[0].shape[1]) for part in parts)
    )


def mirrored() -> tf.distribute.Strategy:
    strategy = strategies.make("mirrored", 2)
    assert strategy.num_replicas_in_sync == 2
    return strategy


@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@pytest.mark.parametrize("name", EVERY)
def test_two_replicas_do_what_one_does(name, sparse_updates):
    options = {"sparse_updates": sparse_updates, "l2": 0.3, "clip_norm": 0.7}
    one, two = (
        train(tf.distribute.get_strategy(), name, **options),
        train(mirrored(), name, **options),
    )
    assert two.norm == pytest.approx(one.norm, rel=1e-5)
    assert (
        one.norm > 0.7 or name == "ftrl"
    )  # it did clip; FTRL has let go of the weights by then, and so of the gradient
    assert (
        one.modes
        == two.modes
        == {"table": "sparse" if sparse_updates == "always" else "dense", "weight": "dense"}
    )
    for path, (expected,) in one.copies.items():
        first, second = two.copies[path]
        np.testing.assert_array_equal(first, second, err_msg=path)
        np.testing.assert_allclose(first, expected, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    "rows, form", ((DENSE_BELOW * BATCH - 1, "dense"), (DENSE_BELOW * BATCH, "sparse"))
)
@pytest.mark.parametrize("strategy", (tf.distribute.get_strategy, mirrored), ids=("one", "two"))
def test_auto_decides_by_the_lookups_of_all_replicas(strategy, rows, form, monkeypatch):
    monkeypatch.setattr(updates, "SMALL", 0)
    assert train(strategy(), "adam", rows, sparse_updates="auto").modes == {
        "table": form,
        "weight": "dense",
    }


def test_auto_takes_the_dense_mode_for_few_numbers():
    rows = DENSE_BELOW * BATCH
    assert rows * 3 < updates.SMALL
    assert (
        train(tf.distribute.get_strategy(), "adam", rows, sparse_updates="auto").modes["table"]
        == "dense"
    )


def test_auto_counts_lookups_with_their_repetitions(monkeypatch):
    monkeypatch.setattr(updates, "SMALL", 0)
    table = np.ones((DENSE_BELOW * 3 - 1, 1), np.float32)
    assert walk("sgd", table, [([0, 0, 0], np.ones((3, 1)))]).mode == "dense"
    assert walk("sgd", table, [([0, 1], np.ones((2, 1)))]).mode == "sparse"


# ---- schedules ----

TOTAL, PEAK = 50, 0.4
CLOSED = {
    "constant": lambda done, decay: np.ones_like(done),
    "cosine": lambda done, decay: decay + (1 - decay) * (1 + np.cos(np.pi * done)) / 2,
    "exponential": lambda done, decay: decay**done,
}


def rates(kind: str, warmup: int = 0, decay: float = 0.01, total: int = TOTAL) -> np.ndarray:
    share = {} if kind == "constant" else {"decay": decay}
    optimizer = OPTIMIZERS["sgd"](PEAK, schedule=kind, warmup_steps=warmup, **share)
    optimizer.total_steps = total
    return optimizer.learning_rate(tf.range(total + 5, dtype=tf.int64)).numpy()


@pytest.mark.parametrize("decay", (0.01, 0.5, 1.0))
@pytest.mark.parametrize("warmup", (0, 1, 7))
@pytest.mark.parametrize("kind", CLOSED)
def test_schedules_follow_their_closed_forms(kind, warmup, decay):
    step = np.arange(TOTAL + 5)
    done = np.clip((step - warmup) / (TOTAL - warmup), 0, 1)
    rise = np.minimum(1, (step + 1) / warmup) if warmup else 1
    np.testing.assert_allclose(
        rates(kind, warmup, decay), PEAK * rise * CLOSED[kind](done, decay), rtol=1e-5
    )


@pytest.mark.parametrize("kind", CLOSED)
def test_a_schedule_peaks_at_the_learning_rate_and_ends_at_its_share(kind):
    of_steps = rates(kind, warmup=10)
    assert of_steps[0] == pytest.approx(PEAK / 10)
    assert of_steps.max() == of_steps[9] == pytest.approx(PEAK)
    assert of_steps[TOTAL:] == pytest.approx(PEAK if kind == "constant" else 0.01 * PEAK)


@pytest.mark.parametrize("kind", CLOSED)
def test_a_warm_up_as_long_as_the_run(kind):
    np.testing.assert_allclose(
        rates(kind, warmup=6, total=6)[:6], PEAK * np.arange(1, 7) / 6, rtol=1e-6
    )


def test_a_step_uses_its_own_learning_rate():
    variables = {"vector": tf.Variable([0.0])}
    optimizer = OPTIMIZERS["sgd"](1.0, warmup_steps=4)
    optimizer.build(variables)
    for step in range(5):
        apply(optimizer, {"vector": tf.constant([-1.0])}, variables, step)
    assert variables["vector"].numpy() == pytest.approx(0.25 + 0.5 + 0.75 + 1 + 1)


def test_the_learning_rate_is_the_tasks_unless_it_is_given():
    adam, given = optimizers.Adam(), optimizers.Adam(0.01)
    for task, rate in (("rating", 0.002), ("ranking", 0.005), ("rating", 0.002)):
        adam.for_task(task)
        given.for_task(task)
        assert float(adam.learning_rate(tf.constant(0))) == pytest.approx(rate)
        assert float(given.learning_rate(tf.constant(0))) == pytest.approx(0.01)
