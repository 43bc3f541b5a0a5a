import os
import signal

import pytest

from tfrec.errors import TfrecError
from tfrec.system import stopping


def test_sigterm_is_noted_and_then_handled_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.deferred() as request:
        assert not request.made
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.made
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_at_once_passes_by_those_who_catch_failures():
    with pytest.raises(stopping.Terminated), stopping.immediate():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except (Exception, TfrecError) as error:
            raise AssertionError("caught") from error
