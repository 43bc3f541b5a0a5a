"""Files -> typed columns: every way of writing a table, and which row is which."""

import csv
import gzip
import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.data import own
from tfrec.data.forms import File
from tfrec.data.reading import Reading, database
from tfrec.errors import TfrecError, UsageError

KINDS = {"a": "whole", "b": "whole", "r": "number"}
COLUMNS = {"a": "A", "b": "B", "r": "R"}
FILES = {
    "csv": {"columns": COLUMNS},
    "tab": {"names": ("a", "b", "r"), "separator": "\t"},
    "colons": {"names": ("a", "b", "r"), "separator": "::"},
    "blanks": {"names": ("a", "b", "r"), "separator": " "},
    "letters": {"columns": COLUMNS, "quoting": "none"},
}
TEXT = {"columns": {"id": "id", "name": "name"}}


def read(path: Path, kinds: dict, **how) -> Reading:
    names = how.get("names", ())
    how.setdefault("columns", {name: name for name in names})
    return Reading(database(), File(path, **how), kinds)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables") / "t.csv"


def written(name: str, lines: list[str]) -> str:
    return "\n".join([*["A,B,R"] * (not FILES[name].get("names")), *lines])


integers = st.integers(-(2**53), 2**53)
rows = st.lists(
    st.tuples(integers, integers, st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=8
)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=10, deadline=None)
@given(content=rows)
def test_numbers_are_read_as_they_were_written(file, name, content):
    separator = FILES[name].get("separator", ",")
    file.write_text(written(name, [separator.join(map(repr, row)) for row in content]))
    found = read(file, KINDS, **FILES[name]).frame()
    assert list(zip(found["a"], found["b"])) == [row[:2] for row in content]
    np.testing.assert_array_equal(found["r"], np.float32([row[2] for row in content]))


fields = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    content=st.lists(st.tuples(fields.map(lambda t: f"x{t}x"), fields), min_size=1, max_size=6),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_whatever_csv_writes_is_read(file, content, separator, quoting):
    """Quotation marks, line ends and separators within fields among it.

    But for rows of several lines each of which looks like a row: they are refused.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator="\n")
    writer.writerow(("id", "name"))
    for row in content:
        start = buffer.tell()
        writer.writerow(row)
        lines = buffer.getvalue()[start:-1].split("\n")
        assume(len(lines) == 1 or {line.count(separator) for line in lines} != {1})
    file.write_bytes(buffer.getvalue().encode())
    found = read(file, {}, **TEXT, separator=separator).frame()
    assert list(zip(found["id"], found["name"])) == content


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["csv", "tab", "colons", "letters"])
def test_blank_lines_count_as_rows_and_are_no_rows(file, name, mark, end):
    separator = FILES[name].get("separator", ",")
    lines = [separator.join(row) for row in (["1", "2", "3"], [], ["4", "5", "6"], ["  "], [])]
    file.write_bytes((mark + written(name, lines).replace("\n", end)).encode())
    reading = read(file, KINDS, **FILES[name])
    first = 1 if FILES[name].get("names") else 2
    assert reading.frame()["a"].tolist() == [1, 4]
    assert [reading.row(at) for at in (0, 1)] == [first, first + 2]


def test_columns_are_found_by_name_in_any_order_among_others(file):
    file.write_text("more,R, B,A \nx,1.5,2,3\n")
    assert read(file, KINDS, **FILES["csv"]).frame().to_numpy().tolist() == [[3, 2, 1.5]]


def test_texts_keep_quotes_commas_line_ends_and_emptiness(file):
    file.write_bytes(b'id,name\n1,"a ""b"", c"\n2,"two\nlines"\n3,\n4,NA\n')
    reading = read(file, {"id": "whole"}, **TEXT)
    table = reading.frame()
    assert dict(zip(table["id"], table["name"])) == {1: 'a "b", c', 2: "two\nlines", 3: "", 4: "NA"}
    assert [reading.row(at) for at in range(4)] == [2, 3, 4, 5]


def test_names_of_several_lines(file):
    file.write_bytes(b'id,name,"more\nor less"\n1,a,b\n2,c,"d\ne"\n')
    assert read(file, {}, **TEXT).frame()["name"].tolist() == ["a", "c"]


def test_a_column_may_have_any_name(tmp_path):
    """Quotation marks in it, case alone that differs, and DuckDB's own words."""
    names = ['a "b"', "brand", "Brand", "rowid", "select"]
    frame = pd.DataFrame([["1", "2", "3", "4", "5"]], columns=names)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.drop(columns="Brand").to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    columns = {name: name for name in names}
    found = read(tmp_path / "t.csv", {"rowid": "id", "select": "number"}, columns=columns).frame()
    assert list(found) == names and found.iloc[0].tolist() == ["1", "2", "3", "4", 5.0]
    del columns["Brand"]
    found = read(tmp_path / "t.jsonl", {}, columns=columns).frame()
    assert found.iloc[0].tolist() == ["1", "2", "4", "5"]


