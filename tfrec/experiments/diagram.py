"""A picture of a model: its layers with the shapes of their weights, and its equations."""

from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tfrec.layers import FeatureTable
from tfrec.models.base import Recommender

COLORS = {
    "user": "#a9c9e8",
    "product": "#f7cfa2",
    "feature": "#b5dcb0",
    "context": "#d6c3e8",
}  # by what is read
APART = (
    "bias",
    "user_day_bias",
    "dot",
    "user_history",
    "product_history",
)  # parts that add to the score themselves, not through a dense layer
OTHER, INK = "#e3e5e8", "#555b66"
LEGEND = {
    "user": "blue: by user",
    "product": "orange: by product",
    "feature": "green: product features",
    "context": "violet: context",
}
WIDTH, HEIGHT, GAP = 2.3, 0.58, 0.2  # of a box, and between boxes; inches


@dataclass
class Layer:
    """name, {weight: shape}; trainable says whether the optimiser changes any of them."""

    name: str
    trainable: bool = False
    shapes: dict[str, str] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        """Returns whether the layer is a dense one."""
        return "kernel" in self.shapes


def parts_of(model: Recommender) -> dict[str, list[Layer]]:
    """Returns {part of the tables' rows, or attribute of the model: the layers in it that have
    weights}.
    """
    trainable = {id(weight.value) for weight in model.trainable_weights}
    tables = model.embeddings("user") | model.embeddings("product")
    parts: dict[str, dict[str, Layer]] = {}
    for side, table in tables.items():
        for part, width in table.widths.items():
            shape = f"{table.table.shape[0]:,} x {width:,}"
            parts.setdefault(part, {})[side] = Layer(
                side, id(table.table.value) in trainable, {"table": shape}
            )
    of_features = {f"{path}/" for path in _feature_tables(model)}
    for path, table in _feature_tables(model).items():
        reads = [at for at, sums in model.feature_embeddings().items() if sums.features is table]
        shapes = {"table": f"{table.rows:,} x {table.width:,}"}
        for part in reads or [path]:
            parts.setdefault(part, {})[path] = Layer(path, shapes=shapes)
    for path, variable in model.named_weights().items():
        if path.removesuffix("/table") in tables or path.startswith(tuple(of_features)):
            continue
        part, _, rest = ("bias/mean" if path == "mean" else path).partition("/")
        owner, _, weight = rest.rpartition("/")
        name = owner or (part if weight in ("", "table", "kernel", "bias") else weight)
        layer = parts.setdefault(part, {}).setdefault(name, Layer(name))
        layer.shapes[weight] = " x ".join(f"{size:,}" for size in variable.shape) or "1"
        layer.trainable |= id(variable) in trainable
    return {part: list(layers.values()) for part, layers in parts.items()}


def _feature_tables(model: Recommender) -> dict[str, FeatureTable]:
    layers = model.named_layers().items()
    return {path: layer for path, layer in layers if isinstance(layer, FeatureTable)}


def network(model: Recommender) -> Figure:
    """Returns a box for each layer with weights, in a frame what belongs together, and below it the
    model's equation.

    An arrow leads from tables to the dense layer of the same part. Parts meet in the dense layer
    `head`, if there is one, but for those that add to the score themselves: biases and factors.
    """
    parts = parts_of(model)
    boxes = [layer for layers in parts.values() for layer in layers]
    head = parts.pop("head", None)
    through = [
        part for part in parts if head and part not in APART and not part.endswith("factors")
    ]
    parts = {
        part: parts[part] for part in (*through, *(part for part in parts if part not in through))
    }
    deep = any(layer.is_dense and len(layers) > 1 for layers in parts.values() for layer in layers)
    columns = [0.3, 0.3 + (WIDTH + 0.8 if deep else 0)]
    meeting = columns[1] + WIDTH + 0.9
    score_x = meeting + (WIDTH + 0.8 if head else 0)
    text = model.equations()
    below, height = 0.155 * len(text) + 0.6, sum(_height(layers) for layers in parts.values())
    width = max([score_x + 1.2, 8, *(0.6 + 0.072 * len(line) for line in text)])
    figure, axes = _paper(width, height + below + 0.6)
    axes.text(
        0.3,
        height + below + 0.3,
        f"{model.name}: {model.count_params():,} weights",
        fontsize=13,
        va="center",
    )
    axes.text(0.3, 0.2, _legend(boxes), fontsize=8.5, color=INK)
    axes.text(0.3, below - 0.1, "\n".join(text), family="monospace", fontsize=8.5, va="top")
    joint = (
        sum(_height(parts[part]) for part in through) if through else height
    )  # the height whose middle the score stands at
    middle = below + height - joint / 2
    axes.text(score_x, middle, " score", va="center", fontsize=11, fontweight="bold")
    if head:
        _box(axes, meeting, middle, head[0])
        _arrow(axes, (meeting + WIDTH, middle), (score_x, middle))
    top = below + height
    for part, layers in parts.items():
        end = _draw_part(axes, part, layers, columns, top)
        _arrow(axes, end, (meeting if part in through else score_x, middle))
        top -= _height(layers)
    return figure


