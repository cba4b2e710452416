"""Packing: selects trained models and their precisions for the best weighted mean within a byte budget."""
