"""A run's result as a table for people."""

from typing import Any

COLUMNS = ("rmse", "mae", "r2", "hr@{k}", "ndcg@{k}", "recall@{k}", "mrr@{k}", "auc", "reference_true_positives@5")


def table(result: dict[str, Any]) -> str:
    """The model beside its baselines on the test rows, one aligned line each, and what training took; rankings at 10, or the least k."""
    rows = {result["model"]: result["test"]} | {f"baseline {name}": metrics for name, metrics in result["baselines"].items()}
    cutoffs = sorted(int(name[3:]) for name in result["test"] if name.startswith("hr@"))
    k = 10 if 10 in cutoffs else cutoffs[0] if cutoffs else 0
    names = [name.format(k=k) for name in COLUMNS if any(name.format(k=k) in metrics for metrics in rows.values())]
    heads = ["test", *(name.replace("reference_true_positives", "ref. hits") for name in names)]
    lines = [heads] + [[row, *(f"{metrics[name]:.4f}" if name in metrics else "-" for name in names)] for row, metrics in rows.items()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = "\n".join(
        line[0].ljust(widths[0]) + "".join(cell.rjust(width + 3) for cell, width in zip(line[1:], widths[1:])) for line in lines
    )
    train = result["train"]
    how = f"kept that of epoch {train['best_epoch']} of {train['epochs']}, {train['examples_per_second']:,.0f} rows/s"
    trained = f"{result['parameters']:,} parameters, {how}, " if result["parameters"] else ""
    return f"{text}\n{trained}fitted in {train['seconds']:.1f} s"
