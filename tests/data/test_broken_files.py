"""Broken files of one's own, written by hand.

Each ends in one line that names the place, and leaves nothing behind.
"""

import gzip
import io
import zipfile

import numpy as np
import pandas as pd
import pytest

from tests.data import own
from tfrec.errors import TfrecError, UsageError

NUMBER, MISSING = "is not a number.", "the value is missing."


def row(number: int, text: str, content: str = own.RATINGS) -> str:
    """The content with another row `number` (from 1; past the end: one more)."""
    lines = content.splitlines()
    lines[number - 1 : number] = [text]
    return "\n".join(lines) + "\n"


def product(number: int, text: str) -> str:
    return row(number, text, own.PRODUCTS)


def parquet(**columns) -> bytes:
    """RATINGS as Parquet with other columns (None: without)."""
    table = own.frame().assign(**columns)
    buffer = io.BytesIO()
    table.drop(columns=[name for name, values in columns.items() if values is None]).to_parquet(
        buffer
    )
    return buffer.getvalue()


def zipped(content: str = own.RATINGS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ratings.csv", content)
    return buffer.getvalue()


def damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 8])
        + content[middle + 8 :]
    )


IDS = {
    "user_column": "who",
    "product_column": "item",
    "rating_column": "stars",
    "timestamp_column": "when",
}
OTHER = own.RATINGS.replace("user,product,rating,timestamp", "who,item,stars,when")
HEADERLESS = {"columns": ("user", "product", "rating", "timestamp")}
LONG = gzip.compress(
    own.RATINGS.encode() + bytes(f"u{np.random.RandomState(0).bytes(9999).hex()},p,1,1\n", "utf-8")
)

SEMICOLONS = {
    name: text.replace(",", ";")
    for name, text in (("ratings", own.RATINGS), ("products", own.PRODUCTS), ("users", own.USERS))
}
TABLES = {name: SEMICOLONS[name] for name in ("products", "users")}