def test_a_row_may_lack_what_nobody_asked_for(file):
    file.write_text("A,B,R,note\n1,2,3\n4,5,6,x\n7,8\n")
    with pytest.raises(TfrecError, match=r"^t\.csv, row 4: expected 4 fields, found 2\."):
        read(file, KINDS, **FILES["csv"])
    file.write_text("A,B,R,note\n1,2,3\n4,5,6,x\n")
    assert read(file, KINDS, **FILES["csv"]).frame()["a"].tolist() == [1, 4]


def test_skipped_rows_are_counted_and_the_others_keep_their_numbers(file):
    file.write_text("A,B,R\n1,1,x\n2,2,2,2\n\n3,3,3\n4\n5,5,5\n6,6,6\n")
    notes: list[str] = []
    reading = read(file, KINDS, **FILES["csv"], skip_bad=True, notes=notes)
    table = reading.frame()
    assert [reading.row(at) for at in table.index] == [5, 7, 8]
    assert table["a"].tolist() == [3, 5, 6]
    assert notes == [
        "t.csv: skipped 3 rows (number of fields 1, column B 1, column R 1); the first: row 2, "
        'column R: "x" is not a number.'
    ]


def test_more_malformed_rows_than_others_are_not_skipped(file):
    file.write_text("A,B,R\n1,1,x\n2,2,2\n3,3,y\n")
    with pytest.raises(TfrecError) as error:
        read(file, KINDS, **FILES["csv"], skip_bad=True)
    assert str(error.value) == (
        "t.csv: 2 of 3 rows are malformed, more than half, so they are not skipped. Is it the "
        'right file, separator and quoting? The first: row 2, column R: "x" is not a number.'
    )


def test_messages_quote_no_line_ends_and_no_endless_text(file):
    file.write_text('id,name\n"1\n2",x\n')
    with pytest.raises(TfrecError, match=r'^t\.csv, row 2, column id: "1 2" is not a whole number'):
        read(file, {"id": "whole"}, **TEXT)
    file.write_text(f"id,name\n{'y' * 5000},x\n")
    with pytest.raises(TfrecError) as error:
        read(file, {"id": "whole"}, **TEXT)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("quote", ["", '"'])
def test_an_id_with_a_nul_is_told_with_file_row_and_column(tmp_path, quote):
    columns = {"user": "user", "product": "product"}
    kinds = {"user": "id", "product": "id"}
    (tmp_path / "r.csv").write_bytes(f"user,product\na,1\n{quote}a\0{quote},2\n".encode())
    pd.DataFrame({"user": ["a", "a\0"], "product": ["1", "2"]}).to_parquet(tmp_path / "r.parquet")
    for name, row in (("r.csv", 3), ("r.parquet", 2)):
        with pytest.raises(
            TfrecError, match=rf"^{name}, row {row}, column user: .*holds a NUL, which no id may\."
        ):
            read(tmp_path / name, kinds, columns=columns)


# Times


