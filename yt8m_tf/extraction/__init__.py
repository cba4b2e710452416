"""From video files to shards: decoding, features of frames and of sound, and the run over a folder."""
