"""Evaluates runs and SavedModels: metrics, their files, class weights for TensorBoard's projector."""
