"""Score shards: what a model says of every video of a shard, in a file of the same name and order.

`DIRECTORY/<shard name>` holds a `tf.train.Example` for each video; `DIRECTORY/scores.json` says which model, which
classes, which shards. They are the only thing that passes from models to stacking, and from stacking to students.
"""
