"""Score shards: a model's scores of every video of a shard, in a file of the same name and order.

`DIRECTORY/<shard name>` contains a `tf.train.Example` for each video; `DIRECTORY/scores.json` names the model, the
classes and the shards. Models pass their scores to stacking, and stacking to students, only in this format.
"""
