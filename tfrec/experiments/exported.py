"""Recommendations for people to read, from a finished run's SavedModel."""

import difflib
import functools
import os
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import tensorflow as tf

from tfrec.data import disk, sources
from tfrec.data.dataset import Dataset
from tfrec.data.forms import literal, short
from tfrec.data.interactions import Split
from tfrec.data.memory import MemoryInteractions
from tfrec.data.reading import database
from tfrec.data.settings import DataSettings
from tfrec.errors import TfrecError, UsageError, nearest
from tfrec.experiments import workdirs
from tfrec.models.demographic import known_attributes
from tfrec.system.outputs import check_file, check_whole
from tfrec.system.progress import bar
from tfrec.system.text import aligned, as_texts, said

RECOMMENDED = {
    "user": "VARCHAR",
    "rank": "INTEGER",
    "product": "VARCHAR",
    "title": "VARCHAR",
    "score": "FLOAT",
    "source": "VARCHAR",
}
USERS_AT_ONCE = 256
NO_TIME = tf.zeros([0], tf.int64)


class ExportedModel:
    """A finished run's data and SavedModel."""

    def __init__(self, workdir: Path) -> None:
        """Raises UsageError where there is no finished run in the folder."""
        self.config, self.workdir = workdirs.settings(workdir), workdir
        self._data = _read(self.config.data)
        self.catalog = self._data.catalog
        mend = f"Make it anew: scripts/export.py --workdir={workdir}"
        check_whole(workdir / "export", mend)
        try:
            self.signatures = tf.saved_model.load(str(workdir / "export")).signatures
        except Exception:  # protobuf, Keras and TensorFlow have many ways to say it
            raise TfrecError(f"{workdir / 'export'}: no readable SavedModel. {mend}") from None

    def for_user(self, user: str, k: int) -> str:
        """Returns a table of the k products that a user has not rated, and below it the comparison
        with the truth that was held out.
        """
        ids = as_texts(self.catalog.user_ids)
        if user not in ids:
            close = difflib.get_close_matches(user, ids.tolist(), n=1)
            raise UsageError(
                f"--user={user}: there is no such "
                f"user.{f' Did you mean {close[0]}?' if close else ''}"
            )
        index = int(np.flatnonzero(ids == user)[0])
        answer = self._recommend(self.catalog.user_ids[index : index + 1], k)
        text = f"user {said(user)} ({answer['source'][0]})\n{self._table(answer, 0)}"
        held_out = self._held_out(index, as_texts(answer["product"][0]))
        return f"{text}\n\n{held_out}" if held_out else text

    def for_likes(self, like: str, k: int) -> str:
        """Returns a table of k products for somebody who likes those named.

        Titles or raw ids, with ; between them.
        """
        index = [self._product(name.strip()) for name in like.split(";") if name.strip()]
        if not index:
            raise UsageError('--like: the list is empty. Write --like="TITLE; TITLE".')
        liked = self._ids("exclude", self.catalog.product_ids[index])[None]
        answer = self._call(
            "recommend_for_history",
            product=liked,
            rating=tf.zeros([0, len(index)]),
            k=tf.constant(k),
            **self._open(),
        )
        titles = "; ".join(self.catalog.products["title"].iloc[index])
        return f"likes {said(titles)} ({answer['source'][0]})\n{self._table(answer, 0)}"

    def for_attributes(self, about: str, k: int) -> str:
        """Returns a table of k products for somebody of whom these attributes are known, as
        NAME=VALUE with ; between them.
        """
        if "recommend_by_attributes" not in self.signatures:
            raise UsageError(
                "--about: the run's data say nothing about users (age, gender, ...). Take --like "
                "instead."
            )
        attributes = self.catalog.user_features
        told_of = known_attributes(attributes)
        names = [name for name, told in zip(attributes.names, told_of) if told]
        told = [name.strip() for name in about.split(";") if name.strip()]
        for name in told:
            if name not in names:
                raise UsageError(
                    "--about: there is no attribute "
                    f"{name}.{nearest(name, names) or f' There is {names[0]}, say.'}"
                )
        if not told:
            raise UsageError(f'--about: the list is empty. Write --about="{names[0]}", say.')
        lists = {
            name: values
            for name, values in self._open().items()
            if name not in ("context", "timestamp")
        }
        answer = self._call(
            "recommend_by_attributes", attribute=tf.constant([told]), k=tf.constant(k), **lists
        )
        return f"about {said('; '.join(told))} ({answer['source'][0]})\n{self._table(answer, 0)}"

    def for_all(self, output: Path, k: int) -> int:
        """Everyone's k products into a .parquet or .csv file, a row each.

        User, rank, product, title, score, source. Returns the rows.
        """
        if output.suffix not in (".parquet", ".csv"):
            raise UsageError(f"--output={output}: expected a name that ends in .parquet or .csv.")
        check_file(output, f"--output={output}", _is_ours(output))
        ids = {"user": self.catalog.user_ids, "product": self.catalog.product_ids}
        kinds = RECOMMENDED | {side: "BIGINT" for side in ids if ids[side].dtype.kind == "i"}
        con, draft = database(), output.with_name(f"{output.name}.draft-{os.getpid()}")
        columns = ", ".join(f'"{name}" {kind}' for name, kind in kinds.items())
        con.execute(f"CREATE TEMP TABLE answers ({columns})")
        starts = range(0, self.catalog.num_users, USERS_AT_ONCE)
        for first in bar(starts, "recommending", unit="block", delay=2):
            con.register("block", self._rows(ids["user"][first : first + USERS_AT_ONCE], k))
            con.execute("INSERT INTO answers BY NAME SELECT * FROM block")
        try:
            draft.touch()  # DuckDB's own complaint is long
            form = output.suffix[1:]
            con.execute(f"COPY answers TO {literal(str(draft))} (FORMAT {form})")
            draft.rename(output)
        except (OSError, duckdb.Error) as error:
            why = getattr(error, "strerror", None) or short(str(error))
            raise TfrecError(f"--output={output}: cannot be written ({why}).") from None
        finally:
            draft.unlink(missing_ok=True)
        ((written,),) = con.execute("SELECT count(*) FROM answers").fetchall()
        return int(written)

    def _rows(self, users: np.ndarray, k: int) -> pd.DataFrame:
        answer = self._recommend(users, k)
        width = answer["score"].shape[1]
        columns = {name: answer[name].ravel() for name in ("product", "title", "score")}
        of_user = {
            "user": np.repeat(users, width),
            "rank": np.tile(np.arange(1, width + 1), len(users)).astype(np.int32),
        }
        rows = pd.DataFrame(of_user | columns | {"source": np.repeat(answer["source"], width)})
        return rows[np.isfinite(rows["score"])]

    def _recommend(self, users: np.ndarray, k: int) -> dict[str, np.ndarray]:
        return self._call(
            "recommend",
            user=self._ids("user", users),
            k=tf.constant(k),
            exclude_seen=tf.constant(self.config.evaluation.mask_seen),
            **self._open(),
        )

    def _open(self) -> dict[str, tf.Tensor]:
        """Returns the default context, no time, nothing excluded, everything allowed."""
        kind = self._kind("exclude")
        context = tf.zeros([0, len(self.catalog.default_context)])
        return {
            "context": context,
            "timestamp": NO_TIME,
            "exclude": tf.zeros([0, 0], kind),
            "allow": tf.zeros([0], kind),
        }

    def _kind(self, name: str) -> tf.DType:
        """Returns what the SavedModel takes as an input of `recommend`."""
        return self.signatures["recommend"].structured_input_signature[1][name].dtype

    def _ids(self, name: str, ids: np.ndarray) -> tf.Tensor:
        """Raw ids of the data as the SavedModel takes them.

        Data that have changed since may have texts where it knows numbers.
        """
        try:
            return tf.constant(
                ids.astype(np.int64) if self._kind(name) == tf.int64 else as_texts(ids)
            )
        except ValueError:
            raise TfrecError(
                f"{self.workdir}: the data have changed since this run: some ids are text now, "
                "where it knows numbers."
            ) from None

    def _call(self, signature: str, **inputs: tf.Tensor) -> dict[str, np.ndarray]:
        answer = {
            name: values.numpy() for name, values in self.signatures[signature](**inputs).items()
        }
        strings = [name for name, values in answer.items() if values.dtype == object]  # as bytes
        return answer | {name: _decoded(answer[name]) for name in strings}

    def _product(self, name: str) -> int:
        """Returns the position of a product by its title (in any case) or raw id."""
        titles = self.catalog.products["title"].str.lower()
        found = np.flatnonzero(
            (titles == name.lower()) | (as_texts(self.catalog.product_ids) == name)
        )
        if not len(found):
            close = difflib.get_close_matches(name.lower(), titles.tolist(), n=1)
            hint = ""
            if close:
                at = int(np.flatnonzero(titles == close[0])[0])
                hint = f" Did you mean {self.catalog.products['title'].iloc[at]}?"
            raise UsageError(f"--like: there is no product {name}.{hint}")
        return int(found[0])

    def _table(self, answer: dict[str, np.ndarray], row: int) -> str:
        there = np.isfinite(answer["score"][row])
        products = as_texts(answer["product"][row][there])
        position = pd.Index(as_texts(self.catalog.product_ids)).get_indexer(products)
        table = self._described(position).assign(score=answer["score"][row][there])
        table.insert(0, "product", products)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        return _readable(table)

    def _described(self, position: np.ndarray) -> pd.DataFrame:
        """Title and the features that are words (genres, say) of products."""
        known = self.catalog.products.iloc[position].reset_index(drop=True)
        texts = known.map(lambda value: "|".join(value) if isinstance(value, list) else value)
        words = [
            name
            for name in texts
            if name not in ("title", "name")
            and not pd.api.types.is_numeric_dtype(self.catalog.products[name])
        ]
        return texts[["title", *words]]

    @functools.cached_property
    def _split(self) -> Split:
        return (
            self._data if isinstance(self._data, Split) else self._data.split_by(self.config.data)
        )

    def _held_out(self, user: int, recommended: np.ndarray, k: int = 5) -> str:
        """Returns what was held out of training for the test, beside what is recommended (raw ids
        as texts); "" where nothing was.

        The k best rated of the held-out products and all that are recommended, with their ratings
        and predictions.
        """
        if self.config.refit == "all":
            return ""
        if workdirs.metrics(self.workdir)["data"] != self._split.fingerprint:
            return (
                "the data have changed since this run, so that what was held out of it is not known"
            )
        rows = self._split.test.of_users(np.array([user]))
        assert isinstance(rows, MemoryInteractions)
        if not len(rows):
            return ""
        users = self.catalog.user_ids[rows.user]
        products = self.catalog.product_ids[rows.product]
        context = tf.constant(rows.context)
        timestamp = NO_TIME if rows.timestamp is None else tf.constant(rows.timestamp)
        pairs = {"user": self._ids("user", users), "product": self._ids("exclude", products)}
        score = self._call("score", **pairs, context=context, timestamp=timestamp)["rating"]
        hit = np.isin(as_texts(products), recommended)
        listed = set(np.argsort(-rows.rating, kind="stable")[:k]) | set(np.flatnonzero(hit))
        order = sorted(listed, key=lambda row: (-rows.rating[row], -score[row]))
        table = self._described(rows.product[order])
        table = table.assign(rated=rows.rating[order], predicted=score[order])
        table["hit"] = np.where(hit[order], "hit", "")
        head = (
            f"held out: {len(rows)} products, of which {hit.sum()} are recommended; the {k} "
            "best rated of them, and these"
        )
        return f"{head}\n{_readable(table)}"


