from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec.config import make_config
from tfrec.training import strategies
from tfrec.training.optimizers import DENSE_BELOW, OPTIMIZERS, Optimizer, schedule

RATE = 0.01  # float noise in Keras' own bias correction grows with it: at 0.05 it is 3e-6 off the exact value after 12 steps
KERAS = {"sgd": tf.keras.optimizers.SGD, "adagrad": tf.keras.optimizers.Adagrad, "adam": tf.keras.optimizers.Adam}
EVERY = tuple(OPTIMIZERS)


def make(name: str, variables: dict, **options) -> Optimizer:
    optimizer = OPTIMIZERS[name](lambda step: tf.constant(RATE), **options)
    optimizer.build(variables)
    return optimizer


def apply(optimizer: Optimizer, gradients: dict, variables: dict, step: int = 0, rows: float = 1.0, want_norm: bool = True) -> tf.Tensor:
    """One update without a strategy."""
    where = tf.distribute.get_strategy()
    return optimizer.apply(where, gradients, variables, tf.constant(step, tf.int64), tf.constant(rows), tf.constant(want_norm))


def walk(name: str, table: np.ndarray, gradients: list, rows: float = 1.0, **options) -> SimpleNamespace:
    """One update for each gradient (an array, or a pair (ids, values))."""
    variables = {"table": tf.Variable(table)}
    optimizer = make(name, variables, **options)
    tables, norms, states = [], [], []
    for step, gradient in enumerate(gradients):
        given = {"table": lookup(*gradient) if isinstance(gradient, tuple) else tf.constant(gradient)}
        norm = apply(optimizer, given, variables, step, rows=rows)
        norms.append(float(norm))
        tables.append(variables["table"].numpy())
        states.append({path: slot.numpy() for path, slot in optimizer.variables().items()})
    return SimpleNamespace(tables=tables, norms=norms, states=states, form=optimizer.forms["table"])


def keras_walk(name: str, table: np.ndarray, gradients: list) -> list[np.ndarray]:
    variable, optimizer, tables = tf.keras.Variable(table), KERAS[name](RATE), []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
        tables.append(variable.numpy())
    return tables


def lookup(ids, values) -> tf.IndexedSlices:
    """The gradient of a lookup."""
    ids = np.array(ids, np.int32)
    return tf.IndexedSlices(tf.constant(np.float32(values)), tf.constant(ids), tf.constant(np.shape(values)))


def as_dense(ids, values, shape) -> np.ndarray:
    dense = np.zeros(shape, np.float32)
    np.add.at(dense, np.array(ids, int), values)
    return dense


