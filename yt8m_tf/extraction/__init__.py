"""From video files to shards: decoding, features of frames and of sound, and extraction from a whole folder."""
