"""What tfrec's speed is measured by, beside Keras and other libraries.

Worlds, one file a suite, and the table of suites.
"""

from tfrec.system import quiet

quiet.import_tensorflow()  # also in the processes that measure
