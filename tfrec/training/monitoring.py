"""What a run shows while it trains.

A progress bar, a line an epoch, and TensorBoard's scalars and text.
"""

from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from tfrec.config import Config
from tfrec.layers import Embedding
from tfrec.system.text import shown

# numbers: of a large table a histogram would take as long as a part of the epoch, and look the same
HISTOGRAM_OF = 50_000


class Monitor:
    """Use it as a context manager.

    The bar and the event file are closed at the end, be it an error.
    """

    def __init__(
        self, folder: Path, config: Config, total_steps: int, done_steps: int, is_chief: bool = True
    ) -> None:
        self.writer = (
            tf.summary.create_file_writer(str(folder))
            if is_chief
            else tf.summary.create_noop_writer()
        )
        silent = None if is_chief else True  # None: where the output is no terminal
        self.bar = tqdm(
            total=total_steps,
            initial=done_steps,
            unit="step",
            disable=silent,
            dynamic_ncols=True,
            leave=False,
        )
        self.say = tqdm.write if is_chief else lambda line: None
        if not done_steps:
            with self.writer.as_default(step=0):
                tf.summary.text(
                    "config",
                    "".join(f"    {shown(line)}\n" for line in config.flagfile().splitlines()),
                )

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        self.writer.close()

    def loop(
        self,
        step: int,
        steps: int,
        loss: float,
        learning_rate: float,
        rows_per_second: float,
        gradient_norm: float,
    ) -> None:
        """After an inner loop of `steps` steps that ended at `step`."""
        self.bar.update(steps)
        self.bar.set_postfix_str(f"loss {loss:.4f}, {rows_per_second:,.0f} rows/s")
        scalars = {
            "loss": loss,
            "learning_rate": learning_rate,
            "rows_per_second": rows_per_second,
            "gradient_norm": gradient_norm,
        }
        self._scalars("train", step, scalars)

    def epoch(
        self,
        number: int,
        step: int,
        loss: float,
        rows_per_second: float,
        visited: int | None,
        validation: dict[str, float],
        objective: str,
        is_best: bool,
    ) -> None:
        """number: counted from 1; visited: training rows in this epoch, None where that goes
        without saying; objective: the validation figure that decides, the only one that the console
        shows.
        """
        self._scalars("validation", step, validation)
        figure = (
            f"   validation {objective} {validation[objective]:.4f}{'  best' if is_best else ''}"
            if validation
            else ""
        )
        rows = "" if visited is None else f"   {visited:,} rows visited"
        self.say(
            f"epoch {number:>4}   loss {loss:.4f}   {rows_per_second:>11,.0f} rows/s{rows}{figure}"
        )

    def weights(
        self,
        step: int,
        variables: dict[str, tf.Variable],
        tables: dict[str, Embedding],
        recommendations: str,
    ) -> None:
        """Histograms of the variables.

        Tables by parts, of large ones a choice of rows. And what some users are recommended,
        Markdown.
        """
        with self.writer.as_default(step=step):
            for path, variable in variables.items():
                every = variable.shape.num_elements() // HISTOGRAM_OF + 1
                some = variable[::every] if every > 1 else tf.convert_to_tensor(variable)
                table = tables.get(path.removesuffix("/table"))
                parts = (
                    {path: some}
                    if table is None
                    else {f"{path}/{part}": x for part, x in zip(table.widths, table.split(some))}
                )
                for name, values in parts.items():
                    tf.summary.histogram(name, values)
            tf.summary.text("recommendations", recommendations)

    def update_modes(self, modes: dict[str, str]) -> None:
        """modes: variable -> dense | sparse."""
        sparse = [path for path, mode in modes.items() if mode == "sparse"]
        self.say(
            f"sparse updates for {', '.join(sparse) or 'no table'}; dense ones for "
            f"{'the others' if sparse else 'all'}"
        )

    def _scalars(self, group: str, step: int, values: dict[str, float]) -> None:
        with self.writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name.replace('@', '_at_')}", value)
        self.writer.flush()
