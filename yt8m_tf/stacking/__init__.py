"""Stacking: LightGBM over the scores of several models, out of fold, and the means that it is compared with.

Score shards of many models go in, score shards of their combination come out: what students are trained on.
"""
