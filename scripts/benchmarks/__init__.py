"""What tfrec's speed is measured by, beside Keras and other libraries.

Worlds, one file a suite, and the table of suites.
"""
