import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import rows_of
from tfrec.models.ncf import NeuralCF

USERS, PRODUCTS, DIM, GMF = 5, 7, 4, 3


def neumf(layers, **more):
    rows = rows_of([0], [0], [3.0], (USERS, PRODUCTS))
    more |= {"embedding_dim": DIM, "gmf_dim": GMF, "mlp_layers": layers}
    model = NeuralCF.from_data(rows, **more)
    random = np.random.RandomState(0)
    for weight in model.named_weights().values():
        weight.assign(random.normal(size=weight.shape))
    return model


@pytest.mark.parametrize("layers", [(6,), (40,), (6, 5), (8, 4, 2)])
@pytest.mark.parametrize("biases", [True, False])
def test_equals_its_equations(layers, biases):
    model = neumf(layers, biases=biases)
    w = {path: weight.numpy().astype(float) for path, weight in model.named_weights().items()}
    user, product = np.divmod(np.arange(USERS * PRODUCTS), PRODUCTS)
    x, z = w["users/table"][user], w["products/table"][product]
    hidden = np.concatenate([x[:, GMF : GMF + DIM], z[:, GMF : GMF + DIM]], axis=1)
    for path in ["mlp/hidden", "deeper/0", "deeper/1"][: len(layers)]:
        hidden = np.maximum(hidden @ w[f"{path}/kernel"] + w[f"{path}/bias"], 0)
    both = np.concatenate([x[:, :GMF] * z[:, :GMF], hidden], axis=1)
    expected = (both @ w["head/kernel"] + w["head/bias"])[:, 0]
    if biases:
        expected += w["mean"] + x[:, -1] + z[:, -1]
    everything = model.score_all({"user": tf.range(USERS)})
    np.testing.assert_allclose(everything, expected.reshape(USERS, PRODUCTS), rtol=1e-5, atol=1e-5)


def test_no_pair_goes_through_the_first_layer():
    """The first layer's matrix products have as many rows as there are users, or products.

    Never one for each pair.
    """
    model = neumf((6, 5))
    graph = tf.function(lambda user: model.score_all({"user": user})).get_concrete_function(
        tf.range(USERS)
    )
    inputs = [
        op.inputs[0].shape
        for op in graph.graph.get_operations()
        if op.type == "MatMul" and op.inputs[1].shape[0] == DIM
    ]
    assert sorted(shape[0] for shape in inputs) == [USERS, PRODUCTS]
