"""A training loop of one's own: python docs/examples/own_loop.py"""

import itertools

import tensorflow as tf

import tfrec

split = tfrec.load("latest-small").split("random")
model = tfrec.models.MatrixFactorization.from_data(split.train, task="rating")
# (batch, y, weight) without end; a pure function of (seed, epoch, step)
batches = split.train.batches(batch_size=1024, seed=0, columns=model.batch_columns)
optimizer = tf.keras.optimizers.Adam(2e-3)


@tf.function
def step(batch, y, weight):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(weight * tf.square(model(batch, training=True) - y))
    gradients = tape.gradient(loss, model.trainable_variables)
    gradients = tfrec.optimizers.merge_rows(gradients)  # a row read twice is moved once
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss


for number, (batch, y, weight) in enumerate(itertools.islice(batches, 400), 1):
    loss = step(batch, y, weight)
    if number % 100 == 0:
        print(f"step {number}   loss {float(loss):.4f}")
print(tfrec.evaluate(model, split, baselines=True))
tfrec.export(model, split, "my_model")
