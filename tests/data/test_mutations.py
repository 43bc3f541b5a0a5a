"""Mutated files are read as a plain reading does, or end in one line; no row is lost in silence.

The plain reading is that of Python's csv, or json, row by row.
"""

import contextlib
import csv
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest

from tfrec.data.dataset import read
from tfrec.errors import TfrecError

Rows = dict[tuple[str, str], float]  # {(user, product): rating of the latest row}

NAMES = ("user", "product", "rating", "timestamp")
ROWS = [
    ("u1", "p1", "4", "1500000000"),
    ("u1", "p 2", "3.5", "1500000100"),
    ("ü2", 'p"3', "1", "1500086400"),
    ("u2", "p,4", "5", "1500172800"),
    ("u3", "p1", "2e0", "1500000000"),
    ("007", "12", "-1", "1500000007"),
    ("8", "12.0", "0.5", "1500000008"),
]
PIECES = [
    *(b'"', b",", b";", b"\t", b"\n", b"\r\n", b"\r", b"\\", b" ", b"::", b"|", b"\0"),
    *(b"\xff", b"\xc3", "é".encode(), b"nan", b"inf", b"1e999", b"-", b".", b"_", b"true"),
    *(b'""', b"2017-11-02", b"u1,p1,4,1500000000\n", b'"a\nb"', b"#", b"'", b"NULL", b"{}"),
]


def written(form: str) -> bytes:
    """The rows in a form."""
    if form == "jsonl":
        lines = [json.dumps(dict(zip(NAMES, row)), ensure_ascii=False) for row in ROWS]
        return "".join(f"{line}\n" for line in lines).encode()
    buffer = io.StringIO()
    separator = {"csv": ",", "tsv": "\t", "semicolon": ";"}[form]
    csv.writer(buffer, delimiter=separator, lineterminator="\n").writerows([NAMES, *ROWS])
    return buffer.getvalue().encode()


def mutated(content: bytes, seed: int) -> bytes:
    """One or two changes of bytes, pieces or lines."""
    draw = random.Random(seed)
    for _ in range(draw.randint(1, 2)):
        at, end = sorted(draw.randint(0, len(content)) for _ in range(2))
        end = min(end, at + draw.randint(0, 12))
        change = draw.randrange(6)
        if change == 0:  # other bytes
            content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
        elif change == 1:  # some go
            content = content[:at] + content[end:]
        elif change == 2:  # truncated
            content = content[: max(at, 1)] if draw.random() < 0.3 else content
        elif change == 3:  # twice
            content = content[:end] + content[at:end] + content[end:]
        else:
            content = content[:at] + draw.choice(PIECES) + content[at:]
    return content


def plain(content: bytes, form: str) -> Rows:
    """Raises ValueError where a row is malformed."""
    text = content.decode("utf-8-sig", "surrogateescape")
    if form == "jsonl":
        rows = [_of_json(json.loads(line)) for line in text.split("\n") if line.strip()]
    else:
        separator = {"csv": ",", "tsv": "\t", "semicolon": ";"}[form]
        try:
            found = list(
                csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
            )
        except csv.Error as error:
            raise ValueError from error
        header = [name.strip() for name in found[0]]
        places = {name: header.index(name) for name in NAMES if name in header}
        kept = [row for row in found[1:] if "".join(row).strip()]
        rows = [{name: row[at] for name, at in places.items()} for row in kept]
    result: Rows = {}
    times: dict[tuple[str, str], float] = {}
    for row in rows:
        pair = tuple(row[side].strip(" \t\r\n\u00a0") for side in ("user", "product"))
        rating, when = float(row.get("rating", 1)), row.get("timestamp", "0")
        time = 0.0 if "-" in when else float(when)
        "".join(row.values()).encode()  # bytes that are not UTF-8 raise
        if not all(pair) or not np.isfinite(rating):
            raise ValueError
        if pair not in times or time >= times[pair]:
            result[pair], times[pair] = rating, time
    return result


def _of_json(row: dict) -> dict[str, str]:
    return {name: str(row[name]) for name in NAMES if name in row}


def check(path: Path, form: str, seed: int) -> bool:
    """Returns whether the file was read."""
    content = mutated(written(form), seed)
    path.write_bytes(content)
    how = {"tsv": {"separator": "tab"}, "semicolon": {"separator": ";"}}.get(form, {})
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            data = read(path, **how)
    except TfrecError as error:
        assert "\n" not in str(error) and len(str(error)) < 600, (seed, form, str(error))
        return False
    try:
        expected = plain(content, form)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise AssertionError(f"{form} {seed}: read what is malformed: {content!r}") from error
    ids, columns = data.catalog, data.columns
    users, products = ids.user_ids[columns["user"]], ids.product_ids[columns["product"]]
    found = dict(zip(zip(map(str, users), map(str, products)), columns["rating"].tolist()))
    whole = {
        side for side, of in (("u", ids.user_ids), ("p", ids.product_ids)) if of.dtype != object
    }
    expected = {
        (_id(user, "u" in whole), _id(product, "p" in whole)): rating
        for (user, product), rating in expected.items()
    }
    assert found.keys() == expected.keys(), (seed, form, content)
    np.testing.assert_allclose([found[key] for key in expected], list(expected.values()), rtol=1e-6)
    return True


def _id(text: str, whole: bool) -> str:
    return str(int(float(text))) if whole else text


FORMS = ("csv", "tsv", "semicolon", "jsonl")


def test_a_mutated_file_is_read_as_it_is_or_told_in_one_line(tmp_path):
    ends = [check(tmp_path / f"t.{form}", form, seed) for seed in range(75) for form in FORMS]
    assert 0.1 < np.mean(ends) < 0.9


@pytest.mark.cluster
def test_five_thousand_mutated_files(tmp_path):
    for seed in range(1_000, 2_250):
        for form in FORMS:
            check(tmp_path / f"t.{form}", form, seed)
