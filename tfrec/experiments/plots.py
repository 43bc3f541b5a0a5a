"""Pictures of the data, the model and a run's result.

Each function makes one matplotlib Figure. No pyplot: a Figure of its own belongs to no window, and
is freed with its last reference.
"""

import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from tfrec.data.interactions import Split
from tfrec.data.sparse import SparseFeatures
from tfrec.evaluation.evaluate import Evaluator, Predictions, Ranking
from tfrec.evaluation.ranking import primary_k, shown_k
from tfrec.experiments import diagram
from tfrec.models.base import Recommender
from tfrec.system.text import shown

CELLS = (300, 500)  # of a heat map, at most: down, across
ROWS_AT_ONCE = 1_000_000
DPI = 100
MOST_LETTERS = 60  # of a feature's name
TICKS = [digit * 10.0**power for power in range(-4, 2) for digit in (1, 3)] + [
    100
]  # of a logarithmic scale in percent
BLUE, ORANGE, GREY = "#3b6ea5", "#d9822b", "#8a8f98"


def of_run(
    model: Recommender,
    split: Split,
    predictions: Predictions,
    result: dict[str, Any],
    evaluator: Evaluator,
) -> Iterator[tuple[str, Figure]]:
    """(name, picture) of all that there is to show.

    Args:
        predictions: What the evaluator found on the test rows.
        result: What goes into metrics.json.
    """
    yield "baselines", baselines(result)
    catalog = split.catalog
    pieces = itertools.chain.from_iterable(part.chunks() for part in split.parts())
    pairs = ((piece["user"], piece["product"]) for piece in pieces)
    yield "users_products", users_products(pairs, catalog.num_users, catalog.num_products)
    if catalog.features.shape[1]:
        yield "products_features", products_features(catalog.features)
    yield "network", diagram.network(model)
    if result["history"]:
        yield (
            "learning_curves",
            learning_curves(result["history"], result["train"]["best_epoch"]),
        )
    yield "slices", slices(result["slices"])
    rows, predicted = evaluator.rows, None
    if evaluator.task == "rating":
        predicted = np.clip(predictions.scores, *split.train.stats.range)
        yield "predicted_true", predicted_against_true(rows.rating, predicted)
    counts, k = split.train.counts("product"), primary_k(evaluator.config.k)
    yield (
        "popularity",
        popularity(counts, rows.product, rows.rating, predicted, predictions.ranking, k),
    )


def save(workdir: Path, step: int, figures: Iterable[tuple[str, Figure]]) -> None:
    """Each picture as plots/NAME.png and as an image in TensorBoard, one at a time."""
    (workdir / "plots").mkdir(exist_ok=True)
    writer = tf.summary.create_file_writer(str(workdir / "logs"))
    with writer.as_default(step=step), matplotlib.rc_context({"font.size": 13}):  # thumbnails
        for name, figure in figures:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=DPI)
            (workdir / "plots" / f"{name}.png").write_bytes(buffer.getvalue())
            tf.summary.image(
                f"visuals/{name}", tf.io.decode_png(buffer.getvalue(), channels=3)[None]
            )
    writer.close()


def baselines(result: dict[str, Any]) -> Figure:
    """Draws the model's test metrics beside those of its baselines; result: metrics.json."""
    rows = {result["model"]: result["test"]} | result["baselines"]
    k = shown_k(result["test"])
    wanted = ["rmse", "fcp", f"ndcg@{k}", f"hr@{k}"]
    known = [name for name in wanted if name in result["test"]]
    figure = Figure(figsize=(9, 4), layout="constrained")
    figure.suptitle(f"{result['model']} beside its baselines, on the test rows")
    panels = figure.subplots(1, max(1, len(known)), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, known):
        values = [metrics.get(name, 0.0) for metrics in rows.values()][::-1]
        colors = [BLUE if label == result["model"] else GREY for label in rows][::-1]
        drawn = axes.barh([*rows][::-1], values, color=colors)
        axes.bar_label(drawn, [f"{value:.4f}" if value else "none" for value in values], padding=3)
        axes.set_xlabel(f"{name} ({'less' if name == 'rmse' else 'more'} is better)")
        axes.set_xlim(0, 1.3 * max(values) or 1)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def users_products(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], num_users: int, num_products: int
) -> Figure:
    """Returns which pairs have a rating.

    (user, product), int [n] each; neighbours in the order of the data share a cell.
    """
    (users, down), (products, across) = _cells(num_users, CELLS[0]), _cells(num_products, CELLS[1])
    counts = np.zeros(down * across, np.int64)
    for user, product in pairs:
        for begin in range(0, len(user), ROWS_AT_ONCE):
            u, p = (ids[begin : begin + ROWS_AT_ONCE].astype(np.int64) for ids in (user, product))
            counts += np.bincount(u // users * across + p // products, minlength=down * across)
    of_cell = np.outer(
        *(
            np.minimum(size, count - np.arange(0, count, size))
            for count, size in ((num_users, users), (num_products, products))
        )
    )
    rated, total = int(counts.sum()), num_users * num_products
    figure, axes = _figure(
        9,
        5.5,
        f"{rated:,} of {total:,} pairs of user and product have a rating ({rated / total:.2%})",
    )
    _heat_map(
        figure,
        axes,
        counts.reshape(down, across) / of_cell,
        (0, products * across, users * down, 0),
        "pairs with a rating, %",
    )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="product, in the order of the data", ylabel="user, in the order of the data")
    axes.set(xlim=(0, num_products), ylim=(num_users, 0))
    return figure