CASES = {  # one malformed row: (files, settings, row, what the message says of it)
    "text as rating": (
        {"ratings": row(3, "u1,p2,good,1500000000")},
        {},
        3,
        f', column rating: "good" {NUMBER}',
    ),
    "NaN as rating": (
        {"ratings": row(3, "u1,p2,NaN,1500000000")},
        {},
        3,
        f', column rating: "NaN" {NUMBER}',
    ),
    "infinite rating": (
        {"ratings": row(4, "u1,p2,-inf,1500000000")},
        {},
        4,
        f', column rating: "-inf" {NUMBER}',
    ),
    "overflowing rating": (
        {"ratings": row(6, "u1,p3,1e39,1500000000")},
        {},
        6,
        f', column rating: "1e39" {NUMBER}',
    ),
    "NA as rating": (
        {"ratings": row(2, "u1,p1,NA,1500000000")},
        {},
        2,
        f', column rating: "NA" {NUMBER}',
    ),
    "no rating": ({"ratings": row(2, "u1,p1,,1500000000")}, {}, 2, f", column rating: {MISSING}"),
    "no user": ({"ratings": row(5, ",p1,4,1500000000")}, {}, 5, f", column user: {MISSING}"),
    "a blank as product": (
        {"ratings": row(5, "u1,  ,4,1500000000")},
        {},
        5,
        f", column product: {MISSING}",
    ),
    "no time": ({"ratings": row(6, "u1,p3,4,")}, {}, 6, f", column timestamp: {MISSING}"),
    "a date among seconds": (
        {"ratings": row(2, "u1,p1,4,2017-07-14")},
        {},
        2,
        ', column timestamp: "2017-07-14" is not a time: expected seconds since 1970 or an ISO',
    ),
    "a word as time": (
        {"ratings": row(2, "u1,p1,4,yesterday")},
        {},
        2,
        ', column timestamp: "yesterday" is not a time: expected seconds since 1970 or an ISO',
    ),
    "milliseconds": (
        {"ratings": row(3, "u1,p2,4,1500000000000")},
        {},
        3,
        ', column timestamp: "1500000000000" is not a time in seconds since 1970. Is it in '
        "milliseconds? The others are not.",
    ),
    "microseconds": (
        {"ratings": row(3, "u1,p2,4,1500000000000000")},
        {},
        3,
        ', column timestamp: "1500000000000000" is not a time in seconds',
    ),
    "the file's own names": (
        {"ratings": row(3, "u1,p2,x,1", OTHER)},
        IDS,
        3,
        f', column stars: "x" {NUMBER}',
    ),
    "the file's own name of the time": (
        {"ratings": row(3, "u1,p2,1,9999999999999", OTHER)},
        IDS,
        3,
        ', column when: "9999999999999" is not',
    ),
    "the file's own name of the user": (
        {"ratings": row(3, ",p2,1,9", OTHER)},
        IDS,
        3,
        f", column who: {MISSING}",
    ),
    "decimal comma": (
        {"ratings": row(3, "u1,p2,3,5,1500000000")},
        {},
        3,
        ": expected 4 fields, found 5. Is the decimal separator",
    ),
    "quoted decimal comma": (
        {"ratings": row(3, 'u1,p2,"3,5",1500000000')},
        {},
        3,
        f', column rating: "3,5" {NUMBER} Is the decimal',
    ),
    "decimal comma, semicolons": (
        {"ratings": SEMICOLONS["ratings"].replace("3.5", "3,5")} | TABLES,
        {"separator": ";"},
        3,
        f', column rating: "3,5" {NUMBER} Is the decimal separator a comma?',
    ),
    "too few fields": ({"ratings": row(4, "u2,p1,1")}, {}, 4, ": expected 4 fields, found 3."),
    "too few fields at the end": (
        {"ratings": own.RATINGS + "u3,p"},
        {},
        7,
        ": expected 4 fields, found 2.",
    ),
    "too many fields": (
        {"ratings": row(2, "u1,p1,4,1500000000,x")},
        {},
        2,
        ": expected 4 fields, found 5.",
    ),
    "one row with semicolons": (
        {"ratings": row(4, "u2;p1;1;15")},
        {},
        4,
        ': expected 4 fields, found 1. Is the separator ";"?',
    ),
    "header where none should be": ({}, HEADERLESS, 1, f', column rating: "rating" {NUMBER}'),
    "Latin-1 in an id": (
        {"ratings": row(3, "Zo\xeb,p2,4,15").encode("latin-1")},
        {},
        3,
        ", column user: bytes that are not utf-8.",
    ),
    "open quotation mark": (
        {"ratings": row(3, 'u1,"p2,3,15')},
        {},
        3,
        ": is a quotation mark missing",
    ),
    "text after a quotation mark": (
        {"ratings": row(3, 'u1,"p"2,3,15')},
        {},
        3,
        ": is a quotation mark missing",
    ),
    "quotation marks that swallow rows": (
        {"ratings": row(3, '"u1,p2,3,15').replace("u2,p3,5,1500172800", 'u2,p3,5,"')},
        {},
        3,
        ": a quotation mark opens a field of 3 lines, each of which is a row without it.",
    ),
    "after Windows' line ends": (
        {"ratings": row(3, "u1,p2,x,1").replace("\n", "\r\n")},
        {},
        3,
        f', column rating: "x" {NUMBER}',
    ),
    "after a byte order mark": (
        {"ratings": "\ufeff" + row(3, "u1,p2,x,1")},
        {},
        3,
        f', column rating: "x" {NUMBER}',
    ),
    "after blank lines": (
        {"ratings": row(3, "\n\nu1,p2,x,1")},
        {},
        5,
        f', column rating: "x" {NUMBER}',
    ),
    "after gzip": (
        {"ratings": gzip.compress(row(3, "u1,p2,x,1").encode())},
        {},
        3,
        f', column rating: "x" {NUMBER}',
    ),
    "text in Parquet": (
        {"ratings": parquet(rating=["4", "x", "1", "5", "2"])},
        {},
        2,
        f', column rating: "x" {NUMBER}',
    ),
    "lists in Parquet": (
        {"ratings": parquet(rating=[[4], [3, 3], [1], [5], [2]])},
        {},
        2,
        f', column rating: "3, 3" {NUMBER}',
    ),
    "NaN in Parquet": (
        {"ratings": parquet(rating=[1, 2, np.nan, 4, 5])},
        {},
        3,
        f", column rating: {MISSING}",
    ),
    "infinity in Parquet": (
        {"ratings": parquet(rating=[1, 2, 3, np.inf, 5])},
        {},
        4,
        f', column rating: "inf" {NUMBER}',
    ),
    "no id in Parquet": (
        {"ratings": parquet(user=["u1", None, "b", "c", "d"])},
        {},
        2,
        f", column user: {MISSING}",
    ),
    "milliseconds in Parquet": (
        {"ratings": parquet(timestamp=[1, 2, 3, 1500000000000, 5])},
        {},
        4,
        ', column timestamp: "1500000000000" is not',
    ),
    "no time in Parquet": (
        {"ratings": parquet(timestamp=pd.to_datetime([0, 1, None, 2, 3]))},
        {},
        3,
        f", column timestamp: {MISSING}",
    ),
    "text as price": (
        {"products": product(2, "p1,First,acme,red,cheap")},
        {},
        2,
        f', column price: "cheap" {NUMBER}',
    ),
    "infinite price": (
        {"products": product(3, "p2,Second,,blue,inf")},
        {},
        3,
        f', column price: "inf" {NUMBER}',
    ),
    "product without id": (
        {"products": product(4, ",Third,bolt,,30")},
        {},
        4,
        f", column product: {MISSING}",
    ),
    "product twice": (
        {"products": product(6, "p1,Again,acme,,1")},
        {},
        6,
        ", column product: p1 stands there twice.",
    ),
    "comma in a title": (
        {"products": product(5, "p4,Fourth, or so,acme,green,20")},
        {},
        5,
        ": expected 5 fields, found 6. Is the",
    ),
    "Latin-1 in a title": (
        {"products": product(3, "p2,Caf\xe9,,blue,").encode("latin-1")},
        {},
        3,
        ", column title: bytes that are not utf-8.",
    ),
    "user twice": (
        {"users": own.USERS + "u1,3,f\n"},
        {},
        5,
        ", column user: u1 stands there twice.",
    ),
    "text as age": (
        {"users": own.USERS.replace("50", "old")},
        {},
        4,
        f', column age: "old" {NUMBER}',
    ),
}

