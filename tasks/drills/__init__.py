"""Prove that archives restore: in a scratch folder, as a throw-away VM that touches nothing, judged by what it does."""