SECONDS = [1_500_000_000, 1_500_003_600]
TIMES = {
    "seconds": (["1500000000", "1500003600"], ""),
    "fractions": (["1500000000.25", "1500003600.75"], ""),
    "milliseconds": (["1500000000000", "1500003600000"], ""),
    "microseconds": (["1500000000000000", "1500003600000000"], ""),
    "nanoseconds": (["1500000000000000000", "1500003600000000000"], ""),
    "ISO with a zone": (["2017-07-14T02:40:00Z", "2017-07-14T05:40:00+02:00"], ""),
    "ISO without one": (["2017-07-14 02:40:00", "2017-07-14T03:40:00.5"], ""),
    "a format": (["14.07.2017 02:40", "14.07.2017 03:40"], "%d.%m.%Y %H:%M"),
}


@pytest.mark.parametrize("form", TIMES)
@pytest.mark.parametrize("end", ["csv", "jsonl"])
def test_times_are_told_apart_by_what_they_are(tmp_path, form, end):
    times, time_format = TIMES[form]
    path = tmp_path / f"t.{end}"
    if end == "csv":
        path.write_text("t\n" + "\n".join(times) + "\n")
    else:
        path.write_text("".join(json.dumps({"t": time}) + "\n" for time in times))
    notes: list[str] = []
    how = {"columns": {"t": "t"}, "time_format": time_format, "notes": notes}
    assert read(path, {"t": "time"}, **how).frame()["t"].tolist() == SECONDS
    assert notes == (
        [f"t.{end}: times are in {form}"]
        if form.endswith("oseconds") or form.startswith("milli")
        else []
    )


def test_dates_in_digits_are_not_taken_for_seconds_without_a_word(file):
    file.write_text("t\n20171102\n20180101\n")
    notes: list[str] = []
    read(file, {"t": "time"}, columns={"t": "t"}, notes=notes)
    assert notes == [
        "t.csv: all times are in 1970 or soon after, none later than 1970-08-22. Are they seconds "
        "since 1970? --timestamp_format=%Y%m%d reads dates such as 20171102"
    ]
    how = {"columns": {"t": "t"}, "time_format": "%Y%m%d"}
    found = read(file, {"t": "time"}, **how).frame()["t"]
    assert found.tolist() == [1_509_580_800, 1_514_764_800]


def test_dates_of_parquet(tmp_path):
    times = pd.to_datetime(SECONDS, unit="s")
    for name, column in {
        "plain": times,
        "zone": times.tz_localize("UTC").tz_convert("Asia/Tokyo"),
        "date": times.date,
    }.items():
        pd.DataFrame({"t": column}).to_parquet(tmp_path / name)
        found = read(tmp_path / name, {"t": "time"}, columns={"t": "t"}).frame()["t"].tolist()
        assert found == ([1_499_990_400] * 2 if name == "date" else SECONDS)


# Forms of files


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("latin-1", "é"), ("windows-1252", "€"), ("utf-16", "é€"), ("utf8", "é€")],
)
def test_other_encodings(file, encoding, name):
    file.write_bytes(f"id,name\n1,{name}\n".encode(encoding))
    assert read(file, {}, **TEXT, encoding=encoding).frame()["name"].tolist() == [name]


def test_backslashes_and_marks_that_are_letters(file):
    file.write_text('id,name\n1,"say \\"no\\""\n')
    assert read(file, {}, **TEXT, quoting="backslash").frame()["name"].tolist() == ['say "no"']
    file.write_text('id,name\n1,"Slim" Jones\n2,12"\n')
    found = read(file, {}, **TEXT, quoting="none").frame()["name"].tolist()
    assert found == ['"Slim" Jones', '12"']


def test_what_a_quotation_mark_would_swallow_stays(file):
    """Rows 3 to 5 look like one field between two marks."""
    file.write_text('id\tname\n1\ta\n2\t"Heroes\n3\tb\n4\t12"\n5\tc\n')
    notes: list[str] = []
    found = read(file, {}, **TEXT, separator="\t", skip_bad=True, notes=notes).frame()
    assert found["id"].tolist() == ["1", "3", "4", "5"] and found["name"][2] == '12"'
    assert notes == [
        "t.csv: skipped 1 row; the first: row 3: a quotation mark opens a field of 3 lines, each "
        "of which is a row without it. Is it a letter? (--quoting=none)"
    ]


