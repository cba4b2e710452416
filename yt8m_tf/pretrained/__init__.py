"""The trained model that comes with the package, and the real records to try it on."""
