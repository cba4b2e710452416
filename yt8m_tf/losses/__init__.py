"""Losses on logits, including ranking losses."""
