"""Raw files -> tables -> Dataset -> rows -> batches."""
