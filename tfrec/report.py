"""A run's result as a table for people."""

from typing import Any

from tfrec.evaluation.ranking import headline

COLUMNS = ("rmse", "mae", "r2", "hr@{k}", "ndcg@{k}", "recall@{k}", "mrr@{k}", "auc", "reference_true_positives@5")


def table(result: dict[str, Any]) -> str:
    """The model beside its baselines on the test rows, then its slices, and what training took; rankings at 10, or the least k."""
    rows = {result["model"]: result["test"]} | {f"baseline {name}": metrics for name, metrics in result["baselines"].items()}
    cutoffs = tuple(int(name[3:]) for name in result["test"] if name.startswith("hr@"))
    k = headline(cutoffs) if cutoffs else 0
    names = [name.format(k=k) for name in COLUMNS if any(name.format(k=k) in metrics for metrics in rows.values())]
    text = _aligned("test", names, rows)
    slices = {f"{who} {name}": metrics for who, part in result.get("slices", {}).items() for name, metrics in part.items()}
    if slices:
        names = [name for name in max(slices.values(), key=len) if name != "rows"]
        text += "\n\n" + _aligned("test slice", ["rows", *names], slices) + "\n"
    train = result["train"]
    how = f"kept that of epoch {train['best_epoch']} of {train['epochs']}, {train['examples_per_second']:,.0f} rows/s"
    trained = f"{result['parameters']:,} parameters, {how}, " if result["parameters"] else ""
    return f"{text}\n{trained}fitted in {train['seconds']:.1f} s"


def _aligned(corner: str, names: list[str], rows: dict[str, dict[str, float]]) -> str:
    """A line of heads, then one line a row; what a row lacks is a dash."""
    lines = [[corner, *(name.replace("reference_true_positives", "ref. hits") for name in names)]]
    lines += [[row, *(_cell(metrics.get(name)) for name in names)] for row, metrics in rows.items()]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        line[0].ljust(widths[0]) + "".join(cell.rjust(width + 3) for cell, width in zip(line[1:], widths[1:])) for line in lines
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