def test_a_field_of_any_length(file):
    file.write_text(f"id,name,more\n1,{'x' * 3_000_000},{'y' * 3_000_000}\n2,b,c\n")
    assert read(file, {}, **TEXT).frame()["name"].str.len().tolist() == [3_000_000, 1]


def test_a_name_is_no_pattern(tmp_path):
    for name in ("[a]*?.csv", "it's.csv"):
        path = tmp_path / name
        path.write_text('id,name\n1,"a\nb"\n')
        assert read(path, {}, **TEXT).frame()["name"].tolist() == ["a\nb"]
    pd.DataFrame({"id": [1], "name": ["a"]}).to_parquet(tmp_path / "[b].parquet")
    assert len(read(tmp_path / "[b].parquet", {}, **TEXT)) == 1


def test_gzip_and_zstd(tmp_path):
    text = "id,name\n1,é\n\n2,b\n"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    con = duckdb.connect()
    con.execute(
        "COPY (SELECT unnest(['id,name', '1,é', '', '2,b'])) TO "
        f"'{tmp_path}/t.csv.zst' (HEADER false, COMPRESSION zstd, QUOTE '', DELIMITER '|')"
    )
    for name in ("t.csv.gz", "t.csv.zst"):
        reading = read(tmp_path / name, {}, **TEXT)
        assert reading.frame()["name"].tolist() == ["é", "b"] and reading.row(1) == 4


def test_json_lines(tmp_path):
    lines = [
        {"id": 1, "name": "a", "tags": ["x", "y"]},
        {"id": 2, "name": None, "tags": "x|z"},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "no json\n")
    columns = {"id": "id", "name": "name", "tags": "tags"}
    kinds = {"id": "id", "tags": "items"}
    with pytest.raises(TfrecError, match=r"^t\.jsonl, row 3, column id: the value is missing\."):
        read(path, kinds, columns=columns)
    table = read(path, kinds, columns=columns, skip_bad=True).frame()
    assert table["id"].tolist() == ["1", "2"] and table["name"].tolist() == ["a", ""]
    assert table["tags"].tolist() == [["x", "y"], ["x", "z"]]


def test_ids_of_every_type_of_parquet(tmp_path):
    """An unsigned hash keeps its value, and bytes are text."""
    large = np.array([2**63 + 1, 5], np.uint64)
    frame = pd.DataFrame({"hash": large, "bytes": [b"u1", b"u2"], "float": [1.0, 2.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    names = {name: name for name in frame}
    reading = read(tmp_path / "t.parquet", dict.fromkeys(names, "id"), columns=names)
    table = reading.frame()
    assert table["hash"].tolist() == ["9223372036854775809", "5"]
    assert table["bytes"].tolist() == ["u1", "u2"] and reading.texts == {"bytes"}
    assert table["float"].tolist() == ["1.0", "2.0"]


def test_truth_values_are_one_and_zero_in_every_form(tmp_path):
    frame = pd.DataFrame({"r": [True, False]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        found = read(tmp_path / name, {"r": "number"}, columns={"r": "r"}).frame()
        assert found["r"].tolist() == [1, 0]


def test_a_folder_of_parts_is_read_as_one_file(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    lines = own.RATINGS.splitlines(keepends=True)
    (folder / "part-0.csv").write_text("".join(lines[:3]))
    (folder / "part-1.csv").write_text(lines[0] + "".join(lines[3:]))
    (folder / "_SUCCESS").touch()
    for named in (folder, folder / "part-*.csv"):
        dataset = own.load(tmp_path, interactions=str(named))
        assert own.rows(dataset) == own.expected()


def test_repeated_rows_of_several_files_name_their_file(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(
            "user,product\nu1,p1\nu2,p2\n"[: 19 if name == "b" else 99]
        )
    with pytest.raises(TfrecError, match=r"^b\.csv, row 2: user u1 and product p1 stand in an"):
        own.load(tmp_path, interactions=f"{tmp_path}/*.csv", duplicates="error", task="ranking")


def test_an_encoding_that_there_is_not():
    with pytest.raises(UsageError, match=r"^--encoding=utf-99: there is no such encoding\."):
        own.config(Path("x"), encoding="utf-99")
