"""The same architectures in PyTorch, trained by the plain loop that most would write.

Tensors in memory, fused Adam.
"""

import itertools
import sys
import time

import torch
import torch._dynamo  # its triton crashes where TensorFlow was imported first
from torch import nn

from benchmarks.world import structured
from tfrec.data.memory import MemoryInteractions
from tfrec.system.machine import cores

DIM = 50


class Network(nn.Module):
    """mf, ncf or hybrid with the terms of tfrec's defaults."""

    def __init__(self, name: str, dataset: MemoryInteractions, dim: int = DIM) -> None:
        super().__init__()
        self.name = name
        self.mean = nn.Parameter(torch.tensor(float(dataset.rating.mean())))
        self.user_bias, self.product_bias = self._tables(dataset, 1, 0.0)
        self.user, self.product = self._tables(dataset, dim)
        if name == "ncf":
            self.mlp_user, self.mlp_product = self._tables(dataset, dim)
            self.hidden, self.head = nn.Linear(2 * dim, dim // 2), nn.Linear(1 + dim // 2, 1)
        if name == "hybrid":
            num_features, num_context = dataset.catalog.features.shape[1], dataset.context.shape[1]
            self.taste = nn.Linear(num_features, dim, bias=False)
            self.of_features, self.of_context = (
                nn.Linear(num_features, num_features),
                nn.Linear(num_context, num_context),
            )
            self.head = nn.Linear(num_features + num_context, 1)

    def forward(
        self,
        user: torch.Tensor,
        product: torch.Tensor,
        features: torch.Tensor,
        context: torch.Tensor,
    ) -> torch.Tensor:
        """[B]; features [P, F] of all products, context [B, C]."""
        x, z = self.user(user), self.product(product)
        score = self.mean + self.user_bias(user)[:, 0] + self.product_bias(product)[:, 0]
        if self.name == "mf":
            return score + (x * z).sum(1)
        if self.name == "ncf":
            hidden = self.hidden(
                torch.cat([self.mlp_user(user), self.mlp_product(product)], 1)
            ).relu()
            cosine = nn.functional.cosine_similarity(x, z)
            return score + self.head(torch.cat([cosine[:, None], hidden], 1))[:, 0]
        mine = features[product]
        sides = torch.cat([self.of_features(mine).relu(), self.of_context(context).relu()], 1)
        return score + (x * (z + self.taste(mine))).sum(1) + self.head(sides)[:, 0]

    def _tables(
        self, dataset: MemoryInteractions, width: int, stddev: float = 0.05
    ) -> tuple[nn.Embedding, nn.Embedding]:
        tables = nn.Embedding(dataset.num_users, width), nn.Embedding(dataset.num_products, width)
        for table in tables:
            nn.init.normal_(table.weight, std=stddev)
        return tables


def fit(name: str, batch_size: int, rows: int, learning_rate: float, epochs: int) -> float:
    """Rows/s of the best epoch but for the first."""
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    dataset = structured(rows)
    network = Network(name, dataset)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    user, product = torch.from_numpy(dataset.user).long(), torch.from_numpy(dataset.product).long()
    y, context = torch.from_numpy(dataset.rating), torch.from_numpy(dataset.context)
    features = torch.from_numpy(dataset.catalog.features.dense())
    ends = []
    for _ in range(1 + epochs):
        order = torch.randperm(rows)
        for index in order.split(batch_size):
            optimizer.zero_grad()
            score = network(user[index], product[index], features, context[index])
            nn.functional.l1_loss(score, y[index]).backward()
            optimizer.step()
        ends.append(time.monotonic())
    return rows / min(end - begin for begin, end in itertools.pairwise(ends))


if __name__ == "__main__":
    name, batch_size, rows, learning_rate, epochs = sys.argv[1:]
    print(fit(name, int(batch_size), int(rows), float(learning_rate), int(epochs)))
