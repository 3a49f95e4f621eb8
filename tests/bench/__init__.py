"""`make bench`: vmborg against the article's own commands, ratios measured in one run."""
