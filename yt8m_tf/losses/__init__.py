"""Losses on logits, and the ranking losses among them."""
