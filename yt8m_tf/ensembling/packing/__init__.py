"""Packing: which of many trained models, and at which precision, make the best weighted mean within a byte budget."""
