"""The two readers agree; what is a row, whatever the line ends and blank lines."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec.data import reader
from tfrec.data.careful import read_careful
from tfrec.data.layout import Layout
from tfrec.data.reader import File
from tfrec.errors import TfrecError

NUMBERS = {"a": "whole", "b": "whole", "r": "number"}
LAYOUTS = {
    "csv": Layout("t", {"A": "a", "B": "b", "R": "r"}, header=True),
    "tab": Layout("t", {"a": "a", "b": "b", "r": "r"}, separator="\t"),
    "colons": Layout("t", {"a": "a", "b": "b", "r": "r"}, separator="::"),
}
TEXT = Layout("t.csv", {"id": "id", "name": "name"}, header=True)

some = settings(max_examples=25, deadline=None)
integers = st.integers(-(10**17), 10**17)
rows = st.lists(
    st.tuples(integers, integers, st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=8
)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables") / "t.csv"


def frame(content: list[tuple], index: list[int]) -> pd.DataFrame:
    table = pd.DataFrame(content, columns=["a", "b", "r"]).astype(
        {"a": np.int64, "b": np.int64, "r": np.float32}
    )
    return table.set_axis(pd.Index(index, name="row"))


def same(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(table, expected, check_index_type=False, rtol=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
@some
@given(content=rows)
def test_both_readers_read_what_was_written(file, name, content):
    layout = LAYOUTS[name]
    lines = [layout.separator.join(map(repr, row)) for row in content]
    file.write_text("\n".join([*["A,B,R"] * layout.header, *lines]))
    expected = frame(content, list(range(1 + layout.header, 1 + layout.header + len(content))))
    same(reader._fast(file, layout, NUMBERS), expected)
    careful, problems = read_careful(file, layout, NUMBERS)
    same(careful, expected)
    assert not problems


fields = st.sampled_from(
    [
        "1",
        "-2",
        "5.0",
        "1e18",
        "7.5",
        "+3",
        "4.5",
        "",
        " ",
        " 6 ",
        "x",
        "7,5",
        "nan",
        "inf",
        "1e3",
        "1_0",
        "0x1",
        "٣",
        "1e40",
        "9" * 25,
        "True",
        '"',
    ]
)


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=100, deadline=None)
@given(content=st.lists(st.lists(fields, min_size=0, max_size=5), max_size=4))
def test_the_fast_reader_takes_nothing_that_the_careful_one_refuses(file, name, content):
    layout = LAYOUTS[name]
    file.write_text(
        "\n".join(
            [*["A,B,R"] * layout.header, *(layout.separator.join(row) for row in content), ""]
        )
    )
    fast = reader._fast(file, layout, NUMBERS)
    try:
        careful, problems = read_careful(file, layout, NUMBERS)
    except TfrecError:  # a stray quotation mark
        assert fast is None
        return
    if fast is not None:
        assert not problems
        same(careful, fast)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_blank_lines_count_as_rows_and_are_no_rows(file, name, mark, end):
    layout = LAYOUTS[name]
    lines = [
        *["A,B,R"] * layout.header,
        *(layout.separator.join(row) for row in (["1", "2", "3"], [], ["4", "5", "6"], ["  "], [])),
    ]
    file.write_bytes((mark + end.join(lines)).encode())
    first = 1 + layout.header
    same(
        reader.read_file(File(file, layout, False, []), NUMBERS),
        frame([(1, 2, 3), (4, 5, 6)], [first, first + 2]),
    )


def test_columns_are_found_by_name_in_any_order_among_others(file):
    file.write_text("more,R,B,A\nx,1.5,2,3\n")
    same(
        reader.read_file(File(file, LAYOUTS["csv"], False, []), NUMBERS), frame([(3, 2, 1.5)], [2])
    )


def test_texts_keep_quotes_commas_line_ends_and_emptiness(file):
    file.write_bytes(b'id,name\n1,"a ""b"", c"\n2,"two\nlines"\n3,\n4,NA\n')
    table = reader.read_file(File(file, TEXT, False, []), {"id": "whole"})
    assert dict(zip(table["id"], table["name"])) == {1: 'a "b", c', 2: "two\nlines", 3: "", 4: "NA"}
    assert list(table.index) == [2, 3, 4, 5]


def test_skipped_rows_are_counted_and_the_others_keep_their_numbers(file):
    file.write_text("A,B,R\n1,1,x\n2,2,2,2\n\n3,3,3\n4\n5,5,5\n")
    notes: list[str] = []
    same(
        reader.read_file(File(file, LAYOUTS["csv"], True, notes), NUMBERS),
        frame([(3, 3, 3), (5, 5, 5)], [5, 7]),
    )
    assert notes == ['t.csv: skipped 3 rows; the first: row 2, column R: "x" is not a number.']


def test_a_file_of_which_nothing_is_left_is_an_error(file):
    file.write_text("A,B,R\n1,1,x\n")
    with pytest.raises(TfrecError, match="holds no rows"):
        reader.read_file(File(file, LAYOUTS["csv"], True, []), NUMBERS)


def test_messages_quote_no_line_ends_and_no_endless_text(file):
    file.write_text('id,name\n"1\n2",x\n')
    with pytest.raises(TfrecError, match=r'^t\.csv, row 2, column id: "1 2" is not a whole number'):
        reader.read_file(File(file, TEXT, False, []), {"id": "whole"})
    file.write_text(f"id,name\n{'y' * 5000},x\n")
    with pytest.raises(TfrecError) as error:
        reader.read_file(File(file, TEXT, False, []), {"id": "whole"})
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("quote", ["", '"'])
def test_an_id_with_a_nul_is_told_with_file_row_and_column(tmp_path, quote):
    (tmp_path / "r.csv").write_bytes(f"user,product\na,1\n{quote}a\0{quote},2\n".encode())
    layout = Layout("r.csv", {"user": "user", "product": "product"}, header=True)
    with pytest.raises(
        TfrecError, match=r"^r\.csv, row 3, column user: .*holds a NUL, which no id may\."
    ):
        reader.read_file(
            File(tmp_path / "r.csv", layout, False, []), {"user": "id", "product": "id"}
        )
    pd.DataFrame({"user": ["a", "a\0"], "product": ["1", "2"]}).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(TfrecError, match=r"^r\.parquet, row 2, column user: .*holds a NUL"):
        reader.read_file(
            File(tmp_path / "r.parquet", layout, False, []), {"user": "id", "product": "id"}
        )
