"""Train, judge, export, recommend: python docs/examples/quickstart.py"""

import tfrec

data = tfrec.load("latest-small")  # or tfrec.read("ratings.csv"), tfrec.Dataset.from_pandas(frame)
split = data.split("user_temporal")
model = tfrec.models.MatrixFactorization.from_data(split.train, task="ranking")
loss, optimizer = tfrec.losses.SampledSoftmax(), tfrec.optimizers.Adam()
trainer = tfrec.Trainer(model, loss, optimizer)
history = trainer.fit(split.train, split.validation)  # stops when validation gets no better
print(tfrec.evaluate(model, split, baselines=True))  # a table here, metrics by name in Python
tfrec.export(model, split, "my_model")  # a SavedModel over raw ids
print(tfrec.recommend(model, split, user=42, k=5))  # a pandas frame