def _is_ours(output: Path) -> bool:
    """Returns whether a file is one of recommendations for everyone."""
    read = "read_csv" if output.suffix == ".csv" else "read_parquet"
    try:
        found = database().execute(f"DESCRIBE FROM {read}({literal(str(output))})").fetchall()
    except duckdb.Error:
        return False
    return [name for name, *_ in found] == list(RECOMMENDED)


def _read(config: DataSettings) -> Dataset | Split:
    if config.dataset.startswith("blocks:"):
        return disk.open_folder(config.dataset.removeprefix("blocks:"))
    return Dataset.from_tables(sources.read(config), config)


def _decoded(texts: np.ndarray) -> np.ndarray:
    """UTF-8 bytes -> text, object arrays of any shape."""
    return np.vectorize(bytes.decode, otypes=[object])(texts)


def _readable(table: pd.DataFrame) -> str:
    """Words on the left, numbers on the right with two decimals; long texts are cut."""
    columns, left = [], []
    for at, (name, values) in enumerate(table.items()):
        floating = pd.api.types.is_float_dtype(values)
        cells = [f"{value:.2f}" if floating else str(value) for value in values]
        columns.append(
            [str(name), *(cell if len(cell) <= 60 else f"{cell[:57]}..." for cell in cells)]
        )
        if not pd.api.types.is_numeric_dtype(values):
            left.append(at)
    return aligned([list(line) for line in zip(*columns)], left)