def _legend(boxes: list[Layer]) -> str:
    """Returns what the colours and the edges of these boxes say."""
    words = {_word(layer) for layer in boxes}
    texts = [text for word, text in LEGEND.items() if word in words]
    texts += ["dashed: not changed by the optimizer"] * any(not layer.trainable for layer in boxes)
    return "; ".join(texts)


def _word(layer: Layer) -> str | None:
    """Returns what a layer reads, a key of COLORS."""
    return next((word for word in COLORS if word in layer.name), None)


def _paper(width: float, height: float) -> tuple[Figure, Axes]:
    """Empty axes over all of the figure, in inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _height(layers: list[Layer]) -> float:
    """Of a part with its frame and the space below, inches."""
    dense = sum(layer.is_dense for layer in layers)
    boxes = max(len(layers) - dense, dense)
    return boxes * HEIGHT + (boxes - 1) * GAP / 2 + GAP + (0.4 if len(layers) > 1 else 0)


def _draw_part(
    axes: Axes, part: str, layers: list[Layer], columns: list[float], top: float
) -> tuple[float, float]:
    """Draws it below `top`; returns the point from which its arrow leaves."""
    height, framed = _height(layers) - GAP, len(layers) > 1
    middle = top - height / 2 - (0.1 if framed else 0)
    dense = [layer for layer in layers if layer.is_dense]
    tables = [layer for layer in layers if not layer.is_dense]
    if framed:
        right = (columns[1] if dense else columns[0]) + WIDTH + 0.12
        frame = (columns[0] - 0.12, top - height)
        axes.add_patch(
            FancyBboxPatch(
                frame,
                right - frame[0],
                height,
                "round,pad=0,rounding_size=0.08",
                fill=False,
                edgecolor="#b5b9c0",
            )
        )
        axes.text(
            columns[0], top - 0.05, part, va="top", fontsize=8.5, fontweight="bold", color=INK
        )
    places = {}
    for group, x in ((tables, columns[0]), (dense, columns[1] if tables else columns[0])):
        for i, layer in enumerate(group):
            y = middle + ((len(group) - 1) / 2 - i) * (HEIGHT + GAP / 2)
            _box(axes, x, y, layer)
            places[layer.name] = (x, y)
    for layer in tables:
        for other in dense:
            _arrow(axes, (columns[0] + WIDTH, places[layer.name][1]), places[other.name])
    return (right if framed else columns[0] + WIDTH, middle)


def _box(axes: Axes, x: float, y: float, layer: Layer) -> None:
    """With its left edge at x and its middle at y.

    Dashed where it is not trained by the optimiser.
    """
    color = COLORS.get(_word(layer) or "", OTHER)
    box = FancyBboxPatch(
        (x, y - HEIGHT / 2),
        WIDTH,
        HEIGHT,
        "round,pad=0,rounding_size=0.08",
        facecolor=color,
        edgecolor=INK,
    )
    box.set_linestyle("-" if layer.trainable else "--")
    axes.add_patch(box)
    axes.text(x + WIDTH / 2, y + 0.12, layer.name, ha="center", va="center", fontsize=9.5)
    axes.text(
        x + WIDTH / 2,
        y - 0.13,
        " + ".join(layer.shapes.values()),
        ha="center",
        va="center",
        fontsize=9,
        color="#333333",
    )


def _arrow(axes: Axes, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """Across, up or down just before the end, and across again."""
    corner = end[0] - 0.4
    axes.plot([begin[0], corner, corner], [begin[1], begin[1], end[1]], color=INK, linewidth=1)
    axes.annotate(
        "",
        end,
        (corner, end[1]),
        arrowprops={"arrowstyle": "->", "color": INK, "shrinkA": 0, "shrinkB": 0},
    )
