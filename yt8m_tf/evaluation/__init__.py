"""Evaluates runs and SavedModels: metrics, files of metrics, class weights for TensorBoard's projector."""
