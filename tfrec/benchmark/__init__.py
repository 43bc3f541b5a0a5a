"""What tfrec's speed is measured by, beside Keras and other libraries: worlds, one file a suite, and the table of suites."""
