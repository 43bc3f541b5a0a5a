import os
import signal

import pytest

from tfrec.errors import TfrecError
from tfrec.system import stopping


def test_sigterm_at_once_passes_by_those_who_catch_failures():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(stopping.Terminated), stopping.immediate():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except (Exception, TfrecError) as error:
            raise AssertionError("caught") from error
    assert signal.getsignal(signal.SIGTERM) is before
