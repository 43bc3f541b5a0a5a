"""Settings of the data: each source's, each split's, and those of features and context.

DataSettings is all of them together; what a run may set is what its source and its split have.
"""

import codecs
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from tfrec.errors import UsageError, nearest
from tfrec.settings import Part, fields, make, setting

EDITIONS = ("latest-small", "latest", "100k", "1m", "10m", "20m", "25m", "32m")
DATASETS = (*EDITIONS, "files", "synthetic", "blocks:FOLDER", "tfds:NAME")  # NAME: any
INTERACTION = ("user", "product", "rating", "timestamp")
CONTEXT = ("daytime", "weekend", "hour", "weekday", "month", "date")
MEMORY = re.compile(r"[0-9]+(\.[0-9]+)? ?[KMGT]i?B", re.IGNORECASE)
WEIGHT = 1e-9, 1e9  # least and greatest
NO_WEIGHT = "is no weight: expected a number above 0, at most 1e9."
SIDES = ("products", "users")


@dataclass(frozen=True)
class MemorySettings:
    """Of a source that DuckDB reads or holds."""

    memory_limit: str = setting(
        "",
        "how much memory DuckDB may take before it writes to disk, such as 2GB; empty: a share of "
        "what is free",
    )

    def __post_init__(self) -> None:
        if self.memory_limit and not MEMORY.fullmatch(self.memory_limit):
            raise UsageError(f"memory_limit={self.memory_limit}: expected such as 500MB or 2GB.")


@dataclass(frozen=True)
class FilterSettings(MemorySettings):
    """Which rows are kept."""

    duplicates: str = setting(
        "auto",
        "of several rows of a user and product keep the latest, with its own or the mean, greatest "
        "or summed rating and weight, or end the run; auto: max where rows have weights, else last",
        ("auto", "last", "mean", "max", "sum", "error"),
    )
    min_user_rows: int = setting(0, "leave out users with fewer rows", low=0)
    min_product_rows: int = setting(0, "leave out products with fewer rows", low=0)


@dataclass(frozen=True)
class RowSettings(FilterSettings):
    """Of a source that reads rows as they come."""

    on_bad_rows: str = setting(
        "error",
        "what a malformed row does: end the run, or be skipped and counted",
        ("error", "skip"),
    )


@dataclass(frozen=True)
class MovieLensSettings(RowSettings):
    """Of a MovieLens edition."""

    data_dir: str = setting(
        "",
        "folder or original zip that holds the data set, or TFDS' folder; empty: the built-in "
        "one, else a download",
    )


_KINDS = ("categorical", "multivalued", "numeric", "text")  # of columns that make features