def products_features(features: SparseFeatures) -> Figure:
    """Returns which features the products have.

    Features [P, F]; a cell is the share of its products and features that are not 0.
    """
    (count, across), names = features.shape, features.names
    products, down = _cells(count, CELLS[0])
    few = across <= 40
    width = 1 if few else _cells(across, CELLS[1])[0]
    aside = -(-across // width)
    places = features.rows // products * aside + features.columns // width
    cells = np.bincount(places[features.values != 0], minlength=down * aside).reshape(down, aside)
    sizes = [np.bincount(np.arange(n) // of) for n, of in ((count, products), (across, width))]
    cells = cells / (sizes[0][:, None] * sizes[1])
    title = (
        f"{count:,} products x {across:,} features: "
        f"{np.count_nonzero(features.values) / (count * across):.1%} of the entries are not 0"
    )
    figure, axes = _figure(9, 5.5, title)
    _heat_map(
        figure,
        axes,
        cells,
        (-0.5, width * cells.shape[1] - 0.5, products * down, 0),
        "products with the feature, %",
    )
    if few:
        labels = [shown(name[:MOST_LETTERS]) for name in names]
        axes.set_xticks(
            range(len(names)),
            labels,
            parse_math=False,
            rotation=60,
            ha="right",
            rotation_mode="anchor",
            fontsize=8,
        )
    axes.set(xlabel="" if few else "feature", ylabel="product, in the order of the data")
    axes.set(xlim=(-0.5, across - 0.5), ylim=(count, 0))
    return figure


def learning_curves(history: list[dict[str, float]], best_epoch: int) -> Figure:
    """Returns a panel for the loss and for the validation metric.

    History: one {"loss": ..., [figure: ...]} an epoch.
    """
    names = list(history[0])
    figure = Figure(figsize=(8, 2.6 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    epochs = np.arange(1, len(history) + 1)
    for axes, name, color in zip(panels, names, (BLUE, ORANGE)):
        axes.plot(
            epochs,
            [entry[name] for entry in history],
            color=color,
            marker="o" if len(epochs) <= 30 else None,
            markersize=4,
        )
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_ylabel("training loss" if name == "loss" else f"validation {name}")
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    panels[0].set_title("Learning curves")
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def predicted_against_true(true: np.ndarray, predicted: np.ndarray) -> Figure:
    """Density of the test rows, and the mean prediction for each true rating.

    True, predicted: f32 [n], rating units.
    """
    levels = np.unique(true)
    if 1 < len(levels) <= 20:
        cuts = (levels[1:] + levels[:-1]) / 2
        edges = np.concatenate([[2 * levels[0] - cuts[0]], cuts, [2 * levels[-1] - cuts[-1]]])
    else:
        edges = np.histogram_bin_edges(true, min(40, len(true)))
    low, high = min(edges[0], predicted.min()), max(edges[-1], predicted.max())
    down = np.linspace(low, high, 41)
    counts = sum(
        np.histogram2d(
            true[begin : begin + ROWS_AT_ONCE],
            predicted[begin : begin + ROWS_AT_ONCE],
            (edges, down),
        )[0]
        for begin in range(0, len(true), ROWS_AT_ONCE)
    )
    figure, axes = _figure(7, 6, f"Predicted against true ratings of {len(true):,} test rows")
    image = axes.pcolormesh(
        edges,
        down,
        np.ma.masked_equal(counts, 0).T,
        norm=LogNorm(1, max(2, counts.max())),
        cmap="Blues",
    )
    figure.colorbar(image, label="test rows in a cell", format="{x:,.0f}")
    column = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, len(edges) - 2)
    size = np.bincount(column, minlength=len(edges) - 1)
    mean = np.bincount(column, predicted, len(edges) - 1)[size > 0] / size[size > 0]
    centre = levels if 1 < len(levels) <= 20 else ((edges[1:] + edges[:-1]) / 2)[size > 0]
    axes.plot(centre, mean, color=ORANGE, marker="o", markersize=5, label="mean prediction")
    axes.plot([low, high], [low, high], color=GREY, linestyle="--", label="perfect")
    axes.set(
        xlabel="true rating",
        ylabel="predicted rating",
        xlim=(edges[0], edges[-1]),
        ylim=(low, high),
    )
    axes.legend(loc="lower right", framealpha=0.9)
    return figure


def slices(result: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Returns a panel for rmse and for ndcg, those that there are; result: "slices" of
    metrics.json.
    """
    bars = [
        (f"{who} {name}", figures) for who, part in result.items() for name, figures in part.items()
    ][::-1]
    names = sorted(
        {
            name
            for _, figures in bars
            for name in figures
            if name == "rmse" or name.startswith("ndcg@")
        },
        reverse=True,
    )
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    figure.suptitle("Test rows by slice of users and of products")
    for axes, name in zip(
        figure.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0], names
    ):
        labels, values = (
            [label for label, _ in bars],
            [figures.get(name, 0.0) for _, figures in bars],
        )
        drawn = axes.barh(
            labels,
            values,
            color=[BLUE if label.startswith("users") else ORANGE for label in labels],
        )
        axes.bar_label(
            drawn,
            [f"{figures[name]:.3f}" if name in figures else "none" for _, figures in bars],
            padding=3,
        )
        axes.set_xlabel(
            "RMSE, rating units (less is better)" if name == "rmse" else f"{name} (more is better)"
        )
        axes.set_xlim(0, 1.2 * max(values) or 1)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def popularity(
    trained: np.ndarray,
    product: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray | None,
    ranking: Ranking,
    k: int,
) -> Figure:
    """Accuracy by the product's training rows, in bins that double (on large data, quadruple):
    rmse, and the share of hits at k.

    trained: int [P]; product int, true, predicted f32 [n] of the test rows (predicted: None for
    logits).
    """
    base = 2 if trained.max() < 2**12 else 4
    starts = np.concatenate([[0], base ** np.arange(17)])
    starts = starts[: np.searchsorted(starts, trained.max(), side="right")]
    bin_of = np.searchsorted(starts, trained, side="right") - 1
    panels: list[tuple[str, np.ndarray, np.ndarray]] = []
    if predicted is not None:
        panels.append(("RMSE, rating units", bin_of[product], np.square(predicted - true)))
    if len(ranking.pairs):
        hit = ranking.ranks.hits(k)
        panels.append(
            (f"relevant products in the top {k}, %", bin_of[ranking.pairs[:, 1]], 100 * hit)
        )
    figure = Figure(figsize=(9, 3 * max(1, len(panels)) + 0.5), layout="constrained")
    figure.suptitle("Accuracy by the product's popularity (above the bars: tested pairs)")
    all_axes = figure.subplots(max(1, len(panels)), sharex=True, squeeze=False)[:, 0]
    for axes, (label, own, values) in zip(all_axes, panels):
        size = np.bincount(own, minlength=len(starts))
        mean = np.bincount(own, values, len(size)) / np.maximum(size, 1)
        mean = np.sqrt(mean) if label.startswith("RMSE") else mean
        drawn = axes.bar(range(len(size)), mean, color=BLUE)
        axes.bar_label(drawn, [f"{count:,}" if count else "" for count in size], padding=2)
        axes.set_ylabel(label)
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    names = [
        f"{a:,}" if b - a == 1 else f"{a:,}-{b - 1:,}"
        for a, b in zip(starts, [*starts[1:], max(1, base * starts[-1])])
    ]
    all_axes[-1].set_xticks(
        range(len(starts)), names, rotation=30, ha="right", rotation_mode="anchor"
    )
    all_axes[-1].set_xlabel("training rows of the product")
    return figure


def _cells(count: int, most: int) -> tuple[int, int]:
    """Returns how many of the numbers 0 to count - 1 share a cell (the last may hold fewer), and
    how many cells that makes, at most `most`.
    """
    size = -(-count // most)
    return size, -(-count // size)


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Returns a figure of that width and height, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _heat_map(
    figure: Figure,
    axes: Axes,
    share: np.ndarray,
    extent: tuple[float, float, float, float],
    label: str,
) -> None:
    """Draws share f64 [down, across], 0 to 1; 0 stays white. The colours are logarithmic where
    cells are partly filled.
    """
    percent = np.ma.masked_equal(100 * share, 0)
    least = percent.min() if percent.count() else 100
    norm = LogNorm(least, 100) if least < 100 else Normalize(0, 100)
    image = axes.imshow(
        percent, norm=norm, cmap="viridis_r", aspect="auto", interpolation="nearest", extent=extent
    )
    figure.colorbar(
        image,
        label=label,
        format="%g",
        ticks=[tick for tick in TICKS if tick >= least] if least < 100 else None,
    ).minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