# a file that is no use at all: (files, settings, what the message begins with, what it says, too)
USELESS = {
    "empty": ({"ratings": ""}, {}, "ratings.csv, row 1: the file, or its first row, is empty.", ""),
    "empty, no header": ({"ratings": ""}, HEADERLESS, "ratings.csv: the file holds no rows.", ""),
    "empty gzip": (
        {"ratings": gzip.compress(b"")},
        {},
        "ratings.csv, row 1: the file, or its first row, is empty.",
        "",
    ),
    "header only": (
        {"ratings": own.RATINGS.split("\n")[0]},
        {},
        "ratings.csv: the file holds no rows.",
        "",
    ),
    "semicolons": (
        {"ratings": own.RATINGS.replace(",", ";")},
        {},
        "ratings.csv, row 1: no column user among",
        'Is the separator ";"? (--separator=";")',
    ),
    "tabs": (
        {"ratings": own.RATINGS.replace(",", "\t")},
        {},
        "ratings.csv, row 1: no column user among",
        'Is the separator a tab? (--separator="tab")',
    ),
    "commas": (
        {},
        {"separator": "|"},
        "ratings.csv, row 1: no column user among",
        'Is the separator ","?',
    ),
    "semicolons, no header": (
        {"ratings": "u;p;1;9\n"},
        HEADERLESS,
        "ratings.csv, row 1: expected 4 fields, found 1.",
        'Is the separator ";"?',
    ),
    "no product": (
        {"ratings": "user,rating\na,1\n"},
        {},
        'ratings.csv, row 1: no column product among "user, rating" (--product_column).',
        "",
    ),
    "other names": (
        {"ratings": OTHER},
        {},
        "ratings.csv, row 1: no column user among",
        "Without a header: --columns=",
    ),
    "misspelt name": (
        {},
        {"rating_column": "ratings"},
        "ratings.csv, row 1: no column ratings among",
        "Did you mean rating?",
    ),
    "a name twice": (
        {"ratings": "user,product,user\na,b,c\n"},
        {},
        "ratings.csv, row 1: there are 2 columns user.",
        "",
    ),
    "UTF-16": (
        {"ratings": own.RATINGS.encode("utf-16")},
        {},
        "ratings.csv, row 1: bytes that are not utf-8.",
        "",
    ),
    "Latin-1 header": (
        {"ratings": "\xfcser,product\na,b\n".encode("latin-1")},
        {},
        "ratings.csv, row 1: bytes that are not utf-8.",
        "",
    ),
    "a zip": ({"ratings": zipped()}, {}, "ratings.csv: this is a zip or Excel file.", "Unpack it"),
    "a truncated zip": (
        {"ratings": zipped()[:60]},
        {},
        "ratings.csv: this is a zip or Excel file.",
        "Unpack it",
    ),
    "a truncated gzip": (
        {"ratings": LONG[: len(LONG) // 2]},
        {},
        "ratings.csv: cannot be read (",
        "Is it broken?",
    ),
    "a damaged gzip": ({"ratings": damaged(LONG)}, {}, "ratings.csv", ""),
    "a truncated Parquet": (
        {"ratings": parquet()[:900]},
        {},
        "ratings.csv: cannot be read (",
        "Is it broken?",
    ),
    "a damaged Parquet": (
        {"ratings": parquet()[:4] + b"x" * 200 + parquet()[-8:]},
        {},
        "ratings.csv: cannot be read (",
        "",
    ),
    "Parquet without product": (
        {"ratings": parquet(product=None)},
        {},
        "ratings.csv, row 1: no column product among",
        "",
    ),
    "Parquet and --columns": (
        {"ratings": parquet()},
        HEADERLESS,
        "--columns: ratings.csv is a Parquet file",
        "",
    ),
    "Parquet without rows": (
        {"ratings": own.frame()[:0].to_parquet()},
        {},
        "ratings.csv: the file holds no rows.",
        "",
    ),
    "HTML": (
        {"ratings": "<html>\n<body>Not found</body>\n"},
        {},
        'ratings.csv, row 1: no column user among "<html>"',
        "",
    ),
    "no id in products": (
        {"products": "sku,title\na,b\n"},
        {},
        "products.csv, row 1: no column product among",
        "(--products_id)",
    ),
    "no title": (
        {},
        {"products_title": "name"},
        "products.csv, row 1: no column name among",
        "(--products_title)",
    ),
    "no such feature": (
        {},
        {"products_numeric": ("prize",)},
        "products.csv, row 1: no column prize among",
        "Did you mean price?",
    ),
    "empty products": (
        {"products": ""},
        {},
        "products.csv, row 1: the file, or its first row, is empty.",
        "",
    ),
    "products without rows": (
        {"products": "product,title,brand,tags,price\n"},
        {},
        "products.csv: the file holds no rows.",
        "",
    ),
    "products with semicolons": (
        {"products": own.PRODUCTS.replace(",", ";")},
        {},
        "products.csv, row 1: no column product among",
        'separator ";"',
    ),
    "no id in users": (
        {"users": "age,gender\n1,f\n"},
        {},
        "users.csv, row 1: no column user among",
        "(--users_id)",
    ),
}


def complaint(folder, **settings) -> str:
    """The one line that loading ends in."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(TfrecError) as error:
        own.load(folder, tables=True, **settings)
    assert sorted(folder.rglob("*")) == before
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    assert text.rstrip()[-1] in ".?)"
    text.encode()  # can be printed
    return text


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_row_ends_in_one_line_or_is_skipped(tmp_path, case, capsys):
    files, settings, number, what = CASES[case]
    own.write(tmp_path, **files)
    file = f"{[*files, 'ratings'][0]}.csv"
    text = complaint(tmp_path, **settings)
    assert text.startswith(f"{file}, row {number:,}{what}")
    assert text.endswith("Mend the file, or skip such rows with --on_bad_rows=skip.")
    capsys.readouterr()
    dataset = own.load(tmp_path, tables=True, on_bad_rows="skip", **settings)
    assert f"{file}: skipped " in capsys.readouterr().out
    assert (
        len(dataset) >= 3
        and np.isfinite(dataset.catalog.features.dense()).all()
        and np.isfinite(dataset.interactions.rating).all()
    )


@pytest.mark.parametrize("case", USELESS)
def test_a_useless_file_ends_in_one_line(tmp_path, case):
    files, settings, start, too = USELESS[case]
    own.write(tmp_path, **files)
    for on_bad_rows in ("error", "skip"):
        text = complaint(tmp_path, on_bad_rows=on_bad_rows, **settings)
        if case == "semicolons, no header" and on_bad_rows == "skip":
            start = (
                "ratings.csv: 1 of 1 rows are malformed, more than half, so they are not skipped."
            )
        assert text.startswith(start)
        assert too in text or on_bad_rows == "skip"


def test_a_file_that_is_not_there_or_no_file(tmp_path):
    own.write(tmp_path)
    assert complaint(tmp_path, interactions=str(tmp_path / "rating.csv")).startswith(
        f"{tmp_path / 'rating.csv'}: there is no such file."
    )
    assert complaint(tmp_path, products=str(tmp_path / "product.csv")).startswith(
        f"{tmp_path / 'product.csv'}: there is no such file."
    )
    assert ": there is no such file." in complaint(
        tmp_path, interactions=str(tmp_path / "rating.csv"), **HEADERLESS
    )
    (tmp_path / "empty").mkdir()
    assert ": the folder holds no files." in complaint(
        tmp_path, interactions=str(tmp_path / "empty")
    )


def test_a_number_column_that_lacks_in_all_rows(tmp_path):
    own.write(tmp_path, products="product,price\np1,\np2,NA\np3,nan\n")
    dataset = own.load(
        tmp_path, products=str(tmp_path / "products.csv"), products_numeric=("price",)
    )
    np.testing.assert_array_equal(dataset.catalog.features.dense(), [[0, 1], [0, 1], [0, 1]])


def test_errors_of_usage_and_of_data_have_their_exit_codes(tmp_path):
    own.write(tmp_path, ratings=parquet())
    with pytest.raises(UsageError):
        own.load(tmp_path, columns=("user", "product"))
    own.write(tmp_path, ratings="")
    with pytest.raises(TfrecError) as error:
        own.load(tmp_path)
    assert error.value.exit_code == 1
