"""No test leaves a cluster running."""

from collections.abc import Iterator

import pytest

from tests.end_to_end import clusters


@pytest.fixture(autouse=True)
def nobody_stays() -> Iterator[None]:
    yield
    clusters.end_all()