@dataclass(frozen=True)
class ColumnSettings(MemorySettings):
    """Of a source whose columns the user names."""

    user_column: str = setting("user", "files, tfds: column of the user's id")
    product_column: str = setting("product", "files, tfds: column of the product's id")
    rating_column: str = setting(
        "rating", "files, tfds: column of the rating; without one --task=ranking is left"
    )
    timestamp_column: str = setting("timestamp", "files, tfds: column of the time; may lack")
    products_title: str = setting("title", "column of the product's title in --products; may lack")
    products_categorical: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of products, one value each"
    )
    products_multivalued: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of products, several values each"
    )
    products_numeric: tuple[str, ...] = setting(
        (), "files, tfds: columns of numbers that make features of products"
    )
    products_text: tuple[str, ...] = setting(
        (),
        "files, tfds: columns of texts whose words make features of products, such as "
        "title,description",
    )
    users_categorical: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of users, one value each"
    )
    users_multivalued: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of users, several values each"
    )
    users_numeric: tuple[str, ...] = setting(
        (), "files, tfds: columns of numbers that make features of users"
    )
    value_separator: str = setting("|", "what stands between the values of a multi-valued column")
    numeric_bins: int = setting(
        0,
        "files, tfds: cut numbers that make features into so many bins with about as many rows "
        "each, a feature a bin; 0: one feature, their standard score",
        low=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        named = ("user_column", "product_column", "rating_column", "timestamp_column")
        if len({getattr(self, name) for name in named}) < len(named):
            raise UsageError(f"{', '.join(named[:-1])} and {named[-1]} must differ.")
        for side in SIDES:
            columns = self.feature_columns(side)
            for column in columns:
                if columns.count(column) > 1:
                    kind = self.kind_of(side, column)
                    raise UsageError(f"{side}_{kind}: column {column} stands there twice.")
        if self.numeric_bins and not self.products_numeric + self.users_numeric:
            raise UsageError(
                f"numeric_bins={self.numeric_bins}: there are no numbers to cut. Name their "
                "columns with products_numeric or users_numeric."
            )
        text = self.products_text
        if "title" in set(self.feature_columns("products")) - set(text):
            kind = self.kind_of("products", "title")
            raise UsageError(f"products_{kind}: column title is the title.")
        if "title" in text and self.products_title != "title":
            raise UsageError(
                f"products_text: the title is products_title={self.products_title} here. Take "
                f"{self.products_title}."
            )

    def feature_columns(self, side: str) -> list[str]:
        """Those of "products" or "users" that make features."""
        return [column for kind in _KINDS for column in getattr(self, f"{side}_{kind}", ())]

    def kind_of(self, side: str, column: str) -> str:
        """Returns what such a column is: categorical, multivalued, numeric or text."""
        return next(kind for kind in _KINDS if column in getattr(self, f"{side}_{kind}", ()))


@dataclass(frozen=True)
class EventSettings(MemorySettings):
    """What rows mean that are no ratings."""

    event_column: str = setting("", "column of what happened, such as view or buy")
    event_weights: tuple[str, ...] = setting(
        (),
        "what each event weighs, such as view:1,cart:3,buy:10; other events are left out",
    )
    weight_column: str = setting(
        "", "column of the confidence weight of a row, such as how often; above 0"
    )
    weight_scale: str = setting(
        "linear", "log: a weight w counts as log2(1 + w), for counts", ("linear", "log")
    )
    missing_ratings: tuple[float, ...] = setting(
        (), "values that mean that a row is not rated; such rows are left out"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        named = self.event_column or "event" in getattr(self, "columns", ())
        if bool(named) != bool(self.event_weights):
            raise UsageError(
                "event_column and event_weights go together, such as event_column=type "
                "event_weights=view:1,buy:10."
            )
        for each, name in zip(self.event_weights, self.weight_of):
            if not name or not WEIGHT[0] <= self.weight_of[name] <= WEIGHT[1]:
                raise UsageError(f"event_weights: {each} is not such as view:1, above 0.")
        if len(self.weight_of) < len(self.event_weights):
            raise UsageError("event_weights: an event stands there twice.")

    @property
    def weight_of(self) -> dict[str, float]:
        """Returns what each event weighs; NaN where that is no number."""
        pairs = (each.rpartition(":") for each in self.event_weights)
        return {name.strip(): _number(weight) for name, _, weight in pairs}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class TFDSSettings(ColumnSettings, RowSettings):
    """Of a data set of TFDS."""

    data_dir: str = setting(
        "",
        "folder or original zip that holds the data set, or TFDS' folder; empty: the built-in "
        "one, else a download",
    )


@dataclass(frozen=True)
class FilesSettings(ColumnSettings, EventSettings, RowSettings):
    """Of the user's own files."""

    interactions: str = setting(
        "",
        "files: who rated or took what, one row each; CSV and its kin (also gzip, zstd), JSON "
        "lines or Parquet; several as a.csv,b.csv, part-*.csv or a folder",
    )
    columns: tuple[str, ...] = setting(
        (),
        "files: the columns of an --interactions file without a header, in its order; - is ignored",
        (*INTERACTION, "event", "weight", "-"),
    )
    separator: str = setting(
        "",
        "files: what stands between two fields; tab for a tab; empty: a comma, in .tsv files a tab",
    )
    quoting: str = setting(
        "double",
        "how a quotation mark is written within quotation marks: twice, or after a backslash; "
        "none: quotation marks are letters as others",
        ("double", "backslash", "none"),
    )
    encoding: str = setting("utf-8", "files: of text files, such as latin-1 or windows-1252")
    timestamp_format: str = setting(
        "",
        "of times, such as %d.%m.%Y; empty: seconds (or milli-, micro-, nanoseconds) since 1970, "
        "or ISO 8601",
    )
    products: str = setting(
        "", "files: table of products with a header; CSV, TSV or Parquet (synthetic: how many)"
    )
    products_id: str = setting(
        "", "column of the product's id in --products; empty: as in --interactions"
    )
    users: str = setting(
        "", "files: table of users with a header; CSV, TSV or Parquet (synthetic: how many)"
    )
    users_id: str = setting("", "column of the user's id in --users; empty: as in --interactions")

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in SIDES:
            columns = self.feature_columns(side)
            if columns and not getattr(self, side):
                kind = self.kind_of(side, columns[0])
                raise UsageError(
                    f"{side}_{kind}={columns[0]}: there is no table of {side}. Name its file with "
                    f"{side}=FILE."
                )
        if self.separator not in ("", " ") and not self.separator.strip():
            raise UsageError("separator: write separator=tab for a tab.")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise UsageError(f"encoding={self.encoding}: there is no such encoding.") from None
        for name in ("event", "weight"):
            if self.columns and getattr(self, f"{name}_column"):
                raise UsageError(f"{name}_column: with columns, call it {name} among them.")
        given = ",".join(self.columns)
        if self.columns and not {"user", "product"} <= set(self.columns):
            raise UsageError(f"columns={given}: user and product must be among them.")
        named = [column for column in self.columns if column != "-"]
        if len(set(named)) != len(named):
            raise UsageError(f"columns={given}: a column stands there twice.")


@dataclass(frozen=True)
class FrameSettings(ColumnSettings, EventSettings, FilterSettings):
    """Of the user's own frames."""

    products_id: str = setting("", "column of the product's id in products; empty: product_column")
    users_id: str = setting("", "column of the user's id in users; empty: user_column")


@dataclass(frozen=True)
class SyntheticSettings(MemorySettings):
    """Of ratings that are drawn at random."""

    products: str = setting("", "how many products")
    users: str = setting("", "how many users")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in SIDES:
            count = getattr(self, name)
            digits = count.isascii() and count.isdigit()
            if count and not (digits and 0 < int(count) < 2**31):
                raise UsageError(f"{name}={count}: expected a whole number with dataset=synthetic.")


@dataclass(frozen=True)
class FeatureSettings:
    """Of what is made of products and times."""

    year_bins: int = setting(
        0,
        "products with a year (MovieLens' have one) are also told apart by it: a feature for so "
        "many years each; 0: none",
        low=0,
    )
    context: tuple[str, ...] = setting(
        ("daytime", "weekend"), "what a timestamp tells the model", CONTEXT
    )
    context_encoding: str = setting(
        "cyclic",
        "hour, weekday and month as a sine and a cosine, or as one column a value",
        ("cyclic", "categorical"),
    )
    time_zone: str = setting(
        "UTC", "time zone in which daytime and weekend are told, such as Europe/Vienna"
    )


@dataclass(frozen=True)
class ValidationSettings:
    """Which rows train, and how many decide on weights and settings."""

    positive_from: float | None = setting(
        None,
        "ranking: training rows with at least this rating are likes, the others are not trained "
        "on; unset: all are likes",
    )
    validation_fraction: float = setting(
        0.1,
        "share of the training rows held out for validation; 0 trains on all of them",
        low=0.0,
        high=0.99,
    )
    validation_rule: str = setting(
        "split",
        "cut validation by the split's own rule, or take each user's latest row, or the last rows "
        "in (user, product) order; with candidates_file, split=files and timestamps: leave_one_out",
        ("split", "leave_one_out", "last_rows"),
    )


@dataclass(frozen=True)
class FractionSettings(ValidationSettings):
    """Of a split that tests a share of rows, users or products."""

    test_fraction: float = setting(
        0.2, "share of rows (of users, of products) that are tested", low=0.0, high=0.99
    )


@dataclass(frozen=True)
class RandomSettings(FractionSettings):
    """Of a split that draws what is tested."""

    split_seed: int = setting(0, "seed of the split's shuffle", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class KFoldSettings(ValidationSettings):
    """Which of how many folds is tested."""

    split_seed: int = setting(0, "seed of the split's shuffle", low=0, high=2**32 - 1)
    folds: int = setting(5, "number of folds of --split=kfold", low=2)
    fold: int = setting(0, "fold that is tested, from 0", low=0)

    def __post_init__(self) -> None:
        if self.fold >= self.folds:
            raise UsageError(
                f"fold={self.fold}: with folds={self.folds} the folds are 0 to {self.folds - 1}."
            )


@dataclass(frozen=True)
class FilesSplitSettings(ValidationSettings):
    """Of a split that files say."""

    split_seed: int = setting(0, "seed of the split's shuffle", low=0, high=2**32 - 1)
    train_file: str = setting("", "training rows of --split=files, in the data set's own format")
    test_file: str = setting("", "test rows of --split=files")
    validation_file: str = setting(
        "", "validation rows of --split=files; empty: cut at random from the training rows"
    )

    def __post_init__(self) -> None:
        if not (self.train_file and self.test_file):
            raise UsageError("split=files needs train_file and test_file.")


class MovieLens(Part):
    """A MovieLens edition, built in or in --data_dir."""

    Settings: ClassVar[type] = MovieLensSettings


class Files(Part):
    """The user's own files."""

    Settings: ClassVar[type] = FilesSettings


class TFDS(Part):
    """A data set of TFDS."""

    Settings: ClassVar[type] = TFDSSettings


class Synthetic(Part):
    """Ratings that are drawn at random."""

    Settings: ClassVar[type] = SyntheticSettings


class Blocks(Part):
    """A folder that scripts/prepare.py wrote, which knows its settings."""


class Frames(Part):
    """The user's own frames."""

    Settings: ClassVar[type] = FrameSettings


class Features(Part):
    """What is made of products and times."""

    Settings: ClassVar[type] = FeatureSettings


class Validated(Part):
    """A split without settings of its own but for the validation rows."""

    Settings: ClassVar[type] = ValidationSettings


class Fraction(Part):
    """A split that tests a share of rows, users or products."""

    Settings: ClassVar[type] = FractionSettings


class Random(Part):
    """A split that draws what is tested."""

    Settings: ClassVar[type] = RandomSettings


class KFold(Part):
    """Each row is tested in one of k folds."""

    Settings: ClassVar[type] = KFoldSettings


class FilesSplit(Part):
    """A split that files say."""

    Settings: ClassVar[type] = FilesSplitSettings


SOURCES: dict[str, type[Part]] = {
    **dict.fromkeys(EDITIONS, MovieLens),
    "files": Files,
    "tfds:NAME": TFDS,
    "synthetic": Synthetic,
    "blocks:FOLDER": Blocks,
}
SPLITS: dict[str, type[Part]] = {
    "auto": Random,  # becomes user_temporal or random when the data are read
    "random": Random,
    "by_product": Fraction,
    "temporal": Fraction,
    "user_temporal": Fraction,
    "leave_one_out": Validated,
    "cold_user": Random,
    "cold_product": Random,
    "kfold": KFold,
    "files": FilesSplit,
}


@dataclass(frozen=True)
class DataChoices:
    """Which data, and how they are split."""

    dataset: str = setting(
        "latest-small",
        "a MovieLens edition (latest-small ships with tfrec, the others are downloaded or read "
        "from --data_dir), files: your own data, "
        "tfds:NAME: a data set that TFDS has prepared, blocks:FOLDER: what scripts/prepare.py "
        "wrote for data larger than memory, or for "
        "prepare.py itself, synthetic: one that is drawn at random",
        DATASETS,
    )
    split: str = setting(
        "auto",
        "how rows are divided into training and test; auto: user_temporal, or random without "
        "timestamps",
        tuple(SPLITS),
    )


@dataclass(frozen=True)
class DataSettings(
    FilesSettings,
    TFDSSettings,
    MovieLensSettings,
    FeatureSettings,
    FilesSplitSettings,
    KFoldSettings,
    RandomSettings,
    DataChoices,
):
    """All settings of the data; those that the source and the split lack are at their defaults."""

    def __post_init__(self) -> None:
        """The parts have been checked."""


def source_of(dataset: str) -> type[Part]:
    """Returns the source that a dataset names."""
    kind, colon, _ = dataset.partition(":")
    known = {name.partition(":")[0] if colon else name: part for name, part in SOURCES.items()}
    return known[kind if colon else dataset]


def made_of(chosen: tuple[type, ...], **given: Any) -> DataSettings:
    """Returns all settings of the data, from those of some parts.

    Args:
        chosen: Parts, whose settings can be given.
        given: These, and dataset and split.

    Raises:
        UsageError: A setting is unknown, or has a wrong value.
    """
    known = {name for part in chosen for name in fields(part)}
    choices = {name: given.pop(name) for name in ("dataset", "split") if name in given}
    for name in given:
        if name not in known:
            raise UsageError(f"{name}: there is no such setting here.{nearest(name, known)}")
    found: dict[str, Any] = {}
    for part in chosen:
        found |= vars(make(part, {n: v for n, v in given.items() if n in fields(part)}))
    return DataSettings(**found | choices)