def dense_steps(shape, count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.RandomState(seed)
    return [random.normal(size=shape).astype(np.float32) for _ in range(count)]


def cases(all_rows: bool = False):
    """(table, [(ids, values)]): a few steps of lookups with repeated ids, some without any; or each touches all rows."""

    def make(of):
        rows, width, lists, seed = of
        random = np.random.RandomState(seed)
        steps = [[i % rows for i in ids] + (list(range(rows)) if all_rows else []) for ids in lists]
        table = random.normal(size=(rows, width)).astype(np.float32)
        return table, [(ids, random.normal(size=(len(ids), width)).astype(np.float32)) for ids in steps]

    ids = st.lists(st.integers(0, 99), max_size=8)
    return st.tuples(st.integers(1, 6), st.integers(1, 3), st.lists(ids, min_size=1, max_size=4), st.integers(0, 999)).map(make)


# ---- against Keras ----


@pytest.mark.parametrize("shape", ((), (3,), (4, 2)))
@pytest.mark.parametrize("name", EVERY)
def test_dense_gradients_do_what_keras_does(name, shape):
    table, gradients = dense_steps(shape, 1, seed=1)[0], dense_steps(shape, 12)
    np.testing.assert_allclose(walk(name, table, gradients).tables, keras_walk(name, table, gradients), atol=1e-6)


@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@pytest.mark.parametrize("name", ("sgd", "adagrad"))
@settings(deadline=None, max_examples=15)
@given(cases())
def test_sgd_and_adagrad_on_lookups_do_what_keras_does_on_the_dense_gradient(name, sparse_updates, case):
    table, steps = case
    ours = walk(name, table, steps, sparse_updates=sparse_updates)
    theirs = keras_walk(name, table, [as_dense(*step, table.shape) for step in steps])
    np.testing.assert_allclose(ours.tables, theirs, atol=1e-6)
    assert ours.form == ("sparse" if sparse_updates == "always" else "dense")


@settings(deadline=None, max_examples=15)
@given(cases())
def test_the_dense_form_of_adam_on_lookups_does_what_keras_does(case):
    table, steps = case
    theirs = keras_walk("adam", table, [as_dense(*step, table.shape) for step in steps])
    np.testing.assert_allclose(walk("adam", table, steps, sparse_updates="never").tables, theirs, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(cases(all_rows=True))
def test_sparse_adam_does_what_keras_does_where_every_step_touches_every_row(case):
    table, steps = case
    theirs = keras_walk("adam", table, [as_dense(*step, table.shape) for step in steps])
    np.testing.assert_allclose(walk("adam", table, steps, sparse_updates="always").tables, theirs, atol=1e-6)


# ---- the sparse form ----


def slow_adam(table: np.ndarray, steps: list) -> np.ndarray:
    """Moments of all rows decay in every step; only touched rows move."""
    w, m, v = table.astype(np.float64), np.zeros(table.shape), np.zeros(table.shape)
    for t, (ids, values) in enumerate(steps, 1):
        g = as_dense(ids, values, table.shape).astype(np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        for row in set(ids):
            w[row] -= RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m[row] / (np.sqrt(v[row]) + 1e-7)
    return w


@settings(deadline=None, max_examples=25)
@given(cases())
def test_sparse_adam_makes_up_for_the_steps_that_a_row_missed(case):
    table, steps = case
    np.testing.assert_allclose(walk("adam", table, steps, sparse_updates="always").tables[-1], slow_adam(table, steps), atol=1e-6)


def test_a_long_absence_decays_the_moments(name="adam"):
    here, elsewhere = ([0], [[1.0]]), ([1], [[1.0]])
    state = walk(name, np.ones((2, 1), np.float32), [here] + [elsewhere] * 6 + [here], sparse_updates="always").states[-1]
    assert state["table/m"][0] == pytest.approx(0.1 * 0.9**7 + 0.1, rel=1e-5)
    assert state["table/v"][0] == pytest.approx(0.001 * 0.999**7 + 0.001, rel=1e-5)
    assert state["table/last_step"].tolist() == [8, 7]


@pytest.mark.parametrize("ids", ([2, 4, 2], [0], []))
@pytest.mark.parametrize("name", EVERY)
def test_rows_that_are_not_touched_keep_every_bit_and_so_do_their_slots(name, ids):
    table = dense_steps((6, 3), 1)[0]
    everything = (range(6), dense_steps((6, 3), 1, seed=1)[0])
    walked = walk(name, table, [everything, everything, (ids, np.ones((len(ids), 3)))], sparse_updates="always", l2=0.3, clip_norm=1.0)
    others = [row for row in range(6) if row not in ids]
    before, after = ({"": tables} | state for tables, state in zip(walked.tables[1:], walked.states[1:]))
    for path in before:
        np.testing.assert_array_equal(before[path][others], after[path][others], err_msg=path)
        if ids and path != "":
            assert (before[path][ids] != after[path][ids]).all()
    assert walked.form == "sparse"


@pytest.mark.parametrize("shape", ((5,), (5, 2), (5, 2, 3)))
@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@pytest.mark.parametrize("name", EVERY)
def test_tables_of_any_rank(name, sparse_updates, shape):
    """Rows may be numbers, vectors or matrices."""
    random = np.random.RandomState(0)
    ids = [0, 1, 2, 3, 4, 0, 0]
    table, values = random.normal(size=shape).astype(np.float32), random.normal(size=(len(ids), *shape[1:])).astype(np.float32)
    full = as_dense(ids, values, shape)
    theirs = keras_walk(name, table, [full + 0.2 * table])
    np.testing.assert_allclose(walk(name, table, [(ids, values)], sparse_updates=sparse_updates, l2=0.2).tables, theirs, atol=1e-6)


def test_slots_by_path():
    table = {"a/table": tf.Variable(tf.ones([3, 2])), "b": tf.Variable(1.0)}
    paths = {name: set(make(name, table).variables()) for name in EVERY}
    assert paths == {
        "sgd": set(),
        "adagrad": {"a/table/accumulator", "b/accumulator"},
        "adam": {"a/table/m", "a/table/v", "a/table/last_step", "b/m", "b/v"},
    }
    assert "a/table/last_step" not in make("adam", table, sparse_updates="never").variables()


# ---- L2 and clipping ----


@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@pytest.mark.parametrize("name", ("sgd", "adagrad"))
@settings(deadline=None, max_examples=15)
@given(cases())
def test_l2_pulls_the_touched_rows_once_each(name, sparse_updates, case):
    table, steps = case
    expected = table
    ours = walk(name, table, steps, sparse_updates=sparse_updates, l2=0.6, rows=3.0)
    gradients = []
    for (ids, values), now in zip(steps, [table, *ours.tables]):
        touched = np.isin(np.arange(len(table)), ids)[:, None]
        gradients.append(as_dense(ids, values, table.shape) + 0.6 / 3 * touched * now)
        expected = keras_walk(name, table, gradients)[-1]
    np.testing.assert_allclose(ours.tables[-1], expected, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_l2_leaves_what_is_no_table_alone(name):
    table, gradients = np.ones((3, 2), np.float32), dense_steps((3, 2), 3)
    np.testing.assert_array_equal(walk(name, table, gradients, l2=5.0).tables, walk(name, table, gradients).tables)


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
    for variable, before, gradient in zip(variables.values(), (table, vector), clipped if clip_norm else merged):
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


def train(strategy: tf.distribute.Strategy, name: str, rows: int = ROWS, batch: int = BATCH, **options) -> SimpleNamespace:
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
            error = tf.linalg.matvec(tf.nn.embedding_lookup(variables["table"], ids), variables["weight"]) - y
            loss = tf.reduce_sum(tf.square(error)) / batch
        return tape.gradient(loss, variables)

    @tf.function
    def run(iterator):
        norm = 0.0
        for _ in tf.range(STEPS):
            shares = strategy.run(gradients, args=next(iterator))
            norm = optimizer.apply(strategy, shares, variables, step, tf.constant(float(batch)), want_norm=tf.constant(True))
            step.assign_add(1)
        return norm

    norm = run(strategies.iterate(strategy, lambda slices: sliced((ids, y), slices)))
    everything = variables | optimizer.variables()
    copies = {path: [copy.numpy() for copy in strategy.experimental_local_results(value)] for path, value in everything.items()}
    return SimpleNamespace(norm=float(norm), copies=copies, forms=optimizer.forms)


def sliced(columns: tuple, slices: tuple[int, int, int]) -> tf.data.Dataset:
    """Columns [steps, B] -> elements of B / total, as pipeline.training_batches makes them."""
    first, count, total = slices
    parts = [np.split(column, total, axis=1)[first : first + count] for column in columns]
    return tf.data.Dataset.from_tensor_slices(tuple(np.stack(part, axis=1).reshape(-1, part[0].shape[1]) for part in parts))


def mirrored() -> tf.distribute.Strategy:
    strategy = strategies.make(make_config(strategy="mirrored", virtual_devices=2).train)
    assert strategy.num_replicas_in_sync == 2
    return strategy


@pytest.mark.parametrize("sparse_updates", ("never", "always"))
@pytest.mark.parametrize("name", EVERY)
def test_two_replicas_do_what_one_does(name, sparse_updates):
    options = {"sparse_updates": sparse_updates, "l2": 0.3, "clip_norm": 0.7}
    one, two = train(tf.distribute.get_strategy(), name, **options), train(mirrored(), name, **options)
    assert two.norm == pytest.approx(one.norm, rel=1e-5)
    assert one.norm > 0.7  # it did clip
    assert one.forms == two.forms == {"table": "sparse" if sparse_updates == "always" else "dense", "weight": "dense"}
    for path, (expected,) in one.copies.items():
        first, second = two.copies[path]
        np.testing.assert_array_equal(first, second, err_msg=path)
        np.testing.assert_allclose(first, expected, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("rows, form", ((DENSE_BELOW * BATCH - 1, "dense"), (DENSE_BELOW * BATCH, "sparse")))
@pytest.mark.parametrize("strategy", (tf.distribute.get_strategy, mirrored), ids=("one", "two"))
def test_auto_decides_by_the_lookups_of_all_replicas(strategy, rows, form):
    assert train(strategy(), "adam", rows, sparse_updates="auto").forms == {"table": form, "weight": "dense"}


def test_auto_counts_lookups_with_their_repetitions():
    table = np.ones((DENSE_BELOW * 3 - 1, 1), np.float32)
    assert walk("sgd", table, [([0, 0, 0], np.ones((3, 1)))]).form == "dense"
    assert walk("sgd", table, [([0, 1], np.ones((2, 1)))]).form == "sparse"


# ---- schedules ----

TOTAL, PEAK = 50, 0.4
CLOSED = {
    "constant": lambda done, decay: np.ones_like(done),
    "cosine": lambda done, decay: decay + (1 - decay) * (1 + np.cos(np.pi * done)) / 2,
    "exponential": lambda done, decay: decay**done,
}


def rates(kind: str, warmup: int = 0, decay: float = 0.01, total: int = TOTAL) -> np.ndarray:
    rate = schedule(kind, PEAK, total, warmup, decay)
    return np.array([rate(tf.constant(step, tf.int64)) for step in range(total + 5)])


@pytest.mark.parametrize("decay", (0.01, 0.5, 1.0))
@pytest.mark.parametrize("warmup", (0, 1, 7))
@pytest.mark.parametrize("kind", CLOSED)
def test_schedules_follow_their_closed_forms(kind, warmup, decay):
    step = np.arange(TOTAL + 5)
    done = np.clip((step - warmup) / (TOTAL - warmup), 0, 1)
    rise = np.minimum(1, (step + 1) / warmup) if warmup else 1
    np.testing.assert_allclose(rates(kind, warmup, decay), PEAK * rise * CLOSED[kind](done, decay), rtol=1e-5)


@pytest.mark.parametrize("kind", CLOSED)
def test_a_schedule_peaks_at_the_learning_rate_and_ends_at_its_share(kind):
    of_steps = rates(kind, warmup=10)
    assert of_steps[0] == pytest.approx(PEAK / 10)
    assert of_steps.max() == of_steps[9] == pytest.approx(PEAK)
    assert of_steps[TOTAL:] == pytest.approx(PEAK if kind == "constant" else 0.01 * PEAK)


@pytest.mark.parametrize("kind", CLOSED)
def test_a_warm_up_as_long_as_the_run(kind):
    np.testing.assert_allclose(rates(kind, warmup=6, total=6)[:6], PEAK * np.arange(1, 7) / 6, rtol=1e-6)


def test_a_step_uses_its_own_learning_rate():
    variables = {"vector": tf.Variable([0.0])}
    optimizer = OPTIMIZERS["sgd"](schedule("constant", 1.0, 4, warmup_steps=4))
    optimizer.build(variables)
    for step in range(5):
        apply(optimizer, {"vector": tf.constant([-1.0])}, variables, step)
    assert variables["vector"].numpy() == pytest.approx(0.25 + 0.5 + 0.75 + 1 + 1)
