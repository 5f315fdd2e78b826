"""Gap analysis: contributions to the difference of a metric between validation and test, and a verdict."""
