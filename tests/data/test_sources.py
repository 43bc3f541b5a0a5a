"""Every MovieLens layout, every kind of broken file, and the download against a server on this
machine.
"""

import hashlib
import http.server
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.data import editions
from tfrec.data import sources
from tfrec.data.sources import movielens as movielens_source
from tfrec.errors import TfrecError
from tfrec.experiments.config import make_config

# Layouts


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", editions.NAMES)
def test_every_edition_gives_the_same_tables(tmp_path, name, packed):
    tables = editions.read(editions.write(tmp_path, name, packed), name)
    expected = editions.expected_ratings()
    pd.testing.assert_frame_equal(tables.rows.frame(), expected, check_index_type=False)
    products = tables.products
    assert {id: (row.title, row.genres) for id, row in products.iterrows()} == editions.PRODUCTS
    assert list(products.index) == list(editions.PRODUCTS)  # in the file's order
    assert list(products.name) == [
        "Léon: The Professional",
        'Amour, dit "la suite": Épisode 2',
        "Sans année",
        "Blade Runner",
    ]
    np.testing.assert_array_equal(products.year, [1994, 2012, np.nan, 1982])
    assert list(products.old) == [True, False, False, True]
    assert tables.notes == []


@pytest.mark.parametrize("name", editions.NAMES)
def test_users_have_age_bucket_gender_and_occupation_where_the_data_has_them(tmp_path, name):
    users = editions.read(editions.write(tmp_path, name), name).users
    if name not in ("100k", "1m"):
        assert users is None
        return
    buckets = {4: "18-24", 9: "56+", 11: "under 18"}
    assert {id: tuple(row) for id, row in users.iterrows()} == {
        id: (buckets[id], gender, occupation)
        for id, (_, gender, occupation) in editions.USERS.items()
    }


def test_data_dir_may_be_the_folder_around_the_zip_or_around_the_folder(tmp_path):
    editions.write(tmp_path, "1m", packed=True)
    assert len(editions.read(tmp_path, "1m").rows.frame()) == len(editions.RATINGS)
    (tmp_path / "ml-1m.zip").unlink()
    editions.write(tmp_path, "1m")
    assert len(editions.read(tmp_path, "1m").rows.frame()) == len(editions.RATINGS)


def test_the_files_split_numbers_the_parts(tmp_path):
    folder = editions.write(tmp_path, "100k")
    for file, rows in (
        ("u1.base", editions.RATINGS[:3]),
        ("u1.test", editions.RATINGS[3:4]),
        ("u1.valid", editions.RATINGS[4:]),
    ):
        (tmp_path / file).write_text("\n".join(editions.ratings("\t", rows)))
    files = {"train_file": "u1.base", "test_file": "u1.test", "validation_file": "u1.valid"}
    rows = editions.read(
        folder, "100k", split="files", **{key: str(tmp_path / file) for key, file in files.items()}
    ).rows
    table = rows.frame().assign(**rows.columns(["part"]))
    columns = ["user", "product", "rating", "timestamp"]
    assert {
        part: [tuple(row) for row in rows.to_numpy().tolist()]
        for part, rows in table.groupby("part")[columns]
    } == {
        0: editions.RATINGS[:3],
        1: editions.RATINGS[4:],
        2: editions.RATINGS[3:4],
    }


def test_the_builtin_data_set(movielens):
    products, ratings = movielens.tables.products, movielens.tables.rows.frame()
    assert (ratings["user"].nunique(), len(products), len(ratings)) == (610, 9742, 100836)
    assert int((products.genres.map(len) == 0).sum()) == 34
    without_year = products.year.isna()
    assert int(without_year.sum()) == 13
    assert not products.old[without_year].any()
    assert products.old.equals(products.year < 2000)
    assert movielens.tables.notes == []
    path = movielens_source._locate(make_config().data, "movies.csv", []) / "movies.csv"
    assert list(products.index) == pd.read_csv(path.open("rb")).movieId.tolist()


# Broken files


