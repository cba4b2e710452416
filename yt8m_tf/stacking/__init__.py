"""Stacking: LightGBM over the scores of several models, out of fold, and the means with which it is compared.

The input is score shards of many models, and the output score shards of their combination, on which students train.
"""