def line(number: int, new: str | bytes | None):
    """An edit of a file.

    Line `number` (from 1) replaced, or left out; a number past the end adds one.
    """

    def edit(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        text = new.encode() if isinstance(new, str) else new
        lines[number - 1 : number] = [] if text is None else [text + b"\n"]
        return b"".join(lines)

    return edit


def cells(old: bytes, new: bytes):
    """An edit of a file: text that must be there replaced everywhere."""

    def edit(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    return edit


def all_of(*edits):
    def edit(content: bytes) -> bytes:
        for each in edits:
            content = each(content)
        return content

    return edit


def marked(content: bytes) -> bytes:
    return "\ufeff".encode() + content


NUMBER, WHOLE, MISSING = "is not a number.", "is not a whole number.", "the value is missing."
X = f', column rating: "x" {NUMBER}'
# one malformed row, which may be skipped: (edition, file, edit, row, what the message says of it)
ROWS = {
    "text in a number column": (
        "latest",
        "ratings.csv",
        line(3, "9,2,good,964982931"),
        3,
        f', column rating: "good" {NUMBER}',
    ),
    "text as an id": (
        "latest",
        "ratings.csv",
        line(3, "u9,2,1.0,964982931"),
        3,
        f', column userId: "u9" {WHOLE}',
    ),
    "half a product id": (
        "latest",
        "ratings.csv",
        line(3, "9,2.5,1.0,964982931"),
        3,
        f', column movieId: "2.5" {WHOLE}',
    ),
    "quoted decimal comma": (
        "latest",
        "ratings.csv",
        line(3, '9,2,"4,5",1'),
        3,
        f', column rating: "4,5" {NUMBER} Is the',
    ),
    "decimal comma": (
        "latest",
        "ratings.csv",
        line(3, "9,2,4,5,964982931"),
        3,
        ": expected 4 fields, found 5. Is the",
    ),
    "decimal comma in the first row": (
        "latest",
        "ratings.csv",
        line(2, "9,2,4,5,9"),
        2,
        ": expected 4 fields, found 5. Is the",
    ),
    "decimal comma between tabs": (
        "100k",
        "u.data",
        line(2, "9\t2\t4,5\t96"),
        2,
        f', column rating: "4,5" {NUMBER} Is the',
    ),
    "missing rating": (
        "latest",
        "ratings.csv",
        line(4, "4,7,,1445714835"),
        4,
        f", column rating: {MISSING}",
    ),
    "missing user": (
        "1m",
        "ratings.dat",
        line(1, "::31::4::964982703"),
        1,
        f", column user: {MISSING}",
    ),
    "missing timestamp": (
        "100k",
        "u.data",
        line(5, "4\t31\t2\t"),
        5,
        f", column timestamp: {MISSING}",
    ),
    "infinite rating": (
        "latest",
        "ratings.csv",
        line(6, "4,31,inf,0"),
        6,
        f', column rating: "inf" {NUMBER}',
    ),
    "NaN rating": (
        "10m",
        "ratings.dat",
        line(1, "9::31::NaN::964982703"),
        1,
        f', column rating: "NaN" {NUMBER}',
    ),
    "overflowing rating": (
        "latest",
        "ratings.csv",
        line(6, "4,31,1e99,0"),
        6,
        f', column rating: "1e99" {NUMBER}',
    ),
    "milliseconds": (
        "latest",
        "ratings.csv",
        line(2, "9,31,4,964982703000"),
        2,
        ', column timestamp: "964982703000" is not a time',
    ),
    "too many fields between tabs": (
        "100k",
        "u.data",
        line(1, "9\t31\t4\t9\t0"),
        1,
        ": expected 4 fields, found 5.",
    ),
    "too many fields between colons": (
        "1m",
        "ratings.dat",
        line(2, "9::2::1::9::0"),
        2,
        ": expected 4 fields, found 5.",
    ),
    "something in between the colons": (
        "1m",
        "ratings.dat",
        line(2, "9:8:2::1::9"),
        2,
        ": expected 4 fields, found 3.",
    ),
    "too few fields": (
        "latest",
        "ratings.csv",
        line(6, "4,31,2.0"),
        6,
        ": expected 4 fields, found 3.",
    ),
    "too few fields between colons": (
        "10m",
        "ratings.dat",
        line(2, "9::2"),
        2,
        ": expected 4 fields, found 2.",
    ),
    "no genre field": (
        "latest",
        "movies.csv",
        line(5, "31,Blade Runner (1982)"),
        5,
        ": expected 3 fields, found 2.",
    ),
    "comma in an unquoted title": (
        "latest",
        "movies.csv",
        line(5, "31,Runner, Blade,Sci-Fi"),
        5,
        ": expected 3 fields, found 4. Is the",
    ),
    "genre flag that is text": (
        "100k",
        "u.item",
        cells(b"Runner (Final Cut) (1982)|01-Jan-1994||h", b"|||h|x"),
        4,
        "",
    ),
    "age that is text": (
        "100k",
        "u.user",
        line(2, "9|young|M|writer|0"),
        2,
        f', column age: "young" {WHOLE}',
    ),
    "too few fields of a user": (
        "1m",
        "users.dat",
        line(2, "9::F::56"),
        2,
        ": expected 5 fields, found 3.",
    ),
    "wrong encoding": (
        "latest",
        "movies.csv",
        cells("année".encode(), b"ann\xe9e"),
        4,
        ", column title: bytes that are not utf-8.",
    ),
    "wrong encoding of numbers": (
        "latest",
        "ratings.csv",
        line(2, b"9,31,4\xe9,9"),
        2,
        ", column rating: bytes that are not utf-8.",
    ),
    "open quotation mark": (
        "latest",
        "movies.csv",
        line(3, '2,"Amour,Drama'),
        3,
        ": is a quotation mark missing",
    ),
    "duplicate product id": (
        "latest",
        "movies.csv",
        line(6, "31,Again,Drama"),
        6,
        ", column movieId: 31 stands there twice.",
    ),
    "duplicate user id": (
        "100k",
        "u.user",
        line(4, "4|30|F|writer|0"),
        4,
        ", column user: 4 stands there twice.",
    ),
    "unknown product": (
        "latest",
        "ratings.csv",
        line(3, "9,77,1.0,964982931"),
        3,
        ", column movieId: 77 is not in movies.csv.",
    ),
    "unknown user": (
        "1m",
        "ratings.dat",
        line(3, "5::7::5::1445714835"),
        3,
        ", column user: 5 is not in users.dat.",
    ),
    "after blank lines": ("latest", "ratings.csv", all_of(line(3, "\n\n9,2,x,0")), 5, X),
    "after Windows' line ends": (
        "latest",
        "ratings.csv",
        all_of(line(3, "9,2,x,0"), cells(b"\n", b"\r\n")),
        3,
        X,
    ),
    "after a byte order mark": ("latest", "ratings.csv", all_of(line(3, "9,2,x,0"), marked), 3, X),
}
FILES = {  # a file that is no use at all: (edition, file, edit, what the message begins with)
    "empty": (
        "latest",
        "ratings.csv",
        lambda _: b"",
        "ratings.csv, row 1: the file, or its first row, is empty.",
    ),
    "empty without header": (
        "1m",
        "ratings.dat",
        lambda _: b"",
        "ratings.dat: the file holds no rows.",
    ),
    "blank lines only": ("100k", "u.data", lambda _: b"\n\n", "u.data: the file holds no rows."),
    "header only": (
        "latest",
        "ratings.csv",
        lambda text: text.splitlines()[0],
        "ratings.csv: the file holds no rows.",
    ),
    "no header": (
        "latest",
        "ratings.csv",
        line(1, None),
        "ratings.csv, row 1: no column userId among",
    ),
    "missing column": (
        "latest",
        "ratings.csv",
        cells(b"rating,", b""),
        "ratings.csv, row 1: no column rating among",
    ),
    "misspelt column": (
        "latest",
        "movies.csv",
        cells(b"genres", b"genre"),
        "movies.csv, row 1: no column genres among",
    ),
    "semicolons": (
        "latest",
        "ratings.csv",
        cells(b",", b";"),
        "ratings.csv, row 1: no column userId among",
    ),
    "UTF-16": (
        "latest",
        "movies.csv",
        lambda text: text.decode().encode("utf-16"),
        "movies.csv, row 1: bytes that are not utf-8.",
    ),
}


def broken(tmp_path: Path, edition: str, file: str, edit) -> Path:
    folder = editions.write(tmp_path, edition)
    (folder / file).write_bytes(edit((folder / file).read_bytes()))
    return folder


def complaint(run, *args, **settings) -> str:
    """The one line that the call ends in."""
    with pytest.raises(TfrecError) as error:
        run(*args, **settings)
    text = str(error.value)
    assert "\n" not in text
    assert text.rstrip()[-1] in ".?)"
    text.encode()  # can be printed
    return text


@pytest.mark.parametrize("case", ROWS)
def test_a_malformed_row_ends_in_one_line_that_names_it(tmp_path, case):
    edition, file, edit, row, what = ROWS[case]
    text = complaint(editions.read, broken(tmp_path, edition, file, edit), edition)
    assert text.startswith(f"{file}, row {row}{what}")
    assert text.endswith("Mend the file, or skip such rows with --on_bad_rows=skip.")


@pytest.mark.parametrize("case", ROWS)
def test_a_malformed_row_can_be_skipped_and_is_reported(tmp_path, case):
    edition, file, edit, row, what = ROWS[case]
    tables = editions.read(broken(tmp_path, edition, file, edit), edition, on_bad_rows="skip")
    assert tables.notes[0].startswith(f"{file}: skipped 1 row; the first: row {row}{what}")
    good = editions.expected_ratings()
    good = good[good["product"].isin(tables.products.index)]
    if tables.users is not None:
        good = good[good["user"].isin(tables.users.index)]
    lines = editions.edition(edition)[file].count(b"\n")
    if file in ("ratings.csv", "ratings.dat", "u.data"):
        first = 2 if edition in editions.CSV else 1
        good = good.drop({"after blank lines": 3}.get(case, row) - first)
        assert len(tables.notes) == 1
    elif row <= lines:  # the row of a product or user is gone, and its ratings with it
        assert len(tables.rows.frame()) < len(editions.RATINGS)
        assert "is not in" in tables.notes[1]
    pd.testing.assert_frame_equal(
        tables.rows.frame().reset_index(drop=True), good.reset_index(drop=True)
    )


@pytest.mark.parametrize("case", FILES)
def test_a_useless_file_ends_in_one_line(tmp_path, case):
    edition, file, edit, start = FILES[case]
    folder = broken(tmp_path, edition, file, edit)
    assert complaint(editions.read, folder, edition).startswith(start)
    assert complaint(editions.read, folder, edition, on_bad_rows="skip").startswith(start)


def test_a_misspelt_column_is_named(tmp_path):
    folder = broken(tmp_path, "latest", "movies.csv", cells(b"genres", b"genre"))
    assert complaint(editions.read, folder).endswith("Did you mean genre?")


def test_a_missing_folder_or_file_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in complaint(editions.read, tmp_path / "nowhere")
    folder = editions.write(tmp_path, "1m")
    assert "there is no movies.csv in it. Is --dataset" in complaint(
        editions.read, folder, "latest"
    )
    (folder / "ratings.dat").unlink()
    assert f"{folder / 'ratings.dat'}: there is no such file." in complaint(
        editions.read, folder, "1m"
    )
    files = {"split": "files", "train_file": "u1.base", "test_file": "u1.test"}
    assert complaint(editions.read, editions.write(tmp_path, "100k"), "100k", **files).startswith(
        "u1.base: there is no such file."
    )


def test_broken_zips_are_named(tmp_path):
    path = editions.write(tmp_path, "latest", packed=True)
    whole = path.read_bytes()
    path.write_bytes(
        whole[: len(whole) // 2]
    )  # a download that was cut off: the directory at the end is missing
    assert f"{path}: not a zip file, or a broken one." in complaint(editions.read, path)
    path.write_bytes(b"<html>not found</html>")
    assert f"{path}: not a zip file, or a broken one." in complaint(editions.read, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-latest/README.txt", "hello")
    assert f"{path}: there is no movies.csv in it." in complaint(editions.read, path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_damaged_content_is_named(tmp_path, method):
    path = tmp_path / "ml-latest.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file, content in editions.edition("latest").items():
            archive.writestr(file, content)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("ratings.csv").header_offset + 30 + len("ratings.csv")
    content[start + 20 : start + 50] = b"\0" * 30
    path.write_bytes(content)
    assert complaint(editions.read, path).startswith("ratings.csv: cannot be read (")


def test_products_without_genre_field_go_with_their_ratings(tmp_path):
    folder = broken(tmp_path, "latest", "movies.csv", cells(b",Action|Sci-Fi", b","))
    tables = editions.read(folder)
    assert 31 not in tables.products.index
    assert tables.rows.frame()["product"].tolist() == [2, 7, 30]
    assert tables.notes == [
        "movies.csv: left out 1 products whose genre field is empty",
        "ratings.csv: left out 2 ratings of products whose genre field is empty",
    ]


# Download


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine that has ml-latest.zip and nothing else, in the place of
    GroupLens' one; TFDS keeps its files in tmp_path/tfds. `served` counts the answers.
    """
    import tensorflow_datasets as tfds

    archive = editions.write(tmp_path, "latest", packed=True).read_bytes()
    served = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served.append(self.path)
            found = self.path == "/ml-latest.zip"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(archive) if found else 0))
            self.end_headers()
            self.wfile.write(archive if found else b"")

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{web.server_port}/ml-{{}}.zip"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(movielens_source, "URL", url)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    yield SimpleNamespace(
        url=url, archive=archive, served=served, known=tfds.builder_cls("movielens").url_infos
    )
    web.shutdown()
    web.server_close()
    thread.join()


def download(dataset: str) -> sources.Tables:
    return sources.read(make_config(dataset=dataset).data)


def test_a_download_is_read_noted_with_its_digest_and_kept(server):
    first, second = download("latest"), download("latest")
    digest = hashlib.sha256(server.archive).hexdigest()
    for tables in (first, second):
        pd.testing.assert_frame_equal(
            tables.rows.frame(), editions.expected_ratings(), check_index_type=False
        )
        assert tables.notes == [
            f"{server.url.format('latest')}: TFDS knows no checksum; sha256 of this copy: {digest}"
        ]
    assert server.served == ["/ml-latest.zip"]


def test_a_download_with_the_checksum_that_tfds_knows_needs_no_note(server, monkeypatch):
    monkeypatch.setitem(server.known, server.url.format("latest"), checksum_of(server.archive))
    assert download("latest").notes == []


def test_a_download_with_another_checksum_is_refused(server, monkeypatch):
    monkeypatch.setitem(
        server.known, server.url.format("latest"), checksum_of(server.archive + b"?")
    )
    assert "the download failed (its checksum is not the one that TFDS has)." in complaint(
        download, "latest"
    )


def test_tfds_knows_the_checksums_of_the_real_addresses():
    import tensorflow_datasets as tfds

    known = tfds.builder_cls("movielens").url_infos
    assert {name for name in editions.NAMES if movielens_source.URL.format(name) in known} == {
        "100k",
        "1m",
        "20m",
        "25m",
        "latest-small",
    }


def test_a_failed_download_ends_in_one_line(server, monkeypatch):
    text = complaint(download, "20m")
    assert text.startswith(f"{server.url.format('20m')}: the download failed (")
    assert "404" in text and text.endswith("Download it by hand and pass --data_dir=FILE.zip.")
    monkeypatch.setattr(
        movielens_source, "URL", "http://127.0.0.1:9/ml-{}.zip"
    )  # nobody listens there
    assert complaint(download, "20m").startswith(
        "http://127.0.0.1:9/ml-20m.zip: the download failed ("
    )


def checksum_of(content: bytes):
    from tensorflow_datasets.core.download import checksums

    return checksums.UrlInfo(
        size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename="ml-latest.zip"
    )
